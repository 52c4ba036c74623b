"""Every published limit: the sink takes a field of that length and refuses one letter more; ours never come near."""

from __future__ import annotations

import asyncio
import copy
import json
from urllib.parse import parse_qsl

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.adapters.pager_http import DoubtfulError, NotSentError, PagerHttp, check_address, may_reach
from incidents.paging.answers import AnswerKind, HttpAnswer, HttpRequest
from incidents.paging.channel import Order, Target
from incidents.paging.channels import CHANNELS
from incidents.paging.page import page_of
from incidents.paging.twilio import signature, signed
from kernel.errors import InputError
from kernel.time import Instant
from tests.contract.bridge_plant import alert, webhook
from tests.contract.sinks import ACCOUNT, ROUTING_KEY, SCHEMAS, SLACK_CHANNEL, TEAMS_BYTES_MAX, sinks

TARGET = Target("http://127.0.0.1:1", ROUTING_KEY, ACCOUNT, "+12025550100")
TO = {"sms": "+4930123456", "call": "+4930123456", "slack": SLACK_CHANNEL}
SCHEMA = {
    "teams": "teams-workflow", "zenduty": "zenduty-event", "sms": "twilio-message", "call": "twilio-call",
    "opsgenie": "opsgenie-create", "pagerduty": "pagerduty-event", "slack": "slack-chat-post",
}  # fmt: skip


def page(*alerts, **changes):
    return page_of(json.dumps(webhook(*alerts, **changes)).encode(), Instant(0))


def body_of(channel, made):
    request = CHANNELS[channel].send(Order("0" * 20, made, TO.get(channel, "")), TARGET)
    if request.headers["Content-Type"] == "application/json":
        return request, json.loads(request.body)
    return request, dict(parse_qsl(request.body.decode(), strict_parsing=True))


def limits(schema, path=()):
    """Yield where each longest text of a schema stands, as a way into an example of it."""
    for name, part in schema.get("properties", {}).items():
        if "maxLength" in part:
            yield (*path, name), part["maxLength"]
        elif part.get("type") == "object":
            yield from limits(part, (*path, name))


LIMITS = [
    (channel, way, longest)
    for channel, name in SCHEMA.items()
    for way, longest in limits(SCHEMAS[name].schema)
    if longest < 50_000
]


@pytest.mark.parametrize(
    ("channel", "way", "longest"), LIMITS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value)
)
def test_a_field_at_its_limit_is_right_and_one_over_is_not(channel, way, longest):
    _, body = body_of(channel, page())
    at, over = copy.deepcopy(body), copy.deepcopy(body)
    for made, length in ((at, longest), (over, longest + 1)):
        inner = made
        for step in way[:-1]:
            inner = inner.setdefault(step, {})
        inner[way[-1]] = "x" * length
    if not way[-1].endswith("metadata") and way[:1] != ("metadata",):
        assert not list(SCHEMAS[SCHEMA[channel]].iter_errors(at))
    assert list(SCHEMAS[SCHEMA[channel]].iter_errors(over))


TEXT = st.text(st.sampled_from("aé&<>\"'\\*_`[]()#|\n\u200d\U0001f469\U0001f680"), max_size=2000)
ALERTS = st.lists(st.tuples(TEXT, TEXT, st.integers(1, 3), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(ALERTS)
def test_whatever_the_alerts_say_every_channel_keeps_its_contract(told):
    alerts = [
        alert(
            fingerprint=f"{n:016x}", status="resolved" if over else "firing",
            endsAt="2026-03-02T09:40:00Z" if over else "0001-01-01T00:00:00Z",
            labels=alert()["labels"] | {"level": str(level)},
            annotations={"summary": summary, "description": description},
        )
        for n, (summary, description, level, over) in enumerate(told)
    ]  # fmt: skip
    made = page(*alerts)
    for channel, name in SCHEMA.items():
        request, body = body_of(channel, made)
        schema = "opsgenie-close" if request.url.endswith("identifierType=alias") else name
        assert not [error.message[:80] for error in SCHEMAS[schema].iter_errors(body)], channel
        assert channel != "teams" or len(request.body) <= TEAMS_BYTES_MAX


def test_teams_leaves_out_the_last_lines_and_says_how_many():
    many = [
        alert(fingerprint=f"{n:016x}", annotations={"summary": "s", "description": "\u20ac" * 1300}) for n in range(40)
    ]
    request, body = body_of("teams", page(*many))
    assert len(request.body) <= TEAMS_BYTES_MAX
    runs = [one["inlines"][0]["text"] for one in body["attachments"][0]["content"]["body"]]
    shown = len(runs) - 3
    assert 10 < shown < 21
    assert runs[-1] == f"({21 - shown} lines left out)"


def test_nothing_shows_the_secrets_of_a_request_or_target():
    request = HttpRequest("POST", "https://secret.example", {"Authorization": "Bearer secret"}, b"secret")
    assert "secret" not in repr(request)
    assert "hush" not in repr(Target("https://hush.example", "hush"))
    assert "hush" not in repr(Order("d", page(), "x", "https://hush.example"))


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"<html>", b"\xff", b'{"trace_id": 7, "sid": [], "requestId": ""}']
)
def test_a_success_of_another_shape_is_doubted_never_believed_nor_a_crash(channel, status, body):
    """A proxy's page is no provider: only Teams, whose bodies say nothing, and PagerDuty's 202 are believed."""
    made = CHANNELS[channel].read(HttpAnswer(status, {}, body), Instant(0))
    believed = {("teams", 200), ("teams", 202), ("pagerduty", 202)}
    if (channel, status) in believed:
        assert made.kind is AnswerKind.ACCEPTED
    else:
        assert made.kind in {AnswerKind.DOUBTFUL, AnswerKind.REFUSED}


def test_twilios_signature_is_the_published_one():
    """The example of Twilio's own documentation of request validation."""
    form = {
        "CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
        "To": "+18005551212",
    }  # fmt: skip
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert signature("12345", url, form.items()) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert signed("12345", url, form.items(), "RSOYDt4T1cUTdK1PDd93/VVr8B8=")
    with_port = signature("12345", url.replace(".com/", ".com:443/"), form.items())
    assert signed("12345", url, form.items(), with_port)
    for wrong in ("", "RSOYDt4T1cUTdK1PDd93/VVr8B9=", "\u00e9"):
        assert not signed("12345", url, form.items(), wrong)
    assert not signed("12345", url, (form | {"Digits": "1"}).items(), "RSOYDt4T1cUTdK1PDd93/VVr8B8=")


@pytest.mark.parametrize(
    ("address", "public", "loopback"),
    [
        ("8.8.8.8", True, False), ("127.0.0.1", False, True), ("::1", False, True), ("10.0.0.1", False, False),
        ("192.168.1.1", False, False), ("172.16.0.1", False, False), ("169.254.169.254", False, False),
        ("100.64.0.1", False, False), ("0.0.0.0", False, False), ("224.0.0.1", False, False),
        ("::ffff:127.0.0.1", False, True), ("::ffff:169.254.169.254", False, False), ("fd00::1", False, False),
        ("fe80::1%eth0", False, False), ("64:ff9b::a9fe:a9fe", False, False), ("64:ff9b::808:808", True, False),
        ("2002:a9fe:a9fe::1", False, False), ("2606:4700::1111", True, False), ("nonsense", False, False),
        ("", False, False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_spoken_to_and_for_tests_only_this_machine(address, public, loopback):
    assert may_reach(address, loopback=False) is public
    assert may_reach(address, loopback=True) is loopback


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://slack.com/api", True), ("https://x.logic.azure.com/a", True), ("http://slack.com/api", False),
        ("https://slack.com.example.com", False), ("https://evillogic.azure.com", False), ("https://127.0.0.1", False),
        ("https://slack.com@example.com", False), ("https://u:p@slack.com", False), ("https://", False), ("", False),
        ("ftp://slack.com", False), ("https://SLACK.com/", True),
    ],
)  # fmt: skip
def test_destinations_are_fixed(url, right):
    if right:
        check_address(url, ("slack.com", ".logic.azure.com"), loopback=False)
    else:
        with pytest.raises(InputError):
            check_address(url, ("slack.com", ".logic.azure.com"), loopback=False)


async def test_a_name_that_leads_inside_is_not_followed():
    """`localhost` stands for a name whose owner points it at us after it was allowed."""
    client = PagerHttp(timeout_s=2.0)
    with pytest.raises(NotSentError, match="no address that may be spoken to"):
        await client.call(HttpRequest("POST", "https://localhost:1/x"), ("localhost",))
    await client.close()


async def test_redirects_are_answers_and_huge_answers_are_cut():
    from aiohttp import web

    async def huge(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2_000_000)

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest")

    app = web.Application()
    app.router.add_get("/huge", huge)
    app.router.add_get("/away", away)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = PagerHttp(timeout_s=5.0, loopback=True)
    assert len((await client.call(HttpRequest("GET", f"{url}/huge"), ())).body) == 256 * 1024
    assert (await client.call(HttpRequest("GET", f"{url}/away"), ())).status == 302
    await client.close()
    await runner.cleanup()


async def test_refused_connections_never_arrived_and_silent_ones_are_doubtful():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = PagerHttp(timeout_s=0.3, loopback=True)
    with pytest.raises(DoubtfulError):
        await client.call(HttpRequest("POST", f"http://127.0.0.1:{port}/secret-path", {}, b"x"), ())
    await client.close()
    server.close()
    await server.wait_closed()
    with pytest.raises(NotSentError) as refused:
        await client.call(HttpRequest("POST", f"http://127.0.0.1:{port}/secret-path", {}, b"x"), ())
    assert "secret-path" not in str(refused.value)
    await client.close()


async def test_the_sink_refuses_wrong_methods_keys_and_bodies():
    """A sink that takes anything proves nothing."""
    async with sinks() as sink, aiohttp.ClientSession() as session:
        for method, path, headers, body, right in (
            ("GET", "/v2/enqueue", {}, None, 405),
            ("POST", "/v2/enqueue", {}, {"routing_key": "x"}, 400),
            ("POST", "/v2/alerts", {}, {"message": "x"}, 401),
            ("POST", "/services/T/B/X", {}, {}, 400),
            ("POST", "/bot1:x/sendMessage", {}, {"chat_id": 1, "text": "x"}, 401),
            ("POST", "/api/webhooks/42/x", {}, {"content": "x"}, 401),
            ("POST", "/integration/a/generic/x/", {}, {"message": "x", "alert_type": "info"}, 404),
            ("POST", "/workflows/1/triggers/manual/paths/invoke?sig=x", {}, {}, 401),
            ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json", {}, {}, 401),
            ("POST", "/hook", {}, {}, 401),
        ):
            async with session.request(method, sink.url + path, headers=headers, json=body) as answer:
                assert answer.status == right, path
        assert not any(sink.kept.values())
