"""The promise on series with nothing to find: noise of several kinds, steps, and what falls into their first days."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anomaly.series import Series
from control.yardstick_table import FACTOR, table
from kernel.time import MINUTE

SEEDS = 6
DAYS = 14
STEPS_MIN = (1, 5)
YOUNG = 1500
Chance = np.random.Generator
Values = NDArray[np.float64]


def _walk(count: int, chance: Chance, pull: float) -> Values:
    found, steps = np.zeros(count), chance.normal(0.0, 1.0, count)
    for row in range(1, count):
        found[row] = (1.0 - pull) * found[row - 1] + steps[row]
    return found


KINDS: dict[str, Callable[[int, int, Chance], Values]] = {
    "normal": lambda n, _, chance: 100.0 + 5.0 * chance.normal(0.0, 1.0, n),
    "Laplace": lambda n, _, chance: 100.0 + 5.0 * chance.laplace(0.0, 1.0, n),
    "lognormal": lambda n, _, chance: np.exp(3.0 + 0.5 * chance.normal(0.0, 1.0, n)),
    "Poisson, mean 3": lambda n, _, chance: chance.poisson(3.0, n).astype(np.float64),
    "autoregressive, .9": lambda n, _, chance: _walk(n, chance, 0.1),
    "random walk": lambda n, _, chance: _walk(n, chance, 0.0),
    "daily wave": lambda n, step, chance: (
        100.0 + 30.0 * np.sin(np.arange(n) * step / 1440 * 2 * np.pi) + 3.0 * chance.normal(0.0, 1.0, n)
    ),
    "rare bursts": lambda n, _, chance: np.where(chance.random(n) < 0.01, chance.exponential(5.0, n), 0.0),
    "constant": lambda n, _, __: np.full(n, 45.0),
}


def healthy(budget: float) -> str:
    """Return the false alarms of healthy series beside the promise."""
    body = []
    for step in STEPS_MIN:
        for kind, make in KINDS.items():
            count = DAYS * 1440 // step
            at = np.arange(count, dtype=np.int64) * step * MINUTE
            alarms = [
                np.flatnonzero(Series().run(at, make(count, step, np.random.default_rng(seed))).alert)
                for seed in range(SEEDS)
            ]
            rows = np.concatenate(alarms)
            rate = len(rows) / SEEDS / DAYS
            young = int((rows < YOUNG).sum())
            body.append(
                [kind, f"{step} min", f"{rate:.3f}", f"{rate / budget:.1f}", f"{young / SEEDS:.1f}",
                 "yes" if rate <= FACTOR * budget else "NO"]
            )  # fmt: skip
    head = ["kind", "step", "a series-day", "times the budget", f"a series in its first {YOUNG} rows", "within 3 times"]
    return table(head, body)
