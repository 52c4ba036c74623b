# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Figures of the watch-list that a process works out itself, against a plain count."""

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.adapters.settlement_server import Unposted
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Happened, Traded
from exchange.flow import OrderFlow
from exchange.market_data import Follower, MarketData, Print, trade_throughs
from exchange.types import Instrument, Side
from kernel.time import SECOND
from tests.exchange.plant import client_of, engine, eventually, order

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))


def day(seed, count):
    exchange, flow = Engine(INSTRUMENTS), OrderFlow(seed, INSTRUMENTS, ("p", "q", "r"))
    for seq in range(1, count + 1):
        events = exchange.apply(Sequenced(seq, seq * SECOND, next(flow)))
        flow.observe(events)
        yield Happened(seq, seq * SECOND, events)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_a_sound_engine_never_trades_through_its_book(seed):
    data, follower = MarketData([one.symbol for one in INSTRUMENTS]), Follower()
    for one in INSTRUMENTS:
        follower.take(data.snapshot(one.symbol))
    trades = 0
    for happened in day(seed, 600):
        for delta in data.fold(happened):
            book = follower.book(delta.symbol)
            trades += len(delta.trades)
            assert trade_throughs(book.top(), delta.trades) == 0
            follower.take(delta)
    assert trades > 20


def test_a_trade_past_a_better_quote_is_seen():
    data = MarketData(["AAA"])
    exchange = Engine(INSTRUMENTS)
    for seq, (price, side) in enumerate([(1_001, Side.SELL), (1_002, Side.SELL), (999, Side.BUY)], 1):
        events = exchange.apply(Sequenced(seq, 0, order(f"c{seq}", side, price)))
        data.fold(Happened(seq, 0, events))
    top = data.top("AAA")

    def prints(*prices, side=Side.BUY):
        return [Print(number, price, 1, side) for number, price in enumerate(prices)]

    assert trade_throughs(top, prints(1_001, 1_002)) == 0
    assert trade_throughs(top, prints(1_002)) == 1, "1,001 was offered"
    assert trade_throughs(top, prints(1_001, 1_000)) == 1, "nobody offered 1,000"
    assert trade_throughs(top, prints(999, side=Side.SELL)) == 0
    assert trade_throughs(top, prints(998, side=Side.SELL)) == 1
    assert trade_throughs(MarketData(["AAA"]).top("AAA"), prints(1_001)) == 1, "nothing was offered at all"
    assert trade_throughs(top, []) == 0


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 3))
def test_lag_and_difference_are_what_a_plain_count_says(seed, steps, lost):
    unposted, told, place, missing = Unposted(), list(day(seed, 400)), 0, 0
    unposted.read(told)

    def trades_in(some):
        return sum(isinstance(event, Traded) for item in some for event in item.events)

    for number, step in enumerate(steps):
        batch = told[place : place + step]
        if not batch:
            break
        place += step
        posted = trades_in(batch)
        drop = min(lost, posted) if number == 0 else 0
        missing += drop
        unposted.posted(batch[-1].seq, posted - drop)
        assert unposted.difference == missing
        now = 500 * SECOND
        rest = [item for item in told[place:] if trades_in([item])]
        assert unposted.lag_s(now) == ((now - rest[0].at) / SECOND if rest else 0.0)


async def test_the_engine_tells_how_its_disk_stands_and_how_long_commands_waited(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
        await eventually(lambda: running.telemetry.disk is not None)
        journal_bytes, free, snapshot_at = running.telemetry.disk
    assert journal_bytes > 0
    assert free > 0
    assert snapshot_at is None
