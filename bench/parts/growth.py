"""Cost of a request against the depth of the book and the number of symbols, and the drawing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.parts.field import Entry, contest
from bench.parts.plain_flow import Flow

DEPTHS: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
SYMBOLS: Final = (1, 10, 100, 1_000, 10_000)
COUNT: Final = 10_000
ROUNDS: Final = 2
A_SYMBOL: Final = 10
"""Orders that rest in each symbol when symbols are counted."""


class Curve(NamedTuple):
    """Microseconds a request of one contestant at each size."""

    title: str
    points: dict[int, float]


def measure(entries: Sequence[Entry], sizes: Sequence[int], flow: Callable[[int], Flow], scratch: Path) -> list[Curve]:
    """Measure every contestant at every size it is fit for; print as it goes."""
    curves = {entry.title: Curve(entry.title, {}) for entry in entries}
    for size in sizes:
        which = flow(size)
        fit = [entry for entry in entries if which.before <= entry.deepest]
        for result in contest(fit, which, ROUNDS if which.before < 100_000 else 1, scratch):
            if result.wrong:
                raise SystemExit(f"{result.title}: {result.wrong}")
            curves[result.title].points[size] = 1e6 / result.rate
            print(f"  {size:>9,}  {result.title:<24} {1e6 / result.rate:8.2f} us a request", flush=True)
    return list(curves.values())


def deep(size: int) -> Flow:
    return Flow(COUNT, size)


def wide(size: int) -> Flow:
    return Flow(COUNT, size, wide=True)


def symbols(size: int) -> Flow:
    return Flow(COUNT, A_SYMBOL, symbols=size)


def draw(path: Path, panels: Sequence[tuple[str, str, Sequence[Curve]]]) -> None:
    """Draw the panels (title, axis, curves) beside each other as SVG; the same figures give the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "tapewatch", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), sharey=True, squeeze=False)
        for axis, (title, unit, curves) in zip(axes[0], panels, strict=True):
            for number, curve in enumerate(curves):
                style = "--" if "mypyc" in curve.title else "-"
                sizes = sorted(curve.points)
                axis.plot(sizes, [curve.points[size] for size in sizes], style, marker="o", markersize=3,
                          color=_colour(curve.title, number), label=curve.title)  # fmt: skip
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_title(title)
            axis.set_xlabel(unit)
            axis.grid(visible=True, which="major", alpha=0.3)
        axes[0][0].set_ylabel("µs a request")
        axes[0][0].legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _colour(title: str, number: int) -> str:
    for words, colour in (("bare", "#2c7fb8"), ("engine", "#d95f0e"), ("liquibook", "#555555")):
        if words in title:
            return colour
    return f"C{number}"
