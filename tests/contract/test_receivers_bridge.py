"""The contract of every channel of the bridge, against a sink that holds it to the provider's published one."""

from __future__ import annotations

import asyncio
import inspect
import json

import pytest

from incidents.paging.channels import CHANNELS
from incidents.paging.outbox import Phase
from tests.contract.bridge_plant import PERSON, alert, bridge_plant, webhook
from tests.contract.sinks import Cut, Later, Say, Slow, sinks

KEYED = sorted(name for name, one in CHANNELS.items() if one.keyed)
LOOKING = sorted(name for name, one in CHANNELS.items() if one.looks)
BLIND = sorted(name for name, one in CHANNELS.items() if not one.looks and not one.keyed)
RECEIPTED = sorted(name for name, one in CHANNELS.items() if one.receipt_by != "nothing")
EVERY = sorted(CHANNELS)
REACHED = {Phase.DELIVERED, Phase.ACCEPTED}


def each(channels):
    """Run a test for every channel at once, in one bridge; what fails is named by its channel."""

    def wrap(test):
        async def run(**fixtures):
            told = await asyncio.gather(
                *(test(**fixtures, channel=channel) for channel in channels), return_exceptions=True
            )
            for channel, error in zip(channels, told, strict=True):
                if isinstance(error, BaseException):
                    raise AssertionError(f"{channel}: {error!r}") from error  # noqa: TRY004 - of a test

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        asked = inspect.signature(test)
        run.__signature__ = asked.replace(
            parameters=[one for name, one in asked.parameters.items() if name != "channel"]
        )
        return run

    return wrap


NOISY = "\u202e<!channel> *bold* [x](http://evil) & <b>\x1b[31m\r\n\0"


@pytest.fixture
async def sink():
    async with sinks() as made:
        yield made


@pytest.fixture
async def plant(tmp_path, sink):
    async with bridge_plant(tmp_path, sink) as made:
        yield made


@each(EVERY)
async def test_a_page_arrives_once_and_keeps_the_published_contract(plant, channel):
    ended = await plant.until(await plant.page(channel))
    assert ended.phase is (Phase.DELIVERED if channel in RECEIPTED else Phase.ACCEPTED)
    assert plant.sinks.problems == []
    assert len(plant.sinks.kept[channel]) == 1
    told = json.dumps(plant.sinks.kept[channel][0].body)
    assert "GatewayDown" in told
    assert "gateway-1 does not answer" in told
    assert plant.numbers[f"tapewatch_pages_total {channel} {ended.phase}"] == 1


@each(EVERY)
async def test_the_end_of_an_alert_is_told_under_the_same_key(plant, channel):
    await plant.until(await plant.page(channel))
    over = alert(status="resolved", endsAt="2026-03-02T09:40:00Z")
    status, answer = await plant.post(f"/v1/pages/{channel}", webhook(over))
    assert status == 202
    ended = await plant.until(answer["deliveries"][0])
    assert ended.phase in REACHED
    assert plant.sinks.problems == []
    if channel in KEYED:
        assert len(plant.sinks.alerts(channel)) == 1


@each(EVERY)
async def test_monstrous_and_hostile_alerts_are_cut_to_what_the_provider_takes(plant, channel):
    summary, wide = (
        (NOISY.replace("\0", "") + "\U0001f468\u200d\U0001f469\u200d\U0001f467e\u0301&<>\"'" * 90),
        "ü&" * 2000,
    )
    labels = alert()["labels"]
    many = [
        alert(
            fingerprint=f"{n:016x}",
            labels=labels | {"alertname": f"A{n}" + "&" * 200},
            annotations={"summary": summary, "description": wide, "runbook_url": "javascript:alert(1)"},
        )
        for n in range(200)
    ]
    status, answer = await plant.post(f"/v1/pages/{channel}", webhook(*many))
    assert status == 202
    ended = await plant.until(answer["deliveries"][0])
    assert ended.phase in REACHED, ended.reason
    assert plant.sinks.problems == []
    body = json.dumps(plant.sinks.kept[channel][0].body, ensure_ascii=False)
    assert "\u202e" not in body
    assert "\x1b" not in body
    assert "javascript" not in body
    if channel == "slack":  # a header is plain text: there, and only there, the letters of a mention stay
        *_, post = plant.sinks.kept[channel]
        marked = [post.body["text"], *(block["text"]["text"] for block in post.body["blocks"][1:2])]
        assert "<!channel>" not in "".join(marked)
        assert "&lt;!channel&gt;" in marked[0]


@each(EVERY)
async def test_a_final_answer_is_not_repeated_and_is_shown(plant, channel):
    statuses = [400, 401, 403, 404, 410, 302]
    for n, status in enumerate(statuses, 1):
        answer = Say(status, {"message": "no such thing"}, {"Location": "http://169.254.169.254/"})
        plant.sinks.script(channel, answer)
        ended = await plant.until(await plant.page(channel, key=f"group {status}"))
        assert ended.phase is Phase.FAILED
        assert str(status) in ended.reason
        assert len(plant.sinks.sent(channel)) == n
        assert [one.id for one in plant.lost if one.channel == channel][-1] == ended.id
        assert plant.numbers[f"tapewatch_pages_total {channel} failed"] == n


@each(EVERY)
async def test_503_is_tried_again_until_it_is_taken(plant, channel):
    plant.sinks.script(channel, Say(503), Say(503))
    ended = await plant.until(await plant.page(channel))
    assert ended.phase in REACHED
    assert ended.tries == 3
    assert len(plant.sinks.kept[channel]) == 1


@each(EVERY)
async def test_429_is_tried_again_after_the_named_wait_and_not_before(plant, channel):
    plant.sinks.script(channel, Say(429, {}, {"Retry-After": "0.4"}))
    delivery = await plant.page(channel)
    waiting = await plant.until(delivery, lambda one: one.reason.startswith("429"))
    assert waiting.next_at - waiting.first_try_at >= 0.4e9
    other = await plant.page(channel, key="another group")
    assert (await plant.until(delivery)).phase in REACHED
    ended = await plant.until(other)
    assert ended.first_try_at >= waiting.next_at, "the whole channel waits"


@each(EVERY)
async def test_429_without_a_named_wait_is_tried_again_by_our_own(plant, channel):
    plant.sinks.script(channel, Say(429))
    assert (await plant.until(await plant.page(channel))).phase in REACHED
    assert len(plant.sinks.kept[channel]) == 1


@each(KEYED)
async def test_a_doubtful_page_to_a_keyed_provider_is_repeated_and_shows_once(plant, channel):
    for n, answer in enumerate((Cut(keep=True), Slow(1.0), Say(500, keep=True)), 1):
        plant.sinks.script(channel, answer)
        ended = await plant.until(await plant.page(channel, key=f"group {n}"))
        assert ended.phase in REACHED
        assert len(plant.sinks.kept[channel]) == 2 * n
        assert len(plant.sinks.alerts(channel)) == n


@each([name for name in LOOKING if name != "call"])
async def test_a_doubtful_page_that_arrived_is_looked_for_and_not_sent_again(plant, channel):
    for n, answer in enumerate((Cut(keep=True), Slow(1.0), Say(500, keep=True)), 1):
        plant.sinks.script(channel, answer)
        ended = await plant.until(await plant.page(channel, key=f"group {n}"))
        assert ended.phase in REACHED
        assert len(plant.sinks.kept[channel]) == n


@each(EVERY)
async def test_a_page_cut_off_before_it_arrived_is_sent_again(plant, channel):
    plant.sinks.script(channel, Cut(), Cut())
    ended = await plant.until(await plant.page(channel))
    assert ended.phase in REACHED
    assert len(plant.sinks.kept[channel]) == 1


@each(BLIND)
async def test_a_doubtful_page_that_nobody_can_look_for_is_sent_again(plant, channel):
    """At least once: twice is better than never."""
    plant.sinks.script(channel, Cut(keep=True))
    ended = await plant.until(await plant.page(channel))
    assert ended.phase in REACHED
    assert len(plant.sinks.kept[channel]) == 2


async def test_slack_without_the_right_to_look_is_sent_again(plant):
    plant.sinks.history_right = False
    plant.sinks.script("slack", Cut(keep=True))
    await plant.until(await plant.page("slack"))
    assert len(plant.sinks.kept["slack"]) == 2


async def test_slack_saying_ok_false_is_a_failure(plant):
    plant.sinks.script("slack", Say(200, {"ok": False, "error": "not_in_channel"}))
    ended = await plant.until(await plant.page("slack"))
    assert ended.phase is Phase.FAILED
    assert ended.reason == "not_in_channel"


@pytest.mark.parametrize(
    ("error", "kept", "posts"), [("ratelimited", False, 1), ("internal_error", True, 1), ("fatal_error", False, 1)]
)
async def test_slack_errors_that_pass_are_tried_again_without_doubling(plant, error, kept, posts):
    plant.sinks.script("slack", Say(200, {"ok": False, "error": error}, keep=kept))
    assert (await plant.until(await plant.page("slack"))).phase in REACHED
    assert len(plant.sinks.kept["slack"]) == posts


@each(RECEIPTED)
async def test_an_accepted_page_that_fails_later_is_a_failure(plant, channel):
    words = {"sms": "undelivered", "call": "no-answer"}
    plant.sinks.script(channel, Later(words.get(channel, "Alert could not be made")))
    ended = await plant.until(await plant.page(channel))
    assert ended.phase is Phase.FAILED
    assert [one.id for one in plant.lost if one.channel == channel] == [ended.id]


@each(RECEIPTED)
async def test_a_receipt_that_never_comes_is_overdue_and_in_the_end_a_lost_page(tmp_path, sink, channel):
    (tmp_path / channel).mkdir()
    async with bridge_plant(tmp_path / channel, sink, patience={"unconfirmed_s": 2.5}) as plant:
        bound = plant.bridge._parts.config.channels[channel]
        object.__setattr__(bound, "receipt_s", 0.2)
        sink.script(channel, Later(None))
        delivery = await plant.page(channel)
        async with asyncio.timeout(60):
            while plant.numbers[f"tapewatch_page_receipts_overdue {channel}"] != 1:  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.02)
        ended = await plant.until(delivery)
        assert ended.phase is Phase.UNCONFIRMED
        assert [one.id for one in plant.lost if one.channel == channel] == [ended.id]
        assert sink.polls >= 1


@each(["sms", "call"])
async def test_callbacks_twice_out_of_order_and_badly_signed_change_nothing(tmp_path, sink, channel):
    (tmp_path / channel).mkdir()
    async with bridge_plant(tmp_path / channel, sink, callbacks=True) as plant:
        sink.script(channel, Later(None))
        delivery = await plant.page(channel)
        await plant.until(delivery, lambda one: one.phase is Phase.SENT)
        (one,) = sink.kept[channel]
        good, bad = ("delivered", "failed") if channel == "sms" else ("completed", "busy")
        assert await sink.call_back(one, good, token="wrong-token-of-somebody") == 403
        assert (await plant.delivery(delivery)).phase is Phase.SENT
        for word in ("queued", good, good, "sent", bad):
            assert await sink.call_back(one, word) == 204
        ended = await plant.delivery(delivery)
        assert ended.phase is Phase.DELIVERED
        assert plant.lost == []
        assert plant.numbers[f"tapewatch_pages_total {channel} delivered"] == 1


async def test_a_late_receipt_takes_a_failure_back(tmp_path, sink):
    async with bridge_plant(tmp_path, sink, callbacks=True) as plant:
        sink.script("sms", Later("undelivered"))
        delivery = await plant.page("sms")
        await plant.until(delivery, lambda one: one.phase is Phase.FAILED)
        assert await sink.call_back(sink.kept["sms"][0], "delivered") == 204
        assert (await plant.delivery(delivery)).phase is Phase.DELIVERED


async def test_a_page_that_a_fault_of_ours_cannot_send_is_lost_aloud(plant, monkeypatch):
    def broken(order, target):
        raise ZeroDivisionError

    monkeypatch.setattr(CHANNELS["teams"], "send", broken)
    ended = await plant.until(await plant.page("teams"))
    assert ended.phase is Phase.FAILED
    assert ended.reason == "the bridge itself failed: ZeroDivisionError"
    assert [one.id for one in plant.lost] == [ended.id]
    assert (await plant.until(await plant.page("sms"))).phase in REACHED


async def test_a_repeated_webhook_is_one_page(plant):
    delivery = await plant.page("pagerduty")
    for _ in range(5):
        status, answer = await plant.post("/v1/pages/pagerduty", webhook())
        assert (status, answer) == (202, {"deliveries": [], "known": True})
    await plant.until(delivery)
    assert len(plant.sinks.sent("pagerduty")) == 1


async def test_pages_of_one_group_arrive_in_the_order_in_which_they_came(tmp_path, sink):
    async with bridge_plant(tmp_path, sink, patience={"first_wait_s": 3.0, "wait_s_max": 3.0}) as plant:
        sink.script("zenduty", Say(503))
        first = await plant.page("zenduty")
        await plant.until(first, lambda one: one.reason.startswith("503"))
        over = alert(status="resolved", endsAt="2026-03-02T09:40:00Z")
        _, answer = await plant.post("/v1/pages/zenduty", webhook(over))
        other = await plant.page("zenduty", key="another group")
        await plant.until(other)
        assert (await plant.delivery(first)).phase is Phase.WAITING, "another group does not wait for it"
        await plant.until(answer["deliveries"][0])
        key = (await plant.delivery(first)).page.key
        told = [one.body["alert_type"] for one in sink.kept["zenduty"] if one.body["entity_id"] == key]
        assert told == ["critical", "resolved"]


async def test_an_undelivered_level_1_page_goes_to_the_next_channel(tmp_path, sink):
    chain = {"teams": "sms", "sms": "call"}
    async with bridge_plant(tmp_path, sink, escalation=chain, patience={"escalate_s": 0.3}) as plant:
        sink.script("teams", *[Say(503)] * 1000)
        sink.script("sms", Later("undelivered"))
        first = await plant.page("teams")
        async with asyncio.timeout(60):
            while not sink.kept["call"]:  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.05)
        assert sink.kept["call"][0].body["To"] == PERSON
        assert (await plant.delivery(first)).escalated_to == "sms"
        assert plant.numbers["tapewatch_page_escalations_total teams"] == 1
        assert len(sink.kept["sms"]) == 1


async def test_a_level_2_page_does_not_escalate(tmp_path, sink):
    async with bridge_plant(tmp_path, sink, escalation={"teams": "sms"}, patience={"escalate_s": 0.1}) as plant:
        sink.script("teams", Say(400))
        ended = await plant.until(await plant.page("teams", alerts=[alert(labels=alert()["labels"] | {"level": "2"})]))
        assert ended.phase is Phase.FAILED
        await asyncio.sleep(0.3)
        assert sink.sent("sms") == []


@each(EVERY)
async def test_what_nobody_takes_is_given_up_at_last(tmp_path, sink, channel):
    (tmp_path / channel).mkdir()
    async with bridge_plant(tmp_path / channel, sink, patience={"give_up_s": 2.0}) as plant:
        sink.script(channel, *[Say(503)] * 1000)
        ended = await plant.until(await plant.page(channel))
        assert ended.phase is Phase.FAILED
        assert ended.reason.startswith("given up after")
        assert ended.tries > 1


async def test_secrets_and_telephone_numbers_are_never_shown(plant):
    for channel in EVERY:
        plant.sinks.script(
            channel, Say(400, {"message": "twilio-token-1234567890 genie-key-1234567890 xoxb-1234567890-secret"})
        )
        await plant.until(await plant.page(channel))
    listed = json.dumps([await plant.get("/v1/pages"), plant.log.events])
    for secret in ("twilio-token", "genie-key", "xoxb", "teams-secret", "zenduty-secret", PERSON, "R0123456789abc"):
        assert secret not in listed


REFUSED = [
    ("/v1/pages/teams", b"", None, 400),
    ("/v1/pages/teams", b'{"version":"4","groupKey":"g","alerts":[]}', None, 400),
    ("/v1/pages/teams", b"[" * 10_000, None, 400),
    ("/v1/pages/teams", b'"' * 1_000_000, None, 400),
    ("/v1/pages/teams", b" " * (4 * 1024 * 1024 + 1), None, 400),
    ("/v1/pages/pigeon", None, None, 404),
    ("/v1/pages/teams", None, {"Authorization": "Bearer wrong"}, 401),
    ("/v1/pages/teams", None, {}, 401),
    ("/v1/test/teams", b"{}", None, 401),
    ("/v1/receipts/twilio/x", b"a=b", None, 403),
    ("/v1/receipts/twilio/x", b"a=b&" * 1000, None, 413),
    ("/v1/receipts/twilio/x", b"a" * 100_000, None, 413),
]


async def test_bad_input_is_refused_with_a_sentence_and_keeps_nothing(plant):
    for path, body, headers, status in REFUSED:
        given = webhook() if body is None else body
        answer = await (plant.post(path, given) if headers is None else plant.post(path, given, headers))
        assert answer[0] == status, (path, answer)
        assert answer[1]["error"]
    assert await plant.get("/v1/pages") == []


async def test_what_cannot_be_kept_is_answered_503(plant):
    """Alertmanager comes back after it; after anything else it would not."""
    await plant.outbox.call(lambda outbox: outbox._db.execute("PRAGMA query_only = ON"))
    status, answer = await plant.post("/v1/pages/teams", webhook())
    assert status == 503
    assert answer["error"]
    await plant.outbox.call(lambda outbox: outbox._db.execute("PRAGMA query_only = OFF"))
    assert (await plant.until(await plant.page("teams"))).phase in REACHED
