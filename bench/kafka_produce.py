"""Records a second into three Kafka brokers: our journal, group by group, beside Kafka's own producer benchmark.

    python bench/kafka_produce.py [RECORDS]

Equal on both sides, in the same run and on the same brokers: `acks=all`, idempotence, a partition with three copies of
which two must have a record, no compression, batches of at most a megabyte, records of one size. Ours are real commands
with key, number and checksum; the tool's are random bytes of the same length. Ours waits after each group until the
brokers have all of it, as the engine does, inside the transaction that fences; the tool never waits and has no
transaction. It is run with its own batches of 16 kB, too. Rounds in turn, medians; each begins with records that are
not counted. `kafka_produce.md` says what was seen.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.parts.figures import verdict
from control.servers.java import java
from control.servers.kafka import find
from control.servers.kafka_cluster import Cluster
from control.settings import load_settings
from exchange.adapters.kafka_log import KafkaLog
from exchange.adapters.kafka_topics import KafkaPlace, prepare
from exchange.commands import Limit, PlaceOrder, Sequenced
from exchange.journal import encode_command
from exchange.messages import OVERHEAD_BYTES
from exchange.types import AccountId, ClientId, Lots, Side, Symbol, Ticks
from kernel.time import Instant

RECORDS = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
WARM_UP = RECORDS // 10
ROUNDS = 3
GROUPS = (2_000, 500, 100)
"""Commands in one group commit: a full one under the highest load, and smaller ones."""
GOAL = 0.6
TOOL = "kafka-producer-perf-test"
BATCH_BYTES = 1_000_000
"""librdkafka's own bound, which ours has."""
_TOLD = re.compile(r"(\d+) records sent, ([\d.,]+) records/sec")


def commands(count: int) -> list[bytes]:
    """Return payloads of one length, as the engine hands them over."""
    first = 10_000_000  # so that every number takes as many bytes
    return [
        encode_command(
            Sequenced(
                first + place,
                Instant(1_764_000_000_000_000_000 + place),
                PlaceOrder(
                    AccountId("account-17"), ClientId(f"order-{first + place}"), Symbol("AAA"), Side.BUY, Lots(10),
                    Limit(Ticks(1_000)),
                ),
            )
        )
        for place in range(count)
    ]  # fmt: skip


def topic(cluster: Cluster) -> KafkaPlace:
    place = KafkaPlace(bootstrap=cluster.bootstrap, topic=f"bench{uuid.uuid4().hex[:8]}")
    prepare(place)
    return place


def ours(cluster: Cluster, payloads: list[bytes], group: int) -> tuple[float, float]:
    """Return records a second by the clock, and for a second of this process's processor time."""
    with KafkaLog(topic(cluster)) as log:
        for start in range(0, WARM_UP, group):
            log.append(payloads[start : start + group])
            log.sync()
        began, used = time.perf_counter(), time.process_time()
        for start in range(0, len(payloads), group):
            log.append(payloads[start : start + group])
            log.sync()
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        assert log.synced_seq == log.last_seq >= len(payloads)
    return len(payloads) / seconds, len(payloads) / processor


def tool(cluster: Cluster, home: Path, size: int, *more: str) -> float:
    """Return what Kafka's own `kafka-producer-perf-test` says of itself."""
    place = topic(cluster)
    argv = [
        java("Kafka"), "-cp", f"{home / 'libs'}/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", cluster.bootstrap, "--topic",
        place.commands, "--num-records", str(RECORDS + WARM_UP), "--warmup-records", str(WARM_UP), "--record-size",
        str(size), "--throughput", "-1", "--command-property", "acks=all", "enable.idempotence=true",
        "compression.type=none", *more,
    ]  # fmt: skip
    told = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    found = [(int(sent), rate) for sent, rate in _TOLD.findall(told.stdout)]
    if told.returncode or not found:
        raise SystemExit(f"bench: kafka-producer-perf-test ended with {told.returncode}: {told.stdout}{told.stderr}")
    # The last line is the sum without the warm-up.
    sent, rate = found[-1]
    assert sent >= RECORDS, told.stdout
    return float(rate.replace(",", "."))


def main() -> int:
    home = find(load_settings().kafka_home)
    if home is None:
        print("bench: Kafka is not there (tapewatch servers build kafka): left out")
        return 0
    payloads = commands(RECORDS)
    size = OVERHEAD_BYTES + len(payloads[0]) + len(b"AAA")
    assert len({len(one) for one in payloads}) == 1
    found: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    with Cluster(home, brokers=3, heap="512m") as cluster:
        measures: dict[str, Callable[[], float]] = {
            TOOL: lambda: tool(cluster, home, size, f"batch.size={BATCH_BYTES}", f"buffer.memory={64 * BATCH_BYTES}"),
            f"{TOOL}, batches of 16 kB": lambda: tool(cluster, home, size),
        }
        for turn in range(ROUNDS):
            for name, measure in measures.items():
                found.setdefault(name, []).append(measure())
            for group in GROUPS if turn % 2 == 0 else reversed(GROUPS):
                rate, for_processor = ours(cluster, payloads, group)
                found.setdefault(f"KafkaLog, {group} a group", []).append(rate)
                processor.setdefault(f"KafkaLog, {group} a group", []).append(for_processor)
    print(f"{RECORDS:,} records of {size} bytes, {ROUNDS} rounds, medians")
    rates = {name: statistics.median(each) for name, each in found.items()}
    reference = rates[TOOL]
    for name, rate in rates.items():
        ratio = rate / reference
        value = f"{rate:,.0f} records/s, {rate * size / 1e6:,.1f} MB/s, {ratio:.2f} of the tool"
        if name in processor:
            value += f" ({statistics.median(processor[name]):,.0f} for a second of its processor time)"
        if name == f"KafkaLog, {GROUPS[0]} a group":
            verdict(name, value, f">= {GOAL}", reached=ratio >= GOAL)
        else:
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
