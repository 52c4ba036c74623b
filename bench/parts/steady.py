"""Memory over a long flow, in a process of its own: `python bench/parts/steady.py bare|engine COUNT`.

Prints a line of JSON for each tenth: resident bytes, living blocks, resting orders. Requests are made one by one and
forgotten. The engine remembers a day's client ids: each tenth is a day, and is looked at when the next one has begun.
At the end, with the collector switched off all the while, it is asked how much only it could have freed.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from typing import Final

import psutil

from bench.parts.plain_flow import Answer, Flow, Line, lines_of

PARTS: Final = 10
RESTING: Final = 1_000


def bare() -> tuple[Callable[[int, Line], None], Callable[[], int]]:
    from bench.parts.bare import Bare

    it = Bare()

    def take(_number: int, line: Line) -> None:
        if line.price:
            it.add(line.order_id, line.side, line.price, line.quantity)
        else:
            it.cancel(line.order_id)

    return take, lambda: len(it.orders)


def engine() -> tuple[Callable[[int, Line], None], Callable[[], int]]:
    from bench.parts.whole_engine import command, instruments
    from exchange.commands import CloseSession, OpenSession, Sequenced
    from exchange.engine import Engine
    from exchange.types import ClientId
    from kernel.time import Instant

    it = Engine(instruments(1))
    seq = 0

    def take(number: int, line: Line) -> None:
        nonlocal seq
        seq += 1
        it.apply(Sequenced(seq, Instant(seq * 1_000), command(number, line)))

    def day() -> int:
        nonlocal seq
        for one in (CloseSession(ClientId(f"close-{seq}")), OpenSession(ClientId(f"open-{seq}"))):
            seq += 1
            it.apply(Sequenced(seq, Instant(seq * 1_000), one))
        return it.resting_orders

    return take, day


def main() -> None:
    make = {"bare": bare, "engine": engine}[sys.argv[1]]
    count = int(sys.argv[2])
    lines: Iterator[Line] = lines_of(Flow(count, RESTING), Answer())
    take, look = make()
    itself = psutil.Process()
    gc.collect()
    gc.disable()
    for number, line in enumerate(lines):
        take(number, line)
        if number >= RESTING and (number + 1 - RESTING) % (count // PARTS) == 0:
            resting = look()
            told = {"done": number + 1 - RESTING, "bytes": itself.memory_info().rss, "resting": resting,
                    "blocks": sys.getallocatedblocks()}  # fmt: skip
            print(json.dumps(told), flush=True)
    del line, lines
    print(json.dumps({"only_the_collector": gc.collect()}))


if __name__ == "__main__":
    main()
