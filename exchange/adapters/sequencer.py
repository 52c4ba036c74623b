"""The single writer: commands in, a place in the journal, one sync for many, then the answers.

    submit -> queue -> [append, apply] -> sync in a thread -> answer, publish
                ^         ^ the next batch gathers meanwhile
                turns of the phase that are due stand first

Matching runs ahead of the sync; nothing it said leaves the process before the sync came back. After a failed append or
sync nothing is known about the disk: everything is refused until the process is started anew, and no sync is tried
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

import msgspec

from exchange import journal as codec
from exchange.adapters.file_log import FencedError, FileLog, LogFailedError
from exchange.commands import AdminCommand, Command, Sequenced, Tick
from exchange.engine import Engine, fingerprint, identity
from exchange.events import Event, Happened
from exchange.ports import EngineTelemetry, Journal, Log, Refusal
from exchange.schedule import PlannedTurn, Schedule
from exchange.tracing import Committed, Tracer
from exchange.types import AccountId, ClientId
from kernel.errors import PermanentError
from kernel.time import Clock, to_seconds

MAX_QUEUE: Final = 8192
"""About two seconds of what one core can take; longer waiting helps nobody."""
MAX_BATCH: Final = 1024
MIN_WAIT_S: Final = 0.001
"""How long to wait at least for what is due: it would be no wait to spin on the clock."""
MAX_WAIT_S: Final = 60.0
"""Then the clock is looked at again: it may have been set."""
_Result = TypeVar("_Result")


class Done(msgspec.Struct, frozen=True, gc=False):
    """A command is durable, and this is all it caused. `replayed`: it was so before."""

    seq: int
    events: tuple[Event, ...]
    replayed: bool


class Declined(NamedTuple):
    """A command got no place in the journal."""

    reason: Refusal
    detail: str = ""


class Absent(NamedTuple):
    """Nothing is known of a request."""


Reply = Callable[[Done | Declined], None]
Published = Callable[[Sequence[bytes], int], None]
"""Told after each commit: the encoded `Happened` records, and the number of the last."""


class _Waiting(msgspec.Struct, frozen=True):
    command: Command
    key: tuple[AccountId, ClientId]
    reply: Reply
    trace: str
    since: float
    """When it was queued, by the performance counter."""


class Sequencer:
    """Gives commands their place, one group commit after the other."""

    def __init__(  # noqa: PLR0913 - ports to the world around it, each with a name
        self,
        engine: Engine,
        journal: Journal,
        events: FileLog,
        *,
        clock: Clock,
        telemetry: EngineTelemetry,
        log: Log,
        tracer: Tracer | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self.engine: Final = engine
        self.sync_delay_s: Callable[[], float] = lambda: 0.0
        """A fault: seconds that every sync takes longer."""
        self.published: Published = lambda _payloads, _seq: None
        self.failure: str | None = None
        """Why nothing is taken any more; None while all is well."""
        self.seq = engine.sequence
        """The last durable command. The engine itself may be ahead while a sync is under way."""
        self._journal: Final = journal
        self._events: Final = events
        self._clock: Final = clock
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._tracer: Final = tracer
        self._max_queue: Final = max_queue
        self._queue: Final[deque[_Waiting]] = deque()
        self._pending: Final[dict[tuple[AccountId, ClientId], Command]] = {}
        self._at_rest: Final[deque[Callable[[], None]]] = deque()
        self._wake: Final = asyncio.Event()
        self._schedule: Schedule | None = None
        self._stopping = False
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="journal-sync")

    @property
    def depth(self) -> int:
        """How many commands wait for the next commit."""
        return len(self._queue)

    def submit(self, command: Command, reply: Reply, trace: str = "") -> None:
        """Queue a command; `reply` is called once, from this loop: at once if declined or known, else when durable.

        `trace` is the client's `traceparent`, which travels with the command.
        """
        key = identity(command)
        standing = self._standing(key, command)
        if standing is None:
            standing = self._obstacle(command)
        if standing is not None:
            self._telemetry.refused(standing.reason if isinstance(standing, Declined) else Refusal.REPLAYED)
            reply(standing)
            return
        self._pending[key] = command
        self._queue.append(_Waiting(command, key, reply, trace, time.perf_counter()))
        self._wake.set()

    def look_up(self, account: AccountId, client_id: ClientId) -> Done | Declined | Absent:
        """Tell what became of a request."""
        if (account, client_id) in self._pending:
            return Declined(self._why_undecided())
        known = self.engine.known(account, client_id)
        return Absent() if known is None else Done(known.seq, known.events, replayed=True)

    async def ask(self, command: AdminCommand) -> Done | Declined:
        """Submit a command and wait for its answer."""
        answer: asyncio.Future[Done | Declined] = asyncio.get_running_loop().create_future()
        self.submit(command, lambda outcome: None if answer.done() else answer.set_result(outcome))
        return await answer

    async def at_rest(self, read: Callable[[], _Result]) -> _Result:
        """Call `read` between two commits, when the engine's state is exactly what is durable; return its result.

        Raises:
            PermanentError: a commit failed that the engine has carried out; its state is not durable.
        """

        def read_durable() -> _Result:
            if self.engine.sequence != self.seq:
                raise PermanentError(f"the engine is ahead of its journal, which failed: {self.failure}")
            return read()

        return await self._between(read_durable)

    async def _between(self, read: Callable[[], _Result]) -> _Result:
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()

        def carry_out() -> None:
            if result.done():
                return
            try:
                result.set_result(read())
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to the one who asked, not to the commits
                result.set_exception(error)

        self._at_rest.append(carry_out)
        self._wake.set()
        return await result

    async def follow(self, schedule: Schedule) -> None:
        """Turn the market's phases by a schedule from now on; returns when the turns that are due stand first."""
        self._schedule = schedule
        await self._between(lambda: None)

    def next_turn(self) -> PlannedTurn | None:
        """Return the next turn of the schedule; None when none is kept, or none is in sight."""
        return None if self._schedule is None else self._schedule.next_turn

    async def run(self) -> None:
        """Commit batch after batch until `stop`; returns when the queue is empty, or at once after a failure."""
        while True:
            while self._at_rest:
                self._at_rest.popleft()()
            self._turn_if_due()
            self._tick_if_due()
            if self._queue and self.failure is None:
                await self._commit()
                continue
            if self._stopping:
                break
            self._wake.clear()
            await self._woken()
        self._thread.shutdown()

    def stop(self) -> None:
        """Take nothing more, finish what is queued, then return from `run`."""
        self._stopping = True
        self._wake.set()

    def _turn_if_due(self) -> None:
        """Put the turns that are due before everything that waits: whatever came later finds the new phase."""
        if self._schedule is None or self._stopping or self.failure is not None:
            return
        now = self._clock.now()
        if now < self._schedule.look_at:
            return
        since = time.perf_counter()
        turns: list[_Waiting] = []
        for command in self._schedule.due(self.engine, now):
            key = identity(command)
            if key in self._pending:  # a person took the very key
                continue
            self._pending[key] = command
            turns.append(_Waiting(command, key, lambda _outcome: None, "", since))
            self._log.event("phase-turned", key=key[1], by="calendar")
        self._queue.extendleft(reversed(turns))

    def _tick_if_due(self) -> None:
        """Write a `Tick` when something is due and no command that waits would bring it about."""
        if self._queue or self._stopping or self.failure is not None:
            return
        due = self.engine.due_at()
        if due is not None and due <= self._clock.now():
            # The key is the command's own place in the journal: no other tick can have it.
            self.submit(Tick(ClientId(f"tick-{self.engine.sequence + 1}")), lambda _outcome: None)

    async def _woken(self) -> None:
        """Wait until there is something to do, or something is due."""
        due: int | None = None if self.failure is not None else self.engine.due_at()
        if self._schedule is not None and self.failure is None:
            due = self._schedule.look_at if due is None else min(due, self._schedule.look_at)
        wait_s = None if due is None else min(MAX_WAIT_S, max(MIN_WAIT_S, to_seconds(due - self._clock.now())))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    # --- before the journal ------------------------------------------------------------------------------------------

    def _standing(self, key: tuple[AccountId, ClientId], command: Command) -> Done | Declined | None:
        """Answer a request that was made before. Requests are compared only when an id comes again."""
        waiting = self._pending.get(key)
        if waiting is not None:
            same = fingerprint(waiting) == fingerprint(command)
            return Declined(self._why_undecided() if same else Refusal.MISMATCH)
        known = self.engine.known(*key)
        if known is None:
            return None
        if known.fingerprint != fingerprint(command):
            return Declined(Refusal.MISMATCH)
        return Done(known.seq, known.events, replayed=True)

    def _why_undecided(self) -> Refusal:
        return Refusal.IN_FLIGHT if self.failure is None else Refusal.UNDECIDED

    def _obstacle(self, command: Command) -> Declined | None:
        if self.failure is not None:
            return Declined(Refusal.JOURNAL_FAILED, self.failure)
        if self._stopping:
            return Declined(Refusal.NOT_READY, "the engine is stopping")
        reason = self.engine.would_refuse(command)
        if reason is not None:
            return Declined(Refusal.HALTED, reason.value)
        if len(self._queue) >= self._max_queue:
            return Declined(Refusal.OVERLOADED, f"{self._max_queue} commands wait")
        return None

    # --- the commit -------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        waiting = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        now, first = self._clock.now(), self.engine.sequence + 1
        batch = [Sequenced(seq, now, one.command, one.trace) for seq, one in enumerate(waiting, first)]
        started = time.perf_counter()
        try:
            records = [codec.encode_command(item) for item in batch]
            self._journal.append(records)
            happened, apply_s = self._apply(batch)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._sync)
        except LogFailedError as error:
            self._fail(error)
            self._decline(waiting)
            return
        sync_s = time.perf_counter() - started - sum(apply_s)
        durable_at = self._clock.now()
        self.seq = batch[-1].seq
        for one, result in zip(waiting, happened, strict=True):
            del self._pending[one.key]
            one.reply(Done(result.seq, result.events, replayed=False))
        told = self._publish(happened)
        sync_s, waited_s = max(0.0, sync_s), [started - one.since for one in waiting]
        self._telemetry.committed(batch, happened, apply_s=apply_s, sync_s=sync_s, waited_s=waited_s)
        if self._tracer is not None:
            self._tracer.committed(Committed(batch, happened, waited_s, apply_s, sync_s, durable_at, records, told))

    def _apply(self, batch: Sequence[Sequenced]) -> tuple[list[Happened], list[float]]:
        """Let the engine carry out a batch; return what happened, and the seconds each command took."""
        caused: list[tuple[Event, ...]] = []
        apply_s: list[float] = []
        tick, apply = time.perf_counter, self.engine.apply
        begun = tick()
        for item in batch:
            caused.append(apply(item))
            ended = tick()
            apply_s.append(ended - begun)
            begun = ended
        happened = [Happened(item.seq, item.at, events, item.trace) for item, events in zip(batch, caused, strict=True)]
        return happened, apply_s

    def _sync(self) -> None:
        delay_s = self.sync_delay_s()
        if delay_s > 0:
            time.sleep(delay_s)
        self._journal.sync()

    def _publish(self, happened: Sequence[Happened]) -> list[bytes]:
        payloads = [codec.encode_events(item) for item in happened]
        try:
            self._events.append(payloads)
        except (LogFailedError, codec.RecordTooLargeError) as error:
            # The commands are durable and were answered. What they caused can be derived again, but not by consumers
            # who wait for it now: better to stand still than to trade on without market data and settlement.
            self._fail(error)
            self._decline([])
        self.published(payloads, happened[-1].seq)
        return payloads

    def _fail(self, error: PermanentError) -> None:
        self.failure = str(error)
        fenced = isinstance(error, FencedError)
        self._log.event("journal-failed", severity="critical", why=self.failure, seq=self.seq)
        if fenced:
            self._log.event("engine-fenced", severity="critical", why=self.failure, seq=self.seq)
        self._telemetry.ready(ready=False)
        self._telemetry.journal_failed(fenced=fenced)

    def _decline(self, waiting: Sequence[_Waiting]) -> None:
        """Answer everybody who waits.

        Whether the batch is on the disk nobody knows: it stays pending, so that a look-up says the same. What was only
        queued has no place in the journal, for certain.
        """
        for one in waiting:
            one.reply(Declined(Refusal.UNDECIDED, self.failure or ""))
        for one in self._queue:
            del self._pending[one.key]
            one.reply(Declined(Refusal.JOURNAL_FAILED, self.failure or ""))
        self._telemetry.refused(Refusal.UNDECIDED, len(waiting))
        self._telemetry.refused(Refusal.JOURNAL_FAILED, len(self._queue))
        self._queue.clear()
