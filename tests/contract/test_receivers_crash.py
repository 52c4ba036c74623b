"""The bridge as a process: killed between sending and noting it loses no page; wrong files; a lost page is an alert."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from control.bridge_config import load_bridge
from control.config import RoleConfig, save_config
from control.layout import Layout
from control.roles import CONFIG_REFUSED
from incidents.paging.channels import CHANNELS
from kernel.errors import InputError
from tests.contract.bridge_plant import ADMIN, WEBHOOK, bridge_file, webhook
from tests.contract.servers import answers, free_port, until
from tests.contract.sinks import Cut, Say, Slow, sinks


class BridgeProcess:
    def __init__(self, root: Path, file: Path, alertmanager_url: str = "http://127.0.0.1:9") -> None:
        self.layout, self.port = Layout(root), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        for name in ("admin", "webhook"):
            self.layout.secret(name).parent.mkdir(parents=True, exist_ok=True)
            self.layout.secret(name).write_text(f"{name}-secret")
        config = RoleConfig(
            role="bridge", replica="bridge-1", state=str(root), port=self.port, engine_http_port=1,
            engine_stream_port=1,
            market_data_port=1, settlement_port=1, estate_port=1, control_port=1, prometheus_url="",
            alertmanager_url=alertmanager_url, instruments=(), bridge=str(file),
        )  # fmt: skip
        save_config(config, self.layout.config("bridge-1"))
        self.argv = [sys.executable, "-m", "control.roles", str(self.layout.config("bridge-1"))]
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = subprocess.Popen(self.argv)  # noqa: ASYNC220 - a test may wait
        await until(lambda: answers(f"{self.url}/health/ready"))

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    async def pages(self) -> list[dict[str, str]]:
        async with (
            aiohttp.ClientSession(headers=ADMIN) as session,
            session.get(f"{self.url}/v1/pages?limit=1000") as answer,
        ):
            return list(await answer.json())

    async def post(self, channel: str, **changes: str) -> int:
        async with (
            aiohttp.ClientSession(headers=WEBHOOK) as session,
            session.post(f"{self.url}/v1/pages/{channel}", json=webhook(**changes)) as answer,
        ):
            return answer.status


@contextlib.contextmanager
def ended(bridge: BridgeProcess):
    try:
        yield bridge
    finally:
        if bridge.process is not None and bridge.process.poll() is None:
            bridge.kill()


async def test_killed_between_sending_and_noting_no_page_is_lost_and_keyed_ones_show_once(tmp_path):
    async with sinks() as sink:
        file = bridge_file(tmp_path, sink.url, patience={"timeout_s": 5.0})
        with ended(BridgeProcess(tmp_path / "state", file)) as bridge:
            await bridge.start()
            for channel in CHANNELS:
                sink.script(channel, Slow(4.0))
                assert await bridge.post(channel) == 202

            async def all_arrived() -> bool:
                return all(sink.kept[channel] for channel in CHANNELS)

            await until(all_arrived)
            assert bridge.kill() == -signal.SIGKILL
            await bridge.start()

            async def all_over() -> bool:
                pages = await bridge.pages()
                return len(pages) == len(CHANNELS) and {one["phase"] for one in pages} <= {"delivered", "accepted"}

            await until(all_over)
            assert bridge.kill(signal.SIGTERM) == 0
        assert sink.problems == []
        for name, channel in CHANNELS.items():
            if channel.keyed:
                assert len(sink.alerts(name)) == 1
            else:
                assert len(sink.kept[name]) == (1 if channel.looks else 2), name


async def test_a_page_taken_in_is_sent_after_a_crash_before_any_try(tmp_path):
    async with sinks() as sink:
        sink.script("pagerduty", *[Say(503)] * 3)
        file = bridge_file(tmp_path, sink.url)
        with ended(BridgeProcess(tmp_path / "state", file)) as bridge:
            await bridge.start()
            assert await bridge.post("pagerduty") == 202
            bridge.kill()
            await bridge.start()

            async def arrived() -> bool:
                return bool(sink.kept["pagerduty"])

            await until(arrived)
            bridge.kill(signal.SIGTERM)


async def test_a_lost_page_is_an_alert_of_its_own_and_stays_one_over_a_restart(tmp_path):
    posted: list[dict[str, dict[str, str]]] = []

    async def alerts(request: web.Request) -> web.Response:
        posted.extend(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/api/v2/alerts", alerts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with sinks() as sink:
        sink.script("teams", Say(404))
        with ended(BridgeProcess(tmp_path / "state", bridge_file(tmp_path, sink.url), url)) as bridge:
            await bridge.start()
            assert await bridge.post("teams") == 202

            async def told() -> bool:
                return bool(posted)

            await until(told)
            bridge.kill()
            seen = len(posted)
            await bridge.start()

            async def told_again() -> bool:
                return bool(posted[seen:])

            await until(told_again)
            bridge.kill(signal.SIGTERM)
    await runner.cleanup()
    for one in posted:
        assert one["labels"]["alertname"] == "PageNotDelivered"
        assert one["labels"]["channel"] == "teams"
        assert "404" in one["annotations"]["description"]
        assert "teams-secret" not in json.dumps(one)
    assert len({one["startsAt"] for one in posted}) == 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
async def test_killed_again_and_again_no_page_is_lost_and_what_has_a_key_shows_once(tmp_path, seed):
    """Forty pages on every channel, answers of all kinds, five kills at moments of chance."""
    chance = random.Random(seed)
    kinds = (Say(503), Slow(0.2), Cut(keep=True), Cut(), Say(500, keep=True), Say(429, {}, {"Retry-After": "0.1"}))
    async with sinks() as sink:
        file = bridge_file(tmp_path, sink.url, patience={"timeout_s": 2.0})
        with ended(BridgeProcess(tmp_path / "state", file)) as bridge:
            await bridge.start()
            for channel in CHANNELS:
                sink.script(channel, *[chance.choice(kinds) for _ in range(30)])
            wanted = [(channel, f"group {n}") for n in range(40) for channel in CHANNELS]
            chance.shuffle(wanted)
            kills = set(chance.sample(range(len(wanted)), 5))
            for n, (channel, key) in enumerate(wanted):
                assert await bridge.post(channel, key=key) == 202
                if n in kills:
                    await asyncio.sleep(chance.random() * 0.3)
                    bridge.kill()
                    await bridge.start()

            async def all_over() -> bool:
                pages = await bridge.pages()
                return len(pages) == len(wanted) and {one["phase"] for one in pages} <= {"delivered", "accepted"}

            await until(all_over, 60)
            bridge.kill(signal.SIGTERM)
        assert sink.problems == []
        for name, channel in CHANNELS.items():
            if channel.keyed:
                assert len(sink.alerts(name)) == 40
            else:
                assert len(sink.kept[name]) >= 40
        marks = [one.body["Body"].rsplit("#", 1)[1] for one in sink.kept["sms"]]
        assert len(set(marks)) == len(marks) == 40, "a text message is looked for before it is sent again"


SMS = {
    "url": "http://127.0.0.1:1", "account": "AC" + "0" * 32, "secret_file": "twilio-token", "sender": "+12025550100",
    "to": {"default": ["+4930123456"]},
}  # fmt: skip


def changed(**changes: object) -> dict[str, object]:
    return {"loopback": True, "channels": {"sms": SMS | changes}}


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ("channels: [", "bridge.yml"),
        ("[]", "bridge.yml"),
        ({"channels": {}}, "channels"),
        ({"channels": {"pigeon": {}}}, "channels.pigeon"),
        ({"channels": {"sms": SMS}, "wings": 2}, "wings"),
        ({"channels": {"sms": SMS}}, "channels.sms: address at 127.0.0.1 is not https"),
        ({"channels": {"sms": SMS | {"url": "https://example.com"}}}, "is not the provider's"),
        ({"channels": {"sms": SMS | {"url": "https://169.254.169.254"}}}, "is not the provider's"),
        ({"channels": {"sms": SMS | {"url": "https://api.twilio.com.example.com"}}}, "is not the provider's"),
        ({"loopback": True, "channels": {"sms": SMS | {"url": "https://api.twilio.com"}}}, "is not this machine"),
        (changed(to={}), "to.default"),
        (changed(to={"default": ["12345"]}), "to.default"),
        (changed(account="me"), "account"),
        (changed(sender="me"), "sender"),
        (changed(secret_file=""), "secret_file"),
        (changed(secret_file="../twilio-token"), "is a path"),
        (changed(secret_file="none"), "cannot be read"),
        (changed(secret_file="short"), "holds no secret"),
        (changed(secret_file="open"), "is open to others"),
        ({**changed(), "escalation": {"sms": "sms"}}, "leads back to itself"),
        ({**changed(), "escalation": {"sms": "call"}}, "is no channel of this file"),
        ({**changed(), "patience": {"give_up_s": 0}}, "patience.give_up_s"),
        ({"loopback": True, "channels": {"teams": {}}}, "channels.teams.url_file"),
        ({"channels": {"sms": SMS | {"url": ""}}, "public_url": "http://example.com"}, "public_url"),
    ],
)
def test_a_wrong_file_is_refused_with_where_and_what(tmp_path, told, where):
    for name, text, mode in (("twilio-token", "x" * 22, 0o600), ("short", "x", 0o600), ("open", "x" * 22, 0o644)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    path = tmp_path / "bridge.yml"
    path.write_text(told if isinstance(told, str) else yaml.safe_dump(told))
    with pytest.raises(InputError, match=where.replace(".", r"\.")) as refused:
        load_bridge(path)
    assert "\n" not in str(refused.value)
    assert "x" * 22 not in str(refused.value)


def test_a_bridge_with_a_wrong_file_ends_with_one_sentence(tmp_path):
    (tmp_path / "bridge.yml").write_text("channels: {}")
    bridge = BridgeProcess(tmp_path / "state", tmp_path / "bridge.yml")
    done = subprocess.run(bridge.argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in {1, CONFIG_REFUSED}
    assert done.stderr.count("\n") == 1
    assert "channels: is empty" in done.stderr
