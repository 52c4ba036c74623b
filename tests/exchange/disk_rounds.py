"""A single writer on a disk that fails when its system calls are interfered with from outside.

    python -m tests.exchange.disk_rounds DIRECTORY COUNT

Sends COUNT orders, one commit each, to a sequencer over real files, and goes on after a refusal. Prints `ready` when
everything is open, then a line for each order, `done SEQ` or `declined REASON`, then `failure` with what the sequencer
says of itself.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from exchange.adapters.recovery import recover
from exchange.adapters.sequencer import Done, Sequencer
from exchange.recording import RecordingEngine, RecordingLog
from kernel.adapters.clock import SystemClock
from tests.exchange.plant import INSTRUMENTS, order, paths


async def main(root: Path, count: int) -> None:
    """Send the orders one after the other."""
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    telemetry = RecordingEngine()
    sequencer = Sequencer(
        back.engine, back.journal, back.events, clock=SystemClock(), telemetry=telemetry, log=RecordingLog()
    )
    running = asyncio.create_task(sequencer.run())
    say("ready")
    for number in range(count):
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        sequencer.submit(order(f"c{number}"), answer.set_result)
        outcome = await answer
        say(f"done {outcome.seq}" if isinstance(outcome, Done) else f"declined {outcome.reason.value}")  # type: ignore[attr-defined]
    say(f"failure {sequencer.failure or 'none'}")
    say(f"told {telemetry.failed}")
    sequencer.stop()
    await running


def say(text: str) -> None:
    """Say it at once: what was said before a kill counts."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
