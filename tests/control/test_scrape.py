"""A live scrape of every process of an estate is what the catalogue says: nothing missing, nothing else."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from control.servers import zipkin
from control.settings import load_settings
from monitor.adapters.exporter import samples
from monitor.catalog import BY_NAME, FOREIGN, LABEL_VALUES, Kind, Role, of
from tests.elastic_node import there

pytestmark = pytest.mark.estate
CLIENT_LIBRARY = ("process_", "python_")


def get(url, accept="text/plain"):
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers["content-type"]


@pytest.fixture(scope="module")
def estate(tmp_path_factory):
    """A whole estate under load; yields the address book."""
    home = tmp_path_factory.mktemp("scraped")
    jar = zipkin.find(load_settings().zipkin)
    if jar is not None:
        with zipkin.Zipkin(jar) as server:
            yield from started(home, {"TAPEWATCH_ZIPKIN_URL": server.url})
    else:
        yield from started(home, {})


def started(home, more):
    environment = os.environ | {
        "TAPEWATCH_STATE": str(home / "up"), "TAPEWATCH_PORTS": "auto", "TAPEWATCH_LOAD_RATE_PER_S": "100",
        "TAPEWATCH_TRACE_SHARE": "1",
    } | more  # fmt: skip
    code = "import sys; sys.argv = ['tapewatch', 'up']; import cli; cli.main()"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    status = [sys.executable, "-c", code.replace("'up'", "'status', '--json'")]
    deadline = time.monotonic() + 180
    while True:
        told = subprocess.run(status, env=environment, capture_output=True, check=False)
        found = json.loads(told.stdout) if told.returncode == 0 and told.stdout else {}
        if found.get("phase") == "up":
            break
        assert time.monotonic() < deadline, told.stderr.decode()
        time.sleep(0.5)
    yield found | more | {"state": str(home / "up")}
    process.send_signal(signal.SIGTERM)
    process.wait(90)


def pages(estate):
    for workload in estate["workloads"]:
        if workload["name"] in set(Role):
            for replica in workload["replicas"]:
                if replica["running"]:
                    yield Role(workload["name"]), replica["url"]
    yield Role.ESTATE, estate["estate"]


def test_each_process_exports_what_the_catalogue_says_with_its_type_help_and_labels(estate):
    seen = {}
    for role, url in pages(estate):
        text, _ = get(f"{url}/metrics")
        seen[role] = text
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text.decode(), re.MULTILINE))
        helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text.decode(), re.MULTILINE))
        ours = {name: kind for name, kind in types.items() if not name.startswith(CLIENT_LIBRARY)}
        assert ours == {metric.name: str(metric.kind) for metric in of(role)}, role
        assert all(helps[name] == BY_NAME[name].help for name in ours), role
        for name, labels, _ in samples(text):
            if name.startswith(CLIENT_LIBRARY):
                assert any(name.startswith(prefix) for prefix in FOREIGN)
                continue
            metric = BY_NAME.get(name) or BY_NAME[re.sub(r"_(bucket|sum|count|created)$", "", name)]
            assert set(labels) - {"le"} == set(metric.labels) - {"engine"}, f"{name}: the only engine is not named"
            for label, value in labels.items():
                closed = LABEL_VALUES.get((metric.name, label))
                assert closed is None or value in {*closed, "other"}, (name, label, value)
    assert {Role.ENGINE, Role.GATEWAY, Role.MARKET_DATA, Role.SETTLEMENT, Role.WATCHDOG, Role.LOAD, Role.CONTROL,
            Role.ESTATE} <= set(seen)  # fmt: skip


def test_nothing_of_the_catalogue_stays_silent_under_load(estate):
    """A metric that nobody ever sets is a promise without a deed; some are set by what comes every few seconds."""
    deadline = time.monotonic() + 60
    while silent := silent_of(estate):
        assert time.monotonic() < deadline, f"never set: {', '.join(silent)}"
        time.sleep(1)


def silent_of(estate):
    found = []
    spoken = {name for _, url in pages(estate) for name, _, _ in samples(get(f"{url}/metrics")[0])}
    for role, _ in {(role, None) for role, _ in pages(estate)}:
        for metric in of(role):
            parts = [metric.name, f"{metric.name}_count"] if metric.kind is Kind.HISTOGRAM else [metric.name]
            if metric.labels and metric.name not in ALWAYS:
                continue  # a labelled series begins with its first event
            if metric.name in EVENTS or metric.name.startswith(FAR):
                continue
            if not set(parts) & spoken:
                found.append(f"{metric.name} of {role}")
    return found


EVENTS = {
    "exchange_snapshot_timestamp_seconds",
    "anomaly_fresh_seconds",
    "anomaly_lag_seconds",
    "anomaly_warming_ratio",
    "tapewatch_log_templates_timestamp_seconds",
}
"""Set by events that a minute of an estate need not bring; detectors are compiled before their first step, and kinds of
log lines are counted by the minute."""
FAR = ("exchange_events_", "exchange_consumer_")
"""Of a journal in Kafka, which this estate has not."""
ALWAYS = {"exchange_book_depth_lots", "exchange_symbol_acks_total", "exchange_symbol_commands_total",
          "exchange_symbol_last_trade_timestamp_seconds", "tapewatch_market_phase", "tapewatch_build_info",
          "tapewatch_log_records_total"}  # fmt: skip


def test_promtool_finds_no_fault_in_any_page(estate):
    for role, url in pages(estate):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=get(f"{url}/metrics")[0], capture_output=True, check=False
        )
        complaints = [line for line in done.stderr.decode().split("\n") if line and not line.startswith(CLIENT_LIBRARY)]
        assert complaints == [], role


def test_prometheus_keeps_examples_of_orders_with_their_trace(estate):
    query = (
        f"{estate['prometheus']}/api/v1/query_exemplars?query=exchange_order_ack_seconds_bucket&start=0&end=9999999999"
    )
    deadline = time.monotonic() + 60
    while not (found := json.loads(get(query)[0])["data"]):
        assert time.monotonic() < deadline, "no example within a minute although every order is picked"
        time.sleep(1)
    traces = [one["labels"]["trace_id"] for series in found for one in series["exemplars"]]
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traces)


def test_the_machine_is_scraped_beside_the_processes(estate):
    query = f"{estate['prometheus']}/api/v1/query?query=node_timex_offset_seconds"
    deadline = time.monotonic() + 60
    while not json.loads(get(query)[0])["data"]["result"]:
        assert time.monotonic() < deadline, "node_exporter is not scraped"
        time.sleep(1)


def test_no_secret_of_the_estate_is_in_a_log_a_metric_or_a_trace(estate):
    """Canaries: every secret the estate was given, and two that a client brings along, one of them in its trace."""
    state = Path(estate["state"])
    canaries = {"a bad token": "canary-0a1b2c3d4e5f6071", "a client's words": "canary-1f2e3d4c5b6a7988"}
    brought = canaries["a client's words"]
    gateway = next(url for role, url in pages(estate) if role is Role.GATEWAY)
    order = urllib.request.Request(
        f"{gateway}/v1/orders", b'{"account": "ann"}',
        {"Authorization": f"Bearer {canaries['a bad token']}", "X-Request-ID": f"{brought} x",
         "traceparent": f"00-{brought}", "Content-Type": "application/json"},
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(order, timeout=10)
    time.sleep(2)  # the log is written from a thread, spans are sent within a second
    secrets = {path.name: path.read_text().strip() for path in (state / "secrets").iterdir() if path.is_file()}
    canaries |= {name: secret for name, secret in secrets.items() if len(secret) >= LEAST_SECRET and " " not in secret}
    assert len(canaries) >= 4
    told = {str(path): path.read_bytes() for path in (state / "logs").rglob("*") if path.is_file()}
    told |= {url: get(f"{url}/metrics")[0] for _, url in pages(estate)}
    if (url := estate.get("TAPEWATCH_ZIPKIN_URL")) is not None:
        for service in ("gateway", "engine", "market-data", "settlement"):
            told[service] = get(f"{url}/api/v2/traces?serviceName={service}&limit=1000")[0]
    assert sum(map(len, told.values())) > 100_000
    for name, canary in canaries.items():
        assert [where for where, text in told.items() if canary.encode() in text] == [], name


LEAST_SECRET = 16
SETTLED_SPANS = {"gateway request", "engine order", "engine match", "journal sync", "settlement post"}


def settled_trace(url):
    """Return the spans, by name, of a trace that every role has told of: each sends its own when it likes.

    Some participants bring a trace of their own, which hangs below a span of theirs; this is one of the others.
    """
    found = json.loads(get(f"{url}/api/v2/traces?serviceName=settlement&limit=100")[0])
    whole = [spans for trace in found if (spans := {span["name"]: span for span in trace}).keys() >= SETTLED_SPANS]
    return next((spans for spans in whole if "parentId" not in spans["gateway request"]), None)


def test_zipkin_shows_one_order_from_the_gateway_to_settlement(estate):
    """A real Zipkin's own API, and the terminal that reads it."""
    url = estate.get("TAPEWATCH_ZIPKIN_URL")
    if url is None:
        there(None, "Zipkin")
    deadline = time.monotonic() + 60
    while (spans := settled_trace(url)) is None:
        assert time.monotonic() < deadline, "no order was traced from the gateway to settlement"
        time.sleep(0.5)
    order = spans["engine order"]
    assert order["parentId"] == spans["gateway request"]["id"]
    assert {span["localEndpoint"]["serviceName"] for span in spans.values()} >= {"gateway", "engine", "settlement"}
    assert all(spans[name]["parentId"] == order["id"] for name in ("engine match", "journal sync", "settlement post"))
    names = [order["tags"]["user.id"], order["tags"]["exchange.client_id"]]
    show = [sys.executable, "-m", "cli", "traces", "show", *names, "--url", url, "--json"]
    told = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)
    assert told["trace_id"] == order["traceId"]
    assert told["spans"][0] == told["spans"][0] | {"depth": 0, "name": "gateway request", "after_us": 0}
