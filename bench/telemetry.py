"""What telemetry costs the engine: its sequencer with metrics, and with metrics and traces, against nobody listening.

    python bench/telemetry.py [COMMANDS]

The same commands go through the whole sequencer (journal, sync, event log), in commits of 64 and of 1. A round runs
all three ways in turn, each on a fresh engine and directory; figures are medians over rounds of ratios within a round,
by the processor's time of the whole process. The wall time is printed beside them; it is mostly the disk's.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.parts.figures import percentile, verdict
from bench.parts.plant import folder
from exchange.adapters.file_log import FileLog
from exchange.adapters.sequencer import Declined, Done, Sequencer
from exchange.commands import ParticipantCommand, Sequenced
from exchange.engine import Engine
from exchange.flow import OrderFlow
from exchange.journal import Kind
from exchange.ports import EngineTelemetry
from exchange.recording import RecordingLog
from exchange.tracing import Tracer
from exchange.types import AccountId, Instrument, Symbol, Ticks
from kernel.adapters.clock import SystemClock
from monitor.adapters.exporter import Exporter
from monitor.adapters.spans import SpanQueue, SpanTracer
from monitor.adapters.verdict_files import Alone
from monitor.catalog import Role
from monitor.engine_instruments import EngineInstruments
from monitor.traces import Policy, Span

INSTRUMENTS = [Instrument(Symbol(f"S{number:02}"), Ticks(10_000), Ticks(2_000)) for number in range(12)]
GOAL = 0.03
WARM = 5


class Nobody:
    """Takes every call of `EngineTelemetry` and forgets it."""

    def committed(self, *_: object, **__: object) -> None:
        """Forget it."""

    def refused(self, *_: object) -> None:
        """Forget it."""

    def ready(self, *, ready: bool) -> None:
        """Forget it."""

    def journal_failed(self) -> None:
        """Forget it."""


class Nowhere:
    """A trace store that takes everything and has nothing."""

    def send(self, _: Sequence[Span]) -> bool:
        """Forget them."""
        return True

    def close(self) -> None:
        """Nothing was opened."""


class Cost(NamedTuple):
    """Of one run, seconds."""

    busy: float
    wall: float
    told: float = 0.0
    """Within the calls alone, when they were timed."""


class Timed:
    """Times the calls to a listener, which must stand in their own thread."""

    def __init__(self, inner: EngineTelemetry | Tracer) -> None:
        self._inner = inner
        self.seconds = 0.0

    def committed(self, *args: Any, **named: Any) -> None:
        """Hand on and time."""
        began = time.thread_time()
        self._inner.committed(*args, **named)
        self.seconds += time.thread_time() - began


def record(count: int) -> list[ParticipantCommand]:
    """Return commands of a calm market."""
    engine, commands = Engine(INSTRUMENTS), []
    flow = OrderFlow(1, INSTRUMENTS, [AccountId(f"account-{number}") for number in range(20)])
    for seq in range(1, count + 1):
        command = next(flow)
        flow.observe(engine.apply(Sequenced(seq, seq, command)))  # type: ignore[arg-type] # any instant will do
        commands.append(command)
    return commands


def nobody() -> tuple[EngineTelemetry, Tracer | None]:
    """Nobody listens."""
    return Nobody(), None  # type: ignore[return-value] # all that the sequencer calls


def metrics() -> tuple[EngineTelemetry, Tracer | None]:
    """Metrics as the engine has them."""
    return EngineInstruments(Exporter(Role.ENGINE), [one.symbol for one in INSTRUMENTS]), None


def both() -> tuple[EngineTelemetry, Tracer | None]:
    """Metrics and traces, with the threads that build and send."""
    queue = SpanQueue(Nowhere(), lambda _result, _count: None)
    tracer = SpanTracer([queue], Policy(share=0.01), Alone(), lambda _result, _count: None)
    tracer.start()
    return metrics()[0], tracer


def timed() -> tuple[EngineTelemetry, Tracer | None]:
    """Metrics and traces, each call timed."""
    telemetry, tracer = both()
    assert tracer is not None
    return Timed(telemetry), Timed(tracer)  # type: ignore[return-value] # all that the sequencer calls


WAYS: dict[str, Callable[[], tuple[EngineTelemetry, Tracer | None]]] = {
    "nobody": nobody, "nobody again": nobody, "metrics": metrics, "metrics and traces": both, "the same, timed": timed,
}  # fmt: skip


class Way:
    """One sequencer on a directory of its own, with whoever listens."""

    def __init__(self, directory: Path, commands: list[ParticipantCommand],
                 listening: Callable[[], tuple[EngineTelemetry, Tracer | None]]) -> None:  # fmt: skip
        """Open the logs and let it run; within an event loop."""
        self.listening = listening()
        telemetry, tracer = self.listening
        self._rest = iter(commands)
        self._logs = FileLog(directory / "journal"), FileLog(directory / "events", Kind.EVENTS)
        self._sequencer = Sequencer(Engine(INSTRUMENTS), *self._logs, clock=SystemClock(), telemetry=telemetry,
                                    log=RecordingLog(), tracer=tracer)  # fmt: skip
        self._at_work = asyncio.create_task(self._sequencer.run())
        self._waiting, self._answered = 0, asyncio.Event()

    def _told(self, _: Done | Declined) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._answered.set()

    async def some(self, commits: int, size: int) -> Cost:
        """Commit the next commands, `size` at a time."""
        before = self._within()
        began, busy = time.perf_counter(), time.process_time()
        for _ in range(commits):
            part = list(islice(self._rest, size))
            self._waiting = len(part)
            self._answered.clear()
            for command in part:
                self._sequencer.submit(command, self._told)
            await self._answered.wait()
        # What follows the last answer belongs to the last commit.
        await self._sequencer.at_rest(lambda: None)
        return Cost(time.process_time() - busy, time.perf_counter() - began, self._within() - before)

    def _within(self) -> float:
        return sum(getattr(one, "seconds", 0.0) for one in self.listening)

    async def close(self) -> None:
        """End."""
        self._sequencer.stop()
        await self._at_work
        for log in self._logs:
            log.close()


async def compared(commands: list[ParticipantCommand], size: int, commits: int) -> dict[str, list[Cost]]:
    """Return what the same commands cost each way, slice by slice of `commits` commits, the ways in turn."""
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    gc.collect()
    gc.disable()  # a collection that happens to fall into one slice and not the other says nothing of either
    with ExitStack() as stack:
        ways = {name: Way(stack.enter_context(folder()), commands, listening) for name, listening in WAYS.items()}
        names = list(ways)
        for number in range(len(commands) // (size * commits)):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                cost = await ways[name].some(commits, size)
                if number >= WARM:
                    costs[name].append(cost)
        for way in ways.values():
            await way.close()
    gc.enable()
    return costs


def measure(commands: list[ParticipantCommand], size: int, commits: int) -> None:
    """Print the cost in commits of `size`."""
    costs, many = asyncio.run(compared(commands, size, commits)), size * commits
    for name, each in costs.items():
        busy, wall = ([one[place] / many * 1e6 for one in each] for place in (0, 1))
        print(f"commits of {size:<3} {name:<20} processor {percentile(busy, 0.5):7.2f} us a command   "
              f"wall {percentile(wall, 0.5):7.2f} us")  # fmt: skip
    for name in ("nobody again", "metrics", "metrics and traces"):
        pairs = list(zip(costs[name], costs["nobody"], strict=True))
        more = [one.busy / none.busy - 1 for one, none in pairs]
        middle = percentile(more, 0.5)
        extra = percentile([(one.busy - none.busy) / many * 1e6 for one, none in pairs], 0.5)
        verdict(f"{name}, commits of {size}",
                f"{middle:+.1%} of the processor's time ({extra:+.2f} us a command; quarter to three quarters of "
                f"{len(more)} slices {percentile(more, 0.25):+.1%} to {percentile(more, 0.75):+.1%})",
                f"{GOAL:.0%}", reached=middle <= GOAL)  # fmt: skip
    told = percentile([one.told / one.busy for one in costs["the same, timed"]], 0.5)
    each_us = percentile([one.told / many * 1e6 for one in costs["the same, timed"]], 0.5)
    print(f"the calls of metrics and traces alone, commits of {size}: {told:.1%} of the processor's time, "
          f"{each_us:.2f} us a command")  # fmt: skip


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 192_000
    commands = record(count)
    measure(commands, 64, 10)
    measure(commands[: count // 16], 1, 40)


if __name__ == "__main__":
    main()
