"""A timeline with the questions that a report asks of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from incidents.report import Sentence
from incidents.timeline import Entry, EntryKind
from incidents.words import instant_of


class Story:
    """The entries of one incident with the questions a report asks of them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.first = entries[0]
        self.last = entries[-1]
        self.opened = self.one(EntryKind.OPENED) or self.first
        self.state = self.one(EntryKind.STATE_CHANGED, last=True)
        self.handed = self.one(EntryKind.HANDED_OVER, last=True)
        self.alerts = self.all(EntryKind.ALERT_FIRING)
        self.actions = self.all(EntryKind.ACTION_DONE)
        self.fault = self._mark("fault")

    def all(self, kind: EntryKind, **data: object) -> list[Entry]:
        """Return the entries of a kind whose data hold these values."""
        return [
            entry
            for entry in self.entries
            if entry.kind is kind and all(entry.data.get(key) == value for key, value in data.items())
        ]

    def one(self, kind: EntryKind, *, last: bool = False, **data: object) -> Entry | None:
        """Return the first (or last) of `all`, None when there is none."""
        found = self.all(kind, **data)
        return found[-1 if last else 0] if found else None

    def reached(self, state: str) -> Entry | None:
        """Return the change that led to a state, the last time it did."""
        changed = [entry for entry in self.all(EntryKind.STATE_CHANGED, to=state) if entry.data.get("from") != state]
        return changed[-1] if changed else None

    def cause(self) -> Entry | None:
        """Return the firing of the alert held to be the cause."""
        changed = self.one(EntryKind.CAUSE_CHANGED, last=True)
        named = [
            alert
            for alert in self.alerts
            if changed and alert.data.get("fingerprint") == changed.data.get("fingerprint")
        ]
        return next(iter([*named, *self.alerts]), None)

    def first_action(self) -> Entry | None:
        """Return the first remedy that was carried out."""
        return next((entry for entry in self.actions if not entry.data.get("undo") and entry.data.get("ok")), None)

    def proof(self) -> Entry | None:
        """Return the last change of state that a proving reading led to."""
        return self.one(EntryKind.STATE_CHANGED, last=True, signal="verified")

    def relapses(self) -> list[Entry]:
        """Return the changes of state that took back a success."""
        return [
            entry for entry in self.all(EntryKind.STATE_CHANGED) if entry.data.get("signal") in {"relapsed", "reopen"}
        ]

    def _mark(self, name: str) -> tuple[int, Entry] | None:
        for entry in self.all(EntryKind.CURVE):
            marks = entry.data.get("marks")
            at = instant_of(marks.get(name)) if isinstance(marks, dict) else None
            if at is not None:
                return at, entry
        return None


def say(text: str, *entries: Entry | None) -> Sentence:
    """Make a sentence that these entries back."""
    return Sentence(text, tuple(sorted({entry.n for entry in entries if entry is not None})))


def of_cause(story: Story, cause: Entry | None, name: str) -> object:
    """Service and team follow the cause, as the incident itself does."""
    labels = cause.data.get("labels") if cause and story.one(EntryKind.CAUSE_CHANGED) else None
    return (labels.get(name) if isinstance(labels, dict) else None) or story.opened.data.get(name) or "unknown"


def as_sentence(text: str) -> str:
    """End a foreign text as a sentence ends."""
    return text if text.endswith((".", "!", "?", "…")) else text + "."
