"""One turn of a rule: what it must ask of the store, and what it decides from the answers. Pure and deterministic.

Event time alone counts. A turn decides everything up to `horizon`: now less the lateness that the rule allows, down
to a whole step. What arrives later than that for a record-wise kind is not seen again; a window is judged by what the
store holds when it is decided, so a record that is late within the lateness changes its result, and one that is later
still changes those windows that are decided after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kernel.time import HOUR, MILLISECOND, Duration, Instant
from monitor.log_fields import Record
from monitor.log_query import Exists, Not, OneOf, Query, both
from monitor.log_store import Row, Span
from monitor.logrules.model import WINDOWED, Kind, Rule

MAX_EVENTS: Final = 2_000
"""Records one turn takes of a rule; the next turn goes on from there."""
MAX_KEYS: Final = 10_000
"""Keys a rule remembers; the ones longest not seen are forgotten first."""
CATCH_UP: Final = Duration(1 * HOUR)
"""What a rule looks back on after a stop; before that nothing is decided, and that is counted."""
VERSION: Final = 1


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What a rule remembers of a key."""

    at: int
    value: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule knows between two turns."""

    decided: int
    """Up to when, in event time, everything is decided; excluded."""
    started: int
    """From when on it has been watching."""
    learned: bool = False
    seen: dict[str, Seen] = {}
    passed_over_ns: int = 0
    """Time that was never decided because a stop was too long."""


class Match(msgspec.Struct, frozen=True):
    """What a rule found."""

    at: int
    key: tuple[str, ...]
    why: str
    value: float = 0.0
    records: tuple[Record, ...] = ()


class Ask(msgspec.Struct, frozen=True):
    """One question to the store: a tally, or a search when `step_ms` is 0."""

    name: str
    query: Query
    span: Span
    step_ms: int = 0
    keys: tuple[str, ...] = ()
    measure: str = ""
    limit: int = MAX_EVENTS


Answers = dict[str, Sequence[Row] | Sequence[Record]]


class Turn(msgspec.Struct, frozen=True):
    """What a turn came to."""

    state: State
    matches: tuple[Match, ...]


def horizon(rule: Rule, now: Instant) -> Instant:
    """Return up to when a turn at `now` decides."""
    return Instant((now - rule.lateness) // rule.every * rule.every)


def begin(rule: Rule, now: Instant) -> State:
    """Return the state of a rule that starts to watch at `now`."""
    start = horizon(rule, now)
    return State(decided=start, started=start, learned=rule.kind not in {Kind.NEW_TERM, Kind.NEW_TEMPLATE})


def resumed(rule: Rule, state: State, now: Instant) -> State:
    """Return a state from which a turn at `now` may go on; what lies too far back is passed over and counted."""
    earliest = horizon(rule, Instant(now - CATCH_UP))
    if state.decided > horizon(rule, now) + CATCH_UP:  # the clock was set back; what it said is not believed
        return begin(rule, now)
    if state.decided >= earliest:
        return state
    passed = state.passed_over_ns + earliest - state.decided
    return msgspec.structs.replace(state, decided=earliest, started=earliest, passed_over_ns=passed)


def asks(rule: Rule, state: State, upto: Instant) -> tuple[Ask, ...]:  # noqa: PLR0911 - one return a kind
    """Return what a turn needs to know to decide up to `upto`; nothing when there is nothing to decide."""
    if not state.learned:
        before = Span(Instant(state.decided - rule.known_for), Instant(state.decided))
        if rule.kind is Kind.NEW_TERM:
            width = max(1, rule.known_for // MILLISECOND)
            return (Ask("before", rule.query, before, width, (*rule.by, rule.field)),)
        return (Ask("before", both(rule.query, _has(rule)), before, limit=10_000),)
    if upto <= state.decided:
        return ()
    new = Span(Instant(state.decided), upto)
    step = rule.every // MILLISECOND
    match rule.kind:
        case Kind.NEW_TERM:
            return (Ask("new", rule.query, new, step, (*rule.by, rule.field)),)
        case Kind.BLACKLIST:
            return (Ask("new", both(rule.query, _listed(rule)), new),)
        case Kind.WHITELIST:
            there = [_has(rule)] if rule.ignore_missing else []
            return (Ask("new", both(rule.query, *there, Not(_listed(rule))), new),)
        case Kind.CHANGE | Kind.NEW_TEMPLATE:
            return (Ask("new", both(rule.query, _has(rule)), new),)
        case Kind.CORRELATION:
            return (Ask("new", rule.query, new), Ask("then", rule.then, new))
        case Kind.ANY:
            return (Ask("new", rule.query, new),)
        case _:
            return _windows(rule, state, upto, step)


def _windows(rule: Rule, state: State, upto: Instant, step: int) -> tuple[Ask, ...]:
    back = (2 if rule.kind in {Kind.SPIKE, Kind.SPIKE_AGGREGATION} else 1) * rule.timeframe
    span = Span(Instant(state.decided + rule.every - back), upto)
    whole = Ask("all", rule.query, span, step, rule.by)
    match rule.kind:
        case Kind.CARDINALITY:
            return (msgspec.structs.replace(whole, keys=(*rule.by, rule.field)),)
        case Kind.METRIC_AGGREGATION | Kind.SPIKE_AGGREGATION:
            return (msgspec.structs.replace(whole, measure=rule.field),)
        case Kind.PERCENTAGE_MATCH:
            return (whole, msgspec.structs.replace(whole, name="part", query=both(rule.query, rule.part)))
        case _:
            return (whole,)


def fold(rule: Rule, state: State, upto: Instant, answers: Answers) -> Turn:
    """Decide up to `upto` from the answers to `asks`."""
    from monitor.logrules import events, windows

    if not answers:
        return Turn(state, ())
    if rule.kind in WINDOWED:
        turn = windows.judge(rule, state, upto, answers)
    else:
        turn = events.judge(rule, state, upto, answers)
    return Turn(_bounded(turn.state), turn.matches)


def _bounded(state: State) -> State:
    if len(state.seen) <= MAX_KEYS:
        return state
    kept = sorted(state.seen.items(), key=lambda one: (-one[1].at, one[0]))[:MAX_KEYS]
    return msgspec.structs.replace(state, seen=dict(kept))


def _has(rule: Rule) -> Query:
    return Exists(rule.field, rule.field_kind)


def _listed(rule: Rule) -> Query:
    return OneOf(rule.field, rule.field_kind, rule.values)


def key_text(key: Sequence[str]) -> str:
    """Return a key as one text, such that two keys never share it."""
    return msgspec.json.encode(list(key)).decode()


def key_of(text: str) -> tuple[str, ...]:
    """Return the key that `key_text` wrote."""
    return msgspec.json.decode(text, type=tuple[str, ...])
