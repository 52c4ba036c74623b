"""A log rule judged by looking at every record in memory, again at every turn: no tallies, no steps kept, no store."""

from __future__ import annotations

import json

from monitor.log_fields import FIELDS
from monitor.logrules.model import Direction, Kind, Metric
from tests.contract.naive_logs import at_ms, flat, matches, shown, values

MS = 1_000_000


def keys(record, by):
    combinations = [()]
    for name in by:
        found = sorted({shown(FIELDS[name], one) for one in values(record, name, FIELDS[name])})
        combinations = [(*before, one) for before in combinations for one in found]
    return combinations


def at(record):
    return at_ms(record) * MS


def order(record):
    return at(record), json.dumps({k: v[0] if len(v) == 1 else v for k, v in sorted(flat(record).items())},
                                  separators=(",", ":"), ensure_ascii=False)  # fmt: skip


def judge(rule, arrivals, turns):
    """Return {(turn, at, key)} for a rule that starts at the first turn and sees what has arrived at each."""
    decided = started = (turns[0] - rule.lateness) // rule.every * rule.every
    before = [one for came, one in arrivals if came <= turns[0]]
    known = [
        (decided, (*key, term)) for one in before if matches(rule.query, one)
        and decided - rule.known_for <= at(one) < decided
        for key in keys(one, rule.by) for term in [k[0] for k in keys(one, [rule.field])]
    ] if rule.kind is Kind.NEW_TERM else []  # fmt: skip
    taken, told, found = [], set(), []
    for turn in turns:
        seen = [one for came, one in arrivals if came <= turn]
        upto = (turn - rule.lateness) // rule.every * rule.every
        if upto <= decided:
            continue
        taken += sorted((one for one in seen if decided <= at(one) < upto), key=order)
        if rule.kind in SINGLE:
            now = SINGLE[rule.kind](rule, taken, upto, known)
        else:
            now = [
                (end, key) for end in range(decided + rule.every, upto + 1, rule.every)
                for key in group(rule, seen) if WHOLE[rule.kind](rule, seen, end, key, started)
            ]  # fmt: skip
        fresh = list(now)
        for one in told:
            if one in fresh:
                fresh.remove(one)
        if rule.kind in SINGLE:
            told = list(now)
        found += [(turn, *one) for one in fresh]
        decided = upto
    return sorted(found)


def group(rule, seen):
    if not rule.by:
        return [()]
    return sorted({key for one in seen if matches(rule.query, one) for key in keys(one, rule.by)})


# --- record by record ---------------------------------------------------------------------------------------------


def every(rule, taken, upto, known):
    def listed(one):
        return any(value in rule.values for value in values(one, rule.field, rule.field_kind))

    def wanted(one):
        if not matches(rule.query, one):
            return False
        if rule.kind is Kind.BLACKLIST:
            return listed(one)
        if rule.kind is Kind.WHITELIST:
            return not listed(one) and (bool(values(one, rule.field, rule.field_kind)) or not rule.ignore_missing)
        return True

    return [(at(one), key) for one in taken if wanted(one) for key in keys(one, rule.by)]


def change(rule, taken, upto, known):
    last, found = {}, []
    for one in taken:
        now = sorted(str(value) for value in values(one, rule.field, rule.field_kind))
        if not now or not matches(rule.query, one):
            continue
        for key in keys(one, rule.by):
            if key in last and last[key][1] != now and (not rule.timeframe or at(one) - last[key][0] <= rule.timeframe):
                found.append((at(one), key))
            last[key] = (at(one), now)
    return found


def new_term(rule, taken, upto, known):
    found, sightings = [], list(known)
    hits = sorted({
        (at(one) // rule.every * rule.every, (*key, term[0]))
        for one in taken if matches(rule.query, one) for key in keys(one, rule.by) for term in keys(one, [rule.field])
    })  # fmt: skip
    for step, term in hits:
        if not any(before >= step - rule.known_for for before, other in sightings if other == term):
            found.append((step + rule.every, term[:-1]))
        sightings.append((step, term))
    return found


def correlation(rule, taken, upto, known):
    found = []
    first = [(at(one), key) for one in taken if matches(rule.query, one) for key in keys(one, rule.by)]
    then = [(at(one), key) for one in taken if matches(rule.then, one) for key in keys(one, rule.by)]
    for key in {one for _, one in first}:
        waits_since = None
        for moment in sorted(when for when, other in first if other == key):
            if waits_since is not None:
                until = min(waits_since + rule.timeframe, moment - 1)
                answered = any(waits_since <= when <= max(until, waits_since) and other == key for when, other in then)
                if not answered and moment <= waits_since + rule.timeframe:
                    continue  # still waiting for the answer to the earlier one
            waits_since = moment
            late = moment + rule.timeframe < upto
            if late and not any(moment <= when <= moment + rule.timeframe and other == key for when, other in then):
                found.append((moment + rule.timeframe, key))
    return found


SINGLE = {
    Kind.ANY: every, Kind.BLACKLIST: every, Kind.WHITELIST: every, Kind.CHANGE: change, Kind.NEW_TERM: new_term,
    Kind.CORRELATION: correlation,
}  # fmt: skip


# --- window by window ---------------------------------------------------------------------------------------------


def inside(rule, seen, end, key, query=None):
    return [
        one for one in seen
        if end - rule.timeframe <= at(one) < end and matches(rule.query, one) and key in keys(one, rule.by)
        and (query is None or matches(query, one))
    ]  # fmt: skip


def outside(rule, value):
    return (rule.max is not None and value > rule.max) or (rule.min is not None and value < rule.min)


def frequency(rule, seen, end, key, started):
    return len(inside(rule, seen, end, key)) >= rule.at_least


def flatline(rule, seen, end, key, started):
    return end >= started + rule.timeframe and len(inside(rule, seen, end, key)) < rule.below


def cardinality(rule, seen, end, key, started):
    if rule.min is not None and end < started + rule.timeframe:
        return False
    found = inside(rule, seen, end, key)
    distinct = {k for one in found for k in keys(one, [rule.field])}
    return bool(distinct or not rule.by) and outside(rule, len(distinct))


def percentage(rule, seen, end, key, started):
    total = len(inside(rule, seen, end, key))
    return total >= rule.min_total and outside(rule, 100 * len(inside(rule, seen, end, key, rule.part)) / total)


def measure(rule, records):
    numbers = [float(number) for one in records for number in values(one, rule.field, FIELDS[rule.field])]
    if rule.metric is Metric.COUNT:
        return float(len(numbers)) if records else None
    if not numbers:
        return None
    return {Metric.SUM: sum(numbers), Metric.AVG: sum(numbers) / len(numbers), Metric.MIN: min(numbers),
            Metric.MAX: max(numbers)}[rule.metric]  # fmt: skip


def aggregation(rule, seen, end, key, started):
    value = measure(rule, inside(rule, seen, end, key))
    return value is not None and outside(rule, value)


def spike(rule, seen, end, key, started):
    if end < started + 2 * rule.timeframe:
        return False
    now, before = inside(rule, seen, end, key), inside(rule, seen, end - rule.timeframe, key)
    if rule.kind is Kind.SPIKE:
        now, before = len(now), len(before)
    else:
        now, before = measure(rule, now), measure(rule, before)
    if now is None or before is None or before <= 0 or before < rule.min_reference or now < rule.min_current:
        return False
    up = now >= before * rule.ratio and rule.direction is not Direction.DOWN
    return up or (now * rule.ratio <= before and rule.direction is not Direction.UP)


WHOLE = {
    Kind.FREQUENCY: frequency, Kind.FLATLINE: flatline, Kind.CARDINALITY: cardinality,
    Kind.PERCENTAGE_MATCH: percentage, Kind.METRIC_AGGREGATION: aggregation, Kind.SPIKE: spike,
    Kind.SPIKE_AGGREGATION: spike,
}  # fmt: skip
