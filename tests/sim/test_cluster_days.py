"""Seeded days of a cluster that fights back, under two controllers that contend by election."""

import time
from collections import Counter

import pytest

from kernel.time import DAY, Instant
from runbooks.model import Outcome, RefusalReason
from tests.sim.cluster_days import broken_promises, complaints, simulate

BATCH = 10
FASTER = 100_000
"""How much faster than real time the days must go by."""


@pytest.mark.parametrize("first", range(0, 30, BATCH))
def test_every_promise_holds_on_every_day_of_the_cluster(first, tmp_path):
    for seed in range(first, first + BATCH):
        wrong = complaints(seed, tmp_path / str(seed))
        assert not wrong, f"seed {seed}: {wrong[:5]}"


def test_every_promise_holds_when_each_action_on_the_cluster_meets_the_kill_switch(tmp_path):
    for seed in range(5):
        wrong = complaints(seed, tmp_path / str(seed), switch=True)
        assert not wrong, f"seed {seed}: {wrong[:5]}"


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 1_100, 50))
def test_every_promise_holds_on_a_thousand_days_of_the_cluster(first, tmp_path, capsys):
    began = time.process_time()
    for seed in range(first, first + 50):
        wrong = complaints(seed, tmp_path / str(seed))
        assert not wrong, f"seed {seed}: {wrong[:5]}"
    ratio = 50 * DAY / 1e9 / (time.process_time() - began)
    with capsys.disabled():
        print(f"\n50 days, {ratio:,.0f} times faster than real time")  # noqa: T201 - a figure to keep
    assert ratio >= FASTER


@pytest.mark.long
def test_every_promise_holds_when_many_actions_on_the_cluster_meet_the_kill_switch(tmp_path):
    for seed in range(100, 200):
        wrong = complaints(seed, tmp_path / str(seed), switch=True)
        assert not wrong, f"seed {seed}: {wrong[:5]}"


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    return [simulate(seed, folder / str(seed)) for seed in range(200, 225)]


def test_the_days_of_the_cluster_hold_what_they_are_for(days):
    """A simulation in which nothing happens proves nothing."""
    runs = [run for world in days for run in world.store.runs_since(Instant(0))]
    outcomes, reasons = Counter(run.outcome for run in runs), {run.reason for run in runs}
    assert set(outcomes) >= {Outcome.MENDED, Outcome.UNDONE, Outcome.NOT_PROVEN, Outcome.REFUSED}
    assert len(reasons & set(RefusalReason)) >= 7, reasons
    assert len({run.runbook for run in runs}) >= 10
    assert sum(len(world.cluster.landings) for world in days) >= 40
    assert sum(world.leases.record.epoch > 2 for world in days) >= 8, "leaders change"


def test_the_same_seed_gives_the_same_day_of_the_cluster(tmp_path):
    one, other = (simulate(11, tmp_path / name) for name in ("one", "other"))
    assert one.steps == other.steps
    assert one.cluster.landings == other.cluster.landings
    assert one.leases.history == other.leases.history
    assert [entry.digest for incident in one.store.incidents() for entry in one.store.timeline(incident.id)] == [
        entry.digest for incident in other.store.incidents() for entry in other.store.timeline(incident.id)
    ]
    assert not broken_promises(one)
