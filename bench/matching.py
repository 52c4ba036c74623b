"""The matching against other books on one flow: speed, latency, memory, growth.

    python bench/matching.py [REQUESTS] [ROUNDS] [REQUESTS OF THE LONG FLOW]
    python bench/matching.py --whole        more rounds, ten million requests; writes the figures of bench/exchange.md
    python bench/matching.py --growth       cost by depth and by symbols; writes its part of bench/exchange.md, the plot

One generated flow (60 % orders that rest, 30 % cancels, 10 % orders that meet the other side) goes through our bare
book and our whole engine, each from source and compiled by mypyc, `lightmatchingengine` and `order-matching` from PyPI,
and liquibook in C++ where `LIQUIBOOK_DIR` names a checkout of it. Each runs in a process of its own, all in turn,
several times; the best round of each counts. Whoever does not trade what the flow's own answer says is marked as wrong.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.parts.field import ROOT, Entry, Result, compile_ours, contest, liquibook, ours, peers
from bench.parts.figures import verdict
from bench.parts.growth import COUNT, DEPTHS, ROUNDS, SYMBOLS, Curve, deep, draw, measure, symbols, wide
from bench.parts.plain_flow import Flow
from bench.parts.plant import folder

STEADY: Final = ROOT / "bench" / "parts" / "steady.py"
REPORT: Final = ROOT / "bench" / "exchange.md"
PLOT: Final = ROOT / "bench" / "exchange-growth.svg"
GOALS: Final = {
    "bare book, Python": (1_000_000, 4.0),
    "bare book, mypyc": (2_500_000, 3.0),
    "whole engine, Python": (250_000, 15.0),
    "whole engine, mypyc": (600_000, 8.0),
}
"""Requests a second, and microseconds that 99 of 100 stay below."""
HEAD: Final = (
    "| contestant | requests/s | ratio | p50 us | p99 us | p99.9 us | kept a request | worst pause ms |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)
MEMORY_HEAD: Final = (
    "| memory | requests | after a tenth | at the end | blocks after a tenth | at the end | resting | in cycles |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)
FLAT: Final = 1.02
"""How much more may live at the end of a long flow than when its first tenth was over."""


def table(results: Sequence[Result]) -> list[str]:
    """Return the table as lines of Markdown. The ratio is to liquibook, else to the best book of PyPI."""
    titles = [result.title for result in results]
    against = next((title for title in ("liquibook (C++)", "lightmatchingengine") if title in titles), titles[0])
    reference = next(result.rate for result in results if result.title == against)
    lines = [*HEAD]
    for result in results:
        p50, p99, p999 = (result.percentile_us(part) for part in (0.5, 0.99, 0.999))
        pause = "" if result.pause_us is None else f"{result.pause_us / 1e3:.2f}"
        figures = f"{result.rate:,.0f} | {result.rate / reference:.3g} | {p50:.2f} | {p99:.2f} | {p999:.2f}"
        lines.append(f"| {result.title} | {figures} | {_kept(result)} | {pause} |")
    lines += ["", f"Ratio: to {against}, same run."]
    lines += [f"WRONG: {result.title} {result.wrong}" for result in results if result.wrong]
    return lines


def _kept(result: Result) -> str:
    if result.allocations is not None:
        return f"{result.allocations:.1f} calls of new"
    return "" if result.kept_blocks is None else f"{result.kept_blocks:.2f} blocks, {result.kept_bytes:,.0f} bytes"


def judge(results: Sequence[Result]) -> None:
    """Print each of our figures beside its goal."""
    for result in results:
        if result.title not in GOALS:
            continue
        rate, p99_us = GOALS[result.title]
        p99 = result.percentile_us(0.99)
        verdict(result.title, f"{result.rate:,.0f} requests/s, p99 {p99:.1f} us", f"{rate:,}/s, {p99_us:.0f} us",
                reached=result.rate >= rate and p99 <= p99_us and not result.wrong)  # fmt: skip


def memory(entry: Entry, count: int) -> list[str]:
    """Run a long flow and return what was seen of its memory, as lines of Markdown."""
    done = subprocess.run(
        [entry.argv[0], str(STEADY), entry.argv[-1], str(count)],
        env={**os.environ, **entry.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    first, last, garbage = told[0], told[-2], told[-1]["only_the_collector"]
    flat = last["bytes"] <= FLAT * first["bytes"] and not garbage
    before, after = (f"{each['bytes'] / 1e6:.1f} MB" for each in (first, last))
    verdict(f"memory over {count:,} requests, {entry.title}",
            f"{before} after a tenth, {after} at the end, {garbage} objects in cycles", f"{FLAT:.2f} times, 0",
            reached=flat)  # fmt: skip
    blocks = f"{first['blocks']:,} | {last['blocks']:,} | {first['resting']:,}, {last['resting']:,}"
    return [f"| {entry.title} | {count:,} | {before} | {after} | {blocks} | {garbage} |"]


def grow(entries: Sequence[Entry], scratch: Path) -> list[tuple[str, str, list[Curve]]]:
    """Measure the three growths."""
    panels = []
    for title, unit, sizes, flow in (
        ("orders near the top", "resting orders", DEPTHS, deep),
        ("ten orders a level", "resting orders", DEPTHS, wide),
        ("ten orders a symbol", "symbols", SYMBOLS, symbols),
    ):
        print(f"growth, {title}, by {unit}:")
        panels.append((title, unit, measure(entries, sizes, flow, scratch)))
    return panels


def growth_table(panels: Sequence[tuple[str, str, Sequence[Curve]]]) -> list[str]:
    """Return the points of the plot as Markdown."""
    lines = []
    for title, unit, curves in panels:
        sizes = sorted({size for curve in curves for size in curve.points})
        lines += ["", f"| {title}: {unit} | " + " | ".join(f"{size:,}" for size in sizes) + " |"]
        lines.append("|---|" + "---:|" * len(sizes))
        for curve in curves:
            points = (f"{curve.points[size]:.2f}" if size in curve.points else "" for size in sizes)
            lines.append(f"| {curve.title} | " + " | ".join(points) + " |")
    return lines


def report(part: str, lines: Sequence[str]) -> None:
    """Keep the figures between the marks of a part of the report; what people wrote around them stays."""
    first, last = f"<!-- {part} -->\n", f"<!-- end of {part} -->\n"
    head, mark, rest = REPORT.read_text().partition(first)
    _, end, tail = rest.partition(last)
    assert mark, f"{REPORT} has lost the marks of its {part}"
    assert end, f"{REPORT} has lost the marks of its {part}"
    REPORT.write_text(head + first + "\n" + "\n".join(lines) + "\n\n" + last + tail)


def machine() -> str:
    """Say on what it was measured."""
    model = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores ({model}), load average {load:.1f}, "
        f"Python {platform.python_version()}"
    )


def show_growth(own: Sequence[Entry], native: Sequence[Entry], scratch: Path) -> None:
    """Measure and draw the growth, and keep it."""
    about = f"{machine()}; {COUNT:,} requests at each size, best of {ROUNDS} rounds (of one from 100,000 orders on)."
    panels = grow([*(one for one in own if one.argv[-1] != "plain_engine"), *native], scratch)
    draw(PLOT, panels)
    report("growth", [about, *growth_table(panels)])


def main() -> None:
    whole = "--whole" in sys.argv[1:]
    figures = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    count = figures[0] if figures else 100_000
    rounds = figures[1] if figures[1:] else (7 if whole else 3)
    steady = figures[2] if figures[2:] else (10_000_000 if whole else 200_000)
    missing = compile_ours()
    if missing:
        print(f"the compiled builds are left out: {missing}")
    with folder() as scratch:
        own = ours(compiled=not missing)
        strangers, why = peers()
        native, why_native = liquibook(scratch)
        for each in (why, why_native):
            if each:
                print(each)
        if "--growth" in sys.argv[1:]:
            show_growth(own, native, scratch)
            return
        flow = Flow(count)
        results = contest([*own, *native, *strangers], flow, rounds, scratch)
        lines = [f"{machine()}; {count:,} requests, {flow.resting:,} orders resting, best of {rounds} rounds.", ""]
        lines += table(results)
        print("\n".join(lines))
        judge(results)
        lines += ["", *MEMORY_HEAD]
        for entry in own:
            if entry.argv[-1] != "plain_engine":
                lines += memory(entry, steady)
        if whole:
            report("figures", lines)


if __name__ == "__main__":
    main()
