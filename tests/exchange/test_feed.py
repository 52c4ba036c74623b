"""Market data and the watchdog together: the feed is whole, a loss is seen and called out, a stall shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager

import msgspec
from websockets.asyncio.client import connect

from exchange.adapters.http import Faults, HttpServer, listen
from exchange.adapters.market_data_server import (
    FEED_FAULTS,
    MAX_WAITING_FRAMES,
    FeedPart,
    MarketDataServer,
    market_data_app,
)
from exchange.adapters.watchdog import Watchdog
from exchange.market_data import FeedMessage, Follower, Heartbeat
from exchange.ports import Alarm
from exchange.recording import RecordingAlarms, RecordingExposition, RecordingFeed, RecordingLog, RecordingWatchdog
from exchange.types import Side
from kernel.adapters.clock import SystemClock
from tests.exchange.plant import AAA, BBB, INSTRUMENTS, client_of, engine, eventually, order


class Feed:
    def __init__(self, server: MarketDataServer, port: int, telemetry: RecordingFeed, faults: Faults) -> None:
        self.server, self.port, self.telemetry, self.faults = server, port, telemetry, faults


@asynccontextmanager
async def feed(engine_port: int, parts: Sequence[FeedPart] = ()):
    telemetry, faults = RecordingFeed(), Faults(FEED_FAULTS, allowed=True)
    server = MarketDataServer(
        [AAA, BBB], engine_port, clock=SystemClock(), telemetry=telemetry, log=RecordingLog(), faults=faults,
        parts=parts,
    )  # fmt: skip
    http = HttpServer(market_data_app(server, RecordingExposition(), faults, "secret"), listen(0), sockets=True)
    await http.start()
    task = asyncio.create_task(server.run())
    try:
        await eventually(lambda: server.ready()[0])
        yield Feed(server, http.port, telemetry, faults)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await http.stop()


@asynccontextmanager
async def watchdog(port: int):
    telemetry, alarms = RecordingWatchdog(), RecordingAlarms()
    dog = Watchdog(
        [AAA, BBB],
        market_data=("127.0.0.1", port),
        engine=("127.0.0.1", 1),
        alarms=alarms,
        clock=SystemClock(),
        telemetry=telemetry,
        log=RecordingLog(),
    )
    task = asyncio.create_task(dog.run())
    try:
        await eventually(lambda: telemetry.messages >= 3)
        yield telemetry, alarms
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_follower_of_the_feed_has_the_engines_book_also_after_an_engine_restart(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        port = running.port
        await client.submit(order("a", quantity=7), 60)
        async with feed(port) as market, connect(f"ws://127.0.0.1:{market.port}/v1/feed") as socket:
            follower = Follower([AAA, BBB])
            await client.submit(order("b", Side.SELL, 1001, 4), 60)
            await running.stop()
            async with engine(tmp_path, port=port), client_of(port) as again:
                await again.submit(order("c", Side.SELL, 1000, 3), 60)
                async with asyncio.timeout(60):
                    while (book := follower.book(AAA)) is None or book.bids.depth() != ((1000, 4),):
                        for message in msgspec.json.decode(await socket.recv(), type=list[FeedMessage]):
                            assert follower.take(message) == ()
                assert book.asks.depth() == ((1001, 4),)


async def test_of_two_engines_one_may_go_and_come_back_and_the_others_book_is_current_all_the_while(tmp_path):
    first, second = ([one] for one in INSTRUMENTS)
    async with engine(tmp_path / "1", instruments=first) as one, engine(tmp_path / "2", instruments=second) as two:
        port, parts = two.port, [FeedPart((AAA,), one.port), FeedPart((BBB,), two.port)]
        async with feed(0, parts) as market, watchdog(market.port) as (watched, alarms), client_of(one.port) as client:
            await two.stop()
            await eventually(lambda: not market.server.current(BBB)[0])
            assert market.server.ready() == (True, "the books are current but for BBB")
            assert not market.server.current(None)[0], "of the whole market not all is known"
            await client.submit(order("a", quantity=7), 60)
            await eventually(lambda: market.server.snapshot(AAA).bids == ((1000, 7),))
            assert market.server.current(AAA)[0]
            async with engine(tmp_path / "2", instruments=second, port=port):
                await eventually(lambda: market.server.current(None)[0])
                assert market.server.ready() == (True, "the books are current")
            assert watched.messages
            assert not alarms.posts


async def test_a_lost_delta_is_called_out_in_milliseconds_and_the_book_is_fetched_anew(tmp_path):
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as client,
        feed(running.port) as market,
        watchdog(market.port) as (telemetry, alarms),
    ):
        await client.submit(order("a"), 60)
        assert not any(telemetry.gaps.values())
        market.faults._active["feed-gap"] = "AAA"
        await client.submit(order("b"), 60)
        await client.submit(order("c"), 60)
        await eventually(lambda: alarms.posts)
        raised = alarms.posts[0]
        assert (raised.alarm, raised.symbol) == (Alarm.SEQUENCE_GAP, AAA)
        assert raised.ends_at > raised.starts_at
        assert telemetry.gaps == {AAA: True, BBB: False}
        await client.submit(order("d"), 60)
        await asyncio.sleep(0.3)
        assert telemetry.gaps_seen == {AAA: 1}, "the book was not fetched anew, or the gap was counted again"


async def test_the_loss_of_a_last_delta_shows_by_the_next_heartbeat(tmp_path):
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as client,
        feed(running.port) as market,
        watchdog(market.port) as (telemetry, alarms),
    ):
        market.faults._active["feed-gap"] = "AAA"
        await client.submit(order("a"), 60)
        await eventually(lambda: alarms.posts)
        assert telemetry.gaps[AAA]


async def test_a_stalled_feed_publishes_nothing_and_its_timestamp_stands(tmp_path):
    async with engine(tmp_path) as running, feed(running.port) as market:
        market.faults._active["feed-stall"] = None
        await asyncio.sleep(0.25)
        before = market.telemetry.published_at
        await asyncio.sleep(0.5)
        assert market.telemetry.published_at == before
        assert market.server.ready()[0]
        market.faults._active.clear()
        await eventually(lambda: market.telemetry.published_at != before)


async def test_a_subscriber_that_does_not_read_is_cut_off_and_the_others_go_on(tmp_path):
    async with engine(tmp_path) as running, feed(running.port) as market:
        url = f"ws://127.0.0.1:{market.port}/v1/feed"
        async with connect(url, max_queue=1, close_timeout=0.1) as lazy, connect(url, close_timeout=0.2) as other:
            big = b"[]" + b" " * 100_000  # as large as a frame of full books
            async with asyncio.timeout(60):
                while not market.telemetry.slow:
                    for _ in range(MAX_WAITING_FRAMES // 16):
                        for subscriber in market.server._subscribers:
                            subscriber.put(big)
                    await asyncio.sleep(0)
                    while True:
                        try:
                            async with asyncio.timeout(0.01):
                                await other.recv()
                        except TimeoutError:
                            break
            assert market.telemetry.slow == 1
            async with asyncio.timeout(60):
                while not (messages := msgspec.json.decode(await other.recv(), type=list[FeedMessage])):
                    pass
            assert isinstance(messages[-1], Heartbeat)
            lazy.transport.abort()


async def test_a_conflated_feed_says_less_and_neither_the_watchdog_nor_a_late_subscriber_finds_a_gap(tmp_path):
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as client,
        feed(running.port) as market,
        watchdog(market.port) as (telemetry, alarms),
    ):
        market.faults._active["feed-conflation"] = 0.25
        before = market.telemetry.kinds["delta"]
        for number in range(20):
            await client.submit(order(f"c{number}", price=900 + number), 60)
        async with connect(f"ws://127.0.0.1:{market.port}/v1/feed") as socket:
            late = Follower()
            for number in range(20, 40):
                await client.submit(order(f"c{number}", price=900 + number), 60)
            assert market.telemetry.kinds["delta"] - before < 20
            market.faults._active.clear()
            async with asyncio.timeout(60):
                while (book := late.book(AAA)) is None or len(book.bids.depth()) < 40:
                    for message in msgspec.json.decode(await socket.recv(), type=list[FeedMessage]):
                        assert late.take(message) == ()
        assert not any(telemetry.gaps.values())
        assert not alarms.posts
