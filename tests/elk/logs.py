"""Ways to ask the session's node that several tests share."""

from __future__ import annotations

import json

from monitor.adapters.elastic_admin import ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from monitor.elk.pipelines import guard, read

NOW = "2026-03-02T09:30:00.123456Z"


def admin(node, **options):
    access = Access(node.url, user="elastic", password=node.password) if node.password else Access(node.url)
    return ElasticAdmin(connect(access, timeout_s=30.0), **{"replicas": 0, **options})


def simulate(node, pipeline, sources, *, index="logs-exchange.gateway-dev"):
    """Run one pipeline as it stands in the model; what became of each document, metadata under `_index`."""
    docs = [{"_index": index, "_source": source} for source in sources]
    said = node.request("POST", "/_ingest/pipeline/_simulate", {"pipeline": pipeline, "docs": docs})["docs"]
    return [
        {**one["doc"]["_source"], "_index": one["doc"]["_index"]} if "doc" in one else {"FAILED": one["error"]}
        for one in said
    ]


def ingest(node, sources, *, index="logs-exchange.gateway-dev"):
    """Run both pipelines, one after the other, as an index of ours does."""
    found = simulate(node, read(), sources, index=index)
    again = [{key: value for key, value in one.items() if key != "_index"} for one in found]
    return [
        {**after, "_index": before["_index"]}
        for before, after in zip(found, simulate(node, guard(), again), strict=True)
    ]


def bulk(node, stream, sources):
    """Index through the real pipelines; return the items' answers."""
    lines = "".join(f'{{"create":{{}}}}\n{json.dumps(source)}\n' for source in sources)
    return [one["create"] for one in node.request("POST", f"/{stream}/_bulk?refresh=true", lines)["items"]]


def search(node, stream, **body):
    hits = node.request("POST", f"/{stream}/_search", {"size": 1000, "sort": ["_doc"], **body})["hits"]["hits"]
    return [hit["_source"] for hit in hits]
