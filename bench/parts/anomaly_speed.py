"""What a point costs: one series value by value, one series in a stretch, ten thousand that advance together.

Processor time, not the clock's: what others do on the machine is not counted.
"""

from __future__ import annotations

import time

import numpy as np

from anomaly.detector import Sample
from anomaly.fleet import Fleet
from anomaly.series import Series
from control.yardstick_table import table
from kernel.time import MINUTE, Instant

FLEET = 10_000
TARGETS = {"one series, value by value": 20.0, "one series, in a stretch": 20.0, f"{FLEET:,} series a step": 2.0}
STATE_MAX = 32 * 1024


def speed() -> str:
    count, warm, single = 20_000, 2000, 10_000
    at = np.arange(count, dtype=np.int64) * MINUTE
    values = 100.0 + 20.0 * np.sin(np.arange(count) / 230.0) + np.random.default_rng(11).normal(0.0, 3.0, count)
    one = Series()
    one.run(at[:warm], values[:warm])  # compiled, or loaded from disk
    Series().update(Sample(Instant(0), 1.0))
    begun = time.process_time()
    for row in range(warm, warm + single):
        one.update(Sample(Instant(int(at[row])), float(values[row])))
    each = (time.process_time() - begun) / single
    fresh = Series()
    begun = time.process_time()
    fresh.run(at, values)
    stretch = (time.process_time() - begun) / count
    batch, bytes_each = _fleet()
    body = []
    for (name, target), seconds in zip(TARGETS.items(), (each, stretch, batch), strict=True):
        seen = seconds * 1e6
        body.append([name, f"{seen:.2f}", f"{target:g}", "" if seen <= target else "MISSED"])
    kept = "" if bytes_each <= STATE_MAX else "MISSED"
    body.append(["state of one of them, KiB", f"{bytes_each / 1024:.1f}", f"{STATE_MAX // 1024}", kept])
    return table(["µs a point", "seen", "target", ""], body)


def _fleet() -> tuple[float, float]:
    """Return seconds a point and bytes a series; the first half of the steps warms caches and detectors."""
    steps = 300
    fleet = Fleet(FLEET)
    noise = np.random.default_rng(12).normal(0.0, 3.0, (steps, FLEET))
    cells = 100.0 + 20.0 * np.sin(np.arange(steps) / 23.0)[:, None] + noise
    taken = 0.0
    for step in range(steps):
        at = np.full(FLEET, step * MINUTE, dtype=np.int64)
        begun = time.process_time()
        fleet.advance(at, cells[step])
        if step >= steps // 2:
            taken += time.process_time() - begun
    return taken / (steps - steps // 2) / FLEET, len(fleet.save()) / FLEET


def state_bytes() -> int:
    """Return the saved size of one series that has seen a fortnight of minutes."""
    one = Series()
    count = 20_160
    one.run(np.arange(count, dtype=np.int64) * MINUTE, np.random.default_rng(3).normal(100.0, 5.0, count))
    return len(one.save())
