"""Cheap incidents by the thousand: whatever becomes of the controllers, no key takes effect twice."""

import pytest

from tests.sim.cluster_mill import mill

BATCH = 250


def test_no_effect_is_repeated_in_a_thousand_incidents(tmp_path):
    effects = lives = 0
    for seed in range(4):
        plant = mill(seed, tmp_path / str(seed), 250)
        assert not plant.found, f"seed {seed}: {plant.found[:3]}"
        effects += plant.effects
        lives += plant.lives
    assert effects > 1_000, "without effects there is nothing to repeat"
    assert lives > 1_500, "controllers die and are deposed"


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 500, 40))
def test_no_effect_is_repeated_in_a_hundred_thousand_incidents(first, tmp_path):
    for seed in range(first, first + 40):
        plant = mill(seed, tmp_path / str(seed), BATCH)
        assert not plant.found, f"seed {seed}: {plant.found[:3]}"
