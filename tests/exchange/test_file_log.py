# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The log in files under every kind of trouble a disk makes."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from exchange.adapters.disk import OsDisk
from exchange.adapters.file_log import (
    FileLog,
    LogCorruptError,
    LogFailedError,
    LogHeldError,
    list_segments,
    read_records,
)
from exchange.journal import Kind, frame
from kernel.errors import PermanentError


class BadDisk(OsDisk):
    """A disk that takes so many bytes more and fails fsync on demand."""

    def __init__(self):
        self.room = None
        self.sync_fails = False
        self.syncs = 0

    def write(self, fd, data):
        if self.room is None:
            return super().write(fd, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(fd, data[: self.room])
        self.room -= taken
        return taken

    def fsync(self, fd):
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)


def payloads(count, first=1):
    return [f"payload {seq}".encode() for seq in range(first, first + count)]


def seqs(directory, from_seq=1):
    return [record.seq for record in read_records(directory, from_seq)]


def only_file(directory) -> Path:
    (segment,) = list_segments(directory)
    return segment.path


def test_records_come_back_in_order_over_many_segments(tmp_path):
    with FileLog(tmp_path, segment_bytes=100) as log:
        for seq in range(1, 31):
            assert log.append(payloads(1, seq)) == seq
        assert log.sync() == log.synced_seq == 30
        assert [record.payload for record in log.replay()] == payloads(30)
    assert len(list_segments(tmp_path)) > 5
    assert seqs(tmp_path, 17) == list(range(17, 31))
    with FileLog(tmp_path, segment_bytes=100) as log:
        assert (log.last_seq, log.repaired) == (30, None)
        assert log.append(payloads(2, 31)) == 32


def test_payloads_are_those_of_the_records_from_any_number_on_whatever_opening_kept(tmp_path):
    with FileLog(tmp_path, segment_bytes=100) as log:
        for seq in range(1, 31):
            log.append(payloads(1, seq))
    for keep in (False, True):
        for first in range(1, 32):
            with FileLog(tmp_path, keep=keep) as log:
                told = [list(log.payloads(first)), list(log.payloads(first))]
            for batches in told:
                assert [one for batch in batches for one in batch] == payloads(30)[first - 1 :]
                assert all(batches)


def test_what_opening_kept_is_forgotten_when_something_is_appended(tmp_path):
    with FileLog(tmp_path) as log:
        log.append(payloads(4))
    with FileLog(tmp_path, keep=True) as log:
        log.append(payloads(1, 5))
        assert [one for batch in log.payloads() for one in batch] == payloads(5)


def test_every_cut_of_the_file_is_repaired_and_told(tmp_path):
    with FileLog(tmp_path / "whole") as log:
        log.append(payloads(4))
    data = only_file(tmp_path / "whole").read_bytes()
    for size in range(len(data)):
        directory = tmp_path / f"cut-{size}"
        directory.mkdir()
        path = directory / only_file(tmp_path / "whole").name
        path.write_bytes(data[:size])
        before = seqs(directory)
        with FileLog(directory) as log:
            kept = log.last_seq
            assert before == list(range(1, kept + 1))
            assert log.append([b"new"]) == kept + 1
        assert [record.payload for record in read_records(directory)] == [*payloads(kept), b"new"]
        if log.repaired is not None:
            assert log.repaired.offset + log.repaired.size == size


def test_a_flipped_bit_is_refused_with_file_and_offset_and_nothing_is_changed(tmp_path):
    with FileLog(tmp_path) as log:
        log.append(payloads(3))
    path = only_file(tmp_path)
    data = path.read_bytes()
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(LogCorruptError) as caught:
            FileLog(tmp_path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == damaged
        with pytest.raises(LogCorruptError):
            seqs(tmp_path)


def test_a_reader_sees_whole_records_while_a_tail_is_being_written(tmp_path):
    with FileLog(tmp_path) as log:
        log.append(payloads(3))
        path = only_file(tmp_path)
        with path.open("ab") as file:
            file.write(b"TJ\x01")
        size = path.stat().st_size
        assert seqs(tmp_path) == [1, 2, 3]
        assert path.stat().st_size == size


def test_a_missing_segment_is_corruption(tmp_path):
    with FileLog(tmp_path, segment_bytes=60) as log:
        for seq in range(1, 10):
            log.append(payloads(1, seq))
    list_segments(tmp_path)[2].path.unlink()
    with pytest.raises(LogCorruptError, match="a segment is missing"):
        seqs(tmp_path)


def test_a_second_writer_is_told_who_holds_the_log(tmp_path):
    with FileLog(tmp_path), pytest.raises(LogHeldError, match=str(os.getpid())):
        FileLog(tmp_path)
    FileLog(tmp_path).close()


def test_after_a_failed_fsync_nothing_is_taken_and_no_fsync_is_tried_again(tmp_path):
    disk = BadDisk()
    with FileLog(tmp_path, disk=disk) as log:
        log.append(payloads(1))
        disk.sync_fails = True
        with pytest.raises(LogFailedError, match="fsync failed"):
            log.sync()
        disk.sync_fails = False
        tried = disk.syncs
        for call in (log.sync, lambda: log.append([b"x"]), log.sync):
            with pytest.raises(LogFailedError):
                call()
        assert (disk.syncs, log.failed, log.synced_seq) == (tried, True, 0)


@pytest.mark.parametrize("room", range(60))
def test_a_full_disk_leaves_no_half_record_behind(tmp_path, room):
    disk = BadDisk()
    with FileLog(tmp_path, disk=disk) as log:
        log.append(payloads(1))
        disk.room = room
        with pytest.raises(LogFailedError, match="No space left"):
            log.append(payloads(2, 2))
        disk.room = None
        with pytest.raises(LogFailedError):
            log.append([b"more"])
    with FileLog(tmp_path) as log:
        kept = log.last_seq
        assert kept == 1 + room // len(frame(2, payloads(1, 2)[0]))
        log.append([b"after"])
    assert [record.payload for record in read_records(tmp_path)] == [*payloads(kept), b"after"]


def test_short_writes_are_carried_on(tmp_path):
    class Sip(OsDisk):
        def write(self, fd, data):
            return super().write(fd, data[:3])

    with FileLog(tmp_path, disk=Sip()) as log:
        log.append(payloads(5))
    assert seqs(tmp_path) == [1, 2, 3, 4, 5]


def test_another_version_gets_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("exchange.journal.FORMAT_VERSION", 9)
    FileLog(tmp_path).close()
    monkeypatch.undo()
    with pytest.raises(PermanentError, match="format version 9; this program reads version 1"):
        FileLog(tmp_path)


def test_a_log_of_events_is_not_taken_for_one_of_commands(tmp_path):
    FileLog(tmp_path, Kind.EVENTS).close()
    with pytest.raises(LogCorruptError, match="kind"):
        FileLog(tmp_path, Kind.COMMANDS)


def test_a_log_may_begin_later_and_says_so(tmp_path):
    with FileLog(tmp_path, first_seq=11) as log:
        log.append([b"eleven"])
    assert seqs(tmp_path, 11) == [11]
    with pytest.raises(PermanentError, match="begins with record 11"):
        seqs(tmp_path, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_really_full_disk(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        kept = 0
        with FileLog(tmp_path) as log:
            while not log.failed:
                try:
                    kept = log.append([bytes(1000)])
                except LogFailedError as error:
                    assert "No space left" in str(error)  # noqa: PT017 - which append fails is the disk's choice
        assert kept > 10
        with FileLog(tmp_path) as log:
            assert log.last_seq == kept
    finally:
        subprocess.run(["umount", tmp_path], check=True)
