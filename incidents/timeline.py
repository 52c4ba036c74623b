"""The timeline: append-only, hash-chained entries. Everything else about an incident is derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from kernel.time import Instant


class EntryKind(StrEnum):
    """What an entry tells. The keys of its `data` are fixed per kind and stand in the comment."""

    OPENED = "opened"  # title, level, service, team, key
    ALERT_FIRING = "alert_firing"  # fingerprint, alertname, labels, annotations, starts_at, path (prometheus|direct)
    ALERT_RESOLVED = "alert_resolved"  # fingerprint, alertname, ends_at
    CAUSE_CHANGED = "cause_changed"  # fingerprint, alertname, why
    STATE_CHANGED = "state_changed"  # from, to, signal
    LEVEL_CHANGED = "level_changed"  # from, to, why
    RUN_STARTED = "run_started"  # run, runbook, title, target
    RUN_DECLINED = "run_declined"  # runbook, reason, detail
    EVIDENCE_READ = "evidence_read"  # run, purpose, name, query, relation, expected, value, data_at, unknown, holds
    PERMISSION = "permission"  # run, action, granted, reason, detail
    CONSENT = "consent"  # run, granted, by
    ACTION_ASKED = "action_asked"  # run, key, action, undo
    ACTION_DONE = "action_done"  # run, key, action, undo, ok, before, after, error
    RUN_ENDED = "run_ended"  # run, runbook, outcome, reason, detail
    HANDED_OVER = "handed_over"  # reason, what_to_do
    NOTE = "note"  # by, text
    IMPACT = "impact"  # orders, notional_ticks, minutes, source (figures of the exchange over the incident's time)
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
    """Who says so: `alertmanager`, `prometheus`, `control`, `runbook:NAME`, `person:NAME`, `exchange`, `estate`."""
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
