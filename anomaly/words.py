"""A finding in words: the value, what was expected, why it was found, and how long nothing like it was seen."""

from __future__ import annotations

import math
from typing import Any, Final

from anomaly import kernel
from anomaly.detector import Channel, Finding
from anomaly.tail import Q01, Q99
from kernel.time import Instant

_WHY: Final = {
    Channel.SPIKE: "far from the last rows",
    Channel.LEVEL_UP: "a new level, above its usual one",
    Channel.LEVEL_DOWN: "a new level, below its usual one",
    Channel.SPREAD: "much more restless than usual",
    Channel.SAME_CLOCK: "unlike this time of the day",
    Channel.NOVELTY: "outside everything seen lately",
    Channel.NEIGHBOUR: "a pattern not seen before",
    Channel.SHAPE: "a shape not seen before",
    Channel.FLATLINE: "it stands still, and never did so long",
    Channel.MISSED: "no value comes",
}


_INSIDE: Final = {
    Channel.LEVEL_UP: "its last rows together lie above their usual level",
    Channel.LEVEL_DOWN: "its last rows together lie below their usual level",
    Channel.SAME_CLOCK: "its last rows together are unlike this time of the day",
    Channel.NOVELTY: "the average of its last rows is outside everything seen lately",
}
"""The reason where the value itself lies in the expected range; of the other channels it says nothing of the range."""


def figure(value: float) -> str:
    """Write a value as people read it: four digits that count, thousands apart."""
    if not math.isfinite(value):
        return "nothing"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 1e-4 or value == 0.0:
        return f"{value:.4g}"
    return f"{value:.2e}"


def span(seconds: float) -> str:
    """Write a length of time in the largest unit of which there are at least two."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def finding_of(state: Any) -> Finding | None:
    """Return what the last row of a series was found for; None when it was not unusual.

    `state` is one record of `anomaly.kernel.STATE`.
    """
    channel = Channel(int(state["channel"]))
    if channel == Channel.NONE:
        return None
    value, low, high = float(state["value"]), *expected(state, channel)
    span_ = f"{figure(low)} to {figure(high)}{_clock(channel)}"
    if not low <= value <= high:
        sentence = f"{figure(value)}, expected {span_}: {_WHY[channel]}{_since(state, channel, value)}"
    elif int(state["last_page"]) == int(state["tick"]):
        sentence = f"{figure(value)}, within the usual {span_}: {_INSIDE.get(channel, _WHY[channel])}"
    else:  # the reason was that of an earlier row
        sentence = f"{figure(value)}, within the usual {span_}, and not yet calm after: {_WHY[channel]}"
    return Finding(Instant(int(state["at"])), channel, value, low, high, sentence)


def expected(state: Any, channel: Channel) -> tuple[float, float]:
    """Return the range that the winning channel expected, in the series' unit."""
    if channel == Channel.SAME_CLOCK:
        middle, error = float(state["clock"]["expected"]), float(state["clock"]["usual_error"])
        past = state["tail"][kernel.CLOCK_NOW]["quantile"]
        return middle + error * min(float(past[Q01]), -1.0), middle + error * max(float(past[Q99]), 1.0)
    if channel in (Channel.NOVELTY, Channel.LEVEL_UP, Channel.LEVEL_DOWN, Channel.FLATLINE):
        past = state["tail"][kernel.NOVEL]["quantile"]
        return float(past[Q01]), float(past[Q99])
    return float(state["low"]), float(state["high"])


def _clock(channel: Channel) -> str:
    return " at this time" if channel == Channel.SAME_CLOCK else ""


def _since(state: Any, channel: Channel, value: float) -> str:
    """Say how long ago a value was last as far out, as far as the past is remembered."""
    if channel not in (Channel.NOVELTY, Channel.LEVEL_UP, Channel.LEVEL_DOWN):
        return ""
    past, step_s, tick = state["tail"][kernel.NOVEL], float(state["step_s"]), int(state["tick"])
    high = value >= float(past["quantile"][3])
    side = 0 if high else 1
    ages = [
        tick - int(row)
        for row, peak in zip(past["row"][side], past["peak"][side], strict=True)
        if row >= 0 and ((peak >= value) if high else (peak <= value)) and tick - row > 0
    ]
    rows = min(ages, default=int(state["rows"]))
    return f"; {'highest' if high else 'lowest'} in {span(rows * step_s)}" if rows * step_s >= 60 else ""
