"""The bridge over HTTP: pages from Alertmanager, receipts from Twilio, and what people may ask.

Three doors: Alertmanager holds the webhook's token, people and the terminal the administrator's, Twilio signs. A
webhook is answered 202 when its pages are on disk, 503 when they could not be kept: Alertmanager comes back after
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from control.bridge import Bridge, OutboxThread
from control.bridge_config import BridgeConfig
from exchange.adapters.http import BodyTooLargeError, common_routes, guarded, json_response, problem, read_body
from exchange.ports import Exposition
from incidents.adapters.page_outbox import PageOutbox
from incidents.paging.answers import ReceiptKind
from incidents.paging.channels import CHANNELS
from incidents.paging.outbox import Delivery, Note, Phase
from incidents.paging.page import TEST_GROUP, Page, page_from, page_of
from incidents.paging.twilio import Call, Sms, signed
from incidents.signals import BODY_BYTES_MAX, Status, own_signal
from kernel.errors import InputError, TemporaryError
from kernel.time import Clock, Instant, to_rfc3339

LISTED_MAX: Final = 1_000
_BY_LETTERS_MAX: Final = 60
_FIELDS_MAX: Final = 200


class TestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish for a test page."""

    by: str = "somebody"
    to: str = ""


@dataclass(frozen=True)
class BridgeDoors:
    """What the interface works with."""

    bridge: Bridge
    config: BridgeConfig
    outbox: OutboxThread
    exposition: Exposition
    clock: Clock
    webhook_secret: str = field(repr=False)
    admin_secret: str = field(repr=False)


def bridge_app(doors: BridgeDoors) -> Starlette:
    """Return the bridge's interface."""
    api = _Api(doors)

    def ready() -> tuple[bool, str]:
        there = doors.bridge.ready
        return there, f"channels: {', '.join(doors.config.channels)}" if there else "the outbox is being read"

    admin = doors.admin_secret
    return Starlette(
        routes=[
            *common_routes(doors.exposition, ready),
            Route("/v1/pages/{channel}", guarded(doors.webhook_secret, api.page), methods=["POST"]),
            Route("/v1/pages", guarded(admin, api.listed), methods=["GET"]),
            Route("/v1/deliveries/{delivery}", guarded(admin, api.shown), methods=["GET"]),
            Route("/v1/test/{channel}", guarded(admin, api.test), methods=["POST"]),
            Route("/v1/receipts/twilio/{delivery}", api.receipt, methods=["POST"]),
        ]
    )


class _Api:
    """The endpoints."""

    def __init__(self, doors: BridgeDoors) -> None:
        self._doors = doors

    async def page(self, request: Request) -> Response:
        """Take a webhook of Alertmanager in."""
        channel, now = request.path_params["channel"], self._doors.clock.now()
        if channel not in self._doors.config.channels:
            return problem(404, f"channel: {channel[:40]!r} is none of {', '.join(self._doors.config.channels)}")
        try:
            page = page_of(await _whole(request), now)
            ids = await self._doors.bridge.take(page, channel)
        except InputError as error:
            return problem(400, str(error))
        except TemporaryError as error:
            return problem(503, str(error))
        return json_response({"deliveries": ids, "known": not ids}, 202)

    async def listed(self, request: Request) -> Response:
        """List deliveries, newest first."""
        phase = request.query_params.get("phase", "")
        limit = request.query_params.get("limit", "100")
        if phase and phase not in set(Phase):
            return problem(400, f"phase: {phase[:40]!r} is none of {', '.join(Phase)}")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= LISTED_MAX:
            return problem(400, f"limit: a number from 1 to {LISTED_MAX} is needed")
        found = await self._doors.outbox.call(PageOutbox.recent, int(limit), phase)
        return json_response([described(one) for one in found])

    async def shown(self, request: Request) -> Response:
        """Tell everything of one delivery."""
        notes = await self._doors.outbox.call(PageOutbox.notes, request.path_params["delivery"])
        one = await self._doors.outbox.call(PageOutbox.get, request.path_params["delivery"])
        if one is None:
            return problem(404, "delivery: there is none of this id")
        return json_response({**described(one), "lines": one.page.lines, "notes": [_noted(each) for each in notes]})

    async def test(self, request: Request) -> Response:
        """Send a harmless page."""
        channel, now = request.path_params["channel"], self._doors.clock.now()
        if channel not in self._doors.config.channels:
            return problem(404, f"channel: {channel[:40]!r} is none of {', '.join(self._doors.config.channels)}")
        wish = msgspec.json.decode(await read_body(request) or b"{}", type=TestRequest)
        people = {person for listed in self._doors.config.channels[channel].to.values() for person in listed}
        if wish.to and wish.to not in people:
            return problem(400, "to: is nobody of the bridge's file; test pages go to nobody else")
        try:
            ids = await self._doors.bridge.take(_test_page(wish.by, now), channel, wish.to)
            if CHANNELS[channel].keyed:  # what keeps alerts would keep the test's open
                await self._doors.bridge.take(_test_page(wish.by, now, over=True), channel, wish.to)
        except TemporaryError as error:
            return problem(503, str(error))
        return json_response({"deliveries": ids, "receipt_by": CHANNELS[channel].receipt_by}, 202)

    async def receipt(self, request: Request) -> Response:
        """Take a callback of Twilio. What is not signed is answered 403 before anything is looked up."""
        delivery, public = request.path_params["delivery"], self._doors.config.public_url
        try:
            body = await read_body(request)
            form = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
        except (BodyTooLargeError, ValueError):
            return problem(413, "body: no callback of Twilio's is so large")
        given = request.headers.get("x-twilio-signature", "")
        secrets = [
            bound.target.secret for name, bound in self._doors.config.channels.items() if name in {"sms", "call"}
        ]
        address = f"{public}/v1/receipts/twilio/{delivery}"
        if not public or not any(signed(secret, address, form, given) for secret in secrets):
            return problem(403, "x-twilio-signature: is missing or wrong")
        one = await self._doors.outbox.call(PageOutbox.get, delivery)
        if one is None or one.channel not in {"sms", "call"}:
            return problem(404, "delivery: there is none of this id")
        fields = dict(form)
        channel = Sms() if one.channel == "sms" else Call()
        word = fields.get("MessageStatus") or fields.get("CallStatus") or ""
        told = channel.ended(word, fields.get("ErrorCode", ""))
        sid = fields.get("MessageSid") or fields.get("CallSid") or ""
        if told.kind is ReceiptKind.FAILED and one.ref and sid != one.ref:
            return Response(status_code=204)  # of an earlier, doubtful try: the later one may still arrive
        try:
            await self._doors.bridge.told(delivery, told)
        except TemporaryError as error:
            return problem(503, str(error))
        return Response(status_code=204)


def _test_page(by: str, now: Instant, *, over: bool = False) -> Page:
    signal = own_signal(
        {"alertname": "PageTest", "severity": "info", "level": "3", "team": "none", "service": "bridge"},
        {
            "summary": f"A test by {by[:_BY_LETTERS_MAX]}, nothing is wrong",
            "description": "Nothing needs to be done: this page proves the way to you.",
        },
        status=Status.RESOLVED if over else Status.FIRING, starts_at=now, received_at=now,
        ends_at=now if over else None, group_key=f"{TEST_GROUP}:{now}",
    )  # fmt: skip
    return page_from([signal], test=True)


async def _whole(request: Request) -> bytes:
    """Read a webhook's body, bounded.

    Raises:
        InputError: it is longer than any webhook that is taken.
        TemporaryError: it broke off.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise InputError("webhook: body", f"is longer than {BODY_BYTES_MAX} bytes", right="send fewer alerts")
    except ClientDisconnect as error:
        raise TemporaryError("the webhook broke off") from error
    return bytes(body)


def described(one: Delivery) -> dict[str, Any]:
    """Return what is shown of a delivery; recipients are shortened: a list of pages is no telephone book."""
    return {
        "id": one.id, "channel": one.channel, "to": masked(one.to), "phase": one.phase, "reason": one.reason,
        "tries": one.tries, "title": one.page.title, "level": one.page.level, "event": one.page.event,
        "test": one.page.test, "taken_at": to_rfc3339(one.taken_at), "ref": one.ref,
        "ended_at": None if one.ended_at is None else to_rfc3339(one.ended_at),
        "escalated_from": one.parent, "escalated_to": one.escalated_to,
        "receipt_by": CHANNELS[one.channel].receipt_by if one.channel in CHANNELS else "nothing",
    }  # fmt: skip


def masked(person: str) -> str:
    """Return a telephone number by its ends; anything else as it is."""
    return f"{person[:4]}…{person[-2:]}" if person.startswith("+") else person


def _noted(note: Note) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(note)
    told.pop("page", None)
    if "to" in told:
        told["to"] = masked(told["to"])
    return {"kind": told.pop("type"), **told, "at": to_rfc3339(note.at)}
