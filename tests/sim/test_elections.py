"""Simulated elections: no write of a deposed leader is accepted, at most one may act, somebody always leads again."""

import pytest

from tests.sim.elections import elect, seeds


@pytest.mark.parametrize("fencing", [True, False], ids=["fenced", "by the clock alone"])
def test_no_deposed_leader_writes_in_three_hundred_elections(fencing):
    count = effects = 0
    for seed, plant in enumerate(seeds(0, 150, fencing=fencing)):
        assert not plant.found, f"seed {seed}: {plant.found[:3]}"
        count += plant.elections
        effects += plant.effects
    assert count >= 150
    assert effects > 2 * count, "a simulation in which nobody writes proves nothing"


@pytest.mark.long
@pytest.mark.parametrize("first", range(1_000, 11_000, 1_000))
def test_no_deposed_leader_writes_in_ten_thousand_elections(first):
    for fencing in (True, False):
        for number, plant in enumerate(seeds(first, 500, fencing=fencing)):
            assert not plant.found, f"seed {first + number}, fencing {fencing}: {plant.found[:3]}"


def test_the_server_refuses_writes_that_a_deposed_leader_was_held_up_with():
    """Without these the fence would not be tried."""
    assert sum(plant.refused for plant in seeds(0, 150)) > 10


def test_the_same_seed_gives_the_same_elections():
    one, other = elect(3), elect(3)
    assert one.leases.history == other.leases.history
    assert one.epochs == other.epochs
