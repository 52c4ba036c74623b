"""Candidate periods of a series, off the hot path: found by autocorrelation, confirmed by decomposition.

A lag at which the autocorrelation has a peak is a candidate; it is kept when STL (Cleveland et al. 1990, "STL: A
Seasonal-Trend Decomposition Procedure Based on Loess") finds a seasonal part that matters there: strength
1 - Var(remainder) / Var(seasonal + remainder) (Wang, Smith and Hyndman 2006, "Characteristic-Based Clustering for Time
Series Data"). Gaps are bridged in a straight line; extremes are cut first, so that one outlier makes no rhythm. Long
series are averaged down, which bounds the time to some tenths of a second.

>>> import numpy as np
>>> rng = np.random.default_rng(2)
>>> day = 10 + np.sin(2 * np.pi * np.arange(288 * 7) / 288) + 0.3 * rng.normal(size=288 * 7)
>>> day[300:330] = np.nan
>>> [(found.rows, round(found.strength, 1)) for found in periods(day)]
[(288, 0.9)]
>>> periods(rng.normal(size=2000))
()
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from statsmodels.tsa.seasonal import STL  # type: ignore[import-untyped]
from statsmodels.tsa.stattools import acf  # type: ignore[import-untyped]

Floats = NDArray[np.float64]

MOST_POINTS: Final = 2048
"""A longer series is averaged down to at most so many points."""
LEAST_POINTS: Final = 32
LEAST_CYCLES: Final = 3
"""Times a period must have been seen."""
LEAST_LAG: Final = 4
LEAST_CORRELATION: Final = 0.2
LEAST_STRENGTH: Final = 0.4
MOST_MISSING: Final = 0.5
CANDIDATES: Final = 3
SAME: Final = 0.1
"""Periods that differ by less than this share, or by it from a multiple of a shorter one, say the same."""
GAIN: Final = 0.08
"""By how much a multiple of a shorter period must be the stronger one to be told as well."""


@dataclasses.dataclass(frozen=True, slots=True)
class Period:
    """A confirmed period: its length in rows of the series, and its strength, 0 to 1."""

    rows: int
    strength: float


def periods(values: Floats, *, most: int = 2, least_strength: float = LEAST_STRENGTH) -> tuple[Period, ...]:
    """Return up to `most` periods of an evenly spaced series, strongest first; NaN or infinite where a row is missing.

    None is returned for a series too short, too gappy or constant.
    """
    whole = _bridged(np.asarray(values, dtype=np.float64))
    grain = -(-len(whole) // MOST_POINTS) or 1
    line = whole[: len(whole) // grain * grain].reshape(-1, grain).mean(axis=1)
    if len(line) < LEAST_POINTS or float(np.ptp(line)) == 0.0:
        return ()
    found: list[Period] = []
    for lag in sorted(_lags(line)):
        strength, rows = _strength(line, lag), _refined(whole, lag * grain, grain)
        least = max([least_strength, *(each.strength + GAIN for each in found if _multiple(rows, each.rows))])
        if strength >= least:
            found.append(Period(rows, strength))
    return tuple(sorted(found, key=lambda each: -each.strength)[:most])


def _bridged(values: Floats) -> Floats:
    """Return the series without gaps and extremes; empty when too little is left."""
    known = np.isfinite(values)
    if len(values) < LEAST_POINTS or known.mean() < MOST_MISSING:
        return np.zeros(0)
    line = np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
    low, high = np.quantile(line, [0.005, 0.995])
    return np.clip(line, low, high) if low < high else line


def _lags(line: Floats) -> list[int]:
    """Return the lags of the highest peaks of the autocorrelation, highest first, no two alike."""
    longest = len(line) // LEAST_CYCLES
    steady = line - np.polyval(np.polyfit(np.arange(len(line)), line, 1), np.arange(len(line)))
    if float(np.ptp(steady)) <= 1e-12 * max(1.0, float(np.abs(line).max())):
        return []
    power = np.asarray(acf(steady, nlags=longest, fft=True), dtype=np.float64)
    below = np.flatnonzero(power < 0.0)  # the slow fall from lag 0 is no rhythm: begin where it has ended
    begin = max(LEAST_LAG, int(below[0]) if len(below) else longest)
    peaks: list[int] = []
    for lag in (np.argsort(-power[begin:-1]) + begin).tolist():
        if power[lag] < LEAST_CORRELATION or len(peaks) == CANDIDATES:
            break
        top = power[lag] >= power[max(begin, lag - 2) : lag + 3].max()
        if top and not any(abs(lag - other) <= SAME * other for other in peaks):
            peaks.append(lag)
    return peaks


def _strength(line: Floats, period: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jump = max(1, period // 10)  # the loess is asked at every so many points, and interpolated between
        parts = STL(line, period=period, seasonal_jump=1, trend_jump=jump, low_pass_jump=jump).fit(inner_iter=2)
    rest, rhythm = np.asarray(parts.resid), np.asarray(parts.seasonal)
    whole = float(np.var(rest + rhythm))
    return max(0.0, 1.0 - float(np.var(rest)) / whole) if whole > 0.0 else 0.0


def _refined(line: Floats, rows: int, grain: int) -> int:
    """Return the period to the row, by the autocorrelation at it and at its multiples, which tell it more exactly."""
    power = np.asarray(acf(line, nlags=len(line) * 2 // 3, fft=True), dtype=np.float64)
    reach = max(grain, rows // 30)
    most = len(power) // (rows + reach)
    near = np.arange(max(2, rows - reach), rows + reach + 1)
    power_at = sum(power[np.minimum(near * times, len(power) - 1)] for times in range(1, most + 1))
    return int(near[np.argmax(power_at)]) if most else rows


def _multiple(rows: int, other: int) -> bool:
    short, long = sorted((rows, other))
    times = round(long / short)
    return abs(long - times * short) <= SAME * short
