"""The monitoring's configuration of one estate: the project's own files under `alerts/`, with this estate's addresses.

What the rules and routes say is never changed here; only addresses, paths, credentials and intervals are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import yaml

from control.addresses import HOST, write_atomically
from kernel.errors import InputError
from monitor.routing.model import CONTROL

ALERTS: Final = Path(__file__).resolve().parent.parent / "alerts"
SCRAPE_TIMEOUT_SHARE: Final = 0.9
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: the tests of the rules are long, and reading them in Python takes seconds."""


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one of the project's YAML files.

    Raises:
        InputError: it is missing, broken, or not a mapping.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - a safe loader, both ways
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", right="install the project whole") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise InputError(where, str(error.problem or error.context), right="correct the YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), " ".join(str(error).split()), right="correct the YAML") from error
    if not isinstance(loaded, dict):
        raise InputError(str(path), "is not a mapping", right="see the file in the repository")
    return loaded


def prometheus_config(
    source: Mapping[str, Any], *, rules: Path, targets: Path, alertmanager_port: int, interval_s: int
) -> dict[str, Any]:
    """Return Prometheus's configuration for an estate.

    Every scrape job finds its targets in `targets/<job>.json`, which the estate rewrites when replicas come and go.
    """
    config = dict(source)
    timeout = f"{round(interval_s * SCRAPE_TIMEOUT_SHARE * 1000)}ms"
    config["global"] = {
        **source.get("global", {}),
        "scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s", "scrape_timeout": timeout,
    }  # fmt: skip
    config["rule_files"] = [str(rules / "*.yml"), str(rules / "*.yaml")]
    config["scrape_configs"] = [_job(job, targets) for job in source.get("scrape_configs", [])]
    alerting = dict(source.get("alerting", {}))
    managers = [dict(manager) for manager in alerting.get("alertmanagers", [{}])]
    for manager in managers:
        manager["static_configs"] = [{"targets": [f"{HOST}:{alertmanager_port}"]}]
        manager.pop("file_sd_configs", None)
    config["alerting"] = {**alerting, "alertmanagers": managers}
    return config


def _job(source: Mapping[str, Any], targets: Path) -> dict[str, Any]:
    job = {key: value for key, value in source.items() if not key.endswith("_sd_configs") and key != "static_configs"}
    for key in ("scrape_interval", "scrape_timeout"):
        job.pop(key, None)  # the estate's interval holds for every job
    job["file_sd_configs"] = [{"files": [str(targets / f"{source['job_name']}.json")], "refresh_interval": "5s"}]
    return job


def alertmanager_config(
    source: Mapping[str, Any], *, control_ports: Sequence[int], secret: Path, group_wait_s: float | None
) -> dict[str, Any]:
    """Return Alertmanager's configuration for an estate: its webhook reaches this estate's control, with its token.

    What people are told by is left as it is. Where control runs twice, each process is told by a receiver of its own:
    one that hangs holds up no other.
    """
    config = dict(source)
    first, *others = control_ports
    receivers = source.get("receivers", [])
    config["receivers"] = [_receiver(receiver, first, secret) for receiver in receivers]
    for n, port in enumerate(others, 2):
        told = [_receiver(receiver, port, secret) for receiver in receivers if receiver["name"] == CONTROL]
        config["receivers"] += [{**receiver, "name": f"{receiver['name']}-{n}"} for receiver in told]
        config["route"] = _told_twice(config["route"], n, {str(receiver["name"]) for receiver in told})
    if group_wait_s is not None:
        config["route"] = _waiting(config["route"], f"{round(group_wait_s * 1000)}ms")
    return config


def _told_twice(route: Mapping[str, Any], n: int, told: Collection[str]) -> dict[str, Any]:
    """Return a root route under which whoever tells a receiver of `told` tells its n-th twin as well.

    What goes to somebody else (a person) comes first, and goes there once.
    """
    children = route.get("routes", [])
    to_people = [child for child in children if child.get("receiver", route["receiver"]) not in told]
    to_us = [child for child in children if child not in to_people]
    twins = [{**child, "receiver": f"{child.get('receiver', route['receiver'])}-{n}"} for child in to_us]
    first = {"receiver": route["receiver"], "continue": True, "routes": to_us}
    second = {"receiver": f"{route['receiver']}-{n}", "routes": twins}
    return {**route, "routes": [*to_people, first, second]}


def _receiver(source: Mapping[str, Any], control_port: int, secret: Path) -> dict[str, Any]:
    receiver = dict(source)
    if receiver["name"] != CONTROL:
        return receiver
    hooks = []
    for hook in source.get("webhook_configs", []):
        address = urlsplit(str(hook.get("url", "")))
        hooks.append({
            **hook,
            "url": urlunsplit(("http", f"{HOST}:{control_port}", address.path, address.query, "")),
            "http_config": {
                **hook.get("http_config", {}),
                "authorization": {"type": "Bearer", "credentials_file": str(secret)},
            },
        })  # fmt: skip
    if hooks:
        receiver["webhook_configs"] = hooks
    return receiver


def _waiting(route: Mapping[str, Any], wait: str) -> dict[str, Any]:
    changed = {**route, "group_wait": wait}
    if "routes" in route:
        changed["routes"] = [_waiting(child, wait) for child in route["routes"]]
    return changed


def write_yaml(path: Path, config: Mapping[str, Any], *, mode: int = 0o644) -> None:
    """Put a configuration in place."""
    write_atomically(path, yaml.safe_dump(dict(config), sort_keys=False).encode(), mode=mode)


def write_targets(directory: Path, jobs: Mapping[str, Iterable[tuple[str, int]]]) -> None:
    """Put the target files in place: for each job its replicas (id and port). An unchanged file is left alone."""
    for job, replicas in jobs.items():
        groups = [
            {"targets": [f"{HOST}:{port}"], "labels": {"job": job, "replica": replica}} for replica, port in replicas
        ]
        data = json.dumps(groups, indent=1).encode()
        path = directory / f"{job}.json"
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)


def prometheus_command(program: str, config: Path, data: Path, port: int, retention: str) -> tuple[str, ...]:
    """Return how Prometheus is started."""
    return (
        program, f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address={HOST}:{port}",
        f"--storage.tsdb.retention.time={retention}", "--query.lookback-delta=5s",
        "--rules.alert.resend-delay=5s", "--log.level=warn", "--enable-feature=exemplar-storage",
    )  # fmt: skip


def alertmanager_command(program: str, config: Path, data: Path, port: int) -> tuple[str, ...]:
    """Return how Alertmanager is started: alone, without gossip."""
    return (
        program, f"--config.file={config}", f"--storage.path={data}", f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=", "--log.level=warn",
    )  # fmt: skip
