"""One order followed through a distributed estate by the real Zipkin's own API: edge, Kafka, RabbitMQ, the sagas."""

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections import Counter

import pytest

from control.config import load_config
from exchange.saga import Step
from kernel.trace import TraceContext, is_kept, traceparent
from monitor.adapters.zipkin import fetch_trace
from tests.control.distributed_bed import distributed, edge_client

pytestmark = [pytest.mark.estate, pytest.mark.long]
SHARE = 0.01
LOTS = 5
CREATED = 201
TOLD_WITHIN_S = 60.0
SLACK_US = 2_000
"""A step's begin is reckoned back from its end by another clock; and Zipkin has microseconds."""
STEPS = (Step.RESERVE_CASH, Step.RESERVE_SECURITIES, Step.CHARGE_FEES, Step.CLEAR, Step.DELIVER_SECURITIES,
         Step.DELIVER_CASH)  # fmt: skip
OF_EVERY_ORDER = ("gateway request", "engine order", "engine queue", "engine match", "journal sync", "kafka publish",
                  "kafka receive", "market-data publish")  # fmt: skip
OF_THE_TAKER = Counter([*OF_EVERY_ORDER, "settlement post", "saga", *["saga step"] * len(STEPS)])
PARTS = {Step.RESERVE_CASH: "cash", Step.RESERVE_SECURITIES: "securities", Step.CHARGE_FEES: "fees",
         Step.CLEAR: "clearing", Step.DELIVER_SECURITIES: "securities", Step.DELIVER_CASH: "cash"}  # fmt: skip


def fresh_context():
    """Return a client's trace that belongs to the share that is kept; one in a hundred does."""
    while not is_kept(trace_id := secrets.token_hex(16), SHARE):
        pass
    return TraceContext(trace_id, secrets.token_hex(8), sampled=True)


async def whole(url, trace_id, names):
    """Wait until Zipkin has as many spans of each name; each process sends its own when it likes."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while True:
        spans = await asyncio.to_thread(fetch_trace, url, trace_id)
        if Counter(span.name for span in spans) >= names:
            return spans
        assert time.monotonic() < deadline, f"missing: {names - Counter(span.name for span in spans)}"
        await asyncio.sleep(0.5)


def judge_places(spans, context):
    """Hold every span to its trace and its parent."""
    assert len({span.id for span in spans}) == len(spans), "told twice"
    assert {span.trace_id for span in spans} == {context.trace_id}
    by_name = {span.name: span for span in spans}
    order, sent = by_name["engine order"], by_name["kafka publish"]
    above = dict.fromkeys(by_name, order.id)
    above |= {"gateway request": context.span_id, "engine order": by_name["gateway request"].id,
              "kafka receive": sent.id}  # fmt: skip
    assert [(span.name, span.parent_id) for span in spans] == [(span.name, above[span.name]) for span in spans]
    return by_name


def judge_times(spans, by_name):
    """Hold the spans to the order in which things can only have happened."""
    ends = {span.id: span.timestamp + span.duration for span in spans}
    gateway, order, saga = by_name["gateway request"], by_name["engine order"], by_name["saga"]
    assert gateway.timestamp <= order.timestamp <= ends[order.id] <= ends[gateway.id] + SLACK_US
    for name in ("kafka publish", "market-data publish", "settlement post", "saga"):
        assert by_name[name].timestamp >= ends[by_name["engine match"].id] - SLACK_US, name
    assert by_name["kafka publish"].timestamp <= by_name["kafka receive"].timestamp + SLACK_US
    assert by_name["kafka receive"].timestamp <= by_name["settlement post"].timestamp + SLACK_US
    steps = sorted((span for span in spans if span.name == "saga step"), key=lambda span: span.timestamp)
    assert [span.tags["exchange.saga.step"] for span in steps] == [step.value for step in STEPS]
    before = saga.timestamp
    for step in steps:
        assert step.timestamp >= before - SLACK_US, step
        before = ends[step.id]
    assert before <= ends[saga.id] + SLACK_US
    return steps


def judge_services(by_name, steps, trade_id):
    """Hold each span to the process that must have told of it, and those of the saga to the trade."""
    services = {name: span.service for name, span in by_name.items()}
    assert (services["gateway request"], services["engine order"]) == ("gateway", "engine")
    assert services["kafka receive"] == services["settlement post"] == "settlement"
    assert services["saga"] == services["saga step"] == "saga"
    assert by_name["saga"].tags["service.instance.id"] == "saga-coordinator-1"
    assert by_name["saga"].tags["exchange.saga.end"] == "settled"
    assert {span.tags["exchange.trade_id"] for span in (*steps, by_name["saga"])} == {trade_id}
    by_part = {span.tags["exchange.saga.step"]: span.tags["service.instance.id"] for span in steps}
    assert by_part == {step.value: f"saga-{part}-1" for step, part in PARTS.items()}


async def test_zipkin_has_an_order_from_the_edge_through_kafka_to_the_last_step_of_its_saga(tmp_path):
    async with distributed(tmp_path, load_rate_per_s=0, trace_share=SHARE) as plant:
        url = load_config(plant.layout.config("load-1")).tracing.zipkin_url
        of_maker, of_taker = fresh_context(), fresh_context()
        async with edge_client(plant) as client:
            _, listing = await client.get("/v1/instruments")
            listed = listing["instruments"][0]
            order = {"symbol": listed["symbol"], "price": listed["reference"], "quantity": LOTS}
            sell = order | {"account": "ann", "client_id": "follow-a", "side": "sell"}
            assert (await client.place(sell, traceparent=traceparent(of_maker)))[0] == CREATED
            buy = order | {"account": "bob", "client_id": "follow-b", "side": "buy"}
            status, answer = await client.place(buy, traceparent=traceparent(of_taker))
        assert (status, answer["filled"]) == (CREATED, LOTS), answer
        (trade,) = answer["fills"]
        await whole(url, of_maker.trace_id, Counter(OF_EVERY_ORDER))
        spans = await whole(url, of_taker.trace_id, OF_THE_TAKER)
        assert Counter(span.name for span in spans) == OF_THE_TAKER
        by_name = judge_places(spans, of_taker)
        steps = judge_times(spans, by_name)
        judge_services(by_name, steps, str(trade["trade_id"]))
        show = [sys.executable, "-m", "cli", "traces", "show", of_taker.trace_id, "--url", url, "--json"]
        told = json.loads(await asyncio.to_thread(subprocess.check_output, show))
        assert len(told["spans"]) == len(spans)
        for span in spans:
            after_us = span.timestamp - spans[0].timestamp
            print(f"{span.service:12} {span.name:20} {after_us:9} us {span.duration:8} us")  # noqa: T201 - the figures
