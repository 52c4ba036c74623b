# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Every planted bug is found by the comparison with the naive engine, and the document says after how many commands."""

from __future__ import annotations

import pytest

from exchange.engine import Engine
from tests.exchange.compared import walk
from tests.exchange.planted_bugs import PLANTS, Plant
from tests.exchange.planting import engine_with, hunt, table, written
from tests.exchange.random_commands import PROFILES

QUICK = [plant for plant in PLANTS if plant.quick]


@pytest.mark.parametrize("plant", QUICK, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found_at_once(plant):
    assert hunt(plant, scripts=1) is not None


@pytest.mark.long
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant):
    assert hunt(plant) is not None


def test_a_bug_that_is_none_is_not_found():
    """The engine that is read anew is the same engine."""
    kind = engine_with(Plant("none", "", "engine", "class Engine", "class Engine"))
    assert kind is not Engine
    assert walk(PROFILES[0], 1, 300, kind)[1] is None


def test_a_passage_that_is_gone_is_told():
    with pytest.raises(AssertionError, match="plant it anew"):
        engine_with(Plant("gone", "", "engine", "no such passage", ""))


def test_the_document_names_every_bug():
    names = [row.split("|")[1].strip() for row in written()[2:]]
    assert names == [plant.name for plant in PLANTS]
    assert not any("not caught" in row for row in written())


@pytest.mark.long
def test_the_document_says_what_the_hunt_finds():
    assert written() == table(PLANTS)
