# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""What stands beside a journal tells when its end is lost, is thrown away for damage only, and leaves it the disk."""

import errno
import os
import shutil

import pytest

from control.journal_desk import check
from exchange import snapshot
from exchange.adapters import recovery
from exchange.adapters.file_log import FileLog, LogFailedError, list_segments, read_records
from exchange.adapters.recovery import (
    CleanStop,
    fork_snapshot,
    mark_clean_stop,
    recover,
    take_snapshot,
    write_snapshot,
)
from exchange.adapters.verify import verify
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.journal import encode_command
from exchange.recording import RecordingLog
from kernel.errors import PermanentError
from tests.exchange.plant import INSTRUMENTS, order, paths


@pytest.fixture
def root(tmp_path):
    """Six records, an event log that tells of them all, and neither a snapshot nor a marker."""
    where = paths(tmp_path)
    with FileLog(where.journal, segment_bytes=200) as log:
        for seq in range(1, 7):
            log.append([encode_command(Sequenced(seq, seq, order(f"c{seq}")))])
        log.sync()
    back = recover(where, INSTRUMENTS, RecordingLog())
    back.journal.close()
    back.events.close()
    return tmp_path


def cut_the_last(root):
    """Leave of the last segment its head, as if its records had never been written."""
    last = list_segments(paths(root).journal)[-1].path
    os.truncate(last, 25)
    return sum(1 for _ in read_records(paths(root).journal))


def by_the_event_log(root):
    """It is there already."""


def by_a_snapshot(root):
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    write_snapshot(paths(root).snapshots, back.engine.sequence, snapshot.dump(back.engine))
    back.journal.close()
    back.events.close()
    shutil.rmtree(paths(root).events)


def by_a_clean_stop(root):
    mark_clean_stop(paths(root).snapshots, CleanStop(6, "0" * 64, snapshot.VERSION))
    shutil.rmtree(paths(root).events)


@pytest.mark.parametrize("known", [by_the_event_log, by_a_snapshot, by_a_clean_stop])
def test_lost_records_are_told_by_a_check_and_refused_by_a_start(root, known):
    known(root)
    assert check(root).sound
    left = cut_the_last(root)
    told = check(root)
    assert (told.sound, told.bad) == (False, None)
    (why,) = told.missing
    assert why.endswith(
        f"record 6, but the journal ends with {left}: records are missing; restore the journal from a copy"
    )
    there = sorted(paths(root).events.glob("*"))
    with pytest.raises(PermanentError) as refused:
        recover(paths(root), INSTRUMENTS, RecordingLog())
    assert str(refused.value) == why
    assert sorted(paths(root).events.glob("*")) >= there


def test_an_event_log_that_the_disk_refuses_is_not_thrown_away(root, monkeypatch):
    """A compacted journal could not make it again: only damage is a reason, and a full disk is none."""
    before = {path.name: path.read_bytes() for path in paths(root).events.glob("*.log")}

    def opened(directory, *given, **named):
        if directory == paths(root).events:
            raise LogFailedError(f"{directory}: open failed: No space left on device; the log takes nothing more")
        return FileLog(directory, *given, **named)

    monkeypatch.setattr(recovery, "FileLog", opened)
    with pytest.raises(LogFailedError, match="No space left"):
        recover(paths(root), INSTRUMENTS, RecordingLog())
    assert {path.name: path.read_bytes() for path in paths(root).events.glob("*.log")} == before
    monkeypatch.undo()
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    assert back.events.last_seq == 6
    back.journal.close()
    back.events.close()


def test_a_file_that_cannot_be_read_is_a_sentence(root):
    (paths(root).snapshots / "clean-stop.json").mkdir()
    with pytest.raises(PermanentError, match=r"files cannot be used: .*clean-stop"):
        recover(paths(root), INSTRUMENTS, RecordingLog())
    first = list_segments(paths(root).journal)[0].path
    first.rename(first.with_suffix(".aside"))
    first.mkdir()
    with pytest.raises(PermanentError, match=r"\.log: cannot be read: Is a directory"):
        verify(paths(root).journal, INSTRUMENTS)


def test_a_snapshot_that_the_disk_cannot_take_leaves_the_journal_its_room(tmp_path, monkeypatch):
    engine, directory = Engine(INSTRUMENTS), paths(tmp_path).snapshots
    directory.mkdir()
    with monkeypatch.context() as full:
        full.setattr(recovery.shutil, "disk_usage", lambda _: (0, 0, 1024 * 1024))
        with pytest.raises(PermanentError, match="is the disk full"):
            take_snapshot(directory, fork_snapshot(directory, engine))
    assert not list(directory.iterdir())
    take_snapshot(directory, fork_snapshot(directory, engine))
    (kept,) = directory.iterdir()

    def refused(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", refused)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(directory, 9, snapshot.dump(engine))
    assert list(directory.iterdir()) == [kept]
