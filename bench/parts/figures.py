"""Numbers as the benches print them: one line a distribution, one line a ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that `part` (0 to 1) of all values do not exceed; `values` need not be sorted."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * part) - 1)]


def spread(name: str, seconds: Sequence[float]) -> None:
    """Print a distribution of durations, given in seconds."""
    p50, p90, p99 = (percentile(seconds, part) * 1000 for part in (0.5, 0.9, 0.99))
    print(
        f"{name:<42} p50 {p50:8.2f}   p90 {p90:8.2f}   p99 {p99:8.2f}   max {max(seconds) * 1000:8.2f} ms"
        f"   ({len(seconds)} times)"
    )


def verdict(what: str, value: str, goal: str, *, reached: bool) -> None:
    """Print a figure beside what it should be. A goal that is missed is printed, not hidden, and stops nothing."""
    print(f"{what}: {value}   (goal {goal}: {'reached' if reached else 'MISSED'})", flush=True)
