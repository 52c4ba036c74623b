"""The whole engine as a contestant: what `bench/parts/contest.py` calls for each line of a plain flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.parts.plain_flow import MIDDLE, Line
from exchange.commands import CancelOrder, Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Traded
from exchange.types import AccountId, ClientId, Instrument, Lots, OrderId, Side, Symbol, Ticks, TimeInForce
from kernel.time import Instant

Call = tuple[Callable[..., object], tuple[Any, ...]]
ACCOUNTS = 20


def instruments(count: int) -> list[Instrument]:
    return [Instrument(Symbol(f"S{number}"), Ticks(MIDDLE), Ticks(MIDDLE - 1)) for number in range(count)]


def account(order_id: int, side: int) -> AccountId:
    return AccountId(f"{'buyer' if side > 0 else 'seller'}-{order_id % ACCOUNTS}")


def command(number: int, line: Line) -> PlaceOrder | CancelOrder:
    who, client_id = account(line.order_id, line.side), ClientId(f"c-{number}")
    if not line.price:
        return CancelOrder(who, client_id, OrderId(line.order_id))
    side = Side.BUY if line.side > 0 else Side.SELL
    return PlaceOrder(who, client_id, Symbol(f"S{line.symbol}"), side, Lots(line.quantity), Limit(Ticks(line.price)),
                      TimeInForce.GTC)  # fmt: skip


def make(lines: Sequence[Line]) -> tuple[list[Call], Callable[[], tuple[int, int]]]:
    """Return what to call for each line, and what asks another engine for lots and turnover of the same commands."""
    known = instruments(1 + max(line.symbol for line in lines))
    items = [Sequenced(seq, Instant(seq * 1_000), command(seq, line)) for seq, line in enumerate(lines, 1)]
    apply = Engine(known).apply

    def traded() -> tuple[int, int]:
        other, lots, turnover = Engine(known), 0, 0
        for item in items:
            for event in other.apply(item):
                if isinstance(event, Traded):
                    lots += event.quantity
                    turnover += event.quantity * event.price
        return lots, turnover

    return [(apply, (item,)) for item in items], traded
