"""The bridge in a whole estate: from an alert by the project's own routes to a telephone, the bridge killed between."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from control.addresses import load_addresses
from control.layout import Layout
from kernel.errors import TapewatchError
from tests.contract.bridge_plant import bridge_file
from tests.contract.servers import ALERTMANAGER, PROMETHEUS, until
from tests.contract.sinks import sinks

pytestmark = [
    pytest.mark.estate,
    pytest.mark.skipif(not (ALERTMANAGER and PROMETHEUS), reason="no Prometheus or Alertmanager"),
]
ROOT = Path(__file__).parents[2]


def addresses(layout: Layout):
    try:
        return load_addresses(layout.addresses)
    except TapewatchError:
        return None


async def test_an_alert_reaches_a_telephone_over_a_bridge_that_was_killed(tmp_path):
    async with sinks() as sink:
        env = {
            **os.environ, "TAPEWATCH_BRIDGE": str(bridge_file(tmp_path, sink.url)), "TAPEWATCH_PORTS": "auto",
            "TAPEWATCH_STATE": str(tmp_path / "state"), "TAPEWATCH_LOAD_RATE_PER_S": "0",
        }  # fmt: skip
        layout = Layout(tmp_path / "state")
        with (tmp_path / "up.out").open("wb") as output:
            estate = subprocess.Popen(  # noqa: ASYNC220 - a test may wait
                [sys.executable, str(ROOT / "cli.py"), "up"], env=env, cwd=ROOT, stdout=output, stderr=output
            )
        try:

            async def up() -> bool:
                assert estate.poll() is None, (tmp_path / "up.out").read_text()
                book = addresses(layout)
                return book is not None and book.phase == "up"

            await until(up, 180)
            (bridge,) = addresses(layout).workloads["bridge"]
            os.kill(bridge.pid, signal.SIGKILL)
            labels = {
                "alertname": "LedgerTest", "severity": "critical", "level": "1", "team": "settlement-operations",
                "service": "settlement",
            }  # fmt: skip
            alerts = [{"labels": labels, "annotations": {"summary": "a test of the whole way"}}]
            url = addresses(layout).alertmanager
            async with aiohttp.ClientSession() as session, session.post(f"{url}/api/v2/alerts", json=alerts) as answer:
                assert answer.status == 200

            async def rung() -> bool:
                return all(
                    any("a test of the whole way" in str(one.body) for one in sink.kept[channel])
                    for channel in ("sms", "call")
                )

            await until(rung, 90)
            assert sink.problems == []
            query = f"{addresses(layout).prometheus}/api/v1/query"

            async def watched() -> bool:
                params = {"query": 'tapewatch_pages_total{job="bridge",channel="sms",result="delivered"} > 0'}
                async with aiohttp.ClientSession() as session, session.get(query, params=params) as answer:
                    return bool((await answer.json())["data"]["result"])

            await until(watched, 90)
        finally:
            estate.send_signal(signal.SIGINT)
            await asyncio.to_thread(estate.wait, 90)
