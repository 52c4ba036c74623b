"""Detectors beside a whole estate: what Prometheus shows, a kill, people's word, and a Prometheus that is gone."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from control.anomaly_role import COMPILE
from monitor.adapters.exporter import samples

pytestmark = pytest.mark.estate
CODE = "import sys; sys.argv = ['tapewatch', *sys.argv[1:]]; import cli; cli.main()"


class Estate:
    """An estate of its own, and what is asked of it."""

    def __init__(self, home):
        self.environment = os.environ | {"TAPEWATCH_STATE": str(home / "up"), "TAPEWATCH_PORTS": "auto"}
        self.home = home / "up"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, "up"], env=self.environment, stdout=subprocess.DEVNULL
        )

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, "-c", CODE, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )

    @property
    def book(self):
        return json.loads((self.home / "estate.json").read_text())

    @property
    def detectors(self):
        return self.book["workloads"]["anomaly"][0]

    def scraped(self):
        with urllib.request.urlopen(f"{self.detectors['url']}/metrics", timeout=5) as answer:
            return list(samples(answer.read()))

    def shown(self, name, **labels):
        try:
            found = self.scraped()
        except OSError:
            return []
        return [value for each, given, value in found if each == name and labels.items() <= given.items()]

    def asked(self, query):
        url = f"{self.book['prometheus']}/api/v1/query?query={query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())["data"]["result"]

    def until(self, holds, what, seconds):
        deadline = time.monotonic() + seconds
        while not (found := _tried(holds)):
            assert time.monotonic() < deadline, what
            time.sleep(0.25)
        return found


def _tried(holds):
    try:
        return holds()
    except (OSError, KeyError, ValueError, IndexError):
        return None


@pytest.fixture
def estate(tmp_path):
    # Compiled before any deadline: on busy cores that takes minutes, and only where it was not done before.
    subprocess.run([sys.executable, "-c", COMPILE], check=True)
    started = Estate(tmp_path)
    yield started
    started.process.send_signal(signal.SIGTERM)
    started.process.wait(90)


def test_detectors_are_scraped_go_on_after_a_kill_take_an_answer_and_fall_silent_without_prometheus(estate):
    wanted = {("engine-order-rate", ""), ("gateway-latency", "gateway-1"), ("process-memory", "settlement-1")}

    def scored():
        found = estate.asked("anomaly_score")
        return wanted <= {(one["metric"]["series"], one["metric"].get("item", "")) for one in found}

    estate.until(scored, "no scores in Prometheus", 90)

    estate.until(lambda: (estate.home / "anomaly" / "state.bin").stat().st_size, "no state was kept", 60)
    first = estate.detectors["pid"]
    os.kill(first, signal.SIGKILL)
    estate.until(lambda: estate.detectors["pid"] not in {first, None}, "it was not started again", 60)
    estate.until(lambda: sum(estate.shown("anomaly_steps_total", kind="live")) > 0, "no step after the kill", 90)
    assert sum(estate.shown("anomaly_steps_total", kind="history")) == 0, "it went on from its state"
    log = estate.home / "logs" / "anomaly-1.jsonl"  # written from a thread
    estate.until(lambda: "anomaly-state-restored" in log.read_text(), "it does not say what it did", 60)

    told = estate.run("anomaly", "feedback", "gateway-latency/gateway-1", "--false")
    assert told.returncode == 0, told.stderr
    estate.until(lambda: estate.shown("anomaly_feedback_total", answer="false") == [1.0], "not taken in", 60)

    assert estate.run("fault", "inject", "prometheus-down").returncode == 0

    def silent():
        told = {name: value for name, _, value in estate.scraped()}  # one page: two would be of two moments
        return None if "anomaly_score" in told or "anomaly_fresh_seconds" not in told else told

    told = estate.until(silent, "stale", 90)
    assert told["anomaly_fresh_seconds"] >= 10
    assert "anomaly_alert" not in told
    seen = estate.run("anomaly", "watch", "--once")
    assert seen.stdout.startswith("no scores of the present: readings are"), seen.stdout + seen.stderr
