"""A storm of 10,000 alerts in a minute through a real Alertmanager with our routes, every channel of it live.

    python bench/storm.py [ALERTS [SECONDS]]

A quarter each: two kinds of level 1 (one alert for each symbol), tickets for people, and symptoms that a cause holds
back. Every receiver is one local sink. What people are told is counted in messages; nothing may be lost: each alert
that nothing holds back must stand in a message to its receiver. One that is held back must stand in Alertmanager's own
list as inhibited, and in no message. Control is told of the two kinds of level 1 symbol by symbol, on purpose.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import yaml

from bench.parts.figures import verdict
from bench.parts.monitoring import alertmanager_with
from bench.parts.plant import folder, free_ports, needs
from control.routing import reference
from kernel.time import SECOND, Instant, parse_duration, to_rfc3339
from monitor.routing.model import Version

STORM = 10_000
STORM_S = 60.0
MESSAGES_MAX = 10
BATCH = 20
LASTS_S = 600
Key = tuple[str, str]
"""An alert by its name and symbol."""
MARKET = {"team": "market-operations", "service": "market-data"}
KINDS: Mapping[str, dict[str, str]] = {
    "SequenceGap": {"severity": "critical", "level": "1", **MARKET},
    "BookCrossed": {"severity": "critical", "level": "1", **MARKET},
    "SymbolTicket": {"severity": "info", "level": "3", "audience": "people", **MARKET},
    "SymbolFeedStale": {"severity": "warning", "level": "3", "team": "exchange-platform", "service": "market-data"},
}
CAUSE = {"alertname": "FeedDown", "severity": "critical", "level": "2", "service": "market-data"}
CAUSE["team"] = "exchange-platform"
HELD = "SymbolFeedStale"


@dataclass
class Told:
    """What arrived at the sink, by receiver."""

    messages: Counter[str] = field(default_factory=Counter)
    alerts: defaultdict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def people(self) -> int:
        """Return how many messages went to people."""
        return sum(count for receiver, count in self.messages.items() if receiver not in ("control", "heartbeat"))


@dataclass(frozen=True)
class Outcome:
    """What became of a storm."""

    told: Told
    posted_s: float
    missing: Mapping[str, set[Key]]
    """Alerts that their receiver was not told of."""
    inhibited: int
    leaked: int
    """Held-back alerts that somebody was told of."""


class _Sink(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    told: Told

    def handle_error(self, *_args: object) -> None:
        """Say nothing of connections that Alertmanager leaves when it is stopped."""


class _Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = cast(_Sink, self.server).told
        receiver = self.path.rpartition("/")[2]
        with told.lock:
            told.messages[receiver] += 1
            told.alerts[receiver] |= {
                (one["labels"]["alertname"], one["labels"].get("symbol", "")) for one in body["alerts"]
            }
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(port: int) -> Iterator[Told]:
    """Receive messages on `port` for the time of the block."""
    with _Sink(("127.0.0.1", port), _Webhook) as sink:
        sink.told = Told()
        thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield sink.told
        finally:
            sink.shutdown()
            thread.join()


def routes(port: int, pace: float = 1.0) -> dict[str, Any]:
    """Return our routes with every receiver at the sink; `pace` shortens what people's groups wait."""
    config = yaml.safe_load(reference(Version.OLD))
    receivers = [
        {"name": one["name"], "webhook_configs": [
            {"url": f"http://127.0.0.1:{port}/{one['name']}", "send_resolved": True, "max_alerts": 0}
        ]}
        for one in config["receivers"]
    ]  # fmt: skip
    return {**config, "receivers": receivers, "route": _paced(config["route"], pace)}


def _paced(route: Mapping[str, Any], pace: float) -> dict[str, Any]:
    changed = dict(route)
    if pace != 1.0 and route.get("receiver", "control") != "control":
        for key in ("group_wait", "group_interval"):
            if key in route:
                changed[key] = f"{max(1, round(parse_duration(route[key]) / SECOND * pace * 1000))}ms"
    if "routes" in route:
        changed["routes"] = [_paced(child, pace) for child in route["routes"]]
    return changed


def alerts_of(count: int) -> list[dict[str, Any]]:
    """Return a storm in the order in which it comes: the cause, then all kinds in turn."""
    now = time.time_ns()
    times = {"startsAt": to_rfc3339(Instant(now)), "endsAt": to_rfc3339(Instant(now + LASTS_S * SECOND))}
    kinds = list(KINDS)
    labels = [CAUSE] + [
        {"alertname": (name := kinds[n % len(kinds)]), "symbol": f"X{n // len(kinds)}", **KINDS[name]}
        for n in range(count - 1)
    ]
    notes = {"summary": "One symbol of many", "description": "Part of a storm."}
    return [{"labels": one, "annotations": notes, **times} for one in labels]


def storm(home: Path, count: int, seconds: float, pace: float = 1.0) -> Outcome:
    """Let a storm loose and wait until all of it was told, or the longest wait is over."""
    (port,) = free_ports(1)
    whole = alerts_of(count)
    batches = [whole[:1], *(whole[n : n + BATCH] for n in range(1, count, BATCH))]
    with listening(port) as told, alertmanager_with(home, routes(port, pace)) as alertmanager:
        url = f"http://127.0.0.1:{alertmanager}/api/v2/alerts"
        began = time.monotonic()
        for number, batch in enumerate(batches):
            time.sleep(max(0.0, began + seconds * number / len(batches) - time.monotonic()))
            _post(url, batch)
            if number == 0:
                time.sleep(0.05)  # the cause comes first
        posted_s = time.monotonic() - began
        wanted = _wanted(whole)
        # Tickets wait a minute and a half, a group of level 1 half a minute; then all is told.
        deadline = began + max(seconds, 90.0 * pace) + 30.0 * pace + 10.0
        while (missing := _missing(wanted, told)) and time.monotonic() < deadline:
            time.sleep(0.1)
        inhibited = sum(bool(one["status"]["inhibitedBy"]) for one in _get(url) if one["labels"]["alertname"] == HELD)
        leaked = {key for keys in told.alerts.values() for key in keys if key[0] == HELD}
        return Outcome(told, posted_s, missing, inhibited, len(leaked))


def _wanted(whole: Sequence[Mapping[str, Any]]) -> dict[str, set[Key]]:
    """Return who must be told of what: by the rules' own intent, not by what Alertmanager says."""
    keys = {(one["labels"]["alertname"], one["labels"].get("symbol", "")) for one in whole}
    level_1 = {key for key in keys if key[0] in ("SequenceGap", "BookCrossed")}
    return {
        "market-operations-level-1": level_1,
        "market-operations-level-3": {key for key in keys if key[0] == "SymbolTicket"},
        "control": level_1 | {("FeedDown", "")},
    }


def _missing(wanted: Mapping[str, set[Key]], told: Told) -> dict[str, set[Key]]:
    with told.lock:
        left = {receiver: keys - told.alerts[receiver] for receiver, keys in wanted.items()}
    return {receiver: keys for receiver, keys in left.items() if keys}


def _post(url: str, batch: Sequence[Mapping[str, Any]]) -> None:
    request = urllib.request.Request(url, json.dumps(batch).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def _get(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return cast(list[dict[str, Any]], json.load(answer))


def main(count: int = STORM, seconds: float = STORM_S) -> None:
    needs("prometheus-alertmanager")
    with folder() as home:
        seen = storm(home, count, seconds)
    held = sum(one["labels"]["alertname"] == HELD for one in alerts_of(count))
    lost = sum(map(len, seen.missing.values()))
    people = seen.told.people()
    print(f"{count} alerts posted in {seen.posted_s:.0f} s; messages by receiver:")
    for receiver, messages in seen.told.messages.most_common():
        print(f"  {receiver:<40}{messages:6}   of {len(seen.told.alerts[receiver])} alerts")
    print(
        f"  held back by {CAUSE['alertname']}: {seen.inhibited} of {held}, told to somebody all the same: {seen.leaked}"
    )
    verdict("messages to people", str(people), f"<= {MESSAGES_MAX}", reached=people <= MESSAGES_MAX)
    verdict("lost", str(lost), "0", reached=lost == 0)
    verdict(
        "held back and not told", str(seen.inhibited), str(held), reached=seen.inhibited == held and not seen.leaked
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
