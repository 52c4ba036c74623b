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
from runbooks.changes import Change, FailOver, RollBack, describe_change
from runbooks.model import Action, RefusalReason, RestartReplica, Scale
from runbooks.ports import Effect, NodeStatus, RefusedError, WorkloadStatus
from runbooks.words import describe

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

    async def change(self, change: Change, *, key: str, generation: int | None = None) -> Effect:
        """Fail over, or roll a canary back; refuse the rest: there are no nodes, jobs or services of colours."""
        if isinstance(change, RollBack):
            body = {"key": key, "generation": generation, "by": self._by}
            return await self._ask("POST", f"/v1/workloads/{_word(change.workload)}/roll-back", Effect, body)
        if isinstance(change, FailOver):
            body = {"replica": change.replica, "key": key, "generation": generation, "by": self._by}
            return await self._ask("POST", f"/v1/workloads/{_word(change.workload)}/fail-over", Effect, body)
        raise RefusedError(RefusalReason.NOT_ALLOWED, f"a local estate cannot {describe_change(change)}")

    async def restore(self, of: str, *, key: str) -> Effect:
        """Set the replicas back to what a scale found, when they still are what it left."""
        done = await self.effect(of)
        if done is None or not {"workload", "replicas"} <= set(done.before):
            raise PermanentError(f"nothing that can be restored was done for {of!r}")
        if await self.effect(key) is not None:
            return await self.scale(done.before["workload"], int(done.before["replicas"]), key=key)  # the first answer
        status = await self.status(done.before["workload"])
        if str(status.desired) != done.after["replicas"]:
            words = f"{status.name} has {status.desired} replicas, not the {done.after['replicas']} that were left"
            raise RefusedError(RefusalReason.CONFLICT, f"{words}: someone else changed it, so it stays as it is")
        return await self.scale(status.name, int(done.before["replicas"]), key=key, generation=status.generation)

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Say what an action would do to the processes there are now."""
        workload = getattr(action, "workload", "")
        if not workload:
            return [f"would {describe(action)}"]
        status = await self.status(workload)
        told = [f"would {describe(action)}"]
        if isinstance(action, RestartReplica):
            pids = [str(each.pid) for each in status.replicas if each.id == action.replica]
            if not pids:
                raise RefusedError(RefusalReason.NO_TARGET, f"{workload} has no replica {action.replica!r}")
            told.append(f"would end process {', '.join(pids)} and start another")
        elif isinstance(action, FailOver):
            path = f"/v1/workloads/{_word(workload)}/fail-over?replica={quote(action.replica, safe='')}"
            facts = await self._ask("GET", path, dict[str, str])
            told += [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
        elif isinstance(action, RollBack):
            canaries = [f"{each.id} ({each.revision})" for each in status.replicas if each.revision]
            if not canaries:
                raise RefusedError(RefusalReason.NO_TARGET, f"{workload} has no canary to roll back")
            told.append(f"would start {', '.join(canaries)} anew with the revision of the replicas beside it")
        elif isinstance(action, Scale):
            wanted = min(max(status.desired + action.by, action.minimum), action.maximum)
            told.append(f"would go from {status.desired} to {wanted} processes")
        return told

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return none: a local estate is one machine."""
        return ()

    async def targets(self) -> frozenset[str]:
        """Return none: there are only processes."""
        return frozenset()

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
