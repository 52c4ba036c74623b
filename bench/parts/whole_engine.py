"""The whole engine as a contestant: what `bench/parts/contest.py` calls for each line of a plain flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.parts.plain_flow import MIDDLE, Line
from exchange.commands import CancelOrder, Fund, Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Funded, Traded
from exchange.ledger import CASH
from exchange.types import (
    AccountId,
    ClientId,
    Instrument,
    Lots,
    OrderId,
    SelfTrade,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
    Venue,
)
from kernel.time import Instant

Call = tuple[Callable[..., object], tuple[Any, ...]]
ACCOUNTS = 20


def instruments(count: int, *, fees: bool = False) -> list[Instrument]:
    maker, taker = (-50, 300) if fees else (0, 0)
    return [
        Instrument(Symbol(f"S{number}"), Ticks(MIDDLE), Ticks(MIDDLE - 1), maker_fee_ppm=maker, taker_fee_ppm=taker)
        for number in range(count)
    ]


def account(order_id: int, side: int) -> AccountId:
    """Buyers and sellers are different accounts: nobody meets himself, though it is looked for."""
    return AccountId(f"{'buyer' if side > 0 else 'seller'}-{order_id % ACCOUNTS}")


def command(number: int, line: Line, mode: SelfTrade = SelfTrade.NONE) -> PlaceOrder | CancelOrder:
    who, client_id = account(line.order_id, line.side), ClientId(f"c-{number}")
    if not line.price:
        return CancelOrder(who, client_id, OrderId(line.order_id))
    side = Side.BUY if line.side > 0 else Side.SELL
    return PlaceOrder(who, client_id, Symbol(f"S{line.symbol}"), side, Lots(line.quantity), Limit(Ticks(line.price)),
                      TimeInForce.GTC, self_trade=mode)  # fmt: skip


class Run:
    """One engine: its accounts are given all they may need."""

    def __init__(self, symbols: int, *, checks: bool) -> None:
        known = instruments(symbols, fees=checks)
        self.it = Engine(known, Venue(holds=True, orders_per_second=1_000_000) if checks else Venue())
        self.mode = SelfTrade.CANCEL_NEWEST if checks else SelfTrade.NONE
        self.seq = 0
        for number in range(ACCOUNTS if checks else 0):
            self.fund(account(number, 1), CASH, 10**17)
            for one in known:
                self.fund(account(number, -1), one.symbol, 10**12)

    def fund(self, who: AccountId, asset: str, amount: int) -> None:
        self.seq += 1
        given = self.it.apply(Sequenced(self.seq, Instant(0), Fund(ClientId(f"f-{self.seq}"), who, asset, amount)))
        assert isinstance(given[0], Funded), given

    def next(self, number: int, line: Line) -> Sequenced:
        self.seq += 1
        return Sequenced(self.seq, Instant(self.seq * 1_000), command(number, line, self.mode))


def make(lines: Sequence[Line], *, checks: bool) -> tuple[Iterator[Call], Callable[[], tuple[int, int]]]:
    """Return what to call for each line, and what asks another engine for lots and turnover of the same commands."""
    symbols = 1 + max(line.symbol for line in lines)

    def calls() -> Iterator[Call]:
        run = Run(symbols, checks=checks)
        apply = run.it.apply
        for number, line in enumerate(lines):
            yield apply, (run.next(number, line),)

    def traded() -> tuple[int, int]:
        run, lots, turnover = Run(symbols, checks=checks), 0, 0
        for number, line in enumerate(lines):
            for event in run.it.apply(run.next(number, line)):
                if isinstance(event, Traded):
                    lots += event.quantity
                    turnover += event.quantity * event.price
        return lots, turnover

    return calls(), traded
