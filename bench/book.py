"""Speed of the engine, and its ratio to the naive one in the same run: `python bench/book.py [COMMANDS]`."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from exchange.commands import Sequenced  # noqa: E402 - found through the path set above
from exchange.engine import Engine  # noqa: E402 - found through the path set above
from exchange.events import Event  # noqa: E402 - found through the path set above
from exchange.flow import OrderFlow  # noqa: E402 - found through the path set above
from exchange.types import AccountId, Instrument, Symbol, Ticks  # noqa: E402 - found through the path set above
from tests.exchange.naive import NaiveEngine  # noqa: E402 - found through the path set above

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
    p50, p99 = each[len(each) // 2] / 1e3, each[len(each) * 99 // 100] / 1e3
    print(
        f"engine {fast:,.0f} commands/s over {count:,} (us: p50 {p50:.1f}, p99 {p99:.1f}, worst {each[-1] / 1e3:.0f})"
    )
    print(
        f"naive  {naive:,.0f} commands/s over {len(few):,}; engine on the same {small:,.0f}: ratio {small / naive:.0f}"
    )


if __name__ == "__main__":
    main()
