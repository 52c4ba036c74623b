"""What each channel gave to the judgement of one row: its statistic, how far beyond its record, how rare, which vote.

Nothing is judged again. The statistics are read from the pasts that have just learnt them, and what they were measured
against from the state before the row, by the same compiled functions that the step calls. So it costs the step
nothing, and only who asks for a row in words pays for it.

>>> import numpy as np
>>> from anomaly.detector import Sample
>>> from anomaly.series import Series
>>> from kernel.time import Instant
>>> series, minute = Series(), 60 * 10**9
>>> for i, x in enumerate(np.random.default_rng(7).normal(10.0, 1.0, 400)):
...     _, each = series.explain(Sample(Instant(i * minute), float(x)))
>>> sum(one.votes is True for one in each)
0
>>> _, each = series.explain(Sample(Instant(400 * minute), 100.0))
>>> [one.channel for one in each if one.votes]
['novelty', 'novelty of 6', 'level of 24', 'drift', 'neighbour', 'spread']
>>> round(each[0].value), round(each[0].beyond) > 10, each[8].channel, each[8].why
(100, True, 'spike', 'counts for the score only')
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anomaly import kernel
from anomaly import tail as tails
from anomaly.channels.flatline import LEAST_RUN
from anomaly.compiled import entry
from anomaly.kernel import _SWITCH, _TWO_SIDED, _caution
from anomaly.settings import VOTERS

NAMES: Final = (
    "novelty", "novelty of 6", "level of 24", "drift", "neighbour", "spread", "same clock", "same clock of 6", "spike",
    "shape",
)  # fmt: skip
"""The statistics as people meet them, in the order of `kernel`; `docs/anomaly.md` says what each is."""
FLATLINE: Final = "flatline"
_BEYOND, _FAR, _RECURS = range(3)
_JUDGED: Final = (kernel.V_SCORED, kernel.V_WARMING)


@dataclasses.dataclass(frozen=True, slots=True)
class Contribution:
    """What one channel said of one row. Numbers are NaN where there is none."""

    channel: str
    value: float
    """Its statistic: in the series' unit, for neighbour, spread and same clock in usual ones."""
    low: float
    """Its record on the low side; NaN where only high values are strange."""
    high: float
    """Its record on the high side."""
    beyond: float
    """How far outside of the record the statistic lies, in usual ranges (1 to 99 %); negative within it."""
    one_in: float
    """About how many rows of its past it took to be as far out once."""
    votes: bool | None
    """Whether it votes for a page; None when it has no vote."""
    why: str
    """The reason for that in a few words."""


def contributions_of(
    before: Any, after: Any, settings: NDArray[np.float64], *, paged: bool
) -> tuple[Contribution, ...]:
    """Return what each channel gave to a row, in the order of `NAMES`, then flatline; nothing of a row not judged.

    Args:
        before: a copy of the state before the row, one record of `kernel.STATE`; it is changed.
        after: the state after the row.
        settings: the numbers of `Settings`.
        paged: whether the row paged.
    """
    if int(after["verdict"]) not in _JUDGED:
        return ()
    stat = np.array([_learnt(before["tail"][j], after["tail"][j]) for j in range(len(NAMES))])
    # As the vote found them: time had gone on and the averages had moved, the pasts had not yet learnt.
    before["tick"], before["step_s"], before["averages"] = after["tick"], after["step_s"], after["averages"]
    before["spent"] = float(after["spent"]) - float(paged)
    table = np.full((len(NAMES), 3), np.nan)
    bar = _weigh(before, settings, stat, table)
    found = [_one(j, before, stat[j], table[j].tolist(), settings, bar) for j in range(len(NAMES))]
    return (*found, _still(before, after))


def _learnt(before: Any, after: Any) -> float:
    """Return the value that a past has just learnt; NaN when it learnt none."""
    if int(after["count"]) == int(before["count"]):
        return math.nan
    return float(after["fresh"][int(after["waiting"]) - 1])  # when the last place was merged, it still stands there


@entry
def _weigh(s: Any, p: Any, stat: Any, table: Any) -> float:
    """Fill table[statistic] with margin, surprise and recurrence; returns the bar of the vote."""
    scale = max(1.0, kernel.STEP_S / s.step_s) if s.step_s > 0 else 1.0
    week = p[kernel.S_BUDGET] * 7.0
    memory = p[kernel.S_MEMORY] * scale * (1 + p[kernel.S_THRIFT] * s.spent / week)
    floor = 1e-6 * abs(s.averages.day) + 1e-12
    for j in range(len(stat)):
        past = s.tail[j]
        if past.count < tails.FRESH or stat[j] != stat[j]:
            continue
        beyond, side = tails.margin(past, stat[j], _TWO_SIDED[j], floor if j <= kernel.DRIFT else 1e-6)
        table[j, _BEYOND] = beyond
        table[j, _FAR] = tails.surprise(past, stat[j], _TWO_SIDED[j])
        table[j, _RECURS] = tails.recurrence(past, stat[j], side, s.tick, memory, p[kernel.S_ALIKE])
    return float((p[kernel.S_BAR] + _caution(s, p, scale)) * s.patience)


def _one(
    j: int, before: Any, value: float, weighed: list[float], settings: NDArray[np.float64], bar: float
) -> Contribution:
    past = before["tail"][j]
    beyond, far, _ = weighed
    known = math.isfinite(beyond)
    votes, why = _vote(j, weighed, settings, bar, int(past["count"]), float(before["patience"]))
    return Contribution(
        channel=NAMES[j], value=float(value), low=float(past["low"]) if known and _TWO_SIDED[j] else math.nan,
        high=float(past["high"]) if known else math.nan, beyond=beyond, one_in=10.0**far, votes=votes, why=why,
    )  # fmt: skip


def _vote(
    j: int, weighed: list[float], settings: NDArray[np.float64], bar: float, count: int, patience: float
) -> tuple[bool | None, str]:
    """Return whether a statistic votes, and why or why not, as `kernel` decides it."""
    beyond, far, recurs = weighed
    clocked = j in (kernel.CLOCK_NOW, kernel.CLOCK_SHORT)
    if j >= VOTERS and not clocked:
        return None, "counts for the score only"
    excuse = _excuse(j, settings, known=math.isfinite(beyond), clocked=clocked, count=count)
    if excuse:
        return False, excuse
    if not clocked and settings[kernel.U_CALIBRATION] == 0.0:
        beyond, recurs = far / 4 - 1, 0.0
    least = float(settings[kernel.S_CLOCK_BAR]) * patience if clocked else bar
    if beyond > 0 and recurs >= settings[kernel.S_RECUR]:
        return False, "as far out not long ago"
    if beyond < least:
        return False, "within its record" if beyond <= 0 else f"beyond by less than {least:.3g}"
    return True, "decides with the other of the same clock" if clocked else "beyond its record"


def _excuse(j: int, settings: NDArray[np.float64], *, known: bool, clocked: bool, count: int) -> str:
    """Return why a statistic is not asked at all; empty when it is."""
    if settings[kernel.U_CLOCK if clocked else _SWITCH[j]] == 0.0:
        return "switched off"
    if clocked and not known:
        return "no season is confirmed"
    if not known or count < (kernel.CLOCK_WARM_UP if clocked else settings[kernel.S_WARM_UP]):
        return "its past is too short"
    return ""


def _still(before: Any, after: Any) -> Contribution:
    """Return what flatline said: rows that stood still against the longest time before; it decides alone."""
    run, longest = int(after["flatline"]["run"]), max(float(after["flatline"]["longest"]), 4.0)
    usual = before["tail"][kernel.NOVEL]["quantile"]
    if run < LEAST_RUN or run / longest < kernel.STOOD:
        votes, why = False, "it moves" if run == 0 else "it stood still as long before"
    elif int(before["rows"]) < kernel.CLOCK_WARM_UP:
        votes, why = False, "its past is too short"
    elif int(before["told"]):
        votes, why = False, "it was told already"
    elif usual[tails.Q01] <= after["value"] <= usual[tails.Q03]:
        votes, why = False, "it rests at its lowest value"
    else:
        votes, why = True, "decides where the others do not"
    return Contribution(FLATLINE, float(run), math.nan, longest, math.nan, math.nan, votes, why)
