from __future__ import annotations

import asyncio
import io
import json
import os
from typing import Any

import aiohttp
import psutil
import pytest

from incidents.signals import ALERTS_MAX, BODY_BYTES_MAX, LABELS_MAX, VALUE_BYTES_MAX
from tests.control.desk_plant import NEVER, DeskPlant, alert, desk_plant, notification

GOOD = json.dumps(notification())


def with_labels(**labels: str) -> str:
    return json.dumps(notification(alert(labels={**alert()["labels"], **labels})))


def nested(levels: int) -> str:
    return GOOD.replace('"groupLabels": {}', '"groupLabels": ' + '{"a":' * levels + "1" + "}" * levels)


REFUSED = {
    "nothing": ("", "body"),
    "no JSON": ("alert! alert!", "body"),
    "no UTF-8": (b'{"version": "\xff"}', "body"),
    "another encoding": (GOOD.encode("utf-16"), "body"),
    "a list": ("[]", "body"),
    "a number": ("1", "body"),
    "cut short": (GOOD[:-20], "body"),
    "two documents": (GOOD + GOOD, "body"),
    "5 MB": (GOOD + " " * (5 * 1024 * 1024), f"body: is longer than {BODY_BYTES_MAX} bytes"),
    "10,000 levels of objects": (nested(10_000), "body"),
    "10,000 open brackets": ("[" * 10_000, "body"),
    "a million quotes": ('"' * 1_000_000, "body"),
    "NaN": (GOOD.replace('"truncatedAlerts": 0', '"truncatedAlerts": NaN'), "NaN"),
    "Infinity": (GOOD.replace('"truncatedAlerts": 0', '"truncatedAlerts": -Infinity'), "Infinity"),
    "a key twice": (GOOD.replace('"status": "firing"', '"status": "firing", "status": "resolved"', 1), "twice"),
    "another version": (json.dumps(notification(version="5")), 'only version "4"'),
    "no alerts": (json.dumps({"version": "4", "groupKey": "g"}), "alerts"),
    "alerts that are no list": (json.dumps({**notification(), "alerts": {}}), "alerts"),
    "an alert that is a text": (json.dumps({**notification(), "alerts": ["x"]}), "alerts[0]"),
    "too many alerts": (json.dumps({**notification(), "alerts": [{}] * (ALERTS_MAX + 1)}), "alerts"),
    "no name": (json.dumps(notification(alert(labels={"service": "gateway"}))), "alertname"),
    "a label that is a number": (json.dumps(notification(alert(labels={"alertname": 1}))), "a text is needed"),
    "a label bomb": (with_labels(**{f"l{number}": "x" for number in range(LABELS_MAX)}), f"at most {LABELS_MAX}"),
    "a label of a megabyte": (with_labels(replica="x" * 1_000_000), f"at most {VALUE_BYTES_MAX}"),
    "a NUL": (with_labels(replica="a\0b"), "NUL"),
    "half a surrogate pair": (with_labels(replica="\ud800"), "surrogate"),
    "no time": (json.dumps(notification(alert(startsAt="yesterday"))), "startsAt"),
    "the year 9999": (json.dumps(notification(alert(startsAt="9999-12-31T23:59:59Z"))), "startsAt"),
    "no fingerprint": (json.dumps(notification(alert(fingerprint="../../etc"))), "fingerprint"),
    "another status": (json.dumps(notification(alert(status="exploded"))), "firing or resolved"),
}  # fmt: skip


async def post(
    session: aiohttp.ClientSession, plant: DeskPlant, body: object, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    chosen = plant.bearer("webhook") if headers is None else headers
    data = io.BytesIO(body.encode() if isinstance(body, str) else body) if isinstance(body, str | bytes) else body
    async with session.post(f"{plant.url}/api/v1/alerts", data=data, headers=chosen) as answer:
        return answer.status, (await answer.read()).decode()


async def ask(session: aiohttp.ClientSession, plant: DeskPlant, path: str) -> Any:
    async with session.get(f"{plant.url}{path}", headers=plant.bearer("admin")) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def settled(session: aiohttp.ClientSession, plant: DeskPlant, count: int) -> list[dict[str, Any]]:
    """Return the incidents once there are `count` of them."""
    async with asyncio.timeout(60):
        while True:
            incidents = await ask(session, plant, "/api/v1/incidents?all=true")
            if len(incidents) >= count:
                return list(incidents)
            await asyncio.sleep(0.02)


async def test_whatever_is_no_notification_gets_a_4xx_that_says_why_and_control_lives_on(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        before = psutil.Process(os.getpid()).memory_info().rss
        for name, (body, why) in REFUSED.items():
            status, told = await post(session, plant, body)
            assert (name, status) == (name, 400)
            sentence = json.loads(told)["error"]
            assert (name, why) == (name, why if why in sentence else sentence)
            assert len(sentence) < 500, name
            assert "\n" not in sentence, name
            assert "Traceback" not in sentence, name
        grown = psutil.Process(os.getpid()).memory_info().rss - before
        assert grown < 100 * 1024 * 1024, f"grew by {grown} bytes; the largest body is {BODY_BYTES_MAX}"
        assert await ask(session, plant, "/api/v1/incidents?all=true") == []
        assert (await ask(session, plant, "/health/live")) == {"live": True}
        assert (await post(session, plant, GOOD))[0] == 202


async def test_without_the_right_token_nothing_is_taken_in(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {plant.secret('webhook')}"},
            {"Authorization": plant.secret("webhook")},
            {"Authorization": "Bearer "},
            plant.bearer("admin"),
        ):
            status, told = await post(session, plant, GOOD, headers)
            assert (headers.get("Authorization", "")[:12], status) == (headers.get("Authorization", "")[:12], 401)
            assert plant.secret("webhook") not in told
        await asyncio.sleep(0.1)
        assert await ask(session, plant, "/api/v1/incidents?all=true") == []
        async with session.get(f"{plant.url}/api/v1/incidents", headers=plant.bearer("webhook")) as answer:
            assert answer.status == 401  # who may post alerts may not read incidents


async def test_a_resolved_notice_without_a_firing_one_opens_nothing(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        over = alert(status="resolved", endsAt="2026-03-02T09:31:00Z", fingerprint="0badcafe")
        assert (await post(session, plant, json.dumps(notification(over))))[0] == 202
        assert (await post(session, plant, GOOD))[0] == 202
        (one,) = await settled(session, plant, 1)
        assert list(one["alerts"]) == ["00c0ffee"]


async def test_a_late_firing_notice_of_an_alert_that_has_ended_opens_nothing(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        over = alert(status="resolved", endsAt="2026-03-02T09:31:00Z", fingerprint="0badcafe")
        late = alert(fingerprint="0badcafe", endsAt=NEVER)
        assert (await post(session, plant, json.dumps(notification(over))))[0] == 202
        assert (await post(session, plant, json.dumps(notification(late))))[0] == 202
        other = alert(labels={"alertname": "FeedDown", "service": "market-data"}, fingerprint="00000001")
        assert (await post(session, plant, json.dumps(notification(other))))[0] == 202
        (one,) = await settled(session, plant, 1)
        assert list(one["alerts"]) == ["00000001"]


async def test_the_same_notice_a_hundred_times_is_one_entry(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(post(session, plant, GOOD) for _ in range(100)))
        assert {status for status, _ in answers} == {202}
        (one,) = await settled(session, plant, 1)
        told = await ask(session, plant, f"/api/v1/incidents/{one['id']}/timeline")
        assert [entry["kind"] for entry in told["entries"]].count("alert_firing") == 1
        assert told["tamper"] is None


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '"><svg/onload=alert(1)>',
        "{{ 7 * 191 }}{% for x in ().__class__.__bases__ %}{% endfor %}",
        "[bold red]markup[/] \x1b[31mred\x1b[0m",
        "$(touch /tmp/owned); `id`; ' OR 1=1; --",
        "\u202ereversed\u202c \u2028new line",
    ],
)
async def test_what_labels_say_is_shown_and_never_executed(tmp_path, text):
    hostile = alert(labels={**alert()["labels"], "replica": text}, annotations={"summary": text, "description": text})
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        status, _ = await post(session, plant, json.dumps(notification(hostile)))
        assert status == 202
        (one,) = await settled(session, plant, 1)
        async with session.get(
            f"{plant.url}/api/v1/incidents/{one['id']}/postmortem", headers=plant.bearer("admin")
        ) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for tag in ("<script", "<img", "<svg/onload", "onerror=alert(1)>", "\x1b", "\u202e", "\u2028"):
            assert tag not in page
        assert "1337" not in page  # a template that was executed would have multiplied
        assert one["runs"] == [] or all(run["outcome"] != "mended" for run in one["runs"])


async def test_a_body_that_never_ends_holds_nobody_else_up(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        port = int(plant.url.rpartition(":")[2])
        slow = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /api/v1/alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plant.secret('webhook')}\r\n"
            writer.write(f"{head}Content-Length: 1000000\r\n\r\n{{".encode())
            slow.append(writer)
        await asyncio.gather(*(writer.drain() for writer in slow))
        async with asyncio.timeout(60):
            assert (await post(session, plant, GOOD))[0] == 202
        for writer in slow:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in slow), return_exceptions=True)
        async with asyncio.timeout(60):
            assert await ask(session, plant, "/health/live") == {"live": True}


async def test_a_body_that_says_it_is_huge_is_refused_by_4xx_and_not_kept(tmp_path):
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:

        async def endless():
            for _ in range(64):
                yield b" " * 1024 * 1024

        before = psutil.Process(os.getpid()).memory_info().rss
        try:
            status, told = await post(session, plant, endless())
        except aiohttp.ClientConnectionError:
            status, told = 400, "longer"  # it may hang up on who goes on sending after the answer
        assert status == 400
        assert "longer" in told
        assert psutil.Process(os.getpid()).memory_info().rss - before < 64 * 1024 * 1024
        assert (await post(session, plant, GOOD))[0] == 202


async def test_no_answer_is_one_that_alertmanager_gives_up_on(tmp_path):
    """Alertmanager tries again after a 5xx only; what it must not drop is a good notification."""
    async with desk_plant(tmp_path) as plant, aiohttp.ClientSession() as session:
        many = [json.dumps(notification(alert(fingerprint=f"{n:08x}"), groupKey=f"g{n}")) for n in range(200)]
        answers = await asyncio.gather(*(post(session, plant, body) for body in many))
        assert {status for status, _ in answers} <= {202, 503}
