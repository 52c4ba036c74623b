"""Shipping log files to Elasticsearch, against the official client's own parallel bulk.

    python bench/shipper.py [LINES]

One run, one node (started for it), the same lines into the same kind of data stream through the same pipelines, in
turns. The client's side is generous to it: its documents stand ready in memory, and it keeps no offsets, ids or order.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from elasticsearch import Elasticsearch, helpers

from bench.parts.figures import percentile, verdict
from bench.parts.plant import skip
from control.servers import elastic
from control.servers.elastic_node import Node
from control.shipper import Shipper
from kernel.adapters.clock import SystemClock
from kernel.time import Instant
from monitor.adapters.elastic_admin import ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from monitor.adapters.shipper_elastic import ElasticSink
from monitor.adapters.shipper_files import DeadLetters, LogTail
from monitor.logs import EcsFormat
from monitor.shipping import IN_FLIGHT

ROUNDS = 3
HEAP = "512m"


class Nobody:
    """`control.shipper.Told` that hears nothing."""

    def counted(self, result: str, amount: int) -> None:
        """See `Told`."""

    def standing(self, backlog_bytes: int, lag_s: float, up: bool) -> None:  # noqa: FBT001 - the port's signature
        """See `Told`."""

    def note(self, name: str, severity: str, **fields: object) -> None:
        """See `Told`."""


def lines(count: int) -> list[bytes]:
    """Return records as the gateway writes them."""
    form, at = EcsFormat("gateway", "gateway-1"), SystemClock().now()
    return [
        form.line(Instant(at + number * 10_000), "order-rejected", "warning",
                  {"symbol": "ACME", "seq": number, "reason": "price-band", "duration_ns": 123_456, "account": "A17",
                   "trace_id": f"{number:032x}"})
        for number in range(count)
    ]  # fmt: skip


def ours(client: Elasticsearch, written: list[bytes], name: str, directory: Path) -> float:
    """Ship a file; return lines a second, from the first look at it to the last offset on disk."""
    logs = directory / name
    logs.mkdir()
    (logs / "gateway-1.jsonl").write_bytes(b"".join(written))
    shipper = Shipper(
        LogTail(logs, logs / "state" / "offsets.json"), ElasticSink(client, name), DeadLetters(logs / "dead"),
        Nobody(), SystemClock(),
    )  # fmt: skip
    began = time.perf_counter()
    shipper.run(lambda: False, until_idle=True)
    took = time.perf_counter() - began
    shipper.close()
    assert shipper.done.shipped == len(written), shipper.done
    return len(written) / took


def theirs(client: Elasticsearch, documents: list[dict[str, Any]], name: str) -> float:
    """Send with `helpers.parallel_bulk`; return documents a second."""
    actions = ({"_op_type": "create", "_index": f"logs-exchange.gateway-{name}", "_source": one} for one in documents)
    began = time.perf_counter()
    for ok, said in helpers.parallel_bulk(client, actions, thread_count=IN_FLIGHT, chunk_size=2_000):
        assert ok, said
    return len(documents) / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    home = elastic.find()
    if home is None:
        skip("no Elasticsearch here; `make servers` fetches it")
    written = lines(count)
    documents = [msgspec.json.decode(line, type=dict[str, Any]) for line in written]
    with Node(home, heap=HEAP) as node, tempfile.TemporaryDirectory() as directory:
        client = connect(Access(node.url), timeout_s=120, connections_per_node=IN_FLIGHT)
        ElasticAdmin(client, replicas=0).setup()
        theirs(client, documents, "warm1")
        ours(client, written, "warm2", Path(directory))
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(ROUNDS):
            rates["theirs"].append(theirs(client, documents, f"theirs{number}"))
            rates["ours"].append(ours(client, written, f"ours{number}", Path(directory)))
        client.close()
    us, them = (percentile(rates[who], 0.5) for who in ("ours", "theirs"))
    for who, rate, each in (
        ("helpers.parallel_bulk", them, "theirs"),
        ("our shipper, from files to offsets", us, "ours"),
    ):
        print(f"{who:<38}{rate:8.0f} documents/s   {[round(one) for one in rates[each]]}")
    verdict("shipper to parallel bulk", f"{us / them:.2f}x", ">= 0.8x", reached=us >= 0.8 * them)


if __name__ == "__main__":
    main()
