"""What is said over a WebSocket of order entry: requests with correlation ids in, answers in any order out.

A frame from the client is one JSON object or a list of them; a frame from the gateway is a list. Each request has an
`op` (place, replace, cancel, mass_cancel, look_up, ping) and an `id` of the client's choice, which its answer repeats.
The other members are those of the same request over HTTP, read as strictly: what does not fit is named in an answer of
status 400, and the other requests of its frame are carried out all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from exchange.adapters.order_desk import Problem
from exchange.adapters.orders_json import (
    NO_JSON,
    BadOrderError,
    Identifier,
    MassCancelBody,
    Number,
    PlaceBody,
    ReplaceBody,
    is_plain,
    place_of,
    plain_of,
    sentence,
)
from exchange.answers import OrderAnswer
from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, ReplaceOrder
from exchange.types import MAX_ID_LENGTH, AccountId, ClientId, Lots, OrderId, SessionId, Symbol, Ticks

MAX_MESSAGES: Final = 1000
"""Requests in one frame."""

Correlation = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | Annotated[str, msgspec.Meta(max_length=64)]
"""Names a request within its connection; only the client cares which."""
_Trace = Annotated[str, msgspec.Meta(max_length=128)]


class PlaceMessage(PlaceBody, frozen=True, forbid_unknown_fields=True, tag="place", tag_field="op", kw_only=True):
    """A new order."""

    id: Correlation
    traceparent: _Trace = ""


_Short = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]


class _QuickPlace(PlaceMessage, frozen=True, forbid_unknown_fields=True, tag="place", tag_field="op", kw_only=True):
    """A new order whose names are looked at together with those of its whole frame: a pattern costs 0.3 us each."""

    account: _Short
    client_id: _Short
    symbol: _Short


class ReplaceMessage(ReplaceBody, frozen=True, forbid_unknown_fields=True, tag="replace", tag_field="op", kw_only=True):
    """A change of an order."""

    id: Correlation
    order_id: Number
    traceparent: _Trace = ""


class CancelMessage(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cancel", tag_field="op", kw_only=True
):
    """A cancel of one order."""

    id: Correlation
    account: Identifier
    client_id: Identifier
    order_id: Number
    traceparent: _Trace = ""


class MassCancelMessage(
    MassCancelBody, frozen=True, forbid_unknown_fields=True, tag="mass_cancel", tag_field="op", kw_only=True
):
    """A cancel of all orders that fit."""

    id: Correlation
    traceparent: _Trace = ""


class LookUpMessage(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="look_up", tag_field="op", kw_only=True
):
    """What became of a request?"""

    id: Correlation
    account: Identifier
    client_id: Identifier


class PingMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ping", tag_field="op", kw_only=True):
    """Are you there? Answered with status 200 and nothing else."""

    id: Correlation


OrderMessage = PlaceMessage | ReplaceMessage | CancelMessage | MassCancelMessage | LookUpMessage | PingMessage


_QuickMessage = _QuickPlace | ReplaceMessage | CancelMessage | MassCancelMessage | LookUpMessage | PingMessage


class Asked(msgspec.Struct, frozen=True, gc=False):
    """One request of a frame."""

    id: int | str | None
    """None: it could not be read."""
    what: ParticipantCommand | LookUpMessage | PingMessage | BadOrderError
    trace: str = ""
    """The `traceparent` it brought, unread."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An answer; `status` and the bodies are those of HTTP."""

    id: int | str | None
    status: int
    answer: OrderAnswer | None = None
    problem: Problem | None = None
    replayed: bool = False
    retry_after: int = 0
    """Seconds."""


class Hello(msgspec.Struct, frozen=True):
    """The first message of a connection: what holds for it."""

    request_id: str
    session: str
    """The session of orders that name none; empty: they have none."""
    cancel_on_disconnect: bool
    ping_s: float
    """How often the gateway pings; whoever does not answer for twice as long is cut off."""
    max_open: int
    """Requests that may wait for their answers; beyond, the gateway does not read on."""
    max_messages: int
    """Requests in one frame."""


class Greeting(msgspec.Struct, frozen=True):
    """`Hello`, as it is sent."""

    hello: Hello


class _OnlyId(msgspec.Struct, frozen=True):
    id: Correlation | None = None


_one: Final = msgspec.json.Decoder(OrderMessage)
_many: Final = msgspec.json.Decoder(list[OrderMessage])
_quick_one: Final = msgspec.json.Decoder(_QuickMessage)
_quick_many: Final = msgspec.json.Decoder(list[_QuickMessage])
_STRANGE: Final = re.compile(r"[^!-~]")
"""What no `Identifier` holds."""
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw])
_only_id: Final = msgspec.json.Decoder(_OnlyId)


def read_frame(data: bytes | str, session: str = "", *, own_session: bool = False) -> list[Asked]:
    """Read a frame. `session` is that of orders that name none; with `own_session` they may name no other.

    Never raises: what cannot be read is a `BadOrderError` in its place.
    """
    try:
        if data[:1] not in {b"[", "["}:
            message: OrderMessage = _quick_one.decode(data)
            if _strange([message]):
                message = _one.decode(data)
            return [_asked(message, session, own_session=own_session)]
        messages: Sequence[OrderMessage] = _quick_many.decode(data)
        if _strange(messages):
            messages = _many.decode(data)
    except (*NO_JSON, RecursionError):
        return _piecemeal(data, session, own_session=own_session)
    if len(messages) > MAX_MESSAGES:
        return [Asked(None, BadOrderError(f"frame: {len(messages)} requests where {MAX_MESSAGES} are allowed"))]
    return [_asked(message, session, own_session=own_session) for message in messages]


def _strange(messages: Sequence[OrderMessage]) -> bool:
    """Tell whether names that were not looked at may be none: the strict decoders have the last word then."""
    names = [f"{one.account}{one.client_id}{one.symbol}" for one in messages if type(one) is _QuickPlace]
    return _STRANGE.search("".join(names)) is not None


def _piecemeal(data: bytes | str, session: str, *, own_session: bool) -> list[Asked]:
    """Read the requests of a frame one by one: only those that do not fit are refused."""
    try:
        parts = _parts.decode(data) if data.lstrip()[:1] in {b"[", "["} else [msgspec.Raw(_bytes(data))]
    except (*NO_JSON, RecursionError) as flaw:
        return [Asked(None, BadOrderError(f"frame: no JSON: {sentence(flaw)}"))]
    if len(parts) > MAX_MESSAGES:
        return [Asked(None, BadOrderError(f"frame: {len(parts)} requests where {MAX_MESSAGES} are allowed"))]
    asked: list[Asked] = []
    for part in parts:
        try:
            asked.append(_asked(_one.decode(part), session, own_session=own_session))
        except (*NO_JSON, RecursionError) as flaw:
            asked.append(Asked(_id_of(part), BadOrderError(f"message: {sentence(flaw)}")))
    return asked


def _bytes(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode("utf-8", "replace")


def _id_of(part: msgspec.Raw) -> int | str | None:
    try:
        return _only_id.decode(part).id
    except (*NO_JSON, RecursionError):
        return None


def _asked(  # noqa: PLR0911 - one return a request
    message: OrderMessage, session: str, *, own_session: bool
) -> Asked:
    match message:
        case PlaceMessage():
            if message.session is None and is_plain(message):
                return Asked(message.id, plain_of(message, SessionId(session)), message.traceparent)
            if own_session and message.session is not None and message.session != session:
                words = f"session: this connection cancels {session!r} when it ends; leave it out"
                return Asked(message.id, BadOrderError(words))
            try:
                return Asked(message.id, place_of(message, session), message.traceparent)
            except BadOrderError as error:
                return Asked(message.id, error)
        case ReplaceMessage(account=account, client_id=client_id):
            change = ReplaceOrder(
                AccountId(account), ClientId(client_id), OrderId(message.order_id), Lots(message.quantity),
                Ticks(message.price or 0), None if message.trigger is None else Ticks(message.trigger),
            )  # fmt: skip
            return Asked(message.id, change, message.traceparent)
        case CancelMessage(account=account, client_id=client_id):
            cancel = CancelOrder(AccountId(account), ClientId(client_id), OrderId(message.order_id))
            return Asked(message.id, cancel, message.traceparent)
        case MassCancelMessage(account=account, client_id=client_id):
            wish = MassCancel(
                AccountId(account), ClientId(client_id), None if message.symbol is None else Symbol(message.symbol),
                message.side, None if message.session is None else SessionId(message.session),
            )  # fmt: skip
            return Asked(message.id, wish, message.traceparent)
        case LookUpMessage() | PingMessage():
            return Asked(message.id, message)
