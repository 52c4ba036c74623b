from __future__ import annotations

import csv
import functools
import gzip
import io
import shutil

import numpy as np
import pytest

from anomaly.baselines.ewma import Ewma
from anomaly.baselines.last_value import LastValue
from anomaly.detector import Scores, Verdict
from control.series_files import SeriesFile
from control.series_joint import Several, alone
from control.series_scoring import Job, score_file, score_folder, scored_blocks, series_in
from kernel.errors import InputError

MAKE = functools.partial(alone, Ewma)


def _lines(count, *, seed=1, spike=(), step=60):
    rng = np.random.default_rng(seed)
    values = 100.0 + rng.normal(0.0, 1.0, count)
    for row in spike:
        values[row] += 50.0
    return [f"{1_700_000_000 + step * row},{value:.4f}" for row, value in enumerate(values)]


def _write(path, lines, header="timestamp,value"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *lines]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def _scores(path):
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(io.StringIO(text)))


def _folder(source, target, jobs=1, **more):
    return score_folder(source, target, jobs=jobs, make=MAKE, done=lambda _: None, **more)


def test_every_row_of_every_file_gets_a_score_under_the_same_name(tmp_path):
    _write(tmp_path / "in/a/b/one.csv", _lines(300, spike=[250]))
    _write(tmp_path / "in/two.csv.gz", _lines(200))
    (tmp_path / "in/a/README.txt").write_text("no series")
    reports = _folder(tmp_path / "in", tmp_path / "out")
    assert [report.name for report in reports] == ["a/b/one.csv", "two.csv.gz"]
    assert all(report.whole for report in reports)
    rows = _scores(tmp_path / "out/a/b/one.csv")
    assert list(rows[0]) == ["timestamp", "score", "alert"]
    assert [row["timestamp"] for row in rows] == [str(1_700_000_000 + 60 * k) for k in range(300)]
    assert [k for k, row in enumerate(rows) if row["alert"] == "1"][-1] == 250
    assert all(0.0 <= float(row["score"]) <= 1.0 for row in rows)
    assert len(_scores(tmp_path / "out/two.csv.gz")) == 200
    assert not list((tmp_path / "out").rglob("*.part"))


def test_more_processes_say_the_same(tmp_path):
    for k in range(3):
        _write(tmp_path / f"in/{k}.csv", _lines(150, seed=k))
    one = _folder(tmp_path / "in", tmp_path / "one")
    two = _folder(tmp_path / "in", tmp_path / "two", jobs=2)
    assert one == two
    for k in range(3):
        assert (tmp_path / f"one/{k}.csv").read_bytes() == (tmp_path / f"two/{k}.csv").read_bytes()


def test_no_name_and_no_order_of_files_reaches_a_detector(tmp_path):
    for k in range(4):
        _write(tmp_path / f"in/web/cpu-{k}.csv.gz", _lines(200, seed=k, spike=[180]))
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(tmp_path / f"in/web/cpu-{k}.csv.gz", tmp_path / f"other/{9 - k}-renamed.csv.gz")
    _folder(tmp_path / "in", tmp_path / "out")
    _folder(tmp_path / "other", tmp_path / "out2")
    for k in range(4):
        ours = (tmp_path / f"out/web/cpu-{k}.csv.gz").read_bytes()
        assert ours == (tmp_path / f"out2/{9 - k}-renamed.csv.gz").read_bytes()


def test_one_bad_file_leaves_the_others_alone(tmp_path):
    _write(tmp_path / "in/good.csv", _lines(150))
    _write(tmp_path / "in/two-rows.csv", _lines(2))
    _write(tmp_path / "in/constant.csv", [f"{1_700_000_000 + 60 * k},5" for k in range(150)])
    _write(tmp_path / "in/words.csv", [f"{1_700_000_000 + 60 * k},high" for k in range(150)])
    (tmp_path / "in/empty.csv").write_text("")
    (tmp_path / "in/header.csv").write_text("timestamp,value\n")
    (tmp_path / "in/binary.csv").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "in/folder.csv").mkdir()
    (tmp_path / "in/gone.csv").symlink_to(tmp_path / "nowhere")
    reports = {report.name: report for report in _folder(tmp_path / "in", tmp_path / "out")}
    assert {name for name, report in reports.items() if report.whole} == {"good.csv", "two-rows.csv", "constant.csv"}
    assert "is empty" in reports["empty.csv"].error
    assert "header.csv:1: there is a header and no row" in reports["header.csv"].error
    assert "no row has a time and a value" in reports["words.csv"].error
    assert "No such file" in reports["gone.csv"].error
    assert all(str(tmp_path) not in sentence for one in reports.values() for sentence in one.sentences())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["constant.csv", "good.csv", "two-rows.csv"]


def test_rows_that_cannot_be_scored_are_said_once_a_kind_and_keep_their_place(tmp_path):
    lines = _lines(200)
    lines[120] = "not a time, 5"
    lines[130] = lines[130].split(",")[0] + ",broken"
    lines[131] = lines[131].split(",")[0] + ",inf"
    lines[140] = lines[140].split(",")[0] + ","
    lines[150] = '"odd, time",7'
    _write(tmp_path / "in/odd.csv", lines)
    (report,) = _folder(tmp_path / "in", tmp_path / "out")
    rows = _scores(tmp_path / "out/odd.csv")
    assert len(rows) == 200
    assert rows[120]["timestamp"] == "not a time"
    assert rows[150]["timestamp"] == "odd, time"
    assert {rows[k]["score"] for k in (120, 130, 131, 140, 150)} == {"0.000000"}
    assert report.scored == 195
    assert report.sentences() == [
        "odd.csv:122: 'not a time' is no time (2 such cells or rows)",
        "odd.csv:132: 'broken' in column value is no number, read as missed",
        "odd.csv:133: an infinite value in column value, read as missed",
    ]
    assert not report.whole


class _Strict:
    """Says of each row what it is given, and refuses whatever a detector must never be given."""

    def run(self, at, values, slots=None):
        count = len(at)
        back = np.r_[False, at[1:] < at[:-1]]
        verdict = np.where(back, Verdict.BACKWARD, Verdict.SCORED).astype(np.int8)
        nothing = np.zeros(count, dtype=np.bool_)
        score = np.where(np.isnan(values), np.nan, values / 1000.0)
        return Scores(score, nothing, nothing, np.zeros(count, dtype=np.int8), score, score, verdict)

    def update(self, sample):
        raise NotImplementedError


def test_what_a_detector_leaves_aside_is_said_and_its_numbers_are_kept_in_bounds(tmp_path):
    _write(tmp_path / "in/back.csv", ["10,5000", "5,2", "20,-7", "30,", "40,250"])
    (report,) = score_folder(
        tmp_path / "in", tmp_path / "out", jobs=1, make=functools.partial(alone, _Strict), done=lambda _: None
    )
    assert [row["score"] for row in _scores(tmp_path / "out/back.csv")] == [
        "1.000000", "0.002000", "0.000000", "0.000000", "0.250000",
    ]  # fmt: skip
    assert report.sentences() == ["back.csv:3: the time goes back, left aside; sort the file by time"]


def test_a_fault_of_the_program_in_one_file_is_told_and_leaves_nothing_half_written(tmp_path):
    def broken(columns):
        raise ZeroDivisionError("made")

    _write(tmp_path / "one.csv", _lines(10))
    report = score_file(Job("one.csv", tmp_path / "one.csv", tmp_path / "out/one.csv", make=broken))
    assert report.error == "one.csv: not scored, a fault of the program: ZeroDivisionError: made"
    assert not list((tmp_path / "out").iterdir())


def test_a_file_of_several_columns_pages_once_and_names_the_column_to_blame(tmp_path):
    rng = np.random.default_rng(5)
    values = rng.normal(50.0, 1.0, (300, 3))
    values[280:283, 1] += 40.0
    lines = [f"{1_700_000_000 + 60 * k},{a:.4f},{b:.4f},{c:.4f}" for k, (a, b, c) in enumerate(values)]
    _write(tmp_path / "in/machine.csv", lines, "timestamp,cpu,disk,net")
    (report,) = _folder(tmp_path / "in", tmp_path / "out", with_causes=True)
    late = [cause for cause in report.causes if cause.line == 282]
    assert next(cause.column for cause in late) == "disk"
    assert [cause.rank for cause in late] == list(range(1, len(late) + 1))
    assert [row["alert"] for row in _scores(tmp_path / "out/machine.csv")][280:283] == ["1", "0", "0"]


def test_several_columns_row_by_row_are_the_same_as_all_at_once():
    rng = np.random.default_rng(5)
    values = rng.normal(50.0, 1.0, (260, 2))
    values[200:203] += 30.0
    values[230, 1] = np.nan
    at = np.arange(260, dtype=np.int64) * 10**9
    whole = Several(2, LastValue).run(at, values)
    single = Several(2, LastValue)
    for row in range(260):
        spoken = single.update(int(at[row]), values[row], ("a", "b"))
        assert spoken.score.score == whole.score[row]
        assert spoken.score.alert == whole.alert[row]
        assert spoken.score.episode == whole.episode[row]
        assert spoken.score.score < 0.5 or spoken.sentence.startswith(("a: ", "b: ")[spoken.column])


@pytest.mark.parametrize("cut", [101, 150, 182, 299])
def test_the_score_of_a_row_does_not_change_when_later_rows_are_cut_off(tmp_path, cut):
    lines = _lines(300, spike=[180])
    lines[150] = "what, 5"
    _write(tmp_path / "whole.csv", lines)
    _write(tmp_path / "part.csv", lines[:cut])
    for name in ("whole", "part"):
        score_file(Job(name, tmp_path / f"{name}.csv", tmp_path / f"out/{name}.csv", make=MAKE))
    whole, part = ((tmp_path / f"out/{name}.csv").read_text() for name in ("whole", "part"))
    assert whole.startswith(part)


def test_a_folder_of_results_within_the_series_is_refused(tmp_path):
    _write(tmp_path / "in/a.csv", _lines(5))
    for target in ("in", "in/out", "."):
        with pytest.raises(InputError, match="lies in the same place"):
            _folder(tmp_path / "in", tmp_path / target)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        _folder(tmp_path / "in", tmp_path / "file")


def test_a_folder_without_series_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.csv"):
        series_in(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        series_in(tmp_path / "nowhere")


def test_a_file_is_scored_in_pieces_without_being_held_whole(tmp_path):
    _write(tmp_path / "long.csv", _lines(60_000))
    blocks = list(scored_blocks(SeriesFile(tmp_path / "long.csv"), make=MAKE))
    assert len(blocks) > 1
    assert sum(len(block.lines) for block, _, _ in blocks) == 60_000
