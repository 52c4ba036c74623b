"""Compiled code says what the same text says as plain Python, and never reaches beyond an array.

A compiled function reads and writes past the end of an array without a word. So the text runs once more uncompiled, in
a process of its own, over records whose every index is looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from anomaly import kernel
from anomaly.settings import VOTERS, Settings

COUNT = 480
STEP_NS = 5 * 60 * 10**9


def rows():
    """Stamps, values and slots with everything in them: gaps, ties, jumps, stamps that stand still or step back."""
    rng = np.random.default_rng(23)
    at = 1_700_000_000 * 10**9 + np.arange(COUNT, dtype=np.int64) * STEP_NS
    at[300], at[350:352], at[400:] = at[299], at[340:342], at[400:] - 20 * STEP_NS
    values = rng.normal(10.0, 1.0, COUNT)
    values[[150, 151, 390]] = 60.0
    values[200:205], values[260] = np.nan, np.inf
    values[310:335] = values[310]
    values[430] = 1e300
    slots = np.full(COUNT, -1, np.int32)
    slots[420:] = np.arange(COUNT - 420)
    return at, values, slots


class Checked:
    """An array of a record: every index is within it, and single numbers are read as the compiled code reads them."""

    def __init__(self, array):
        self.array = array

    def _look(self, key):
        for one, size in zip(key if isinstance(key, tuple) else (key,), self.array.shape, strict=False):
            assert isinstance(one, slice) or 0 <= one < size, f"index {key} of an array of {self.array.shape}"

    def __getitem__(self, key):
        self._look(key)
        found = self.array[key]
        if self.array.dtype.names:
            return Record(self.array, key)
        if isinstance(found, np.ndarray):
            return Checked(found)
        return np.float64(found) if isinstance(found, np.floating) else found

    def __setitem__(self, key, value):
        self._look(key)
        self.array[key] = value


class Record:
    """One record of an array, by attributes as in compiled code."""

    def __init__(self, array, key):
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_key", key)

    def __getattr__(self, name):
        field = self._array[name]
        if field.ndim > self._array.ndim:
            return Checked(field[self._key])
        return Record(field, self._key) if field.dtype.names else field[self._key]

    def __setattr__(self, name, value):
        self._array[name][self._key] = value


def as_python():
    """Step the series uncompiled; returns a row of outcomes for each."""
    state, settings = Record(kernel.blank(1), 0), Checked(Settings().numbers())
    stat, far = Checked(np.zeros(kernel.STATISTICS)), Checked(np.zeros(kernel.STATISTICS + VOTERS))
    said = []
    with np.errstate(all="ignore"):
        for at, value, slot in zip(*rows(), strict=True):
            paged = kernel.step(state, settings, int(at), value, int(slot), stat, far)
            said.append([float(x) for x in (paged, state.score, state.low, state.high, state.channel, state.verdict)])
    return said


def test_compiled_code_says_what_its_text_says():
    told = subprocess.run(
        [sys.executable, "-m", "tests.anomaly.test_compiled_as_written"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    said = np.array(json.loads(told.stdout))
    at, values, slots = rows()
    out, paged, marks = np.zeros((COUNT, 3)), np.zeros(COUNT, np.bool_), np.zeros((COUNT, 3), np.int8)
    kernel.run(kernel.blank(1)[0], Settings().numbers(), at, values, slots, out, paged, marks)
    assert said[:, 0].tolist() == paged.tolist()
    assert said[:, 4].tolist() == marks[:, 0].tolist()
    assert said[:, 5].tolist() == marks[:, 2].tolist()
    assert said[:, 1:4] == pytest.approx(out, rel=1e-6, nan_ok=True)
    assert paged.any()
    assert set(marks[:, 2].tolist()) == {0, 1, 2, 3, 4}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(as_python()))
