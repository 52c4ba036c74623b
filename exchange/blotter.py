"""What became of the orders of a day: a reading of what the engine remembers of its requests.

The engine forgets an order when it ends. It keeps the answer to every request until the market opens from closed (C2),
so how an order ended can still be read there. A blotter is that reading: made when somebody asks, gone on with what
came since when somebody asks again, and no part of the engine's state. Who never asks pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from exchange.events import (
    Accepted,
    Canceled,
    Event,
    Expired,
    Replaced,
    Rested,
    SessionClosed,
    SessionOpened,
    Traded,
)
from exchange.types import AccountId, CancelReason, ClientId, Lots, OrderId, Side, Symbol, Ticks
from exchange.views import OrderStatus, OrderView

Carried = tuple[OrderId, ClientId, int, int]
"""An order that lived when a day began: its id, the client id of its last request, its price (0: none), what had
traded of it."""


class _Line:
    """One order, as far as events told of it."""

    __slots__ = ("account", "canceled", "client_id", "expired", "filled", "fills", "price", "reason", "side", "symbol")

    def __init__(self, client_id: ClientId, price: Ticks | None, filled: int) -> None:
        self.client_id = client_id
        self.price = price
        self.filled = filled
        self.account = AccountId("")
        self.symbol = Symbol("")
        self.side: Side | None = None
        self.canceled = 0
        self.reason: CancelReason | None = None
        self.expired = False
        self.fills: list[Traded] = []

    def name(self, account: AccountId, symbol: Symbol, side: Side) -> None:
        self.account, self.symbol, self.side = account, symbol, side


def _change(line: _Line, event: Rested | Canceled | Expired | Replaced) -> None:
    if isinstance(event, Rested) or (line.price is not None and event.price is not None):
        line.price = event.price  # the moving band may have cut it (B3), a market order may have become a limit order
    match event:
        case Rested():
            return
        case Canceled():
            line.canceled += event.quantity
            line.reason = event.reason
        case Expired():
            line.canceled += event.quantity
            line.expired = True
        case Replaced():
            line.client_id = event.client_id
    line.name(event.account, event.symbol, event.side)


def _since_the_close(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Return what the first command of a day caused, without what was due before it on the day before.

    That may have been trades, when a breaker closed the market by them: the orders are carried with these.
    """
    kinds = [type(event) for event in events]
    before = kinds[: kinds.index(SessionOpened)] if SessionOpened in kinds else []
    return events[before.index(SessionClosed) + 1 :] if SessionClosed in before else events


class Blotter:
    """Orders of a day by id, with their trades; takes memory for each."""

    def __init__(self, carried: Iterable[Carried] = ()) -> None:
        self.read_to = 0
        """The last sequence number whose events were taken; whoever gives them keeps it."""
        self._begun = False
        self._lines = {
            order_id: _Line(client_id, Ticks(price) if price else None, filled)
            for order_id, client_id, price, filled in carried
        }

    def take(self, events: tuple[Event, ...]) -> None:
        """Take what one command caused, command after command."""
        if not self._begun:
            self._begun, events = True, _since_the_close(events)
        for event in events:
            match event:
                case Accepted(order_id, account, client_id, symbol, _, side, _, price):
                    self._lines[order_id] = line = _Line(client_id, price, 0)
                    line.name(account, symbol, side)
                case Traded():
                    self._trade(event)
                case Rested() | Canceled() | Expired() | Replaced():
                    known = self._lines.get(event.order_id)
                    if known is not None:  # else it expired right before the day began
                        _change(known, event)
                case _:
                    pass

    def _trade(self, event: Traded) -> None:
        buys = event.taker_side is Side.BUY
        for order_id, is_buyer in ((event.maker_order_id, not buys), (event.taker_order_id, buys)):
            line = self._lines.get(order_id)
            if line is None:  # carried, and the snapshot was made by a program that did not keep what was
                continue
            side, account = (Side.BUY, event.buyer) if is_buyer else (Side.SELL, event.seller)
            line.name(account, event.symbol, side)
            line.filled += event.quantity
            line.fills.append(event)

    def ended(self, order_id: OrderId) -> OrderView:
        """Return an order that lives no more as its owner may see it: ENDED and no more if that was another day."""
        line = self._lines.get(order_id)
        if line is None:
            return OrderView(order_id, OrderStatus.ENDED)
        status = OrderStatus.FILLED
        if line.canceled:
            status = OrderStatus.EXPIRED if line.expired else OrderStatus.CANCELED
        return OrderView(
            order_id,
            status,
            line.account,
            line.symbol,
            line.side,
            line.price,
            filled=Lots(line.filled),
            client_id=line.client_id,
            canceled=Lots(line.canceled),
            reason=None if line.expired else line.reason,
        )

    def fills(self, order_id: OrderId) -> tuple[Traded, ...]:
        """Return an order's trades of this day, the oldest first."""
        line = self._lines.get(order_id)
        return () if line is None else tuple(line.fills)

    def average_price(self, order_id: OrderId) -> Fraction | None:
        """Return the mean price of all that traded of an order, in ticks, exactly.

        None when nothing has, or when some of it traded on another day.
        """
        line = self._lines.get(order_id)
        if line is None or not line.filled or sum(one.quantity for one in line.fills) != line.filled:
            return None
        return Fraction(sum(one.price * one.quantity for one in line.fills), line.filled)
