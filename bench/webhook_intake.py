"""Durable webhook intake of control against Alertmanager's own `POST /api/v2/alerts`, and a storm of 10,000 alerts.

    python bench/webhook_intake.py [SECONDS]

The same client posts the same alerts, every one new, over so many connections, to a control process (its store is
SQLite, and an answer waits for the disk) and to an Alertmanager that keeps alerts in memory and tells nobody; both are
warm and are measured in turn. Control decides on what it took in meanwhile; Prometheus and the plant are not there.
Then, to a fresh control, 10,000 alerts in a minute; afterwards every one is looked for in the store.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop

from bench.parts.figures import percentile, verdict
from bench.parts.http import Measured, load, post
from bench.parts.monitoring import bare_alertmanager
from bench.parts.plant import folder, running, wait_for
from bench.parts.role import Role, role_config
from kernel.time import Instant, to_rfc3339

CONNECTIONS = 32
BATCHES = (1, 10, 100)
STORM_ALERTS = 10_000
STORM_FIRST = 1_000_000
STORM_S = 60.0
STORM_BATCH = 10
START = to_rfc3339(Instant(time.time_ns()))


def alert(number: int) -> dict[str, object]:
    labels = {
        "alertname": "SymbolFeedStale", "severity": "warning", "level": "3", "team": "market-operations",
        "service": "market-data", "symbol": f"X{number}",
    }  # fmt: skip
    notes = {"summary": f"X{number} is stale", "description": "No message for ten seconds."}
    return {"labels": labels, "annotations": notes, "startsAt": START, "generatorURL": "http://127.0.0.1/graph?g0"}


def to_alertmanager(numbers: list[int]) -> bytes:
    return post("/api/v2/alerts", json.dumps([alert(number) for number in numbers]).encode())


def to_control(token: str) -> Callable[[list[int]], bytes]:
    def make(numbers: list[int]) -> bytes:
        alerts = [
            {**alert(n), "status": "firing", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": f"{n:016x}"}
            for n in numbers
        ]
        body = {
            "version": "4", "groupKey": '{}:{service="market-data"}', "truncatedAlerts": 0, "status": "firing",
            "receiver": "control", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
            "alerts": alerts,
        }  # fmt: skip
        return post("/api/v1/alerts", json.dumps(body).encode(), token)

    return make


def prepared(make: Callable[[list[int]], bytes], numbers: Iterator[int], batch: int, count: int) -> list[bytes]:
    """Make requests beforehand: the client's JSON shall not be measured."""
    return [make(list(itertools.islice(numbers, batch))) for _ in range(count)]


def compare(control: Role, alertmanager: int, seconds: float) -> None:
    numbers = itertools.count()
    ways = {
        "control, durable": (control.port, to_control(control.secret("webhook"))),
        "Alertmanager, in memory": (alertmanager, to_alertmanager),
    }
    for port, make in ways.values():
        uvloop.run(load(port, iter(prepared(make, numbers, 1, 200)), CONNECTIONS))  # warms up
    for batch in BATCHES:
        rates: list[float] = []
        for name, (port, make) in ways.items():
            requests = iter(prepared(make, numbers, batch, 20_000 // batch))
            stop = time.perf_counter() + seconds
            seen = uvloop.run(load(port, _timed(stop, requests), CONNECTIONS))
            seen.line(f"{name}, {batch} a request")
            rates.append(seen.rate * batch)
            time.sleep(1.0)
        verdict(f"alerts a second at {batch} a request, control / Alertmanager",
                f"{rates[0]:,.0f} / {rates[1]:,.0f} = {rates[0] / rates[1]:.2f}", "1.0",
                reached=rates[0] >= rates[1])  # fmt: skip


def _timed(stop: float, requests: Iterator[bytes]) -> Iterator[bytes]:
    for request in requests:
        if time.perf_counter() > stop:
            return
        yield request


def storm(control: Role) -> None:
    numbers = itertools.count(STORM_FIRST)
    make = to_control(control.secret("webhook"))
    requests = prepared(make, numbers, STORM_BATCH, STORM_ALERTS // STORM_BATCH)
    rate = STORM_ALERTS / STORM_BATCH / STORM_S
    seen: Measured = uvloop.run(load(control.port, iter(requests), CONNECTIONS, rate=rate))
    seen.line(f"storm, {STORM_BATCH} alerts a request")
    store = sqlite3.connect(f"file:{control.layout.incidents}?mode=ro", uri=True)
    told = {row[0] for row in store.execute("SELECT DISTINCT fingerprint FROM signals")}
    lost = sum(f"{number:016x}" not in told for number in range(STORM_FIRST, STORM_FIRST + STORM_ALERTS))
    incidents = store.execute("SELECT COUNT(*) FROM incidents").fetchone()[0]
    store.close()
    p99 = percentile(seen.latencies, 0.99) * 1000
    verdict(f"{STORM_ALERTS:,} alerts in {seen.seconds:.0f} s", f"ack p99 {p99:.0f} ms, lost {lost}",
            "250 ms, 0 lost", reached=p99 < 250 and not lost)  # fmt: skip
    print(f"incidents opened by the storm: {incidents}")


def start(state: Path, stack: ExitStack) -> Role:
    control = role_config(state, ("control",))["control"]
    stack.enter_context(running(control.argv, output=state / "bench.out"))
    wait_for(f"http://127.0.0.1:{control.port}/health/ready")
    return control


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    with folder() as home, ExitStack() as stack:
        alertmanager = stack.enter_context(bare_alertmanager(home / "am", None))
        compare(start(home / "one", stack), alertmanager, seconds)
    with folder() as home, ExitStack() as stack:
        storm(start(home / "two", stack))


if __name__ == "__main__":
    main()
