"""What a distributed estate needs of the machine: each server with its version, or its size and the way to it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from control.server_plan import services
from control.settings import Settings
from kernel.errors import TapewatchError

SERVICES_MB: Final = 3_000
"""Three brokers, two databases, RabbitMQ, Zipkin and their hosts, with half as much again for the exchange."""
FETCHED: Final = ("kafka", "zipkin")
"""What Maven fetches and Java runs."""


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    ok: bool
    found: str
    get: str = ""
    """How to get what is missing."""


@dataclass(frozen=True)
class _Server:
    """How one server is looked for."""

    find: Callable[[Settings], Path | None]
    version: Callable[[Path], str]
    least: str
    """The oldest version that will do, and what it takes of the disk."""
    get: str
    instead: str
    """What else would do."""


def examine_services(settings: Settings) -> list[Check]:
    """Look for what a distributed estate stands on; nothing is looked for when it is embedded."""
    asked = [one.name for one in services(settings)]
    if not asked:
        return []
    servers = _servers(settings)
    checks = [_check(name, servers[name], settings) for name in asked]
    if any(name in FETCHED for name in asked):
        checks.append(_java())
    if any(check.name in FETCHED and not check.ok for check in checks) and shutil.which("mvn") is None:
        checks.append(Check("maven", ok=False, found="mvn is not on PATH", get="make estate, or apt-get install maven"))
    free_mb = psutil.virtual_memory().available // 1_000_000
    return [
        *checks,
        Check("memory", free_mb >= SERVICES_MB, f"{free_mb} MB available", f"free {SERVICES_MB} MB for the services"),
    ]


def _servers(settings: Settings) -> dict[str, _Server]:
    from control.servers import edge, kafka, postgres, rabbit, zipkin

    return {
        "kafka": _Server(
            lambda given: kafka.find(given.kafka_home), lambda home: kafka.version_of(home) or "",
            "4.0 or newer is needed; 4.4.0 is fetched, 60 MB, of which 45 are kept",
            "tapewatch servers build kafka", "name one with TAPEWATCH_KAFKA_HOME",
        ),
        "postgres": _Server(
            lambda given: postgres.find(given.postgres), lambda programs: str(postgres.version(programs)),
            "14 or newer is needed, some 60 MB", "apt-get install --no-install-recommends postgresql",
            "name one with TAPEWATCH_POSTGRES",
        ),
        "rabbitmq": _Server(
            lambda given: rabbit.find(given.rabbitmq), lambda scripts: ".".join(map(str, rabbit.version(scripts))),
            "3.10 or newer is needed, with Erlang, some 80 MB",
            "apt-get install --no-install-recommends rabbitmq-server",
            "name one with TAPEWATCH_RABBITMQ",
        ),
        "zipkin": _Server(
            lambda given: zipkin.find(given.zipkin), lambda jar: zipkin.VERSION if jar == zipkin.find() else "",
            f"{zipkin.VERSION} is fetched, 90 MB", "tapewatch servers build zipkin", "name one with TAPEWATCH_ZIPKIN",
        ),
        "edge": _Server(
            lambda given: edge.find(edge.balancer_of(given.edge)), _balancers_version, "a few MB",
            f"apt-get install --no-install-recommends {_package(settings.edge)}",
            f"choose the other with TAPEWATCH_EDGE={'nginx' if settings.edge == 'haproxy' else 'haproxy'}",
        ),
    }  # fmt: skip


def _check(name: str, server: _Server, settings: Settings) -> Check:
    get = f"make estate, or {server.get}, or {server.instead} ({server.least})"
    try:
        path = server.find(settings)
    except TapewatchError as error:  # it is nowhere, or the one that a setting names is none
        return Check(name, ok=False, found=str(error), get=get)
    if path is None:
        return Check(name, ok=False, found="not there", get=get)
    version = server.version(path)
    return Check(name, ok=True, found=f"{version or 'of a version unknown'}: {path}", get=get)


def _java() -> Check:
    from control.servers.java import DEBIAN, OLDEST, java

    get = f"make estate, or apt-get install {DEBIAN} (some 200 MB), or name its directory with JAVA_HOME"
    try:
        program = java("Kafka and Zipkin")
    except TapewatchError as error:
        return Check("java", ok=False, found=str(error), get=get)
    return Check("java", ok=True, found=f"{OLDEST} or newer: {program}", get=get)


def _balancers_version(program: Path) -> str:
    """Return what HAProxy or nginx says of its version, on one of its outputs."""
    return _told([str(program), "-v"], r"(?:version |nginx/)(\d+\.\d+(?:\.\d+)?)")


def _told(argv: Sequence[str], pattern: str) -> str:
    try:
        said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else ""


def _package(balancer: str) -> str:
    return "nginx-light" if balancer == "nginx" else balancer
