"""What participants and operators are told: notices, derived from events and settlement, each with a version.

A notice follows from what is durable already, and its id from the place where that stands: told again it is the same
notice, and whoever keeps ids has one effect. Its routing key says whom it concerns and what it is about, so that a
reader binds for what it wants: `notice.account.ann.#`, `notice.market.#`, `notice.*.*.halted`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import msgspec

from exchange.events import (
    AccountDisabled,
    AccountEnabled,
    Breaker,
    Canceled,
    Expired,
    Halted,
    Happened,
    Paused,
    PhaseChanged,
    Resumed,
    SessionClosed,
    SessionOpened,
    Traded,
)
from exchange.messaging import Delivery, Outgoing, PoisonError
from exchange.saga import Instruction
from exchange.shards import whole_id
from exchange.types import CancelReason, Side
from kernel.time import Instant

VERSION: Final = 1
READ: Final = frozenset({1})
"""The versions that this program reads."""
QUEUE: Final = "notices"
ORDERS_LISTED: Final = 50
"""So many orders a notice names; `count` tells of all."""
BODY_MAX: Final = 2000
"""Characters of a notice as it is kept."""
SHOWN_MAX: Final = 1_000
"""Notices in one answer."""
_UNASKED: Final = frozenset({CancelReason.MASS_CANCEL, CancelReason.KILL_SWITCH})
"""Of the other reasons the order's own answer tells."""
_WORD_MAX: Final = 128
_INT: Final = msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)
_WORD: Final = msgspec.Meta(max_length=_WORD_MAX)


class NoticeKind(StrEnum):
    """What a notice is about: the last words of its routing key."""

    TRADE_SETTLED = "trade.settled"
    """The ledger has the trade."""
    SETTLEMENT_CANCELLED = "settlement.cancelled"
    """Settlement by sagas took back what it had done of a trade."""
    ORDERS_CANCELLED = "orders.cancelled"
    """By a mass cancel, a session that ended, or the kill switch: all that one command cancelled."""
    ORDERS_EXPIRED = "orders.expired"
    DISABLED = "disabled"
    """The kill switch of the account was thrown."""
    ENABLED = "enabled"
    HALTED = "halted"
    RESUMED = "resumed"
    PAUSED = "paused"
    PHASE = "phase"
    BREAKER = "breaker"
    SESSION_OPENED = "session.opened"
    SESSION_CLOSED = "session.closed"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that somebody is told. It concerns `account`; without one `symbol`; without either the market."""

    id: Annotated[str, _WORD]
    kind: NoticeKind
    at: Annotated[Instant, _INT]
    """When it happened, in nanoseconds; of a settlement by sagas, when its end was heard."""
    account: Annotated[str, _WORD] = ""
    symbol: Annotated[str, _WORD] = ""
    trade_id: Annotated[int, _INT] | None = None
    side: Side | None = None
    quantity: Annotated[int, _INT] | None = None
    """Lots."""
    price: Annotated[int, _INT] | None = None
    """Ticks."""
    fee: Annotated[int, _INT] | None = None
    """Millionths of the currency; negative: a rebate."""
    reason: Annotated[str, _WORD] = ""
    client_id: Annotated[str, _WORD] = ""
    """The request that caused it; of a session that ended it begins with `disconnect-`."""
    count: Annotated[int, _INT] | None = None
    orders: tuple[Annotated[int, _INT], ...] = ()
    """The first `ORDERS_LISTED` of them."""
    phase: Annotated[str, _WORD] = ""
    until: Annotated[Instant, _INT] | None = None
    level: Annotated[int, _INT] | None = None
    engine: Annotated[int, _INT] | None = None
    """Of a notice about the market, where several engines share the symbols: the number, from 1, of the one it is from.
    It is about that one's symbols alone; each engine that is told says so.
    """

    @property
    def key(self) -> str:
        """Its routing key."""
        if self.account:
            return f"notice.account.{word(self.account)}.{self.kind}"
        if self.symbol:
            return f"notice.symbol.{word(self.symbol)}.{self.kind}"
        return f"notice.market.{self.kind}"


class Kept(msgspec.Struct, frozen=True):
    """A notice that was told, and its place among all that were."""

    number: int
    notice: Notice


class NoticesStatus(msgspec.Struct, frozen=True):
    """What `/v1/notices` of settlement answers."""

    notices: list[Kept]
    waiting: int
    """Notices that were read and that the broker has not confirmed."""
    oldest_s: float
    source: bool
    """Whether events come."""
    keeper: bool
    """Whether what is published is kept: a notice that waits in the queue is not among those shown."""


class NoticeTelemetry(Protocol):
    """What is told of notices on their way."""

    def published(self, kinds: Iterable[NoticeKind]) -> None:
        """The broker confirmed these; of a crash in between some are counted twice."""
        ...

    def waiting(self, count: int, *, oldest_s: float) -> None:
        """So many are read and not confirmed; the oldest happened so long ago (0: none waits)."""
        ...

    def connected(self, *, source: bool, keeper: bool) -> None:
        """Whether events come, and whether who keeps notices reads the queue."""
        ...

    def kept(self, new: int, repeats: int) -> None:
        """So many were kept for the first time, so many had been kept before."""
        ...


class _Versioned(msgspec.Struct, frozen=True):
    version: int


class _Body(_Versioned, frozen=True):
    notice: Notice


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Body).decode
_version_of: Final = msgspec.json.Decoder(_Versioned).decode


def word(name: str) -> str:
    """Return a name as one word of a routing key: what parts words or stands for others in patterns is written out.

    >>> word("ann"), word("desk.7"), word("#*%")
    ('ann', 'desk%2E7', '%23%2A%25')
    """
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def notices_of(part: int, item: Happened, parts: int = 1) -> list[Notice]:
    """Return what is told of one command's events, orders that left last; `part`: of the exchange, they are from it.

    `parts` is how many engines share the symbols.
    """
    told: list[Notice] = []
    groups: dict[tuple[str, str, str], list[tuple[int, Canceled | Expired]]] = {}
    for index, event in enumerate(item.events):
        name = f"{part}.{item.seq}.{index}"
        match event:
            case Traded():
                told += _settled(part, item, event)
            case Canceled() if event.reason in _UNASKED:
                groups.setdefault((event.account, event.reason.value, event.client_id), []).append((index, event))
            case Expired():
                groups.setdefault((event.account, "", ""), []).append((index, event))
            case AccountDisabled():
                told.append(Notice(id=name, kind=NoticeKind.DISABLED, at=item.at, account=event.account))
            case AccountEnabled():
                told.append(Notice(id=name, kind=NoticeKind.ENABLED, at=item.at, account=event.account))
            case Halted() | Resumed() | Paused() | PhaseChanged() | Breaker() | SessionOpened() | SessionClosed():
                notice = _of_market(name, item.at, event)
                alone = parts == 1 or notice.symbol
                told.append(notice if alone else msgspec.structs.replace(notice, engine=part + 1))
            case _:
                pass
    for (account, reason, client_id), group in groups.items():
        kind = NoticeKind.ORDERS_CANCELLED if reason else NoticeKind.ORDERS_EXPIRED
        orders = tuple(whole_id(part, event.order_id) for _, event in group[:ORDERS_LISTED])
        told.append(
            Notice(id=f"{part}.{item.seq}.{group[0][0]}", kind=kind, at=item.at, account=account, reason=reason,
                   client_id=client_id, count=len(group), orders=orders)
        )  # fmt: skip
    return told


def last_trade(happened: Iterable[Happened]) -> int:
    """Return the number of the last command that traded; 0 when none did."""
    return max(
        (item.seq for item in happened if any(isinstance(event, Traded) for event in item.events)), default=0
    )  # fmt: skip


def cancelled(it: Instruction, now: Instant) -> list[Notice]:
    """Return what both parties of a trade are told when settlement by sagas took back what it had done of it."""
    return [
        Notice(
            id=f"saga.{it.trade_id}.{side.value}", kind=NoticeKind.SETTLEMENT_CANCELLED, at=now, account=account,
            symbol=it.asset, trade_id=it.trade_id, side=side, quantity=it.lots,
        )
        for side, account in ((Side.BUY, it.buyer), (Side.SELL, it.seller))
    ]  # fmt: skip


def telling(notice: Notice, trace: str = "") -> Outgoing:
    """Return the message that tells a notice."""
    return Outgoing(
        routing_key=notice.key, body=_encode(_Body(VERSION, notice)), message_id=f"notice.{notice.id}", trace=trace
    )


def read_notice(delivery: Delivery) -> Notice:
    """Return what a delivery tells.

    Raises:
        PoisonError: it tells nothing that this program understands, or what cannot be kept.
    """
    try:
        version = _version_of(delivery.body).version
        if version not in READ:
            known = ", ".join(map(str, sorted(READ)))
            raise PoisonError(delivery, f"it is of version {version}, this program reads {known}")
        notice = _decode(delivery.body).notice
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError(delivery, f"it is no notice ({error})") from error
    words = (notice.id, notice.account, notice.symbol, notice.reason, notice.client_id, notice.phase)
    if not notice.id or not all(each.isprintable() for each in words):
        raise PoisonError(delivery, "it is no notice (a name is empty, or has what cannot be shown)")
    if len(kept_body(notice)) > BODY_MAX:
        raise PoisonError(delivery, f"it is no notice (longer than {BODY_MAX} characters)")
    return notice


def kept_body(notice: Notice) -> str:
    """Return a notice as it is kept."""
    return _encode(notice).decode()


def _settled(part: int, item: Happened, trade: Traded) -> list[Notice]:
    number = whole_id(part, trade.trade_id)
    return [
        Notice(
            id=f"trade.{number}.{side.value}", kind=NoticeKind.TRADE_SETTLED, at=item.at, account=account,
            symbol=trade.symbol, trade_id=number, side=side, quantity=trade.quantity, price=trade.price, fee=fee,
        )
        for side, account, fee in (
            (Side.BUY, trade.buyer, trade.buyer_fee), (Side.SELL, trade.seller, trade.seller_fee)
        )
    ]  # fmt: skip


_Market = Halted | Resumed | Paused | PhaseChanged | Breaker | SessionOpened | SessionClosed
_KINDS: Final[dict[type[_Market], NoticeKind]] = {
    Halted: NoticeKind.HALTED,
    Resumed: NoticeKind.RESUMED,
    Paused: NoticeKind.PAUSED,
    PhaseChanged: NoticeKind.PHASE,
    Breaker: NoticeKind.BREAKER,
    SessionOpened: NoticeKind.SESSION_OPENED,
    SessionClosed: NoticeKind.SESSION_CLOSED,
}


def _of_market(name: str, at: Instant, event: _Market) -> Notice:
    blank = Notice(id=name, kind=_KINDS[type(event)], at=at)
    if isinstance(event, Halted | Resumed | Paused | PhaseChanged):
        blank = msgspec.structs.replace(blank, symbol=event.symbol or "")
    match event:
        case Halted():
            return msgspec.structs.replace(blank, reason=event.reason.value)
        case Paused():
            return msgspec.structs.replace(blank, until=event.until)
        case PhaseChanged() | SessionOpened():
            return msgspec.structs.replace(blank, phase=event.phase.value)
        case Breaker():
            return msgspec.structs.replace(blank, level=event.level)
        case _:
            return blank
