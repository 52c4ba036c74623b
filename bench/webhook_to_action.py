"""Alertmanager's webhook to the first action asked for, on a whole running estate with its real Prometheus.

    python bench/webhook_to_action.py [TIMES]

A webhook in Alertmanager's form is posted to control, once a symbol: `SequenceGap`, whose runbook halts that symbol.
The times are those of the incident's own timeline; the action is asked for when its entry is made, which is durable
before the action is carried out. The reference is one durable webhook of the same kind without anything to do (an alert
that is information without a runbook), posted in turn with the others.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.request
from typing import Any

from bench.parts.figures import percentile, spread, verdict
from bench.parts.plant import Estate, estate
from kernel.time import Instant, from_rfc3339, to_rfc3339

APART_S = 0.7
PROOF_S = 4.0
GOAL_S = 0.050


def webhook(labels: dict[str, str], number: int) -> bytes:
    """Return a notification of one firing alert."""
    alert = {
        "status": "firing", "labels": labels, "annotations": {"summary": f"Alert {number} of the bench"},
        "startsAt": to_rfc3339(Instant(time.time_ns())), "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": f"{number:016x}",
    }  # fmt: skip
    body = {
        "version": "4", "groupKey": f"bench-{number}", "truncatedAlerts": 0, "status": "firing", "receiver": "control",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
    }  # fmt: skip
    return json.dumps(body).encode()


def labels_of(name: str, severity: str, symbol: str) -> dict[str, str]:
    return {
        "alertname": name, "severity": severity, "level": "1", "team": "market-operations", "service": "market-data",
        "symbol": symbol,
    }  # fmt: skip


def symbols(it: Estate) -> list[str]:
    config = json.loads((it.state / "config" / "control-1.json").read_text())
    return [each["symbol"] for each in config["instruments"]]


def ask(it: Estate, path: str) -> Any:
    request = urllib.request.Request(
        it.addresses["control"] + path, headers={"Authorization": f"Bearer {it.secret('admin')}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def post_all(it: Estate, names: list[str]) -> tuple[dict[str, int], list[float], list[float]]:
    """Post both kinds in turn; return when each gap was posted (ns), and the seconds of both kinds of answer."""
    connection = http.client.HTTPConnection("127.0.0.1", int(it.addresses["control"].rpartition(":")[2]), timeout=10)
    head = {"Authorization": f"Bearer {it.secret('webhook')}", "Content-Type": "application/json"}
    posted: dict[str, int] = {}
    told: dict[str, list[float]] = {"critical": [], "info": []}
    for number, symbol in enumerate(names):
        for name, severity in (("BenchInformation", "info"), ("SequenceGap", "critical")):
            body = webhook(labels_of(name, severity, symbol), 2 * number + (severity == "info"))
            began, at = time.perf_counter(), time.time_ns()
            connection.request("POST", "/api/v1/alerts", body, head)
            answer = connection.getresponse()
            answer.read()
            told[severity].append(time.perf_counter() - began)
            if answer.status != 202:
                raise SystemExit(f"control answered {answer.status}")
            posted[symbol] = at  # the gap is posted last
            time.sleep(APART_S / 2)
    connection.close()
    return posted, told["critical"], told["info"]


def instant(value: object) -> int:
    return int(value) if isinstance(value, int) else int(from_rfc3339(str(value)))


def timelines(it: Estate, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of the incident about each symbol."""
    wanted, found = set(names), {}
    for incident in ask(it, "/api/v1/incidents?all=true"):
        entries = ask(it, f"/api/v1/incidents/{incident['id']}/timeline")["entries"]
        text = json.dumps(entries)
        for symbol in wanted & {word for word in text.replace('"', " ").split() if word in wanted}:
            found[symbol] = entries
    return found


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with estate(load_rate_per_s=0, symbols=times) as it:
        time.sleep(12.0)  # the alerts of the start are over, and every series has been scraped
        names = symbols(it)
        posted, gaps, information = post_all(it, names)
        time.sleep(PROOF_S)
        stories = timelines(it, names)
    spread("webhook answered durably: information", information)
    spread("webhook answered durably: the gap", gaps)
    stages: dict[str, list[float]] = {}
    for symbol, entries in stories.items():
        first = {entry["kind"]: instant(entry["at"]) for entry in reversed(entries)}
        for kind, at in first.items():
            stages.setdefault(kind, []).append((at - posted[symbol]) / 1e9)
    print("from the post of the webhook to the first entry of each kind:")
    for kind, seconds in sorted(stages.items(), key=lambda stage: percentile(stage[1], 0.5)):
        spread(f"  {kind}", seconds)
    asked = stages.get("action_asked", [])
    print(f"{len(asked)} of {len(names)} symbols had their action asked for")
    p50, p99 = percentile(asked, 0.5), percentile(asked, 0.99)
    verdict("webhook to first action asked for", f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms", "p99 50 ms",
            reached=p99 <= GOAL_S and len(asked) == len(names))  # fmt: skip
    print(f"ratio of the median to a webhook with nothing to do: {p50 / percentile(information, 0.5):.1f}")


if __name__ == "__main__":
    main()
