"""Kinds that judge windows: [end - timeframe, end) for every whole step, from tallies of one step each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec

from kernel.time import SECOND, Instant
from monitor.log_store import Row
from monitor.logrules.fold import Answers, Match, Seen, State, Turn, key_of, key_text
from monitor.logrules.model import Direction, Kind, Metric, Rule

Key = tuple[str, ...]
_Buckets = Mapping[Key, Mapping[int, Row]]
_Verdict = Callable[[Rule, "_Window", Key], "tuple[str, float] | None"]


@dataclass(frozen=True)
class _Window:
    """Everything known of one window's end."""

    rule: Rule
    end: int
    all: _Buckets
    part: _Buckets

    def rows(self, key: Key, *, part: bool = False, reference: bool = False) -> list[Row]:
        """Return the rows of the window, or of the one before it."""
        end = self.end - self.rule.timeframe if reference else self.end
        buckets = (self.part if part else self.all).get(key, {})
        steps = range(end - self.rule.timeframe, end, self.rule.every)
        if len(buckets) < len(steps):
            return [row for start, row in buckets.items() if steps.start <= start < end]
        return [buckets[start] for start in steps if start in buckets]

    def count(self, key: Key, *, part: bool = False, reference: bool = False) -> int:
        return sum(row.count for row in self.rows(key, part=part, reference=reference))


def judge(rule: Rule, state: State, upto: Instant, answers: Answers) -> Turn:
    """Judge every window that ends after what is decided, up to `upto`."""
    rows = cast("Sequence[Row]", answers["all"])
    width = len(rule.by)
    everything = _by_key(rows, width)
    part = _by_key(cast("Sequence[Row]", answers.get("part", ())), width)
    distinct = _distinct(rows, width) if rule.kind is Kind.CARDINALITY else {}
    seen, matches = dict(state.seen), []
    for end in range(state.decided + rule.every, upto + 1, rule.every):
        window = _Window(rule, end, everything, part)
        _remember(rule, window, everything, seen)
        if end < state.started + _warm_up(rule):
            continue
        for key in _keys(rule, everything, seen):
            found = (
                _cardinality(rule, end, distinct.get(key, {}))
                if distinct or rule.kind is Kind.CARDINALITY
                else (_VERDICTS[rule.kind](rule, window, key))
            )
            if found is not None:
                matches.append(Match(end, key, found[0], found[1]))
    return Turn(msgspec.structs.replace(state, decided=max(state.decided, upto), seen=seen), tuple(matches))


def _by_key(rows: Sequence[Row], width: int) -> dict[Key, dict[int, Row]]:
    found: dict[Key, dict[int, Row]] = {} if width else {(): {}}
    for row in rows:
        found.setdefault(row.keys[:width], {})[row.start] = row
    return found


def _distinct(rows: Sequence[Row], width: int) -> dict[Key, dict[int, set[str]]]:
    found: dict[Key, dict[int, set[str]]] = {}
    for row in rows:
        found.setdefault(row.keys[:width], {}).setdefault(row.start, set()).add(row.keys[width])
    return found


def _warm_up(rule: Rule) -> int:
    """Too little can be said only of a window that was watched whole, and a spike needs two of them."""
    too_little = rule.kind is Kind.FLATLINE or (rule.kind is Kind.CARDINALITY and rule.min is not None)
    spikes = rule.kind in {Kind.SPIKE, Kind.SPIKE_AGGREGATION}
    return 2 * rule.timeframe if spikes else rule.timeframe if too_little else 0


def _remember(rule: Rule, window: _Window, everything: _Buckets, seen: dict[str, Seen]) -> None:
    """Keep the keys that a flatline waits for: each that was ever seen."""
    if rule.kind is Kind.FLATLINE and rule.by:
        for key in everything:
            if window.count(key):
                seen[key_text(key)] = Seen(window.end)


def _keys(rule: Rule, everything: _Buckets, seen: Mapping[str, Seen]) -> Iterator[Key]:
    if rule.kind is Kind.FLATLINE and rule.by:
        yield from sorted(key_of(text) for text in seen)
    else:
        yield from sorted(everything)


def _frequency(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    count = window.count(key)
    return (f"{count} records in {_span(rule)}, {rule.at_least} or more", count) if count >= rule.at_least else None


def _flatline(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    count = window.count(key)
    return (f"{count} records in {_span(rule)}, fewer than {rule.below}", count) if count < rule.below else None


def _cardinality(rule: Rule, end: int, distinct: Mapping[int, set[str]]) -> tuple[str, float] | None:
    values = set().union(*(found for start, found in distinct.items() if end - rule.timeframe <= start < end))
    if rule.by and not values:  # which keys are merely absent depends on how far back one looks
        return None
    return _outside(rule, len(values), f"{len(values)} values of {rule.field} in {_span(rule)}")


def _percentage(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    total = window.count(key)
    if total < max(1, rule.min_total):
        return None
    share = 100 * window.count(key, part=True) / total
    return _outside(rule, share, f"{share:.4g} % of {total} records in {_span(rule)}")


def _aggregation(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    value = _measured(rule.metric, window.rows(key))
    return (
        None
        if value is None
        else _outside(rule, value, f"{rule.metric} of {rule.field} is {value:.6g} in {_span(rule)}")
    )


def _spike(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    return _jump(rule, window.count(key), window.count(key, reference=True), "records")


def _spike_aggregation(rule: Rule, window: _Window, key: Key) -> tuple[str, float] | None:
    now, before = (_measured(rule.metric, window.rows(key, reference=one)) for one in (False, True))
    return None if now is None or before is None else _jump(rule, now, before, f"{rule.metric} of {rule.field}")


def _jump(rule: Rule, now: float, before: float, what: str) -> tuple[str, float] | None:
    """Compare a window with the one before it; from nothing, nothing is a multiple."""
    if before <= 0 or before < rule.min_reference or now < rule.min_current:
        return None
    up = rule.direction is not Direction.DOWN and now >= before * rule.ratio
    down = rule.direction is not Direction.UP and now * rule.ratio <= before
    if not (up or down):
        return None
    return (
        f"{what}: {now:.6g} in {_span(rule)} after {before:.6g}, {rule.ratio:g} times {'more' if up else 'less'}",
        now,
    )


def _outside(rule: Rule, value: float, what: str) -> tuple[str, float] | None:
    if rule.max is not None and value > rule.max:
        return f"{what}, more than {rule.max:g}", value
    if rule.min is not None and value < rule.min:
        return f"{what}, less than {rule.min:g}", value
    return None


def _measured(metric: Metric, rows: Sequence[Row]) -> float | None:
    """Return a metric over the rows of a window; None when no record had a number."""
    numbers = [row for row in rows if row.values]
    count = sum(row.values for row in numbers)
    if metric is Metric.COUNT:
        return float(count) if rows else None
    if not numbers:
        return None
    total = sum(row.total or 0.0 for row in numbers)
    return {
        Metric.SUM: total,
        Metric.AVG: total / count,
        Metric.MIN: min(row.low or 0.0 for row in numbers),
        Metric.MAX: max(row.high or 0.0 for row in numbers),
    }[metric]


def _span(rule: Rule) -> str:
    return f"{rule.timeframe / SECOND:g} s"


_VERDICTS: Final[Mapping[Kind, _Verdict]] = {
    Kind.FREQUENCY: _frequency,
    Kind.FLATLINE: _flatline,
    Kind.PERCENTAGE_MATCH: _percentage,
    Kind.METRIC_AGGREGATION: _aggregation,
    Kind.SPIKE: _spike,
    Kind.SPIKE_AGGREGATION: _spike_aggregation,
}
