"""Who stands on whom: a directed graph of names, and what lies below one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Graph = Mapping[str, Collection[str]]
"""Name -> the names it directly depends on."""


def upstream(name: str, graph: Graph) -> frozenset[str]:
    """Return everything that `name` depends on, directly or not, without itself; circles do no harm."""
    found: set[str] = set()
    ahead = list(graph.get(name, ()))
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += graph.get(one, ())
    return frozenset(found - {name})
