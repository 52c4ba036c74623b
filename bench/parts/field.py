"""Who takes part in a contest of matching engines, and how each is started on a flow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.parts.plain_flow import Flow, write
from exchange.adapters.compiled import CHOICE, MANIFEST, fault
from scripts.compiled import compile_into, modules_of

ROOT: Final = Path(__file__).parents[2]
CONTEST: Final = ROOT / "bench" / "parts" / "contest.py"
HARNESS: Final = ROOT / "bench" / "parts" / "liquibook_flow.cpp"
COMPILED: Final = ROOT / "build" / "bench"
"""The compiled build with the bare book in it; what `make compiled` makes is not touched."""


@dataclass(frozen=True)
class Entry:
    """One contestant: its title, its command without the flow, and what to add to the environment."""

    title: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    most: int = 1_000_000_000
    """How many requests it is given: slow ones get the first of the same flow."""
    deepest: int = 1_000_000_000
    """In how deep a book it is still measured."""


@dataclass
class Result:
    """What one contestant did; the best of its rounds."""

    title: str
    count: int
    rate: float = 0.0
    """Requests a second of the processor's time."""
    each: array[int] = field(default_factory=lambda: array("q"))
    """The least nanoseconds of every request."""
    kept_blocks: float | None = None
    kept_bytes: float | None = None
    allocations: float | None = None
    pause_us: float | None = None
    wrong: str = ""

    def percentile_us(self, part: float) -> float:
        ranked = sorted(self.each)
        return ranked[min(len(ranked) - 1, int(len(ranked) * part))] / 1e3


def ours(*, compiled: bool) -> list[Entry]:
    """Return the bare book and the engine, from source and, if it can be, compiled."""
    entries = []
    for name, title in (("bare", "bare book"), ("plain_engine", "engine, checks off"), ("engine", "whole engine")):
        argv = (sys.executable, str(CONTEST), name)
        entries.append(Entry(f"{title}, Python", argv, {"PYTHONPATH": str(ROOT), CHOICE: ""}))
        if compiled:
            entries.append(Entry(f"{title}, mypyc", argv, {"PYTHONPATH": f"{COMPILED}:{ROOT}", CHOICE: str(COMPILED)}))
    return entries


def compile_ours() -> str:
    """Compile the engine and the bare book unless it was done; return why it cannot be."""
    modules = [*modules_of(ROOT), "bench/parts/bare.py"]
    if shutil.which("cc") is None:
        return "there is no C compiler: apt-get install gcc python3-dev"
    manifest = COMPILED / "exchange" / MANIFEST
    same = manifest.is_file() and len(json.loads(manifest.read_bytes())["modules"]) == len(modules)
    if not same or fault(COMPILED / "exchange"):
        compile_into(COMPILED, ROOT, modules)
    return ""


def peers() -> tuple[list[Entry], str]:
    """Return the books of PyPI, and how to get them when they are not there."""
    python = os.environ.get("PEERS_PYTHON") or str(ROOT / ".peers" / "bin" / "python")
    asked = subprocess.run(
        [python, "-c", "import lightmatchingengine, order_matching.matching_engine"], capture_output=True, check=False
    ) if shutil.which(python) else None  # fmt: skip
    if asked is None or asked.returncode:
        return [], f"lightmatchingengine and order-matching are left out: {python} has them not; `make peers`"
    environment = {"PYTHONPATH": str(ROOT)}
    names = (
        ("lightmatchingengine", "lightmatchingengine", 1_000_000, 10_000),
        ("order_matching", "order-matching", 2_000, 1_000),
    )
    return [
        Entry(title, (python, str(CONTEST), name), environment, most, deepest) for name, title, most, deepest in names
    ], ""


def liquibook(scratch: Path) -> tuple[list[Entry], str]:
    """Return liquibook, compiled from its own sources, and why it is left out when it is."""
    place = os.environ.get("LIQUIBOOK_DIR", "")
    if not place:
        return [], "liquibook is left out: LIQUIBOOK_DIR names no checkout of github.com/objectcomputing/liquibook"
    if shutil.which("g++") is None:
        return [], "liquibook is left out: there is no g++"
    program = scratch / "liquibook_flow"
    done = subprocess.run(
        ["g++", "-O3", "-std=c++17", f"-I{place}/src", str(HARNESS), "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return [], f"liquibook is left out: it does not compile: {done.stderr.splitlines()[0]}"
    return [Entry("liquibook (C++)", (str(program),), deepest=100_000)], ""


def contest(entries: Sequence[Entry], flow: Flow, rounds: int, scratch: Path) -> list[Result]:
    """Let all run on one flow, in turn, `rounds` times; the best of each counts.

    A contestant that trades other lots or at other prices than the flow's own answer is marked as wrong.
    """
    results = [Result(entry.title, min(flow.requests, entry.most)) for entry in entries]
    files: dict[int, tuple[Path, Any]] = {}
    for count in {result.count for result in results}:
        path = scratch / f"flow-{count}.txt"
        files[count] = path, write(path, flow._replace(prefix=count))
    for _ in range(rounds):
        for entry, result in zip(entries, results, strict=True):
            path, answer = files[result.count]
            told = _run(entry, path, flow.before, scratch / "latencies")
            if (told["lots"], told["turnover"]) != (answer.lots, answer.turnover):
                result.wrong = f"traded {told['lots']} lots for {told['turnover']}, not {answer}"
            _take(result, told, scratch / "latencies")
    return results


def _run(entry: Entry, path: Path, before: int, latencies: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*entry.argv, str(path), str(before), str(latencies)],
        env={**os.environ, **entry.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{entry.title}: {done.stderr[-2_000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _take(result: Result, told: dict[str, Any], latencies: Path) -> None:
    each = array("q")
    each.frombytes(latencies.read_bytes())
    result.each = array("q", map(min, result.each, each)) if result.each else each
    result.rate = max(result.rate, result.count / told["seconds"])
    for name in ("kept_blocks", "kept_bytes", "allocations", "pause_us"):
        if name in told:
            before = getattr(result, name)
            setattr(result, name, told[name] if before is None else min(before, told[name]))
