# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The engine against the naive one at venues that nobody thought of."""

import os

import pytest

from tests.exchange.compared import agree
from tests.exchange.random_venues import profile


@pytest.mark.parametrize("seed", range(12))
def test_the_engine_agrees_with_the_naive_one_at_a_venue_by_chance(seed):
    agree(profile(seed), seed, 150, thaws=0.01)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1_000, 1_200))
def test_two_hundred_venues_by_chance_agree(seed):
    seed += int(os.environ.get("TAPEWATCH_SEED", "0"))
    agree(profile(seed), seed, 1_500, thaws=0.01)
