"""An estate of its own to ask the boards' questions of: under load, and with one incident behind it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from control import faults
from control.calls import call
from control.fault import Plant
from control.render import ALERTS
from kernel.errors import PermanentError, TapewatchError, TemporaryError

ROOT: Final = ALERTS.parent
UP_WITHIN_S: Final = 120.0
MENDED_WITHIN_S: Final = 120.0
FAULT: Final = "gateway-hang"
RULES_TURN_S: Final = 6.0
"""After the incident: the slow recording rules turn, rates fill their window, control's figures are scraped."""


@contextlib.contextmanager
def own_estate(home: Path) -> Iterator[Plant]:
    """Run an estate in `home` on free ports, let one incident happen and be mended, and stop it at the end.

    Raises:
        TemporaryError: it is not up, or the incident not over, in time.
        PermanentError: it ended at its start.
    """
    environment = {
        **os.environ, "TAPEWATCH_STATE": str(home / "up"), "TAPEWATCH_PORTS": "auto", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (home / "estate.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up"], env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, cwd=home,
        )  # fmt: skip
    try:
        plant = _up(process, home)
        time.sleep(RULES_TURN_S)  # rates need a past before the fault
        faults.inject(plant, FAULT)
        _mended(plant)
        time.sleep(RULES_TURN_S)
        yield plant
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(40)
        if process.poll() is None:
            process.kill()
            process.wait()


def _up(process: subprocess.Popen[bytes], home: Path) -> Plant:
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (home / "estate.out").read_text(errors="replace").strip().splitlines()[-1:]
            raise PermanentError(f"the estate did not start: {' '.join(last) or 'it said nothing'}")
        with contextlib.suppress(TapewatchError):
            plant = faults.connect(home / "up")
            if plant.addresses.phase == "up":
                return plant
        time.sleep(0.2)
    raise TemporaryError(f"the estate was not up within {UP_WITHIN_S:g} s")


def _mended(plant: Plant) -> None:
    """Wait until an incident was opened, a runbook ran, and its remedy was proven."""
    deadline = time.monotonic() + MENDED_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(TapewatchError):
            known = call("GET", f"{plant.addresses.control}/api/v1/incidents?all=true", token=plant.admin)
            if any(one.get("state") in {"mitigated", "resolved"} for one in known):
                return
        time.sleep(0.5)
    raise TemporaryError(f"no incident was mitigated within {MENDED_WITHIN_S:g} s of the fault {FAULT}")
