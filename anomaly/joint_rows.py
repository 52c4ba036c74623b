"""The rows of a machine between two fits of its models: statistics, their calibration, fusion and pages, compiled.

Four statistics of a row, each as log(1 + x):

- FAST and SLOW: how far the metric that surprises most, given all the others, lies outside its own extremes, on
  averages over about ten and about fifty rows. A median of three rows stands before them: machines are full of blips.
- NOVEL: how far the most novel metric lies outside all it was, median of three rows.
- APART: the residual statistic Q of the PCA, averaged over about three rows.

Each is turned into rarity by its own history (`joint_tail`); the mean of the two rarest decides, so that two agree or
one is overwhelming; and that mean is again judged by its own history, to the budget of pages a day.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly import joint_model, joint_tail
from anomaly.compiled import entry, part
from anomaly.detector import THRESHOLD
from anomaly.joint_model import Floats, Model

FAST, SLOW, NOVEL, APART, FUSED = range(5)
STATISTICS: Final = 5
CAUSES: Final = 3
"""Causes kept of a row."""

SCORED, WARMING, MISSED, DUPLICATE, BACKWARD = 0, 1, 2, 3, 4
"""As `detector.Verdict`."""

FAST_SHARE: Final = 0.1
SLOW_SHARE: Final = 0.02
APART_SHARE: Final = 0.3
BLOCK_ROWS: Final = 60
FEW_BLOCKS: Final = 12
WARM_BLOCKS: Final = 24
"""Blocks before the fused statistic is calibrated; until then only what lies far outside everything seen pages."""
WARM_NOVELTY: Final = 3.0
"""How many 1-99 % ranges outside is far."""
CHANNEL_RATE: Final = 0.2
OFTENER: Final = 3.2
"""How many times the budget of false pages the history may be exceeded: true anomalies and days of learning are in
it, and few of those who exceed it are false. Measured on made machines; leaving out what paged was tried: worse.
"""
CAP: Final = 1.5
"""A block counts in a channel's history for at most so many times the height it reaches once in five days."""
SHIFT: Final = 3.0
NOTHING: Final = -3.0
STEEP: Final = 0.5
RISE: Final = 1.3
STEPS: Final = 15
JUST_BELOW: Final = 0.4999
BACK_ROWS: Final = 30
"""Rows the clock must stay back before its new time is believed."""
DAY_NS: Final = 86_400e9

# Places in `counts` and `levels`.
ROWS, FILLED, PLACE, STRIDE, NEXT_FIT, IN_BLOCK, BLOCKS, LEFT = range(8)
CALM, LAST_AT, BACK, STEP_PLACE, EPISODE, FITTED = range(8, 14)
COUNTS: Final = 14
AVERAGE, BEFORE, BEFORE_THAT, BAR, BUDGET = range(5)
LEVELS: Final = 5
CALM_ROWS: Final = 30


Models = tuple[Model, Model, Model]
"""Of the rows as they are, of the fast and of the slow averages."""


class State(NamedTuple):
    """All a machine's memory but its models: arrays that the compiled code writes."""

    counts: NDArray[np.int64]
    levels: Floats
    recent: Floats
    """The last two values of each metric."""
    averages: Floats
    """Fast and slow averages of each metric."""
    ring: Floats
    """Rows of the window, three times: as they are, fast and slow averages."""
    blocks: Floats
    current: Floats
    tails: Floats
    steps: Floats


class Rows(NamedTuple):
    """What is said of each row."""

    score: Floats
    alert: NDArray[np.bool_]
    episode: NDArray[np.bool_]
    verdict: NDArray[np.int8]
    causes: NDArray[np.int32]
    statistics: Floats
    """T2 and Q."""


def fresh(columns: int, window: int, history: int, first_fit: int, budget: float) -> State:
    """Return the memory of a machine that has not been seen yet."""
    counts, levels = np.zeros(COUNTS, dtype=np.int64), np.zeros(LEVELS)
    counts[STRIDE], counts[NEXT_FIT], counts[LAST_AT] = 1, first_fit, np.iinfo(np.int64).min
    levels[BUDGET] = budget
    return State(
        counts, levels, np.full((2, columns), np.nan), np.full((2, columns), np.nan),
        np.full((3, window, columns), np.nan), np.zeros((STATISTICS, history)), np.full(STATISTICS, -np.inf),
        np.zeros((STATISTICS, joint_tail.SIZE)), np.zeros(STEPS),
    )  # fmt: skip


@part
def _median(a: float, b: float, c: float) -> float:
    return max(min(a, b), min(max(a, b), c))


@part
def _average(state: State, row: Floats) -> None:
    """Take a row into the averages, by a median of three values; a missing value leaves its metric as it was."""
    for column in range(len(row)):
        value = row[column]
        if not math.isfinite(value):
            continue
        older, old = state.recent[0, column], state.recent[1, column]
        smooth = value if math.isnan(older) else _median(older, old, value)
        state.recent[0, column], state.recent[1, column] = old, value
        for pace in range(2):
            if math.isnan(state.averages[pace, column]):
                state.averages[pace, column] = smooth
            else:
                share = FAST_SHARE if pace == 0 else SLOW_SHARE
                state.averages[pace, column] += share * (smooth - state.averages[pace, column])


@part
def _remember(state: State, row: Floats, most_stride: int) -> None:
    """Keep every so many rows in the window; while it is young, every row, thinned out as it fills."""
    counts, ring = state.counts, state.ring
    if counts[ROWS] % counts[STRIDE] != 0:
        return
    window = ring.shape[1]
    place = counts[FILLED] if counts[FILLED] < window else counts[PLACE]
    ring[0, place, :] = row
    ring[1, place, :] = state.averages[0]
    ring[2, place, :] = state.averages[1]
    if counts[FILLED] == window:
        counts[PLACE] = (counts[PLACE] + 1) % window
        return
    counts[FILLED] += 1
    if counts[FILLED] == window and counts[STRIDE] < most_stride:
        for each in range(window // 2):
            ring[:, each, :] = ring[:, 2 * each, :]
        counts[FILLED], counts[PLACE] = window // 2, 0
        counts[STRIDE] *= 2


@part
def _clock(state: State, at: int) -> int:
    """Return how a stamp stands to those before: SCORED for a good one, else what is wrong with it."""
    counts = state.counts
    if counts[ROWS] > 0:
        step = at - counts[LAST_AT]
        if step == 0:
            return DUPLICATE
        if step < 0:
            counts[BACK] += 1
            if counts[BACK] < BACK_ROWS:
                return BACKWARD
        else:
            state.steps[counts[STEP_PLACE] % STEPS] = float(step)
            counts[STEP_PLACE] += 1
    counts[BACK] = 0
    counts[LAST_AT] = at
    return SCORED


@part
def _close_block(state: State) -> None:
    """Add the block's highest values to the history and fit the tails anew."""
    counts, history = state.counts, state.blocks.shape[1]
    taken = min(counts[STEP_PLACE], STEPS)
    step = np.sort(state.steps[:taken])[taken // 2] if taken > 0 else 60e9
    blocks_per_day = DAY_NS / (step * BLOCK_ROWS)
    for each in range(STATISTICS):
        state.blocks[each, counts[BLOCKS] % history] = state.current[each]
        state.current[each] = -np.inf
    counts[BLOCKS] += 1
    for each in range(STATISTICS):
        if counts[BLOCKS] >= (WARM_BLOCKS if each == FUSED else FEW_BLOCKS):
            state.tails[each] = joint_tail.fitted(state.blocks[each], min(counts[BLOCKS], history), blocks_per_day)


@part
def _calibrated(state: State, values: Floats, rare: Floats) -> float:
    """Fill the rarity of the four statistics, take them into their blocks, and return the fused statistic."""
    first, second = -np.inf, -np.inf
    for each in range(FUSED):
        tail, seen = state.tails[each], values[each]
        rare[each] = joint_tail.rarity(tail, seen) if tail[5] > 0.0 else NOTHING
        if tail[5] > 0.0:
            seen = min(seen, CAP * joint_tail.height(tail, -math.log10(CHANNEL_RATE)))
        state.current[each] = max(state.current[each], seen)
        if rare[each] > first:
            first, second = rare[each], first
        else:
            second = max(second, rare[each])
    fused = math.log1p(max(0.0, (first + second) / 2.0 + SHIFT))
    state.current[FUSED] = max(state.current[FUSED], fused)
    return fused


@part
def _page(state: State, value: float, limit: float, score: float, refractory: int) -> bool:
    """Say whether this row pages: once an episode; soon after a page only what is higher by far does."""
    counts, levels = state.counts, state.levels
    bar = limit
    if counts[LEFT] > 0:
        bar = max(limit, levels[BAR])
        levels[BAR] -= (levels[BAR] - limit) / counts[LEFT]
        counts[LEFT] -= 1
    pages = value >= bar and score >= THRESHOLD
    counts[CALM] = 0 if score >= THRESHOLD else counts[CALM] + 1
    if pages:
        counts[LEFT], levels[BAR], counts[EPISODE] = refractory, value * RISE, 1
    elif counts[CALM] >= CALM_ROWS and counts[LEFT] == 0:
        counts[EPISODE] = 0
    return bool(pages)


@part
def _blame(rare: Floats, shares: Floats, causes: NDArray[np.int32]) -> None:
    """Name the metrics that contribute most, each channel's parts weighted by how rare the channel is."""
    columns = shares.shape[1]
    total, lowest = np.zeros(columns), np.min(rare)
    for each in range(FUSED):
        whole = np.sum(shares[each])
        if whole > 0.0:
            total += (rare[each] - lowest + 0.1) * shares[each] / whole
    for place in range(min(CAUSES, columns)):
        best = int(np.argmax(total))
        if total[best] <= 0.0:
            break
        causes[place] = best
        total[best] = 0.0


@part
def _score(state: State, models: Models, row: Floats, out: Rows, index: int, refractory: int) -> None:
    """Score one row that has values against the fitted models."""
    columns, levels = len(row), state.levels
    shares, rare, values = np.zeros((FUSED, columns)), np.full(FUSED, NOTHING), np.zeros(FUSED)
    joint_model.residuals(models[1], state.averages[0], shares[FAST])
    joint_model.residuals(models[2], state.averages[1], shares[SLOW])
    joint_model.novelty(models[0], row, shares[NOVEL])
    inside, outside = joint_model.components(models[0], row)
    out.statistics[index, 0], out.statistics[index, 1] = inside, outside
    values[FAST] = math.log1p(np.max(shares[FAST]))
    values[SLOW] = math.log1p(np.max(shares[SLOW]))
    novel = math.log1p(np.max(shares[NOVEL]))
    values[NOVEL] = _median(levels[BEFORE_THAT], levels[BEFORE], novel)
    levels[BEFORE_THAT], levels[BEFORE] = levels[BEFORE], novel
    levels[AVERAGE] += APART_SHARE * (math.log1p(outside) - levels[AVERAGE])
    values[APART] = levels[AVERAGE]
    fused = _calibrated(state, values, rare)
    tail = state.tails[FUSED]
    if tail[5] > 0.0:
        bar = -math.log10(OFTENER * levels[BUDGET])
        limit = joint_tail.height(tail, bar)
        score = 1.0 / (1.0 + 10.0 ** (-STEEP * (joint_tail.rarity(tail, fused) - bar)))
        outside_all = values[FAST] + values[SLOW] + values[NOVEL] > 0.0  # at rest nothing is news, however rare
        score = max(score, THRESHOLD) if fused >= limit and outside_all else min(score, JUST_BELOW)
        out.verdict[index] = SCORED
    else:
        fused, limit = math.expm1(values[NOVEL]), WARM_NOVELTY
        score = fused / (fused + limit)
        out.verdict[index] = WARMING
    out.score[index] = score
    out.alert[index] = _page(state, fused, limit, score, refractory)
    if score >= THRESHOLD:
        joint_model.outside_parts(models[0], row, shares[APART])
        _blame(rare, shares, out.causes[index])


@entry
def advance(
    state: State, models: Models, at: NDArray[np.int64], values: Floats, out: Rows, start: int,
    limits: tuple[int, int],
) -> int:  # fmt: skip
    """Go through rows from `start` until all are done or a fit is due; return the row to go on with.

    `limits` are the largest stride of the window and the rows after a page in which little else pages.
    """
    counts = state.counts
    for index in range(start, len(at)):
        verdict = _clock(state, at[index])
        row = values[index]
        if verdict == SCORED and not np.any(np.isfinite(row)):
            verdict = MISSED
        out.verdict[index] = verdict
        if verdict == SCORED:
            _average(state, row)
            if counts[FITTED] > 0:
                _score(state, models, row, out, index, limits[1])
            else:
                out.verdict[index] = WARMING
            _remember(state, row, limits[0])
            counts[ROWS] += 1
            counts[IN_BLOCK] += 1
            if counts[IN_BLOCK] == BLOCK_ROWS and counts[FITTED] > 0:
                _close_block(state)
            if counts[IN_BLOCK] == BLOCK_ROWS:
                counts[IN_BLOCK] = 0
        out.episode[index] = counts[EPISODE] > 0
        if counts[ROWS] >= counts[NEXT_FIT]:
            return index + 1
    return len(at)
