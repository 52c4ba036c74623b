"""The record that says which controller leads, and the port to where it is kept; shaped after a Kubernetes `Lease`.

The record is changed by compare-and-set alone: who read an old one changes nothing. Its times are for people; nobody
judges by them whether it has expired, because clocks differ (see `control.election`).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from kernel.time import Duration, Instant


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads, since which epoch, and for how long without a renewal."""

    holder: str
    """The leader's identity; empty: released, nobody leads."""
    epoch: int
    """Grows by one with every change of the holder (`leaseTransitions`); every write of the leader carries it."""
    renewed_at: Instant
    """When the holder renewed it last, by the holder's own wall clock: for people only."""
    duration_ns: Duration
    """For how long after a renewal others leave it alone."""
    resource_version: str = ""
    """What a replacement is compared with; set by where the record is kept, empty in a record not kept yet."""


class Leases(Protocol):
    """Where the one record is kept.

    Every method raises `TemporaryError` when there is no answer. After that a write may or may not have been carried
    out: the record must be read before anything is believed.
    """

    async def read(self) -> LeaseRecord | None:
        """Return the record, or None when there is none yet."""
        ...

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Keep the first record; returns it as it is kept.

        Raises:
            RefusedError: `CONFLICT` when there is one already.
        """
        ...

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        """Replace the record that has `record.resource_version`; returns the new one as it is kept.

        Raises:
            RefusedError: `CONFLICT` when it has been changed since, or is gone.
        """
        ...
