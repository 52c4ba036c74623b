"""How fast the engine, its journal and its recovery are here, beside a reference loop of the same run.

Absolute figures say as much about the machine as about the program. The reference is a fixed loop of plain Python
(dictionary, list and whole numbers); a ratio to it moves little from one machine to another. What only computes is
counted in processor time, so that others on the machine do not count; what waits for the disk, in time on the wall.
"""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from control.state_dir import generate_instruments
from exchange.adapters.file_log import FileLog
from exchange.adapters.load_client import ACCOUNTS
from exchange.adapters.recovery import EnginePaths, recover
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.flow_kinds import FlowKind, made_flow
from exchange.journal import decode_command, encode_command
from exchange.types import Instrument
from kernel.errors import InputError, PermanentError
from kernel.time import Instant

COMMANDS_MIN: Final = 1_000
COMMANDS_MAX: Final = 10_000_000
BATCHES: Final = (1, 16, 64, 256, 1024)
_REFERENCE_STEPS: Final = 200_000
_BATCH_S: Final = 1.0
"""Seconds that each batch size is measured for, at most: one sync at a time is slow on a disk."""
_US: Final = 1e6


class Spread(msgspec.Struct, frozen=True):
    """A distribution of durations, in microseconds."""

    p50_us: float
    p99_us: float
    p999_us: float
    worst_us: float


class Speed(msgspec.Struct, frozen=True):
    """How many a second, of processor time or (the journal) on the wall, and how that compares."""

    per_s: float
    ratio: float
    """To the steps a second of the reference loop."""


class Batch(msgspec.Struct, frozen=True):
    """Group commits of one size: appended, applied, synced."""

    size: int
    commands: int
    speed: Speed
    commit: Spread
    """From the append to the end of the sync, which every command of the batch waits for."""


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `exchange bench` measures."""

    flow: str
    seed: int
    commands: int
    reference_steps_per_s: float
    engine: Speed
    engine_rounds_per_s: tuple[float, ...]
    command: Spread
    """Of one command, on the wall."""
    worst_collection_ms: float
    """The longest pause of the garbage collector while the engine ran; 0: it did not run."""
    collections: int
    journal: tuple[Batch, ...]
    directory: str
    """Where the journal was: its disk is what a batch waits for."""
    replay: Speed
    """Records read, checked, decoded and applied."""
    recovery: Speed
    """The same as a start does it: without a snapshot, and with the event log written anew."""


def run(
    flow: str,
    seed: int,
    commands: int,
    *,
    rounds: int = 3,
    directory: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> BenchReport:
    """Measure; `say` is told what is measured now.

    Raises:
        InputError: what is wished for is wrong.
        PermanentError: the directory cannot be written.
    """
    if flow not in set(FlowKind):
        raise InputError(
            "--flow", f"{flow[:80]!r} is no kind", right=f"one of {', '.join(one.value for one in FlowKind)}"
        )
    if not COMMANDS_MIN <= commands <= COMMANDS_MAX:
        raise InputError("--commands", f"is {commands}", right=f"between {COMMANDS_MIN:,} and {COMMANDS_MAX:,}")
    say(f"recording {commands:,} commands of the flow {flow}")
    instruments = generate_instruments(4, 1)
    items = _record(FlowKind(flow), seed, instruments, commands)
    speeds: list[float] = []
    steps: list[float] = []
    pauses: list[float] = []
    each: list[float] = []
    for number in range(1, rounds + 1):
        say(f"engine, round {number} of {rounds}")
        steps.append(reference())
        speed, each, found = _apply(instruments, items)
        speeds.append(speed)
        pauses.extend(found)
    step = statistics.median(steps)
    try:
        with tempfile.TemporaryDirectory(prefix="tapewatch-bench-", dir=directory) as made:
            root = Path(made)
            batches = []
            for size in (each for each in BATCHES if each <= commands):
                say(f"journal, {size} commands a sync")
                batches.append(_batch(root / f"batch-{size}", instruments, items, size, step))
            say("replay and recovery")
            replay_s, recovery_s = _come_back(root / "recovery", instruments, items)
            where = str(root.parent)
    except OSError as error:
        raise PermanentError(
            f"{directory or 'the temporary directory'}: cannot be written: {error.strerror}"
        ) from error
    return BenchReport(
        flow=flow, seed=seed, commands=commands, reference_steps_per_s=step,
        engine=_speed(statistics.median(speeds), step), engine_rounds_per_s=tuple(speeds), command=spread(each),
        worst_collection_ms=max(pauses, default=0.0) * 1e3, collections=len(pauses),
        journal=tuple(batches), directory=where,
        replay=_speed(commands / replay_s, step), recovery=_speed(commands / recovery_s, step),
    )  # fmt: skip


def reference(steps: int = _REFERENCE_STEPS) -> float:
    """Return how many steps a second a fixed loop of plain Python makes here."""
    kept: dict[int, int] = {}
    queue: list[int] = []
    total = 0
    began = time.process_time()
    for step in range(steps):
        key = step * 7919 & 1023
        total += kept.get(key, 0)
        kept[key] = step
        queue.append(key)
        if len(queue) > 64:  # noqa: PLR2004 - as long as a busy price's queue
            total -= queue.pop()
            queue.pop()
    taken_s = time.process_time() - began
    assert total, "a loop whose result nobody reads could be left out"
    return steps / taken_s


def spread(seconds: Sequence[float]) -> Spread:
    """Return the distribution of durations."""
    ranked = sorted(seconds)
    p50, p99, p999 = (ranked[max(0, math.ceil(len(ranked) * part) - 1)] * _US for part in (0.5, 0.99, 0.999))
    return Spread(p50, p99, p999, ranked[-1] * _US)


def _speed(per_s: float, reference_per_s: float) -> Speed:
    return Speed(per_s, per_s / reference_per_s)


def _record(kind: FlowKind, seed: int, instruments: Sequence[Instrument], count: int) -> list[Sequenced]:
    engine, items = Engine(instruments), []
    flow = made_flow(kind, seed, instruments, ACCOUNTS, count=count)
    for seq in range(1, count + 1):
        item = Sequenced(seq, Instant(seq * 1_000), next(flow))
        flow.observe(engine.apply(item))
        items.append(item)
    return items


def _apply(instruments: Sequence[Instrument], items: Sequence[Sequenced]) -> tuple[float, list[float], list[float]]:
    """Apply all commands; return commands a second, seconds of each, and the collector's pauses."""
    engine, each, tick = Engine(instruments), [], time.perf_counter
    gc.collect()
    with _collector() as pauses:
        began = time.process_time()
        for item in items:
            before = tick()
            engine.apply(item)
            each.append(tick() - before)
        taken_s = time.process_time() - began
    return len(items) / taken_s, each, pauses


@contextmanager
def _collector() -> Iterator[list[float]]:
    """Time every run of the garbage collector."""
    pauses: list[float] = []
    began = 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - began)

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


def _batch(
    directory: Path, instruments: Sequence[Instrument], items: Sequence[Sequenced], size: int, step: float
) -> Batch:
    """Commit as the sequencer does, one batch after the other: append, apply, sync."""
    engine, each, done = Engine(instruments), [], 0
    with FileLog(directory) as log:
        began = time.perf_counter()
        for start in range(0, len(items) - size + 1, size):
            batch = items[start : start + size]
            before = time.perf_counter()
            log.append([encode_command(item) for item in batch])
            for item in batch:
                engine.apply(item)
            log.sync()
            each.append(time.perf_counter() - before)
            done += size
            if time.perf_counter() - began > _BATCH_S:
                break
        taken_s = time.perf_counter() - began
    return Batch(size, done, _speed(done / taken_s, step), spread(each))


class _Silent:
    def event(self, *_: object, **__: object) -> None:
        """Leave it."""


def _come_back(root: Path, instruments: Sequence[Instrument], items: Sequence[Sequenced]) -> tuple[float, float]:
    """Return the seconds of processor time of a replay and of a recovery."""
    paths = EnginePaths(root / "journal", root / "events", root / "snapshots")
    with FileLog(paths.journal) as log:
        for start in range(0, len(items), 1024):
            log.append([encode_command(item) for item in items[start : start + 1024]])
        log.sync()
        began, engine = time.process_time(), Engine(instruments)
        for record in log.replay():
            engine.apply(decode_command(record.payload))
        replay_s = time.process_time() - began
    began = time.process_time()
    recovered = recover(paths, instruments, _Silent())
    recovery_s = time.process_time() - began
    with closing(recovered.journal), recovered.events:
        assert recovered.replayed == len(items), "a recovery that left something out"
        assert recovered.engine.state_hash() == engine.state_hash(), "two ways to come back, two states"
    return replay_s, recovery_s
