"""Prometheus and Alertmanager for a bench: ours (the project's rules and routes, rendered) and a bare pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.parts.plant import free_ports, running, wait_for
from control import render
from control.routing import house_routes

BARE_ROUTE: Final = {
    "receiver": "sink", "group_by": ["alertname", "replica", "symbol"],
    "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h",
}  # fmt: skip


@contextmanager
def our_alertmanager(home: Path, sink_port: int) -> Iterator[int]:
    """Run an Alertmanager with the project's own routes; its webhook goes to `sink_port`. Yields its port."""
    secret = home / "webhook"
    home.mkdir(parents=True, exist_ok=True)
    secret.write_text("webhook-secret-of-the-bench")
    source = house_routes()
    with alertmanager_with(
        home, render.alertmanager_config(source, control_ports=(sink_port,), secret=secret, group_wait_s=None)
    ) as port:
        yield port


@contextmanager
def bare_alertmanager(home: Path, sink_port: int | None) -> Iterator[int]:
    """Run an Alertmanager with one route and no wait; without `sink_port` it tells nobody. Yields its port."""
    hooks = [] if sink_port is None else [{"url": f"http://127.0.0.1:{sink_port}/", "send_resolved": True}]
    receiver: dict[str, Any] = {"name": "sink", **({"webhook_configs": hooks} if hooks else {})}
    # Nobody to tell: few groups, as the project's own routes make, so that grouping costs the reference little.
    route = BARE_ROUTE if hooks else {**BARE_ROUTE, "group_by": ["alertname", "service"]}
    with alertmanager_with(home, {"route": route, "receivers": [receiver]}) as port:
        yield port


@contextmanager
def alertmanager_with(home: Path, config: Mapping[str, Any]) -> Iterator[int]:
    """Run an Alertmanager with a configuration. Yields its port."""
    home.mkdir(parents=True, exist_ok=True)
    render.write_yaml(home / "alertmanager.yml", config)
    (port,) = free_ports(1)
    command = render.alertmanager_command("prometheus-alertmanager", home / "alertmanager.yml", home / "am", port)
    with running(command, output=home / "alertmanager.out"):
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield port


@contextmanager
def our_prometheus(home: Path, alertmanager: int, jobs: Mapping[str, Iterable[tuple[str, int]]]) -> Iterator[int]:
    """Run a Prometheus with the project's rules at one second; `jobs` are its targets. Yields its port."""
    (home / "targets").mkdir(parents=True)
    render.write_targets(home / "targets", jobs)
    config = render.prometheus_config(
        render.load_yaml(render.ALERTS / "prometheus.yml"), rules=render.ALERTS / "rules", targets=home / "targets",
        alertmanager_port=alertmanager, interval_s=1,
    )  # fmt: skip
    with _prometheus(home, config) as port:
        yield port


@contextmanager
def bare_prometheus(
    home: Path, alertmanager: int, job: str, replicas: Iterable[tuple[str, int]], rule: Mapping[str, Any]
) -> Iterator[int]:
    """Run a Prometheus with one job and one rule at one second. Yields its port."""
    home.mkdir(parents=True)
    render.write_yaml(home / "rules.yml", {"groups": [{"name": "bare", "rules": [dict(rule)]}]})
    groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"replica": name}} for name, port in replicas]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "900ms"},
        "rule_files": [str(home / "rules.yml")],
        "scrape_configs": [{"job_name": job, "static_configs": groups}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
    }
    with _prometheus(home, config) as port:
        yield port


@contextmanager
def _prometheus(home: Path, config: Mapping[str, Any]) -> Iterator[int]:
    render.write_yaml(home / "prometheus.yml", config)
    (port,) = free_ports(1)
    command = render.prometheus_command("prometheus", home / "prometheus.yml", home / "tsdb", port, "1h")
    with running(command, output=home / "prometheus.out"):
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield port
