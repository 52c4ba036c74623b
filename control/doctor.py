"""What a local estate needs of the machine: what is there, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from control.doctor_services import Check, examine_services
from control.layout import Layout
from control.plan import choose_ports
from control.settings import Settings
from control.state_dir import describe_holder
from exchange import __path__ as exchange_path
from exchange.adapters.compiled import running
from kernel.errors import PermanentError

DISK_BYTES: Final = 1_000_000_000
"""Six hours of samples, journals and logs at the default load stay below a gigabyte."""


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
        *examine_services(settings),
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
