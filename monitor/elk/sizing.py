"""How large an Elasticsearch must be for our logs: nodes, shards, heap and disks, by arithmetic; pure.

Rules of thumb (Elastic's own guides): a shard of 10 to 50 GB; no more than 85 % of a disk used (the low watermark, from
which on no shard is placed there); heap at most half of the memory and at most 31 GB, so that pointers stay short;
three dedicated masters, of which one may fail; at least one more node of a tier than it has replicas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from kernel.errors import InputError

GB: Final = 1_000_000_000
DAY_S: Final = 86_400
LOW_WATERMARK: Final = 0.85
MIN_SHARD: Final = 10 * GB
MAX_SHARD: Final = 50 * GB
SHARDS_A_NODE: Final = 1_000
"""Elasticsearch's own limit (cluster.max_shards_per_node)."""
_NOTHING_DAYS: Final = 1e-6
"""What a subtraction of days may leave by rounding; no tier is made for it."""
MAX_HEAP: Final = 31 * GB
INGEST_A_NODE: Final = 4_000.0
"""Records a second one node takes through our pipelines: measured on two cores that it shared (`bench/ingest.py`)."""
STORED_RATIO: Final = 0.6
"""Bytes on disk per byte of JSON; measured 0.53 with our mapping and ids that do not repeat (`bench/ingest.py`)."""


@dataclass(frozen=True)
class Load:
    """What is to be kept."""

    events_per_s: float
    """On average over a day."""
    bytes_per_event: float
    """Of the JSON line."""
    retention_days: float
    hot_days: float
    """For so long on the fast nodes; at most the retention."""
    warm_days: float = 0.0
    """For so long on the warm nodes after that; the rest is cold."""
    replicas: int = 1
    peak: float = 3.0
    """Peak rate in averages: a market opens all at once."""


@dataclass(frozen=True)
class Machine:
    """What one data node is made of."""

    hot_disk: float = 2_000 * GB
    warm_disk: float = 8_000 * GB
    cold_disk: float = 16_000 * GB
    memory: float = 64 * GB
    ingest_per_s: float = INGEST_A_NODE
    stored_ratio: float = STORED_RATIO
    shard: float = 30 * GB
    """Size at which a primary shard rolls."""


@dataclass(frozen=True)
class Tier:
    """The data nodes of one tier."""

    name: str
    nodes: int
    days: float
    bytes: float
    """Of primaries and replicas together."""
    shards: int
    """Primaries and replicas together."""
    why: str
    """Which of the needs decided."""

    @property
    def bytes_a_node(self) -> float:
        """Mean bytes on a node."""
        return self.bytes / self.nodes if self.nodes else 0.0


@dataclass(frozen=True)
class Plan:
    """A whole cluster."""

    raw_bytes_a_day: float
    stored_bytes_a_day: float
    """Of primaries."""
    peak_per_s: float
    primaries: int
    """Shards of the index that is written."""
    roll_every_s: float
    """How long the written index takes to fill, on average."""
    shard_bytes: float
    tiers: tuple[Tier, ...]
    masters: int
    coordinating: int
    heap_bytes: float
    """Of a data node."""
    master_heap_bytes: float

    @property
    def nodes(self) -> int:
        """All nodes together."""
        return sum(tier.nodes for tier in self.tiers) + self.masters + self.coordinating

    @property
    def shards(self) -> int:
        """All shards together."""
        return sum(tier.shards for tier in self.tiers)


def size(load: Load, machine: Machine | None = None) -> Plan:
    """Return the smallest cluster that holds the load by the rules above.

    Raises:
        InputError: a figure is not positive, or makes no sense beside another.
    """
    machine = machine or Machine()
    _check(load, machine)
    raw = load.events_per_s * load.bytes_per_event * DAY_S
    stored = raw * machine.stored_ratio
    peak = load.events_per_s * load.peak
    primaries = max(1, math.ceil(peak / machine.ingest_per_s))
    warm_days = min(load.warm_days, load.retention_days - load.hot_days)
    cold_days = load.retention_days - load.hot_days - warm_days
    hot = _tier("hot", load.hot_days, stored, machine.hot_disk, load, machine, primaries)
    tiers = [hot]
    if warm_days > _NOTHING_DAYS:
        tiers.append(_tier("warm", warm_days, stored, machine.warm_disk, load, machine, 0))
    if cold_days > _NOTHING_DAYS:
        tiers.append(_tier("cold", cold_days, stored, machine.cold_disk, load, machine, 0))
    data = sum(tier.nodes for tier in tiers)
    shards = sum(tier.shards for tier in tiers)
    return Plan(
        raw_bytes_a_day=raw, stored_bytes_a_day=stored, peak_per_s=peak, primaries=primaries,
        roll_every_s=machine.shard * primaries / stored * DAY_S, shard_bytes=machine.shard, tiers=tuple(tiers),
        masters=3, coordinating=max(2, math.ceil(data / 10)), heap_bytes=min(machine.memory / 2, MAX_HEAP),
        master_heap_bytes=max(2 * GB, shards / 3_000 * GB),
    )  # fmt: skip


def _tier(name: str, days: float, stored: float, disk: float, load: Load, machine: Machine, written: int) -> Tier:
    copies = 1 + load.replicas
    total = stored * days * copies
    # The index that fills stands beside the full ones.
    shards = (math.ceil(stored * days / machine.shard) + written) * copies
    needs = {
        "a copy needs a node of its own": copies,
        "disk below the low watermark": math.ceil(total / (disk * LOW_WATERMARK)),
        "shards a node may hold": math.ceil(shards / SHARDS_A_NODE),
    }
    if written:
        needs["records a second at the peak, on each copy"] = math.ceil(
            load.events_per_s * load.peak * copies / machine.ingest_per_s
        )
    why = max(needs, key=lambda need: needs[need])
    return Tier(name, needs[why], days, total, shards, why)


MOST_EVENTS_PER_S: Final = 1e8
MOST_DAYS: Final = 36_600.0
"""A hundred years, and more records than any market makes: beyond them the figures mean nothing."""


def _check(load: Load, machine: Machine) -> None:
    positive = {
        "events-per-s": load.events_per_s, "bytes-per-event": load.bytes_per_event, "retention": load.retention_days,
        "hot-days": load.hot_days, "ingest-per-node": machine.ingest_per_s, "stored-ratio": machine.stored_ratio,
        "disk": min(machine.hot_disk, machine.warm_disk, machine.cold_disk), "memory": machine.memory,
    }  # fmt: skip
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name}", f"{value:g} is wrong", right="it should be a finite number above 0")
    for name, value, most in (
        ("events-per-s", load.events_per_s, MOST_EVENTS_PER_S), ("retention", load.retention_days, MOST_DAYS),
    ):  # fmt: skip
        if value > most:
            raise InputError(f"--{name}", f"{value:g} is wrong", right=f"it should be at most {most:g}")
    if load.hot_days > load.retention_days:
        raise InputError("--hot-days", f"{load.hot_days:g} is more than the retention of {load.retention_days:g} days")
    if load.warm_days < 0 or load.hot_days + load.warm_days > load.retention_days:
        raise InputError(
            "--warm-days", f"{load.warm_days:g} does not fit the retention of {load.retention_days:g} days"
        )
    if not 0 <= load.replicas <= 10:  # noqa: PLR2004 - more copies than anybody pays for
        raise InputError("--replicas", f"{load.replicas} is wrong", right="it should be 0 to 10")
    if load.peak < 1 or not math.isfinite(load.peak):
        raise InputError("--peak", f"{load.peak:g} is wrong", right="it should be 1 or more")
    if not MIN_SHARD <= machine.shard <= MAX_SHARD:
        raise InputError("--shard-gb", f"{machine.shard / GB:g} is wrong", right="it should be 10 to 50")
