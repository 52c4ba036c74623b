"""The sizing calculator against worked examples and its own promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InputError
from monitor.elk.sizing import GB, LOW_WATERMARK, MAX_HEAP, SHARDS_A_NODE, Load, Machine, size

PLAIN = Machine(
    hot_disk=1_000 * GB, warm_disk=4_000 * GB, cold_disk=8_000 * GB, memory=32 * GB, ingest_per_s=10_000,
    stored_ratio=0.5, shard=40 * GB,
)  # fmt: skip


def tiers(plan):
    return {tier.name: (tier.nodes, tier.shards) for tier in plan.tiers}


def test_a_small_exchange_by_hand():
    """1,000/s x 500 B x 86,400 s = 43.2 GB of JSON a day, 21.6 GB stored; 7 days hot 151.2 GB, twice for the copy.

    ceil(151.2 / 40) = 4 full shards and 1 that fills, twice: 10. A second node only because a copy needs one.
    """
    plan = size(Load(1_000, 500, retention_days=7, hot_days=7, replicas=1, peak=3), PLAIN)
    assert plan.raw_bytes_a_day == pytest.approx(43.2 * GB)
    assert plan.stored_bytes_a_day == pytest.approx(21.6 * GB)
    assert tiers(plan) == {"hot": (2, 10)}
    assert plan.primaries == 1
    assert plan.roll_every_s == pytest.approx(40 / 21.6 * 86_400)
    assert (plan.masters, plan.coordinating, plan.nodes) == (3, 2, 7)
    assert plan.heap_bytes == 16 * GB


def test_a_large_exchange_by_hand():
    """50,000/s x 400 B = 1,728 GB a day, 864 GB stored; peak 150,000/s, with the copy 300,000/s over 10,000 a node: 30.

    Hot 3 d: 5.184 TB over 0.85 TB usable: 7 < 30. 15 primaries. Warm 7 d: 12.096 TB over 3.4: 4.
    Cold 20 d: 34.56 TB over 6.8: 6. Shards: hot (65 + 15) x 2, warm 152 x 2, cold 432 x 2.
    """
    plan = size(Load(50_000, 400, retention_days=30, hot_days=3, warm_days=7, replicas=1, peak=3), PLAIN)
    assert tiers(plan) == {"hot": (30, 160), "warm": (4, 304), "cold": (6, 864)}
    assert plan.primaries == 15
    assert plan.coordinating == 4
    assert [tier.why.split()[0] for tier in plan.tiers] == ["records", "disk", "disk"]


def test_days_that_add_up_leave_no_tier_of_rounding():
    """0.1 + 0.2 is not 0.3: what is left of the retention is no cold tier."""
    plan = size(Load(10, 300, retention_days=0.1 + 0.2, hot_days=0.2, warm_days=0.1, replicas=1), PLAIN)
    assert list(tiers(plan)) == ["hot", "warm"]


def test_one_node_without_copies_is_enough_for_little():
    plan = size(Load(10, 300, retention_days=1, hot_days=1, replicas=0, peak=1), PLAIN)
    assert tiers(plan) == {"hot": (1, 2)}


LOADS = st.builds(
    Load, st.floats(0.1, 1e6), st.floats(50, 10_000), st.floats(3, 400), st.floats(0.1, 1.5), st.floats(0, 1.5),
    st.integers(0, 3), st.floats(1, 20),
)  # fmt: skip
MACHINES = st.builds(
    Machine, st.floats(100 * GB, 1e4 * GB), st.floats(100 * GB, 1e4 * GB), st.floats(100 * GB, 1e5 * GB),
    st.floats(8 * GB, 256 * GB), st.floats(100, 1e5), st.floats(0.05, 3), st.floats(10 * GB, 50 * GB),
)  # fmt: skip


@given(LOADS, MACHINES)
def test_it_is_never_less_than_needed(load, machine):
    plan = size(load, machine)
    stored = load.events_per_s * load.bytes_per_event * 86_400 * machine.stored_ratio
    assert sum(tier.bytes for tier in plan.tiers) == pytest.approx(stored * load.retention_days * (1 + load.replicas))
    disks = {"hot": machine.hot_disk, "warm": machine.warm_disk, "cold": machine.cold_disk}
    for tier in plan.tiers:
        assert tier.bytes_a_node <= disks[tier.name] * LOW_WATERMARK * (1 + 1e-9)
        assert tier.nodes > load.replicas, "each copy needs a node of its own"
        assert tier.shards <= tier.nodes * SHARDS_A_NODE
        assert tier.shards % (1 + load.replicas) == 0
        assert tier.bytes / tier.shards <= machine.shard * (1 + 1e-9)
    hot = plan.tiers[0]
    assert hot.nodes * machine.ingest_per_s >= plan.peak_per_s * (1 + load.replicas) * (1 - 1e-9)
    assert plan.primaries * machine.ingest_per_s >= plan.peak_per_s * (1 - 1e-9)
    assert plan.masters == 3
    assert plan.heap_bytes <= min(MAX_HEAP, machine.memory / 2)


@given(LOADS, MACHINES, st.sampled_from(["events_per_s", "bytes_per_event", "peak", "replicas", "retention_days"]),
       st.floats(1.01, 4))  # fmt: skip
def test_more_of_anything_never_needs_less(load, machine, what, factor):
    more = replace(load, **{what: load.replicas + 1 if what == "replicas" else getattr(load, what) * factor})
    before, after = size(load, machine), size(more, machine)
    assert after.nodes >= before.nodes
    assert after.shards >= before.shards
    assert after.master_heap_bytes >= before.master_heap_bytes
    for one, other in zip(before.tiers, after.tiers, strict=False):
        assert other.nodes >= one.nodes


@given(LOADS, MACHINES)
def test_it_is_no_node_more_than_some_rule_asks_for(load, machine):
    for tier in size(load, machine).tiers:
        if tier.nodes == 1:
            continue
        fewer = tier.nodes - 1
        disk = {"hot": machine.hot_disk, "warm": machine.warm_disk, "cold": machine.cold_disk}[tier.name]
        broken = [
            fewer < 1 + load.replicas,
            tier.bytes > fewer * disk * LOW_WATERMARK * (1 - 1e-9),
            tier.shards > fewer * SHARDS_A_NODE,
            tier.name == "hot"
            and load.events_per_s * load.peak * (1 + load.replicas) > fewer * machine.ingest_per_s * (1 - 1e-9),
        ]
        assert any(broken)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events_per_s": 0}, "--events-per-s"), ({"events_per_s": float("nan")}, "--events-per-s"),
        ({"bytes_per_event": -1}, "--bytes-per-event"), ({"retention_days": float("inf")}, "--retention"),
        ({"hot_days": 8}, "--hot-days"), ({"warm_days": 7}, "--warm-days"), ({"replicas": -1}, "--replicas"),
        ({"peak": 0.5}, "--peak"),
    ],
)  # fmt: skip
def test_figures_that_make_no_sense_are_refused_by_name(change, said):
    with pytest.raises(InputError, match=said):
        size(replace(Load(1_000, 500, 7, 3), **change), PLAIN)


def test_a_shard_size_outside_the_rule_is_refused():
    with pytest.raises(InputError, match="10 to 50"):
        size(Load(1, 1, 1, 1), replace(PLAIN, shard=60 * GB))
