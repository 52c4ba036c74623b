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
from collections.abc import Callable, Iterable
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
from exchange.tracing import Committed, NoTracer
from exchange.types import AccountId, Instrument, Symbol, Ticks
from kernel.adapters.clock import SystemClock
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from monitor.instruments import EngineInstruments
from monitor.traces import Look, Policy, Span, commit_spans

INSTRUMENTS = [Instrument(Symbol(f"S{number:02}"), Ticks(10_000), Ticks(2_000)) for number in range(12)]
GOAL = 0.03
ROUNDS = {64: 21, 1: 21}


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


class Thrown(NoTracer):
    """Builds the spans of the share that is kept, as `SpanTracer` does, and throws them away."""

    def __init__(self) -> None:
        self._look = Look(Policy(share=0.01))
        self.spans = 0

    def committed(self, one: Committed) -> None:
        """Build and forget."""
        self._offer(commit_spans(one, self._look))

    def _offer(self, spans: Iterable[Span]) -> None:
        for _ in spans:
            self.spans += 1


class Cost(NamedTuple):
    """Of one run, seconds."""

    busy: float
    wall: float
    told: float = 0.0
    """Within the calls alone, when they were timed."""


class Timed:
    """Times the calls to a listener, which must stand in their own thread."""

    def __init__(self, inner: EngineTelemetry | NoTracer) -> None:
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


def nobody() -> tuple[EngineTelemetry, NoTracer | None]:
    """Nobody listens."""
    return Nobody(), None  # type: ignore[return-value] # all that the sequencer calls


def metrics() -> tuple[EngineTelemetry, NoTracer | None]:
    """Metrics as the engine has them."""
    return EngineInstruments(Exporter(Role.ENGINE), [one.symbol for one in INSTRUMENTS]), None


def both() -> tuple[EngineTelemetry, NoTracer | None]:
    """Metrics and traces."""
    return metrics()[0], Thrown()


def timed() -> tuple[EngineTelemetry, NoTracer | None]:
    """Metrics and traces, each call timed."""
    telemetry, tracer = both()
    assert tracer is not None
    return Timed(telemetry), Timed(tracer)  # type: ignore[return-value] # all that the sequencer calls


async def run(directory: Path, commands: list[ParticipantCommand], size: int,
              listening: Callable[[], tuple[EngineTelemetry, NoTracer | None]]) -> Cost:  # fmt: skip
    """Commit all commands, `size` at a time."""
    telemetry, tracer = listening()
    journal, events = FileLog(directory / "journal"), FileLog(directory / "events", Kind.EVENTS)
    sequencer = Sequencer(Engine(INSTRUMENTS), journal, events, clock=SystemClock(), telemetry=telemetry,
                          log=RecordingLog(), tracer=tracer)  # fmt: skip
    at_work = asyncio.create_task(sequencer.run())
    waiting, rest = 0, asyncio.Event()

    def answered(_: Done | Declined) -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            rest.set()

    gc.collect()
    gc.disable()  # a collection that happens to fall into one run and not the other says nothing of either
    began, busy = time.perf_counter(), time.process_time()
    for first in range(0, len(commands), size):
        part = commands[first : first + size]
        waiting = len(part)
        rest.clear()
        for command in part:
            sequencer.submit(command, answered)
        await rest.wait()
    sequencer.stop()
    await at_work
    told = sum(getattr(one, "seconds", 0.0) for one in (telemetry, tracer))
    cost = Cost(time.process_time() - busy, time.perf_counter() - began, told)
    gc.enable()
    journal.close()
    events.close()
    return cost


def measure(commands: list[ParticipantCommand], size: int, rounds: int) -> None:
    """Print the cost in commits of `size`."""
    ways = {"nobody": nobody, "metrics": metrics, "metrics and traces": both, "the same, timed": timed}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with folder() as directory:
                costs[name].append(asyncio.run(run(directory, commands, size, ways[name])))
    for name, each in costs.items():
        busy, wall = ([one[place] / len(commands) * 1e6 for one in each] for place in (0, 1))
        print(f"commits of {size:<3} {name:<20} processor {percentile(busy, 0.5):7.2f} us a command   "
              f"wall {percentile(wall, 0.5):7.2f} us")  # fmt: skip
    for name in ("metrics", "metrics and traces"):
        more = [one.busy / none.busy - 1 for one, none in zip(costs[name], costs["nobody"], strict=True)]
        middle = percentile(more, 0.5)
        extra = percentile([(one.busy - none.busy) / len(commands) * 1e6
                            for one, none in zip(costs[name], costs["nobody"], strict=True)], 0.5)  # fmt: skip
        verdict(f"{name}, commits of {size}",
                f"{middle:+.1%} of the processor's time ({extra:+.2f} us a command; quarter to three quarters of the "
                f"rounds {percentile(more, 0.25):+.1%} to {percentile(more, 0.75):+.1%})",
                f"{GOAL:.0%}", reached=middle <= GOAL)  # fmt: skip
    told = percentile([one.told / one.busy for one in costs["the same, timed"]], 0.5)
    each_us = percentile([one.told / len(commands) * 1e6 for one in costs["the same, timed"]], 0.5)
    print(f"the calls of metrics and traces alone, commits of {size}: {told:.1%} of the processor's time, "
          f"{each_us:.2f} us a command")  # fmt: skip


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12_800
    commands = record(count)
    measure(commands, 64, ROUNDS[64])
    measure(commands[: count // 8], 1, ROUNDS[1])


if __name__ == "__main__":
    main()
