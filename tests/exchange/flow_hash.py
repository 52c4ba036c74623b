"""Long seeded flows through the engine: prints what states they reach, what was told, and which build told it.

python tests/exchange/flow_hash.py COMMANDS
"""

import json
import sys
from collections import Counter
from itertools import islice

import exchange.engine
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Rejected
from tests.exchange.every_kind import INSTRUMENTS, VENUE, EveryKind

EVERY = 1_000
SEEDS = (1, 2)


def main():
    hashes, told = [], Counter()
    for seed in SEEDS:
        engine, flow = Engine(INSTRUMENTS, VENUE), EveryKind(seed)
        for seq, (at, command) in enumerate(islice(flow, int(sys.argv[1])), 1):
            events = engine.apply(Sequenced(seq, at, command))
            flow.observe(events)
            for event in events:
                told[type(event).__name__] += 1
                if isinstance(event, Rejected):
                    told[event.reason] += 1
            if seq % EVERY == 0:
                hashes.append(engine.state_hash())
    compiled = exchange.engine.__file__.endswith(".so")
    sys.stdout.write(json.dumps({"compiled": compiled, "told": told, "hashes": hashes}))


if __name__ == "__main__":
    main()
