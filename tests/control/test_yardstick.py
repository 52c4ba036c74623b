from __future__ import annotations

import functools
import json
import textwrap

import numpy as np
import pytest

from anomaly.baselines.ewma import Ewma
from anomaly.baselines.last_value import LastValue
from control.series_joint import alone
from control.yardstick import VARIABLE, Contestant, Output, Scratch, find_yard, outputs_of
from control.yardstick_contest import Contest
from control.yardstick_table import Share, budgets, table
from kernel.errors import InputError

SCORER = textwrap.dedent(
    """
    import numpy as np

    def vus_pr(*_):
        return 0.25

    def evaluate(man, get, threshold):
        rows = []
        for one in man["series"]:
            score, page, present = get(one["id"], one["n"])
            alarms = np.flatnonzero(page >= threshold)
            hits = {k for k, (a, b) in enumerate(one["events"]) for row in alarms if a <= row <= b}
            false = sum(not any(a <= row <= b for a, b in one["events"]) for row in alarms)
            rows.append({"events": len(one["events"]), "found": len(hits), "false": false, "days": 2.0,
                         "vus": vus_pr(), "top": float(score.max())})
        return None, rows

    def summary(corpus, rows, threshold):
        value = sum(r["found"] for r in rows) - 0.11 * sum(r["false"] for r in rows)
        found = {"series": len(rows), "vus_pr": rows[0]["vus"], "top": max(r["top"] for r in rows)}
        found |= {f"nab_{p}{f}": value for p in ("standard", "low_fp", "low_fn") for f in ("", "_fixed")}
        return found
    """
)
EWMA = Contestant("ewma", functools.partial(alone, Ewma))
LAST = Contestant("last-value", functools.partial(alone, LastValue))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Made series of three kinds, each with one event, and a scorer that counts."""
    folder = tmp_path / "shared" / "data" / "nab"
    folder.mkdir(parents=True)
    (tmp_path / "shared" / "tools").mkdir()
    (tmp_path / "shared" / "tools" / "score.py").write_text(SCORER)
    series = []
    for k, kind in enumerate(("up", "down", "calm")):
        values = np.random.default_rng(k).normal(10.0, 1.0, 300)
        values[200] += 40.0 * (kind != "calm")
        lines = [f"{60 * row},{value:.5f}" for row, value in enumerate(values)]
        (folder / f"{kind}.csv").write_text("\n".join(["timestamp,value", *lines]))
        events = [[200, 205]] if kind != "calm" else []
        series.append({"id": kind, "file": f"{kind}.csv", "group": "nab", "category": kind, "n": 300, "events": events})
    (folder / "manifest.json").write_text(json.dumps({"series": series}))
    monkeypatch.delenv(VARIABLE, raising=False)
    return folder


def test_the_data_is_found_beside_or_above_the_project_or_where_the_variable_says(data, tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_yard(inner).folder == data
    monkeypatch.setenv(VARIABLE, str(data))
    assert find_yard().folder == data
    monkeypatch.setenv(VARIABLE, str(inner))
    with pytest.raises(InputError, match=rf"{inner}: are not here; set {VARIABLE}"):
        find_yard()


def test_data_without_a_scorer_or_with_a_broken_manifest_is_refused_in_a_sentence(data, tmp_path, monkeypatch):
    (tmp_path / "shared" / "tools" / "score.py").rename(tmp_path / "gone.py")
    with pytest.raises(InputError, match="to score it by"):
        find_yard(tmp_path)
    (tmp_path / "gone.py").rename(tmp_path / "shared" / "tools" / "score.py")
    (data / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is no manifest"):
        find_yard(tmp_path)


def test_figures_are_the_scorers_and_what_is_slow_is_left_out_unless_asked_for(data, tmp_path):
    yard = find_yard(tmp_path)
    outputs = outputs_of(EWMA, list(yard.series()))
    whole = yard.figures(outputs, group="nab", whole=True)
    quick = yard.figures(outputs, group="nab")
    assert whole["vus_pr"] == 0.25
    assert np.isnan(quick["vus_pr"])
    assert quick["series"] == 3
    assert quick["quiet_series"] == 1
    assert yard.figures(outputs, kinds=["calm"])["days"] == 2.0
    assert yard.figures({}, group="nab")["top"] == 0.0, "a detector without outputs never says anything"


def test_a_row_that_pages_counts_however_low_its_score(data, tmp_path):
    """The alert is what pages: the scorer's threshold must not overrule it."""
    alert = np.zeros(300, dtype=np.bool_)
    alert[201] = True
    said = {name: Output(np.full(300, 0.1), alert, 0.0) for name in ("up", "down", "calm")}
    figures = find_yard(tmp_path).figures(said, group="nab")
    assert figures["nab_standard_fixed"] == pytest.approx(2 - 0.11)
    assert figures["false"] == 1


def test_kept_outputs_are_those_that_were_made_and_are_made_again_when_the_code_changes(data, tmp_path):
    series = list(find_yard(tmp_path).series())
    code = tmp_path / "code.py"
    code.write_text("one")
    scratch = Scratch(tmp_path / "scratch")
    made = scratch.outputs_of(EWMA, series, sources=[code])
    never = Contestant("ewma", functools.partial(alone, _Never))
    again = scratch.outputs_of(never, series, sources=[code])
    assert all((made[one.id].score == again[one.id].score).all() for one in series)
    code.write_text("two")
    with pytest.raises(AssertionError, match="ran"):
        scratch.outputs_of(never, series, sources=[code])


class _Never:
    def run(self, at, values, slots=None):
        raise AssertionError("ran")


def test_what_was_chosen_on_some_folders_is_reported_on_the_others(data, tmp_path):
    contest = Contest(find_yard(tmp_path), jobs=1, say=lambda _: None)
    good, bad = contest.outputs(EWMA), {}
    folds = contest.transfer([("silent", bad), ("ewma", good)])
    by = {fold.reported_on: fold for fold in folds}
    assert set(by) == {"up", "down"}, "a folder without an event has nothing to report"
    assert by["up"].chosen == "ewma"
    assert by["up"].here["nab_standard_fixed"] == by["up"].best
    assert by["up"].usual["nab_standard_fixed"] == 0.0


def test_false_alarms_are_held_against_the_budget_kind_by_kind(data, tmp_path):
    contest = Contest(find_yard(tmp_path), jobs=1, say=lambda _: None)
    shares = contest.shares(contest.outputs(LAST))
    assert [one.kind for one in shares] == ["nab: calm", "nab: down", "nab: up", "**nab, all**"]
    assert shares[-1].days == 6.0
    assert shares[-1].false == sum(one.false for one in shares[:-1])
    text = budgets([Share("a", 1, 10.0, 1), Share("b", 1, 10.0, 4)], 0.1)
    assert [line.split("|")[-2].strip() for line in text.splitlines()[2:]] == ["yes", "NO"]


def test_a_table_stands_in_columns():
    text = table(["a", "figure"], [["long name", "1"], ["b", "22.5"]])
    assert len({len(line) for line in text.splitlines()}) == 1
    assert text.splitlines()[1] == "| --------- | -----: |"
