"""One contestant on one flow in a process of its own: `python bench/parts/contest.py NAME FLOW BEFORE LATENCIES`.

Prints a line of JSON and writes each request's nanoseconds to the file LATENCIES. Requests are made some hundreds at a
time, as a gateway hands them over; making them is not measured, the loop that calls the contestant is. The first BEFORE
requests fill the book and are not measured. The processor's time counts, not the clock's: other programs run on the
same cores. The collector of garbage runs as it likes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.parts.plain_flow import Line, read

BATCH = 500
Call = tuple[Callable[..., object], tuple[Any, ...]]


class Contestant(NamedTuple):
    """What is called for each line (made when it is asked for), and how to ask afterwards for lots and turnover."""

    calls: Iterator[Call]
    traded: Callable[[], tuple[int, int]]


def bare(lines: Sequence[Line]) -> Contestant:
    from bench.parts.bare import Bare

    books: dict[int, Bare] = {}

    def calls() -> Iterator[Call]:
        for order_id, symbol, side, price, quantity in lines:
            book = books.get(symbol)
            if book is None:
                book = books[symbol] = Bare()
            yield (book.add, (order_id, side, price, quantity)) if price else (book.cancel, (order_id,))

    return Contestant(
        calls(), lambda: (sum(book.lots for book in books.values()), sum(book.turnover for book in books.values()))
    )


def engine(lines: Sequence[Line]) -> Contestant:
    """The whole engine with everything switched on: holds, fees, self-trade prevention, a limit on the rate."""
    from bench.parts.whole_engine import make

    return Contestant(*make(lines, checks=True))


def plain_engine(lines: Sequence[Line]) -> Contestant:
    """The whole engine at a venue that asks for none of these."""
    from bench.parts.whole_engine import make

    return Contestant(*make(lines, checks=False))


def lightmatchingengine(lines: Sequence[Line]) -> Contestant:
    from lightmatchingengine.lightmatchingengine import (  # type: ignore[import-not-found]
        LightMatchingEngine,
        Side,
    )

    it = LightMatchingEngine()
    sides = {1: Side.BUY, -1: Side.SELL}
    trades: list[Any] = []
    add, cancel, keep = it.add_order, it.cancel_order, trades.extend

    def place(symbol: str, price: int, quantity: int, side: int) -> None:
        keep(add(symbol, price, quantity, side)[1])

    def calls() -> Iterator[Call]:
        for line in lines:
            if line.price:
                yield place, (str(line.symbol), line.price, line.quantity, sides[line.side])
            else:
                yield cancel, (line.order_id, str(line.symbol))

    def traded() -> tuple[int, int]:
        # One trade for the taker at each price, one for each maker: both tell the same lots.
        lots = sum(trade.trade_qty for trade in trades)
        turnover = sum(trade.trade_qty * trade.trade_price for trade in trades)
        return lots // 2, turnover // 2

    return Contestant(calls(), traded)


def order_matching(lines: Sequence[Line]) -> Contestant:
    from datetime import datetime

    from loguru import logger  # type: ignore[import-not-found]
    from order_matching.enums import Side  # type: ignore[import-not-found]
    from order_matching.matching_engine import MatchingEngine  # type: ignore[import-not-found]
    from order_matching.order import LimitOrder  # type: ignore[import-not-found]
    from order_matching.orders import Orders  # type: ignore[import-not-found]

    logger.disable("order_matching")
    it = MatchingEngine(seed=1)
    now = datetime(2026, 1, 2)  # noqa: DTZ001 - what the package takes
    sides = {1: Side.BUY, -1: Side.SELL}
    totals = [0, 0]

    def place(order: Any) -> None:
        it.place(Orders([order]))
        for trade in it.match(now).trades:
            totals[0] += int(trade.size)
            totals[1] += int(trade.size * trade.price)

    def calls() -> Iterator[Call]:
        for line in lines:
            if line.price:
                order = LimitOrder(
                    side=sides[line.side], price=float(line.price), size=float(line.quantity), timestamp=now,
                    order_id=str(line.order_id), trader_id=str(line.side),
                )  # fmt: skip
                yield place, (order,)
            else:
                yield it.cancel_order, (str(line.order_id),)

    return Contestant(calls(), lambda: (totals[0], totals[1]))


class Pauses:
    """The collector's pauses, in the processor's time of this thread."""

    def __init__(self) -> None:
        self.worst_ns = 0
        self.times = 0
        self._began = 0

    def __call__(self, phase: str, _facts: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time_ns()
        else:
            self.times += 1
            self.worst_ns = max(self.worst_ns, time.thread_time_ns() - self._began)


def main() -> None:
    name, flow, before, target = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    make: Callable[[Sequence[Line]], Contestant] = globals()[name]
    lines = read(flow)

    it = make(lines)
    for call, words in islice(it.calls, before):
        call(*words)
    pauses = Pauses()
    gc.collect()
    gc.callbacks.append(pauses)
    blocks, size = sys.getallocatedblocks(), resident()
    seconds = 0.0
    while batch := list(islice(it.calls, BATCH)):
        began = time.process_time()
        for call, words in batch:
            call(*words)
        seconds += time.process_time() - began
    kept = sys.getallocatedblocks() - blocks
    size = resident() - size
    gc.callbacks.remove(pauses)
    lots, turnover = it.traded()
    del it

    it = make(lines)
    gc.collect()
    each, clock = array("q"), time.perf_counter_ns
    for call, words in islice(it.calls, before):
        call(*words)
    while batch := list(islice(it.calls, BATCH)):
        for call, words in batch:
            start = clock()
            call(*words)
            each.append(clock() - start)
    target.write_bytes(each.tobytes())
    told = {
        "seconds": seconds, "lots": lots, "turnover": turnover,
        "kept_blocks": kept / len(each), "kept_bytes": size / len(each),
        "pause_us": pauses.worst_ns / 1e3, "collections": pauses.times, "build": build(name),
    }  # fmt: skip
    print(json.dumps(told))


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def build(name: str) -> str:
    if name not in {"bare", "engine", "plain_engine"}:
        return "python"
    import exchange.engine

    compiled = str(exchange.engine.__file__).endswith(".so")
    assert compiled == bool(os.environ.get("TAPEWATCH_COMPILED")), "another build runs than was asked for"
    return "mypyc" if compiled else "python"


if __name__ == "__main__":
    main()
