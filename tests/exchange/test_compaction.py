# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Compaction never removes what no snapshot covers: what comes back is the same engine, or a sentence."""

import itertools
import shutil

import pytest

from exchange import snapshot
from exchange.adapters.compaction import Compaction, compact
from exchange.adapters.file_log import FileLog, LogFailedError, LogHeldError, list_segments, read_records
from exchange.adapters.recovery import recover, write_snapshot
from exchange.adapters.verify import verify
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.journal import Kind, encode_command, encode_events
from exchange.recording import RecordingLog
from exchange.types import Instrument
from kernel.errors import PermanentError
from tests.exchange.plant import paths
from tests.exchange.test_log_check import DiesAt

INSTRUMENTS = (Instrument("AAA", 1_000, 200),)
COUNT = 120


def write(root, snapshots, count=COUNT, events_to=COUNT):
    """An engine's directory after `count` commands, with snapshots at these places; returns the hash at the end."""
    where, engine, flow = paths(root), Engine(INSTRUMENTS), OrderFlow(3, INSTRUMENTS, ("p", "q"))
    where.snapshots.mkdir(parents=True)
    with (
        FileLog(where.journal, segment_bytes=1_000) as journal,
        FileLog(where.events, Kind.EVENTS, segment_bytes=1_000) as events,
    ):
        for seq in range(1, count + 1):
            item = Sequenced(seq, seq, next(flow))
            journal.append([encode_command(item)])
            caused = engine.apply(item)
            flow.observe(caused)
            if seq <= events_to:
                events.append([encode_events(Happened(seq, seq, caused))])
            if seq in snapshots:
                write_snapshot(where.snapshots, seq, snapshot.dump(engine))
        journal.sync()
    return engine.state_hash()


def come_back(root):
    """Recover; return the hash, and what each of the logs begins and ends with."""
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    with back.journal, back.events:
        assert back.events.last_seq == back.engine.sequence == back.journal.last_seq
        return back.engine.state_hash(), back.journal.first_seq, back.events.first_seq


def firsts(root):
    return [one.first_seq for one in list_segments(paths(root).journal)]


def test_what_every_snapshot_covers_goes_and_the_engine_comes_back_from_each(tmp_path):
    ends = write(tmp_path, {40, 70, 110})
    before = firsts(tmp_path)
    done = compact(paths(tmp_path), INSTRUMENTS)
    assert done.covered == 40
    assert 1 < done.first_seq <= 41
    assert done.removed == done.first_seq - 1
    assert firsts(tmp_path) == [one for one in before if one >= done.first_seq]
    assert compact(paths(tmp_path), INSTRUMENTS) == Compaction(0, done.first_seq, 40)
    assert verify(paths(tmp_path).journal, INSTRUMENTS).state_hash == ends
    for gone in (110, 70):
        assert come_back(tmp_path)[0] == ends
        (paths(tmp_path).snapshots / f"{gone:020d}.snapshot").unlink()
    assert come_back(tmp_path) == (ends, done.first_seq, 1)
    shutil.rmtree(paths(tmp_path).events)
    assert come_back(tmp_path) == (ends, done.first_seq, 41)
    shutil.rmtree(paths(tmp_path).snapshots)
    for attempt in (lambda: come_back(tmp_path), lambda: verify(paths(tmp_path).journal, INSTRUMENTS)):
        with pytest.raises(PermanentError, match=r"no (whole )?snapshot"):
            attempt()


def test_a_damaged_snapshot_covers_nothing(tmp_path):
    ends = write(tmp_path, {40, 70, 110})
    for seq in (40, 110):
        path = paths(tmp_path).snapshots / f"{seq:020d}.snapshot"
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert compact(paths(tmp_path), INSTRUMENTS).covered == 70
    assert come_back(tmp_path)[0] == ends
    (paths(tmp_path).snapshots / f"{110:020d}.snapshot").rename(paths(tmp_path).snapshots / f"{5:020d}.snapshot")
    assert come_back(tmp_path)[0] == ends


def test_a_snapshot_under_another_name_covers_nothing_and_is_passed_over(tmp_path):
    ends = write(tmp_path, {40})
    where = paths(tmp_path).snapshots
    (where / f"{40:020d}.snapshot").rename(where / f"{119:020d}.snapshot")
    assert compact(paths(tmp_path), INSTRUMENTS) == Compaction(0, 1, 0)
    assert firsts(tmp_path)[0] == 1
    assert come_back(tmp_path) == (ends, 1, 1)


def test_a_snapshot_that_claims_to_stand_earlier_leaves_no_hole_in_the_event_log(tmp_path):
    ends = write(tmp_path, {90}, events_to=50)
    where = paths(tmp_path).snapshots
    (where / f"{90:020d}.snapshot").rename(where / f"{40:020d}.snapshot")
    assert come_back(tmp_path) == (ends, 1, 1)


def test_without_a_snapshot_nothing_goes(tmp_path):
    ends = write(tmp_path, set())
    assert compact(paths(tmp_path), INSTRUMENTS) == Compaction(0, 1, 0)
    assert come_back(tmp_path) == (ends, 1, 1)


def test_a_journal_without_an_event_log_is_given_none(tmp_path):
    ends = write(tmp_path, {40})
    shutil.rmtree(paths(tmp_path).events)
    assert compact(paths(tmp_path), INSTRUMENTS) == Compaction(0, 1, 40)
    assert not paths(tmp_path).events.exists()
    assert come_back(tmp_path) == (ends, 1, 1)


def test_what_the_event_log_lacks_stays(tmp_path):
    """Else it could not be derived any more, and whoever consumes it would miss trades."""
    ends = write(tmp_path, {100, 110}, events_to=50)
    assert compact(paths(tmp_path), INSTRUMENTS) == Compaction(0, 1, 100)
    assert come_back(tmp_path) == (ends, 1, 1)
    assert compact(paths(tmp_path), INSTRUMENTS).removed > 50
    assert come_back(tmp_path)[0] == ends


def test_an_engine_that_runs_is_not_compacted(tmp_path):
    write(tmp_path, {40})
    with FileLog(paths(tmp_path).journal), pytest.raises(LogHeldError):
        compact(paths(tmp_path), INSTRUMENTS)
    with pytest.raises(PermanentError, match="there is no journal here"):
        compact(paths(tmp_path / "nothing"), INSTRUMENTS)


def test_a_stop_at_any_call_of_a_compaction_leaves_an_engine_that_comes_back(tmp_path):
    ends, stopped = write(tmp_path / "whole", {60, 90}), 0
    for call in itertools.count():
        root = tmp_path / str(call)
        shutil.copytree(tmp_path / "whole", root)
        try:
            compact(paths(root), INSTRUMENTS, DiesAt(call))
        except KeyboardInterrupt:
            stopped += 1
        except LogFailedError:
            raise
        else:
            break
        assert come_back(root)[0] == ends
        assert verify(paths(root).journal, INSTRUMENTS).state_hash == ends
        done = compact(paths(root), INSTRUMENTS)
        assert done.covered == 60
        assert come_back(root)[0] == ends
    assert stopped > 4


def test_replay_of_a_compacted_journal_until_any_record_it_holds(tmp_path):
    write(tmp_path / "whole", {30, 60})
    shutil.copytree(tmp_path / "whole", tmp_path / "less")
    compact(paths(tmp_path / "less"), INSTRUMENTS)
    for until in range(30, COUNT + 1):
        less = verify(paths(tmp_path / "less").journal, INSTRUMENTS, until)
        assert less.state_hash == verify(paths(tmp_path / "whole").journal, INSTRUMENTS, until).state_hash
        assert (less.from_snapshot, less.records, less.last_seq) == (30, until - 30, until)
    with pytest.raises(PermanentError, match="no whole snapshot reaches it and not after 29"):
        verify(paths(tmp_path / "less").journal, INSTRUMENTS, 29)
    assert [one.seq for one in read_records(paths(tmp_path / "less").journal, 31)] == list(range(31, COUNT + 1))
