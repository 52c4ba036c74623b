"""How many records a second one Elasticsearch takes, with our pipelines and without, and how large they are on disk."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from elasticsearch import Elasticsearch, helpers

from bench.parts.plant import skip
from control.servers import elastic
from control.servers.elastic_node import Node
from kernel.time import Instant
from monitor.adapters.elastic_admin import ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from monitor.logs import EcsFormat

RECORDS = 20_000
ROUNDS = 3


def lines() -> list[str]:
    """Records as a gateway under load writes them."""
    chance, form = random.Random(1), EcsFormat("gateway", "gateway-0")
    began = 1_772_443_800_000_000_000
    return [
        form.line(Instant(began + n * 1_000_000), chance.choice(["slow-order", "feed-lost"]), "info", {
            "account": f"A{chance.randrange(500)}", "client_id": f"c{n}", "trace_id": f"{chance.getrandbits(128):032x}",
            "duration_ns": chance.randrange(10**9), "outcome": "accepted", "request_id": f"r{chance.getrandbits(64):x}",
        }).decode()
        for n in range(RECORDS)
    ]  # fmt: skip


def rate(client: Elasticsearch, actions: Iterable[dict[str, Any]]) -> float:
    began = time.perf_counter()
    done, _ = helpers.bulk(client, actions, chunk_size=2_000)
    return done / (time.perf_counter() - began)


def main() -> None:
    home = elastic.find()
    if home is None:
        skip("no Elasticsearch here; `make servers` fetches it")
    texts = lines()
    size = sum(len(text.encode()) for text in texts)
    with Node(home, heap="512m") as node:
        client = connect(Access(node.url), timeout_s=120)
        ElasticAdmin(client, replicas=0).setup()
        ours, bare = [], []
        for turn in range(ROUNDS):
            stream = f"logs-exchange.bench-r{turn}"
            ours.append(rate(client, ({"_op_type": "create", "_index": stream, "message": text} for text in texts)))
            bare.append(rate(client, ({"_index": f"bare-{turn}", **msgspec.json.decode(text)} for text in texts)))
        client.indices.refresh(index="logs-exchange.bench-r0")
        fresh = client.indices.stats(index="logs-exchange.bench-r0")["_all"]["primaries"]["store"]["size_in_bytes"]
        client.indices.forcemerge(index="logs-exchange.bench-r0", max_num_segments=1)
        merged = client.indices.stats(index="logs-exchange.bench-r0")["_all"]["primaries"]["store"]["size_in_bytes"]
    print(f"records of {size / RECORDS:.0f} bytes; {ROUNDS} rounds of {RECORDS:,}, one client, one node, shared cores")
    print(f"through our pipelines  {max(ours):8,.0f}/s at best, {sorted(ours)[ROUNDS // 2]:,.0f}/s in the middle")
    print(f"without any            {max(bare):8,.0f}/s at best, {sorted(bare)[ROUNDS // 2]:,.0f}/s in the middle")
    print(f"cost of the pipelines  {max(bare) / max(ours):8.2f}x the time")
    print(f"on disk                {fresh / size:8.2f} bytes a byte of JSON; {merged / size:.2f} merged")


if __name__ == "__main__":
    main()
