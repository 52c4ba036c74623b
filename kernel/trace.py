"""Trace context (W3C Trace Context, level 2): which trace a piece of work belongs to, and where it hangs in it.

Ids are derived, not drawn: whoever knows an order knows the ids of its spans. So every process can build its own part
of a trace without being told, and a part that is built twice has the same ids and replaces itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
MAX_TRACEPARENT: Final = 55
"""Characters of version 00. What a later version appends is not kept."""
GOLDEN: Final = 0x9E3779B1
"""The golden ratio's part of 2^32, made prime (Knuth, volume 3, section 6.4)."""
MASK: Final = (1 << 32) - 1
_LAST: Final = f"{1:016x}"
"""In place of an id of nothing but zeros, which would mean that there is none."""
_ALL: Final = (1 << 64) - 1
_SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd: children's numbers fall far apart."""
_BLOCK: Final = 4096
"""Places that are worked out together."""
_RANDOM: Final = 1 << 56
"""The rightmost seven bytes of a trace id are the ones that are random (level 2, section 3.2.2.3)."""


class TraceContext(NamedTuple):
    """A place in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits: the span that what follows is a child of; empty at the root."""
    sampled: bool
    """Whether the caller keeps its part."""


def parse_traceparent(text: str) -> TraceContext | None:
    """Read a `traceparent` header; None when it is none, in which case a new trace begins, as the standard asks."""
    found = _TRACEPARENT.fullmatch(text) if len(text) <= 4 * MAX_TRACEPARENT else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def traceparent(context: TraceContext) -> str:
    """Return a context as a `traceparent` header of version 00; it needs a span id."""
    assert context.span_id, "a root has no traceparent before it has a span"
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def derived_trace_id(*names: str) -> str:
    """Return the trace id of what these names name together, the same wherever it is asked."""
    return _digest(16, "trace", *names)


def order_trace_id(account: str, client_id: str, header: str = "") -> str:
    """Return the trace id of an order: its client's, if it sent a `traceparent`, or the one that its names give."""
    context = parse_traceparent(header) if header else None
    return context.trace_id if context is not None else derived_trace_id(account, client_id)


def derived_span_id(trace_id: str, *names: str) -> str:
    """Return the id of the span of a trace that these names name together."""
    return _digest(8, trace_id, *names)


def derived_span_ids(trace_id: str, *names: str) -> tuple[str, str]:
    """Return the ids of the two spans of a trace that these names name together: one digest instead of two."""
    both = _digest(16, trace_id, *names)
    one, two = both[:16], both[16:]
    return one if one.strip("0") else _LAST, two if two.strip("0") else _LAST


def child_span_id(parent_id: str, number: int) -> str:
    """Return the id of the child of a span that has this number among its children, from 1."""
    found = int(parent_id, 16) ^ number * _SPREAD & _ALL
    return f"{found:016x}" if found else _LAST


def is_kept(trace_id: str, share: float) -> bool:
    """Tell whether a trace belongs to the `share` (0 to 1) that is kept. Every process decides alike."""
    return int(trace_id[-14:], 16) < share * _RANDOM


def is_place_kept(seq: int, share: float) -> bool:
    """Tell whether the order at a place in the journal belongs to the `share` that is kept.

    Fibonacci hashing: as even as can be over any stretch, for one multiplication.
    """
    return (seq * GOLDEN & MASK) < share * (MASK + 1)


def places_kept(first: int, last: int, share: float) -> Sequence[int]:
    """Return the places from `first` to `last` of which `is_place_kept` is true.

    Places of one block are worked out together: the distances between neighbours are but three (Steinhaus), so that
    only the kept ones are looked at.
    """
    if last < first or share <= 0:
        return ()
    found: list[int] = []
    for block in range(first // _BLOCK, last // _BLOCK + 1):
        kept = _kept_in(block, share)
        found += kept[bisect_left(kept, first) : bisect_right(kept, last)]
    return found


@lru_cache(maxsize=4)
def _kept_in(block: int, share: float) -> list[int]:
    place, end = block * _BLOCK, (block + 1) * _BLOCK
    limit, steps = share * (MASK + 1), _steps(share)
    found: list[int] = []
    while place < end:
        if (place * GOLDEN & MASK) < limit:
            found.append(place)
            place += next((step for step in steps if ((place + step) * GOLDEN & MASK) < limit), 1)
        else:
            place += 1
    return found


@lru_cache(maxsize=4)
def _steps(share: float) -> tuple[int, ...]:
    """Return the distances between neighbours among the places that are kept, the smallest first.

    They are the first step that goes a little ahead, the first that goes a little back, and both together. None where
    hardly anything is kept: within a block there is no neighbour then.
    """
    circle = MASK + 1
    limit = share * circle
    ahead = next((step for step in range(1, _BLOCK) if (step * GOLDEN & MASK) < limit), 0)
    back = next((step for step in range(1, _BLOCK) if circle - (step * GOLDEN & MASK) < limit), 0)
    return tuple(sorted({ahead, back, ahead + back})) if ahead and back else ()


def _digest(size: int, *names: str) -> str:
    data = "\0".join(names).encode("utf-8", "surrogatepass")
    found = blake2b(data, digest_size=size).hexdigest()
    return found if found.strip("0") else found[:-1] + "1"  # all zeros would mean that there is none
