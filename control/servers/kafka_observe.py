"""What a server host tells of its Kafka broker: the cluster as that broker sees it, and the groups it coordinates.

Names follow kafka_exporter, so that rules and boards fit a cluster that one watches, too. It asks the cluster once for
everybody; here each broker is asked for itself, so most series come three times and rules take the `max` over replicas.
A broker that does not answer has `kafka_broker_up` 0 and nothing else: a reading of a moment ago is no reading.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from control.servers.kafka_wire import BrokerLine, BrokerSilentError, Group, Seen
from kernel.errors import TemporaryError

if TYPE_CHECKING:
    from monitor.adapters.exporter import Exporter

ASK_S: Final = 0.4
"""For one question."""
ALIVE_S: Final = 0.8
"""For the question whether it is there: on a busy machine a broker that lives may take its time."""
LOOK_S: Final = 0.9
"""For everything that is looked at in a second; what does not fit is left out."""
_NEEDED_FOR_S: Final = 30.0
_PLAIN: Final = (
    "kafka_brokers", "kafka_controller_known", "kafka_controller_id", "kafka_controller_epoch",
    "kafka_offline_partitions",
)  # fmt: skip
_SETTLED: Final = frozenset({"Stable", "Empty"})

_Series = tuple[str, ...]
"""A metric's name and its label values."""


class KafkaObserver:
    """Watches one broker. Calls come from one thread, about once a second."""

    def __init__(self, broker: int, host: str, port: int, directory: Path) -> None:
        """Nothing is asked yet.

        Args:
            broker: its number.
            host: where it listens.
            port: where it listens.
            directory: on the disk that its data lie on.
        """
        self._broker, self._directory = broker, directory
        self._alive = BrokerLine(host, port, timeout_s=ALIVE_S)
        self._own = BrokerLine(host, port, timeout_s=ASK_S)
        # A question that the broker passes on may find nobody: it must not hold up what the broker itself knows.
        self._to_controller = BrokerLine(host, port, timeout_s=ASK_S)
        self._leaders: dict[tuple[str, int], BrokerLine] = {}
        self._seen: Seen | None = None
        self._shown: set[_Series] = {(name,) for name in _PLAIN}  # a gauge begins as 0, which would be a reading
        self._needed: dict[str, int] = {}
        self._needed_s = float("-inf")
        self._settled: dict[str, Group] = {}

    def ready(self) -> tuple[bool, str]:
        """Ask the broker itself whether it is part of its cluster; keep what it said for `observe`."""
        try:
            self._seen = self._alive.seen()
        except BrokerSilentError as error:
            self._seen = None
            return False, str(error)
        if self._broker not in self._seen.brokers:
            return False, f"broker {self._broker} answers, and is not registered with the controllers yet"
        return True, f"broker {self._broker} serves, of {len(self._seen.brokers)} that it knows"

    def observe(self, exporter: Exporter) -> None:
        """Set every metric of the broker by what it says now; what it does not say is left out."""
        until, fresh = time.monotonic() + LOOK_S, dict[_Series, float]()
        fresh["kafka_broker_up",] = float(self._seen is not None)
        fresh["kafka_log_dir_free_bytes",] = float(shutil.disk_usage(self._directory).free)
        if self._seen is not None:
            fresh |= self._cluster(self._seen)
            for part in (self._controller, self._under_min, self._ends, self._groups):
                if time.monotonic() > until:
                    break
                try:
                    fresh |= part(self._seen, exporter)
                except TemporaryError:
                    continue  # what was asked for is left out
        for gone in self._shown - set(fresh):
            _leave_out(exporter, gone)
        for series, value in fresh.items():
            exporter.level(*series).set(value)
        self._shown = set(fresh)

    def close(self) -> None:
        """Hang up on every broker."""
        for line in (self._alive, self._own, self._to_controller, *self._leaders.values()):
            line.close()
        self._leaders.clear()

    # --- parts ------------------------------------------------------------------------------------------------------

    def _cluster(self, seen: Seen) -> dict[_Series, float]:
        fresh: dict[_Series, float] = {("kafka_brokers",): float(len(seen.brokers))}
        for (topic, number), one in seen.partitions.items():
            labels = (topic, str(number))
            fresh["kafka_topic_partition_leader", *labels] = one.leader
            fresh["kafka_topic_partition_replicas", *labels] = len(one.replicas)
            fresh["kafka_topic_partition_in_sync_replica", *labels] = len(one.in_sync)
            under = len(one.in_sync) < len(one.replicas)
            fresh["kafka_topic_partition_under_replicated_partition", *labels] = float(under)
        # A leader that is not registered any more leads nothing.
        offline = sum(one.leader not in seen.brokers for one in seen.partitions.values())
        fresh["kafka_offline_partitions",] = float(offline)
        return fresh

    def _controller(self, _: Seen, __: Exporter) -> dict[_Series, float]:
        try:
            quorum = self._to_controller.quorum()
        except BrokerSilentError:
            return {("kafka_controller_known",): 0.0}
        fresh: dict[_Series, float] = {("kafka_controller_known",): float(quorum.leader >= 0)}
        if quorum.leader >= 0:
            fresh["kafka_controller_id",] = quorum.leader
            fresh["kafka_controller_epoch",] = quorum.epoch
        return fresh

    def _under_min(self, seen: Seen, _: Exporter) -> dict[_Series, float]:
        """Tell which partitions take no record that must be safe: fewer copies than are needed follow."""
        topics = {topic for topic, _ in seen.partitions}
        if topics - set(self._needed) or time.monotonic() - self._needed_s > _NEEDED_FOR_S:
            self._needed, self._needed_s = self._own.needed(topics), time.monotonic()
        return {
            ("kafka_topic_partition_under_min_isr", topic, str(number)): float(len(one.in_sync) < self._needed[topic])
            for (topic, number), one in seen.partitions.items()
            if topic in self._needed
        }

    def _ends(self, seen: Seen, _: Exporter) -> dict[_Series, float]:
        """Tell where the partitions end that this broker leads; the others' brokers tell of theirs."""
        own = [place for place, one in seen.partitions.items() if one.leader == self._broker and _of_users(place[0])]
        if not own:
            return {}
        return {
            ("kafka_topic_partition_current_offset", topic, str(number)): end
            for (topic, number), end in self._own.ends(own).items()
        }

    def _groups(self, seen: Seen, exporter: Exporter) -> dict[_Series, float]:
        """Tell of the groups whose coordinator this broker is; of each group one broker tells."""
        fresh: dict[_Series, float] = {}
        committed: dict[tuple[str, str, int], int] = {}
        for name in self._own.groups():
            group = self._own.group(name)
            if group.state == "Dead":
                continue  # one of the newer protocol, or just gone
            self._count_rebalance(name, group, exporter)
            fresh["kafka_consumergroup_members", name] = len(group.members)
            for (topic, number), offset in self._own.committed(name).items():
                fresh["kafka_consumergroup_current_offset", name, topic, str(number)] = offset
                committed[name, topic, number] = offset
        ends = dict(self._ends_anywhere(seen, {(topic, number) for _, topic, number in committed}))
        for (name, topic, number), offset in committed.items():
            if (topic, number) in ends:
                lag = max(0, ends[topic, number] - offset)
                fresh["kafka_consumergroup_lag", name, topic, str(number)] = lag
        return fresh

    def _count_rebalance(self, name: str, group: Group, exporter: Exporter) -> None:
        """Count another set of members or another assignment; a rebalance under way counts when it is over."""
        cell = exporter.count("kafka_consumergroup_rebalances_total", name)
        if group.state not in _SETTLED:
            return
        before = self._settled.get(name)
        if before is not None and before.members != group.members:
            cell.add()
        self._settled[name] = group

    def _ends_anywhere(self, seen: Seen, places: set[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], int]]:
        """Yield where partitions end by their leaders; of one that does not answer nothing is known."""
        by_leader: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
        for place in places & set(seen.partitions):
            address = seen.brokers.get(seen.partitions[place].leader)
            if address is not None:
                by_leader[address].append(place)
        for address, led in by_leader.items():
            line = self._leaders.setdefault(address, BrokerLine(*address, timeout_s=ASK_S))
            try:
                yield from line.ends(led).items()
            except BrokerSilentError:
                continue


def _of_users(topic: str) -> bool:
    return not topic.startswith("__")


def _leave_out(exporter: Exporter, series: _Series) -> None:
    if len(series) == 1:
        exporter.level(*series).unset()
    else:
        exporter.drop(*series)
