"""The exchange's own levers: halting and reopening, asked over the engine's administration interface."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec

from kernel.adapters.http_client import HttpClient
from kernel.errors import PermanentError, TemporaryError

_TIMEOUT_S: Final = 5.0


class EngineStatus(msgspec.Struct, frozen=True):
    """What the engine says of itself."""

    ready: bool
    seq: int
    market_halted: bool
    halted_symbols: tuple[str, ...] = ()
    clean_start: bool = True
    recovered_commands: int = 0
    journal_failed: bool = False


class StateHash(msgspec.Struct, frozen=True):
    """The digest of the engine's whole state after the command `seq`."""

    seq: int
    state_hash: str


class _Kept(msgspec.Struct, frozen=True):
    seq: int


def _of(engine: str) -> str:
    return f"?engine={quote(engine)}" if engine else ""


class ExchangeAdmin(HttpClient):
    """Client of the engine's administration interface. Every write is idempotent by its key."""

    def __init__(self, url: str, token: str) -> None:
        """Speak to the engine at `url`, with the admin secret as bearer token."""
        super().__init__(url, timeout_s=_TIMEOUT_S, headers={"Authorization": f"Bearer {token}"})

    async def status(self) -> EngineStatus:
        """Return the engine's state.

        Raises:
            TemporaryError: the engine does not answer.
        """
        return msgspec.json.decode(await self._call("GET", "/v1/status"), type=EngineStatus)

    async def state_hash(self, engine: str = "") -> StateHash:
        """Return the engine's state digest at one consistent point; of several the one that is named."""
        return msgspec.json.decode(await self._call("GET", "/v1/hash" + _of(engine)), type=StateHash)

    async def halt(self, key: str, symbol: str | None, reason: str) -> None:
        """Stop trading in `symbol`, or everywhere; returns when the halt is durable."""
        await self._call("POST", "/admin/halt", {"key": key, "symbol": symbol, "reason": reason})

    async def resume(self, key: str, symbol: str | None, engine: str = "") -> None:
        """Let trading go on in `symbol`, or lift the market-wide halt; returns when it is durable.

        Of several engines the halt of the one that is named, or of all.
        """
        await self._call("POST", "/admin/resume" + _of(engine), {"key": key, "symbol": symbol})

    async def snapshot(self, key: str) -> int:
        """Let the engine keep a snapshot now; return the journal number it stands at."""
        answer = await self._call("POST", "/admin/snapshot", {"key": key})
        return msgspec.json.decode(answer, type=_Kept).seq

    async def _call(self, method: str, path: str, body: object = None) -> bytes:
        try:
            async with self._session.request(method, self._url + path, json=body, allow_redirects=False) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TemporaryError(f"engine: {method} {path}: no answer ({type(error).__name__})") from error
        if answer.status >= 500:  # noqa: PLR2004 - HTTP's own number
            raise TemporaryError(f"engine: {method} {path}: {answer.status} {content[:200]!r}")
        if answer.status >= 300:  # noqa: PLR2004 - HTTP's own number
            raise PermanentError(f"engine: {method} {path}: {answer.status} {content[:200]!r}")
        return content
