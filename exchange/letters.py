"""Dead letters as a person sees them: what nobody could use, where it lies, and the two things that may be done.

A letter is put back to where it came from, or dropped. Either leaves its place only afterwards: it may be there twice
when something breaks in between, never nowhere, and whoever consumes keeps effect and id together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Protocol, TypeAlias

import msgspec

from kernel.errors import InputError
from kernel.time import Instant

_ID_BYTES: Final = 6


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter."""

    id: str
    """Names it as long as it lies there; begins with the kind of its broker, `rabbit-` or `kafka-`."""
    lies_in: str
    """A queue, or a topic and a partition."""
    came_from: str
    """Where it goes when it is put back: likewise."""
    key: str
    """What it was published with: a routing key, or the key of a record."""
    why: str
    body: bytes
    at: Instant | None = None
    """When it was put there; None: nobody wrote it down."""
    deliveries: int | None = None
    """How often it had been delivered before; None: nobody wrote it down."""
    copies: int = 1
    """How often the same letter lies there. What is done is done once, and all copies go."""


class Deed(StrEnum):
    """What became of a letter."""

    REQUEUED = "requeued"
    DROPPED = "dropped"


Witness: TypeAlias = Callable[[Letter], None]
"""Is told of each letter before it is removed (after it was put back); what it raises keeps the letter there."""


class Letters(Protocol):
    """The dead letters of one broker."""

    async def look(self, most: int) -> list[Letter]:
        """Return the letters, the oldest of each place first and at most so many of each place; they stay.

        Raises:
            TemporaryError: the broker is away.
            PermanentError: a place is not there, or the broker refuses for good.
        """
        ...

    async def settle(self, ids: Collection[str], deed: Deed, witness: Witness) -> list[Letter]:
        """Put letters back, confirmed by the broker, or drop them; return them in the order in which they lay there.

        Raises:
            InputError: one of them is not there; then nothing was done.
            TemporaryError: the broker is away, or takes nothing. Letters that `witness` was not told of are there.
            PermanentError: a letter must not be put back, or the broker refuses for good.
        """
        ...


def letter_id(queue: str, message_id: str, body: bytes) -> str:
    """Return the id of a letter in a queue: the same for each copy of it.

    >>> letter_id("saga.cash", "17.hold.ask", b"{}")
    'rabbit-e64792bf1297'
    """
    digest = blake2b(digest_size=_ID_BYTES)
    for part in (queue.encode(), message_id.encode(), body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"rabbit-{digest.hexdigest()}"


def refuse_missing(ids: Collection[str], found: Collection[str]) -> None:
    """Refuse ids that were not found.

    Raises:
        InputError: names them.
    """
    missing = sorted(set(ids) - set(found))
    if missing:
        right = "`tapewatch exchange dead-letters list` names those that are; nothing was done"
        raise InputError(f"dead letter {', '.join(missing)}", "is not there", right=right)
