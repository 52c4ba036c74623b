"""The verbs `exchange settle`: what they ask of which part, what they print, and with which code they end."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from control import verbs_settle
from control.errors import NotFoundError, RefusedByRailError
from control.layout import Layout
from control.state_dir import StateDir
from kernel.errors import TemporaryError
from tests.control.test_cli import run

SAGA = {
    "trade_id": 7, "part": "coordinator", "style": "orchestrated", "state": "open", "traded": "", "begun": "t0",
    "instruction": {"lots": 3, "asset": "AAA", "cost": 3_150_000, "buyer": "p", "seller": "q[x]"}, "ended": "",
    "step": "reserve_securities", "waits_for": "securities", "since": "t1", "asked": 3, "asked_last": "t2",
    "stuck": "unanswered", "refusal": "", "moves": [],
    "steps": [{"step": "reserve_cash", "service": "cash", "since": "t0", "answered": "t1", "verdict": "done",
               "reason": ""}],
    "deeds": [{"at": "t3", "deed": "retry", "who": "bo", "why": "mended"}],
}  # fmt: skip
CASH = {
    "step": "", "waits_for": "", "steps": [{"step": "reserve_cash", "verdict": "done", "reason": ""}],
    "moves": [{"step": "reserve_cash", "giver": "p", "taker": "$escrow", "asset": "$cash", "amount": 3_150_001}],
}  # fmt: skip
STATUS = {
    "style": "orchestrated", "states": {"open": 2, "settled": 40}, "steps": {"reserve_securities": 2},
    "stuck": [{"trade_id": 7, "step": "reserve_securities", "service": "securities", "reason": "unanswered",
               "refusal": "", "for_s": 31.4}],
}  # fmt: skip


class FakePlant:
    """An estate with a coordinator and two services, one of which is away."""

    def __init__(self, style: str = "orchestrated") -> None:
        parts = ("saga-coordinator-1", "saga-cash-1", "saga-fees-1")
        self.addresses = SimpleNamespace(workloads={"saga": tuple(SimpleNamespace(id=one) for one in parts)})
        self.asked: list[tuple[str, str, str, Any]] = []
        self.saga = {**SAGA, "style": style}

    def role(self, method: str, replica: str, path: str, body: object = None) -> Any:
        self.asked.append((method, replica, path, body))
        if replica == "saga-fees-1":
            raise TemporaryError("saga-fees-1 does not answer")
        if path == "/v1/sagas":
            return STATUS
        if "/99" in path:
            raise NotFoundError("no saga of trade 99 was begun")
        if path.endswith("/compensate"):
            raise RefusedByRailError("the saga of trade 7 is cleared")
        return self.saga if "coordinator" in replica else CASH


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> FakePlant:
    made = FakePlant()
    monkeypatch.setattr(verbs_settle, "_plant", lambda _: made)
    monkeypatch.setattr("control.faults.connect", lambda _: made)
    return made


def test_a_saga_is_shown_with_its_steps_every_service_and_what_people_did(plant):
    code, out, _ = run("exchange", "settle", "show", 7)
    assert code == 0
    for words in (
        "7: 3 lots of AAA for 3.150000, q[x] to p", "waits for securities", "stuck     unanswered", "asked     3 times",
        "saga-cash-1: reserve_cash done", "reserve_cash: 3.150001 from p to $escrow", "saga-fees-1 does not answer",
        "t3  retry by bo: mended",
    ):  # fmt: skip
        assert words in out
    code, out, _ = run("exchange", "settle", "show", 7, "--json")
    told = json.loads(out)
    assert (code, told["saga"], told["services"]["saga-cash-1"]) == (0, SAGA, CASH)
    assert told["services"]["saga-fees-1"] == {"error": "saga-fees-1 does not answer"}


def test_how_all_stand_is_listed_and_stuck_trades_complete(plant):
    code, out, _ = run("exchange", "settle", "list")
    assert (code, "2 open, 40 settled (orchestrated)" in out, "2  at reserve_securities" in out) == (0, True, True)
    assert json.loads(run("exchange", "settle", "list", "--json")[1]) == STATUS
    context: Any = SimpleNamespace(params={})
    assert verbs_settle.complete_trade(context, "") == ["7"]
    assert verbs_settle.complete_trade(context, "8") == []


def test_a_deed_goes_to_the_coordinator_with_who_and_why(plant):
    code, out, _ = run("exchange", "settle", "retry", 7, "--why", " mended ", "--by", "anna")
    assert (code, "retry by anna is written down; it stands at reserve_securities" in out) == (0, True)
    wish = {"by": "anna", "why": "mended"}
    assert plant.asked == [("POST", "saga-coordinator-1", "/v1/sagas/7/retry", wish)]
    assert json.loads(run("exchange", "settle", "retry", 7, "--why", "mended", "--json")[1]) == SAGA


def test_without_a_coordinator_every_part_says_again_what_it_says(plant):
    plant.saga["style"] = "choreographed"
    code, _, errors = run("exchange", "settle", "retry", 7, "--why", "mended")
    assert [replica for _, replica, _, _ in plant.asked] == ["saga-coordinator-1", "saga-cash-1", "saga-fees-1"]
    assert (code, "saga-fees-1 does not answer" in errors) == (0, True)


def test_each_refusal_has_its_code(plant):
    assert run("exchange", "settle", "compensate", 7, "--why", "closed")[0] == 3
    code, _, errors = run("exchange", "settle", "show", 99)
    assert (code, "no saga of trade 99 was begun" in errors) == (2, True)
    code, _, errors = run("exchange", "settle", "retry", 7)
    assert (code, "a reason is kept with the saga" in errors) == (2, True)
    assert run("exchange", "settle", "show", 0)[0] == 2
    assert not [one for one in plant.asked if one[0] == "POST" and one[2].endswith("retry")]


def test_an_estate_that_does_not_run_is_said_so(tmp_path):
    layout = Layout(tmp_path / "up")
    StateDir(layout.root).release()
    assert run("exchange", "settle", "list", "--state", layout.root)[0] == 4
    assert run("exchange", "settle", "list", "--state", tmp_path / "none")[0] == 2
    context: Any = SimpleNamespace(params={"state": tmp_path / "none"})
    assert verbs_settle.complete_trade(context, "") == []


def test_an_estate_without_sagas_says_what_has_them(monkeypatch, tmp_path):
    layout = Layout(tmp_path / "up")
    StateDir(layout.root).release()
    empty = SimpleNamespace(addresses=SimpleNamespace(workloads={}))
    monkeypatch.setattr("control.faults.connect", lambda _: empty)
    code, _, errors = run("exchange", "settle", "show", 1, "--state", layout.root)
    assert (code, "settles without sagas" in errors) == (2, True)
