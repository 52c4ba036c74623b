"""Which service stands on which: the one home of that fact, for grouping alerts and for ranking causes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

Graph = Mapping[str, Collection[str]]
"""Service -> the services it directly depends on."""

DEPENDS_ON: Final[Graph] = {
    "engine": ("cluster",),
    "gateway": ("engine",),
    "gateway-canary": ("engine",),
    "market-data": ("engine",),
    "settlement": ("engine",),
    "watchdog": ("market-data",),
    "client": ("gateway",),
    "exchange": ("gateway", "market-data"),
}


def upstream(service: str, graph: Graph = DEPENDS_ON) -> frozenset[str]:
    """Return every service that `service` depends on, directly or not, without itself."""
    found: set[str] = set()
    ahead = list(graph.get(service, ()))
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += graph.get(one, ())
    return frozenset(found - {service})
