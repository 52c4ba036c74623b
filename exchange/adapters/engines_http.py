"""Several engines over HTTP behind the face of one: for operators, runbooks and probes, at the address of the only one.

    GET /v1/status    how all of them stand together, and each under `engines`; with `symbol` or `engine` that one's own
    GET /v1/hash      likewise
    POST /admin/...   to the engine of its symbol (of what is given to an account: of the asset), or to the one that
                      `engine` names; what names no symbol goes to every engine

Nothing is kept here. What not every engine has is answered with 503 and a sentence that says who has it: sent again
under the same key, those answer as before. Money is each engine's own, so cash is given to one by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.http import guarded, json_response, problem, read_body
from exchange.shards import partition_of, whole_hash
from exchange.types import Symbol

GLANCE_S: Final = 1.0
"""How long an engine may take to say how it stands: one that hangs must not hide the others."""
COMMAND_S: Final = 4.0
"""How long a command may take until it is durable: shorter than who asks waits, so that it is told which have it."""
HASH_S: Final = 25.0
_OK: Final = 200
_NOBODY: Final = 503


class EngineSite(NamedTuple):
    """One of several engines, in the order of their partitions."""

    name: str
    """Such as `engine-2`."""
    url: str
    """Of its HTTP interface."""


class _Said(NamedTuple):
    """What an engine answered; status 0: nothing."""

    status: int
    body: Any

    @property
    def words(self) -> str:
        if not self.status:
            return "does not answer"
        return str(self.body.get("error", self.status)) if isinstance(self.body, dict) else str(self.status)


class _Routed(msgspec.Struct, frozen=True):
    """What a command's body says of where it belongs."""

    symbol: str | None = None
    asset: str | None = None


class EnginesDesk:
    """The engines of all partitions, asked at once."""

    def __init__(self, engines: Sequence[EngineSite]) -> None:
        """Ask `engines`, each in the place of its partition."""
        assert engines, "an exchange without an engine"
        self._engines: Final = tuple(engines)
        self._session: aiohttp.ClientSession | None = None

    def app(self, admin_secret: str) -> ASGIApp:
        """Return the HTTP application; who has no right to a command is refused here and by the engine."""
        return Starlette(
            routes=[
                Route("/v1/status", self._status, methods=["GET"]),
                Route("/v1/hash", self._hash, methods=["GET"]),
                Route("/admin/{verb}", guarded(admin_secret, self._tell), methods=["POST"]),
            ]
        )

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _status(self, request: Request) -> Response:
        chosen = self._chosen(request)
        if isinstance(chosen, Response):
            return chosen
        said = await asyncio.gather(*(self._ask("GET", one, "/v1/status", GLANCE_S) for one in chosen))
        if len(chosen) == 1:
            return _passed(chosen[0], said[0])
        stands = [one.body if one.status == _OK else None for one in said]
        if not any(stands):
            return problem(_NOBODY, "no engine answers", {"Retry-After": "1"})
        return json_response(together(self._engines, stands))

    async def _hash(self, request: Request) -> Response:
        chosen = self._chosen(request)
        if isinstance(chosen, Response):
            return chosen
        said = await asyncio.gather(*(self._ask("GET", one, "/v1/hash", HASH_S) for one in chosen))
        silent = [f"{one.name} {what.words}" for one, what in zip(chosen, said, strict=True) if what.status != _OK]
        if silent:
            return problem(_NOBODY, "; ".join(silent), {"Retry-After": "1"})
        if len(chosen) == 1:
            return json_response(said[0].body)
        return json_response(
            {
                "seq": sum(one.body["seq"] for one in said),
                "state_hash": whole_hash([one.body["state_hash"] for one in said]),
                "engines": {one.name: what.body for one, what in zip(chosen, said, strict=True)},
            }
        )

    async def _tell(self, request: Request) -> Response:
        body = await read_body(request)
        chosen = self._chosen(request)
        if isinstance(chosen, Response):
            return chosen
        if "engine" not in request.query_params:
            try:
                routed = msgspec.json.decode(body or b"{}", type=_Routed)
            except msgspec.DecodeError as error:
                return problem(400, f"body: {error}")
            if (asset := routed.asset) is not None and asset.startswith("$"):
                names = ", ".join(one.name for one in self._engines)
                return problem(400, f"{asset} is each engine's own: say which engine, one of {names}")
            named = routed.symbol if asset is None else asset
            chosen = self._engines if named is None else (self._of(named),)
        path = f"/admin/{request.path_params['verb']}"
        heads = {name: value for name in ("Authorization", "Content-Type") if (value := request.headers.get(name))}
        said = await asyncio.gather(*(self._ask("POST", one, path, COMMAND_S, body, heads) for one in chosen))
        if len(chosen) == 1:
            return _passed(chosen[0], said[0])
        return _carried_out(chosen, said)

    # --- within ------------------------------------------------------------------------------------------------------

    def _of(self, symbol: str) -> EngineSite:
        return self._engines[partition_of(Symbol(symbol), len(self._engines))]

    def _chosen(self, request: Request) -> tuple[EngineSite, ...] | Response:
        """Return the engines that a request's parameters name: one, or all."""
        if (symbol := request.query_params.get("symbol")) is not None:
            return (self._of(symbol),)
        name = request.query_params.get("engine")
        if name is None:
            return self._engines
        found = tuple(one for one in self._engines if one.name == name)
        names = ", ".join(one.name for one in self._engines)
        return found or problem(404, f"engine: no {name[:40]!r} here; there are {names}")

    async def _ask(
        self,
        method: str,
        engine: EngineSite,
        path: str,
        within_s: float,
        body: bytes | None = None,
        heads: Mapping[str, str] | None = None,
    ) -> _Said:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            timeout = aiohttp.ClientTimeout(total=within_s)
            url = engine.url + path
            async with self._session.request(method, url, data=body, headers=heads, timeout=timeout) as answer:
                return _Said(answer.status, msgspec.json.decode(await answer.read() or b"null"))
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return _Said(0, None)


def _passed(engine: EngineSite, said: _Said) -> Response:
    """Return one engine's answer as it came."""
    if not said.status:
        return problem(_NOBODY, f"{engine.name} does not answer", {"Retry-After": "1"})
    return json_response(said.body, said.status)


def _carried_out(engines: Sequence[EngineSite], said: Sequence[_Said]) -> Response:
    """Return one answer to a command that goes to every engine."""
    have = [one.name for one, what in zip(engines, said, strict=True) if what.status == _OK]
    if len(have) == len(engines) and any("seq" not in what.body for what in said):  # a fault, which is no command
        return json_response({"engines": {one.name: what.body for one, what in zip(engines, said, strict=True)}})
    if len(have) == len(engines):
        seqs = {one.name: what.body["seq"] for one, what in zip(engines, said, strict=True)}
        replayed = all(what.body.get("replayed", False) for what in said)
        return json_response({"seq": max(seqs.values()), "replayed": replayed, "engines": seqs})
    missing = [(one.name, what) for one, what in zip(engines, said, strict=True) if what.status != _OK]
    if not have and len({what.status for _, what in missing}) == 1 and missing[0][1].status:
        return json_response(missing[0][1].body, missing[0][1].status)  # all say the same
    words = ", ".join(f"{name} has not ({what.words})" for name, what in missing)
    told = f"{', '.join(have) or 'no engine'} has it, {words}: send it again under the same key"
    return json_response({"error": told, "reason": "not_every_engine"}, _NOBODY, {"Retry-After": "1"})


_TOLD: Final = (
    "ready", "phase", "detail", "seq", "market_halted", "market_halt_reason", "market_phase", "clean_start",
    "recovered_commands", "journal_failed",
)  # fmt: skip
"""What is told of each engine."""


def together(engines: Sequence[EngineSite], stands: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return how several engines stand, as one would say it; None: one does not answer.

    The market is halted when some engine's is, clean when every start was; as many commands are durable as all have.
    """
    there = [one for one in stands if one is not None]
    silent = [engine.name for engine, one in zip(engines, stands, strict=True) if one is None]
    unready = [
        f"{engine.name} is {one['phase']} {one['detail']}".rstrip()
        for engine, one in zip(engines, stands, strict=True)
        if one is not None and not one["ready"]
    ]
    first = next((one for one in there if not one["ready"]), there[0])
    turn = min(
        (one for one in there if one["next_phase_at"] is not None), key=lambda one: one["next_phase_at"], default={}
    )
    return {
        **first,
        "ready": not silent and not unready,
        "phase": "partly" if silent or unready else first["phase"],
        "detail": "; ".join([*(f"{name} does not answer" for name in silent), *unready]) or first["detail"],
        "seq": sum(one["seq"] for one in there),
        "market_halted": any(one["market_halted"] for one in there),
        "market_halt_reason": next((one["market_halt_reason"] for one in there if one["market_halted"]), None),
        "halted_symbols": sorted({symbol for one in there for symbol in one["halted_symbols"]}),
        "session_open": all(one["session_open"] for one in there),
        "market_phase": there[0]["market_phase"],
        "disabled_accounts": sorted({account for one in there for account in one["disabled_accounts"]}),
        "clean_start": all(one["clean_start"] for one in there),
        "recovered_commands": sum(one["recovered_commands"] for one in there),
        "recovery_seconds": max(one["recovery_seconds"] for one in there),
        "journal_failed": any(one["journal_failed"] for one in there),
        "next_phase": turn.get("next_phase"),
        "next_phase_at": turn.get("next_phase_at"),
        "engines": {
            engine.name: None if one is None else {name: one[name] for name in _TOLD}
            for engine, one in zip(engines, stands, strict=True)
        },
    }  # fmt: skip
