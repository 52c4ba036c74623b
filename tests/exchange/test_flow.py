# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
from collections import Counter
from itertools import islice, pairwise, takewhile

import pytest

from exchange.commands import CancelOrder, PlaceOrder, ReplaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Rejected, Rested, Traded
from exchange.flow import DayShape, OrderFlow, arrivals
from exchange.types import Instrument, RejectReason
from kernel.time import SECOND

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))


def run(seed, count=6_000):
    engine, flow, commands, events = Engine(INSTRUMENTS), OrderFlow(seed, INSTRUMENTS, ("p", "q")), [], []
    for seq in range(1, count + 1):
        command = next(flow)
        answer = engine.apply(Sequenced(seq, 0, command))
        flow.observe(answer)
        commands.append(command)
        events.extend(answer)
    return engine, flow, commands, events


def test_the_same_seed_gives_the_same_flow_and_another_another():
    assert run(1, 500)[2] == run(1, 500)[2]
    assert run(1, 500)[2] != run(2, 500)[2]


def test_the_mix_is_sixty_thirty_ten_and_almost_nothing_is_refused():
    engine, flow, commands, events = run(1)
    kinds = Counter(type(command) for command in commands)
    changes = (kinds[CancelOrder] + kinds[ReplaceOrder]) / len(commands)
    assert 0.27 < changes < 0.33
    assert kinds[ReplaceOrder] > 100
    said = Counter(type(event) for event in events)
    assert said[Rested] > 3_000
    assert said[Traded] > 500
    refused = [event.reason for event in events if isinstance(event, Rejected)]
    assert len(refused) < 60
    assert set(refused) <= {RejectReason.NO_LIQUIDITY}
    assert flow.live == engine.resting_orders
    assert len({command.client_id for command in commands}) == len(commands)


def test_without_answers_the_flow_sends_only_new_orders():
    assert {type(command) for command in islice(OrderFlow(1, INSTRUMENTS, ("p",)), 200)} == {PlaceOrder}


@pytest.mark.parametrize("depth", [0.0, 1.5])
def test_arrivals_keep_the_mean_rate_and_the_shape_of_the_day(depth):
    day = 60 * SECOND
    times = list(takewhile(lambda at: at < day, arrivals(500, DayShape(day, depth), seed=3)))
    assert len(times) == pytest.approx(30_000, rel=0.05)
    assert all(one <= other for one, other in pairwise(times))
    tenths = Counter(at * 10 // day for at in times)
    assert tenths[0] / tenths[5] == pytest.approx((1 + depth * 0.48) / (1 - depth * 0.32), rel=0.15)


def test_arrivals_are_seeded_and_need_a_positive_rate():
    shape = DayShape(SECOND)
    assert list(islice(arrivals(10, shape, 1), 20)) == list(islice(arrivals(10, shape, 1), 20))
    with pytest.raises(ValueError, match="must be positive"):
        next(arrivals(0, shape, 1))
