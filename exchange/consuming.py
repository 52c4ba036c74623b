"""How a partition of events is read by somebody whose effect must come exactly once, in order, and whole.

The numbers decide, not the place: the effect keeps the last number it has carried out in its own transaction, what
comes again is left alone, and a number that is missing stops the partition. A message that cannot be read is put aside
as a dead letter. Whether it took a number with it shows at the next one: when that has the number that was due, a
stranger's message lay between ours and nothing is missing; otherwise a record is, and only a person may decide what to
do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

import msgspec

from exchange.events import Happened
from exchange.journal import Kind, decode_events
from exchange.messages import MessageError, SchemaError, unseal
from exchange.ports import DeadReason

SUSPECTS_MAX: Final = 100
"""So many unreadable messages in a row are no stranger's: the partition stops."""
LOOKS_MAX: Final = 3
"""How often a place where a number is missing is read before it is believed."""


class Effect(Protocol):
    """What reading brings about. It keeps its own place, durably and in the transaction of the effect itself."""

    async def reached(self, partition: int) -> int:
        """Return the last number of a partition whose effect is durable; 0 when none is.

        Raises:
            TemporaryError: it cannot be told now.
        """
        ...

    def read(self, partition: int, happened: Sequence[Happened]) -> None:
        """Hear of what was read and is carried out soon, or comes again."""
        ...

    async def apply(self, partition: int, happened: Sequence[Happened]) -> None:
        """Carry out a stretch, in order; when it returns all of it is durable. It may have been carried out before.

        Raises:
            TemporaryError: nothing was carried out, or all was: it will be asked to again.
            PermanentError: it never can be.
        """
        ...


class Missing(Enum):
    """What becomes of a partition where a dead letter took a number with it."""

    STOPS = auto()
    """Nothing behind it is carried out until a person has decided: a ledger's way."""
    PASSES = auto()
    """It goes on without: for notices and views, which the next record makes good."""


class Poison(NamedTuple):
    """A message that cannot be read."""

    offset: int
    reason: DeadReason
    why: str
    key: bytes | None
    value: bytes | None
    seq: int | None = None
    """Its number, if its checksum holds."""


class Broken(NamedTuple):
    """A number is missing here."""

    offset: int
    """Of the message that should have had it."""
    why: str
    look_from: int | None
    """From where it may be found by reading again; None: it is certain."""
    look_below: int = 0
    """If the log begins at this offset or behind it, it is certain, too."""


class Stretch(NamedTuple):
    """What a row of messages came to."""

    happened: tuple[Happened, ...]
    """What is to be carried out, consecutive."""
    repeats: int
    poison: tuple[Poison, ...]
    end: int
    """Everything before this offset is done with once the rest is; one that waits for proof is not."""
    broken: Broken | None


class Raw(NamedTuple):
    """A message as it came."""

    offset: int
    key: bytes | None
    value: bytes | None


class PartitionReader:
    """One partition, read on from the last number that was carried out."""

    def __init__(self, reached: int, missing: Missing = Missing.STOPS) -> None:
        """Go on after number `reached`."""
        self.next_seq = reached + 1
        self.last_seen: int | None = None
        """The greatest number that was met: one that comes again late says nothing of where the events end."""
        self._missing: Final = missing
        self._suspects = 0
        """Unreadable messages since the last good one."""
        self._first_suspect: Poison | None = None
        self._before_seen = False
        """Whether a number before the next was met since the place was last changed: then nothing was left out."""
        self._looks = 0
        self._began_at: int | None = None
        """The first offset since the place was changed."""

    def read(self, messages: Iterable[Raw], end: int) -> Stretch:
        """Judge messages that follow one another; `end` is the offset up to which everything before was done with."""
        happened: list[Happened] = []
        poison: list[Poison] = []
        repeats, broken = 0, None
        for message in messages:
            if self._began_at is None:
                self._began_at = message.offset
            found = self._one(message)
            if isinstance(found, Poison):
                poison.append(found)
                broken = self._suspect(found)
            elif found.seq < self.next_seq:
                repeats += 1
                self._before_seen = True
                self.last_seen = max(self.last_seen or 0, found.seq)
            elif found.seq == self.next_seq or self._is_explained(found.seq):
                happened.append(found)
                self.next_seq = found.seq + 1
                self.last_seen = found.seq
                self._before_seen, self._looks = True, 0
                self._clear()
            else:
                broken = self._gap(message.offset, found.seq)
            if broken is not None:
                break
            if not self._suspects:
                end = message.offset + 1
        return Stretch(tuple(happened), repeats, tuple(poison), end, broken)

    @property
    def behind(self) -> bool:
        """Whether what was read ends before what was carried out long ago: the two may not belong together."""
        return self.last_seen is not None and self.last_seen < self.next_seq - 1

    def moved(self) -> None:
        """Hear that reading goes on from another place."""
        self._before_seen, self._began_at = False, None
        self._clear()

    # --- within ----------------------------------------------------------------------------------------------------

    def _one(self, message: Raw) -> Happened | Poison:
        offset, key, value = message
        try:
            _, _, seq, payload = unseal(value, Kind.EVENTS)
        except SchemaError as error:
            return Poison(offset, DeadReason.SCHEMA, error.what, key, value, error.seq)
        except MessageError as error:
            return Poison(offset, DeadReason.DAMAGED, error.what, key, value)
        try:
            item = decode_events(payload)
        except msgspec.MsgspecError as error:
            return Poison(offset, DeadReason.UNREADABLE, f"record {seq} holds no events: {error}", key, value, seq)
        if item.seq != seq:
            why = f"the message says record {seq}, what it holds says {item.seq}"
            return Poison(offset, DeadReason.UNREADABLE, why, key, value, seq)
        return item

    def _suspect(self, poison: Poison) -> Broken | None:
        if poison.seq is not None and poison.seq < self.next_seq:
            return None  # of a record that was carried out before
        self._suspects += 1
        self._first_suspect = self._first_suspect or poison
        if self._missing is Missing.PASSES:
            return None
        if poison.seq is not None:
            # Its checksum holds: it is a record of ours, of a number that nobody else will bring.
            return Broken(poison.offset, poison.why, None)
        if self._suspects >= SUSPECTS_MAX:
            return Broken(poison.offset, f"{self._suspects} messages in a row cannot be read: {poison.why}", None)
        return None

    def _is_explained(self, seq: int) -> bool:
        """Tell whether the numbers that are missing may be passed over: they went with messages put aside."""
        return self._missing is Missing.PASSES and self.next_seq < seq <= self.next_seq + self._suspects

    def _clear(self) -> None:
        self._suspects, self._first_suspect = 0, None

    def _gap(self, offset: int, seq: int) -> Broken:
        missing = seq - self.next_seq
        why = f"record {seq} stands where {self.next_seq} should"
        if self._first_suspect is not None:
            why += f"; the message at offset {self._first_suspect.offset} cannot be read: {self._first_suspect.why}"
        if self._before_seen:
            self._looks += 1
            below = offset
        else:
            assert self._began_at is not None, "it read this message"
            below = self._began_at  # what was read since does not reach back to a number that was carried out
        # Each record takes an offset at least, so the one that is due can stand no later than this.
        look_from = None if self._looks >= LOOKS_MAX else max(0, min(offset - missing, below - 1))
        return Broken(offset, why, look_from, below)
