from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from control.yardstick import VARIABLE

RUN = CliRunner()
DAYS = 3
STEP_S = 300


def _tapewatch(*words):
    return RUN.invoke(app, ["anomaly", *map(str, words)])


def _values(kind, seed=2):
    rng = np.random.default_rng(seed)
    count = DAYS * 86_400 // STEP_S
    values = {
        "noise": 100.0 + rng.normal(0.0, 3.0, count),
        "day": 100.0 + 30.0 * np.sin(np.arange(count) / count * DAYS * 2 * np.pi) + rng.normal(0.0, 2.0, count),
        "walk": 500.0 + rng.normal(0.0, 1.0, count).cumsum(),
        "rare": np.where(rng.random(count) < 0.03, 5.0, 0.0),
        "flat": np.full(count, 7.0),
    }[kind]
    values[600:620] += 400.0
    return values


def _text(values, *, missed=()):
    lines = [
        f"2026-03-{2 + row * STEP_S // 86_400:02}T{row * STEP_S // 3600 % 24:02}:{row * STEP_S // 60 % 60:02}:00Z,"
        + ("" if row in missed else f"{value:.4f}")
        for row, value in enumerate(values)
    ]
    return "\n".join(["timestamp,value", *lines]) + "\n"


def _rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "orders.csv").write_text(_text(_values("noise"), missed={300, 301}))
    return tmp_path / "in"


def test_a_folder_is_scored_and_the_code_says_that_all_was(folder, tmp_path):
    ran = _tapewatch("score", folder, tmp_path / "out", "--jobs", 1)
    assert ran.exit_code == 0, ran.output
    assert "1 of 1 series, 862 of 864 rows scored" in ran.stdout
    rows = _rows(tmp_path / "out" / "deep" / "orders.csv")
    assert len(rows) == 864
    assert rows[0]["timestamp"] == "2026-03-02T00:00:00Z"
    alerts = [k for k, row in enumerate(rows) if row["alert"] == "1"]
    assert any(600 <= row < 620 for row in alerts)
    assert not any(row < 100 for row in alerts)
    assert max(float(row["score"]) for row in rows[600:620]) >= 0.5


def test_the_summary_is_json_and_troubles_are_on_standard_error(folder, tmp_path):
    (folder / "bad.csv").write_text("timestamp,value\nnever,1\n")
    (folder / "odd.csv").write_text(_text(_values("noise")).replace("T10:00:00Z,", "T10:00:00Z,high"))
    ran = _tapewatch("score", folder, tmp_path / "out", "--jobs", 1, "--json")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    assert told["files"] == 3
    assert told["files_scored"] == 2
    by = {one["name"]: one for one in told["series"]}
    assert by["deep/orders.csv"]["troubles"] == []
    assert by["odd.csv"]["troubles"][0].startswith("odd.csv:122: ")
    assert "bad.csv:2: no time in column 1" in ran.stderr
    assert "odd.csv:122: " in ran.stderr


def test_rows_left_aside_are_marked_in_the_summary_and_where_one_asks(folder, tmp_path):
    """The result itself keeps its three columns and the file's rows: whoever reads it counts on that."""
    lines = _text(_values("noise")).splitlines()
    day = "2026-03-03T0"
    lines[400:400] = [lines[399], lines[399]]  # lines 401 and 402 of the file repeat line 400
    lines[700:700] = [f"{day}0:00:00Z,7"]  # line 701 goes back
    (folder / "odd.csv").write_text("\n".join(lines) + "\n")
    ran = _tapewatch("score", folder, tmp_path / "out", "--jobs", 1, "--json")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    aside = {"duplicate": {"rows": 2, "first": "odd.csv:401"}, "backward": {"rows": 1, "first": "odd.csv:701"}}
    assert told["left_aside"] == aside
    assert {one["name"]: one["left_aside"] for one in told["series"]} == {"deep/orders.csv": {}, "odd.csv": aside}
    rows = _rows(tmp_path / "out" / "odd.csv")
    assert (list(rows[0]), len(rows)) == (["timestamp", "score", "alert"], 867)
    assert rows[399]["score"] == rows[400]["score"] == rows[398]["score"]
    said = " ".join(_tapewatch("score", folder, tmp_path / "out", "--jobs", 1).stdout.split())
    assert "2 rows were left aside, with the time of the row before, first odd.csv:401" in said
    assert "one row was left aside, with a time before that of a row before, first odd.csv:701" in said

    stamp = lines[399].split(",")[0]
    asked = json.loads(_tapewatch("explain", folder / "odd.csv", "--json", "--at", stamp).stdout)["told"]
    assert [(one["row"], one["left_aside"]) for one in asked] == [(399, False), (400, True), (401, True)]
    said = " ".join(_tapewatch("explain", folder / "odd.csv", "--at", f"{day}0:00:00Z").stdout.split())
    assert "it was left aside: its time lies before that of a row before it" in said
    assert "score none of its own, the result has 0." in said


@pytest.mark.parametrize(
    "words", [("nowhere", "out"), (".", "out"), ("in", "in/out"), ("in",), ("in", "out", "--jobs", "0")]
)
def test_wrong_use_is_said_in_a_sentence_without_a_trace(folder, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (folder / "deep" / "orders.csv").rename(tmp_path / "in" / "deep" / "orders.csv.bak") if words[0] == "." else None
    ran = _tapewatch("score", *words)
    assert ran.exit_code == 2
    assert ran.exception is None or isinstance(ran.exception, SystemExit)
    assert ran.stderr
    assert "Traceback" not in ran.output


@pytest.mark.parametrize("kind", ["noise", "day", "walk", "rare", "flat"])
def test_scores_are_the_same_to_the_byte_when_later_rows_are_cut_off(tmp_path, kind):
    """Under other names as well: the name says how long a file is, and nothing of it may show."""
    text = _text(_values(kind), missed={200, 201, 202})
    lines = text.splitlines(keepends=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "whole.csv").write_text(text)
    cuts = (60, 110, 605, 700)
    for cut in cuts:
        (tmp_path / "in" / f"part-{cut}.csv").write_text("".join(lines[: cut + 1]))
    ran = _tapewatch("score", tmp_path / "in", tmp_path / "out", "--jobs", 1)
    assert ran.exit_code == 0, ran.output
    whole = (tmp_path / "out" / "whole.csv").read_text()
    for cut in cuts:
        assert whole.startswith((tmp_path / "out" / f"part-{cut}.csv").read_text())
        assert len((tmp_path / "out" / f"part-{cut}.csv").read_text().splitlines()) == cut + 1


def test_columns_behind_an_alert_are_written_by_contribution(tmp_path):
    rng = np.random.default_rng(6)
    values = rng.normal(50.0, 1.0, (800, 4))
    values[700:720, 2] += 80.0
    lines = [f"{1_772_400_000 + 60 * k}," + ",".join(f"{v:.3f}" for v in row) for k, row in enumerate(values)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "machine.csv").write_text("\n".join(["timestamp,cpu,memory,disk,net", *lines]))
    ran = _tapewatch("score", tmp_path / "in", tmp_path / "out", "--jobs", 1, "--causes", tmp_path / "causes.csv")
    assert ran.exit_code == 0, ran.output
    rows = _rows(tmp_path / "causes.csv")
    first = [row for row in rows if 700 <= int(row["line"]) - 2 < 720]
    assert first[0]["column"] == "disk"
    assert first[0]["rank"] == "1"


def test_each_page_is_explained_and_drawn(folder, tmp_path):
    file = folder / "deep" / "orders.csv"
    ran = _tapewatch("explain", file, "--plot", tmp_path / "orders.svg")
    assert ran.exit_code == 0, ran.output
    assert "expected" in ran.stdout
    assert "pages; row 601" in ran.stdout
    assert "<svg" in (tmp_path / "orders.svg").read_text()
    told = json.loads(_tapewatch("explain", file, "--json", "--at", "2026-03-02T12:00:00Z").stdout)
    assert told["told"][0]["row"] == 145
    assert told["told"][0]["low"] < told["told"][0]["high"]


def test_each_channel_says_what_it_gave_to_a_page_and_to_a_row_asked_about(folder):
    file = folder / "deep" / "orders.csv"
    (page, *_) = json.loads(_tapewatch("explain", file, "--json").stdout)["told"]
    each = {one["channel"]: one for one in page["contributions"]}
    assert len(each) == 11
    assert each["novelty"]["value"] == pytest.approx(_values("noise")[600], abs=1e-4)
    assert each["novelty"]["record_low"] < 100 < each["novelty"]["record_high"] < each["novelty"]["value"]
    assert sum(one["votes"] is True for one in each.values()) >= 3
    assert (each["spike"]["votes"], each["same clock"]["value"]) == (None, None)
    lines = _tapewatch("explain", file).stdout.splitlines()
    shown = next(line for line in lines if line.split()[:1] == ["novelty"])
    assert shown.split()[-5:] == ["1,000,000", "yes:", "beyond", "its", "record"]
    calm = _tapewatch("explain", file, "--at", "2026-03-03T12:00:00Z").stdout
    assert "no: within its record" in calm
    assert "yes:" not in calm
    missed = json.loads(_tapewatch("explain", file, "--json", "--at", "2026-03-03T01:00:00Z").stdout)["told"]
    assert (missed[0]["verdict"], missed[0]["contributions"]) == ("missed", [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("orders.csv", "--at", "noon"), "is no time"),
        (("orders.csv", "--at", "2027-01-01"), "lies outside orders.csv; it goes from"),
        (("nowhere.csv",), "No such file"),
        (("orders.csv", "--plot", "a.jpeg"), "end the name in .svg or .png"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_sentence(folder, monkeypatch, words, said):
    monkeypatch.chdir(folder / "deep")
    ran = _tapewatch("explain", *words)
    assert ran.exit_code == 2
    assert said in " ".join(ran.stderr.split())


def test_looking_back_tells_pages_a_day_and_the_budget(folder, tmp_path):
    ran = _tapewatch("backtest", folder, "--plots", tmp_path / "pages")
    assert ran.exit_code == 0, ran.output
    assert "of the budget if every page was false" in ran.stdout
    assert (tmp_path / "pages" / "deep-orders.svg").exists()
    told = json.loads(
        _tapewatch("backtest", folder, "--json", "--from", "2026-03-03", "--to", "2026-03-04T06:00:00Z").stdout
    )
    assert told["series"][0]["rows"] == 361
    assert any(page["at"].startswith("2026-03-04T0") for page in told["pages"])


def test_a_length_of_time_counts_back_from_the_newest_time_of_the_files(folder):
    """Recorded on days long past, or to come: now has nothing to do with it."""
    (folder / "older.csv").write_text(_text(_values("day")[:288]))
    ran = _tapewatch("backtest", folder, "--json", "--from", "24h", "--to", "6h")
    told = json.loads(ran.stdout)
    # The folder's newest time is 2026-03-04T23:55:00Z, and it is the same for every file of it.
    assert [(one["name"], one["rows"]) for one in told["series"]] == [("deep/orders.csv", 217)]
    assert "counted back from 2026-03-04T23:55:00Z" in " ".join(ran.stderr.split())
    assert "older.csv: no reading in that time" in ran.stderr
    asked = json.loads(_tapewatch("explain", folder / "deep" / "orders.csv", "--json", "--at", "5m").stdout)
    assert asked["told"][0]["at"].startswith("2026-03-04T23:50:00")
    assert _tapewatch("backtest", folder, "--from", "6h", "--to", "24h").exit_code == 2


def test_without_a_time_in_any_file_nothing_can_be_counted_back(tmp_path):
    (tmp_path / "bad.csv").write_text("timestamp,value\nnever,1\n")
    ran = _tapewatch("backtest", tmp_path, "--from", "24h")
    assert ran.exit_code == 2
    assert "no series in it has a time" in " ".join(ran.stderr.split())


def test_looking_back_without_anything_to_look_at_says_what_to_name(tmp_path):
    ran = _tapewatch("backtest", "--state", tmp_path, "--from", "1h")
    assert ran.exit_code == 2
    assert "--prometheus" in ran.stderr
    ran = _tapewatch("backtest", "--prometheus", "http://127.0.0.1:9", "--query", "up", "--from", "1h")
    assert ran.exit_code == 4
    assert "http://127.0.0.1:9" in ran.stderr
    ran = _tapewatch("backtest", tmp_path, "--query", "up")
    assert ran.exit_code == 2
    assert "not both" in ran.stderr
    ran = _tapewatch("backtest", tmp_path, "--from", "2026-03-04", "--to", "2026-03-03")
    assert ran.exit_code == 2


def test_the_bench_without_data_says_how_to_name_it(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    ran = _tapewatch("bench")
    assert ran.exit_code == 2
    assert VARIABLE in ran.stderr
    ran = _tapewatch("bench", "--with", "crystal-ball")
    assert ran.exit_code == 2
    assert "known are all, windowed-gaussian" in " ".join(ran.stderr.split())
