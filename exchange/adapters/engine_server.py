"""The engine's process: recovery, the single writer, the framed port for gateways and consumers, HTTP for operators.

Exit codes: 0 after a clean stop, 1 when it cannot start (one sentence tells why), `EXIT_JOURNAL_FAILED` when it was
stopped after its journal had failed. After such a failure it goes on to answer `/metrics` and `/v1/status`, so that the
alert sees it, and refuses everything else until somebody stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec

from exchange import snapshot
from exchange.adapters.compaction import AS_USUAL, Compacting, Retention
from exchange.adapters.disk import Disk
from exchange.adapters.event_stream import EventRing, Subscription
from exchange.adapters.file_log import FileLog, LogHeldError
from exchange.adapters.http import Faults
from exchange.adapters.look import INDICATIVE_S, CrossLook, books_of
from exchange.adapters.publishing import Publishing
from exchange.adapters.recovery import (
    CleanStop,
    EnginePaths,
    OpenJournal,
    Recovered,
    fork_snapshot,
    mark_clean_stop,
    recover,
    storage_of,
    take_snapshot,
    write_snapshot,
)
from exchange.adapters.sequencer import Absent, Declined, Done, Sequencer
from exchange.adapters.wear import CREEP, LEAK, Creep, Leak
from exchange.answers import all_rests
from exchange.calendar import Calendar
from exchange.commands import AdminCommand, Halt
from exchange.ports import EngineTelemetry, EventTopic, Log, Refusal
from exchange.protocol import (
    MAX_REQUEST_BYTES,
    AllRests,
    Answer,
    Answers,
    Books,
    FrameReader,
    FrameTooLongError,
    LookUp,
    NotFound,
    Refused,
    Submit,
    Submits,
    Subscribe,
    frame,
    read_request,
)
from exchange.schedule import Schedule
from exchange.tracing import Tracer
from exchange.types import ClientId, HaltReason, Instrument, TradingPhase, Venue
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Clock, Instant

EXIT_JOURNAL_FAILED: Final = 74
"""EX_IOERR of sysexits.h."""
ENGINE_FAULTS: Final = frozenset({"engine-slow-sync", CREEP, LEAK})
SNAPSHOT_EVERY: Final = 50_000
"""Commands between two snapshots: a replay of fewer takes less than a second."""
_READ_BYTES: Final = 256 * 1024
_MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024
"""A gateway that leaves so many answers unread is cut off."""


class Phase(StrEnum):
    """Where in its life the engine's process is."""

    WAITING = "waiting"
    REPLAYING = "replaying"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class EngineStatus(msgspec.Struct, frozen=True):
    """What `/v1/status` answers."""

    ready: bool
    phase: Phase
    detail: str
    seq: int
    market_halted: bool
    market_halt_reason: HaltReason | None
    halted_symbols: tuple[str, ...]
    session_open: bool
    market_phase: TradingPhase
    disabled_accounts: tuple[str, ...]
    clean_start: bool
    recovered_commands: int
    recovery_seconds: float
    journal_failed: bool
    by_calendar: bool = False
    """Whether a calendar turns the phases."""
    next_phase: TradingPhase | None = None
    """What the calendar turns the market to next; None: nothing is in sight."""
    next_phase_at: Instant | None = None


class StateHash(msgspec.Struct, frozen=True):
    """What `/v1/hash` answers: the hash of the state after command `seq`."""

    seq: int
    state_hash: str


@dataclass(frozen=True)
class EngineParts:
    """What an engine's process is made of."""

    paths: EnginePaths
    instruments: Sequence[Instrument]
    clock: Clock
    telemetry: EngineTelemetry
    log: Log
    faults: Faults
    disk: Disk | None = None
    snapshot_every: int = SNAPSHOT_EVERY
    tracer: Tracer | None = None
    venue: Venue | None = None
    """None: the usual one."""
    calendar: Calendar | None = None
    """Turns the market's phases; None: people alone do."""
    open_journal: OpenJournal | None = None
    """Opens a journal that is not in the files of `paths`; None: it is."""
    topic: EventTopic | None = None
    """Where events are published besides; None: nowhere."""
    retention: Retention = AS_USUAL
    """What stays of a journal in files although snapshots cover it; one elsewhere is never compacted."""


STORAGE_EVERY_S: Final = 5
"""Looking at directories is cheap, and nothing there changes fast."""
HELD_S: Final = 0.1
UNREACHED_S: Final = 1.0
"""How long to wait for a journal that another process has, or that cannot be reached."""
PUBLISH_LAST_S: Final = 2.0
"""How long a stop in good order waits for the last events to be published."""


class EngineServer:
    """The single writer and everybody connected to it."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts: Final = parts
        self._phase = Phase.REPLAYING
        self._detail = "reading the journal"
        self._recovered: Recovered | None = None
        self._sequencer: Sequencer | None = None
        self._ring: EventRing | None = None
        self._ready: Final = asyncio.Event()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._connections: Final[set[asyncio.Task[None]]] = set()
        self._commits: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._subscribers = 0
        self._indicated = 0
        self._snapshot_seq = 0
        self._publishing: Publishing | None = None
        self._compacting: Compacting | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, listener: socket.socket) -> None:
        """Take connections at once, recover, then take commands.

        Raises:
            PermanentError: the journal cannot be used.
        """
        self._server = await asyncio.start_server(self._connected, sock=listener)
        recovered = await self._recover()
        self._recovered = recovered
        self._parts.telemetry.recovered(recovered.replayed, recovered.seconds)
        self._snapshot_seq = recovered.engine.sequence
        self._ring = EventRing(recovered.engine.sequence)
        sequencer = Sequencer(
            recovered.engine,
            recovered.journal,
            recovered.events,
            clock=self._parts.clock,
            telemetry=self._parts.telemetry,
            log=self._parts.log,
            tracer=self._parts.tracer,
        )
        creep = Creep(self._parts.faults)
        sequencer.sync_delay_s = lambda: self._parts.faults.number("engine-slow-sync") + creep()
        sequencer.published = self._published
        self._sequencer = sequencer
        self._commits = asyncio.create_task(sequencer.run(), name="commits")
        if not recovered.clean:
            # Whatever was cut off, nobody trades before somebody looked.
            key = ClientId(f"recovery-{recovered.engine.sequence}")
            await sequencer.ask(Halt(key, None, HaltReason.RECOVERY))
        if self._parts.calendar is not None:  # after that halt: a missed turn may have a cross to make
            await sequencer.follow(Schedule(self._parts.calendar))
        self._phase, self._detail = Phase.READY, "commands are taken"
        self._ready.set()
        self._parts.telemetry.ready(ready=sequencer.failure is None)
        self._tell_standing()
        self._tell_notional()
        self._look = CrossLook(recovered.engine, self._parts.clock)
        self._publish_from(self._ring)
        self._compact_from(recovered)
        self._spawn(self._tick())
        self._spawn(self._indicate())
        self._spawn(Leak(self._parts.faults).run())
        self._parts.log.event("engine-ready", seq=recovered.engine.sequence, replayed=recovered.replayed,
                              seconds=recovered.seconds, clean=recovered.clean)  # fmt: skip

    async def stop(self) -> int:
        """Finish what is queued, keep a snapshot, mark the clean stop; return the exit code."""
        self._phase, self._detail = Phase.STOPPING, "the engine is stopping"
        self._parts.telemetry.ready(ready=False)
        if self._server is not None:
            self._server.close()
        code = await self._stop_writing()
        if self._publishing is not None:
            # What is not published by then is when the engine runs again.
            await self._publishing.finish(PUBLISH_LAST_S if code == 0 else 0.0)
            self._publishing.close()
        for task in (*self._connections, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._connections, *self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        return code

    async def _stop_writing(self) -> int:
        sequencer, recovered = self._sequencer, self._recovered
        if sequencer is None or recovered is None or self._commits is None:
            return 0
        sequencer.stop()
        await self._commits
        try:
            if sequencer.failure is not None:
                return EXIT_JOURNAL_FAILED
            engine, directory = sequencer.engine, self._parts.paths.snapshots
            kept, durable = self._parts.retention.snapshots, recovered.events.synced_seq
            write_snapshot(directory, engine.sequence, snapshot.dump(engine), kept, durable)
            mark_clean_stop(directory, CleanStop(engine.sequence, engine.state_hash(), snapshot.VERSION))
        except OSError as error:
            self._parts.log.event("clean-stop-not-marked", severity="error", why=str(error))
        finally:
            recovered.journal.close()
            recovered.events.close()
        return 0

    async def _recover(self) -> Recovered:
        loop, parts = asyncio.get_running_loop(), self._parts
        while True:
            try:
                return await loop.run_in_executor(
                    None,
                    partial(
                        recover, parts.paths, parts.instruments, parts.log, parts.disk, parts.venue, parts.open_journal
                    ),
                )
            except TemporaryError as error:
                held = isinstance(error, LogHeldError)
                if self._phase is not Phase.WAITING:
                    name = "journal-held" if held else "journal-not-reached"
                    parts.log.event(name, severity="warning", why=str(error))
                self._phase, self._detail = Phase.WAITING, str(error)
                await asyncio.sleep(HELD_S if held else UNREACHED_S)

    def _publish_from(self, ring: EventRing) -> None:
        parts = self._parts
        if parts.topic is not None:
            self._publishing = Publishing(
                parts.topic, ring, parts.paths.events, parts.telemetry, parts.log, parts.tracer
            )
            self._spawn(self._publishing.run())

    def _compact_from(self, recovered: Recovered) -> None:
        parts, keep = self._parts, self._parts.retention.keep
        if keep is not None and isinstance(recovered.journal, FileLog):
            self._compacting = Compacting(
                recovered.journal, recovered.events, keep, clock=parts.clock, telemetry=parts.telemetry, log=parts.log
            )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        for second in itertools.count():
            if second % STORAGE_EVERY_S == 0:
                self._parts.telemetry.storage(
                    **await asyncio.get_running_loop().run_in_executor(None, storage_of, self._parts.paths)
                )
            await asyncio.sleep(1.0)
            self._tell_standing()
            self._tell_notional()
            if self._publishing is not None:
                self._publishing.tell()

    # --- what operators ask ----------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Tell whether commands are taken, and if not, why."""
        if self._sequencer is not None and self._sequencer.failure is not None:
            return False, f"the journal failed: {self._sequencer.failure}"
        return self._phase is Phase.READY, self._detail

    def status(self) -> EngineStatus:
        """Return how things stand now; `seq` is the last durable command."""
        is_ready, detail = self.ready()
        sequencer, recovered = self._sequencer, self._recovered
        engine = None if sequencer is None else sequencer.engine
        failed = sequencer is not None and sequencer.failure is not None
        turn = None if sequencer is None else sequencer.next_turn()
        return EngineStatus(
            ready=is_ready,
            phase=Phase.FAILED if failed else self._phase,
            detail=detail,
            seq=0 if sequencer is None else sequencer.seq,
            market_halted=engine is None or engine.market_halted,
            market_halt_reason=None if engine is None else engine.market_halt_reason,
            halted_symbols=() if engine is None else engine.halted_symbols(),
            session_open=engine is not None and engine.session_open,
            market_phase=TradingPhase.CLOSED if engine is None else engine.market_phase,
            disabled_accounts=() if engine is None else engine.disabled_accounts(),
            clean_start=recovered is not None and recovered.clean,
            recovered_commands=0 if recovered is None else recovered.replayed,
            recovery_seconds=0.0 if recovered is None else recovered.seconds,
            journal_failed=failed,
            by_calendar=self._parts.calendar is not None,
            next_phase=None if turn is None else turn.phase,
            next_phase_at=None if turn is None else turn.at,
        )

    async def state_hash(self) -> StateHash:
        """Return the hash of the durable state.

        Raises:
            PermanentError: the engine is not ready.
        """
        sequencer = self._need_sequencer()
        return await sequencer.at_rest(lambda: StateHash(sequencer.engine.sequence, sequencer.engine.state_hash()))

    async def command(self, command: AdminCommand) -> Done | Declined:
        """Carry out an operator's command; returns when it is durable."""
        if self._sequencer is None or self._phase is not Phase.READY:
            return Declined(Refusal.NOT_READY, self._detail)
        return await self._sequencer.ask(command)

    async def snapshot(self) -> int:
        """Keep a snapshot now; return the journal number it stands at.

        Raises:
            PermanentError: the engine is not ready, or the disk refused.
        """
        sequencer = self._need_sequencer()
        directory, kept, engine = self._parts.paths.snapshots, self._parts.retention.snapshots, sequencer.engine
        compacting = self._compacting if self._compacting is not None and self._compacting.wanted() else None
        first_seq = None if compacting is None or self._recovered is None else self._recovered.journal.first_seq
        events_seq = None if self._recovered is None else self._recovered.events.synced_seq
        forked = await sequencer.at_rest(lambda: fork_snapshot(directory, engine, kept, first_seq, events_seq))
        self._snapshot_seq = forked.seq
        covered = await asyncio.get_running_loop().run_in_executor(None, take_snapshot, directory, forked)
        self._parts.log.event("snapshot-kept", seq=forked.seq)
        if compacting is not None and self._phase is Phase.READY:
            await compacting.run(covered)
        return forked.seq

    def _need_sequencer(self) -> Sequencer:
        if self._sequencer is None or self._phase is not Phase.READY or self._sequencer.failure is not None:
            raise PermanentError(f"the engine is not ready: {self.ready()[1]}")
        return self._sequencer

    # --- after each commit -------------------------------------------------------------------------------------------

    def _published(self, payloads: Sequence[bytes], seq: int) -> None:
        assert self._ring is not None, "a commit before the ring exists"
        self._ring.publish(payloads, seq)
        self._tell_standing()
        if seq - self._snapshot_seq >= self._parts.snapshot_every and self._phase is Phase.READY:
            self._snapshot_seq = seq
            self._spawn(self._snapshot_quietly())

    async def _snapshot_quietly(self) -> None:
        try:
            await self.snapshot()
        except PermanentError as error:
            self._parts.log.event("snapshot-failed", severity="error", why=str(error))

    def _tell_standing(self) -> None:
        if self._sequencer is None:
            return
        engine = self._sequencer.engine
        self._parts.telemetry.standing(
            queue_depth=self._sequencer.depth,
            subscribers=self._subscribers,
            resting_orders=engine.resting_orders,
            market_halted=engine.market_halted,
            halted_symbols=engine.halted_symbols(),
        )

    def _tell_notional(self) -> None:
        if self._sequencer is not None:
            self._parts.telemetry.open_notional(self._sequencer.engine.open_notional())

    def _books(self) -> Books:
        assert self._sequencer is not None, "books before recovery"
        return books_of(self._sequencer.engine)

    async def _indicate(self) -> None:
        """Tell what crosses would do while anybody listens, conflated."""
        while True:
            await asyncio.sleep(INDICATIVE_S)
            if self._indicated and self._sequencer is not None and self._ring is not None:
                told = None
                with contextlib.suppress(PermanentError):  # after a failed commit there is nothing more to tell
                    told = await self._sequencer.at_rest(self._look.changed)
                if told is not None:
                    self._ring.indicate(told.seq, frame(told))

    # --- connections -----------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection without a task"
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, line = FrameReader(MAX_REQUEST_BYTES), _Line(writer)
        while data := await reader.read(_READ_BYTES):
            try:
                for body in frames.feed(data):
                    message = read_request(body)
                    if isinstance(message, Subscribe):
                        await self._serve_stream(message, reader, writer)
                        return
                    self._request(message, line)
            except (FrameTooLongError, msgspec.DecodeError) as error:
                self._parts.telemetry.refused(Refusal.BAD_MESSAGE)
                self._parts.log.event("bad-message", severity="warning", why=str(error))
                return

    def _request(self, message: Submit | Submits | LookUp, line: _Line) -> None:
        sequencer = self._sequencer
        asked = len(message.commands) if isinstance(message, Submits) else 1
        if sequencer is None or self._phase is not Phase.READY:
            for request_id in range(message.id, message.id + asked):
                line.send(Refused(request_id, Refusal.NOT_READY, self._detail))
            self._parts.telemetry.refused(Refusal.NOT_READY, asked)
        elif isinstance(message, Submits):
            line.together = True
            traces = message.traces
            for place, command in enumerate(message.commands):
                sequencer.submit(command, partial(line.reply_to_many, message.id + place), traces.get(place, ""))
        elif isinstance(message, Submit):
            sequencer.submit(message.command, partial(line.reply, message.id), message.trace)
        else:
            line.reply(message.id, sequencer.look_up(message.account, message.client_id))

    async def _serve_stream(
        self, message: Subscribe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._ready.wait()
        assert self._sequencer is not None, "ready without a sequencer"
        assert self._ring is not None, "ready without a ring"
        try:
            books = await self._sequencer.at_rest(self._books) if message.books else None
        except PermanentError as error:
            self._parts.log.event("books-refused", severity="warning", why=str(error))
            return
        self._subscribers += 1
        self._indicated += message.indications
        self._tell_standing()
        subscription = Subscription(self._ring, self._parts.paths.events, self._parts.clock, writer)
        sending = asyncio.create_task(subscription.run(message.from_seq, books, indications=message.indications))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            why = sending.result() if sending.done() and not sending.cancelled() else "it left"
            self._parts.log.event("subscriber-left", why=why)
        finally:
            self._subscribers -= 1
            self._indicated -= message.indications
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._tell_standing()


class _Line:
    """The way back to one gateway: what one turn of the loop has to say goes out in one write."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.together = False
        """Whether the other end takes `Answers`: it sent `Submits`."""
        self._writer = writer
        self._rest: list[AllRests] = []
        self._others: list[Answer | Refused | NotFound] = []

    def reply(self, request_id: int, outcome: Done | Declined | Absent) -> None:
        """Answer one request."""
        match outcome:
            case Done(seq, events, replayed):
                self.send(Answer(request_id, seq, events, replayed))
            case Declined(reason, detail):
                self.send(Refused(request_id, reason, detail))
            case Absent():
                self.send(NotFound(request_id))

    def reply_to_many(self, request_id: int, outcome: Done | Declined) -> None:
        """Answer one of many requests that came together, in short where that is possible."""
        plain = all_rests(outcome.events) if isinstance(outcome, Done) and not outcome.replayed else None
        if plain is None:
            self.reply(request_id, outcome)
        else:
            assert isinstance(outcome, Done), "nothing rests of what was declined"
            self._wake()
            self._rest.append(AllRests(request_id, outcome.seq, plain.order_id, plain.quantity))

    def send(self, message: Answer | Refused | NotFound) -> None:
        """Send a message with all others of this turn."""
        self._wake()
        self._others.append(message)

    def _wake(self) -> None:
        if not (self._rest or self._others):
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        rest, self._rest = self._rest, []
        others, self._others = self._others, []
        data = frame(Answers(tuple(rest), tuple(others))) if self.together else b"".join(map(frame, others))
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            transport.abort()
            return
        transport.write(data)
