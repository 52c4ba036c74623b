"""Speed of the matching engine alone, and its ratio to the naive engine of the tests on the same commands.

python bench/book.py [COMMANDS]
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Protocol

from bench.parts.figures import verdict
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Event
from exchange.flow import OrderFlow
from exchange.types import AccountId, Instrument, Symbol, Ticks
from tests.exchange.naive import NaiveEngine

INSTRUMENTS = [Instrument(Symbol(name), Ticks(10_000), Ticks(2_000)) for name in ("AAA", "BBB", "CCC", "DDD")]


class Machine(Protocol):
    def apply(self, item: Sequenced) -> tuple[Event, ...]: ...


def record(count: int) -> list[Sequenced]:
    engine, items = Engine(INSTRUMENTS), []
    flow = OrderFlow(1, INSTRUMENTS, [AccountId(f"account-{number}") for number in range(20)])
    for seq in range(1, count + 1):
        item = Sequenced(seq, seq, next(flow))  # type: ignore[arg-type] # any instant will do
        flow.observe(engine.apply(item))
        items.append(item)
    return items


def speed(machine: Machine, items: list[Sequenced]) -> tuple[float, list[int]]:
    clock, each = time.perf_counter_ns, []
    gc.collect()
    for item in items:
        began = clock()
        machine.apply(item)
        each.append(clock() - began)
    return len(items) / (sum(each) / 1e9), sorted(each)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    items = record(count)
    fast, each = speed(Engine(INSTRUMENTS), items)
    few = items[: min(count, 4_000)]
    small, _ = speed(Engine(INSTRUMENTS), few)
    naive, _ = speed(NaiveEngine(INSTRUMENTS), few)  # type: ignore[no-untyped-call] # a test's code
    ratio = small / naive
    p50, p99 = each[len(each) // 2] / 1e3, each[len(each) * 99 // 100] / 1e3
    print(
        f"engine {fast:,.0f}/s over {count:,} commands (us: p50 {p50:.1f}, p99 {p99:.1f}, worst {each[-1] / 1e3:.0f})"
    )
    print(f"naive  {naive:,.0f}/s over {len(few):,} commands; engine on the same {small:,.0f}/s: ratio {ratio:.0f}")
    verdict("matching engine alone", f"{fast:,.0f} commands/s", "250,000/s", reached=fast >= 250_000)


if __name__ == "__main__":
    main()
