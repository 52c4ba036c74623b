"""The engine over HTTP: status, hash, halts, sessions, snapshots, faults. For operators, runbooks and probes."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.engine_server import EngineServer
from exchange.adapters.http import Endpoint, Faults, common_routes, guarded, json_response, problem, read_body
from exchange.adapters.sequencer import Declined, Done
from exchange.commands import AdminCommand, CloseSession, Halt, OpenSession, Resume
from exchange.events import Rejected
from exchange.ports import Exposition, Refusal
from exchange.types import ClientId, HaltReason, Symbol
from kernel.errors import PermanentError

_STATUS: dict[Refusal, int] = {Refusal.MISMATCH: 422, Refusal.IN_FLIGHT: 409, Refusal.UNDECIDED: 504}


class HaltBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/halt`."""

    key: str
    symbol: str | None = None
    reason: HaltReason = HaltReason.OPERATOR


class ResumeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/resume`."""

    key: str
    symbol: str | None = None


class SessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/session`."""

    key: str
    open: bool


def engine_app(server: EngineServer, exposition: Exposition, faults: Faults, admin_secret: str) -> ASGIApp:
    """Return the engine's HTTP application."""

    async def status(_: Request) -> Response:
        return json_response(server.status())

    async def state_hash(_: Request) -> Response:
        return await _or_503(server.state_hash())

    async def halt(request: Request) -> Response:
        body = msgspec.json.decode(await read_body(request), type=HaltBody)
        return await carry_out(Halt(ClientId(body.key), _symbol(body.symbol), body.reason))

    async def resume(request: Request) -> Response:
        body = msgspec.json.decode(await read_body(request), type=ResumeBody)
        return await carry_out(Resume(ClientId(body.key), _symbol(body.symbol)))

    async def session(request: Request) -> Response:
        body = msgspec.json.decode(await read_body(request), type=SessionBody)
        key = ClientId(body.key)
        return await carry_out(OpenSession(key) if body.open else CloseSession(key))

    async def take_snapshot(_: Request) -> Response:
        return await _or_503(_kept(server))

    async def carry_out(command: AdminCommand) -> Response:
        return _answer(await server.command(command))

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(admin_secret, endpoint), methods=["POST"])

    return Starlette(
        routes=[
            *common_routes(exposition, server.ready),
            Route("/v1/status", status, methods=["GET"]),
            Route("/v1/hash", state_hash, methods=["GET"]),
            post("/admin/halt", halt),
            post("/admin/resume", resume),
            post("/admin/session", session),
            post("/admin/snapshot", take_snapshot),
            *faults.routes(admin_secret),
        ]
    )


class Kept(msgspec.Struct, frozen=True):
    """What `/admin/snapshot` answers."""

    seq: int


async def _kept(server: EngineServer) -> Kept:
    return Kept(await server.snapshot())


async def _or_503(work: Awaitable[object]) -> Response:
    try:
        return json_response(await work)
    except PermanentError as error:
        return problem(503, str(error), {"Retry-After": "1"})


def _symbol(text: str | None) -> Symbol | None:
    return None if text is None else Symbol(text)


def _answer(outcome: Done | Declined) -> Response:
    if isinstance(outcome, Declined):
        status = _STATUS.get(outcome.reason, 503)
        return json_response({"error": outcome.detail or outcome.reason, "reason": outcome.reason}, status)
    headers = {"Idempotent-Replayed": "true"} if outcome.replayed else None
    rejected = next((event for event in outcome.events if isinstance(event, Rejected)), None)
    if rejected is not None:
        return json_response({"error": f"refused: {rejected.reason}", "reason": rejected.reason}, 422, headers)
    return json_response({"seq": outcome.seq, "replayed": outcome.replayed}, 200, headers)
