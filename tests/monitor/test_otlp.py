"""Spans sent by OTLP: what a receiver reads, and what becomes of them when there is none."""

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from kernel.errors import InputError
from kernel.time import Instant
from monitor.adapters.otlp import OtlpSender
from monitor.adapters.spans import SpanQueue
from monitor.traces import Span, SpanEvent, SpanKind


class Receiver:
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self, status=200):
        self.requests, self.paths, self.status = [], [], status
        self.release = threading.Event()
        self.release.set()
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.release.wait(20)
                outer.paths.append((self.path, self.headers["content-type"]))
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def span(number=1, **more):
    return Span(trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id=f"{number:016x}", name="engine order",
                start=Instant(1_000), end=Instant(2_000), attributes={"exchange.seq": number}, **more)  # fmt: skip


def counting(told):
    return lambda what, count: told.update({what: count})


def test_a_receiver_reads_what_was_told(receiver):
    told = Counter()
    queue = SpanQueue(OtlpSender(receiver.url, "engine", "engine-1"), counting(told))
    event = SpanEvent(Instant(1_500), "trade", {"exchange.lots": 3})
    queue.offer([span(1), span(2, parent_id=f"{1:016x}", kind=SpanKind.SERVER, error="unknown", events=(event,))])
    queue.close()
    one, two = receiver.spans()
    assert receiver.paths == [("/v1/traces", "application/x-protobuf")]
    assert one.trace_id.hex() == two.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert two.parent_span_id == one.span_id
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == (1_000, 2_000)
    assert two.kind == Wire.SpanKind.SPAN_KIND_SERVER
    assert two.status.code == Status.STATUS_CODE_ERROR
    assert two.events[0].name == "trade"
    resource = {
        item.key: item.value.string_value for item in receiver.requests[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "engine"
    assert resource["service.instance.id"] == "engine-1"
    assert told == {"exported": 2}


def test_a_receiver_that_hangs_costs_spans_and_not_the_one_who_offers(receiver):
    told = Counter()
    queue = SpanQueue(OtlpSender(receiver.url, "engine", "engine-1"), counting(told), capacity=600)
    receiver.release.clear()
    slowest = 0.0
    for number in range(1, 3_001):
        began = time.perf_counter()
        queue.offer([span(number)])
        slowest = max(slowest, time.perf_counter() - began)
    receiver.release.set()
    queue.close(10)
    assert told["dropped"] >= 3_000 - 600 - 2 * 512
    assert sum(told.values()) == 3_000, "each span is counted once"
    assert len(receiver.spans()) == told["exported"]
    assert slowest < 2, "nobody waits for a receiver"


def test_a_receiver_that_refuses_is_counted():
    refusing = Receiver(status=400)
    told = Counter()
    queue = SpanQueue(OtlpSender(refusing.url, "engine", "engine-1"), counting(told))
    queue.offer([span(1), span(2)])
    queue.close(10)
    refusing.close()
    assert told == {"failed": 2}


@pytest.mark.parametrize("url", ["", "127.0.0.1:4318", "ftp://x", "http://"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(InputError, match="otlp_url"):
        OtlpSender(url, "engine", "engine-1")
