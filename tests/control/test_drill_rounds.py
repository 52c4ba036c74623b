"""Drills run so often in a row as they are asked to, and one that fails fails the whole."""

import pytest

from control import verbs_drill
from control.drill import Result
from control.settings import Settings
from kernel.errors import InputError


def result(*, passed):
    orders = {"sent": 1, "acknowledged": 1, "rejected": 0, "lost": 0, "duplicated": 0}
    return Result(
        scenario="gateway-hang", passed=passed, links=[], timings={}, orders=orders, actions=[], outcome="", report="",
        problems=[],
    )  # fmt: skip


@pytest.fixture
def verdicts(monkeypatch):
    left = []
    monkeypatch.setattr(verbs_drill, "_run_one", lambda *_given, **_named: result(passed=left.pop(0)))
    return left


def run(tmp_path, times):
    return verbs_drill.run_drills("gateway-hang", tmp_path, Settings(), as_json=True, keep=False, times=times)


def test_a_drill_runs_so_many_times_and_each_is_told(verdicts, tmp_path, capsys):
    verdicts[:] = [True, True, True, True]
    assert run(tmp_path, 3)
    assert verdicts == [True]
    assert capsys.readouterr().out.count('"gateway-hang"') == 3


def test_one_run_that_fails_fails_all_and_stops_none(verdicts, tmp_path):
    verdicts[:] = [True, False, True]
    assert not run(tmp_path, 3)
    assert verdicts == []


def test_rounds_are_refused_for_the_alerts_drill(tmp_path):
    with pytest.raises(InputError, match="does not go with alerts"):
        verbs_drill.run_drills("alerts", tmp_path, Settings(), as_json=True, keep=False, times=2)
