"""A real Jaeger: spans of a whole estate by OTLP, and one order followed from the gateway to settlement by its API."""

import json
import os
import subprocess
import sys
import time

import pytest
import requests

from control.servers import jaeger as jaeger_server
from control.settings import load_settings
from monitor.adapters.jaeger import decode, fetch_trace
from tests.control.test_scrape import SETTLED_SPANS, started

pytestmark = [pytest.mark.estate, pytest.mark.long]
REQUIRED = "SERVERS_REQUIRED"


@pytest.fixture(scope="module")
def jaeger():
    program = jaeger_server.find(load_settings().jaeger)
    if program is None:
        why = "Jaeger is not there; `tapewatch servers build jaeger` builds it"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    with jaeger_server.Jaeger(program) as server:
        yield server


@pytest.fixture(scope="module")
def estate(jaeger, tmp_path_factory):
    yield from started(tmp_path_factory.mktemp("jaeger"), {"TAPEWATCH_OTLP_URL": jaeger.otlp_url})


def settled(url):
    """Return the spans, by name, of a trace that every role has told of."""
    answer = requests.get(f"{url}/api/traces", {"service": "settlement", "limit": 20}, timeout=10)
    traces = ({span.name: span for span in trace} for trace in decode(answer.content))
    return next((spans for spans in traces if spans.keys() >= SETTLED_SPANS), None)


def test_jaeger_shows_one_order_from_the_gateway_to_settlement(jaeger, estate):
    deadline = time.monotonic() + 30
    while (spans := settled(jaeger.url)) is None:
        assert time.monotonic() < deadline, "no order was traced from the gateway to settlement"
        time.sleep(0.5)
    order = spans["engine order"]
    assert spans["gateway request"].parent_id is None
    assert order.parent_id == spans["gateway request"].id
    assert all(spans[name].parent_id == order.id for name in ("engine match", "journal sync", "settlement post"))
    assert {span.service for span in spans.values()} >= {"gateway", "engine", "settlement"}
    assert spans["gateway request"].timestamp <= order.timestamp <= spans["settlement post"].timestamp
    names = [order.tags["user.id"], order.tags["exchange.client_id"]]
    show = [sys.executable, "-m", "cli", "traces", "show", *names, "--jaeger", jaeger.url, "--json"]
    told = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)
    assert told["trace_id"] == order.trace_id
    assert told["spans"][0] == told["spans"][0] | {"depth": 0, "name": "gateway request", "after_us": 0}


def test_a_trace_that_jaeger_does_not_know_is_no_error(jaeger):
    assert fetch_trace(jaeger.url, f"{7:032x}") == ()
