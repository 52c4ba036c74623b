"""Whole incidents on real processes, as `tapewatch drill` runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.estate

ROOT = Path(__file__).parents[2]
LINKS_OF_EVERY_DRILL = {"alert", "incident", "orders", "report"}


def drill(scenario: str, folder: Path, drills: Path | None = None) -> tuple[int, dict[str, Any], str]:
    code = "import sys, pathlib, control.scenario as s\n"
    if drills is not None:
        code += f"s.DRILLS = pathlib.Path({str(drills)!r})\n"
    code += "import cli\ncli.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, "drill", scenario, "--folder", str(folder), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def is_running(text: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text in (entry / "cmdline").read_text(errors="replace"):
                    return True
            except OSError:
                continue
    return False


@pytest.mark.parametrize(
    "scenario",
    # The crash of the controller is that of a hung gateway with two deaths on the way: every link, and more.
    ["engine-crash", "no-evidence", "controller-crash", pytest.param("gateway-hang", marks=pytest.mark.long)],
)
def test_the_scenario_passes_with_every_link_seen(scenario, tmp_path):
    code, result, told = drill(scenario, tmp_path)
    assert result["passed"], told
    assert code == 0
    assert {link["name"] for link in result["links"]} >= LINKS_OF_EVERY_DRILL
    assert all(link["seen"] and link["evidence"] and link["at_s"] >= 0 for link in result["links"])
    assert result["orders"]["lost"] == result["orders"]["duplicated"] == 0
    assert result["orders"]["acknowledged"] > 100
    assert result["timings"]["fault_to_firing_s"] > 0
    kept = json.loads(next(tmp_path.glob("*/result.json")).read_bytes())
    assert kept == result
    page = Path(result["report"]).read_text()
    assert "<script" not in page
    assert re.search(r'href="#t\d+"', page)
    assert not is_running(str(tmp_path)), "no process of the drill outlives it"


def test_a_drill_fails_and_says_what_it_missed_when_a_link_is_not_seen(tmp_path):
    drills = tmp_path / "drills"
    drills.mkdir()
    (drills / "order.txt").write_text("wrong\n")
    (drills / "wrong.yaml").write_text(
        "title: t\nstory: s\noutcome: o\nacts:\n  - {do: fault, name: gateway-hang}\n"
        "links:\n  - {name: alert, see: alert, alertname: NoSuchAlert, within_s: 2}\n"
    )
    code, result, _ = drill("wrong", tmp_path / "runs", drills)
    assert code == 1
    assert not result["passed"]
    missed = [link for link in result["links"] if not link["seen"]]
    assert [link["name"] for link in missed][:1] == ["alert"]
    assert "not seen within 2 s" in missed[0]["evidence"]


def test_an_estate_that_cannot_start_is_one_sentence_and_a_failed_drill(tmp_path):
    environment = {**os.environ, "TAPEWATCH_PROMETHEUS": "/nowhere/prometheus", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "cli", "drill", "gateway-hang", "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "prometheus" in done.stdout
