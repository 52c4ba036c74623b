"""One turn of one rule against a store, and what is kept between turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from kernel.errors import TapewatchError
from kernel.time import Instant
from monitor.log_fields import Record
from monitor.log_store import LogStore, Row
from monitor.logrules.fold import VERSION, Answers, Ask, Match, State, asks, begin, fold, horizon, resumed
from monitor.logrules.model import Rule
from monitor.logrules.standing import Alert, advance

MAX_PAGES: Final = 50
"""Pages of too many records that one turn takes before it leaves the rest to the next."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one rule."""

    rule: str
    """The rule's definition; another one starts anew."""
    state: State
    alerts: dict[str, Alert] = {}


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of all rules."""

    version: int = VERSION
    rules: dict[str, Kept] = {}


@dataclass(frozen=True)
class Outcome:
    """What a turn of one rule came to."""

    kept: Kept
    matches: tuple[Match, ...] = ()
    unknown: str = ""
    """Why there is no answer; then nothing was decided, and what stood still stands."""
    behind: bool = False
    """There was more than one turn takes; the next goes on."""


def fingerprint(rule: Rule) -> str:
    """Return what makes a rule another rule: everything but its words for people and its place."""
    parts = {
        name: repr(getattr(rule, name))
        for name in rule.__dataclass_fields__
        if name not in {"annotations", "labels", "where", "query_text"}
    }
    return msgspec.json.encode(parts, order="sorted").decode()


def start(rule: Rule, now: Instant) -> Kept:
    """Return what a rule begins with."""
    return Kept(rule=fingerprint(rule), state=begin(rule, now))


def take(rule: Rule, kept: Kept | None, store: LogStore, now: Instant) -> Outcome:
    """Take one turn at `now`. Never raises for trouble of the store: that is an outcome."""
    if kept is None or kept.rule != fingerprint(rule):
        kept = start(rule, now)
    state = resumed(rule, kept.state, now)
    upto = horizon(rule, now)
    matches: list[Match] = []
    for _ in range(MAX_PAGES):
        questions = asks(rule, state, upto)
        if not questions:
            break
        try:
            answers: Answers = {one.name: _answer(store, one) for one in questions}
        except TapewatchError as error:
            return Outcome(kept, unknown=str(error))
        turn = fold(rule, state, upto, answers)
        state = turn.state
        matches.extend(turn.matches)
    alerts = advance(rule, kept.alerts, matches, state.decided)
    after = msgspec.structs.replace(kept, state=state, alerts=alerts)
    return Outcome(after, tuple(matches), behind=state.decided < upto)


def _answer(store: LogStore, ask: Ask) -> Sequence[Row] | Sequence[Record]:
    if ask.step_ms:
        return store.tally(ask.query, ask.span, ask.step_ms, keys=ask.keys, measure=ask.measure)
    return store.search(ask.query, ask.span, limit=ask.limit)
