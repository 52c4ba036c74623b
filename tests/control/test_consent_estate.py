"""Rehearsal and consent on a real estate: real processes, real Prometheus, the real terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.estate

ROOT = Path(__file__).parents[2]
CALENDAR = """\
zone: UTC
sessions: {day: [{phase: continuous, from: "00:00"}, {phase: closed, from: "23:59:59"}]}
week: {monday: day, tuesday: day, wednesday: day, thursday: day, friday: day, saturday: day, sunday: day}
"""


class Terminal:
    def __init__(self, folder):
        (folder / "calendar.yaml").write_text(CALENDAR)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TAPEWATCH_STATE": str(folder / "state"),
            "TAPEWATCH_PORTS": "auto",
            "TAPEWATCH_CALENDAR": str(folder / "calendar.yaml"),
            "TAPEWATCH_CONSENT_FLOOR": '{"gateway-down": "four_eyes"}',
        }

    def start(self):
        return subprocess.Popen(
            [sys.executable, "-m", "cli", "up"], cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def eventually(self, *words, holds):
        deadline = time.monotonic() + 120
        while True:
            told = self(*words)[1]  # nothing, where what it asks for is not known yet
            if told and holds(found := json.loads(told)):
                return found
            assert time.monotonic() < deadline, told
            time.sleep(0.5)


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path)
    estate = terminal.start()
    try:
        assert any("Ctrl-C" in line for line in estate.stdout or ()), "the estate did not come up"
        yield terminal
    finally:
        estate.send_signal(signal.SIGINT)
        estate.communicate(timeout=120)


def test_what_is_rehearsed_live_is_what_two_people_approve_and_what_is_done(terminal):
    rehearse = "runbook", "rehearse", "gateway-down", "--against", "live", "--label", "replica=gateway-1", "--json"
    calm = terminal.eventually(*rehearse, holds=lambda told: "of the order volume" in told["steps"][0]["market"])
    assert (calm["would"], calm["phase"], calm["people"]) == ("not_applicable", "continuous", 2)
    assert calm["steps"][0]["market"].startswith("8 symbols, ")
    assert terminal("fault", "inject", "gateway-hang")[0] == 0
    (asked,) = terminal.eventually("runbook", "asking", "--json", holds=bool)
    assert asked["plan"] == calm["plan"], "nothing that the plan stands on has changed"
    assert terminal("approve", asked["run"], "--by", "anna", "--plan", "0" * 12)[0] == 3
    assert terminal("approve", asked["run"], "--by", "anna", "--plan", asked["plan_short"])[0] == 0
    assert terminal("approve", asked["run"], "--by", "anna")[0] == 3
    assert terminal("approve", asked["run"], "--by", "ben")[0] == 0
    incident = asked["run"].partition("/")[0]
    done = terminal.eventually(
        "incident", "show", incident, "--json",
        holds=lambda told: any(entry["kind"] == "run_ended" for entry in told["entries"]),
    )  # fmt: skip
    texts = {entry["kind"]: entry for entry in done["entries"]}
    assert texts["run_ended"]["data"]["outcome"] == "mended"
    assert texts["consent"]["data"]["by"] == ["anna", "ben"]
    assert texts["consent"]["data"]["plan"] == calm["plan"]
