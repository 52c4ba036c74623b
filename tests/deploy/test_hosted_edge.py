"""The edge under a server host, with real programs: what it shows, says of itself, and does with a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.applications import Starlette

from control.plan import free_ports
from control.servers import hosted_edge
from control.servers.hosted import ServerConfig, hosted
from control.servers.trial_authority import pair_ends
from kernel.errors import PermanentError
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role
from tests.deploy.test_edge import program

pytestmark = pytest.mark.lb
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A look at an edge waits longer here than at work: on busy cores a handshake may take a second."""
    monkeypatch.setattr(hosted_edge, "_LOOK_S", PATIENCE_S)


class Toy(BaseHTTPRequestHandler):
    """A gateway that says its name."""

    protocol_version = "HTTP/1.1"
    hold = threading.Event()

    def handle(self):
        """Bear with those who hang up: a health check that was not waited for."""
        with contextlib.suppress(OSError):
            super().handle()

    def do_GET(self):
        if self.path == "/v1/orders/slow":
            self.hold.wait(PATIENCE_S)
        body = json.dumps({"port": self.server.server_port}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "public, max-age=60")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def gateways(count):
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Toy) for _ in range(count)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [server.server_port for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def edge(kind, ports):
    program(kind)
    place = Path(tempfile.mkdtemp(prefix="tapewatch-hosted-"))
    host, https, stats = free_ports(3)
    config = ServerConfig(
        service="edge", replica="edge-1", state=str(place), directory=str(place / "edge-1"),
        ports={"edge-1": {"host": host, "https": https, "stats": stats}},
        options={"balancer": kind, "gateways": ",".join(f"gateway-{n}={port}" for n, port in enumerate(ports, 1))},
        faults_allowed=True,
    )  # fmt: skip
    server = hosted(config)
    try:
        server.start()
        yield server, config
    finally:
        server.stop()
        shutil.rmtree(place)


def get(config, path):
    """Ask the edge, trusting nobody but the state's authority."""
    trusted = ssl.create_default_context(cafile=str(config.layout.edge / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", config.own["https"], timeout=PATIENCE_S, context=trusted)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(server, path, body, secret="admin-secret"):
    """Ask the host's own routes, without a port between; returns the status."""
    return asked(server, path, body, secret)[0]


def asked(server, target, body=None, secret="admin-secret"):
    """Return the status and the answer of one of the host's own routes."""
    path, _, query = target.partition("?")
    sent = [b"" if body is None else json.dumps(body).encode()]
    told = []

    async def receive():
        return {"type": "http.request", "body": sent.pop(), "more_body": False}

    async def send(message):
        told.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET" if body is None else "POST", "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(), "root_path": "", "scheme": "http",
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
    }  # fmt: skip
    asyncio.run(Starlette(routes=list(server.routes("admin-secret")))(scope, receive, send))
    answer = told[1]["body"]
    return told[0]["status"], json.loads(answer) if answer.startswith(b"{") else answer


@contextmanager
def slow(config):
    """Have a request under way at a gateway that does not answer before this is left."""
    Toy.hold.clear()
    thread = threading.Thread(target=get, args=(config, "/v1/orders/slow"))
    thread.start()
    try:
        yield
    finally:
        Toy.hold.set()
        thread.join(PATIENCE_S)


def told(config):
    """Return what HAProxy's own page says."""
    connection = http.client.HTTPConnection("127.0.0.1", config.own["stats"], timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        return {(name, *sorted(labels.items())): value
                for name, labels, value in samples(connection.getresponse().read())}  # fmt: skip
    finally:
        connection.close()


def until(holds, within_s=PATIENCE_S):
    deadline = time.monotonic() + within_s
    while not (seen := holds()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def seen(server):
    exporter = Exporter(Role.EDGE, process=False)
    server.ready()
    server.observe(exporter)
    return {name: value for name, _, value in samples(exporter.render())}


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_it_serves_by_tls_of_the_states_authority_and_tells_until_when(kind):
    with gateways(2) as ports, edge(kind, [*ports, *free_ports(1)]) as (server, config):
        assert until(lambda: server.ready()[0])
        until(lambda: get(config, "/health/ready")[0] == 200)
        metrics = seen(server)
        assert metrics["tapewatch_edge_serves"] == 1
        assert (
            29 * 86_400 < metrics["tapewatch_edge_certificate_not_after_timestamp_seconds"] - time.time() <= 30 * 86_400
        )
        assert get(config, "/metrics")[0] == 404
        assert server.ended() == ""


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_it_serves_when_no_gateway_does_and_says_its_last_words_when_it_is_killed(kind):
    with edge(kind, free_ports(2)) as (server, config):
        assert until(lambda: server.ready()[0])
        until(lambda: get(config, "/health/ready")[0] in {502, 503})
        os.kill(server._edge.pid, signal.SIGKILL)
        assert "exit code -9" in until(server.ended)
        assert not server.ready()[0]
        assert seen(server)["tapewatch_edge_serves"] == 0


def test_a_gateway_is_taken_out_and_in_by_the_host_and_haproxy_tells_of_it():
    with gateways(2) as ports, edge("haproxy", [*ports, *free_ports(1)]) as (server, config):
        active = ("haproxy_backend_active_servers", ("proxy", "gateways"))
        until(lambda: told(config)[active] == 2)
        assert post(server, "/admin/server", {"server": "gateway-1", "state": "drain"}, secret="x") == 401
        for body in ({"server": "gateway-9", "state": "drain"}, {"server": "gateway-1", "state": "maint; show info"}):
            assert post(server, "/admin/server", body) == 400
        assert post(server, "/admin/server", {"server": "gateway-1", "state": "drain"}) == 200
        until(lambda: told(config)[active] == 1)
        served = {json.loads(get(config, "/openapi.json")[1])["port"] for _ in range(6)}
        assert served == {ports[1]}
        assert post(server, "/admin/server", {"server": "gateway-1", "state": "ready"}) == 200
        until(lambda: told(config)[active] == 2)


def test_it_tells_what_a_gateway_that_was_taken_out_is_still_busy_with():
    with gateways(2) as ports, edge("haproxy", ports) as (server, config):
        until(lambda: told(config)[("haproxy_backend_active_servers", ("proxy", "gateways"))] == 2)
        assert asked(server, "/admin/server?server=gateway-1") == (
            200,
            {"server": "gateway-1", "out": False, "sessions": 0},
        )

        def busy():
            return [asked(server, f"/admin/server?server=gateway-{number}")[1]["sessions"] for number in (1, 2)]

        # By least connections one goes to each, but only where the first is there when the second comes.
        with slow(config), contextlib.ExitStack() as second:
            until(lambda: sum(busy()) == 1)
            second.enter_context(slow(config))
            until(lambda: busy() == [1, 1])
            assert post(server, "/admin/server", {"server": "gateway-1", "state": "drain"}) == 200
            left = asked(server, "/admin/server?server=gateway-1")[1]
            assert (left["out"], left["sessions"]) == (True, 1)
        until(lambda: asked(server, "/admin/server?server=gateway-1")[1]["sessions"] == 0)
        assert asked(server, "/admin/server?server=gateway-9")[0] == 404


def test_haproxy_keeps_reference_data_and_counts_what_it_did_not_have():
    with gateways(1) as ports, edge("haproxy", ports) as (_, config):
        lookups, hits = (
            (f"haproxy_frontend_http_cache_{word}_total", ("proxy", "orders")) for word in ("lookups", "hits")
        )
        until(lambda: get(config, "/v1/instruments")[0] == 200)
        before = told(config)
        for number in range(5):
            get(config, "/v1/instruments")
            get(config, f"/v1/instruments?{number}")
        after = told(config)
        assert after[lookups] - before[lookups] == 10
        assert after[hits] - before[hits] == 5, "whoever makes each request another one gets past the cache"


def test_as_a_fault_it_shows_a_certificate_that_is_about_to_end_and_then_the_one_that_is_kept():
    with gateways(1) as ports, edge("haproxy", ports) as (server, config):
        kept = seen(server)["tapewatch_edge_certificate_not_after_timestamp_seconds"]
        assert post(server, "/admin/certificate", {"seconds": 600}) == 200
        assert 500 < seen(server)["tapewatch_edge_certificate_not_after_timestamp_seconds"] - time.time() <= 600
        assert post(server, "/admin/certificate", {"seconds": -60}) == 200
        ended = seen(server)
        assert ended["tapewatch_edge_certificate_not_after_timestamp_seconds"] < time.time()
        assert ended["tapewatch_edge_serves"] == 1, "it is looked at even when nobody trusts it any more"
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            get(config, "/health/ready")
        assert post(server, "/admin/certificate", {"seconds": 0}) == 200
        assert seen(server)["tapewatch_edge_certificate_not_after_timestamp_seconds"] == kept


def test_a_port_that_is_taken_and_options_without_gateways_are_told():
    with (
        gateways(1) as ports,
        edge("haproxy", ports) as (_, config),
        pytest.raises(PermanentError, match="is in use by"),
    ):
        hosted(config).start()
    with pytest.raises(PermanentError, match="told of no gateways"):
        hosted(ServerConfig(service="edge", replica="edge-1", state="/x", directory="/x",
                            ports={"edge-1": {"host": 1, "https": 2, "stats": 3}}))  # fmt: skip


class Client:
    """A client that asks again and again, each time on a new connection, and counts what was not answered 200."""

    def __init__(self, config):
        self.config, self.answers, self.failed, self.done = config, 0, [], threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self):
        while not self.done.is_set():
            try:
                status = get(self.config, "/openapi.json")[0]
            except OSError as error:
                status = repr(error)
            self.answers += 1
            if status != 200:
                self.failed.append(status)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self._thread.join(PATIENCE_S)


def shown(config):
    """Return the serial number that a new connection sees."""
    pem = ssl.get_server_certificate(("127.0.0.1", config.own["https"]), timeout=PATIENCE_S)
    return pair_ends(pem.encode())[0]


@contextmanager
def held(config, path="/openapi.json"):
    """Yield a function that asks over one connection, which was opened here and is never opened again."""
    trusted = ssl.create_default_context(cafile=str(config.layout.edge / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", config.own["https"], timeout=PATIENCE_S, context=trusted)
    connection.connect()
    connection.auto_open = False

    def ask():
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        assert ask()[0] == 200
        yield ask
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_a_certificate_whose_end_is_near_is_renewed_and_no_request_is_lost(kind):
    with gateways(2) as ports, edge(kind, ports) as (server, config):
        assert until(lambda: server.ready()[0])
        authority = server._authority
        with Client(config) as client:
            before = shown(config)
            short = authority.issue(dt.timedelta(minutes=1))
            authority.edge.write_bytes(short)  # as one whose life is nearly over: it is shown, then renewed
            until(lambda: seen(server) and shown(config) not in {before, pair_ends(short)[0]})
            asked = client.answers
            until(lambda: client.answers > asked + 5)
        assert client.failed == []
        metrics = seen(server)
        assert metrics["tapewatch_edge_certificate_not_after_timestamp_seconds"] - time.time() > 29 * 86_400
        assert metrics["tapewatch_edge_certificate_refused"] == 0
        assert server._certificates.taken == {"shown": 2, "refused": 0}
        assert pair_ends(authority.edge.read_bytes())[0] == shown(config)


def test_a_connection_that_is_open_goes_on_through_a_renewal_of_haproxy():
    with gateways(1) as ports, edge("haproxy", ports) as (server, config), held(config) as ask:
        before = shown(config)
        assert post(server, "/admin/renew", {}, secret="x") == 401
        for _ in range(3):
            assert post(server, "/admin/renew", {}) == 200
            assert ask()[0] == 200
        assert shown(config) != before


@pytest.mark.parametrize("apart", ["", "\n", "\r\n", " \n"])
def test_haproxy_is_given_the_whole_chain_however_its_parts_stand_apart(apart):
    """A blank line ends what HAProxy is given: many authorities put one before the chain."""
    with gateways(1) as ports, edge("haproxy", ports) as (server, config):
        assert until(lambda: server.ready()[0])
        authority, mark = server._authority, "-----BEGIN CERTIFICATE-----"
        key, _, made = authority.issue(dt.timedelta(days=20)).decode().partition(mark)
        pem = key + apart + mark + made + apart + authority.certificate.read_text() + apart
        authority.edge.write_bytes(pem.encode())
        assert post(server, "/admin/renew", {}) == 200
        assert shown(config) == pair_ends(pem.encode())[0]
        assert "Chain Subject: /CN=Tapewatch trial authority" in server._edge.tell(
            f"show ssl cert {server._edge.place.certificate}"
        )


def test_a_request_under_way_is_answered_by_the_nginx_that_took_it():
    with gateways(1) as ports, edge("nginx", ports) as (server, config):
        until(lambda: get(config, "/openapi.json")[0] == 200)
        trusted = ssl.create_default_context(cafile=str(config.layout.edge / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", config.own["https"]), timeout=PATIENCE_S) as line,
            trusted.wrap_socket(line, server_hostname="localhost") as spoken,
        ):
            spoken.sendall(b"GET /openapi.json HTTP/1.1\r\n")
            before = shown(config)
            assert post(server, "/admin/renew", {}) == 200
            assert shown(config) != before
            spoken.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
            assert spoken.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
@pytest.mark.parametrize("bad", ["certificate alone", "another's key"])
def test_what_the_balancers_own_check_refuses_is_told_and_the_one_before_is_shown_on(kind, bad):
    with gateways(1) as ports, edge(kind, ports) as (server, config):
        assert until(lambda: server.ready()[0])
        before, authority = shown(config), server._authority
        mark = b"-----BEGIN CERTIFICATE-----"
        key, _, made = authority.issue(dt.timedelta(days=5)).partition(mark)
        other = authority.issue(dt.timedelta(days=5)).partition(mark)[0]
        authority.edge.write_bytes((other if bad == "another's key" else b"") + mark + made)
        until(lambda: seen(server)["tapewatch_edge_certificate_refused"] == 1)
        assert server._certificates.why
        assert post(server, "/admin/renew", {}) == 409
        assert shown(config) == before
        assert get(config, "/openapi.json")[0] == 200
        authority.edge.write_bytes(key + mark + made)
        until(lambda: seen(server)["tapewatch_edge_certificate_refused"] == 0)
        assert shown(config) != before


def test_an_edge_that_starts_on_a_bad_file_shows_the_one_before():
    with gateways(1) as ports, edge("haproxy", ports) as (server, config):
        before = shown(config)
        server.stop()
        server._authority.edge.write_bytes(b"junk")
        again = hosted(config)
        try:
            again.start()
            assert shown(config) == before
            assert until(lambda: again.ready()[0])
            assert seen(again)["tapewatch_edge_certificate_refused"] == 1
        finally:
            again.stop()
