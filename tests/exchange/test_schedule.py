# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The market's phases turned by its calendar: in order, at their time, each once, over restarts and odd clocks."""

import datetime as dt
import time

import pytest

from exchange import commands as c
from exchange.adapters.verify import verify
from exchange.calendar import WEEKDAYS, calendar_of
from exchange.engine import ADMIN, Engine
from exchange.events import Crossed, Expired, Rejected, Traded
from exchange.schedule import Schedule
from exchange.types import HaltReason, Instrument, Side, TimeInForce, TradingPhase, Venue
from kernel.time import HOUR, MINUTE, SECOND, Instant
from tests.exchange.plant import AAA, INSTRUMENTS, client_of, engine, eventually, order
from tests.exchange.test_calendar import XETRA, at

P = TradingPhase
CALENDAR = calendar_of(XETRA)
DAY = ["pre_open", "opening_auction", "continuous", "intraday_auction", "continuous", "closing_auction", "closed"]


class Market:
    """An engine and its schedule under a clock of the test's own; `restart` loses all but what is journalled."""

    def __init__(self, calendar=CALENDAR, venue=None):
        self.calendar, self.now = calendar, Instant(0)
        self.engine = Engine([Instrument("AAA", 1000, 500)], venue)
        self.schedule = Schedule(calendar)
        self.journal, self.events = [], []

    def restart(self):
        replayed = Engine([Instrument("AAA", 1000, 500)], self.engine.venue)
        for item in self.journal:
            replayed.apply(item)
        assert replayed.state_hash() == self.engine.state_hash()
        self.engine, self.schedule = replayed, Schedule(self.calendar)

    def give(self, command):
        item = c.Sequenced(self.engine.sequence + 1, self.now, command)
        self.journal.append(item)
        told = self.engine.apply(item)
        self.events += told
        return told

    def go(self, moment, zone="Europe/Berlin"):
        """Set the clock and make the turns that are due; return them as `phase@key`."""
        self.now = at(moment, zone) if isinstance(moment, str) else moment
        made = self.schedule.due(self.engine, self.now)
        for command in made:
            self.give(command)
        return [command.key for command in made]

    def place(self, key, side, price=1000, lasts=TimeInForce.DAY, account="ann"):
        return self.give(c.PlaceOrder(account, key, AAA, side, 5, c.Limit(price), lasts))


def keys(day, *phases):
    seen = []
    for phase in phases:
        seen.append(phase)
        again = f"-{seen.count(phase)}" if seen.count(phase) > 1 else ""
        yield f"calendar-{day}-{phase}{again}"


def test_a_day_is_turned_through_at_its_times():
    market = Market()
    market.go("2026-03-02 06:00")
    made = {}
    start = at("2026-03-02 06:00")
    for minute in range(14 * 60):
        for key in market.go(Instant(start + minute * MINUTE)):
            made[key] = (start + minute * MINUTE - at("2026-03-02 00:00")) // MINUTE
    times = (8 * 60, 8 * 60 + 50, 9 * 60, 13 * 60, 13 * 60 + 2, 17 * 60 + 30, 17 * 60 + 35)
    assert made == dict(zip(keys("2026-03-02", *DAY), times, strict=True))
    assert market.engine.market_phase is P.CLOSED


def test_the_first_turn_of_a_day_opens_the_session_and_the_last_one_closes_it():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 09:00")
    market.go("2026-03-02 17:35")
    kinds = [type(item.command) for item in market.journal]
    assert kinds[:4] == [c.CloseSession, c.OpenSession, c.SetPhase, c.SetPhase]
    assert kinds[-1] is c.CloseSession
    assert market.journal[1].command.phase is P.PRE_OPEN


def test_the_auctions_of_a_day_cross_and_its_close_expires():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 08:00")
    market.place("b", Side.BUY)
    assert not any(isinstance(one, Traded) for one in market.place("s", Side.SELL, account="bob"))
    market.events.clear()
    market.go("2026-03-02 08:59:59")
    assert not market.events or not any(isinstance(one, Crossed) for one in market.events)
    market.go("2026-03-02 09:00")
    assert [one.quantity for one in market.events if isinstance(one, Crossed)] == [5]
    market.place("b2", Side.BUY, 990)
    market.go("2026-03-02 17:35")
    assert [one.price for one in market.events if isinstance(one, Expired)] == [990]


@pytest.mark.parametrize("when", ["08:00:01", "08:55", "09:00", "12:00", "13:01", "17:32", "18:00"])
def test_a_restart_in_the_middle_of_a_phase_repeats_nothing(when):
    market = Market()
    market.go("2026-03-02 07:00")
    for moment in ("08:00", "08:50", "09:00", "13:00", "13:02", "17:30", "17:35"):
        if moment <= when:
            market.go(f"2026-03-02 {moment}")
    market.go(f"2026-03-02 {when}")
    length = len(market.journal)
    market.restart()
    assert market.go(f"2026-03-02 {when}") == []
    assert len(market.journal) == length


def test_what_was_missed_is_made_up_for_in_order_with_its_crosses():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 08:00")
    market.place("b", Side.BUY)
    market.place("s", Side.SELL, account="bob")
    market.events.clear()
    market.restart()
    assert market.go("2026-03-02 17:32") == list(keys("2026-03-02", *DAY))[1:-1]
    assert sum(isinstance(one, Crossed) for one in market.events) == 1
    assert market.engine.market_phase is P.CLOSING_AUCTION


def test_days_that_were_missed_are_made_up_for_and_the_next_session_begins():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 12:00")
    market.restart()
    made = market.go("2026-03-04 09:30")
    assert made[-3:] == list(keys("2026-03-04", *DAY[:3]))
    assert made[:4] == list(keys("2026-03-02", *DAY))[3:]
    assert market.engine.market_phase is P.CONTINUOUS


def test_a_clock_that_was_set_back_repeats_nothing_and_one_that_jumped_misses_nothing():
    market = Market()
    market.go("2026-03-02 07:00")
    assert market.go("2026-03-02 13:30") == list(keys("2026-03-02", *DAY))[:5]
    assert market.go("2026-03-02 08:30") == []
    assert market.go("2026-03-02 09:10") == []
    assert market.go("2026-03-02 17:30") == list(keys("2026-03-02", *DAY))[5:6]


def test_half_days_close_early_and_holidays_do_not_open():
    market = Market()
    market.go("2026-12-29 20:00")
    assert market.go("2026-12-30 09:00") == ["calendar-2026-12-30-continuous"]
    assert market.go("2026-12-30 14:00:29") == []
    assert market.go("2026-12-30 14:00:30") == ["calendar-2026-12-30-closed"]
    christmas = Market()
    christmas.go("2026-12-24 20:00")
    assert christmas.go("2026-12-27 23:59") == []  # Friday the 25th is a holiday, then comes the weekend
    assert christmas.go("2026-12-28 08:00") == ["calendar-2026-12-28-pre_open"]


@pytest.mark.parametrize("day", ["2026-03-27", "2026-03-30", "2026-10-23", "2026-10-26"])
def test_the_turns_follow_the_wall_clock_over_a_change_of_it(day):
    market = Market()
    market.go(f"{day} 03:30")
    assert market.go(f"{day} 07:59:59") == []
    assert market.go(f"{day} 08:00") == [f"calendar-{day}-pre_open"]


def test_a_turn_in_the_hour_that_the_clock_shows_twice_is_made_once():
    data = {
        "zone": "Europe/Berlin",
        "sessions": {"night": [{"phase": "continuous", "from": "02:30"}, {"phase": "closed", "from": "04:00"}]},
        "week": {"sunday": "night"},
    }
    market = Market(calendar_of(data))
    market.go("2026-10-25 00:00")
    start, made = at("2026-10-25 00:00"), []
    for minute in range(6 * 60):
        made += market.go(Instant(start + minute * MINUTE))
    assert made == ["calendar-2026-10-25-continuous", "calendar-2026-10-25-closed"]


def test_a_halt_outlives_the_turns_and_no_cross_is_made_under_it():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 08:00")
    market.place("b", Side.BUY)
    market.place("s", Side.SELL, account="bob")
    market.give(c.Halt("h", None, HaltReason.OPERATOR))
    market.events.clear()
    market.go("2026-03-02 09:00")
    assert market.engine.market_halted
    assert not any(isinstance(one, Traded) for one in market.events)
    market.give(c.Resume("r", None))
    assert any(isinstance(one, Crossed) for one in market.events)
    assert market.engine.market_phase is P.CONTINUOUS


def test_a_market_that_was_closed_before_its_time_stays_closed_until_the_next_session():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 12:00")
    market.give(c.CloseSession("person"))
    assert market.go("2026-03-02 13:01") == []
    market.restart()
    assert market.go("2026-03-02 17:31") == []
    assert market.engine.market_phase is P.CLOSED
    market.go("2026-03-02 17:35")
    market.go("2026-03-03 08:00")
    assert market.engine.market_phase is P.PRE_OPEN


def test_the_third_breaker_closes_for_the_rest_of_the_day():
    market = Market(venue=Venue(breakers=True))
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 10:00")
    market.place("b", Side.BUY, 700)
    market.place("s", Side.SELL, 700, account="bob")
    assert market.engine.market_phase is P.CLOSED
    market.go("2026-03-02 17:31")
    assert market.engine.market_phase is P.CLOSED


def test_a_calendar_kept_for_the_first_time_turns_to_the_phase_of_the_moment_only():
    market = Market()
    assert market.go("2026-03-02 17:31") == ["calendar-2026-03-02-closing_auction"]
    fits = Market()
    assert fits.go("2026-03-02 12:00") == []  # a new engine trades already
    assert fits.go("2026-03-02 13:00") == ["calendar-2026-03-02-intraday_auction"]


def test_a_session_that_a_person_opened_anew_is_not_turned_back_by_a_restart():
    market = Market()
    market.go("2026-03-02 07:00")
    market.go("2026-03-02 12:00")
    market.give(c.CloseSession("person-1"))
    market.give(c.OpenSession("person-2"))
    market.restart()
    assert market.go("2026-03-02 12:30") == []
    assert market.go("2026-03-02 13:00") == ["calendar-2026-03-02-intraday_auction"]


def test_the_next_turn_is_told():
    market = Market()
    market.go("2026-03-06 18:00")
    assert market.schedule.next_turn == (at("2026-03-09 08:00"), P.PRE_OPEN)
    never = calendar_of({**XETRA, "week": {"monday": "regular"}, "holidays": [
        (dt.date(2026, 3, 2) + dt.timedelta(weeks=n)).isoformat() for n in range(6)]})  # fmt: skip
    market = Market(never)
    market.go("2026-03-02 12:00")
    assert market.schedule.next_turn is None
    assert market.schedule.look_at == market.now + 6 * HOUR


@pytest.mark.parametrize("phase", [P.CLOSED, "lunch", None])
def test_a_session_opens_to_a_phase_that_is_one_and_not_to_closed(phase):
    market = Market()
    before = market.engine.market_phase
    [told] = market.give(c.OpenSession("k", phase))
    assert told == Rejected(ADMIN, "k", told.reason)
    assert told.reason == "bad_combination"
    assert market.engine.market_phase is before


# --- a real engine's process -----------------------------------------------------------------------------------------


def today(*turns):
    """A calendar whose today turns so many seconds after now, in a zone in which it is about noon."""
    started = dt.datetime.fromtimestamp(time.time() // 1, tz=dt.UTC)
    east_h = 12 - started.hour
    session = [
        {"phase": phase, "from": f"{started + dt.timedelta(hours=east_h, seconds=after):%H:%M:%S}"}
        for phase, after in turns
    ]
    zone = f"Etc/GMT{-east_h:+d}" if east_h else "Etc/UTC"  # the names of these zones count westwards
    return calendar_of({"zone": zone, "sessions": {"s": session}, "week": dict.fromkeys(WEEKDAYS, "s")})


async def test_a_running_engine_turns_by_itself_and_its_journal_replays_without_the_calendar(tmp_path):
    calendar = today(("pre_open", -60), ("continuous", 2), ("closed", 3600))
    async with engine(tmp_path, calendar=calendar) as running, client_of(running.port) as client:
        inner = running.server
        await eventually(lambda: inner.status().market_phase is P.PRE_OPEN)
        status = inner.status()
        assert (status.by_calendar, status.next_phase) == (True, P.CONTINUOUS)
        assert status.next_phase_at is not None
        await client.submit(order("b"), 60)
        await client.submit(order("s", Side.SELL, who="bob"), 60)
        assert inner._sequencer.engine.resting_orders == 2
        await eventually(lambda: inner.status().market_phase is P.CONTINUOUS)
        assert time.time_ns() >= status.next_phase_at
        await eventually(lambda: inner._sequencer.engine.resting_orders == 0)
        right = await inner.state_hash()
    assert verify(tmp_path / "journal", INSTRUMENTS, right.seq).state_hash == right.state_hash
    async with engine(tmp_path, calendar=calendar) as again:
        await eventually(lambda: again.server.status().ready)
        assert again.server.status().seq == right.seq
        assert again.server.status().next_phase is P.CLOSED


async def test_after_an_unclean_stop_the_halt_comes_before_the_turns(tmp_path):
    calendar = today(("pre_open", -60), ("closed", 3600))
    async with engine(tmp_path, calendar=calendar) as running, client_of(running.port) as client:
        await eventually(lambda: running.server.status().market_phase is P.PRE_OPEN)
        await client.submit(order("b"), 60)
        await client.submit(order("s", Side.SELL, who="bob"), 60)
    for mark in (tmp_path / "snapshots").iterdir():
        mark.unlink()
    calendar = today(("pre_open", -60), ("continuous", -1), ("closed", 3600))
    async with engine(tmp_path, calendar=calendar) as running:
        await eventually(lambda: running.server.status().market_phase is P.CONTINUOUS)
        assert running.server.status().market_halt_reason is HaltReason.RECOVERY
        assert running.server._sequencer.engine.resting_orders == 2


async def test_turns_come_before_the_orders_that_wait(tmp_path):
    calendar = today(("pre_open", -60), ("continuous", 2), ("closed", 3600))
    async with engine(tmp_path, calendar=calendar) as running, client_of(running.port) as client:
        await eventually(lambda: running.server.status().market_phase is P.PRE_OPEN)
        due = running.server.status().next_phase_at
        time.sleep((due - time.time_ns()) / SECOND + 0.05)  # noqa: ASYNC251 - the loop is to find both at once
        reply = await client.submit(order("b"), 60)
        assert running.server.status().market_phase is P.CONTINUOUS
        assert reply.seq == running.server.status().seq
