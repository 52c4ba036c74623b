"""The client of the feed: its books are the engine's after gaps, after being cut off, after a broken connection."""

# mypy: disable-error-code="arg-type"
# (plain numbers and texts stand for ids and amounts)
from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import msgspec

from exchange.adapters.http import HttpServer, listen
from exchange.adapters.market_data_client import MarketDataClient
from exchange.adapters.market_data_server import MAX_WAITING_FRAMES, market_data_app
from exchange.commands import Halt, Limit, PlaceOrder, Resume, SetPhase
from exchange.market_data import Delta, Trouble
from exchange.recording import RecordingExposition, RecordingLog
from exchange.types import HaltReason, Side, TradingPhase
from tests.exchange.plant import AAA, BBB, client_of, engine, eventually, order
from tests.exchange.test_feed import feed


@asynccontextmanager
async def following(port, symbols=(AAA, BBB), heard=lambda _message, _findings: None):
    log = RecordingLog()
    client = MarketDataClient(symbols, ("127.0.0.1", port), log, heard)
    task = asyncio.create_task(client.run())
    try:
        await eventually(lambda: client.ready()[0])
        yield client, log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def same(client, running):
    """Whether the client's books are what the engine shows."""
    inner = running.server._sequencer.engine
    for symbol in (AAA, BBB):
        book, shown = client.book(symbol), inner.depth(symbol, 1_000_000)
        if book is None or (book.bids.depth(), book.asks.depth()) != (shown.bids, shown.asks):
            return False
        if book.seq != inner.symbol_seq(symbol):
            return False
    return True


async def test_a_walk_of_every_kind_of_order_with_gaps_ends_with_the_engines_books(tmp_path):
    chance, found = random.Random(7), []
    async with engine(tmp_path) as running, client_of(running.port) as orders, feed(running.port) as market:
        heard = lambda _message, findings: found.extend(findings)  # noqa: E731 - one line says it
        async with following(market.port, heard=heard) as (client, _):
            for number in range(300):
                lots, price = chance.randrange(1, 9), chance.randrange(995, 1006)
                terms = chance.choice([Limit(price), Limit(price, display=1), Limit(price, all_or_none=True)])
                who, symbol, side = chance.choice(["ann", "bob"]), chance.choice([AAA, BBB]), chance.choice(list(Side))
                await orders.submit(PlaceOrder(who, f"w{number}", symbol, side, lots, terms), 60)
                if number % 60 == 20:
                    market.faults._active["feed-gap"] = str(chance.choice([AAA, BBB]))
                if number % 90 == 50:
                    await running.server.command(SetPhase(f"g{number}", TradingPhase.INTRADAY_AUCTION))
                if number % 90 == 70:
                    await running.server.command(SetPhase(f"c{number}", TradingPhase.CONTINUOUS))
            await eventually(lambda: same(client, running))
            assert sum(client.lost.values()) >= 3
            assert {one.trouble for one in found} == {Trouble.GAP}, "a book that gathers was called crossed"
            assert (client.connections, client.ready()) == (1, (True, "every book is current"))


async def test_a_gap_makes_the_book_unknown_until_its_snapshot_comes_and_is_told_once(tmp_path):
    deltas = []
    async with engine(tmp_path) as running, client_of(running.port) as orders, feed(running.port) as market:

        def heard(message, findings):
            if isinstance(message, Delta):
                deltas.append((client.book(AAA) is None, [one.trouble for one in findings]))

        async with following(market.port, heard=heard) as (client, _):
            await orders.submit(order("a"), 60)
            await eventually(lambda: deltas)
            market.faults._active["feed-gap"] = "AAA"
            await orders.submit(order("b"), 60)
            await orders.submit(order("c"), 60)
            await eventually(lambda: same(client, running))
            assert deltas[0] == (False, [])
            assert client.lost == {AAA: 1}
            await orders.submit(order("d"), 60)
            await eventually(lambda: same(client, running))
            assert client.lost == {AAA: 1}


async def test_a_snapshot_that_does_not_come_is_asked_for_again(tmp_path):
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as orders,
        feed(running.port) as market,
        following(market.port) as (client, _),
    ):
        server, answer = market.server, market.server.snapshot
        server.snapshot = lambda _symbol: None
        market.faults._active["feed-gap"] = "AAA"
        await orders.submit(order("a"), 60)
        await eventually(lambda: client.lost[AAA])
        assert client.book(AAA) is None
        server.snapshot = answer
        await eventually(lambda: same(client, running))


async def test_a_client_cut_off_for_being_slow_begins_again_with_whole_books(tmp_path):
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as orders,
        feed(running.port) as market,
        following(market.port) as (client, log),
    ):
        (subscriber,) = market.server._subscribers
        for _ in range(MAX_WAITING_FRAMES + 1):  # more at once than any subscriber may leave unread
            subscriber.put(b"[]")
        await orders.submit(order("a", quantity=9), 60)
        await eventually(lambda: client.connections == 2 and same(client, running))
        assert market.telemetry.slow == 1
        assert [fields["why"][:9] for name, _, fields in log.events if name == "feed-lost"] == ["too slow:"]


async def test_a_broken_connection_leaves_no_stale_book_and_the_next_one_is_right(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as orders, feed(running.port) as market:
        app = market_data_app(market.server, RecordingExposition(), market.faults, "secret")
        first = HttpServer(app, listen(0), sockets=True)
        await first.start()
        async with following(first.port) as (client, _):
            await orders.submit(order("a"), 60)
            await eventually(lambda: same(client, running))
            await first.stop()
            await eventually(lambda: not client.connected)
            assert client.book(AAA) is None
            assert client.ready() == (False, "not connected to the feed")
            await orders.submit(order("b", Side.SELL, 1000, 3, who="bob"), 60)
            second = HttpServer(app, listen(first.port), sockets=True)
            await second.start()
            try:
                await eventually(lambda: same(client, running))
                assert (client.connections, client.lost) == (2, {})
            finally:
                await second.stop()


async def test_halts_and_the_journals_number_are_told_and_other_symbols_are_left_alone(tmp_path):
    heard = []
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as orders,
        feed(running.port) as market,
        following(market.port, (BBB,), lambda message, _: heard.append(message)) as (client, _),
    ):
        await orders.submit(order("a"), 60)
        await running.server.command(Halt("h", None, HaltReason.OPERATOR))
        await eventually(lambda: client.market_halted and client.journal_seq == 2)
        await running.server.command(Resume("r", None))
        await eventually(lambda: not client.market_halted)
        assert client.book(AAA) is None
        assert not client.lost
        assert b"AAA" not in msgspec.json.encode([one for one in heard if hasattr(one, "symbol")])
