"""One order's trace as a tree for the terminal. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from monitor.zipkin_json import ReadSpan

_THOUSAND: Final = 1_000


class Row(NamedTuple):
    """One span in its place."""

    depth: int
    """How deep it hangs; 0 for a root."""
    service: str
    name: str
    after_us: int
    """How long after the first span of the trace it began."""
    took_us: int
    error: str


def rows(spans: Sequence[ReadSpan]) -> list[Row]:
    """Return a trace's spans in the order of a tree, children by their start.

    A span whose parent is not there hangs at the root: a client's own span lives in the client's store, and what a
    process did before it died may have come without the rest.
    """
    ids = {span.id for span in spans}
    children: dict[str, list[ReadSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda one: (one.timestamp, -one.duration, one.id)):
        above = span.parent_id if span.parent_id in ids and span.parent_id != span.id else None
        children[above or ""].append(span)
    began = min((span.timestamp for span in spans), default=0)
    found: list[Row] = []
    waiting = [(0, span) for span in reversed(children[""])]
    while waiting:
        depth, span = waiting.pop()
        found.append(
            Row(depth, span.service, span.name, span.timestamp - began, span.duration, span.tags.get("error", ""))
        )
        waiting.extend((depth + 1, child) for child in reversed(children[span.id]))
    return found


def milliseconds(microseconds: int) -> str:
    """Return a time as people read it.

    >>> milliseconds(1234), milliseconds(87)
    ('1.234 ms', '0.087 ms')
    """
    return f"{microseconds / _THOUSAND:.3f} ms"
