"""What the tests of shippers share: logs as the estate writes them, and documents as a node has them."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
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


class PassingOn(http.server.BaseHTTPRequestHandler):
    """Passes every request on to the node at `server.behind`."""

    def do_POST(self):
        self.work()

    def do_GET(self):
        self.work()

    def do_PUT(self):
        self.work()

    def do_HEAD(self):
        self.work()

    def work(self):
        self.answer(*self.passed_on(self.body()))

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def passed_on(self, body):
        """Return the node's answer: status, data and kind."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "connection"}}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data, response.headers.get("Content-Type")

    def answer(self, status, data, kind="application/json"):
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", kind or "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


class Holding(PassingOn):
    """Answers the first bulk; the second reaches the node and nobody learns of it, and later ones do not."""

    def work(self):
        body = self.body()
        if not self.path.partition("?")[0].endswith("/_bulk"):
            return self.answer(*self.passed_on(body))
        with self.server.counting:
            self.server.bulks += 1
            number = self.server.bulks
        if number == 1:
            return self.answer(*self.passed_on(body))
        if number == 2:
            self.passed_on(body)
            self.server.held.set()
        self.server.over.wait(DEADLINE_S)
        self.close_connection = True
        return None


@contextmanager
def holding(node):
    """Stand before a node and hold everything back after the second bulk; yields a server with `url` and `held`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Holding)
    server.handle_error = lambda *_: None  # whoever asked was killed
    server.behind, server.bulks, server.counting = node.port, 0, threading.Lock()
    server.held, server.over = threading.Event(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


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
