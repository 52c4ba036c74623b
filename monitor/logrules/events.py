"""Kinds that judge record by record, in the order of the store: by time, then by text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import msgspec

from kernel.time import MILLISECOND, SECOND, Instant, to_rfc3339
from monitor.log_fields import FIELDS, FieldKind, Record, compared, ip_shown, time_ms, values_of
from monitor.log_store import Row
from monitor.logrules.fold import MAX_EVENTS, Answers, Match, Seen, State, Turn, key_of, key_text
from monitor.logrules.model import Kind, Rule
from monitor.logrules.templates import MAX_TEMPLATES, template

Key = tuple[str, ...]


def judge(rule: Rule, state: State, upto: Instant, answers: Answers) -> Turn:
    """Judge the records between what is decided and `upto`, or fewer when there are too many for one turn."""
    if rule.kind is Kind.NEW_TERM:
        return _new_term(rule, state, upto, answers)
    if "before" in answers:
        return _learn(rule, state, cast("Sequence[Record]", answers["before"]))
    found = {name: cast("Sequence[Record]", records) for name, records in answers.items()}
    end = min([_end(rule, state, upto, records) for records in found.values()])
    found = {name: [one for one in records if _at(one) < end] for name, records in found.items()}
    if rule.kind is Kind.CORRELATION:
        turn = _correlation(rule, state, end, found["new"], found["then"])
    elif rule.kind is Kind.CHANGE:
        turn = _change(rule, state, found["new"])
    elif rule.kind is Kind.NEW_TEMPLATE:
        turn = _new_template(rule, state, found["new"])
    else:
        why = {Kind.BLACKLIST: f"{rule.field} is on the list", Kind.WHITELIST: f"{rule.field} is not on the list"}
        each = ((record, key) for record in found["new"] for key in keys_of(record, rule.by))
        turn = Turn(state, tuple(_match(record, key, why.get(rule.kind, "a record matches")) for record, key in each))
    return Turn(msgspec.structs.replace(turn.state, decided=end), turn.matches)


def _end(rule: Rule, state: State, upto: Instant, records: Sequence[Record]) -> int:
    """Return up to when these records are all there are; a full page may have left some of its last step out."""
    if len(records) < MAX_EVENTS:
        return upto
    whole = _at(records[-1]) // rule.every * rule.every
    return whole if whole > state.decided else min(upto, whole + rule.every)  # one step too full: the rest is too much


def keys_of(record: Record, by: Sequence[str]) -> list[Key]:
    """Return the keys a record counts under; none when it lacks a field of them."""
    found = compared({name: record[name] for name in by if name in record})
    texts = []
    for name in by:
        shown = [ip_shown(str(one)) if FIELDS[name] is FieldKind.IP else str(one) for one in found.get(name, ())]
        texts.append(sorted(set(shown)))
    return list(itertools.product(*texts))


def _at(record: Record) -> int:
    return (time_ms(record) or 0) * MILLISECOND


def _match(record: Record, key: Key, why: str, at: int | None = None) -> Match:
    return Match(_at(record) if at is None else at, key, why, 1.0, (record,))


def _change(rule: Rule, state: State, records: Sequence[Record]) -> Turn:
    seen, matches = dict(state.seen), []
    for record in records:
        value = ", ".join(sorted(str(one) for one in compared(record).get(rule.field, ())))
        for key in keys_of(record, rule.by):
            before = seen.get(key_text(key))
            soon = before is not None and (not rule.timeframe or _at(record) - before.at <= rule.timeframe)
            if before is not None and soon and before.value != value:
                matches.append(_match(record, key, f"{rule.field} changed from {before.value} to {value}"))
            seen[key_text(key)] = Seen(_at(record), value)
    return Turn(msgspec.structs.replace(state, seen=seen), tuple(matches))


def _new_term(rule: Rule, state: State, upto: Instant, answers: Answers) -> Turn:
    seen, matches = dict(state.seen), []
    if "before" in answers:
        for row in cast("Sequence[Row]", answers["before"]):
            seen[key_text(row.keys)] = Seen(state.decided)
        return Turn(msgspec.structs.replace(state, seen=seen, learned=True), ())
    for row in cast("Sequence[Row]", answers["new"]):
        before = seen.get(key_text(row.keys))
        if before is None or before.at < row.start - rule.known_for:
            at = row.start + rule.every
            matches.append(Match(at, row.keys[:-1], f"{rule.field} is new: {row.keys[-1]}", float(row.count)))
        seen[key_text(row.keys)] = Seen(row.start)
    seen = {text: one for text, one in seen.items() if one.at >= upto - rule.known_for}
    return Turn(msgspec.structs.replace(state, seen=seen, decided=upto), tuple(matches))


def _learn(rule: Rule, state: State, records: Sequence[Record]) -> Turn:
    learned = _new_template(rule, state, records).state
    seen = {text: Seen(state.decided, one.value) for text, one in learned.seen.items()}
    return Turn(msgspec.structs.replace(learned, seen=seen, learned=True), ())


def _new_template(rule: Rule, state: State, records: Sequence[Record]) -> Turn:
    """A template is kept under its key and shape; the shape may grow more general as lines come."""
    shapes: dict[Key, dict[str, int]] = {}
    for text, one in state.seen.items():
        *key, shape = key_of(text)
        shapes.setdefault(tuple(key), {})[shape] = one.at
    matches = []
    for record in records:
        at = _at(record)
        for one_key in keys_of(record, rule.by):
            known = shapes.setdefault(one_key, {})
            for line in (one for one in values_of(record, rule.field) if isinstance(one, str)):
                shape, place_of = template(line, list(known))
                stale = place_of is not None and known[place_of] < at - rule.known_for
                if place_of is None or stale:
                    matches.append(_match(record, one_key, f"a new kind of line: {shape[:200]}"))
                if place_of is not None:
                    del known[place_of]
                known[shape] = at
            if len(known) > MAX_TEMPLATES:
                del known[min(known, key=lambda one: (known[one], one))]
    seen = {key_text((*key, shape)): Seen(at) for key, known in shapes.items() for shape, at in known.items()}
    return Turn(msgspec.structs.replace(state, seen=seen), tuple(matches))


def _correlation(rule: Rule, state: State, end: int, first: Sequence[Record], then: Sequence[Record]) -> Turn:
    """Match every first record that no other one followed in time; one of the same millisecond counts as following."""
    pending = {text: one.at for text, one in state.seen.items()}
    told = sorted(
        [(_at(record), 0, key_text(key)) for record in first for key in keys_of(record, rule.by)]
        + [(_at(record), 1, key_text(key)) for record in then for key in keys_of(record, rule.by)]
    )
    matches = []

    def overdue(now: int) -> None:
        for text in sorted(pending, key=lambda one: (pending[one], one)):
            if pending[text] + rule.timeframe < now:
                began = pending.pop(text)
                why = f"nothing followed within {rule.timeframe / SECOND:g} s of {to_rfc3339(began)}"
                matches.append(Match(began + rule.timeframe, key_of(text), why, 1.0))

    for at, answer, text in told:
        overdue(at)
        if answer:
            pending.pop(text, None)
        else:
            pending.setdefault(text, at)
    overdue(end)
    return Turn(msgspec.structs.replace(state, seen={text: Seen(at) for text, at in pending.items()}), tuple(matches))
