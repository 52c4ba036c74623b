# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The limit of trades in one command (table L), beyond what the examples and the walks ask of both engines."""

import msgspec
import pytest

from exchange import snapshot
from exchange.adapters.verify import verify
from exchange.commands import Limit, Market, PlaceOrder, Sequenced, Stop, Tick
from exchange.engine import Engine
from exchange.events import Canceled, Traded, Triggered
from exchange.types import CancelReason, Instrument, Side, TimeInForce, Venue
from kernel.errors import InputError
from tests.exchange.plant import AAA, INSTRUMENTS, client_of, engine, eventually, order, paths

ONE = (Instrument("AAA", 1_000, 500),)


def place(number, side, lots, terms, lasts=TimeInForce.DAY):
    return PlaceOrder("ann", f"c{number}", "AAA", side, lots, terms, lasts)


def deep(most, orders=3_000):
    """An engine with so many offers of one lot."""
    one = Engine(ONE, Venue(max_trades_per_command=most))
    for number in range(orders):
        one.apply(place(number, Side.SELL, 1, Limit(1_000 + number % 100)))
    return one


@pytest.mark.parametrize("terms", [Limit(1_400), Market()])
def test_a_sweep_is_cut_and_the_next_one_goes_on_where_it_ended(terms):
    one = deep(1_000)
    for number in range(3):
        told = one.apply(place(9_000 + number, Side.BUY, 5_000, terms))
        assert sum(isinstance(event, Traded) for event in told) == 1_000
        if number < 2:
            assert isinstance(told[-1], Canceled)
            assert (told[-1].quantity, told[-1].reason) == (4_000, CancelReason.TRADE_LIMIT)
    assert not one.top("AAA").ask
    assert bool(one.top("AAA").bid) is isinstance(terms, Limit)  # the last met nobody further: it rests as ever


def test_without_a_limit_a_sweep_takes_all():
    told = deep(0).apply(place(9_000, Side.BUY, 5_000, Market()))
    assert sum(isinstance(event, Traded) for event in told) == 3_000


def cascade(most, stops=40):
    """An engine in which each stop that triggers reaches the next one; returns it and what began the cascade."""
    one = Engine(ONE, Venue(max_trades_per_command=most))
    for number in range(stops + 1):
        one.apply(place(number, Side.SELL, 1, Limit(1_000 + number)))
        if number:
            one.apply(place(1_000 + number, Side.BUY, 1, Stop(1_000 + number - 1)))
    return one, one.apply(place(5_000, Side.BUY, 1, Limit(1_000)))


def test_a_cascade_is_put_off_until_nothing_is_left_of_it_and_comes_to_the_same():
    one, told = cascade(3)
    whole, at_once = cascade(0)
    parts, number = [told], 0
    while one.due_at() is not None:
        number += 1
        assert number < 100
        parts.append(one.apply(Sequenced(one.sequence + 1, one.due_at(), Tick(f"t{number}"))))
    assert max(sum(isinstance(event, Traded) for event in part) for part in parts) <= 5
    assert len(parts) > 40 / 5
    kept = [event for part in parts for event in part if isinstance(event, Traded | Triggered)]
    assert kept == [event for event in at_once if isinstance(event, Traded | Triggered)]
    assert one.live() == whole.live() == ()


def test_a_snapshot_keeps_what_is_put_off():
    one, _ = cascade(3)
    again = snapshot.load(snapshot.dump(one), ONE, one.venue)
    assert again.state_hash() == one.state_hash()
    assert again.due_at() == one.due_at() is not None
    tick = Sequenced(one.sequence + 1, one.due_at(), Tick("t"))
    assert again.apply(tick) == one.apply(tick)
    assert again.state_hash() == one.state_hash()


def test_what_is_due_at_once_is_after_the_command_and_a_command_of_the_same_instant_does_not_wait_for_it():
    one, _ = cascade(3)
    told = one.apply(Sequenced(one.sequence + 1, one.clock, Tick("same")))
    assert not any(isinstance(event, Triggered) for event in told)
    assert one.due_at() == one.clock + 1


@pytest.mark.parametrize("version", [2, 3])
def test_a_snapshot_of_an_earlier_version_is_read(version):
    one = deep(0, 5)
    frozen = msgspec.msgpack.decode(snapshot.dump(one)[snapshot._HEAD.size :])
    assert frozen.pop() == [], "no order lived when the day began"
    frame, _ = frozen
    del frame[1]["market_remainder"]
    if version == 2:
        del frame[1]["max_trades_per_command"]
        for book in frame[11]:
            assert book.pop() == 0
    body = msgspec.msgpack.encode(frozen)
    data = snapshot._HEAD.pack(b"TWSNAP", version, snapshot._checksum(version, body)) + body
    assert snapshot.load(data, ONE).state_hash() == one.state_hash()


@pytest.mark.parametrize("most", [-1, 10**7, True, 1.5, None])
def test_a_limit_that_is_none_is_refused(most):
    with pytest.raises(InputError, match=r"venue\.max_trades_per_command"):
        Engine(ONE, Venue(max_trades_per_command=most))


async def test_an_engine_goes_on_with_a_cascade_by_itself(tmp_path):
    """The sequencer writes a tick at once: nobody has to send an order for it."""
    venue = Venue(max_trades_per_command=1)
    async with engine(tmp_path, venue=venue) as running, client_of(running.port) as client:
        for number in range(6):
            await client.submit(order(f"s{number}", Side.SELL, 1_000 + number, 1), 60)
        for number in range(1, 6):
            stop = PlaceOrder("bob", f"t{number}", AAA, Side.BUY, 1, Stop(1_000 + number - 1))
            await client.submit(stop, 60)
        await client.submit(order("b", Side.BUY, 1_000, 1, who="cid"), 60)
        await eventually(lambda: running.telemetry.commands == 12 + 5, within_s=30)
        assert running.server._sequencer.engine.resting_orders == 0
        ends = (await running.server.state_hash()).state_hash
    assert verify(paths(tmp_path).journal, INSTRUMENTS, venue=venue).state_hash == ends
