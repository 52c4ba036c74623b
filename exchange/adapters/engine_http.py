"""The engine over HTTP: status, hash, halts, sessions, snapshots, faults. For operators, runbooks and probes."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.engine_server import EngineServer
from exchange.adapters.http import Endpoint, Faults, common_routes, guarded, json_response, problem, read_body
from exchange.adapters.orders_json import Identifier
from exchange.adapters.sequencer import Declined, Done
from exchange.commands import (
    AdminCommand,
    CloseSession,
    DisableAccount,
    EnableAccount,
    Fund,
    Halt,
    OpenSession,
    Resume,
    SetPhase,
)
from exchange.events import Rejected
from exchange.operators import MAX_FUND
from exchange.ports import Exposition, Refusal
from exchange.types import MAX_ID_LENGTH, AccountId, ClientId, HaltReason, Symbol, TradingPhase
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
    auction: bool = False
    """Whether orders are gathered for one price first."""


class SessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/session`."""

    key: str
    open: bool


class PhaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/phase`."""

    key: str
    phase: TradingPhase
    symbol: str | None = None


class FundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/fund`: millionths of `$cash`, or lots of a symbol; negative takes them."""

    key: str
    account: Identifier
    """Only one that a gateway reaches."""
    asset: str
    amount: Annotated[int, msgspec.Meta(ge=-MAX_FUND, le=MAX_FUND)]


class AccountBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/account`: the kill switch of one account."""

    key: str
    account: str
    enabled: bool

    def __post_init__(self) -> None:
        if not self.enabled and " " in self.account:  # enabling takes back what was disabled before this was looked at
            raise ValueError("`account` has a space in it, and no gateway reaches such a one")


_Body = HaltBody | ResumeBody | SessionBody | PhaseBody | FundBody | AccountBody
_BODIES: Final[dict[str, type[_Body]]] = {
    "halt": HaltBody,
    "resume": ResumeBody,
    "session": SessionBody,
    "phase": PhaseBody,
    "fund": FundBody,
    "account": AccountBody,
}
"""The routes under `/admin/` that become commands, and what each is sent."""


def _command(body: _Body) -> AdminCommand:
    """Return the command a body asks for."""
    key = ClientId(body.key)
    match body:
        case HaltBody():
            return Halt(key, _symbol(body.symbol), body.reason)
        case ResumeBody():
            return Resume(key, _symbol(body.symbol), body.auction)
        case SessionBody():
            return OpenSession(key) if body.open else CloseSession(key)
        case PhaseBody():
            return SetPhase(key, body.phase, _symbol(body.symbol))
        case FundBody():
            return Fund(key, AccountId(body.account), body.asset, body.amount)
        case AccountBody():
            account = AccountId(body.account)
            return EnableAccount(key, account) if body.enabled else DisableAccount(key, account)


def engine_app(server: EngineServer, exposition: Exposition, faults: Faults, admin_secret: str) -> ASGIApp:
    """Return the engine's HTTP application."""

    async def status(_: Request) -> Response:
        return json_response(server.status())

    async def state_hash(_: Request) -> Response:
        return await _or_503(server.state_hash())

    async def take_snapshot(_: Request) -> Response:
        return await _or_503(_kept(server))

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(admin_secret, endpoint), methods=["POST"])

    return Starlette(
        routes=[
            *common_routes(exposition, server.ready),
            Route("/v1/status", status, methods=["GET"]),
            Route("/v1/hash", state_hash, methods=["GET"]),
            *(post(f"/admin/{name}", _carrying_out(server, body)) for name, body in _BODIES.items()),
            post("/admin/snapshot", take_snapshot),
            *faults.routes(admin_secret),
        ]
    )


def _carrying_out(server: EngineServer, kind: type[_Body]) -> Endpoint:
    """Return an endpoint that reads a body and answers when its command is durable."""

    async def carry_out(request: Request) -> Response:
        try:
            body = msgspec.json.decode(await read_body(request), type=kind)
        except msgspec.ValidationError as error:
            return problem(400, f"body: {error}{_right(str(error), kind)}")
        return _answer(await server.command(_command(body)))

    return carry_out


_RIGHT: Final = {
    "account": f"1 to {MAX_ID_LENGTH} printable ASCII characters without spaces",
    "phase": ", ".join(TradingPhase),
    "reason": ", ".join(HaltReason),
    "amount": f"whole millionths of $cash, or lots of a symbol, from {-MAX_FUND} to {MAX_FUND}, not 0",
}


def _right(words: str, kind: type[_Body]) -> str:
    """Return what a body that does not fit should have held; nothing where the words say so themselves."""
    field = next((name for name in _RIGHT if f"`$.{name}`" in words), None)
    if field is not None:
        return f"; right: {_RIGHT[field]}"
    return f"; there are {', '.join(kind.__struct_fields__)}" if "unknown field" in words else ""


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
