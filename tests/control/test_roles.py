"""The exchange's processes as the estate starts them: a crash loses nothing, a wrong start is one sentence."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from control.addresses import Addresses, ReplicaAddress, save_addresses, url_of
from control.config import ControlTuning, RoleConfig, save_config
from control.drill_day import day_of
from control.layout import Layout
from control.plan import free_ports
from control.roles import CONFIG_REFUSED
from control.scenario import Turn
from exchange.accounting import Account
from exchange.adapters.file_log import FileLog
from exchange.adapters.load_account import account
from exchange.adapters.verify import verify
from exchange.calendar import PhaseName
from exchange.types import Instrument, Symbol, Ticks
from kernel.time import Instant

INSTRUMENTS = tuple(Instrument(Symbol(symbol), Ticks(10_000), Ticks(2_000)) for symbol in ("AAA", "BBB"))
ADMIN = {"Authorization": "Bearer admin-secret"}


class Estate:
    """The configuration of a small estate, and the processes started from it."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        names = ("engine", "market-data", "settlement", "gateway-1", "gateway-2", "load", "stream")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for name in ("admin", "trade"):
            secret = self.layout.secret(name)
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_text(f"{name}-secret")
        replicas = tuple(ReplicaAddress(name, url_of(self.ports[name])) for name in ("gateway-1", "gateway-2"))
        save_addresses(
            Addresses(
                version=1, phase="up", pid=0, started_at=Instant(0), state=str(root), estate="", control="",
                prometheus="", alertmanager="", market_data="", settlement="", engine=url_of(self.ports["engine"]),
                load="", engine_stream_port=self.ports["stream"], faults_allowed=True, workloads={"gateway": replicas},
            ),
            self.layout.addresses,
        )  # fmt: skip

    def config(self, replica: str, **changes: object) -> Path:
        config = RoleConfig(
            role="gateway" if replica.startswith("gateway") else replica, replica=replica, state=str(self.layout.root),
            port=self.ports[replica], engine_http_port=self.ports["engine"], engine_stream_port=self.ports["stream"],
            market_data_port=self.ports["market-data"], settlement_port=self.ports["settlement"], estate_port=1,
            control_port=1, prometheus_url="", alertmanager_url="", instruments=INSTRUMENTS,
            gateway_capacity_per_s=5_000, faults_allowed=True,
        )  # fmt: skip
        path = self.layout.config(replica)
        save_config(msgspec.structs.replace(config, **changes), path)
        return path

    def start(self, replica: str, **changes: object) -> None:
        argv = [sys.executable, "-m", "control.roles", str(self.config(replica, **changes))]
        self.processes[replica] = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def kill(self, replica: str) -> None:
        process = self.processes.pop(replica)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def stop(self) -> dict[str, tuple[int, str]]:
        ended = {}
        for replica, process in reversed(self.processes.items()):
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
            ended[replica] = (process.returncode, errors)
        self.processes.clear()
        return ended

    def url(self, replica: str, path: str) -> str:
        return url_of(self.ports[replica]) + path


@pytest.fixture
def estate(tmp_path):
    made = Estate(tmp_path)
    yield made
    for replica in list(made.processes):
        made.kill(replica)


async def ready(session: aiohttp.ClientSession, url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


async def sequence(session: aiohttp.ClientSession, estate: Estate) -> int:
    async with session.get(estate.url("engine", "/metrics")) as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith("exchange_engine_sequence")]
    return int(float(lines[0].rpartition(" ")[2])) if lines else 0  # before the first command there is none


async def takes(session: aiohttp.ClientSession, estate: Estate, count: int) -> None:
    """Return once the engine has taken so many more commands."""
    until = await sequence(session, estate) + count
    async with asyncio.timeout(120):
        while await sequence(session, estate) < until:  # noqa: ASYNC110 - asks
            await asyncio.sleep(0.05)


async def post(session: aiohttp.ClientSession, url: str, body: object) -> bytes:
    async with session.post(url, json=body, headers=ADMIN) as answer:
        data = await answer.read()
        assert answer.status == 200, data
        return data


async def test_an_engine_killed_under_load_loses_no_acknowledged_order(estate):
    for replica in ("engine", "gateway-1", "gateway-2", "settlement", "load"):
        estate.start(replica)
    async with aiohttp.ClientSession() as session:
        for replica in estate.processes:
            await ready(session, estate.url(replica, "/health/ready"))
        await post(session, estate.url("load", "/admin/rate"), {"rate": 400})
        for kill in range(2):
            await takes(session, estate, 150)
            estate.kill("engine")
            estate.start("engine")
            await ready(session, estate.url("engine", "/health/ready"))
            async with session.get(estate.url("engine", "/v1/status")) as answer:
                status = await answer.json()
            assert (status["market_halted"], status["clean_start"]) == (True, False)
            await post(session, estate.url("engine", "/admin/resume"), {"key": f"open-{kill}"})
        await takes(session, estate, 150)
        told = msgspec.json.decode(await post(session, estate.url("load", "/admin/stop"), {}), type=Account)
        async with session.get(estate.url("engine", "/v1/hash")) as answer:
            state = await answer.json()
        async with asyncio.timeout(60):
            while True:
                async with session.get(estate.url("settlement", "/v1/ledger")) as answer:
                    ledger = await answer.json()
                async with session.get(estate.url("engine", "/metrics")) as answer:
                    assert "exchange_engine_sequence" in await answer.text()
                if ledger["trades"]:
                    break
                await asyncio.sleep(0.1)
    ended = estate.stop()
    assert {replica: end for replica, end in ended.items() if end != (0, "")} == {}
    assert told.clean, told.examples
    assert told.acknowledged > 200
    assert told.unknown == 0
    assert account(estate.layout.load, estate.layout.journal, INSTRUMENTS) == told
    assert verify(estate.layout.journal, INSTRUMENTS).state_hash == state["state_hash"]
    assert ledger["imbalance"] == 0


def run(path: Path) -> tuple[int, str]:
    argv = [sys.executable, "-m", "control.roles", str(path)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stderr


def one_sentence(code: int, errors: str, words: str, expected: int = 1) -> None:
    assert code == expected, errors
    assert words in errors
    assert "Traceback" not in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("replica", ["engine", "gateway-1", "market-data", "settlement"])
def test_a_port_in_use_is_one_sentence(estate, replica):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", estate.ports[replica]))
        taken.listen()
        one_sentence(*run(estate.config(replica)), f"cannot listen on 127.0.0.1:{estate.ports[replica]}")


def test_a_missing_secret_is_one_sentence(estate):
    estate.layout.secret("trade").unlink()
    one_sentence(*run(estate.config("gateway-1")), "cannot read the secret")


def test_a_configuration_of_another_version_or_none_is_one_sentence(estate, tmp_path):
    path = tmp_path / "strange.json"
    path.write_text('{"role": "engine"}')
    one_sentence(*run(path), "no configuration of this version", CONFIG_REFUSED)
    one_sentence(*run(tmp_path / "none.json"), "cannot read the configuration", CONFIG_REFUSED)
    one_sentence(*run(estate.config("engine", role="engin")), "is none of")


def test_a_corrupt_journal_is_one_sentence_with_its_offset(estate):
    with FileLog(estate.layout.journal) as log:
        log.append([b"x" * 50, b"y" * 50])
        log.sync()
    segment = next(estate.layout.journal.glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(data)
    one_sentence(*run(estate.config("engine")), "corrupt at byte")


def test_a_state_directory_that_cannot_be_written_is_one_sentence(estate):
    (estate.layout.root / "exchange").write_text("a file where a directory should be")
    one_sentence(*run(estate.config("engine")), "cannot open the journal")


async def test_an_engines_process_turns_the_phases_of_its_calendar_and_a_crash_makes_none_twice(estate):
    began, path = time.monotonic(), estate.layout.root / "calendar.yaml"
    run(estate.layout.root / "none.json")
    # Two lives of the engine come before the turn, on this machine as it is now.
    turn_s = max(10, round(20 * (time.monotonic() - began)))
    started = Instant(time.time_ns())
    day = {PhaseName.PRE_OPEN: -60, PhaseName.CONTINUOUS: turn_s, PhaseName.CLOSED: 3600}
    turns = [Turn(phase=phase, at_s=at_s) for phase, at_s in day.items()]
    path.write_text(json.dumps(day_of(turns, started)))
    kept = {"phases_by_calendar": True, "tuning": ControlTuning(calendar=str(path))}
    async with aiohttp.ClientSession() as session:
        estate.start("engine", **kept)
        await ready(session, estate.url("engine", "/health/ready"))
        before = await engine_status(session, estate, lambda status: status["seq"] == 1)
        assert (before["market_phase"], before["next_phase"], before["by_calendar"]) == ("pre_open", "continuous", True)
        estate.kill("engine")
        estate.start("engine", **kept)
        await ready(session, estate.url("engine", "/health/ready"))
        again = await engine_status(session, estate, lambda status: status["market_phase"] == "pre_open")
        assert again["next_phase_at"] == before["next_phase_at"]
        # The turn to pre_open, the halt after the crash, the turn to continuous.
        status = await engine_status(session, estate, lambda status: status["seq"] == 3)
        assert time.time_ns() >= before["next_phase_at"]
        assert (status["market_phase"], status["next_phase"]) == ("continuous", "closed")
        assert status["market_halt_reason"] == "recovery", "a turn lifts no halt"


async def engine_status(session, estate, holds):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        async with session.get(estate.url("engine", "/v1/status")) as answer:
            status = await answer.json()
        if holds(status):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(f"not so within 90 s: {status}")
