"""A client's `traceparent` goes with its order through every process, and decides nothing."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp

from exchange.adapters.file_log import read_records
from exchange.adapters.gateway import Gateway
from exchange.adapters.http import Faults, HttpServer, listen
from exchange.adapters.market_data_server import FEED_FAULTS, MarketDataServer
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS, SettlementServer
from exchange.adapters.settlement_source import EngineSource
from exchange.adapters.settlement_store import SettlementStore
from exchange.journal import Kind, decode_command, decode_events
from exchange.ports import RequestOutcome
from exchange.recording import (
    RecordingExposition,
    RecordingFeed,
    RecordingGateway,
    RecordingLog,
    RecordingSettlement,
)
from kernel.adapters.clock import SystemClock
from kernel.trace import order_trace_id
from monitor.traces import (
    Look,
    Policy,
    commit_spans,
    publish_spans,
    received_spans,
    request_spans,
    resting_spans,
    saga_spans,
    sent_spans,
    settle_spans,
    step_spans,
)
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ORDER = {"symbol": "AAA", "quantity": 5, "price": 1000}
ALL = Look(Policy(share=1.0))


class KeepingTracer:
    """Builds every span and keeps it."""

    def __init__(self):
        self.spans = []

    def answered(self, one):
        self.spans.extend(request_spans([one], ALL))

    def rested(self, one):
        self.spans.extend(resting_spans(one, ALL))

    def committed(self, one):
        self.spans.extend(commit_spans(one, ALL))

    def published(self, one):
        self.spans.extend(publish_spans(one, ALL))

    def sent(self, one):
        self.spans.extend(sent_spans(one, ALL))

    def received(self, one):
        self.spans.extend(received_spans(one, ALL))

    def stepped(self, some):
        self.spans.extend(step_spans(some, ALL))

    def concluded(self, one):
        self.spans.extend(saga_spans(one, ALL))

    def settled(self, one):
        self.spans.extend(settle_spans(one, ALL))


@asynccontextmanager
async def plant(root, tracer, log):
    """The engine, a gateway, market data and settlement, in one process and with one tracer."""
    store = SettlementStore(root / "ledger.sqlite", INSTRUMENTS)
    async with engine(root, tracer=tracer) as running, client_of(running.port) as client:
        common = {"log": RecordingLog(), "tracer": tracer}
        faults = Faults(FEED_FAULTS | SETTLEMENT_FAULTS, allowed=True)
        feed = MarketDataServer([one.symbol for one in INSTRUMENTS], running.port, clock=SystemClock(),
                                telemetry=RecordingFeed(), faults=faults, **common)  # fmt: skip
        ledger = SettlementServer(
            store, EngineSource(running.port), telemetry=RecordingSettlement(), faults=faults, **common
        )
        gateway = Gateway(client, RecordingGateway(), RecordingExposition(), replica="gateway-1", trade_secret="secret",
                          capacity_per_s=1000.0, engine_timeout_s=1.5, tracer=tracer, log=log)  # fmt: skip
        server = HttpServer(gateway, listen(0))
        await server.start()
        tasks = [asyncio.create_task(feed.run()), asyncio.create_task(ledger.run())]
        await eventually(lambda: feed.ready()[0] and ledger.ready()[0])
        try:
            async with aiohttp.ClientSession(headers={"authorization": "Bearer secret"}) as session:

                async def place(headers=None, **body):
                    url, data = f"http://127.0.0.1:{server.port}/v1/orders", json.dumps(ORDER | body)
                    async with session.post(url, data=data, headers=headers) as answer:
                        return answer.status, await answer.json()

                yield running, place
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.stop()
    store.close()


async def test_one_trade_gives_one_tree_through_four_processes(tmp_path):
    tracer = KeepingTracer()
    async with plant(tmp_path, tracer, RecordingLog()) as (_, place):
        await place(account="ann", client_id="a", side="sell")
        status, _ = await place({"traceparent": HEADER}, account="bob", client_id="b", side="buy")
        assert status == 201
        await eventually(lambda: "settlement post" in [span.name for span in tracer.spans])
        await eventually(lambda: [span.name for span in tracer.spans].count("market-data publish") == 2)
    mine = {span.name: span for span in tracer.spans if span.trace_id == HEADER.split("-")[1]}
    assert set(mine) == {"gateway request", "engine order", "engine queue", "engine match", "journal sync",
                         "market-data publish", "settlement post"}  # fmt: skip
    assert mine["gateway request"].parent_id == HEADER.split("-")[2]
    assert mine["engine order"].parent_id == mine["gateway request"].span_id
    assert mine["settlement post"].parent_id == mine["engine order"].span_id
    assert mine["gateway request"].start <= mine["engine order"].start <= mine["engine order"].end
    others = {span.trace_id for span in tracer.spans} - {HEADER.split("-")[1]}
    assert others == {order_trace_id("ann", "a")}, "the maker's order has its own trace"


async def test_another_traceparent_does_not_make_another_request(tmp_path):
    tracer = KeepingTracer()
    async with plant(tmp_path, tracer, RecordingLog()) as (_, place):
        _, first = await place({"traceparent": HEADER}, account="ann", client_id="a", side="sell")
        status, again = await place({"traceparent": HEADER.replace("4bf9", "5bf9")}, account="ann", client_id="a",
                                    side="sell")  # fmt: skip
        assert (status, again["order_id"]) == (201, first["order_id"])
        status, _ = await place({"traceparent": "00-nonsense"}, account="ann", client_id="b", side="sell")
        assert status == 201
    traces = {span.trace_id for span in tracer.spans if span.name == "engine order"}
    assert traces == {HEADER.split("-")[1], order_trace_id("ann", "b")}


async def test_the_trace_outlives_the_engine(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 5, HEADER)
    kept = [decode_command(record.payload).trace for record in read_records(tmp_path / "journal")]
    assert HEADER in kept
    told = [decode_events(record.payload).trace for record in read_records(tmp_path / "events", kind=Kind.EVENTS)]
    assert HEADER in told


async def test_a_slow_and_an_unanswered_order_stand_in_the_log_with_their_trace(tmp_path):
    log, tracer = RecordingLog(), KeepingTracer()
    async with plant(tmp_path, tracer, log) as (running, place):
        running.faults._active["engine-slow-sync"] = 0.4
        status, _ = await place({"traceparent": HEADER}, account="ann", client_id="a", side="sell")
        assert status == 201
        running.faults._active["engine-slow-sync"] = 2.5
        status, _ = await place(account="ann", client_id="b", side="sell")
        assert status == 504
        running.faults._active.clear()
        await eventually(lambda: len(log.events) == 2)
    (slow, _, fields), (lost, _, others) = log.events
    assert (slow, fields["trace_id"]) == ("order-slow", HEADER.split("-")[1])
    assert (lost, others["trace_id"]) == ("order-unanswered", order_trace_id("ann", "b"))
    failed = [span for span in tracer.spans if span.error]
    assert [span.error for span in failed] == [RequestOutcome.UNKNOWN]
