"""A long seeded flow through the engine: prints what state it reached, and which build reached it.

python tests/exchange/flow_hash.py COMMANDS
"""

import json
import sys

import exchange.book
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Traded
from exchange.flow import OrderFlow
from exchange.types import AccountId, Instrument, Symbol, Ticks
from kernel.time import Instant

EVERY = 1_000
INSTRUMENTS = [Instrument(Symbol(name), Ticks(10_000), Ticks(2_000)) for name in ("AAA", "BBB", "CCC", "DDD")]


def main():
    engine = Engine(INSTRUMENTS)
    flow = OrderFlow(7, INSTRUMENTS, [AccountId(f"account-{number}") for number in range(20)])
    hashes, trades = [], 0
    for seq in range(1, int(sys.argv[1]) + 1):
        events = engine.apply(Sequenced(seq, Instant(seq * 1_000), next(flow)))
        flow.observe(events)
        trades += sum(isinstance(event, Traded) for event in events)
        if seq % EVERY == 0:
            hashes.append(engine.state_hash())
    sys.stdout.write(
        json.dumps({"compiled": exchange.book.__file__.endswith(".so"), "trades": trades, "hashes": hashes})
    )


if __name__ == "__main__":
    main()
