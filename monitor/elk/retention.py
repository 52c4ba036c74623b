"""How long logs are kept where no lifecycle management is: what rolls, what goes; pure, with the port it works on.

The age of an index counts from the moment it was rolled, as in lifecycle management: until then it took records. The
index that is written is never due, whatever its age.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from kernel.time import SECOND, Instant

OURS: Final = re.compile(r"^logs-exchange\.[a-z0-9_.]+-[a-z0-9_.-]+$")
"""Names of data streams that are ours; another is never touched."""


@dataclass(frozen=True)
class Index:
    """One backing index of a data stream."""

    name: str
    created_at: Instant
    docs: int
    bytes: int
    read_only: bool = False
    """Whether the disk's flood stage has closed it for writing."""


@dataclass(frozen=True)
class Stream:
    """One data stream; its indices from the oldest to the one that is written."""

    name: str
    indices: tuple[Index, ...]
    lifecycle: str = ""
    """The lifecycle policy that has it in hand; such a stream is left alone."""


@dataclass(frozen=True)
class Limits:
    """When the written index rolls, and when one that was rolled goes. None: no such limit."""

    max_docs: int | None = None
    max_bytes: int | None = 50_000_000_000
    max_age_s: int | None = 86_400
    keep_s: int = 30 * 86_400


@dataclass(frozen=True)
class Rolled:
    """What a wish to roll came to."""

    stream: str
    rolled: bool
    old: str
    new: str
    why: tuple[str, ...]
    """The conditions that were met."""


@dataclass(frozen=True)
class Due:
    """An index that is to go."""

    stream: str
    index: str
    rolled_at: Instant
    docs: int
    bytes: int


class LogIndices(Protocol):
    """Data streams of logs. Raises TapewatchErrors; an index that is gone already counts as deleted."""

    def streams(self) -> tuple[Stream, ...]:
        """Return our data streams by name."""
        ...

    def roll(self, stream: str, limits: Limits, *, dry_run: bool) -> Rolled:
        """Roll the stream if it exceeds a limit; the server decides, in one step with the rolling."""
        ...

    def delete(self, index: str) -> None:
        """Delete one backing index; the one that is written is refused by the server as well."""
        ...


def due(streams: Iterable[Stream], keep_s: int, now: Instant) -> list[Due]:
    """Return the indices that were rolled at least `keep_s` seconds ago, the oldest of each stream first."""
    found: list[Due] = []
    for stream in streams:
        if stream.lifecycle or OURS.match(stream.name) is None:
            continue
        for index, following in zip(stream.indices, stream.indices[1:], strict=False):
            rolled_at = following.created_at
            if now - rolled_at >= keep_s * SECOND:
                found.append(Due(stream.name, index.name, rolled_at, index.docs, index.bytes))
    return found
