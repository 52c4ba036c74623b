"""How many commands a second an engine's start takes from its journal, in parts, beside other checkouts.

    python bench/recovery.py [COMMANDS] [ROUNDS] [CHECKOUT ...]

A calm flow (12 symbols, 8 accounts) is written as a journal with its whole event log, no snapshot. Then each checkout
(this one, and those named) starts from it in processes of their own, from source and compiled, all in turn; the best
round of each part counts, in processor time, the kernel's included. Every start must come to the same state. A checkout
is compiled if its `build/compiled` fits its sources (`python scripts/compiled.py`), else left out with a word.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.durable import SEED, recorded
from bench.parts.figures import verdict
from control.state_dir import generate_instruments
from exchange.adapters.file_log import FileLog
from exchange.adapters.recovery import EnginePaths, recover
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.journal import Kind, decode_command, encode_command
from exchange.recording import NullLog
from kernel.time import Instant

ROOT: Final = Path(__file__).parents[1]
ONCE: Final = "--once"
SYMBOLS: Final = 12
GOALS: Final = {"source": 250_000, "compiled": 600_000}
"""Commands a second."""
_Made = TypeVar("_Made")
PARTS: Final = (
    "whole",
    "opening the journal",
    "opening the event log",
    "taking apart and decoding",
    "the engine alone",
)


def paths_of(root: Path) -> EnginePaths:
    """Return where an engine keeps its things under `root`."""
    return EnginePaths(root / "journal", root / "events", root / "snapshots")


def write(root: Path, count: int) -> None:
    """Write a journal and, as an ordinary life does, its event log."""
    instruments = generate_instruments(SYMBOLS, SEED)
    commands = recorded(instruments, count)
    with FileLog(paths_of(root).journal) as journal:
        journal.append(
            [encode_command(Sequenced(seq, Instant(seq * 1_000), one)) for seq, one in enumerate(commands, 1)]
        )
        journal.sync()
    first = recover(paths_of(root), instruments, NullLog())
    first.journal.close()
    first.events.close()


def once(root: Path) -> None:
    """Start once in this process and print what it took; the parts come after the whole, so that it starts afresh."""
    instruments, paths = generate_instruments(SYMBOLS, SEED), paths_of(root)
    took: dict[str, float] = {}
    faults: dict[str, int] = {}

    def timed(name: str, act: Callable[[], _Made]) -> _Made:
        gc.collect()
        began = resource.getrusage(resource.RUSAGE_SELF)
        made = act()
        ended = resource.getrusage(resource.RUSAGE_SELF)
        took[name] = ended.ru_utime - began.ru_utime + ended.ru_stime - began.ru_stime
        faults[name] = ended.ru_minflt - began.ru_minflt
        return made

    back = timed("whole", lambda: recover(paths, instruments, NullLog()))
    state, count = back.engine.state_hash(), back.replayed
    back.journal.close()
    back.events.close()
    del back
    gc.disable()
    with timed("opening the journal", lambda: FileLog(paths.journal, keep=True)) as journal:
        items = timed("taking apart and decoding",
                      lambda: [decode_command(one) for batch in journal.payloads() for one in batch])  # fmt: skip
    timed("opening the event log", lambda: FileLog(paths.events, Kind.EVENTS)).close()
    engine = Engine(instruments)

    def matching() -> None:
        for one in items:
            engine.apply(one)

    timed("the engine alone", matching)
    assert engine.state_hash() == state, "the engine alone came to another state"
    print(json.dumps({"took": took, "faults": faults, "state": state, "count": count}))


def start(checkout: Path, root: Path, build: str) -> dict[str, Any] | None:
    """Let a checkout start once; None, with a word, when there is no such build of it."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "TAPEWATCH_COMPILED": "1" if build == "compiled" else "0"}
    done = subprocess.run([sys.executable, "-W", "error", __file__, ONCE, str(root)], env=environment, check=False,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        print(f"{checkout.name}, {build}: left out: {done.stderr.strip().splitlines()[-1]}")
        return None
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def measure(root: Path, checkouts: list[Path], rounds: int) -> dict[tuple[str, Path], list[dict[str, Any]]]:
    """Let all start in turn; return what each told, by build and checkout."""
    told: dict[tuple[str, Path], list[dict[str, Any]]] = {(build, one): [] for build in GOALS for one in checkouts}
    for _ in range(rounds):
        for (build, checkout), rounds_of in list(told.items()):
            found = start(checkout, root, build)
            if found is None:
                del told[build, checkout]
            else:
                rounds_of.append(found)
    assert len({one["state"] for rounds_of in told.values() for one in rounds_of}) == 1, "they come to several states"
    return told


def table(told: dict[tuple[str, Path], list[dict[str, Any]]], count: int) -> list[str]:
    """Return the best of each part in microseconds a command, as lines of Markdown."""
    heads = [f"{build}, {checkout.name}" for build, checkout in told]
    lines = [f"| us a command | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for part in PARTS:
        best = [min(one["took"][part] for one in rounds) / count * 1e6 for rounds in told.values()]
        lines.append(f"| {part} | {' | '.join(f'{each:.2f}' for each in best)} |")
    faults = [min(one["faults"]["whole"] for one in rounds) for rounds in told.values()]
    rates = [count / min(one["took"]["whole"] for one in rounds) for rounds in told.values()]
    middle = [count / sorted(one["took"]["whole"] for one in rounds)[len(rounds) // 2] for rounds in told.values()]
    lines.append(f"| page faults, the whole | {' | '.join(f'{each:,}' for each in faults)} |")
    lines.append(f"| commands a second, best | {' | '.join(f'{each:,.0f}' for each in rates)} |")
    lines.append(f"| commands a second, median | {' | '.join(f'{each:,.0f}' for each in middle)} |")
    return lines


def main() -> None:
    if ONCE in sys.argv[1:]:
        once(Path(sys.argv[2]))
        return
    figures = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    count, rounds = (*figures, 60_000)[0], (*figures[1:], 5)[0]
    checkouts = [ROOT, *(Path(word).absolute() for word in sys.argv[1:] if not word.isdecimal())]
    with tempfile.TemporaryDirectory(prefix="tapewatch-recovery-") as scratch:
        write(Path(scratch), count)
        print(f"{count:,} commands, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, best of {rounds}")
        told = measure(Path(scratch), checkouts, rounds)
    print("\n".join(table(told, count)))
    for (build, checkout), rounds_of in told.items():
        if checkout == ROOT:
            rate = count / min(one["took"]["whole"] for one in rounds_of)
            verdict(f"recovery, {build}", f"{rate:,.0f} commands/s", f"{GOALS[build]:,}", reached=rate >= GOALS[build])


if __name__ == "__main__":
    main()
