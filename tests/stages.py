"""Which files a run for one kind of server reads at all.

`make test` runs pytest once for the most part and once for each kind of server. Importing every test takes ten seconds
of processor time, so a run whose marker expression begins with such a kind, or with several in brackets, leaves out the
files that name none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import pytest

STAGES = ("estate", "elastic", "postgres", "kafka", "rabbit", "lb", "kube")
"""Markers whose tests have a run of their own."""
UNNAMED = pytest.StashKey[list[str]]()
"""Tests of such a run whose files it would leave out; found by the run that reads every file."""


@functools.cache
def names(path: Path, stage: str) -> bool:
    """Tell whether a file of tests, or its place, names a kind of server."""
    return stage in path.parent.name or stage in path.read_text("utf-8")


def asked_for(expression: str) -> list[str]:
    """Return the kinds of servers a marker expression begins with; none when it begins otherwise."""
    first = expression[1:].partition(")")[0] if expression.startswith("(") else expression.partition(" ")[0]
    kinds = first.split(" or ")
    return kinds if set(kinds) <= set(STAGES) else []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    kinds = asked_for(str(config.getoption("markexpr")))
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if kinds and is_test and not any(names(collection_path, kind) for kind in kinds) else None


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        for stage in STAGES:
            if item.get_closest_marker(stage) and not names(item.path, stage):
                item.config.stash.setdefault(UNNAMED, []).append(f"{item.nodeid} is a test of {stage}")
