"""One saga for a person: told step by step, asked again or given up by hand, and who did it stays written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
import pytest

from exchange.adapters.http import Faults, HttpServer, listen
from exchange.adapters.saga_desk import DeedRefusedError, UnknownSagaError, Wish, steps_of
from exchange.adapters.saga_part import saga_app
from exchange.saga import Answer, Deed, Reason, Rules, Step, Verdict, instruction
from exchange.saga_coordinator import Begun, Coordinator, Entry, GaveUp, Told
from exchange.saga_messages import Style
from exchange.types import AccountId, TradeId
from kernel.time import SECOND, Duration, Instant
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from tests.exchange.saga_plant import MONEY, PARTS, QUICK, Plant, some_trades, trade

SECRET = "a-secret-of-this-estate"
WISH = Wish(by="anna", why="the account is closed")
ONE = TradeId(1)
IT = instruction(trade(1), MONEY)
UP_TO_THE_PIVOT = (Step.RESERVE_CASH, Step.RESERVE_SECURITIES, Step.CHARGE_FEES)


def entries(*steps: Step) -> list[Entry]:
    done = [Told(Instant(number), Answer(step, IT, Verdict.DONE)) for number, step in enumerate(steps, 2)]
    return [Begun(Instant(1), IT), *done]


def test_the_steps_of_a_saga_are_told_with_the_one_that_is_waited_for():
    steps = steps_of(entries(*UP_TO_THE_PIVOT))
    assert [(one.step, one.verdict) for one in steps] == [
        ("reserve_cash", "done"), ("reserve_securities", "done"), ("charge_fees", "done"), ("clear", ""),
    ]  # fmt: skip
    assert (steps[1].since, steps[1].answered) == (steps[0].answered, steps[2].since)
    assert (steps[-1].service, steps[-1].answered) == ("clearing", "")


def test_a_saga_that_was_given_up_and_a_refusal_that_leads_nowhere_are_told_as_such():
    given_up = [*entries(Step.RESERVE_CASH), GaveUp(Instant(9), ONE)]
    assert [(one.step, one.verdict) for one in steps_of(given_up)][1:] == [
        ("reserve_securities", "given_up"), ("void", ""),
    ]  # fmt: skip
    late = Answer(Step.VOID, IT, Verdict.REFUSED, Reason.NOT_RESERVED)
    stands = steps_of([*given_up, Told(Instant(10), late)])
    assert [(one.step, one.verdict, one.reason) for one in stands][2:] == [
        ("void", "refused", "not_reserved"), ("void", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("done", range(7))
def test_a_saga_is_given_up_by_hand_before_the_pivot_and_at_it_only(done):
    order = (*UP_TO_THE_PIVOT, Step.CLEAR, Step.DELIVER_SECURITIES, Step.DELIVER_CASH)
    lead = Coordinator(QUICK, entries(*order[:done]))
    assert (lead.give_up(ONE, Instant(99)) is not None) == (done <= len(UP_TO_THE_PIVOT))
    assert lead.give_up(TradeId(2), Instant(99)) is None


def test_what_is_asked_again_by_hand_waits_for_nothing():
    lead = Coordinator(QUICK, entries())
    assert [len(lead.asks(Instant(1))), len(lead.asks(Instant(1)))] == [1, 0]
    asked = lead.asked(ONE)
    assert asked is not None
    assert asked.times == 1
    lead.ask_again(ONE)
    assert len(lead.asks(Instant(1))) == 1


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: tmp_path / f"{name}.sqlite"


@contextlib.asynccontextmanager
async def running(plant: Plant, parts: Sequence[str]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(plant.keep_running(name)) for name in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - many things change it
            await asyncio.sleep(0.02)


WITHOUT = [name for name in PARTS if name != "securities"]


async def test_a_stuck_saga_is_shown_retried_and_compensated_by_hand_where_a_coordinator_leads(place):
    times = QUICK.__class__(Duration(60 * SECOND), Duration(60 * SECOND), Duration(60 * SECOND), Duration(1))
    plant = Plant(place, Style.ORCHESTRATED, [trade(1)], times=times)
    async with running(plant, WITHOUT):
        await until(lambda: plant.telemetry["coordinator"].steps == 1)
        part = plant.parts["coordinator"]
        stuck = await part.view(ONE)
        assert (stuck.state, stuck.step, stuck.waits_for, stuck.stuck, stuck.asked) == (
            "open", "reserve_securities", "securities", "unanswered", 1,
        )  # fmt: skip
        assert [(one.step, one.verdict) for one in stuck.steps] == [
            ("reserve_cash", "done"),
            ("reserve_securities", ""),
        ]
        cash = await plant.parts["cash"].view(ONE)
        assert [(one.step, one.verdict) for one in cash.steps] == [("reserve_cash", "done")]
        assert [(one.giver, one.taker, one.amount) for one in cash.moves] == [("p", "$escrow", IT.cost)]
        with pytest.raises(UnknownSagaError, match="fees was not asked for anything of trade 1"):
            await plant.parts["fees"].view(ONE)
        with pytest.raises(DeedRefusedError, match="does what the coordinator asks"):
            await plant.parts["cash"].do(ONE, Deed.RETRY, WISH)
        with pytest.raises(
            UnknownSagaError, match="no saga of trade 7 was begun; trades of part 0 are read up to record 1"
        ):
            await part.do(TradeId(7), Deed.RETRY, WISH)
        again = await part.do(ONE, Deed.RETRY, Wish("bo", "mended"))
        assert (again.asked, [(one.deed, one.who, one.why) for one in again.deeds]) == (1, [("retry", "bo", "mended")])
        await until(lambda: plant.broker.depth("saga.securities") == 2)
        given_up = await part.do(ONE, Deed.COMPENSATE, WISH)
        assert given_up.step in {"void", "refund_fees", "release_securities"}
        with pytest.raises(DeedRefusedError, match="is taken back: it waits for"):
            await part.do(ONE, Deed.COMPENSATE, WISH)
        async with running(plant, ["securities"]):
            await until(lambda: plant.telemetry["coordinator"].ends["cancelled"] == 1)
        ended = await part.view(ONE)
        assert (ended.state, ended.step, bool(ended.ended)) == ("cancelled", "", True)
        assert [(one.deed, one.who) for one in ended.deeds] == [("retry", "bo"), ("compensate", "anna")]
        for deed in Deed:
            with pytest.raises(DeedRefusedError, match="ended; nothing can be done to it"):
                await part.do(ONE, deed, WISH)
    plant.judge()


async def test_a_stuck_saga_is_shown_retried_and_compensated_by_hand_where_nobody_leads(place):
    times = QUICK.__class__(Duration(60 * SECOND), Duration(60 * SECOND), Duration(60 * SECOND), Duration(1))
    plant = Plant(place, Style.CHOREOGRAPHED, [trade(1)], times=times)
    async with running(plant, WITHOUT):
        await until(lambda: plant.telemetry["cash"].verdicts.total() == 1)
        part = plant.parts["coordinator"]
        stuck = await part.view(ONE)
        assert (stuck.state, stuck.step, stuck.waits_for, stuck.stuck) == ("open", "begin.done", "cash", "no_end")
        cash = await plant.parts["cash"].view(ONE)
        assert (cash.step, cash.waits_for, cash.asked) == ("reserve_cash.done", "securities", 1)
        again = await part.do(ONE, Deed.RETRY, WISH)
        assert [(one.deed, one.who) for one in again.deeds] == [("retry", "anna")]
        await plant.parts["cash"].do(ONE, Deed.RETRY, WISH)
        await until(lambda: plant.broker.depth("saga.securities.events") == 2)
        for name, deed, why in (("cash", Deed.COMPENSATE, "who begins sagas"), ("fees", Deed.RETRY, "says nothing")):
            with pytest.raises(DeedRefusedError, match=why):
                await plant.parts[name].do(ONE, deed, WISH)
        given_up = await part.do(ONE, Deed.COMPENSATE, WISH)
        assert (given_up.step, given_up.waits_for) == ("begin.given_up", "clearing")
        with pytest.raises(DeedRefusedError, match="was given up before"):
            await part.do(ONE, Deed.COMPENSATE, WISH)
        async with running(plant, ["securities"]):
            await until(lambda: plant.telemetry["coordinator"].ends.total() == 1)
        ended = await part.view(ONE)
        assert (ended.state, ended.step) in {("cancelled", "release_cash.done"), ("settled", "deliver_cash.done")}
        with pytest.raises(DeedRefusedError, match="was heard"):
            await part.do(ONE, Deed.RETRY, WISH)
    plant.judge()


async def test_one_saga_over_http_wants_the_admin_secret_a_name_and_a_reason_for_what_changes_it(place):
    plant = Plant(place, Style.ORCHESTRATED, some_trades(2), rules=Rules(suspended=frozenset({AccountId("none")})))
    async with running(plant, PARTS):
        await until(lambda: plant.telemetry["coordinator"].ends["settled"] == 2)
        app = saga_app(plant.parts["coordinator"], Exporter(Role.SAGA), Faults(frozenset(), allowed=False), SECRET)
        server = HttpServer(app, listen(0))
        await server.start()
        bearer, wish = {"Authorization": f"Bearer {SECRET}"}, {"by": "anna", "why": "a reason"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

            async def post(path: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
                async with session.post(path, json=body, headers=headers) as answer:
                    return answer.status, str((await answer.json())["error"])

            async with session.get("/v1/sagas/1") as answer:
                told = await answer.json()
            assert (answer.status, told["state"], len(told["steps"])) == (200, "settled", 6)
            for path in ("/v1/sagas/99", f"/v1/sagas/{2**64}"):
                async with session.get(path) as answer:
                    assert answer.status == 404
            assert (await post("/v1/sagas/1/retry", wish, {}))[0] == 401
            assert (await post("/v1/sagas/1/retry", {"by": "anna", "why": ""}, bearer))[0] == 400
            assert (await post("/v1/sagas/1/retry", {"why": "a reason"}, bearer))[0] == 400
            assert (await post("/v1/sagas/99/compensate", wish, bearer))[0] == 404
            assert await post("/v1/sagas/1/compensate", wish, bearer) == (
                409, "the saga of trade 1 ended; nothing can be done to it any more",
            )  # fmt: skip
        await server.stop()
