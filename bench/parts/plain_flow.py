"""One flow of limit orders and cancels that every book of the world can take, as a file, and what must come of it.

Of a hundred requests sixty are orders that rest, thirty cancel a random living order, ten meet the other side. The
generator keeps a book of its own, the plainest there is, so that cancels name living orders; what it traded is the
answer that every contestant must reach.
"""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Final, NamedTuple

MIDDLE: Final = 1_000_000
PASSIVE: Final = 0.60
CANCEL: Final = 0.30
ORDERS_A_LEVEL: Final = 10
DEEPEST: Final = 400
"""How far from the middle orders rest, in ticks."""


class Line(NamedTuple):
    """One request: an order with its number (1, 2, ...), or (price 0) the cancel of an earlier one."""

    order_id: int
    symbol: int
    """0, 1, ..."""
    side: int
    """1 buys, -1 sells."""
    price: int
    quantity: int


@dataclass
class Answer:
    """What has been traded after some lines."""

    lots: int = 0
    turnover: int = 0
    """Sum of price times quantity, each at the maker's price."""


class Flow(NamedTuple):
    """Which flow: `resting` orders lie in each book before the first of `requests` that are measured."""

    requests: int
    resting: int = 1_000
    symbols: int = 1
    wide: bool = False
    """Orders rest anywhere in the book, ten a level, so that a deeper book has more levels; else most near its top."""
    seed: int = 1
    prefix: int = 0
    """Only so many of the requests are written; 0: all."""

    @property
    def before(self) -> int:
        """How many requests come before those that are measured."""
        return self.resting * self.symbols


class _Side:
    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._prices: list[int] = []
        self.levels: dict[int, OrderedDict[int, int]] = {}

    def best(self) -> int | None:
        prices = self._prices
        while prices and -prices[0] * self._sign not in self.levels:
            heappop(prices)  # emptied since
        return -prices[0] * self._sign if prices else None

    def rest(self, order_id: int, price: int, quantity: int) -> None:
        if price not in self.levels:
            self.levels[price] = OrderedDict()
            heappush(self._prices, -price * self._sign)
        self.levels[price][order_id] = quantity


class _Symbol:
    """The flow in one symbol, and the generator's own book of it."""

    def __init__(self, number: int, flow: Flow, rng: random.Random, ids: Iterator[int], answer: Answer) -> None:
        self._number = number
        self._depth = flow.resting
        self._wide = max(10, flow.resting // ORDERS_A_LEVEL // 2) if flow.wide else 0
        self._rng = rng
        self._ids = ids
        self._answer = answer
        self._sides = {1: _Side(1), -1: _Side(-1)}
        self._live: list[int] = []
        self._place: dict[int, int] = {}
        self._facts: dict[int, tuple[int, int]] = {}
        self._middle = MIDDLE

    def __next__(self) -> Line:
        choice = self._rng.random()
        if choice < CANCEL and self._live:
            return self._cancel()
        side = 1 if self._rng.random() < 0.5 else -1
        other = self._sides[-side].best()
        if choice < CANCEL + PASSIVE or other is None:
            return self.passive(side)
        # Passive orders have 50 lots, half of them are cancelled: crossing ones of 150 keep the book as deep as it is.
        most = 360 if len(self._live) > self._depth else 120
        return self._add(side, other + side * self._rng.randrange(40), self._rng.randrange(1, most))

    def passive(self, side: int) -> Line:
        if self._rng.random() < 0.02:
            self._middle += self._rng.choice((-1, 1))
        deep = self._rng.randrange(self._wide) if self._wide else int(self._rng.expovariate(0.12))
        away = 1 + min(max(DEEPEST, self._wide), deep)
        other = self._sides[-side].best()
        price = self._middle - side * away
        if other is not None and (other - price) * side <= 0:
            price = other - side
        return self._add(side, price, self._rng.randrange(1, 101))

    def _cancel(self) -> Line:
        order_id = self._rng.choice(self._live)
        side, price = self._facts[order_id]
        level = self._sides[side].levels[price]
        del level[order_id]
        if not level:
            del self._sides[side].levels[price]
        self._forget(order_id)
        return Line(order_id, self._number, side, 0, 0)

    def _add(self, side: int, price: int, quantity: int) -> Line:
        order_id = next(self._ids)
        line = Line(order_id, self._number, side, price, quantity)
        other = self._sides[-side]
        while quantity and (best := other.best()) is not None and (price - best) * side >= 0:
            level = other.levels[best]
            maker, left = next(iter(level.items()))
            lots = min(left, quantity)
            quantity -= lots
            self._answer.lots += lots
            self._answer.turnover += lots * best
            if lots < left:
                level[maker] = left - lots
                continue
            del level[maker]
            self._forget(maker)
            if not level:
                del other.levels[best]
        if quantity:
            self._sides[side].rest(order_id, price, quantity)
            self._facts[order_id] = (side, price)
            self._place[order_id] = len(self._live)
            self._live.append(order_id)
        return line

    def _forget(self, order_id: int) -> None:
        del self._facts[order_id]
        place, last = self._place.pop(order_id), self._live.pop()
        if last != order_id:
            self._live[place] = last
            self._place[last] = place


def lines_of(flow: Flow, answer: Answer) -> Iterator[Line]:
    """Yield a flow; `answer` tells at each moment what has been traded."""
    rng, ids = random.Random(flow.seed), itertools.count(1)
    books = [_Symbol(number, flow, rng, ids, answer) for number in range(flow.symbols)]
    for number in range(flow.before):
        yield books[number % flow.symbols].passive(1 if rng.random() < 0.5 else -1)
    for _ in range(flow.prefix or flow.requests):
        yield next(books[rng.randrange(flow.symbols)])


def write(path: Path, flow: Flow) -> Answer:
    """Write a flow; return what it trades."""
    answer = Answer()
    with path.open("w") as file:
        file.writelines(" ".join(map(str, line)) + "\n" for line in lines_of(flow, answer))
    return answer


def read(path: Path) -> list[Line]:
    """Read what `write` wrote."""
    return [Line(*map(int, line.split())) for line in path.read_text().splitlines()]
