# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Several engines behind one gateway: each request reaches the engine that has it, and no two ids are the same."""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from exchange.adapters.engine_client import AnswerLostError, EngineClient, NotConnectedError
from exchange.adapters.engine_router import EngineRouter
from exchange.adapters.engine_server import ENGINE_FAULTS, EngineParts, EngineServer
from exchange.adapters.http import Faults, listen
from exchange.commands import CancelOrder, Limit, MassCancel, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Canceled, MassCanceled, Rejected, Replaced, Traded
from exchange.protocol import Answer, NotFound
from exchange.recording import RecordingEngine, RecordingLog
from exchange.shards import instruments_of, partition_of, whole_id
from exchange.types import Instrument, RejectReason, Side
from kernel.adapters.clock import SystemClock
from tests.exchange.plant import eventually, paths
from tests.exchange.test_gateway import gateway

PARTITIONS = 3
INSTRUMENTS = tuple(Instrument(f"S{number}", 1000, 500) for number in range(12))
HERE = {partition_of(one.symbol, PARTITIONS): one.symbol for one in INSTRUMENTS}
"""A symbol of each partition."""


def place(client_id, symbol, side=Side.BUY, price=1000, who="ann", quantity=5):
    return PlaceOrder(who, client_id, symbol, side, quantity, Limit(price))


@asynccontextmanager
async def plant(root):
    """An engine a partition, and a router before them."""
    servers, clients, told = [], [], {}
    async with contextlib.AsyncExitStack() as stack:
        for partition in range(PARTITIONS):
            parts = EngineParts(
                paths(root / str(partition)), instruments_of(INSTRUMENTS, partition, PARTITIONS), SystemClock(),
                RecordingEngine(), RecordingLog(), Faults(ENGINE_FAULTS, allowed=True),
            )  # fmt: skip
            server, listener = EngineServer(parts), listen(0)
            stack.callback(listener.close)
            await server.start(listener)
            stack.push_async_callback(server.stop)
            servers.append(server)
            port = listener.getsockname()[1]
            clients.append(EngineClient(port, lambda there, at=partition: told.update({at: there})))
        router = EngineRouter(clients)
        running = asyncio.create_task(router.run())
        try:
            await eventually(lambda: all(client.connected for client in clients))
            yield SimpleNamespace(router=router, servers=servers, clients=clients)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def only(reply, kind):
    assert isinstance(reply, Answer), reply
    (found,) = [event for event in reply.events if isinstance(event, kind)]
    return found


async def test_an_order_is_placed_changed_and_cancelled_at_the_engine_of_its_symbol(tmp_path):
    async with plant(tmp_path) as made:
        ids = set()
        for partition, symbol in HERE.items():
            order_id = only(await made.router.submit(place(f"p{partition}", symbol), 60), Accepted).order_id
            assert order_id == whole_id(partition, 1)
            changed = await made.router.submit(ReplaceOrder("ann", f"r{partition}", order_id, 7, 1001), 60)
            assert only(changed, Replaced).order_id == order_id
            gone = await made.router.submit(CancelOrder("ann", f"c{partition}", order_id), 60)
            assert (only(gone, Canceled).order_id, only(gone, Canceled).quantity) == (order_id, 7)
            ids.add(order_id)
            assert made.servers[partition].status().seq == 3
        assert len(ids) == PARTITIONS
        assert made.router.in_flight == 0
        assert not made.router._asked


async def test_trades_of_different_engines_have_different_ids(tmp_path):
    async with plant(tmp_path) as made:
        trades = []
        for partition, symbol in HERE.items():
            await made.router.submit(place(f"s{partition}", symbol, Side.SELL), 60)
            trades.append(only(await made.router.submit(place(f"b{partition}", symbol, who="bob"), 60), Traded))
        assert [one.trade_id for one in trades] == [whole_id(partition, 1) for partition in HERE]
        assert len({one.taker_order_id for one in trades} | {one.maker_order_id for one in trades}) == 2 * PARTITIONS


@pytest.mark.parametrize("order_id", [whole_id(1, 9), whole_id(PARTITIONS, 1), whole_id(40, 1), 9, 2**63 - 1])
async def test_an_order_that_nobody_has_is_refused_by_a_rule_and_no_other_is_touched(tmp_path, order_id):
    async with plant(tmp_path) as made:
        for partition, symbol in HERE.items():
            await made.router.submit(place(f"p{partition}", symbol), 60)
        reply = await made.router.submit(CancelOrder("ann", "c", order_id), 60)
        assert only(reply, Rejected).reason is RejectReason.UNKNOWN_ORDER
        assert sum(server._sequencer.engine.resting_orders for server in made.servers) == PARTITIONS


async def test_a_mass_cancel_of_everything_reaches_every_engine_and_is_answered_once(tmp_path):
    async with plant(tmp_path) as made:
        for number, one in enumerate(INSTRUMENTS):
            await made.router.submit(place(f"p{number}", one.symbol), 60)
        reply = await made.router.submit(MassCancel("ann", "all"), 60)
        assert only(reply, MassCanceled).count == len(INSTRUMENTS)
        canceled = [event.order_id for event in reply.events if isinstance(event, Canceled)]
        assert len(set(canceled)) == len(INSTRUMENTS)
        again = await made.router.submit(MassCancel("ann", "all"), 60)
        assert again.replayed
        assert only(again, MassCanceled).count == len(INSTRUMENTS)
        assert sum(server._sequencer.engine.resting_orders for server in made.servers) == 0
        assert only(await made.router.look_up("ann", "all", 5), MassCanceled).count == len(INSTRUMENTS)


async def test_a_mass_cancel_of_one_symbol_reaches_its_engine_alone(tmp_path):
    async with plant(tmp_path) as made:
        for partition, symbol in HERE.items():
            await made.router.submit(place(f"p{partition}", symbol), 60)
        reply = await made.router.submit(MassCancel("ann", "one", HERE[1]), 60)
        assert only(reply, MassCanceled).count == 1
        assert [server.status().seq for server in made.servers] == [1, 2, 1]


async def test_a_request_is_found_wherever_it_is_and_nowhere_when_nobody_has_it(tmp_path):
    async with plant(tmp_path) as made:
        sent = {}
        for partition, symbol in HERE.items():
            sent[partition] = await made.router.submit(place(f"p{partition}", symbol), 60)
        for partition, first in sent.items():
            found = await made.router.look_up("ann", f"p{partition}", 5)
            assert (found.events, found.replayed) == (first.events, True)
        assert isinstance(await made.router.look_up("ann", "never", 5), NotFound)


async def test_an_engine_that_is_away_takes_nothing_of_the_others_with_it(tmp_path):
    async with plant(tmp_path) as made:
        for partition, symbol in HERE.items():
            await made.router.submit(place(f"p{partition}", symbol), 60)
        await made.servers[1].stop()
        await eventually(lambda: not made.clients[1].connected)
        assert made.router.connected
        with pytest.raises(NotConnectedError):
            await made.router.submit(place("x", HERE[1]), 60)
        assert isinstance(await made.router.submit(place("y", HERE[2]), 60), Answer)
        assert isinstance(await made.router.look_up("ann", "p0", 5), Answer)
        with pytest.raises(AnswerLostError, match="partition 1 is not connected"):
            await made.router.look_up("ann", "never", 5)  # the one that is away may have it
        with pytest.raises(AnswerLostError, match=r"not every engine has it .*send it again"):
            await made.router.submit(MassCancel("ann", "all"), 60)
        left = [made.servers[at]._sequencer.engine.resting_orders for at in (0, 2)]
        assert left == [0, 0]  # those that are there have cancelled all the same
        with pytest.raises(AnswerLostError, match="send it again under the same client id"):
            await made.router.look_up("ann", "all", 5)


async def test_an_engine_that_is_silent_is_waited_for_no_longer_than_was_said(tmp_path):
    async with plant(tmp_path) as made:
        made.servers[1]._parts.faults._active["engine-slow-sync"] = 1.0
        with pytest.raises(AnswerLostError, match="did not answer in time"):
            await made.router.submit(place("slow", HERE[1]), 0.1)
        assert isinstance(await made.router.submit(place("quick", HERE[2]), 60), Answer)
        with pytest.raises(AnswerLostError):
            await made.router.submit(MassCancel("ann", "all"), 0.1)
        assert made.router.in_flight == 0
        assert not made.router._asked
        made.servers[1]._parts.faults._active.clear()


async def test_a_gateway_takes_orders_of_every_partition_over_http(tmp_path):
    async with plant(tmp_path) as made, gateway(made.router) as front:
        for partition, symbol in HERE.items():
            status, body, _ = await front.place(client_id=f"p{partition}", symbol=symbol)
            assert (status, body["order_id"]) == (201, whole_id(partition, 1))
            status, body, _ = await front.call("GET", f"/v1/orders/by-client-id/ann/p{partition}")
            assert (status, body["order_id"]) == (200, whole_id(partition, 1))
        status, body, _ = await front.call("DELETE", f"/v1/orders/{whole_id(2, 1)}?account=ann&client_id=c1")
        assert (status, body["order_id"]) == (201, whole_id(2, 1))
        status, body, _ = await front.call("DELETE", "/v1/orders?account=ann&client_id=all")
        assert (status, body["orders"]) == (201, PARTITIONS - 1)


async def test_commands_sent_together_are_answered_each_once_also_when_an_engine_is_away(tmp_path):
    async with plant(tmp_path) as exchange:
        await exchange.servers[1].stop()
        await eventually(lambda: not exchange.clients[1].connected)
        heard, commands = {}, [place(f"m{number}", HERE[number % PARTITIONS]) for number in range(9)]

        def told(some):
            for at, reply in some:
                assert at not in heard
                heard[at] = reply

        first = exchange.router.send_many(commands, {}, told)
        assert first > 0
        await eventually(lambda: len(heard) == len(commands))
        kinds = [type(heard[number]) for number in range(9)]
        assert kinds == [Answer, NotConnectedError, Answer] * 3
        assert not any(exchange.router.waits(first + number) for number in range(9))
