"""Settlement by sagas over a real RabbitMQ and PostgreSQL: trades a second, time to settle, messages a trade.

    python bench/sagas.py [TRADES]

Five processes of this program, one database with the tables of all of them, both styles in turn on the same servers.
First TRADES are there at once (how many a second), then they come at RATE a second (how long one takes). Times are the
coordinator's, or the reader's, from the transaction that begins a saga to the one that notes its end. The reference is
in the same run: the same trades, one transaction each, into the one ledger (`bench/settlement_store.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from bench.settlement_store import settled_a_second
from control.databases import lay
from control.failover import made_up
from control.saga_bed import SagaBed, TradeStream
from control.servers import postgres
from control.servers.rabbit import Rabbit
from control.servers.rabbit import find as find_rabbit
from control.settings import load_settings
from exchange.adapters.saga_tables import SAGAS
from exchange.adapters.settlement_store import SettlementStore
from exchange.events import Happened
from exchange.saga_messages import Style
from exchange.types import Instrument, Symbol, Ticks
from kernel.adapters.database import make_engine, parse

TRADES = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
RATE = 20
PACED = min(TRADES, 200)
WITHIN_S = 600.0
DRILL = Instrument(symbol=Symbol("DRILL"), reference=Ticks(100), band=Ticks(50))


def ended(database: str) -> list[tuple[int, int]]:
    """Return begin and end of every saga that is settled."""
    engine = make_engine(parse(database, "bench"), "bench")
    try:
        with engine.connect() as connection:
            ask = sa.select(SAGAS.c.begun_at, SAGAS.c.ended_at).where(SAGAS.c.state == "settled")
            return [(row.begun_at, row.ended_at) for row in connection.execute(ask.order_by(SAGAS.c.trade_id))]
    finally:
        engine.dispose()


def published(rabbit: Rabbit, vhost: str) -> int:
    time.sleep(3)  # it counts once a second
    return int(rabbit.ask(f"/api/vhosts/{vhost}").get("message_stats", {}).get("publish", 0))


async def settled(database: str, count: int) -> list[tuple[int, int]]:
    until = time.monotonic() + WITHIN_S
    while len(found := await asyncio.to_thread(ended, database)) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} are settled"
        await asyncio.sleep(0.25)
    return found


async def measured(style: Style, server: postgres.Server, rabbit: Rabbit, root: Path) -> list[str]:
    database, vhost = server.create_database(f"saga_{style.value}"), f"bench-{style.value}"
    lay(database, "saga")
    url, stream = rabbit.make_vhost(vhost), TradeStream()
    happened = [made_up(number) for number in range(1, TRADES + PACED + 1)]
    with SagaBed(root, style, [DRILL], rabbit=url, password=rabbit.password, database=database) as bed:
        await stream.start(bed.stream_port)
        bed.start()
        await asyncio.to_thread(bed.wait_ready)
        stream.add(happened[:TRADES])
        all_at_once = await settled(database, TRADES)
        seconds = (max(end for _, end in all_at_once) - min(begin for begin, _ in all_at_once)) / 1e9
        messages = await asyncio.to_thread(published, rabbit, vhost)
        for one in happened[TRADES:]:
            stream.add([one])
            await asyncio.sleep(1 / RATE)
        one_by_one = (await settled(database, TRADES + PACED))[TRADES:]
        await stream.stop()
    took = sorted((end - begin) / 1e6 for begin, end in one_by_one)
    rabbit.drop_vhost(vhost)
    return [
        style.value, f"{TRADES / seconds:,.0f}", f"{statistics.median(took):.0f} ms",
        f"{took[int(len(took) * 0.99)]:.0f} ms", f"{messages / TRADES:.1f}",
    ]  # fmt: skip


def one_by_one_into_the_ledger(server: postgres.Server, happened: list[Happened]) -> float:
    database = server.create_database("ledger_alone")
    lay(database, "ledger")
    with contextlib.closing(SettlementStore(database, [DRILL])) as store:
        return settled_a_second(store, happened, 1)


async def main() -> None:
    settings = load_settings()
    programs, scripts = postgres.found(settings.postgres), find_rabbit(settings.rabbitmq)
    assert scripts is not None, "there is no RabbitMQ here"
    with postgres.Server(programs) as server, Rabbit(scripts) as rabbit, tempfile.TemporaryDirectory() as root:
        print("| style | trades/s, all at once | begin to settled, p50 | p99 | messages a trade |")
        print("|---|---|---|---|---|")
        for style in Style:
            print("| " + " | ".join(await measured(style, server, rabbit, Path(root) / style.value)) + " |", flush=True)
        alone = one_by_one_into_the_ledger(server, [made_up(number) for number in range(1, min(TRADES, 500) + 1)])
        print(f"\none ledger, one trade a transaction: {alone:,.0f} trades/s")


if __name__ == "__main__":
    asyncio.run(main())
