# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""An engine that compacts its own journal: nothing that a snapshot does not cover goes, and no order waits for it."""

import asyncio
import os
import shutil
import threading
from functools import partial

import pytest

from exchange import snapshot
from exchange.adapters.compaction import Compacting, Retention
from exchange.adapters.disk import OsDisk
from exchange.adapters.file_log import FileLog, list_segments, read_records
from exchange.adapters.log_check import check_log
from exchange.adapters.recovery import oldest_whole, recover, write_snapshot
from exchange.adapters.verify import verify
from exchange.commands import Sequenced, Tick
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.journal import Kind, encode_command, encode_events
from exchange.manifest import NOTHING, Keep
from exchange.protocol import Answer
from exchange.recording import RecordingEngine, RecordingLog
from exchange.types import Instrument
from kernel.adapters.clock import SystemClock
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order, paths

ONE = (Instrument("AAA", 1_000, 200),)
AT_ONCE = Retention(NOTHING)
DIED = 9


def small_segments(running):
    for log in (running.server._recovered.journal, running.server._recovered.events):
        log._segment_bytes = 2_000


async def send(client, numbers):
    replies = await asyncio.gather(*(client.submit(order(f"c{number}", price=990), 60) for number in numbers))
    assert all(isinstance(reply, Answer) for reply in replies)


async def send_one_by_one(client, numbers):
    for number in numbers:
        await send(client, [number])


def firsts(root):
    return [one.first_seq for one in list_segments(paths(root).journal)]


# --- the engine's server ---------------------------------------------------------------------------------------------


async def test_an_engine_compacts_after_its_snapshots_and_its_journal_leads_to_the_same_hash(tmp_path):
    async with engine(tmp_path, retention=AT_ONCE, snapshot_every=60) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(400))
        await eventually(lambda: "journal-compacted" in running.log.names())
        await running.server.snapshot()
        segments, size = running.telemetry.removed
        assert segments > 3
        assert size > 3 * 2_000
        assert running.telemetry.first_seq == firsts(tmp_path)[0] > 60
        ends = (await running.server.state_hash()).state_hash
        found = verify(paths(tmp_path).journal, INSTRUMENTS)  # while the engine runs
        assert (found.last_seq, found.state_hash) == (400, ends)
    told = next(fields for name, _, fields in running.log.events if name == "journal-compacted")
    assert told["segments"] > 0
    assert told["first_seq"] <= told["covered"] + 1
    back = recover(paths(tmp_path), INSTRUMENTS, RecordingLog())
    with back.journal, back.events:
        assert back.engine.state_hash() == ends
        assert back.events.first_seq == 1
        assert [record.seq for record in back.events.replay()] == list(range(1, 401))


@pytest.mark.parametrize(
    "retention", [Retention(None), Retention(), Retention(Keep(size=10**9)), Retention(Keep(age=10**15))]
)
async def test_what_is_kept_or_switched_off_stays(tmp_path, retention):
    async with engine(tmp_path, retention=retention) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        await running.server.snapshot()
    assert firsts(tmp_path)[0] == 1
    assert len(firsts(tmp_path)) > 3
    assert running.telemetry.removed == (0, 0)


async def test_what_the_oldest_of_the_kept_snapshots_does_not_cover_stays(tmp_path):
    kept = Retention(NOTHING, snapshots=2)
    async with engine(tmp_path, retention=kept) as running, client_of(running.port) as client:
        small_segments(running)
        for start in range(0, 240, 60):
            await send_one_by_one(client, range(start, start + 60))
            await running.server.snapshot()
            oldest = min(int(path.stem) for path in paths(tmp_path).snapshots.glob("*.snapshot"))
            assert oldest == max(60, start)
            assert firsts(tmp_path)[0] <= oldest + 1
        assert firsts(tmp_path)[0] > 60


async def test_a_snapshot_that_makes_another_engine_covers_nothing_and_goes(tmp_path, monkeypatch):
    other = Engine(INSTRUMENTS)
    for number in range(80):
        other.apply(Tick(f"t{number}"))
    async with engine(tmp_path, retention=AT_ONCE) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "dump", lambda _, right=snapshot.dump: right(other))
            with pytest.raises(Exception, match="has another hash; it was removed"):
                await running.server.snapshot()
        assert not list(paths(tmp_path).snapshots.glob("*.snapshot"))
        assert firsts(tmp_path)[0] == 1
        await running.server.snapshot()
        assert firsts(tmp_path)[0] > 1


async def test_a_damaged_older_snapshot_is_not_what_covers(tmp_path):
    async with engine(tmp_path, retention=AT_ONCE) as running, client_of(running.port) as client:
        await send_one_by_one(client, range(20))
        await running.server.snapshot()
        small_segments(running)
        await send_one_by_one(client, range(20, 120))
        (old,) = paths(tmp_path).snapshots.glob("*.snapshot")
        old.write_bytes(old.read_bytes()[:-1] + b"\0")
        await running.server.snapshot()
        assert firsts(tmp_path)[0] > 21


async def test_whoever_reads_reads_on_and_the_next_snapshot_compacts(tmp_path):
    async with engine(tmp_path, retention=AT_ONCE) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        records = read_records(paths(tmp_path).journal)
        next(records)
        await running.server.snapshot()
        assert firsts(tmp_path)[0] == 1
        assert [record.seq for record in records] == list(range(2, 81))
        await running.server.snapshot()
        assert firsts(tmp_path)[0] > 1
    whys = [fields["why"] for name, _, fields in running.log.events if name == "journal-not-compacted"]
    assert len(whys) == 1
    assert "somebody is reading it" in whys[0]


class Waits(OsDisk):
    """A disk on which removing a file, or putting a manifest in place, takes until it is let go."""

    def __init__(self):
        self.go, self.stuck = threading.Event(), threading.Event()
        self.go.set()

    def wait(self):
        if not self.go.is_set():
            self.stuck.set()
            assert self.go.wait(10)

    def replace(self, source, target):
        self.wait()
        super().replace(source, target)

    def remove(self, path):
        self.wait()
        super().remove(path)


async def test_orders_are_acknowledged_while_a_compaction_waits_for_the_disk(tmp_path):
    """Also those that would begin a segment: it begins when the compaction is over."""
    disk = Waits()
    async with engine(tmp_path, disk, retention=AT_ONCE) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        before = firsts(tmp_path)
        disk.go.clear()
        taking = asyncio.create_task(running.server.snapshot())
        await asyncio.get_running_loop().run_in_executor(None, disk.stuck.wait, 10)
        await send_one_by_one(client, range(80, 140))
        assert firsts(tmp_path) == before
        disk.go.set()
        await taking
        await send(client, [200])
        assert firsts(tmp_path)[-1] == 141
        ends = (await running.server.state_hash()).state_hash
    assert verify(paths(tmp_path).journal, INSTRUMENTS).state_hash == ends


async def test_a_file_that_cannot_be_removed_is_told_and_not_tried_again_and_orders_go_on(tmp_path):
    class Keeps(OsDisk):
        def remove(self, path):
            raise PermissionError(13, "Permission denied", str(path))

    async with engine(tmp_path, Keeps(), retention=AT_ONCE) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        await running.server.snapshot()
        await send_one_by_one(client, range(80, 160))
        await running.server.snapshot()
    assert running.telemetry.compactions_failed == 1
    assert not running.telemetry.failed
    async with engine(tmp_path, retention=AT_ONCE) as running:
        assert firsts(tmp_path)[0] > 1
        assert running.telemetry.recovered_commands == 0


# --- stopped at any call ---------------------------------------------------------------------------------------------


class Dies:
    """Lets this process end in the place of one of its calls that change files, whoever makes it."""

    NAMES = ("open", "write", "fsync", "fdatasync", "replace", "unlink", "ftruncate")

    def __init__(self, patched, call=10**9):
        self.call = call
        self.made = []
        for name in self.NAMES:
            patched.setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name, right):
        def counted(*given, **named):
            if len(self.made) == self.call:
                os._exit(DIED)
            self.made.append(name)
            return right(*given, **named)

        return counted


def in_a_child(work):
    """The exit code of a child that does the work."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(root, count=60, segment_bytes=500):
    """An engine's logs after `count` commands, with snapshots at 20 and 40."""
    where, one, flow = paths(root), Engine(ONE), OrderFlow(3, ONE, ("p", "q"))
    where.snapshots.mkdir(parents=True)
    with (
        FileLog(where.journal, segment_bytes=segment_bytes) as journal,
        FileLog(where.events, Kind.EVENTS, segment_bytes=segment_bytes) as events,
    ):
        for seq in range(1, count + 1):
            item = Sequenced(seq, seq, next(flow))
            journal.append([encode_command(item)])
            caused = one.apply(item)
            flow.observe(caused)
            events.append([encode_events(Happened(seq, seq, caused))])
            if seq in {20, 40}:
                write_snapshot(where.snapshots, seq, snapshot.dump(one))
        journal.sync()
    return one.state_hash(), [next(flow) for _ in range(6)]


def go_on(root, commands):
    """What a running engine does from a snapshot on: writes it, drops the oldest, compacts, takes more orders."""
    back = recover(paths(root), ONE, RecordingLog())
    with back.journal, back.events:
        back.journal._segment_bytes = 500
        write_snapshot(paths(root).snapshots, back.engine.sequence, snapshot.dump(back.engine), 2)
        covered = oldest_whole(paths(root).snapshots, (ONE, None), back.journal.first_seq - 1)
        removed = back.journal.compact(min(covered, back.events.synced_seq))
        for command in commands:
            item = Sequenced(back.engine.sequence + 1, 1_000, command)
            back.journal.append([encode_command(item)])
            back.events.append([encode_events(Happened(item.seq, 1_000, back.engine.apply(item)))])
            back.journal.sync()
        return removed


def dies_going_on(patched, call, root, commands):
    Dies(patched, call)
    go_on(root, commands)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_stop_at_any_call_of_a_snapshot_and_its_compaction_leaves_the_same_hash(tmp_path, monkeypatch, every):
    """The call may be any of recovery, the snapshot, the manifest, the removals and the appends after them."""
    ends, commands = begin(tmp_path / "whole")
    hashes, one = {60: ends}, recover(paths(tmp_path / "whole"), ONE, RecordingLog())
    with one.journal, one.events:
        for seq, command in enumerate(commands, 61):
            one.engine.apply(Sequenced(seq, 1_000, command))
            hashes[seq] = one.engine.state_hash()
    shutil.copytree(tmp_path / "whole", tmp_path / "dry")
    with monkeypatch.context() as patched:
        made, removed = Dies(patched).made, go_on(tmp_path / "dry", commands)
    assert removed.segments > 5
    assert set(made) >= {"open", "write", "fsync", "fdatasync", "replace", "unlink"}
    for call in (*range(0, len(made), every), len(made)):
        root = tmp_path / str(call)
        shutil.copytree(tmp_path / "whole", root)
        with monkeypatch.context() as patched:
            assert in_a_child(partial(dies_going_on, patched, call, root, commands)) == (call < len(made)) * DIED
        assert check_log(paths(root).journal).bad is None
        found = verify(paths(root).journal, ONE)
        assert found.state_hash == hashes[found.last_seq]
        back = recover(paths(root), ONE, RecordingLog())
        with back.journal, back.events:
            assert back.engine.state_hash() == found.state_hash
            assert back.events.last_seq == found.last_seq
        assert not list(paths(root).snapshots.glob("*.draft"))
        go_on(root, ())
        assert check_log(paths(root).journal).bad is None
        assert firsts(root)[0] >= firsts(tmp_path / "dry")[0]
        shutil.rmtree(root)


def lose_power(where, durable):
    """Leave of the event log what was durable: a power loss takes the rest."""
    with FileLog(where.events, Kind.EVENTS) as events:
        kept = [record.payload for record in events.replay() if record.seq <= durable]
    shutil.rmtree(where.events)
    with FileLog(where.events, Kind.EVENTS) as events:
        events.append(kept)


async def test_what_a_power_loss_takes_from_the_event_log_is_derived_again(tmp_path):
    """From a snapshot: one that is not ahead of what the event log has durably."""
    ends, _ = begin(tmp_path)
    where = paths(tmp_path)
    with FileLog(where.journal) as journal, FileLog(where.events, Kind.EVENTS) as events:
        events._synced_seq = 15  # the snapshots are at 20 and 40
        compacting = Compacting(
            journal, events, NOTHING, clock=SystemClock(), telemetry=RecordingEngine(), log=RecordingLog()
        )
        await compacting.run(oldest_whole(where.snapshots, (ONE, None), 0))
        assert 1 < journal.first_seq <= 21
        durable = events.synced_seq
    lose_power(where, durable)
    back = recover(where, ONE, RecordingLog())
    with back.journal, back.events:
        assert back.engine.state_hash() == ends
        assert back.events.last_seq == 60


async def test_a_snapshot_that_the_event_log_needs_outlives_those_that_are_kept(tmp_path):
    kept = Retention(NOTHING, snapshots=1)
    async with engine(tmp_path / "live", retention=kept) as running, client_of(running.port) as client:
        running.server._recovered.journal._segment_bytes = 2_000
        for start in range(0, 180, 60):  # the event log finishes no segment
            await send_one_by_one(client, range(start, start + 60))
            await running.server.snapshot()
        durable, ends = running.server._recovered.events.synced_seq, (await running.server.state_hash()).state_hash
        assert firsts(tmp_path / "live")[0] > 1
        shutil.copytree(tmp_path / "live", tmp_path / "lost")
    where = paths(tmp_path / "lost")
    lose_power(where, durable)
    back = recover(where, INSTRUMENTS, RecordingLog())
    with back.journal, back.events:
        assert back.engine.state_hash() == ends


@pytest.mark.parametrize(
    ("durable", "stay"), [(None, [60]), (60, [60]), (59, [40, 60]), (40, [40, 60]), (39, [20, 60]), (19, [60])]
)
def test_until_a_newer_one_is_behind_the_event_log_that_which_is_stays_beside_those_that_are_kept(
    tmp_path, durable, stay
):
    """A power loss between a snapshot and the compaction after it leaves the event log where it was durable."""
    for seq in (20, 40):
        write_snapshot(tmp_path, seq, snapshot.dump(Engine(INSTRUMENTS)))
    write_snapshot(tmp_path, 60, snapshot.dump(Engine(INSTRUMENTS)), 1, durable)
    assert sorted(int(path.stem) for path in tmp_path.glob("*.snapshot")) == stay


async def test_no_snapshot_goes_before_the_next_is_known_to_be_right(tmp_path, monkeypatch):
    other = Engine(INSTRUMENTS)
    for number in range(160):
        other.apply(Tick(f"t{number}"))
    kept = Retention(NOTHING, snapshots=1)
    async with engine(tmp_path, retention=kept) as running, client_of(running.port) as client:
        small_segments(running)
        await send_one_by_one(client, range(80))
        await running.server.snapshot()
        await send_one_by_one(client, range(80, 160))
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "dump", lambda _, right=snapshot.dump: right(other))
            with pytest.raises(Exception, match="has another hash; it was removed"):
                await running.server.snapshot()
        assert [int(path.stem) for path in paths(tmp_path).snapshots.glob("*.snapshot")] == [80]
