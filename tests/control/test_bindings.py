"""Actions become calls: once for a key, within bounds, again only after temporary failures."""

import msgspec
import pytest

from control import bindings
from control.bindings import ATTEMPTS, LivePlant, Verification
from exchange.adapters.journal_place import part_directory
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant
from runbooks.adapters.exchange_admin import ExchangeAdmin, StateHash
from runbooks.adapters.fake import FakeWorkloads, Trouble, plant
from runbooks.model import (
    HaltMarket,
    HaltSymbol,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Scale,
    SetReplicas,
    VerifyReplay,
)
from runbooks.ports import BudgetError
from tests.sim.virtual import VirtualClock, run

RESTART = RestartReplica("gateway", "gateway-1")
OUT = Scale("gateway", 1, 2, 4)
IN = Scale("gateway", -1, 2, 4)


class Levers(ExchangeAdmin):
    """The engine's administration without an engine; errors in `troubles` come first, one a call."""

    def __init__(self, *troubles):
        self.calls, self.troubles = [], list(troubles)
        self.live = StateHash(42, "a" * 64)
        self.asked = []

    async def state_hash(self, engine=""):
        self.asked.append(engine)
        return self.live

    async def _call(self, method, path, body=None):
        self.calls.append((path, body))
        if self.troubles:
            raise self.troubles.pop(0)
        return b"{}"


class Bench:
    def __init__(self, tmp_path, *troubles):
        self.workloads = FakeWorkloads(plant(), now=lambda: Instant(7))
        self.levers = Levers(*troubles)
        self.plant = LivePlant(self.workloads, self.levers, VirtualClock(), tmp_path, tmp_path)
        self.forbidden_from = 10**9
        self.asked = 0

    def forbidden(self):
        self.asked += 1
        return self.asked >= self.forbidden_from

    def do(self, action, key="k"):
        return run(self.plant.carry_out(action, key, forbidden=self.forbidden))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_restart_tells_the_process_before_and_after(bench):
    answer = bench.do(RESTART)
    assert answer.ok
    assert answer.before["pid"] != answer.after["pid"]
    assert bench.workloads.writes == ["k"]


@pytest.mark.parametrize("action", [RESTART, OUT, SetReplicas("gateway", 3, only_if=2)])
def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(bench, action):
    bench.workloads.fail_next(Trouble.LOST_ANSWER)
    answer = bench.do(action)
    assert answer.ok
    assert bench.workloads.writes == ["k"]
    again = bench.do(action)
    assert (again.before, again.after) == (answer.before, answer.after)
    assert bench.workloads.writes == ["k"]


def test_temporary_failures_are_tried_again_a_few_times(bench):
    bench.workloads.fail_next(*[Trouble.NO_ANSWER] * (ATTEMPTS - 1))
    assert bench.do(RESTART).ok
    bench.workloads.fail_next(*[Trouble.NO_ANSWER] * ATTEMPTS)
    answer = bench.do(RESTART, "other")
    assert not answer.ok
    assert not answer.refused
    assert answer.error == f"gave up after {ATTEMPTS} tries: the plant does not answer"


def test_a_budget_that_stays_closed_refuses_and_nothing_was_touched(bench):
    bench.workloads.fail_next(*[Trouble.BUDGET] * 40)
    assert bench.do(RESTART).refused == RefusalReason.DISRUPTION_BUDGET
    assert bench.workloads.writes == []


@pytest.mark.parametrize("part", [True, False], ids=["a part was done", "a try had no answer"])
def test_a_budget_that_closes_after_something_was_tried_is_no_refusal(bench, monkeypatch, part):
    monkeypatch.setattr(BudgetError, "touched", part)
    bench.workloads.fail_next(*[] if part else [Trouble.NO_ANSWER], *[Trouble.BUDGET] * 40)
    answer = bench.do(RESTART)
    assert not answer.ok
    assert not answer.refused, "a refusal says that nothing was touched"


def test_nothing_is_tried_again_once_it_is_forbidden_and_nothing_is_claimed(bench):
    bench.workloads.fail_next(Trouble.NO_ANSWER)
    bench.forbidden_from = 1
    answer = bench.do(RESTART)
    assert not answer.ok
    assert not answer.refused, "a refusal would say that nothing was touched"
    assert "before it was known whether it was done" in answer.error
    assert not bench.workloads.writes


def test_a_permanent_failure_is_not_tried_again(tmp_path):
    bench = Bench(tmp_path, PermanentError("no such symbol"))
    answer = bench.do(HaltSymbol("TWA", "gap"))
    assert (answer.ok, answer.error) == (False, "no such symbol")
    assert len(bench.levers.calls) == 1


def test_scaling_stays_within_the_runbooks_bounds(bench):
    assert bench.do(OUT, "a").after == {"replicas": "3"}
    assert bench.do(Scale("gateway", 5, 2, 4), "b").after == {"replicas": "4"}
    full = bench.do(OUT, "c")
    assert (full.ok, full.refused) == (False, RefusalReason.BLAST_RADIUS)
    assert bench.do(Scale("gateway", -9, 2, 4), "d").after == {"replicas": "2"}
    assert bench.do(IN, "e").refused == RefusalReason.BLAST_RADIUS
    assert bench.workloads.writes == ["a", "b", "d"]


def test_a_single_writer_is_not_scaled(bench):
    assert bench.do(Scale("engine", 1, 1, 2)).refused == RefusalReason.SINGLETON
    assert not bench.workloads.writes


def test_what_somebody_else_changed_is_not_put_back(bench):
    bench.do(OUT, "a")
    bench.do(OUT, "somebody")
    answer = bench.do(SetReplicas("gateway", 2, only_if=3), "a/undo")
    assert answer.refused == RefusalReason.CONFLICT
    assert bench.workloads.writes == ["a", "somebody"]


def test_an_unknown_target_is_refused(bench):
    assert bench.do(RestartReplica("nothing", "nothing-1")).refused == RefusalReason.NO_TARGET
    unknown = bench.do(RestartReplica("gateway", "gateway-9"))
    assert "has no replica 'gateway-9'" in unknown.error


@pytest.mark.parametrize(
    ("action", "path", "body"),
    [
        (HaltSymbol("TWA", "gap"), "/admin/halt", {"key": "k", "symbol": "TWA", "reason": "gap"}),
        (ResumeSymbol("TWA"), "/admin/resume", {"key": "k", "symbol": "TWA"}),
        (HaltMarket("gap"), "/admin/halt", {"key": "k", "symbol": None, "reason": "gap"}),
        (ResumeMarket(), "/admin/resume", {"key": "k", "symbol": None}),
    ],
)
def test_the_exchanges_levers_are_pulled_with_the_key_again_after_a_lost_answer(tmp_path, action, path, body):
    bench = Bench(tmp_path, TemporaryError("lost"))
    assert bench.do(action).ok
    assert bench.levers.calls == [(path, body), (path, body)]


@pytest.mark.parametrize(
    ("replayed", "ok"),
    [
        (Verification(42, "a" * 64), True),
        (Verification(42, "b" * 64), False),
        (Verification(41, "a" * 64), False),
    ],
)
def test_only_an_equal_replay_verifies(bench, monkeypatch, replayed, ok):
    async def replay(journal, instruments, until):
        assert until == 42
        return replayed

    monkeypatch.setattr(bindings, "replay", replay)
    answer = bench.do(VerifyReplay("engine"))
    assert answer.ok is ok
    assert ok or "the market must not reopen" in answer.error


@pytest.mark.parametrize(
    ("replica", "meant"), [("engine-2", ["engine-2"]), ("", ["engine-1", "engine-2"]), ("engine-3", [])]
)
def test_of_several_engines_the_named_ones_journal_is_held_against_what_it_says(
    bench, monkeypatch, tmp_path, replica, meant
):
    replayed = []

    async def replay(journal, instruments, until):
        replayed.append(journal)
        return Verification(until, "a" * 64)

    monkeypatch.setattr(bindings, "replay", replay)
    for place in (0, 1):
        part_directory(tmp_path, place).mkdir()
    answer = bench.do(VerifyReplay("engine", replica))
    assert (replayed, bench.levers.asked) == ([tmp_path / name for name in meant], meant)
    assert answer.ok is bool(meant)
    assert meant or answer.error == "there is no engine engine-3; there are engine-1, engine-2"


def test_of_several_engines_one_may_be_reopened_alone(bench):
    assert bench.do(ResumeMarket("engine-2")).ok
    assert bench.levers.calls == [("/admin/resume?engine=engine-2", {"key": "k", "symbol": None})]


async def test_a_journal_that_cannot_be_replayed_is_a_sentence_not_a_traceback(tmp_path):
    (tmp_path / "instruments.json").write_bytes(msgspec.json.encode([]))
    with pytest.raises(PermanentError, match="cannot be replayed") as caught:
        await bindings.replay(tmp_path / "nowhere", tmp_path / "instruments.json", 1)
    assert "Traceback" not in str(caught.value)
