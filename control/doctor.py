"""What a local estate needs of the machine: what is there, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psutil

from control.layout import Layout
from control.plan import choose_ports
from control.server_plan import services
from control.settings import Settings
from control.state_dir import describe_holder
from exchange import __path__ as exchange_path
from exchange.adapters.compiled import running
from kernel.errors import PermanentError, TapewatchError

DISK_BYTES: Final = 1_000_000_000
"""Six hours of samples, journals and logs at the default load stay below a gigabyte."""

SERVICES_MB: Final = 3_000
"""Three brokers, two databases, RabbitMQ, Zipkin and their hosts, with half as much again for the exchange."""


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    ok: bool
    found: str
    get: str = ""
    """How to get what is missing."""


def examine(settings: Settings) -> list[Check]:
    """Look at the machine; changes nothing."""
    return [
        _python(),
        _environment(),
        _matching(),
        _program("prometheus", settings.prometheus, "apt-get install prometheus, or set TAPEWATCH_PROMETHEUS"),
        _program(
            "alertmanager", settings.alertmanager,
            "apt-get install prometheus-alertmanager, or name one with TAPEWATCH_ALERTMANAGER",
        ),
        _program(
            "node_exporter", settings.node_exporter,
            "apt-get install prometheus-node-exporter (boards and alerts of the machine have no data without it)",
        ),
        _program("setpriv", "setpriv", "apt-get install util-linux"),
        *_services(settings),
        _ports(settings),
        _state(settings.state),
        _disk(settings.state),
    ]  # fmt: skip


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _environment() -> Check:
    ok = sys.prefix != sys.base_prefix
    return Check("virtual environment", ok, sys.prefix if ok else "none", "make setup")


def _matching() -> Check:
    build = running(list(exchange_path))
    return Check("exchange core", build.ok, build.found, "make compiled, or unset TAPEWATCH_COMPILED")


def _program(name: str, program: str, get: str) -> Check:
    path = shutil.which(program)
    return Check(name, path is not None, path or f"{program} is not on PATH", get)


def _services(settings: Settings) -> list[Check]:
    """Look for what a distributed estate stands on; nothing is looked for when it is embedded."""
    asked = {one.name for one in services(settings)}
    if not asked:
        return []
    from control.servers import kafka, postgres, zipkin

    free_mb = psutil.virtual_memory().available // 1_000_000
    found: list[tuple[str, Callable[[], Path | None], str]] = [
        ("kafka", lambda: kafka.find(settings.kafka_home), "make estate, or tapewatch servers build kafka"),
        ("postgres", lambda: postgres.find(settings.postgres), "make estate, or apt-get install postgresql"),
        ("rabbitmq", lambda: _debian("rabbitmq-server"), "make estate, or apt-get install rabbitmq-server"),
        ("zipkin", lambda: zipkin.find(settings.zipkin), "make estate, or tapewatch servers build zipkin"),
        ("edge", lambda: _debian(settings.edge), f"make estate, or apt-get install {settings.edge}"),
    ]
    checks = [_service(name, look, get) for name, look, get in found if name in asked]
    if asked & {"kafka", "zipkin"}:
        checks.append(_program("java", "java", "make estate, or apt-get install openjdk-17-jre-headless"))
    return [
        *checks,
        Check("memory", free_mb >= SERVICES_MB, f"{free_mb} MB available", f"free {SERVICES_MB} MB for the services"),
    ]


def _service(name: str, look: Callable[[], Path | None], get: str) -> Check:
    try:
        path = look()
    except TapewatchError as error:  # the one that a setting names is none
        return Check(name, ok=False, found=str(error), get=get)
    return Check(name, path is not None, str(path or "not there"), get)


def _debian(program: str) -> Path | None:
    """Return where a program lies that Debian keeps off the PATH of most users."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    return Path(path) if path else None


def _ports(settings: Settings) -> Check:
    if settings.ports == "fixed" and Layout(settings.state).addresses.exists():
        return Check("ports", ok=True, found=f"in use by this estate ({describe_holder(Layout(settings.state))})")
    try:
        choose_ports(settings)
    except PermanentError as error:
        return Check("ports", ok=False, found=str(error), get="stop what holds it, or TAPEWATCH_PORTS=auto")
    return Check("ports", ok=True, found="free")


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _state(state: Path) -> Check:
    place = _existing(state)
    ok = os.access(place, os.W_OK | os.X_OK) and place.is_dir()
    return Check(
        "state directory", ok, f"{state}{'' if ok else ' cannot be written'}", "name another with TAPEWATCH_STATE"
    )


def _disk(state: Path) -> Check:
    free = shutil.disk_usage(_existing(state)).free
    return Check(
        "disk space", free >= DISK_BYTES, f"{free / 1e9:.1f} GB free", "free 1 GB, or name another TAPEWATCH_STATE"
    )
