"""The load speaks TLS to what stands before the gateways, and trusts nobody but the authority it is told of."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from aiohttp import web

from control.servers.trial_authority import TrialAuthority
from exchange.adapters.load_client import LoadClient, LoadParts
from exchange.ports import ClientOutcome
from exchange.recording import RecordingLog
from exchange.types import Instrument, Symbol, Ticks
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError


class Heard:
    def __init__(self):
        self.outcomes = []
        self.first = asyncio.Event()

    def answered(self, outcome, seconds, notional=0):
        self.outcomes.append(outcome)
        self.first.set()


@pytest.fixture
async def edge(tmp_path):
    """Something before the gateways that is ready and turns every order away; its URL and its authority."""
    authority = TrialAuthority(tmp_path)
    authority.prepare()

    async def ready(_):
        return web.json_response({})

    async def order(_):
        return web.json_response({"error": "no"}, status=503)

    app = web.Application()
    app.router.add_get("/health/ready", ready)
    app.router.add_route("*", "/v1/orders{rest:.*}", order)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.edge)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}", authority.certificate
    await runner.cleanup()


def load(tmp_path, url, ca_file, heard):
    return LoadClient(
        LoadParts(
            directory=tmp_path / "load", journal=tmp_path, gateways=lambda: (url,), trade_secret="x", seed=1,
            rate_per_s=100.0, instruments=(Instrument(Symbol("AAA"), Ticks(1_000), Ticks(200)),), telemetry=heard,
            log=RecordingLog(), clock=SystemClock(), ca_file=ca_file,
        )
    )  # fmt: skip


@pytest.mark.parametrize("told", [True, False])
async def test_an_edge_is_spoken_to_only_by_the_authority_that_the_load_was_told_of(tmp_path, edge, told):
    url, ca_file = edge
    heard = Heard()
    client = load(tmp_path, url, ca_file if told else None, heard)
    running = asyncio.create_task(client.run())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60 if told else 0.8):
            await heard.first.wait()
    assert client.ready() == ((told, "1 gateways are ready") if told else (False, "0 gateways are ready"))
    assert set(heard.outcomes) == ({ClientOutcome.REFUSED} if told else set())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"])
async def test_an_authority_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PermanentError, match=r"ca\.pem: the authority's certificate cannot be read"):
        await load(tmp_path, "https://127.0.0.1:9", path, Heard()).run()
