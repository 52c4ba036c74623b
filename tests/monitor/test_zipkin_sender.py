"""Spans sent to Zipkin over HTTP: what it is sent, and that no trouble of its reaches us."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import Instant
from monitor.adapters.zipkin import ZipkinSender, fetch_trace
from monitor.traces import Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = Span(trace_id=TRACE, span_id="0000000000000001", name="engine order", start=Instant(1_000), end=Instant(9_000),
            attributes={})  # fmt: skip


@pytest.fixture
def zipkin():
    """A server that answers as it is told and keeps what it was sent."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            server.bodies.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.answer(b"")

        def do_GET(self):
            server.bodies.append((self.path, None))
            self.answer(server.told)

        def answer(self, body):
            self.send_response(server.status)
            if server.status == 302:
                self.send_header("location", "http://127.0.0.1:1/")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.status, server.told, server.bodies = 202, b"[]", []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_spans_arrive_where_zipkin_takes_them(zipkin):
    sender = ZipkinSender(zipkin.url + "/", "engine", "engine-1")
    assert sender.send([SPAN])
    sender.close()
    [(path, [one])] = zipkin.bodies
    assert path == "/api/v2/spans"
    assert one["localEndpoint"] == {"serviceName": "engine"}


@pytest.mark.parametrize("status", [302, 400, 413, 500])
def test_what_zipkin_does_not_take_is_told(zipkin, status):
    zipkin.status = status
    sender = ZipkinSender(zipkin.url, "engine", "engine-1")
    assert not sender.send([SPAN])
    sender.close()


def test_nobody_there_is_no_error_of_ours(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # must not be asked
    sender = ZipkinSender("http://127.0.0.1:1", "engine", "engine-1")
    assert not sender.send([SPAN])
    sender.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:9411", "ftp://x", "http://"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(InputError, match="zipkin_url"):
        ZipkinSender(url, "engine", "engine-1")


def test_a_trace_that_zipkin_does_not_know_is_no_error(zipkin):
    zipkin.status = 404
    assert fetch_trace(zipkin.url, TRACE) == ()
    assert zipkin.bodies == [(f"/api/v2/trace/{TRACE}", None)]


def test_trouble_of_zipkins_is_told_with_its_address(zipkin):
    zipkin.status, zipkin.told = 200, b"<html>"
    with pytest.raises(PermanentError, match="no answer of Zipkin's"):
        fetch_trace(zipkin.url, TRACE)
    zipkin.status = 500
    with pytest.raises(PermanentError, match="answered 500"):
        fetch_trace(zipkin.url, TRACE)
    with pytest.raises(TemporaryError, match="no answer"):
        fetch_trace("http://127.0.0.1:1", TRACE)
