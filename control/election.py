"""Who leads: a pure election over one record that is changed by compare-and-set alone.

Whoever drives it asks `next_ask`, does that, and tells how it went; nothing here waits, and time is an argument: the
driver's own *monotonic* clock, in nanoseconds. Nobody compares clocks with anybody else.

Rule 1: a leader's lease is good until the moment it *sent* its last successful renewal, plus the lease's duration,
        minus a margin. It learns of its end by its own clock, also when nobody answers any more.
Rule 2: everybody else judges by how long they have *seen the record unchanged*, never by the times in it (as
        client-go does). So clocks may be days apart; they may only not run much faster or slower than each other,
        which the margin is for.
Rule 3: every change of the holder raises the epoch, the release too. A write that carries an old epoch is refused by
        whoever it reaches; that, not this machine, stops a leader that was held up between its decision and its write.
Rule 4: after a write without an answer nothing is believed until the record was read back. A record is ours only if
        its very epoch was asked for in this life; the same name in it is another life's.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kernel.time import SECOND, Duration, Instant
from runbooks.leases import LeaseRecord
from runbooks.words import duration


class ElectionTuning(msgspec.Struct, frozen=True, kw_only=True):
    """How long a lease is and how it is kept, in nanoseconds."""

    duration_ns: Duration = Duration(15 * SECOND)
    """For how long after its last change others leave a record alone."""
    renew_ns: Duration = Duration(5 * SECOND)
    """How often a leader renews; how often others look is the same."""
    margin_ns: Duration = Duration(2 * SECOND)
    """How much earlier than others a leader takes its lease for over."""
    retry_ns: Duration = Duration(SECOND)
    """Between two tries while there is no answer."""

    def __post_init__(self) -> None:
        if not 0 < self.renew_ns < self.duration_ns - self.margin_ns or self.margin_ns <= 0 or self.retry_ns <= 0:
            raise ValueError(f"a lease of {duration(self.duration_ns)} cannot be kept so: {self}")


class Look(msgspec.Struct, frozen=True):
    """Read the record."""


class Create(msgspec.Struct, frozen=True):
    """Keep the first record."""

    record: LeaseRecord


class Replace(msgspec.Struct, frozen=True):
    """Replace the record, compared with its resource version."""

    record: LeaseRecord


class Rest(msgspec.Struct, frozen=True):
    """Do nothing until then, by the monotonic clock."""

    until_ns: int


Ask = Look | Create | Replace | Rest

NOBODY: Final = ""


class Election:
    """One candidate's view of the election."""

    def __init__(self, identity: str, tuning: ElectionTuning) -> None:
        """`identity` names one life of one process; a process that is started anew takes another."""
        assert identity, "an empty name is nobody's"
        self._identity = identity
        self._tuning = tuning
        self._seen: LeaseRecord | None = None
        self._seen_since_ns = 0
        """Since when the record has been seen unchanged."""
        self._known = False
        """The record as it is was read or written by us; nothing was sent since whose answer is missing."""
        self._due_ns = 0
        self._asked_epochs: set[int] = set()
        self._sent: LeaseRecord | None = None
        self._sent_ns = 0
        self._good_until_ns = 0
        self._epoch = 0
        self._epoch_most = 0
        """The highest epoch ever seen here: whoever sets the record back by hand does not set us back."""
        self._stamp = Instant(0)

    @property
    def identity(self) -> str:
        """What the record calls this candidate."""
        return self._identity

    @property
    def epoch(self) -> int:
        """The epoch in which this candidate leads or led last; 0: it never did."""
        return self._epoch

    @property
    def good_until_ns(self) -> int:
        """Until when this candidate's lease is good, by its own monotonic clock."""
        return self._good_until_ns

    def may_act(self, now_ns: int) -> bool:
        """Tell whether this candidate leads at this moment, as far as anybody can know without asking."""
        return now_ns < self._good_until_ns

    def why_not(self, now_ns: int) -> str:
        """Say why this candidate does not lead; empty when it does."""
        if self.may_act(now_ns):
            return ""
        if self._seen is None:
            return "nobody leads yet, as far as is known"
        holder = self._seen.holder
        if holder == self._identity:
            return "our lease ran out before it could be renewed"
        return f"{holder} leads (epoch {self._seen.epoch})" if holder else "nobody leads since the last leader left"

    # --- what to do next ------------------------------------------------------------------------------------------

    def next_ask(self, now_ns: int, wall: Instant) -> Ask:
        """Return what is due now. `wall` is written into the record for people to read."""
        if now_ns < self._due_ns:
            return Rest(self._due_ns)
        if not self._known:
            return Look()
        seen = self._seen
        if seen is None:
            return Create(self._mine(self._epoch_most + 1, wall, ""))
        if self._is_mine(seen):
            return Replace(self._mine(seen.epoch, wall, seen.resource_version))
        if seen.holder == NOBODY or now_ns - self._seen_since_ns >= max(seen.duration_ns, self._tuning.duration_ns):
            return Replace(self._mine(self._epoch_most + 1, wall, seen.resource_version))
        return Look()

    def release(self, now_ns: int, wall: Instant) -> Replace | None:
        """Stop leading at once, and return the record that tells others so; None when there is none to release."""
        held = self._seen if self._known and self.may_act(now_ns) else None
        self._good_until_ns = now_ns
        self._known = False
        if held is None or not self._is_mine(held):
            return None
        return Replace(msgspec.structs.replace(held, holder=NOBODY, epoch=held.epoch + 1, renewed_at=wall))

    def _mine(self, epoch: int, wall: Instant, version: str) -> LeaseRecord:
        # Never twice the same, or a record read back could be taken for a later one than it is.
        self._stamp = Instant(max(wall, self._stamp + 1))
        return LeaseRecord(
            holder=self._identity,
            epoch=epoch,
            renewed_at=self._stamp,
            duration_ns=self._tuning.duration_ns,
            resource_version=version,
        )

    def _is_mine(self, record: LeaseRecord) -> bool:
        return record.holder == self._identity and record.epoch in self._asked_epochs

    # --- how it went ----------------------------------------------------------------------------------------------

    def sending(self, record: LeaseRecord, now_ns: int) -> None:
        """Take note that a record is about to be sent: from now on nothing is known until an answer."""
        self._sent, self._sent_ns = record, now_ns
        if record.holder == self._identity:
            self._asked_epochs.add(record.epoch)
        self._known = False

    def kept(self, record: LeaseRecord, now_ns: int) -> None:
        """Take note that what was sent last is kept, as `record`."""
        self._saw(record, now_ns)
        self._lead(record)
        self._due_ns = self._sent_ns + self._tuning.renew_ns

    def conflict(self, now_ns: int) -> None:
        """Take note that the record had been changed by then: it must be read."""
        self._due_ns = now_ns

    def unanswered(self, now_ns: int) -> None:
        """Take note that there was no answer: whatever was sent may or may not have been carried out."""
        self._known = False
        self._due_ns = now_ns + self._tuning.retry_ns

    def read(self, record: LeaseRecord | None, now_ns: int) -> None:
        """Take note of the record as it was read."""
        self._saw(record, now_ns)
        if record is not None and self._is_mine(record):
            if self._sent is not None and _same(record, self._sent):
                self._lead(record)  # the answer was lost, the write was not
            self._due_ns = max(self._sent_ns + self._tuning.renew_ns, now_ns) if self.may_act(now_ns) else now_ns
            return
        self._good_until_ns = min(self._good_until_ns, now_ns)
        free = record is None or record.holder == NOBODY
        expires_ns = (
            now_ns if record is None else self._seen_since_ns + max(record.duration_ns, self._tuning.duration_ns)
        )
        self._due_ns = now_ns if free else min(now_ns + self._tuning.renew_ns, max(expires_ns, now_ns))

    def _lead(self, record: LeaseRecord) -> None:
        self._epoch = record.epoch
        self._good_until_ns = max(
            self._good_until_ns, self._sent_ns + self._tuning.duration_ns - self._tuning.margin_ns
        )
        self._sent = None

    def _saw(self, record: LeaseRecord | None, now_ns: int) -> None:
        if record is None or self._seen is None or record != self._seen:
            self._seen_since_ns = now_ns
        self._seen = record
        self._known = True
        self._epoch_most = max(self._epoch_most, record.epoch if record is not None else 0)


def _same(record: LeaseRecord, sent: LeaseRecord) -> bool:
    return record == msgspec.structs.replace(sent, resource_version=record.resource_version)
