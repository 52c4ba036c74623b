"""One row of one series: the channels, their calibration, their vote, and the episode; compiled, and no words yet.

The state of a series is one record of fixed size (`STATE`), so a fleet is an array of them. The same `step` serves
one series and thousands: their scores are equal to the last bit.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from anomaly import strangeness
from anomaly import tail as tails
from anomaly.channels import averages, clock, flatline, neighbour, shape, spread
from anomaly.channels.averages import AVERAGES
from anomaly.channels.clock import CLOCK
from anomaly.channels.flatline import FLATLINE
from anomaly.channels.neighbour import NEIGHBOUR
from anomaly.channels.shape import SHAPE
from anomaly.channels.spread import SPREAD
from anomaly.compiled import entry, part
from anomaly.detector import Channel
from anomaly.settings import VOTERS
from anomaly.strangeness import STRANGENESS
from anomaly.tail import Q01, Q03, Q90, Q99, TAIL

# Statistics, each with a past of its own. The first six vote.
NOVEL, SMOOTH, LEVEL, DRIFT, NEAR, RESTLESS, CLOCK_NOW, CLOCK_SHORT, SPIKE, FORM, RANK = range(11)
STATISTICS: Final = 11
CLOCK_WARM_UP: Final = 300
_TWO_SIDED: Final = (True, True, True, True, False, False, True, True, True, False, False)
STEP_S: Final = 300.0
"""The step at which a memory is as many rows as the settings say; at a shorter one it is as long in time."""
TWO_WEEKS: Final = 4032.0
"""Rows after which a value counts 1/e among those of its channel."""

# Places of the settings in the array that `Settings.numbers` gives.
(
    S_BUDGET, S_WARM_UP, S_FORGET, S_MEMORY, S_RECUR, S_ALIKE, S_THRIFT, S_BAR, S_CAUTION, S_VOTES, S_REFRACTORY,
    S_CLOCK_BAR, S_CLOCK_TRUST, U_NOVELTY, U_SMOOTH, U_LEVEL, U_DRIFT, U_NEIGHBOUR, U_SPREAD, U_CLOCK, U_SHAPE,
    U_FLATLINE, U_MISSED, U_CALIBRATION, U_AGREEMENT, U_EPISODES,
) = range(26)  # fmt: skip
_SWITCH: Final = (U_NOVELTY, U_SMOOTH, U_LEVEL, U_DRIFT, U_NEIGHBOUR, U_SPREAD)

# Channel and Verdict as numbers: compiled code knows no enumerations.
# The channels that a page can have: spike and shape count for the score alone.
C_NONE, C_UP, C_DOWN, C_SPREAD, C_CLOCK, C_NOVELTY, C_NEIGHBOUR, C_FLATLINE, C_MISSED = map(
    int, (
        Channel.NONE, Channel.LEVEL_UP, Channel.LEVEL_DOWN, Channel.SPREAD, Channel.SAME_CLOCK, Channel.NOVELTY,
        Channel.NEIGHBOUR, Channel.FLATLINE, Channel.MISSED,
    )
)  # fmt: skip
V_SCORED, V_WARMING, V_MISSED, V_DUPLICATE, V_BACKWARD = range(5)
GRANTED: Final = 2.5
"""E-folds by which agreement and recurrence hold records of chance down."""
LEAST_GAP: Final = 12
"""Missed rows in a row below which nobody is told."""
WORSE: Final = 5.0
"""Times as far beyond the bar as the last page after which another pages at once (and a whole usual range at least)."""
STOOD: Final = 3.0
"""Times the longest run before after which a series stands still."""
MOST: Final = 1e100
"""Larger values are read as this large: their squares must stay finite."""
STAYED_BACK: Final = 5
"""Rows in a row before the last stamp after which the clock is believed to have been set back."""

STATE: Final = np.dtype(
    [
        ("tick", "i8"),
        ("rows", "i8"),
        ("at", "i8"),
        ("step_s", "f8"),
        ("step_trust", "i8"),
        ("back", "i8"),
        ("gap", "i8"),
        ("longest_gap", "f8"),
        ("last_page", "i8"),
        ("last_margin", "f8"),
        ("spent", "f8"),
        ("patience", "f8"),
        ("episode", "i1"),
        ("calm", "i8"),
        ("rank", "f8"),
        ("strangeness", STRANGENESS),
        ("season_short", "f8"),
        ("score", "f8"),
        ("channel", "i1"),
        ("verdict", "i1"),
        ("value", "f8"),
        ("low", "f8"),
        ("high", "f8"),
        ("told", "i8"),
        ("averages", AVERAGES),
        ("spread", SPREAD),
        ("neighbour", NEIGHBOUR),
        ("shape", SHAPE),
        ("flatline", FLATLINE),
        ("clock", CLOCK),
        ("tail", TAIL, (STATISTICS,)),
    ],
    align=True,
)
"""All that is known of one series: less than 32 KiB, whatever its length."""


def blank(count: int) -> Any:
    """Return the states of `count` series that have seen nothing."""
    states = np.zeros(count, STATE)
    states["last_page"] = tails.NEVER
    states["patience"] = 1.0
    states["low"], states["high"] = np.nan, np.nan
    return states


@part
def _statistics(s: Any, at: int, value: float, slot: int, stat: Any) -> float:
    """Fill `stat` with the value of every statistic for this row; returns the trust in the season."""
    averages_ = s.averages
    usual = s.tail[NOVEL].quantile
    floor = 1e-3 * (usual[Q99] - usual[Q01]) + 1e-9 * abs(averages_.day) + 1e-12
    short, quarter = averages_.short, averages_.quarter
    residual, trust = clock.step(s.clock, at, value, averages_.day, slot)
    averages.step(averages_, value)
    if s.rows == 0:
        short = quarter = value
    stat[NOVEL] = value
    stat[SMOOTH] = averages_.short
    stat[LEVEL] = averages_.hour
    stat[DRIFT] = averages_.short - averages_.day
    stat[NEAR] = neighbour.step(s.neighbour, value, floor)
    stat[RESTLESS] = spread.step(s.spread, value - short)
    stat[CLOCK_NOW] = residual
    if residual == residual:
        s.season_short += (residual - s.season_short) / 6
        stat[CLOCK_SHORT] = s.season_short
    else:
        stat[CLOCK_SHORT] = np.nan
    stat[SPIKE] = value - quarter
    stat[FORM] = shape.step(s.shape, value)
    return trust


@part
def _judge(s: Any, p: Any, stat: Any, trust: float, scale: float, far: Any) -> tuple[float, int]:
    """Return (how far beyond the bar the vote is, at or above 0 when it would page; the winning channel).

    `far` is filled with each statistic's surprise; behind them lie the votes.
    """
    week_s = 7 * 86_400.0
    spent = s.spent / (p[S_BUDGET] * week_s / 86_400.0)
    memory = p[S_MEMORY] * scale * (1 + p[S_THRIFT] * spent)
    vote = far[STATISTICS:]
    vote[:] = -1.0
    floor = 1e-6 * abs(s.averages.day) + 1e-12
    best, best_vote, side_best = NOVEL, -1.0, 0
    for j in range(VOTERS):
        past = s.tail[j]
        far[j] = tails.surprise(past, stat[j], _TWO_SIDED[j])
        if past.count < p[S_WARM_UP] or p[_SWITCH[j]] == 0.0:
            continue
        beyond, side = tails.margin(past, stat[j], _TWO_SIDED[j], floor if j <= DRIFT else 1e-6)
        if p[U_CALIBRATION] == 0.0:
            beyond = far[j] / 4 - 1
        elif beyond > 0 and tails.recurrence(past, stat[j], side, s.tick, memory, p[S_ALIKE]) >= p[S_RECUR]:
            beyond = -1.0
        vote[j] = beyond
        if beyond > best_vote:
            best, best_vote, side_best = j, beyond, side
    bar = (p[S_BAR] + _caution(s, p, scale)) * s.patience
    agreed = _ranked(vote, int(p[S_VOTES])) if p[U_AGREEMENT] != 0.0 else best_vote
    margin, channel = agreed - bar, _channel(best, side_best)
    clocked = _clock_vote(s, p, stat, trust, memory, far) - p[S_CLOCK_BAR] * s.patience
    if clocked >= 0 and clocked > margin:
        margin, channel = clocked, C_CLOCK
    for j in (SPIKE, FORM):
        far[j] = tails.surprise(s.tail[j], stat[j], _TWO_SIDED[j])
    if p[U_SHAPE] == 0.0:
        far[FORM] = 0.0
    return margin, channel


@part
def _ranked(vote: Any, place: int) -> float:
    """Return the vote at `place` from the top, 1 the largest; sorts the votes in place."""
    for i in range(1, VOTERS):
        one, j = vote[i], i - 1
        while j >= 0 and vote[j] < one:
            vote[j + 1] = vote[j]
            j -= 1
        vote[j + 1] = one
    return float(vote[place - 1])


@part
def _caution(s: Any, p: Any, scale: float) -> float:
    """Return what must be added to the bar so that records of chance alone stay within the budget.

    Among n rows without order the next is a record once in n; a day of r rows so has r/n, however the values lie.
    Beyond a record a tail thins out exponentially, so ln(r / (n budget)) e-folds more bring the rate down to the
    budget. Agreement and recurrence do most of that at a step of five minutes; a young series, or one with more rows a
    day, has more to pay.
    """
    if s.step_s <= 0:
        return 0.0
    remembered = min(float(s.rows), -math.log(min(p[S_RECUR], 0.9)) * p[S_MEMORY] * scale)
    often = 86_400.0 / s.step_s / (max(remembered, 1.0) * p[S_BUDGET])
    return float(p[S_CAUTION] * (max(math.log(often) - GRANTED, 0.0) + math.log(scale)))


@part
def _channel(statistic: int, side: int) -> int:
    if statistic in (NOVEL, SMOOTH):
        return C_NOVELTY
    if statistic == NEAR:
        return C_NEIGHBOUR
    if statistic == RESTLESS:
        return C_SPREAD
    return C_UP if side == 0 else C_DOWN


@part
def _clock_vote(s: Any, p: Any, stat: Any, trust: float, memory: float, far: Any) -> float:
    """Return the lesser margin of the two channels of the same clock, -1 where no season is confirmed."""
    least = 1e300
    for j in (CLOCK_NOW, CLOCK_SHORT):
        past = s.tail[j]
        far[j] = 0.0
        if stat[j] != stat[j] or trust >= p[S_CLOCK_TRUST] or p[U_CLOCK] == 0.0 or past.count < CLOCK_WARM_UP:
            least = -1.0
            continue
        far[j] = tails.surprise(past, stat[j], True)
        beyond, side = tails.margin(past, stat[j], True, 1e-6)
        if beyond > 0 and tails.recurrence(past, stat[j], side, s.tick, memory, p[S_ALIKE]) >= p[S_RECUR]:
            beyond = -1.0
        least = min(least, beyond)
    return least


@part
def _learn(s: Any, p: Any, stat: Any, trust: float, scale: float) -> None:
    forget = p[S_FORGET] / scale
    fade = 1.0 - tails.FRESH / (TWO_WEEKS * scale)
    for j in range(STATISTICS - 1):
        clocked = j in (CLOCK_NOW, CLOCK_SHORT)
        if stat[j] == stat[j] and not (clocked and trust >= p[S_CLOCK_TRUST]):
            tails.learn(s.tail[j], stat[j], s.tick, forget, fade)


@part
def _page(s: Any, p: Any, margin: float, scale: float) -> bool:
    """Decide whether this row pages: the vote passes, and the last page is long ago or was much less."""
    wait = p[S_REFRACTORY] * math.sqrt(scale) * (3.0 if s.episode == 1 else 1.0)
    resting = p[U_EPISODES] != 0.0 and s.tick - s.last_page <= wait
    if margin < 0 or (resting and margin < max(WORSE * s.last_margin, 1.0)):
        return False
    s.last_page, s.last_margin = s.tick, margin
    s.spent += 1.0
    return True


@part
def _rank(s: Any, far: Any) -> float:
    """Follow how strange the series has been in the last rows, which ends an episode; returns it."""
    total = 0.0
    for j in range(RANK):
        total += far[j]
    s.rank += (total - s.rank) / 24
    return float(s.rank)


@part
def _stood(s: Any, value: float) -> float:
    """Return how long the series has stood still over the longest before; 0 for a young one, and at rest."""
    stood = flatline.step(s.flatline, value)
    if stood < STOOD:
        s.told = 0
    usual = s.tail[NOVEL].quantile
    resting = usual[Q01] <= value <= usual[Q03]
    return 0.0 if resting or s.rows < CLOCK_WARM_UP else float(stood)


@part
def _strange(s: Any, value: float, far: Any, stood: float, scale: float) -> float:
    """Return how strange this row is, for the score; nothing of it decides about pages."""
    beyond = 0
    for j in range(STATISTICS, STATISTICS + VOTERS):
        if far[j] > 0:
            beyond += 1
    return strangeness.step(s.strangeness, value, far, beyond, stood, TWO_WEEKS * scale)


@part
def _keep_time(s: Any, at: int) -> int:
    """Learn the step of the series and what the stamp says; returns a verdict, SCORED when the row is to be scored."""
    if s.tick == 0:
        s.at = at
        return V_SCORED
    ahead = at - s.at
    if ahead == 0:
        return V_DUPLICATE
    if ahead < 0:
        s.back += 1
        if s.back < STAYED_BACK:
            return V_BACKWARD
        ahead = int(max(s.step_s, 0.0) * 1e9)  # the clock was set back: go on from here
    s.back = 0
    step_s = ahead / 1e9
    if s.step_trust == 0:
        s.step_s, s.step_trust = step_s, 1
    elif abs(step_s - s.step_s) <= 0.1 * s.step_s:
        s.step_trust = min(s.step_trust + 1, 50)
    else:
        s.step_trust -= 1
    s.at = at
    s.spent *= math.exp(-step_s / (7 * 86_400.0))
    return V_SCORED


@part
def _missed(s: Any, p: Any) -> bool:
    """Count a row without a value; page once when none has come for three times as long as ever before."""
    s.verdict, s.gap = V_MISSED, s.gap + 1
    if p[U_MISSED] == 0.0 or s.rows < CLOCK_WARM_UP or s.gap != max(LEAST_GAP, int(STOOD * s.longest_gap) + 1):
        return False
    s.episode, s.calm, s.channel = 1, 0, C_MISSED
    s.score = max(s.score, 0.5)
    s.last_page = s.tick
    s.spent += 1.0
    return True


@part
def step(s: Any, p: Any, at: int, value: float, slot: int, stat: Any, far: Any) -> bool:
    """Score one row and learn from it: fills the outcome fields of `s`; returns whether it pages."""
    s.value = value
    value = min(max(value, -MOST), MOST)
    verdict = _keep_time(s, at)
    if verdict != V_SCORED:
        s.verdict = verdict
        return False
    s.tick += 1
    if not math.isfinite(s.value):
        return _missed(s, p)
    if s.gap > 0:
        s.longest_gap, s.gap = max(s.longest_gap, float(s.gap)), 0
    scale = max(1.0, STEP_S / s.step_s) if s.step_s > 0 else 1.0
    trust = _statistics(s, at, value, slot, stat)
    margin, channel = _judge(s, p, stat, trust, scale, far)
    stood = _stood(s, value) if p[U_FLATLINE] != 0.0 else 0.0
    if stood >= STOOD and s.told == 0 and margin < 0:
        margin, channel = stood - STOOD, C_FLATLINE
    paged = _page(s, p, margin, scale)
    if paged and channel == C_FLATLINE:
        s.told = 1
    strange = _strange(s, value, far, stood, scale)
    _outcome(s, p, channel, paged, far)
    s.score = strangeness.score(strange, s.episode)
    if paged:
        s.score = max(s.score, 0.5)
    _learn(s, p, stat, trust, scale)
    s.rows += 1
    s.verdict = V_WARMING if s.rows <= p[S_WARM_UP] else V_SCORED
    return paged


@part
def _outcome(s: Any, p: Any, channel: int, paged: bool, far: Any) -> None:
    rank = _rank(s, far)
    if paged:
        s.episode, s.calm = 1, 0
        s.channel = channel
    elif s.episode == 1:
        s.calm = s.calm + 1 if rank <= s.tail[RANK].quantile[Q90] else 0
        if s.calm >= 12:
            s.episode, s.channel = 0, C_NONE
    else:
        s.channel = C_NONE
    tails.learn(s.tail[RANK], rank, s.tick, p[S_FORGET], 0.999)
    _expect(s)


@part
def _expect(s: Any) -> None:
    """Set the range in which the next values are expected: about the last rows, as wide as it usually is."""
    past = s.tail[SPIKE]
    if past.count < tails.FRESH:
        return
    middle = s.averages.quarter
    s.low, s.high = middle + 1.5 * min(past.quantile[Q01], 0.0), middle + 1.5 * max(past.quantile[Q99], 0.0)


@entry
def run(s: Any, p: Any, at: Any, values: Any, slots: Any, out: Any, paged: Any, marks: Any) -> None:
    """Step one series through its rows: out[n, 3] score, low, high; paged[n]; marks[n, 3] channel, episode, verdict."""
    stat, far = np.zeros(STATISTICS), np.zeros(STATISTICS + VOTERS)
    for i in range(len(values)):
        paged[i] = step(s, p, at[i], values[i], slots[i], stat, far)
        out[i, 0], out[i, 1], out[i, 2] = s.score, s.low, s.high
        marks[i, 0], marks[i, 1], marks[i, 2] = s.channel, s.episode, s.verdict


@entry
def one(s: Any, p: Any, at: int, value: float, slot: int, out: Any, paged: Any, marks: Any) -> None:
    """Step one series by one row; the arrays as in `run`, one row long."""
    stat, far = np.zeros(STATISTICS), np.zeros(STATISTICS + VOTERS)
    paged[0] = step(s, p, at, value, slot, stat, far)
    out[0, 0], out[0, 1], out[0, 2] = s.score, s.low, s.high
    marks[0, 0], marks[0, 1], marks[0, 2] = s.channel, s.episode, s.verdict


@entry
def advance(states: Any, p: Any, at: Any, values: Any, slots: Any, out: Any, paged: Any, marks: Any) -> None:
    """Step every series once; the arrays as in `run`, one row a series."""
    stat, far = np.zeros(STATISTICS), np.zeros(STATISTICS + VOTERS)
    for i in range(len(values)):
        s = states[i]
        paged[i] = step(s, p, at[i], values[i], slots[i], stat, far)
        out[i, 0], out[i, 1], out[i, 2] = s.score, s.low, s.high
        marks[i, 0], marks[i, 1], marks[i, 2] = s.channel, s.episode, s.verdict
