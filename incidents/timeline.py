"""The timeline: append-only, hash-chained entries. Everything else about an incident is derived from them.

Each entry is sealed with a keyed digest over its own fields and the digest before it; the head (how many entries there
are, and the last digest) is sealed too, so that a cut tail shows. Who holds the key can forge, and who can put back a
whole older copy of the store (entries and head together) is not seen: keep copies of the heads elsewhere for that.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from kernel.time import Instant

GENESIS: Final = "0" * 64
"""What stands as `previous` in the first entry."""
KEY_BYTES_MIN: Final = 16


class EntryKind(StrEnum):
    """What an entry tells. The keys of its `data` are fixed per kind and stand in the comment."""

    OPENED = "opened"  # incident, title, level, service, team, key
    ALERT_FIRING = "alert_firing"  # fingerprint, alertname, labels, annotations, starts_at, path (prometheus|direct)
    ALERT_RESOLVED = "alert_resolved"  # fingerprint, alertname, ends_at
    CAUSE_CHANGED = "cause_changed"  # fingerprint, alertname, why, title
    STATE_CHANGED = "state_changed"  # from, to, signal, into (only when merged)
    LEVEL_CHANGED = "level_changed"  # from, to, why
    RUN_STARTED = "run_started"  # run, runbook, title, target
    RUN_DECLINED = "run_declined"  # runbook, reason, detail
    EVIDENCE_READ = "evidence_read"  # run, purpose, name, query, relation, expected, value, data_at, unknown, holds
    PLATFORM_READ = "platform_read"  # run, purpose, target, settled, seen_at, restarts, detail
    PERMISSION = "permission"  # run, action, granted, reason, detail
    CONSENT = "consent"  # run, granted, by
    ACTION_ASKED = "action_asked"  # run, key, action, undo
    ACTION_DONE = "action_done"  # run, key, action, undo, ok, before, after, error
    RUN_ENDED = "run_ended"  # run, runbook, outcome, reason, detail
    HANDED_OVER = "handed_over"  # reason, what_to_do
    NOTE = "note"  # by, text
    IMPACT = "impact"  # orders, notional_ticks, minutes, source (figures of the exchange over the incident's time)
    CAUSES_RANKED = (
        "causes_ranked"  # sentence, basis, stands_out, hypotheses [{service, metric, score, at, …}], trouble
    )
    ANOMALY_FOUND = "anomaly_found"  # fingerprint, starts_at, series, item, page, found_at, channel, value, …, trouble
    CURVE = "curve"  # name, unit, query, points [[instant_ns, value], …], marks {name: instant_ns}


class Entry(msgspec.Struct, frozen=True):
    """One thing that was seen, decided or done.

    `digest` covers every other field and the digest before it, so a changed, dropped or swapped entry shows.
    """

    n: int
    """Its place in the incident's timeline, from 1, without gaps."""
    at: Instant
    kind: EntryKind
    source: str
    """Who says so: `alertmanager`, `prometheus`, `detectors`, `control`, `runbook:NAME`, `person:NAME`, `exchange`,
    `estate`."""
    text: str
    """One sentence for people."""
    data: Mapping[str, object]
    previous: str
    digest: str


class Draft(msgspec.Struct, frozen=True):
    """An entry before it has its place in the chain."""

    at: Instant
    kind: EntryKind
    source: str
    text: str
    data: Mapping[str, object]


class Head(msgspec.Struct, frozen=True):
    """Where an incident's chain ends; kept with the incident and sealed with the same key."""

    incident: str
    count: int
    digest: str
    seal: str


class TamperKind(StrEnum):
    """What is wrong with a chain."""

    CHANGED = "changed"
    """An entry's fields do not give its digest."""
    OUT_OF_PLACE = "out_of_place"
    """An entry is missing, swapped or put in: this one does not follow the one before."""
    CUT = "cut"
    """The chain ends before its head."""
    APPENDED = "appended"
    """The chain goes on after its head."""
    HEAD = "head"
    """The head itself does not bear the seal."""


class Tamper(msgspec.Struct, frozen=True):
    """The first place where a chain is not what was written."""

    n: int
    """The entry's place, from 1."""
    kind: TamperKind
    text: str


def seal(draft: Draft, n: int, previous: str, key: bytes) -> Entry:
    """Give a draft its place in the chain.

    The data become plain JSON values, as they will be read back; NaN and infinities become null.
    """
    data: Mapping[str, object] = msgspec.json.decode(msgspec.json.encode(draft.data))
    kind = EntryKind(draft.kind)
    digest = _digest(n, draft.at, kind, draft.source, draft.text, data, previous, key=key)
    return Entry(n, draft.at, kind, draft.source, draft.text, data, previous, digest)


def seal_all(drafts: Sequence[Draft], head: Head, key: bytes) -> tuple[list[Entry], Head]:
    """Continue a chain from its head; return the new entries and the new head."""
    entries: list[Entry] = []
    previous = head.digest
    for n, draft in enumerate(drafts, start=head.count + 1):
        entries.append(seal(draft, n, previous, key))
        previous = entries[-1].digest
    return entries, seal_head(head.incident, head.count + len(entries), previous, key)


def seal_head(incident: str, count: int, digest: str, key: bytes) -> Head:
    """Seal where a chain ends."""
    return Head(incident, count, digest, _digest("head", incident, count, digest, key=key))


def verify(entries: Sequence[Entry], key: bytes, head: Head) -> Tamper | None:
    """Find the first entry that is not as it was written; None when the chain is whole."""
    head_holds = _same(seal_head(head.incident, head.count, head.digest, key).seal, head.seal)
    previous = GENESIS
    for place, entry in enumerate(entries, start=1):
        if head_holds and place > head.count:
            return Tamper(place, TamperKind.APPENDED, f"entry {place} stands after the end of the timeline")
        if entry.n != place or not _same(entry.previous, previous):
            return Tamper(place, TamperKind.OUT_OF_PLACE, f"entry {place} does not follow the one before it")
        fields = (entry.n, entry.at, entry.kind, entry.source, entry.text, entry.data, entry.previous)
        if not _same(_digest(*fields, key=key), entry.digest):
            return Tamper(place, TamperKind.CHANGED, f"entry {place} is not what was written")
        previous = entry.digest
    if head_holds and len(entries) < head.count:
        missing = head.count - len(entries)
        return Tamper(len(entries) + 1, TamperKind.CUT, f"the last {missing} of {head.count} entries are missing")
    if not head_holds or not _same(previous, head.digest):
        return Tamper(len(entries), TamperKind.HEAD, "the record of where the timeline ends was changed")
    return None


def empty_head(incident: str, key: bytes) -> Head:
    """Return the head of a chain without entries."""
    return seal_head(incident, 0, GENESIS, key)


def _digest(*fields: object, key: bytes) -> str:
    """Return the keyed digest of fields in canonical form: MessagePack with sorted keys."""
    assert len(key) >= KEY_BYTES_MIN, f"the timeline's key has at least {KEY_BYTES_MIN} bytes"
    return hmac.new(key, msgspec.msgpack.encode(fields, order="sorted"), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
