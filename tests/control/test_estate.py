from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from control.calls import call
from control.layout import Layout
from control.settings import load_settings

ROOT = Path(__file__).parents[2]
UP = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from control import estate, plan
from control.settings import load_settings
from kernel.errors import TapewatchError
from tests.control.dummies import slot
real = plan._python_slot
plan._python_slot = lambda layout, replica, port: (
    real(layout, replica, port) if replica == "engine-1" else slot(layout.root, replica, port)
)
say = lambda text: print(text, flush=True)
try:
    settings = load_settings(state=Path(sys.argv[1]), ports="auto")
    asyncio.run(estate.run(settings, say, lambda _: say("up")))
except TapewatchError as error:
    sys.exit(str(error))
"""

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine: make setup"),
]


class Up:
    """An estate in a process of its own: a real engine and monitoring, dummies for the rest."""

    def __init__(self, state):
        self.state = state
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP.format(root=str(ROOT)), str(state)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self):
        for line in self.process.stdout or ():
            self.lines.append(line.strip())
            if self.lines[-1] == "up":
                return self
        raise AssertionError(f"did not come up: {self.lines}")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def book(self):
        return json.loads((self.state / "estate.json").read_text())

    def pids(self):
        return [replica["pid"] for replicas in self.book["workloads"].values() for replica in replicas]

    def rest(self):
        self.lines += [line.strip() for line in self.process.stdout or ()]
        return self.process.wait(timeout=60)


def lives(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def gone(pids, within=60.0):
    deadline = time.monotonic() + within
    while left := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


def cli(*words):
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order_and_leaves_nothing(tmp_path, number):
    with Up(tmp_path / "s") as up:
        pids = up.pids()
        node = shutil.which(load_settings().node_exporter) is not None  # runs where it is installed
        assert len(pids) == 12 + node
        os.kill(up.process.pid, number)
        assert up.rest() == 0
    gone(pids)
    assert up.lines[-1] == "stopped"
    assert not (tmp_path / "s" / "estate.json").exists()


def test_kill_9_leaves_nothing_and_the_next_start_reopens_the_market_with_an_equal_hash(tmp_path):
    with Up(tmp_path / "s") as up:
        pids = up.pids()
        admin = (tmp_path / "s" / "secrets" / "admin").read_text()
        halt = {"key": "a", "symbol": None, "reason": "operator"}
        call("POST", up.book["engine"] + "/admin/halt", token=admin, body=halt)
        call("POST", up.book["engine"] + "/admin/resume", token=admin, body={"key": "b", "symbol": None})
        os.kill(pids[0], signal.SIGSTOP)
        os.kill(up.process.pid, signal.SIGKILL)
    gone(pids)
    told = cli("status", "--state", str(tmp_path / "s"))
    assert told.returncode == 4
    assert "ended without stopping" in told.stderr
    with Up(tmp_path / "s") as again:
        assert any("replayed to an equal state hash, market reopened" in line for line in again.lines)
        assert cli("down", "--state", str(tmp_path / "s")).returncode == 0
        assert again.rest() == 0


def test_the_terminal_sees_breaks_and_stops_a_running_estate(tmp_path):
    state = str(tmp_path / "s")
    with Up(tmp_path / "s") as up:
        status = json.loads(cli("status", "--json", "--state", state).stdout)
        assert {"prometheus", "alertmanager", "control"} <= set(status)
        assert {each["name"] for each in status["workloads"]} >= {"engine", "gateway", "prometheus", "control"}
        assert all(replica["ready"] for each in status["workloads"] for replica in each["replicas"])

        second = cli("up", "--state", state)
        assert (second.returncode, second.stdout) == (1, "")
        assert f"is held by pid {up.process.pid} since" in second.stderr

        assert cli("fault", "inject", "gateway-hang", "--state", state).returncode == 0
        stopped = next(each for each in status["workloads"] if each["name"] == "gateway")["replicas"][0]["pid"]
        assert Path(f"/proc/{stopped}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        assert json.loads(Layout(tmp_path / "s").faults.read_text())["name"] == "gateway-hang"

        unknown = cli("fault", "inject", "nonsense", "--state", state)
        assert unknown.returncode == 2
        assert "there are gateway-hang" in unknown.stderr
        assert "Traceback" not in unknown.stderr
        assert cli("down", "--state", state).returncode == 0
        assert up.rest() == 0


def test_a_missing_monitoring_binary_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_PROMETHEUS", "/nowhere/prometheus")
    up = Up(tmp_path / "s")
    assert up.rest() == 1
    up.__exit__()
    assert (
        up.lines[-1]
        == "there is no program /nowhere/prometheus (setting prometheus); `tapewatch doctor` says how to get it"
    )


def test_the_kill_switch_works_without_any_process_of_ours(tmp_path):
    state = str(tmp_path)
    (tmp_path / "version").write_text("1\n")
    told = json.loads(cli("kill-switch", "status", "--json", "--state", state).stdout)
    assert told == {"on": False, "thrown": None, "state": state}
    assert cli("kill-switch", "on", "--by", "ann", "--why", "drill", "--state", state).returncode == 0
    assert json.loads(cli("kill-switch", "status", "--json", "--state", state).stdout)["thrown"]["by"] == "ann"
    assert "kill switch off" in cli("kill-switch", "off", "--state", state).stdout
    assert not (tmp_path / "kill-switch.json").exists()


def test_doctor_names_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_ALERTMANAGER", "/nowhere/am")
    done = cli("doctor", "--json", "--state", str(tmp_path / "s"))
    assert done.returncode == 1
    missing = [check for check in json.loads(done.stdout) if not check["ok"]]
    assert [(check["name"], "apt-get install prometheus-alertmanager" in check["get"]) for check in missing] == [
        ("alertmanager", True)
    ]


def test_stopping_while_starting_is_no_crash(tmp_path):
    up = Up(tmp_path / "s")
    deadline = time.monotonic() + 60
    while not (tmp_path / "s" / "estate.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(up.process.pid, signal.SIGTERM)
    assert up.rest() == 1
    up.__exit__()
    assert up.lines[-1] == "stopped while starting"
