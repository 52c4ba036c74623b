"""What the tests of shippers share: logs as the estate writes them, and documents as a node has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from control.servers.elastic_node import ElasticStatusError
from kernel.time import SECOND, Instant
from monitor.adapters.elastic_admin import ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from monitor.logs import EcsFormat

DEADLINE_S = 120.0
START = Instant(1_767_225_600 * SECOND)
_CHILD = """
import typer
from control import verbs_shipper
app = typer.Typer()
app.command("ship")(verbs_shipper.ship)
app.command("dead-letters")(verbs_shipper.dead_letters)
app()
"""


def set_up(url):
    ElasticAdmin(connect(Access(url), timeout_s=60), replicas=0).setup()


def write_lines(path, role, first, count):
    """Append records of ours; each bears its number."""
    form = EcsFormat(role, f"{role}-1")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for number in range(first, first + count):
            fields = {"seq": number, "symbol": "ACME", "reason": "price-band", "trace_id": f"{number:032x}"}
            file.write(form.line(Instant(START + number * 1_000_000), "order-rejected", "warning", fields))


def estate(root: Path) -> Path:
    """Return the log directory of something that looks like an estate that ran."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "version").write_text("1\n")
    (root / "logs").mkdir()
    return root / "logs"


def shipper(state, url, environment, *words):
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, *(words or ("ship", "--once")), "--state", str(state), "--url", url, "--json"],
        env={**os.environ, "TAPEWATCH_ENVIRONMENT": environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def count(node, environment):
    node.request("POST", f"/logs-exchange.*-{environment}/_refresh?allow_no_indices=true")
    try:
        return node.request("GET", f"/logs-exchange.*-{environment}/_count?allow_no_indices=true")["count"]
    except ElasticStatusError as error:
        if error.code != 503:
            raise
        return 0  # an index that was made this moment has no shard to ask yet


def until(true, deadline_s=DEADLINE_S):
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def documents(node, environment):
    """Return every document as text without what is the shipper's own or of its time, sorted."""
    count(node, environment)
    found, after = [], None
    # The environment of another shipper in the same test ends in the same name.
    pattern = f"logs-exchange.*-{environment},-logs-exchange.*-fb-{environment}"
    while True:
        body = {"size": 10_000, "sort": [{"log.file.path": "asc"}, {"log.offset": "asc"}, {"_doc": "asc"}]}
        body |= {"search_after": after} if after else {}
        hits = node.request("POST", f"/{pattern}/_search", body)["hits"]["hits"]
        if not hits:
            return sorted(found)
        after = hits[-1]["sort"]
        for hit in hits:
            source = hit["_source"]
            source.pop("agent", None)
            source["event"].pop("ingested")
            source["log"].pop("offset")  # of a line's begin by ours, of its end by Filebeat 7.17's filestream
            if source["event"].get("action") != "order-rejected":
                source.pop(
                    "@timestamp"
                )  # a line that names no time gets that of its reading: Filebeat's, or the node's
                source["tags"] = [tag for tag in source.get("tags", ()) if tag != "no_timestamp"]
            found.append(json.dumps([hit["_index"].split("-")[2], source], sort_keys=True))
