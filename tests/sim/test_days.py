"""Seeded days of incidents: crashes at any step, a failing store, lost answers, late and doubled notifications."""

import pytest

from incidents.incident import State
from kernel.time import Instant
from runbooks.model import Outcome
from tests.sim.days import complaints, simulate
from tests.sim.invariants import broken_promises, stuck

BATCH = 10


@pytest.mark.parametrize("first", range(0, 60, BATCH))
def test_every_promise_holds_on_every_day(first, tmp_path):
    for seed in range(first, first + BATCH):
        wrong = complaints(seed, tmp_path / str(seed))
        assert not wrong, f"seed {seed}: {wrong[:5]}"


def test_every_promise_holds_when_each_action_meets_the_kill_switch(tmp_path):
    for seed in range(20):
        wrong = complaints(seed, tmp_path / str(seed), switch=True)
        assert not wrong, f"seed {seed}: {wrong[:5]}"


@pytest.mark.long
@pytest.mark.parametrize("first", range(60, 2_060, 100))
def test_every_promise_holds_on_many_more_days(first, tmp_path):
    for seed in range(first, first + 100):
        wrong = complaints(seed, tmp_path / str(seed))
        assert not wrong, f"seed {seed}: {wrong[:5]}"


def test_the_days_hold_what_they_are_for(tmp_path):
    """A simulation in which nothing happens proves nothing."""
    worlds = [simulate(seed, tmp_path / str(seed)) for seed in range(40)]
    outcomes = {run.outcome for world in worlds for run in world.store.runs_since(Instant(0))}
    assert outcomes >= {Outcome.MENDED, Outcome.UNDONE, Outcome.NOT_PROVEN, Outcome.REFUSED}
    assert sum(len(world.done) for world in worlds) > 100
    assert sum(world.lives - 1 for world in worlds) > 100
    assert sum(len(world.thrown) for world in worlds) > 20
    names = {alert.name for world in worlds for one in world.store.incidents() for alert in one.alerts.values()}
    assert "MonitoringSilent" in names
    assert any(one.merged_into for world in worlds for one in world.store.incidents())


def test_the_same_seed_gives_the_same_day(tmp_path):
    one, other = (simulate(7, tmp_path / name) for name in ("one", "other"))
    assert one.steps == other.steps
    assert [entry.digest for incident in one.store.incidents() for entry in one.store.timeline(incident.id)] == [
        entry.digest for incident in other.store.incidents() for entry in other.store.timeline(incident.id)
    ]
    assert not broken_promises(one)
    assert not stuck(one)
    assert all(incident.state is State.RESOLVED for incident in one.store.incidents())
