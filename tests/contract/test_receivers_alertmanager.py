"""The real Alertmanager, with the receivers of the project's own file, against sinks that hold it to each provider."""
# mypy: disable-error-code="type-arg, no-any-return"

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from incidents.paging.outbox import Phase
from tests.contract.bridge_plant import bridge_plant
from tests.contract.servers import ALERTMANAGER, alertmanager, free_port
from tests.contract.sinks import GENIE_KEY, PATHS, ROUTING_KEY, TELEGRAM_TOKEN, WEBHOOK_TOKEN, Cut, Say, Sinks, sinks
from tests.contract.sinks_mail import Mailbox, mailbox

pytestmark = [pytest.mark.servers, pytest.mark.skipif(not ALERTMANAGER, reason="no Alertmanager")]

OWN = yaml.safe_load((Path(__file__).parents[2] / "alerts" / "alertmanager.yml").read_text())
NATIVE = ("slack", "pagerduty", "opsgenie", "jsm", "telegram", "discord", "webhook", "email")
BRIDGED = ("teams", "zenduty", "sms", "call")
LOUD = {
    "summary": "Gateway gateway-1 does not answer",
    "description": "x" * 20_000,
    "runbook_url": "https://example.com/",
}


def own_blocks(kind: str) -> list[dict[str, Any]]:
    """Return every block of a kind in the project's own file."""
    section = {"jsm": "opsgenie"}.get(kind, kind) + "_configs"
    section = "webhook_configs" if kind in BRIDGED else section
    blocks = [block for receiver in OWN["receivers"] for block in receiver.get(section, [])]
    match kind:
        case "jsm":
            return [block for block in blocks if "atlassian" in block.get("api_url", "")]
        case "opsgenie":
            return [block for block in blocks if "atlassian" not in block.get("api_url", "")]
        case "webhook":
            return [block for block in blocks if "/v1/pages/" not in block["url"] and "/api/v1/" not in block["url"]]
        case name if name in BRIDGED:
            return [block for block in blocks if block["url"].endswith(f"/v1/pages/{name}")]
    return blocks


def led(  # noqa: C901 - one case for each kind
    kind: str, block: dict[str, Any], sink: Sinks, folder: Path, *, mail: int = 0, bridge: str = ""
) -> dict[str, Any]:
    """Return a block of ours led to a sink: addresses and credentials change, nothing else does."""
    made = copy.deepcopy(block)

    def kept(name: str, text: str) -> str:
        (folder / name).write_text(text)
        return str(folder / name)

    match kind:
        case "slack":
            made["api_url_file"] = kept("slack-url", sink.url + PATHS["slack-webhook"])
        case "pagerduty":
            made |= {"routing_key_file": kept("pagerduty-key", ROUTING_KEY), "url": f"{sink.url}/v2/enqueue"}
        case "opsgenie":
            made |= {"api_key_file": kept("opsgenie-key", GENIE_KEY), "api_url": f"{sink.url}/"}
        case "jsm":
            made |= {"api_key_file": kept("jsm-key", GENIE_KEY), "api_url": f"{sink.url}/jsm/ops/integration/"}
        case "telegram":
            made |= {"bot_token": TELEGRAM_TOKEN, "api_url": sink.url}
        case "discord":
            made["webhook_url"] = sink.url + PATHS["discord"]
        case "email":
            made |= {"smarthost": f"127.0.0.1:{mail}", "require_tls": False}
            for key in ("auth_username", "auth_password_file"):
                made.pop(key, None)
        case "webhook":
            made["url"] = f"{sink.url}/hook"
            made["http_config"]["authorization"]["credentials_file"] = kept("hook-token", WEBHOOK_TOKEN)
        case _:
            made["url"] = f"{bridge}/v1/pages/{kind}"
            made["http_config"]["authorization"]["credentials_file"] = kept("bridge-token", "webhook-secret")
    return made


def section_of(kind: str) -> str:
    if kind in BRIDGED:
        return "webhook_configs"
    return f"{'opsgenie' if kind == 'jsm' else kind}_configs"


@contextlib.asynccontextmanager
async def routed(folder: Path, receivers: dict[str, tuple[str, dict[str, Any]]], interval: str = "1s"):
    """Run Alertmanager with a route for each receiver, chosen by the label `to`."""
    home = folder / "am"
    home.mkdir()
    routes = [{"receiver": name, "matchers": [f'to="{name}"']} for name in receivers]
    route = {
        "receiver": "nobody", "group_by": ["alertname", "to"], "group_wait": "0s", "group_interval": interval,
        "repeat_interval": "1h", "routes": routes,
    }  # fmt: skip
    told = [{"name": name, section: [block]} for name, (section, block) in receivers.items()]
    async with alertmanager(home, {"route": route, "receivers": [{"name": "nobody"}, *told]}) as url:
        yield url


async def fire(url: str, to: str, *, over: bool = False, count: int = 1, **labels: str) -> None:
    base = {
        "alertname": "GatewayDown",
        "severity": "critical",
        "level": "1",
        "team": "t",
        "service": "gateway",
        "to": to,
    }
    alerts: list[dict[str, Any]] = [
        {"labels": base | labels | {"replica": f"gateway-{n}"}, "annotations": LOUD, "startsAt": "2026-03-02T09:30:00Z"}
        for n in range(count)
    ]
    for each in alerts:
        each["endsAt"] = "2026-03-02T09:31:00Z" if over else "2036-03-02T09:31:00Z"
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/v2/alerts", json=alerts) as answer:
        assert answer.status == 200, await answer.text()


async def failures(url: str, integration: str) -> tuple[float, float]:
    """Return how many notifications Alertmanager says it sent, and how many failed."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()

    def number(name: str) -> float:
        start = f'alertmanager_{name}{{integration="{integration}"'
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    return number("notifications_total"), number("notifications_failed_total")


async def counted(url: str, integration: str, wanted: tuple[float, float]) -> None:
    """Wait until Alertmanager has counted so many: it counts a moment after the answer."""
    async with asyncio.timeout(60):
        while await failures(url, integration) != wanted:  # noqa: ASYNC110 - a server in another process sets no event
            await asyncio.sleep(0.05)


async def until(condition, deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - a server in another process sets no event
            await asyncio.sleep(0.05)


@pytest.fixture
async def sink():
    async with sinks() as made:
        yield made


@pytest.fixture
def mail():
    with mailbox(free_port()) as made:
        yield made


def arrived(kind: str, sink: Sinks, mail: Mailbox | None = None) -> int:
    if kind == "email":
        return len(mail.kept) if mail else 0
    if kind in {"opsgenie", "jsm"}:
        ours = [one for one in sink.kept["opsgenie"] if one.path.startswith("/jsm") == (kind == "jsm")]
        return len(ours)
    return len(sink.kept["slack-webhook" if kind == "slack" else kind])


async def test_every_receiver_of_the_file_keeps_its_providers_contract(tmp_path, sink, mail):
    """All blocks that differ, a firing group of three with texts of 20,000 letters, then its end."""
    receivers, kinds = {}, {}
    for kind in NATIVE:
        blocks = own_blocks(kind)
        assert blocks or kind in {"opsgenie", "jsm"}, f"the file has no {kind} receiver"
        for n, block in enumerate({json.dumps(one, sort_keys=True): one for one in blocks}.values()):
            receivers[f"{kind}-{n}"] = (section_of(kind), led(kind, block, sink, tmp_path, mail=mail.port))
            kinds[f"{kind}-{n}"] = kind
    async with routed(tmp_path, receivers) as url:
        for name in receivers:
            await fire(url, name, count=3)
        wanted = {kind: list(kinds.values()).count(kind) for kind in set(kinds.values())}
        await until(lambda: all(arrived(kind, sink, mail) >= count for kind, count in wanted.items()))
        assert sink.problems == []
        for name in receivers:
            await fire(url, name, count=3, over=True)
        ending = {
            kind: sum(one == kind and receivers[name][1]["send_resolved"] for name, one in kinds.items())
            for kind in wanted
        }
        await until(lambda: all(arrived(kind, sink, mail) >= wanted[kind] + ending[kind] for kind in wanted))
        assert sink.problems == []
    keys = {one.body["dedup_key"] for one in sink.kept["pagerduty"]}
    assert {one.body["event_action"] for one in sink.kept["pagerduty"]} == {"trigger", "resolve"}
    assert len(keys) == wanted["pagerduty"], "the end is told under the beginning's key"
    for message in mail.kept:
        assert "GatewayDown" in message["Subject"]
        assert message["Message-Id"]


async def test_the_bridge_takes_what_alertmanager_sends_and_delivers_it(tmp_path, sink):
    """Alertmanager, the bridge, four providers: the whole way, and back to resolved."""
    folder = tmp_path / "bridge"
    folder.mkdir()
    async with bridge_plant(folder, sink) as plant:
        blocks = {kind: own_blocks(kind) for kind in BRIDGED}
        assert all(blocks.values()), "the file sends to every channel of the bridge"
        receivers = {
            kind: ("webhook_configs", led(kind, blocks[kind][0], sink, tmp_path, bridge=plant.url)) for kind in BRIDGED
        }
        async with routed(tmp_path, receivers) as url:
            for kind in BRIDGED:
                await fire(url, kind, count=3)
            await until(lambda: all(sink.kept[kind] for kind in BRIDGED))
            for kind in BRIDGED:
                await fire(url, kind, count=3, over=True)
            await until(lambda: all(len(sink.kept[kind]) >= 2 for kind in BRIDGED))
            await counted(url, "webhook", (8.0, 0.0))
        assert sink.problems == []
        assert {one.body["alert_type"] for one in sink.kept["zenduty"]} == {"critical", "resolved"}
        assert len(sink.alerts("zenduty")) == 1
        for one in await plant.get("/v1/pages"):
            ended = await plant.until(one["id"])
            assert ended.phase in {Phase.DELIVERED, Phase.ACCEPTED}


async def test_alertmanager_comes_back_to_a_bridge_whose_disk_was_full(tmp_path, sink):
    folder = tmp_path / "bridge"
    folder.mkdir()
    async with bridge_plant(folder, sink) as plant:
        block = led("zenduty", own_blocks("zenduty")[0], sink, tmp_path, bridge=plant.url)
        await plant.outbox.call(lambda outbox: outbox._db.execute("PRAGMA query_only = ON"))
        async with routed(tmp_path, {"zenduty": ("webhook_configs", block)}, "10s") as url:
            await fire(url, "zenduty")
            await asyncio.sleep(1.0)
            assert await plant.get("/v1/pages") == []
            await plant.outbox.call(lambda outbox: outbox._db.execute("PRAGMA query_only = OFF"))
            await until(lambda: sink.kept["zenduty"])
    assert len(sink.kept["zenduty"]) == 1


async def test_the_bridges_key_is_the_one_alertmanager_itself_gives(tmp_path, sink):
    """Whoever moves a team from Alertmanager's own PagerDuty receiver to the bridge keeps its open alerts' keys."""
    folder = tmp_path / "bridge"
    folder.mkdir()
    async with bridge_plant(folder, sink) as plant:
        own = led("pagerduty", own_blocks("pagerduty")[0], sink, tmp_path)
        hook = led("teams", own_blocks("teams")[0], sink, tmp_path, bridge=plant.url)
        hook["url"] = f"{plant.url}/v1/pages/pagerduty"
        home = tmp_path / "am"
        home.mkdir()
        both = {"name": "both", "pagerduty_configs": [own], "webhook_configs": [hook]}
        route = {"receiver": "both", "group_by": ["alertname"], "group_wait": "0s"}
        async with alertmanager(home, {"route": route, "receivers": [both]}) as url:
            await fire(url, "both")
            await until(lambda: len(sink.kept["pagerduty"]) == 2)
    assert len(sink.alerts("pagerduty")) == 1


def one(kind: str, sink: Sinks, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    return {kind: (section_of(kind), led(kind, own_blocks(kind)[0], sink, folder))}


async def test_trap_slack_saying_ok_false_counts_as_sent(tmp_path, sink):
    """Alertmanager 0.25 reads no body of Slack's: what Slack refused with 200 is lost. The bridge's slack reads it."""
    sink.script("slack-webhook", Say(200, {"ok": False, "error": "channel_is_archived"}))
    async with routed(tmp_path, one("slack", sink, tmp_path), "1h") as url:
        await fire(url, "slack")
        await until(lambda: sink.sent("slack-webhook"))
        await counted(url, "slack", (1.0, 0.0))
        await asyncio.sleep(1.5)
        assert await failures(url, "slack") == (1.0, 0.0)
    assert sink.kept["slack-webhook"] == []


def several(kinds: tuple[str, ...], sink: Sinks, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    return {kind: (section_of(kind), led(kind, own_blocks(kind)[0], sink, folder)) for kind in kinds}


def provider_of(kind: str) -> str:
    return "slack-webhook" if kind == "slack" else kind


async def test_trap_429_is_not_tried_again(tmp_path, sink):
    """So a sink of ours answers 503, never 429."""
    kinds = ("slack", "discord", "webhook")
    async with routed(tmp_path, several(kinds, sink, tmp_path), "1h") as url:
        for kind in kinds:
            sink.script(provider_of(kind), Say(429, {}, {"Retry-After": "1"}))
            await fire(url, kind)
        await until(lambda: all(sink.sent(provider_of(kind)) for kind in kinds))
        for kind in kinds:
            await counted(url, kind, (1.0, 1.0))
        await asyncio.sleep(2.0)
        for kind in kinds:
            assert (await failures(url, kind))[1] == 1.0, kind
            assert len(sink.sent(provider_of(kind))) == 1, kind


async def test_trap_discord_is_never_cut(tmp_path, sink):
    """Alertmanager 0.25 sends an embed however long it is; Discord refuses it and it is lost. So our texts are cut."""
    block = led("discord", own_blocks("discord")[0], sink, tmp_path)
    own = {**block}
    endless = {**block, "message": "{{ range .Alerts }}{{ .Annotations.description }}{{ end }}"}
    receivers = {"endless": ("discord_configs", endless), "own": ("discord_configs", own)}
    async with routed(tmp_path, receivers, "1h") as url:
        await fire(url, "endless", count=50)
        await until(lambda: sink.problems)
        assert sink.kept["discord"] == []
        await fire(url, "own", count=50)
        await until(lambda: sink.kept["discord"])
    assert len(sink.problems) == 1


async def test_trap_alertmanager_dies_of_a_telegram_reply_without_chat(tmp_path, sink):
    """0.25 follows a pointer that is not there. Telegram's own replies always carry `chat`; a proxy's may not."""
    sink.script("telegram", Say(200, {"ok": True, "result": {"message_id": 1, "date": 1, "text": "x"}}))
    async with routed(tmp_path, one("telegram", sink, tmp_path), "1h") as url:
        await fire(url, "telegram")
        await until(lambda: sink.sent("telegram"))

        async def gone() -> bool:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with aiohttp.ClientSession() as session, session.get(f"{url}/-/healthy") as answer:
                    return answer.status != 200
            return True

        async with asyncio.timeout(60):
            while not await gone():  # noqa: ASYNC110 - a server in another process sets no event
                await asyncio.sleep(0.05)


async def test_503_and_cut_connections_are_tried_again_by_alertmanager(tmp_path, sink):
    kinds = ("slack", "pagerduty", "opsgenie", "discord", "webhook")
    async with routed(tmp_path, several(kinds, sink, tmp_path), "10s") as url:
        for kind in kinds:
            sink.script(provider_of(kind), Say(503), Cut())
            await fire(url, kind)
        await until(lambda: all(sink.kept[provider_of(kind)] for kind in kinds))
    for kind in kinds:
        assert len(sink.kept[provider_of(kind)]) == 1, kind


async def test_a_mail_server_that_is_busy_is_tried_again(tmp_path, mail, sink):
    mail.doors.append("451 try again later")
    block = led("email", own_blocks("email")[0], sink, tmp_path, mail=mail.port)
    async with routed(tmp_path, {"email": ("email_configs", block)}, "10s") as url:
        await fire(url, "email")
        await until(lambda: mail.kept)
    assert mail.tried == 1


async def test_trap_a_mail_refused_at_its_end_counts_as_sent(tmp_path, mail, sink):
    """0.25 does not look at the answer after the last line: what a server refuses there is lost."""
    mail.answers.append("451 try again later")
    block = led("email", own_blocks("email")[0], sink, tmp_path, mail=mail.port)
    async with routed(tmp_path, {"email": ("email_configs", block)}, "1h") as url:
        await fire(url, "email")
        await until(lambda: mail.tried)
        await counted(url, "email", (1.0, 0.0))
        await asyncio.sleep(1.5)
        assert await failures(url, "email") == (1.0, 0.0)
    assert mail.kept == []
