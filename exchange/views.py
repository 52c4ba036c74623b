"""What the engine shows when it is asked: values, no part of its state."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from exchange.book import LIMIT, STOP, STOP_LIMIT, BookSide, Order
from exchange.types import AccountId, CancelReason, ClientId, Lots, OrderId, Side, Symbol, Ticks, TimeInForce
from kernel.errors import InputError
from kernel.time import Instant

_NAMED: Final = 20
"""Symbols that an error lists; an exchange may have thousands."""


class UnknownSymbolError(InputError, KeyError):
    """A question was about a symbol that this engine does not list. A `KeyError` too: what is asked is a mapping."""

    def __init__(self, symbol: object, listed: Iterable[str]) -> None:
        names = sorted(listed)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        super().__init__(
            f"symbol {str(symbol)[:70]!r}", "is not listed", right=f"there are {', '.join(names[:_NAMED])}{more}"
        )

    def __str__(self) -> str:
        """Return the sentence; a `KeyError` would quote it."""
        return str(self.args[0])


class OrderStatus(StrEnum):
    """Where an order is."""

    RESTING = "resting"
    """In the shown book."""
    WAITING = "waiting"
    """For its trigger, for a cross, or for enough on the other side; not shown."""
    FILLED = "filled"
    """All of it traded."""
    CANCELED = "canceled"
    """Nothing of it is open, and something left without trading: `reason` tells why, `filled` what traded."""
    EXPIRED = "expired"
    """As `CANCELED`, by its time in force."""
    ENDED = "ended"
    """One of these three, on a day before this one: how is in the events, which a consumer keeps."""


class OrderView(msgspec.Struct, frozen=True):
    """An order as its owner may see it.

    Of one that ended trigger, time in force and expiry are not told; of one that ended before the market last opened
    from closed only the id.
    """

    order_id: OrderId
    status: OrderStatus
    account: AccountId = AccountId("")
    symbol: Symbol = Symbol("")
    side: Side | None = None
    price: Ticks | None = None
    trigger: Ticks | None = None
    open: Lots = Lots(0)
    """What is still to trade, hidden or not."""
    hidden: Lots = Lots(0)
    filled: Lots = Lots(0)
    """What traded of it, on whatever day."""
    time_in_force: TimeInForce | None = None
    expires_at: Instant = Instant(0)
    client_id: ClientId = ClientId("")
    """Of the request that placed it, or of the last that replaced it."""
    canceled: Lots = Lots(0)
    """Of one that ended: what left without trading on the day it ended, by self-trade prevention too."""
    reason: CancelReason | None = None
    """Why it was cancelled; of several reasons the last."""


class Queued(NamedTuple):
    """An order in its place: price, id, and what it shows."""

    price: Ticks
    order_id: OrderId
    shown: Lots


class LevelView(msgspec.Struct, frozen=True):
    """One price of the shown book."""

    price: Ticks
    quantity: Lots
    """What is shown."""
    order_ids: tuple[OrderId, ...]
    """In the order in which they trade."""


class BookView(msgspec.Struct, frozen=True):
    """The shown book of a symbol, best prices first."""

    symbol: Symbol
    bids: tuple[LevelView, ...]
    asks: tuple[LevelView, ...]


class Indicative(msgspec.Struct, frozen=True, array_like=True):
    """What a cross would do now (A7)."""

    price: Ticks
    volume: Lots
    surplus: int
    """Positive: more to buy."""


def levels_of(side: BookSide) -> tuple[LevelView, ...]:
    """Return a side of a shown book, best price first."""
    found: list[LevelView] = []
    for key in reversed(side.keys):
        level, ids = side.levels[key], []
        order = level.head
        while order is not None:
            ids.append(order.order_id)
            order = order.after
        found.append(LevelView(Ticks(key * side.sign), Lots(level.total), tuple(ids)))
    return tuple(found)


def view_of(order: Order) -> OrderView:
    """Return a live order as its owner may see it."""
    stops = order.kind in {STOP, STOP_LIMIT}
    return OrderView(
        order.order_id,
        OrderStatus.RESTING if order.kind == LIMIT else OrderStatus.WAITING,
        order.account,
        order.book.symbol,
        order.side,
        Ticks(order.price) if order.price else None,
        Ticks(order.trigger) if stops else None,
        Lots(order.open),
        Lots(order.hidden),
        Lots(order.filled),
        order.time_in_force,
        Instant(order.expires_at),
        order.client_id,
    )
