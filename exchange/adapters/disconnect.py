"""Cancel on disconnect: when a session ends, however it ends, its orders leave the book.

A session that asks for it promises nothing itself: the gateway does, before the first order of each account goes to the
engine. The promise is a file, so that a gateway that is killed keeps it when it starts anew. To keep it is one
`MassCancel` by account and session under one client id, sent again until the engine has it in its journal: however
often it is sent, it is carried out once.

What the file does not survive is the loss of its disk; and orders rest until the gateway is there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from exchange.adapters.engine_client import AnswerLostError, Engines, NotConnectedError
from exchange.answers import answer_of
from exchange.commands import MassCancel
from exchange.ports import DisconnectCancel, GatewayTelemetry, Log, Refusal
from exchange.protocol import Answer, Refused
from exchange.types import AccountId, ClientId, SessionId
from kernel.trace import order_trace_id

TIMEOUT_S: Final = 5.0
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 1.0
DRAIN_S: Final = 3.0
"""How long a gateway that stops tries to keep its promises; what is left is kept at its next start."""
_FOR_GOOD: Final = frozenset({Refusal.MISMATCH, Refusal.BAD_MESSAGE})


class Promise(msgspec.Struct, frozen=True):
    """That the orders of an account's session will be cancelled."""

    key: ClientId
    """The client id of the cancel, the same at every attempt."""
    account: AccountId
    session: SessionId
    request_id: str
    """Of the connection that asked for it."""


class DisconnectCancels:
    """The promises of one gateway."""

    def __init__(
        self,
        engine: Engines,
        telemetry: GatewayTelemetry,
        *,
        replica: str,
        directory: Path | None = None,
        log: Log | None = None,
    ) -> None:
        """Cancel through `engine`; `directory` is this replica's alone. None: a killed gateway forgets."""
        self._engine: Final = engine
        self._meter: Final = telemetry
        self._directory: Final = None if directory is None else directory / replica
        self._log: Final = log
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    @property
    def unkept(self) -> int:
        """How many cancels are under way."""
        return len(self._tasks)

    def promise(self, account: AccountId, session: SessionId, request_id: str) -> Promise:
        """Remember that an account's session is to be cancelled when it ends."""
        promise = Promise(ClientId(f"disconnect-{secrets.token_hex(12)}"), account, session, request_id)
        if self._directory is not None:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                written = self._directory / f"{promise.key}.part"
                written.write_bytes(msgspec.json.encode(promise))
                written.rename(self._directory / f"{promise.key}.json")
            except OSError as error:
                self._tell("promise-not-written", promise, severity="error", why=error.strerror)
        return promise

    def keep(self, promises: Iterable[Promise]) -> list[asyncio.Task[None]]:
        """Begin to cancel what was promised; return the work."""
        tasks = [asyncio.create_task(self._keep(one), name=f"cancel {one.session}") for one in promises]
        for task in tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return tasks

    def go_on(self) -> None:
        """Keep the promises of a life before, which was cut short."""
        if self._directory is None or not self._directory.is_dir():
            return
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Promise))
            except (OSError, msgspec.DecodeError) as error:
                if self._log is not None:
                    self._log.event("promise-unreadable", severity="error", path=str(path), why=str(error))
        self.keep(found)

    async def drain(self, within_s: float = DRAIN_S) -> None:
        """Wait for what is under way, then leave the rest to the next start."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, promise: Promise) -> None:
        command = MassCancel(promise.account, promise.key, session=promise.session)
        pause_s, attempts = RETRY_S_MIN, 0
        while True:
            attempts += 1
            why = await self._try(command, promise, attempts)
            if why is None:
                break
            self._meter.disconnect_cancel(DisconnectCancel.RETRIED)
            if attempts == 1:
                self._tell("disconnect-cancel-waits", promise, severity="warning", why=why)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_S_MAX)
        if self._directory is not None:
            with contextlib.suppress(OSError):
                (self._directory / f"{promise.key}.json").unlink(missing_ok=True)

    async def _try(self, command: MassCancel, promise: Promise, attempts: int) -> str | None:
        """Send the cancel once; return why it has to be sent again, None if that is over."""
        try:
            reply = await self._engine.submit(command, TIMEOUT_S)
        except (NotConnectedError, AnswerLostError) as error:
            return str(error)
        if isinstance(reply, Answer):
            answer = answer_of(reply.seq, promise.key, reply.events)
            if answer.reason is None:
                self._meter.disconnect_cancel(DisconnectCancel.DONE)
                self._tell("canceled-on-disconnect", promise, orders=answer.orders, seq=reply.seq, attempts=attempts)
            else:
                self._meter.disconnect_cancel(DisconnectCancel.REFUSED)
                self._tell("disconnect-cancel-refused", promise, severity="error", reason=str(answer.reason))
            return None
        assert isinstance(reply, Refused), "the engine looked up what was submitted"
        if reply.reason not in _FOR_GOOD:
            return f"{reply.reason}: {reply.detail}"
        self._meter.disconnect_cancel(DisconnectCancel.REFUSED)
        self._tell("disconnect-cancel-refused", promise, severity="error", reason=str(reply.reason))
        return None

    def _tell(self, name: str, promise: Promise, *, severity: str = "info", **fields: object) -> None:
        if self._log is not None:
            self._log.event(
                name, severity=severity, account=promise.account, session=promise.session, client_id=promise.key,
                request_id=promise.request_id, trace_id=order_trace_id(promise.account, promise.key, ""), **fields,
            )  # fmt: skip
