# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""An engine whose journal is elsewhere: its files are a cache, a lost majority stops it, its events follow."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from functools import partial

import pytest

from exchange.adapters import publishing
from exchange.adapters.compaction import compact
from exchange.adapters.engine_server import EXIT_JOURNAL_FAILED, EngineParts, EngineServer, Phase
from exchange.adapters.file_log import FileLog, read_records
from exchange.adapters.http import Faults, listen
from exchange.adapters.journal_place import journal_records, name_of, note, noted
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.recovery import recover
from exchange.commands import Resume
from exchange.journal import Kind
from exchange.ports import Refusal
from exchange.protocol import Answer, Refused
from exchange.recording import RecordingEngine, RecordingLog
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from tests.exchange.far_journal import Brokers, FarJournal, FarTopic
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order, paths


@pytest.fixture
def brokers():
    return Brokers()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(publishing, "RETRY_S", 0.05)
    monkeypatch.setattr("exchange.adapters.engine_server.UNREACHED_S", 0.05)


def on(root, brokers, **more):
    return engine(root, open_journal=partial(FarJournal, brokers), **more)


async def send(client, *names):
    replies = [await client.submit(order(name), 60) for name in names]
    assert all(isinstance(reply, Answer) for reply in replies), replies


async def hash_of(running):
    return (await running.server.state_hash()).state_hash


async def reopen(running):
    """A start without the files of the one before counts as one after a crash: nobody trades before somebody looks."""
    assert running.server.status().market_halted
    await running.server.command(Resume("look", None))


async def test_a_fresh_directory_comes_back_wholly_from_a_journal_that_is_elsewhere(tmp_path, brokers):
    async with on(tmp_path / "one", brokers) as running, client_of(running.port) as client:
        await send(client, "a", "b", "c")
        held = await hash_of(running)
    async with on(tmp_path / "two", brokers) as running, client_of(running.port) as client:
        assert running.telemetry.recovered_commands == 3
        await reopen(running)
        again = await client.submit(order("b"), 60)
        assert (again.replayed, again.seq) == (True, 2)
    back = recover(paths(tmp_path / "three"), INSTRUMENTS, RecordingLog(), open_journal=partial(FarJournal, brokers))
    assert back.events.last_seq == back.engine.sequence == len(brokers.records)
    back.events.close()
    assert held == (await replayed_hash(brokers, 3))


async def replayed_hash(brokers, until):
    from exchange.engine import Engine
    from exchange.journal import decode_command

    made = Engine(INSTRUMENTS)
    for payload in brokers.records[:until]:
        made.apply(decode_command(payload))
    return made.state_hash()


async def test_without_a_majority_nothing_is_acknowledged_and_a_new_start_has_all_that_was(tmp_path, brokers):
    async with on(tmp_path, brokers) as running, client_of(running.port) as client:
        await send(client, "a", "b")
        held = await hash_of(running)
        brokers.answer = False
        lost = await client.submit(order("c"), 60)
        later = await client.submit(order("d"), 60)
        brokers.answer = True  # they are back, and this engine does not know what they took
        still = await client.submit(order("e"), 60)
        assert [one.reason for one in (lost, later, still)] == [
            Refusal.UNDECIDED, Refusal.JOURNAL_FAILED, Refusal.JOURNAL_FAILED,
        ]  # fmt: skip
        assert (running.telemetry.failed, running.telemetry.fenced, running.telemetry.is_ready) == (True, False, False)
        assert "journal-failed" in running.log.names()
        assert "engine-fenced" not in running.log.names()
        assert await running.stop() == EXIT_JOURNAL_FAILED
    async with on(tmp_path, brokers) as running, client_of(running.port) as client:
        assert held == await replayed_hash(brokers, 2)
        assert running.telemetry.recovered_commands == 2
        await reopen(running)
        await send(client, "c")


async def test_a_fenced_engine_says_so_and_takes_nothing_more(tmp_path, brokers):
    async with on(tmp_path / "one", brokers) as old, client_of(old.port) as client:
        await send(client, "a")
        async with on(tmp_path / "two", brokers) as new, client_of(new.port) as other:
            await reopen(new)
            await send(other, "b")
            lost = await client.submit(order("c"), 60)
            assert isinstance(lost, Refused)
            assert "another engine has opened this partition" in old.server.ready()[1]
            assert (old.telemetry.failed, old.telemetry.fenced) == (True, True)
            assert "engine-fenced" in old.log.names()
            assert await old.stop() == EXIT_JOURNAL_FAILED
            await send(other, "d")
            assert not new.telemetry.failed


async def test_an_engine_waits_for_brokers_that_do_not_answer_and_tells_why(tmp_path, brokers):
    brokers.answer = False
    log, telemetry = RecordingLog(), RecordingEngine()
    parts = EngineParts(
        paths(tmp_path), INSTRUMENTS, SystemClock(), telemetry, log, Faults((), allowed=False),
        open_journal=partial(FarJournal, brokers),
    )  # fmt: skip
    server, listener = EngineServer(parts), listen(0)
    starting = asyncio.create_task(server.start(listener))
    await eventually(lambda: server.status().phase is Phase.WAITING)
    assert server.ready() == (False, "no broker answers")
    assert log.names() == ["journal-not-reached"]
    brokers.answer = True
    await starting
    assert server.ready()[0]
    assert await server.stop() == 0
    listener.close()


async def test_events_follow_in_order_and_go_on_after_a_restart_where_the_topic_ends(tmp_path, brokers):
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "a", "b")
    assert [seq for seq, _ in brokers.events] == [1, 2]  # a stop in good order leaves nothing behind
    async with on(tmp_path, brokers) as running, client_of(running.port) as client:
        await send(client, "c")  # an engine that publishes nothing
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "d")
        await eventually(lambda: len(brokers.events) == 4)
        running.server._publishing.tell()
        assert (running.telemetry.published_seq, running.telemetry.behind) == (4, 0)
    written = [record.payload for record in read_records(paths(tmp_path).events, kind=Kind.EVENTS)]
    assert brokers.events == list(enumerate(written, 1))


async def test_publishing_begins_in_the_event_log_when_memory_no_longer_holds_what_is_next(
    tmp_path, brokers, monkeypatch
):
    monkeypatch.setattr(publishing, "TOGETHER", 7)
    async with on(tmp_path, brokers) as running, client_of(running.port) as client:
        await asyncio.gather(*(client.submit(order(f"o{number}"), 60) for number in range(50)))
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "last")
        await eventually(lambda: len(brokers.events) == 51)
    assert [seq for seq, _ in brokers.events] == list(range(1, 52))


async def test_events_that_cannot_be_published_never_hold_up_an_order_and_their_number_is_told(tmp_path, brokers):
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "a")
        await eventually(lambda: len(brokers.events) == 1)
        brokers.hold_events = True
        await send(client, *(f"b{number}" for number in range(20)))
        running.server._publishing.tell()
        assert running.telemetry.behind == 20
        brokers.hold_events = False
        await eventually(lambda: len(brokers.events) == 21)


async def test_what_was_taken_and_not_told_comes_twice_at_most_and_never_too_late(tmp_path, brokers):
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "a")
        await eventually(lambda: len(brokers.events) == 1)
        brokers.repeat = 1
        await send(client, "b", "c")
        await eventually(lambda: "events-published-again" in running.log.names() and brokers.events[-1][0] == 3)
        assert running.telemetry.publish_failures == 1
        assert running.log.names().count("events-not-published") == 1
    seen = [seq for seq, _ in brokers.events]
    assert sorted(set(seen)) == [1, 2, 3]
    assert all(seq <= max(seen[:place], default=0) + 1 for place, seq in enumerate(seen))


async def test_a_topic_that_is_ahead_of_the_journal_is_another_journals_and_nothing_is_written_there(tmp_path, brokers):
    brokers.events.append((9, b"whose?"))
    async with on(tmp_path, brokers, topic=FarTopic(brokers)) as running, client_of(running.port) as client:
        await send(client, "a")
        await eventually(lambda: "events-not-published" in running.log.names())
        (severity,) = [how for name, how, _ in running.log.events if name == "events-not-published"]
        assert severity == "critical"
    assert brokers.events == [(9, b"whose?")]


PLACE = KafkaPlace(bootstrap="k1:9092", cluster_id="one")


def test_a_directory_remembers_whose_journal_its_snapshots_belong_to(tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    assert noted(directory) is None
    note(directory, PLACE)
    assert noted(directory) == PLACE
    moved = KafkaPlace(bootstrap="k2:9092,k3:9092", cluster_id="one")
    note(directory, moved)  # the brokers have other addresses now
    assert noted(directory) == moved
    assert name_of(directory) == "Kafka, exchange.commands, partition 0 of 1, cluster one"
    for other in ({"cluster_id": "two"}, {"topic": "other"}, {"partition": 1, "partitions": 2}):
        with pytest.raises(PermanentError, match="take another state directory"):
            note(directory, KafkaPlace(**{"bootstrap": "k1:9092", "cluster_id": "one"} | other))
    assert noted(directory) == moved
    (directory / "kafka.json").write_text("{")
    with pytest.raises(PermanentError, match="says where in Kafka the journal is"):
        noted(directory)


def test_files_and_kafka_are_never_taken_for_one_another(tmp_path):
    where = paths(tmp_path)
    with FileLog(where.journal) as log:
        log.append([b"record"])
        log.sync()
    assert [record.payload for record in journal_records(where.journal)] == [b"record"]
    with pytest.raises(PermanentError, match="holds a journal in files"):
        note(where.journal, PLACE)
    shutil.rmtree(where.journal)
    where.journal.mkdir()
    note(where.journal, PLACE)
    for attempt in (recover, compact):
        with pytest.raises(PermanentError, match="the journal is in Kafka"):
            attempt(where, INSTRUMENTS, *([RecordingLog()] if attempt is recover else []))
    with contextlib.suppress(FileNotFoundError):
        assert not list(where.events.glob("*.log"))


def test_no_role_of_an_embedded_exchange_loads_kafkas_client():
    program = (
        "import sys, asyncio, control.roles, exchange.adapters.engine_server, exchange.adapters.load_account, "
        "exchange.adapters.verify, control.preflight, control.verbs_exchange; "
        "sys.exit('confluent_kafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
