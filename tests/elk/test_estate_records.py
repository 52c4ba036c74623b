"""What a running estate logs, in the model and on the real node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monitor.elk.pipelines import LEVELS
from monitor.elk.schema import flat, unknown
from tests.elk.logs import admin, bulk, search

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.elastic, pytest.mark.long]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Every log line of an estate that came up, lost a gateway, mended it and was stopped."""
    state = tmp_path_factory.mktemp("estate") / "state"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAPEWATCH_STATE": str(state), "TAPEWATCH_PORTS": "auto"}
    up = subprocess.Popen(
        [sys.executable, "-m", "cli", "up"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert any("Ctrl-C" in line for line in up.stdout or ()), "the estate did not come up"
        subprocess.run(
            [sys.executable, "-m", "cli", "fault", "inject", "gateway-hang"],
            cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        end = time.monotonic() + 120
        while not any(b"incident-resolved" in path.read_bytes() for path in (state / "logs").glob("control*.jsonl")):
            assert time.monotonic() < end, "the incident was not resolved"
            time.sleep(0.5)
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    return [(path.name, line) for path in sorted((state / "logs").iterdir()) for line in path.read_bytes().splitlines()]


def test_every_record_of_an_estate_is_in_the_model_and_arrives_whole(elastic, elastic_name, records):
    admin(elastic).setup()
    ours = [json.loads(line) for _, line in records if line.startswith(b"{")]
    roles = {one["service.name"] for one in ours if "service.name" in one}
    assert {"engine", "gateway", "control"} <= roles
    assert not {name for one in ours for name in unknown(one)}
    stream = f"logs-exchange.estate-{elastic_name}"
    answers = bulk(elastic, stream, [{"message": line.decode(errors="replace")} for _, line in records])
    assert {one["status"] for one in answers} == {201}
    found = [one for one in search(elastic, stream) if one["event"].get("action") != "plain-line"]
    assert len(found) == len(ours)
    assert not [one for one in found if "unmapped_field" in one.get("tags", [])]

    def key(one):
        leaves = {name: value for name, value in flat(one).items() if name != "event.ingested"}
        leaves["log.level"] = LEVELS[leaves["log.level"]]
        return json.dumps(leaves, sort_keys=True)

    assert sorted(map(key, found)) == sorted(map(key, ours)), "each arrives as it was written"
