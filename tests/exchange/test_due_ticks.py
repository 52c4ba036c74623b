# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""What is due happens though no order comes, and a replay of the journal says the same."""

import time

from msgspec import structs

from exchange.adapters.verify import verify
from exchange.types import TimeInForce
from kernel.time import SECOND
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order


async def test_an_order_expires_at_its_instant_without_another_command(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        place = structs.replace(order("c1"), time_in_force=TimeInForce.GTT, expires_at=time.time_ns() + SECOND // 4)
        await client.submit(place, 60)
        inner = running.server._sequencer.engine
        assert inner.resting_orders == 1
        await eventually(lambda: inner.resting_orders == 0)
        await eventually(lambda: running.server.status().seq == 2)
        assert inner.due_at() is None
        right = (await running.server.state_hash()).state_hash
    found = verify(tmp_path / "journal", INSTRUMENTS, 2)
    assert (found.last_seq, found.state_hash) == (2, right)


async def test_what_became_due_while_the_engine_was_down_happens_when_it_is_back(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        soon = time.time_ns() + SECOND // 2
        await client.submit(structs.replace(order("c1"), time_in_force=TimeInForce.GTT, expires_at=soon), 60)
    async with engine(tmp_path) as running:
        await eventually(lambda: running.server._sequencer is not None)
        await eventually(lambda: running.server._sequencer.engine.resting_orders == 0)
