"""The engine's process from inside: what is acknowledged is durable, what is not durable is never acknowledged."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from exchange.adapters.engine_client import AnswerLostError, NotConnectedError, follow_events
from exchange.adapters.engine_server import EXIT_JOURNAL_FAILED
from exchange.adapters.file_log import FileLog
from exchange.adapters.recovery import recover
from exchange.adapters.sequencer import Declined, Done
from exchange.adapters.verify import verify
from exchange.answers import answer_of, resting
from exchange.commands import Halt, Resume
from exchange.events import Accepted, Halted, Rejected, Traded
from exchange.ports import Refusal
from exchange.protocol import AllRests, Answer, Books, NotFound, Refused, Stream, Subscribe
from exchange.recording import RecordingLog
from exchange.types import AccountId, ClientId, HaltReason, Side, Venue
from kernel.errors import PermanentError
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import AAA, INSTRUMENTS, FailingDisk, client_of, engine, eventually, order, paths


async def test_an_order_is_answered_with_all_it_caused(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a", Side.SELL), 60)
        reply = await client.submit(order("b", Side.BUY, who="bob"), 60)
    assert isinstance(reply, Answer)
    assert [type(event) for event in reply.events] == [Accepted, Traded]


async def test_the_same_request_gets_the_first_answer_and_is_sequenced_once(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        first = await client.submit(order("a"), 60)
        again = await client.submit(order("a"), 60)
        assert isinstance(first, Answer)
        assert isinstance(again, Answer)
        assert (again.seq, again.events, again.replayed) == (first.seq, first.events, True)
        assert running.telemetry.commands == 1


async def test_another_request_under_a_used_client_id_is_a_mismatch(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
        reply = await client.submit(order("a", quantity=6), 60)
        assert isinstance(reply, Refused)
        assert reply.reason is Refusal.MISMATCH
        assert running.telemetry.commands == 1


async def test_a_request_whose_sync_is_under_way_is_in_flight(tmp_path):
    disk = HeldDisk()
    async with engine(tmp_path, disk) as running, client_of(running.port) as client:
        disk.hold()
        first = asyncio.create_task(client.submit(order("a"), 60))
        await eventually(lambda: disk.begun)
        again = await client.submit(order("a"), 60)
        looked_up = await client.look_up(AccountId("ann"), ClientId("a"), 5)
        assert isinstance(again, Refused)
        assert again.reason is Refusal.IN_FLIGHT
        assert isinstance(looked_up, Refused)
        disk.let_go()
        assert isinstance(await first, Answer)


async def test_looking_up_what_nobody_sent_finds_nothing(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        assert isinstance(await client.look_up(AccountId("ann"), ClientId("never"), 5), NotFound)


async def test_many_requests_share_one_sync(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        running.faults._active["engine-slow-sync"] = 0.05
        replies = await asyncio.gather(*(client.submit(order(f"a{number}"), 60) for number in range(100)))
        assert all(isinstance(reply, Answer) for reply in replies)
        assert running.telemetry.batches < 10


async def test_nothing_is_acknowledged_after_a_sync_failed_and_none_is_tried_again(tmp_path):
    disk = FailingDisk()
    async with engine(tmp_path, disk) as running, client_of(running.port) as client:
        assert isinstance(await client.submit(order("a"), 60), Answer)
        disk.broken = True
        failed = await client.submit(order("b"), 60)
        disk.broken = False  # the next fsync would succeed, and prove nothing
        later = await client.submit(order("c"), 60)
        again = await client.submit(order("b"), 60)
        assert [reply.reason for reply in (failed, later, again) if isinstance(reply, Refused)] == [
            Refusal.UNDECIDED,
            Refusal.JOURNAL_FAILED,
            Refusal.UNDECIDED,
        ]
        assert running.telemetry.failed
        assert running.server.status().journal_failed
        assert not running.server.ready()[0]
        assert running.server.status().seq == 1
        assert await running.stop() == EXIT_JOURNAL_FAILED


async def test_after_a_failed_sync_neither_books_nor_a_snapshot_tell_what_it_covers(tmp_path):
    """A snapshot beyond its journal would be of another history once somebody else wrote the next record."""
    disk = HeldDisk()
    async with engine(tmp_path, disk) as running, client_of(running.port) as client:
        disk.hold()
        sent = asyncio.create_task(client.submit(order("a"), 60))
        await eventually(lambda: disk.begun)
        wanted = asyncio.create_task(running.server.snapshot())
        await asyncio.sleep(0)
        disk.fails = True
        disk.let_one_through()
        with pytest.raises(PermanentError, match="ahead of its journal"):
            await wanted
        assert (await sent).reason is Refusal.UNDECIDED
        told = follow_events(running.port, lambda: Subscribe(books=True), lambda _connected: None)
        first = asyncio.ensure_future(anext(told))
        await eventually(lambda: "books-refused" in running.log.names())
        assert not first.done()
        first.cancel()
        disk.let_go()
    assert not list((tmp_path / "snapshots").glob("*.snapshot"))


async def test_the_stream_waits_for_the_sync_and_never_tells_what_was_not_synced(tmp_path):
    """Trades and market data are made from this stream: matching runs ahead, and nobody hears of it."""
    disk, heard = HeldDisk(), [0]

    async def listen_on(port: int) -> None:
        async for message in follow_events(port, lambda: Subscribe(1), lambda _connected: None):
            if isinstance(message, Stream):
                heard.extend(item.seq for item in message.happened)
            else:
                heard.append(message.seq)

    async with engine(tmp_path, disk) as running, client_of(running.port) as client:
        listening = asyncio.create_task(listen_on(running.port))
        assert isinstance(await client.submit(order("a"), 60), Answer)
        await eventually(lambda: heard[-1] == 1)
        disk.hold()
        asking = asyncio.create_task(client.submit(order("b"), 60))
        server = running.server
        await eventually(lambda: server._sequencer.engine.sequence == 2)
        count = len(heard)
        await eventually(lambda: len(heard) > count)  # a heartbeat while it is matched and not yet durable
        assert (heard[-1], asking.done()) == (1, False)
        disk.let_go()
        assert isinstance(await asking, Answer)
        await eventually(lambda: heard[-1] == 2)
        disk.fails = True
        assert isinstance(await client.submit(order("c"), 60), Refused)
        assert server._sequencer.engine.sequence == 3
        count = len(heard)
        await eventually(lambda: len(heard) > count + 2)
        assert max(heard) == 2
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_clean_stop_starts_open_and_an_unclean_one_starts_halted(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
    async with engine(tmp_path) as running:
        assert running.server.status().clean_start
        assert not running.server.status().market_halted
    (tmp_path / "snapshots" / "clean-stop.json").unlink()
    async with engine(tmp_path) as running, client_of(running.port) as client:
        status = running.server.status()
        assert (status.clean_start, status.market_halted) == (False, True)
        assert status.market_halt_reason is HaltReason.RECOVERY
        reply = await client.submit(order("b"), 60)
        assert isinstance(reply, Refused)
        assert reply.reason is Refusal.HALTED
        assert isinstance(await running.server.command(Resume(ClientId("open"), None)), Done)
        assert isinstance(await client.submit(order("b"), 60), Answer)


async def test_a_fresh_directory_starts_open(tmp_path):
    async with engine(tmp_path) as running:
        assert not running.server.status().market_halted


async def test_an_operators_command_is_carried_out_once_for_its_key(tmp_path):
    async with engine(tmp_path) as running:
        halt = Halt(ClientId("h1"), AAA, HaltReason.OPERATOR)
        first, again = await running.server.command(halt), await running.server.command(halt)
        assert isinstance(first, Done)
        assert isinstance(again, Done)
        assert (first.seq, again.replayed) == (again.seq, True)
        assert isinstance(first.events[0], Halted)
        other = await running.server.command(Halt(ClientId("h1"), None, HaltReason.OPERATOR))
        assert other == Declined(Refusal.MISMATCH)


async def test_the_hash_and_the_replay_agree_whatever_way_the_engine_comes_back(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        for number in range(20):
            await client.submit(order(f"a{number}", Side.BUY if number % 2 else Side.SELL, 995 + number), 60)
        await running.server.snapshot()
        await client.submit(order("last"), 60)
        state = await running.server.state_hash()
    assert verify(tmp_path / "journal", INSTRUMENTS).state_hash == state.state_hash
    for damage in (None, "snapshots", "events"):
        if damage is not None:
            shutil.rmtree(tmp_path / damage)
        recovered = recover(paths(tmp_path), INSTRUMENTS, RecordingLog())
        assert recovered.engine.state_hash() == state.state_hash
        assert recovered.events.last_seq == recovered.engine.sequence == state.seq
        recovered.journal.close()
        recovered.events.close()


async def test_a_damaged_snapshot_is_passed_over_for_an_older_one(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
        await running.server.snapshot()
        await client.submit(order("b"), 60)
        state = await running.server.state_hash()
    newest = max((tmp_path / "snapshots").glob("*.snapshot"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    log = RecordingLog()
    recovered = recover(paths(tmp_path), INSTRUMENTS, log)
    assert "snapshot-passed-over" in log.names()
    assert (recovered.replayed, recovered.engine.state_hash()) == (1, state.state_hash)
    recovered.journal.close()
    recovered.events.close()


async def test_a_torn_tail_is_cut_and_the_engine_starts(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
        await client.submit(order("b"), 60)
    # A crash in mid-write leaves nothing that goes back to the record: the event log is written after its sync.
    shutil.rmtree(tmp_path / "snapshots")
    shutil.rmtree(tmp_path / "events")
    segment = next((tmp_path / "journal").glob("*.log"))
    segment.write_bytes(segment.read_bytes()[:-3])
    async with engine(tmp_path) as running:
        assert "journal-tail-cut" in running.log.names()
        assert running.server.status().recovered_commands == 1
        assert running.server.status().market_halted


async def test_a_corrupt_journal_is_refused_with_its_offset(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
        await client.submit(order("b"), 60)
    segment = next((tmp_path / "journal").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[80] ^= 1
    segment.write_bytes(data)
    with pytest.raises(PermanentError, match="corrupt at byte"):
        async with engine(tmp_path):
            pass


async def test_a_journal_that_ends_before_the_last_snapshot_is_refused(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a"), 60)
    shutil.rmtree(tmp_path / "journal")
    with pytest.raises(PermanentError, match="records are missing"):
        recover(paths(tmp_path), INSTRUMENTS, RecordingLog())


async def test_an_engine_waits_for_the_journal_that_another_holds_and_says_so(tmp_path):
    holder = FileLog(tmp_path / "journal")
    from exchange.adapters.engine_server import ENGINE_FAULTS, EngineParts, EngineServer
    from exchange.adapters.http import Faults, listen
    from exchange.recording import RecordingEngine
    from kernel.adapters.clock import SystemClock

    faults = Faults(ENGINE_FAULTS, allowed=False)
    server = EngineServer(
        EngineParts(paths(tmp_path), INSTRUMENTS, SystemClock(), RecordingEngine(), RecordingLog(), faults)
    )
    starting = asyncio.create_task(server.start(listen(0)))
    await eventually(lambda: "writes to this log" in server.ready()[1])
    holder.close()
    async with asyncio.timeout(60):
        await starting
    assert server.ready()[0]
    await server.stop()


async def test_a_consumer_gets_everything_in_order_from_file_and_memory_and_goes_on_after_a_restart(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        for number in range(5):
            await client.submit(order(f"a{number}"), 60)
        port = running.port
    seen: list[int] = []

    async def consume() -> None:
        async for message in follow_events(port, lambda: Subscribe(len(seen) + 1), lambda _connected: None):
            if isinstance(message, Stream):
                seen.extend(item.seq for item in message.happened)
            if len(seen) >= 12:
                return

    consuming = asyncio.create_task(consume())
    async with engine(tmp_path, port=port) as running, client_of(port) as client:
        for number in range(5, 8):
            await client.submit(order(f"a{number}"), 60)
    async with engine(tmp_path, port=port) as running, client_of(port) as client:
        for number in range(8, 12):
            await client.submit(order(f"a{number}"), 60)
        async with asyncio.timeout(60):
            await consuming
    assert seen == list(range(1, 13))


async def test_books_come_at_one_number_and_the_stream_goes_on_behind_it(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(order("a", quantity=7), 60)
        messages = follow_events(running.port, lambda: Subscribe(books=True), lambda _connected: None)
        books = await anext(messages)
        assert isinstance(books, Books)
        assert (books.seq, books.books[0].bids) == (1, ((1000, 7),))
        await client.submit(order("b"), 60)
        async with asyncio.timeout(60):
            while not isinstance(message := await anext(messages), Stream):
                pass
        assert message.happened[0].seq == 2
        await messages.aclose()


async def test_a_broken_connection_leaves_the_answer_unknown_not_refused(tmp_path):
    disk = HeldDisk()
    async with engine(tmp_path, disk) as running, client_of(running.port) as client:
        disk.hold()
        asking = asyncio.create_task(client.submit(order("a"), 60))
        await eventually(lambda: disk.begun)
        for connection in list(running.server._connections):
            connection.cancel()
        with pytest.raises(AnswerLostError):
            await asking
        disk.let_go()


async def test_a_rejection_is_durable_and_answered_with_its_reason(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        reply = await client.submit(order("a", price=9_999), 60)
        assert isinstance(reply, Answer)
        assert isinstance(reply.events[0], Rejected)
    assert verify(tmp_path / "journal", INSTRUMENTS).last_seq == 1


async def test_a_clean_stop_of_a_program_with_another_state_is_still_a_clean_stop(tmp_path):
    async with engine(tmp_path) as running:
        await running.stop()
    marker = paths(tmp_path).snapshots / "clean-stop.json"
    written = json.loads(marker.read_text())
    marker.write_text(json.dumps({"seq": written["seq"], "state_hash": "of version 1"}))
    async with engine(tmp_path) as running:
        await eventually(lambda: running.server.ready()[0])
        assert running.server.status().clean_start
        assert "clean-stop-of-another-version" in running.log.names()


async def test_an_engine_keeps_the_conventions_of_its_venue_over_a_restart(tmp_path):
    venue = Venue(holds=True)
    for number in range(2):
        async with engine(tmp_path, venue=venue) as running, client_of(running.port) as client:
            answer = await client.submit(order(f"c{number}"), 60)
            assert answer.events[-1].reason == "insufficient_funds"


async def test_commands_sent_together_are_answered_as_if_each_had_come_alone(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        single = await client.submit(order("z"), 60)
        heard = {}
        commands = [order(f"a{number}") for number in range(150)] + [order("t", Side.SELL), order("z")]
        client.send_many(commands, {}, heard.update)
        await eventually(lambda: len(heard) == len(commands))
        for place, command in enumerate(commands):
            known = await client.look_up(command.account, command.client_id, 5)
            reply = heard[place]
            if isinstance(reply, AllRests):
                assert resting(reply.seq, command.client_id, reply.order_id, reply.quantity) == answer_of(
                    known.seq, command.client_id, known.events
                )
            else:
                assert (reply.seq, reply.events) == (known.seq, known.events)
        assert {type(heard[place]) for place in range(150)} == {AllRests}, "nothing of them traded"
        assert isinstance(heard[150], Answer), "what trades is told with its events"
        assert (heard[151].seq, heard[151].replayed) == (single.seq, True)
        assert client.in_flight == 0


async def test_a_lost_connection_and_giving_up_tell_each_of_many_commands_once(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        running.faults._active["engine-slow-sync"] = 0.3
        heard = []
        first = client.send_many([order(f"a{number}") for number in range(5)], {}, heard.extend)
        client.give_up(first + 3)
        assert [(place, type(reply)) for place, reply in heard] == [(3, AnswerLostError)]
        client._broke()
        assert sorted(place for place, _ in heard) == [0, 1, 2, 3, 4]
        assert all(isinstance(reply, AnswerLostError) for _, reply in heard)
        with pytest.raises(NotConnectedError):
            client.send_many([order("b")], {}, heard.extend)
