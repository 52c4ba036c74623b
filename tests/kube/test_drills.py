"""Whole incidents on a real API server, as `tapewatch drill --on kubernetes` runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control.scenario import names
from tests.control.test_drill import LINKS_OF_EVERY_DRILL, is_running

pytestmark = [pytest.mark.kube, pytest.mark.estate]

ROOT = Path(__file__).parents[2]


def words(scenario: str, folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "cli", "drill", scenario, "--on", "kubernetes", "--folder", str(folder), "--json"
    ]  # fmt: skip


def surroundings(binary: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TAPEWATCH_TESTBED": str(binary)}


def passes(scenario: str, folder: Path, binary: Path) -> None:
    done = subprocess.run(
        words(scenario, folder), cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
        env=surroundings(binary),
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["passed"], done.stderr
    assert done.returncode == 0
    assert {link["name"] for link in result["links"]} >= LINKS_OF_EVERY_DRILL
    assert all(link["seen"] and link["evidence"] for link in result["links"])
    assert result["orders"]["lost"] == result["orders"]["duplicated"] == 0
    assert result["orders"]["acknowledged"] > 100
    assert not is_running(str(folder)), "no process of the drill outlives it"


def test_a_hung_pod_is_evicted_once_and_its_successor_is_proven(testbed_binary, tmp_path):
    passes("pod-hang", tmp_path, testbed_binary)


@pytest.mark.long
@pytest.mark.parametrize("scenario", names("kubernetes")[1:])
def test_the_scenario_passes_with_every_link_seen(scenario, testbed_binary, tmp_path):
    passes(scenario, tmp_path, testbed_binary)


def test_drills_that_are_ended_leave_nothing_running(testbed_binary, tmp_path):
    """One is killed, one interrupted; they begin at once, because most of a beginning is waiting."""
    drills = {}
    for number in (signal.SIGKILL, signal.SIGINT):
        (folder := tmp_path / number.name).mkdir()
        drills[number] = folder, subprocess.Popen(
            words("pod-hang", folder), cwd=ROOT, env=surroundings(testbed_binary), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        for number, (folder, drill) in drills.items():
            deadline = time.monotonic() + 240
            while not list(folder.glob("*/estate/config/engine-0.json")):
                assert time.monotonic() < deadline, "no engine was started"
                time.sleep(0.1)
            drill.send_signal(number)
        for folder, drill in drills.values():
            drill.wait(120)
            deadline = time.monotonic() + 60
            while is_running(str(folder)):
                assert time.monotonic() < deadline, "something is left"
                time.sleep(0.1)
    finally:
        for _, drill in drills.values():
            drill.kill()
            drill.wait()
