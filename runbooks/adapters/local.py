"""Workloads of a local estate: the port over the HTTP interface of the process that supervises them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from kernel.adapters.http_client import HttpClient
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Duration
from runbooks.model import RefusalReason
from runbooks.ports import Effect, RefusedError, WorkloadStatus

TIMEOUT_S: Final = 20.0
"""A restart waits up to 2 s for the old process and some ms for the new, scaling in drains for 6 s.

The rest is patience with a busy machine.
"""
AGAIN_AFTER: Final = Duration(SECOND // 2)
T = TypeVar("T")
_EFFECT_OR_NONE: Final[Any] = Effect | None


class _Error(msgspec.Struct, frozen=True):
    error: str = ""
    reason: str = ""


class LocalWorkloads(HttpClient):
    """The workloads of one estate. An async context manager, or call `close`."""

    def __init__(self, url: str, token: str, *, by: str = "") -> None:
        """Remember where the estate answers; nothing is sent yet.

        Args:
            url: the estate's interface, such as `http://127.0.0.1:18701`.
            token: the admin secret.
            by: `person` when a person asks for the writes, empty when the loop does.
        """
        super().__init__(url, timeout_s=TIMEOUT_S, headers={"Authorization": f"Bearer {token}"})
        self._by = by

    async def list(self) -> Sequence[WorkloadStatus]:
        """Return every workload of the estate."""
        return await self._ask("GET", "/v1/workloads", tuple[WorkloadStatus, ...])

    async def status(self, workload: str) -> WorkloadStatus:
        """Return one workload."""
        return await self._ask("GET", f"/v1/workloads/{_word(workload)}", WorkloadStatus)

    async def restart(self, workload: str, replica: str, *, key: str, generation: int | None = None) -> Effect:
        """End one replica and start it anew; returns once the new process runs."""
        body = {"replica": replica, "key": key, "generation": generation, "by": self._by}
        return await self._ask("POST", f"/v1/workloads/{_word(workload)}/restart", Effect, body)

    async def scale(self, workload: str, replicas: int, *, key: str, generation: int | None = None) -> Effect:
        """Set the number of replicas."""
        body = {"replicas": replicas, "key": key, "generation": generation, "by": self._by}
        return await self._ask("POST", f"/v1/workloads/{_word(workload)}/scale", Effect, body)

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for `key`, or None when nothing was."""
        found: Effect | None = await self._ask("GET", f"/v1/effects/{quote(key, safe='')}", _EFFECT_OR_NONE)
        return found

    async def hold(self, workload: str, *, hold: bool) -> None:
        """Keep a platform workload down, or release it; a fault, not part of the port."""
        await self._ask("POST", "/v1/hold", dict[str, Any], {"workload": workload, "hold": hold})

    async def signal(self, replica: str, name: str) -> None:
        """Send `STOP`, `CONT`, `TERM` or `KILL` to a replica; a fault, not part of the port."""
        await self._ask("POST", "/v1/signal", dict[str, Any], {"replica": replica, "signal": name})

    async def down(self) -> None:
        """Ask the estate to stop."""
        await self._ask("POST", "/v1/down", dict[str, Any], {})

    async def _ask(self, method: str, path: str, kind: type[T], body: object = None) -> T:
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, self._url + path, data=data, allow_redirects=False) as response:
                answer, code = await response.read(), response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TemporaryError(
                f"the estate at {self._url} does not answer {method} {path}: {str(error) or type(error).__name__}",
                retry_after=AGAIN_AFTER,
            ) from error
        if code >= 400:  # noqa: PLR2004 - HTTP's own number
            raise _failure(code, answer, f"{method} {path}")
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise PermanentError(f"the estate at {self._url} speaks another version: {error}") from error


def _word(name: str) -> str:
    if not name:
        raise RefusedError(RefusalReason.NO_TARGET, "an empty name is no workload")
    return quote(name, safe="")


def _failure(code: int, answer: bytes, what: str) -> Exception:
    try:
        told = msgspec.json.decode(answer, type=_Error)
    except msgspec.DecodeError:
        told = _Error(f"{what} was answered {code}")
    if told.reason in set(RefusalReason):
        return RefusedError(RefusalReason(told.reason), told.error)
    if code >= 500:  # noqa: PLR2004 - HTTP's own number
        return TemporaryError(told.error, retry_after=AGAIN_AFTER)
    return PermanentError(told.error)
