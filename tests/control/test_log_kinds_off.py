"""Log rules without the kinds of lines: what is switched off is not loaded either."""

import json
import subprocess
import sys

import pytest

from control import plan
from control.config import RoleConfig, load_config, save_config
from control.layout import Layout
from control.settings import load_settings
from control.state_dir import generate_instruments

SERVE = """
import asyncio, json, sys, urllib.request
from pathlib import Path
from control.config import load_config
from control.logwatch_role import serve

made, begin = [], asyncio.create_subprocess_exec

async def spied(*words, **how):
    made.append(words)  # who judges kinds has the detectors' code made first
    return await begin(*words, **how)

asyncio.create_subprocess_exec = spied

async def main():
    config, stop = load_config(Path(sys.argv[1])), asyncio.Event()
    role = asyncio.create_task(serve(config, stop))
    page, url = "", f"http://127.0.0.1:{config.port}/metrics"
    ask = lambda: urllib.request.urlopen(url, timeout=2).read().decode()
    while "tapewatch_log_rules_timestamp_seconds " not in page:
        await asyncio.sleep(0.2)
        try:
            page = await asyncio.to_thread(ask)
        except OSError:
            if role.done():
                break
    stop.set()
    code = await role
    return {"code": code, "kinds": len(made), "numba": "numba" in sys.modules}

print(json.dumps(asyncio.run(main())))
"""


def served(folder, *, log_kinds):
    """What a process of the role says of itself after its first turn over the rules."""
    (port,) = plan.free_ports(1)
    layout = Layout(folder)
    config = RoleConfig(
        role="log-watch", replica="log-watch-1", state=str(folder), port=port, engine_http_port=1,
        engine_stream_port=2, market_data_port=3, settlement_port=4, estate_port=5, control_port=6,
        prometheus_url="http://127.0.0.1:9", alertmanager_url="http://127.0.0.1:9", instruments=(), log_kinds=log_kinds,
    )  # fmt: skip
    layout.logs.mkdir(parents=True)
    save_config(config, folder / "config.json")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder / "config.json")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("on", [False, True])
def test_without_kinds_the_rules_run_and_no_detector_is_loaded(tmp_path, on):
    said = served(tmp_path, log_kinds=on)
    assert (said["code"], said["kinds"]) == (0, int(on))
    assert on or not said["numba"]


def test_the_setting_reaches_the_role_and_is_on_unless_it_is_switched_off(tmp_path, monkeypatch):
    for said, wanted in ((None, True), ("false", False)):
        if said is not None:
            monkeypatch.setenv("TAPEWATCH_LOG_KINDS", said)
        settings, layout = load_settings(state=tmp_path, ports="auto"), Layout(tmp_path)
        layout.secret("webhook").parent.mkdir(exist_ok=True)
        layout.secret("webhook").write_text("w")
        plan.write_configs(settings, layout, plan.choose_ports(settings), generate_instruments(1, 1))
        assert load_config(layout.config("log-watch-1")).log_kinds is wanted
