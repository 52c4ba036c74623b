"""What evaluating all rules costs Prometheus: a whole estate under its load, every group, scaled to one second.

    python bench/rules.py [SECONDS]

A group's last duration is divided by its interval, so that a group of every five seconds counts a fifth. The estate is
read once a second after a minute in which windows fill. Durations are by the clock and grow with whatever else runs on
the cores; so the processor's time is measured, too: that of the estate's Prometheus less that of a second one with the
same scrapes and no rules. An expression of one number, asked of the same server, tells what a bare question costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from bench.parts.figures import percentile, verdict
from bench.parts.plant import Estate, estate, free_ports, needs, running, wait_for
from control import render

FILL_S = 60.0
GOAL_MS = 50.0


def ask(base: str, expression: str) -> list[dict[str, Any]]:
    """Return the answer's series."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{base}/api/v1/query?{query}", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


@contextmanager
def bare_prometheus(it: Estate) -> Iterator[subprocess.Popen[bytes]]:
    """Run a second Prometheus that scrapes what the estate's does, and has no rules."""
    (theirs,) = it.state.rglob("prometheus.yml")
    config = {key: value for key, value in render.load_yaml(theirs).items() if key not in {"rule_files", "alerting"}}
    own = theirs.with_name("bare.yml")
    render.write_yaml(own, config)
    (port,) = free_ports(1)
    with running(render.prometheus_command("prometheus", own, it.state / "bare", port, "1h")) as process:
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield process


def main() -> None:
    """Measure and print."""
    needs("prometheus", "prometheus-alertmanager")
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    groups: dict[str, list[float]] = {}
    turns: list[float] = []
    asked: list[float] = []
    scrapes: list[float] = []
    slowest: dict[tuple[str, str], list[float]] = {}
    with estate() as it, bare_prometheus(it) as without_rules:
        base = str(it.replica("prometheus")["url"])
        time.sleep(FILL_S)
        servers = psutil.Process(it.replica("prometheus")["pid"]), psutil.Process(without_rules.pid)
        before, began_at = [sum(one.cpu_times()[:2]) for one in servers], time.monotonic()
        until = began_at + seconds
        while time.monotonic() < until:
            took = {
                one["metric"]["rule_group"].rpartition(";")[2]: float(one["value"][1])
                for one in ask(
                    base, "prometheus_rule_group_last_duration_seconds / prometheus_rule_group_interval_seconds"
                )
            }
            for name, value in took.items():
                groups.setdefault(name, []).append(value)
            turns.append(sum(took.values()))
            began = time.perf_counter()
            ask(base, "vector(1)")
            asked.append(time.perf_counter() - began)
            scrapes += [float(one["value"][1]) for one in ask(base, 'scrape_duration_seconds{job="engine"}')]
            time.sleep(1.0)
        passed = time.monotonic() - began_at
        busy, bare = ((sum(one.cpu_times()[:2]) - then) / passed for one, then in zip(servers, before, strict=True))
        with urllib.request.urlopen(f"{base}/api/v1/rules", timeout=10) as answer:
            for group in json.load(answer)["data"]["groups"]:
                for rule in group["rules"]:
                    slowest.setdefault((group["name"], rule["name"]), []).append(
                        rule["evaluationTime"] / group["interval"]
                    )
    print(f"{'group':<28}{'median ms':>12}{'max ms':>12}   a turn of one second, {len(turns)} looks")
    for name, values in sorted(groups.items(), key=lambda one: -percentile(one[1], 0.5)):
        print(f"{name:<28}{percentile(values, 0.5) * 1000:12.2f}{max(values) * 1000:12.2f}")
    print("dearest rules at the last look, scaled alike:")
    dearest = sorted(((sum(each), *names) for names, each in slowest.items()), reverse=True)[:12]
    for took_s, group_name, rule_name in dearest:
        print(f"  {took_s * 1000:8.2f} ms  {group_name} / {rule_name}")
    print(f"an expression of one number, asked from here: p50 {percentile(asked, 0.5) * 1000:.2f} ms")
    print(f"scrape of the engine, as Prometheus timed it: p50 {percentile(scrapes, 0.5) * 1000:.1f} ms, "
          f"max {max(scrapes) * 1000:.1f} ms")  # fmt: skip
    print(f"processor time a second: Prometheus {busy * 1000:.0f} ms, one with the same scrapes and no rules "
          f"{bare * 1000:.0f} ms; load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    middle = percentile(turns, 0.5) * 1000
    verdict("all rules, processor time", f"{(busy - bare) * 1000:.0f} ms a turn", f"{GOAL_MS:.0f} ms a turn",
            reached=busy - bare <= GOAL_MS / 1000)  # fmt: skip
    verdict("all rules, by the clock", f"p50 {middle:.1f} ms, max {max(turns) * 1000:.1f} ms a turn",
            f"{GOAL_MS:.0f} ms a turn", reached=middle <= GOAL_MS)  # fmt: skip


if __name__ == "__main__":
    main()
