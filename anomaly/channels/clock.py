"""Same clock: the value is unlike this time of the day, of the kind of day, or this minute of the session.

Formula: tables of averages by ten minutes, one for the day and one for working days, Saturdays and Sundays apart;
where the caller tells the place in the session, that takes the second table's place. The prediction is the table
whose trailing error is smaller. A residual counts only beyond the neighbouring bins' predictions, so that a steep
edge a few minutes off is no anomaly, and in units of its bin's usual error. **Trust** is the prediction's trailing
error over that of the day's running average: only where the past has confirmed a season is the channel heard.

Paper: R. J. Hyndman, G. Athanasopoulos: Forecasting: principles and practice (2021), 5.2, the seasonal naive method.
Cost: about 50 ns a row.

>>> import numpy as np
>>> state, minute = np.zeros(1, CLOCK)[0], 60 * 10**9
>>> for i in range(6 * 288): _ = step(state, i * 5 * minute, np.sin(i / 288 * 2 * np.pi), 0.0, -1)
>>> residual, trust = step(state, 1728 * 5 * minute, 1.0, 0.0, -1)
>>> bool(residual > 5), bool(trust < 0.3)
(True, True)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from anomaly.compiled import part

BINS: Final = 144
PROVEN: Final = 300
"""Predictions after which a season can be trusted."""
DAY_NS: Final = 86_400 * 10**9

CLOCK: Final = np.dtype(
    [
        ("day", "f8", (BINS,)),
        ("day_error", "f4", (BINS,)),
        ("day_count", "i2", (BINS,)),
        ("kind", "f8", (3 * BINS,)),
        ("kind_error", "f4", (3 * BINS,)),
        ("kind_count", "i2", (3 * BINS,)),
        ("bin_day", "i8"),
        ("sum_day", "f8"),
        ("off_day", "f8"),
        ("rows_day", "i8"),
        ("bin_kind", "i8"),
        ("sum_kind", "f8"),
        ("off_kind", "f8"),
        ("rows_kind", "i8"),
        ("error_day", "f8"),
        ("error_kind", "f8"),
        ("error_plain", "f8"),
        ("expected", "f8"),
        ("usual_error", "f8"),
        ("predicted", "i8"),
    ],
    align=True,
)


@part
def step(state: Any, at: int, value: float, day_average: float, slot: int) -> tuple[float, float]:
    """Take a value at `at`; returns (residual in usual errors, signed; trust: 0 sure, 1 and more no season).

    The residual is NaN while no table has this bin.
    """
    place = (at % DAY_NS) / DAY_NS * BINS
    day = int(place)
    kind = _kind(at) * BINS + day if slot < 0 else slot % (3 * BINS)
    _leave(state, day, kind)
    before = place - day < 0.5
    plain = abs(value - day_average)
    residual, expected, usual = np.nan, np.nan, np.nan
    if state.day_count[day] > 0:
        other = (day - 1) % BINS if before else (day + 1) % BINS
        residual, expected, usual = _residual(
            state.day, state.day_error, state.day_count, day, other, value, state.error_day
        )
        state.error_day = _follow(state.error_day, abs(value - expected), plain, state.error_plain)
        state.off_day += abs(value - expected)
    if state.kind_count[kind] > 0:
        first = kind - kind % BINS if slot < 0 else 0
        size = BINS if slot < 0 else 3 * BINS
        step_by = -1 if (before and slot < 0) else 1
        other = first + (kind - first + step_by) % size
        r, e, u = _residual(state.kind, state.kind_error, state.kind_count, kind, other, value, state.error_kind)
        state.error_kind = _follow(state.error_kind, abs(value - e), plain, state.error_plain)
        state.off_kind += abs(value - e)
        if state.error_kind < state.error_day or state.day_count[day] == 0:
            residual, expected, usual = r, e, u
    if residual == residual:
        state.error_plain += (plain - state.error_plain) / 300
        state.predicted += 1
    state.expected, state.usual_error = expected, usual
    state.sum_day += value
    state.rows_day += 1
    state.sum_kind += value
    state.rows_kind += 1
    if state.predicted < PROVEN or state.error_plain == 0.0:
        return residual, 1.0
    return residual, min(state.error_day, state.error_kind) / state.error_plain


@part
def _kind(at: int) -> int:
    """0 for a working day, 1 for a Saturday, 2 for a Sunday (UTC); the first day of 1970 was a Thursday."""
    weekday = (at // DAY_NS + 3) % 7
    return 0 if weekday < 5 else weekday - 4


@part
def _follow(error: float, new: float, plain: float, error_plain: float) -> float:
    """Average an error over about 300 rows; one outage counts no more than four usual errors."""
    most = 4 * max(error, error_plain, plain)
    return error + (min(new, most) - error) / 300


@part
def _residual(
    table: Any, error: Any, count: Any, here: int, other: int, value: float, overall: float
) -> tuple[float, float, float]:
    """Return (residual beyond the neighbouring predictions in usual errors, expected value, usual error)."""
    low = high = expected = table[here]
    usual = overall  # the bin's own error counts for half, once it is known
    if count[other] > 0:
        low, high = min(low, table[other]), max(high, table[other])
    if count[here] > 2:
        usual = (overall + max(error[here], error[other])) / 2
    floor = 1e-3 * abs(high) + 1e-12
    beyond = value - high if value > high else (value - low if value < low else 0.0)
    return (beyond / (usual + floor) if count[here] > 1 else np.nan), expected, usual


@part
def _leave(state: Any, day: int, kind: int) -> None:
    """When the clock leaves a bin, its average and usual error take in what was seen there."""
    if state.rows_day > 0 and day != state.bin_day:
        b, n = state.bin_day, state.rows_day
        _settle(state.day, state.day_error, state.day_count, b, state.sum_day / n, state.off_day / n)
        state.sum_day, state.off_day, state.rows_day = 0.0, 0.0, 0
    if state.rows_kind > 0 and kind != state.bin_kind:
        b, n = state.bin_kind, state.rows_kind
        _settle(state.kind, state.kind_error, state.kind_count, b, state.sum_kind / n, state.off_kind / n)
        state.sum_kind, state.off_kind, state.rows_kind = 0.0, 0.0, 0
    state.bin_day, state.bin_kind = day, kind


@part
def _settle(table: Any, error: Any, count: Any, b: int, mean: float, off: float) -> None:
    seen = count[b]
    if seen == 0:
        table[b] = mean
    else:
        share = max(1.0 / (seen + 1), 0.25)
        most = 6 * error[b] + 1e-12 if seen > 3 else 1e300  # one odd day does not become the pattern
        moved = min(max(mean - table[b], -most), most)
        table[b] += share * moved
        error[b] = off if seen == 1 else error[b] + share * (min(off, 4 * error[b] + 1e-12) - error[b])
    count[b] = min(seen + 1, 1000)
