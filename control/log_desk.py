"""What the verbs of `tapewatch logs` do: which store is asked, and a rule played over what was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.settings import Settings
from kernel.errors import InputError, PermanentError
from kernel.time import HOUR, MILLISECOND, Duration, Instant, from_rfc3339, parse_duration
from monitor.adapters.log_lines import LogLines, Losses, record_of
from monitor.adapters.log_rule_files import HOUSE
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.elk.schema import PATTERN
from monitor.log_fields import time_ms
from monitor.log_store import LogStore, Span
from monitor.logrules.fold import Match
from monitor.logrules.model import Rule
from monitor.logrules.standing import Alert, advance
from monitor.logrules.turn import Kept, start, take

RULES: Final = HOUSE
MEMORY: Final = "512MB"
MAX_TURNS: Final = 200_000


@dataclass(frozen=True)
class Played:
    """What a rule found over a range of the past."""

    matches: tuple[Match, ...]
    raised: tuple[tuple[int, str, Alert], ...]
    """When, of which key, and the alert as it was raised."""
    records: int
    first: Instant
    last: Instant


def moment(text: str, now: Instant, option: str) -> Instant:
    """Return the time that a person wrote: `15m` for so long ago, or RFC 3339; in whole milliseconds.

    Raises:
        InputError: it is neither.
    """
    try:
        at = now - parse_duration(text)
    except ValueError:
        try:
            at = from_rfc3339(text)
        except ValueError:
            right = "15m for so long ago, or 2026-03-02T09:30:00Z"
            raise InputError(option, f"{text[:60]!r} is no time", right=right) from None
    return Instant(at // MILLISECOND * MILLISECOND)


def span_of(since: str, until: str, now: Instant) -> Span:
    """Return the range of time that is asked for."""
    end = moment(until, now, "--until") if until else Instant(now // MILLISECOND * MILLISECOND + MILLISECOND)
    return Span(moment(since, now, "--since"), end)


def open_store(where: str, logs: Path, settings: Settings, since: Instant) -> LogStore:
    """Return the store to ask; the local one has read what is there since `since`.

    Raises:
        InputError: there is no such store.
    """
    if where == "local":
        store = DuckdbLogStore(logs, since=since, memory=MEMORY)
        store.refresh()
        return store
    if where != "elastic":
        raise InputError("--store", f"{where[:40]!r} is no store", right="local or elastic")
    from control.elastic_access import access_of
    from monitor.adapters.elastic_client import connect
    from monitor.adapters.log_store_elastic import ElasticLogStore

    return ElasticLogStore(connect(access_of(settings)), PATTERN)


def play(rule: Rule, store: LogStore, span: Span) -> Iterator[tuple[Instant, Kept, tuple[Match, ...]]]:
    """Take a rule's turns over a range of the past, each a step after the other; yields those that found something.

    Raises:
        PermanentError: the store has no answer, or the range has too many steps.
    """
    first = Instant(span.start + rule.lateness)
    if (span.end - span.start) // rule.every > MAX_TURNS:
        raise PermanentError(f"{rule.name}: more than {MAX_TURNS:,} steps; name a shorter range with --from and --to")
    kept: Kept | None = start(rule, first)
    stride = max(rule.every, Duration(HOUR // 4 // rule.every * rule.every))
    now, last = first, Instant(span.end + rule.lateness + rule.every + rule.timeframe)
    while True:
        outcome = take(rule, kept, store, now)
        if outcome.unknown:
            raise PermanentError(f"{rule.name}: {outcome.unknown}")
        kept = outcome.kept
        if outcome.matches:
            yield now, kept, outcome.matches
        if now >= last and not outcome.behind:
            return
        now = now if outcome.behind else Instant(min(now + stride, last))


def play_file(rule: Rule, path: Path, since: str, until: str, now: Instant) -> Played:
    """Play a rule over one file of JSON lines.

    Raises:
        InputError: the file cannot be read, or holds no record.
    """
    losses = Losses()
    try:
        records = [record_of(line) for line in LogLines(path, losses).whole(path)]
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", right="a file of JSON lines") from error
    known = [record for record in records if record is not None]
    times = sorted(at for at in map(time_ms, known) if at is not None)
    if not times:
        raise InputError(str(path), "no line is a record with a time", right="ECS JSON lines with @timestamp")
    first = moment(since, now, "--from") if since else Instant(times[0] * MILLISECOND)
    last = moment(until, now, "--to") if until else Instant((times[-1] + 1) * MILLISECOND)
    store = DuckdbLogStore(None, memory=MEMORY)
    try:
        store.add(known)
        return play_store(rule, store, Span(first, last), len(known))
    finally:
        store.close()


def play_store(rule: Rule, store: LogStore, span: Span, records: int) -> Played:
    """Play a rule over a range of a store."""
    found = [match for _, _, matches in play(rule, store, span) for match in matches]
    alerts: dict[str, Alert] = {}
    raised: dict[tuple[int, str], Alert] = {}
    for match in sorted(found, key=lambda one: (one.at, one.key)):
        alerts = advance(rule, alerts, [match], match.at)
        for key, alert in alerts.items():
            if alert.standing:
                raised.setdefault((alert.since, key), alert)
    told = tuple((at, key, alert) for (at, key), alert in sorted(raised.items(), key=lambda one: one[0]))
    return Played(tuple(found), told, records, span.start, span.end)
