# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The manifest, and the check that reads everything: what is missing or changed is told, and where."""

import contextlib
import itertools
import os
import shutil
import threading
import time

import pytest

from exchange import manifest as manifests
from exchange.adapters.disk import OsDisk
from exchange.adapters.file_log import (
    FileLog,
    LogCorruptError,
    LogFailedError,
    list_segments,
    read_manifest,
    read_records,
    segment_path,
)
from exchange.adapters.log_check import check_log
from exchange.adapters.log_holds import LogReadError, reading
from exchange.commands import CancelOrder, Sequenced
from exchange.events import Happened, SessionOpened
from exchange.journal import SEGMENT_HEAD_BYTES, CorruptError, Kind, VersionError, encode_command, encode_events
from exchange.manifest import Keep, Manifest, Sealed
from kernel.errors import InputError, PermanentError


def command(seq):
    return encode_command(Sequenced(seq, seq, CancelOrder("ann", f"c{seq}", seq)))


def write(directory, count=12, segment_bytes=200):
    """A journal of several segments."""
    with FileLog(directory, segment_bytes=segment_bytes) as log:
        for seq in range(1, count + 1):
            log.append([command(seq)])
        log.sync()
    return list_segments(directory)


def seqs(directory, from_seq=1):
    return [record.seq for record in read_records(directory, from_seq)]


# --- the manifest -------------------------------------------------------------------------------------------------


def test_the_manifest_names_every_segment_and_how_it_ended(tmp_path):
    segments = write(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.first_seqs == tuple(one.first_seq for one in segments)
    assert [one.size for one in manifest.sealed] == [one.path.stat().st_size for one in segments[:-1]]
    assert manifest.sealed[-1].last_seq == segments[-1].first_seq - 1
    before = (tmp_path / "manifest").read_bytes()
    FileLog(tmp_path).close()
    assert (tmp_path / "manifest").read_bytes() == before


def test_every_flipped_bit_and_every_cut_of_a_manifest_is_refused():
    data = manifests.dump(Manifest(kind=Kind.EVENTS, removed_to=0, sealed=(Sealed(1, 5, 99, 7),), open_seq=6))
    assert manifests.load(data).open_seq == 6
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with pytest.raises(CorruptError):
                manifests.load(bytes(damaged))
        with pytest.raises(CorruptError):
            manifests.load(data[:index])


def test_a_manifest_of_another_version_or_one_that_contradicts_itself_is_told():
    with pytest.raises(VersionError, match="version 7"):
        manifests.load(manifests.dump(Manifest(version=7, kind=Kind.EVENTS, removed_to=0, sealed=(), open_seq=1)))
    for removed_to, sealed, open_seq in ((0, (), 2), (3, (Sealed(1, 5, 9, 9),), 6), (0, (Sealed(1, 5, 9, 9),), 7)):
        wrong = Manifest(kind=Kind.COMMANDS, removed_to=removed_to, sealed=sealed, open_seq=open_seq)
        with pytest.raises(CorruptError, match="should follow"):
            manifests.load(manifests.dump(wrong))


@pytest.mark.parametrize("which", [0, 1, -2, -1])
def test_each_missing_segment_is_told_the_last_too(tmp_path, which):
    gone = write(tmp_path)[which].path
    gone.unlink()
    for attempt in (lambda: seqs(tmp_path), lambda: FileLog(tmp_path)):
        with pytest.raises(LogCorruptError, match="missing"):
            attempt()
    assert check_log(tmp_path).bad.path == str(gone)


def test_all_segments_gone_and_the_manifest_left_is_no_fresh_log(tmp_path):
    for segment in write(tmp_path):
        segment.path.unlink()
    with pytest.raises(LogCorruptError, match="missing"):
        FileLog(tmp_path)


def test_a_whole_segment_of_another_journal_is_not_taken_for_this_ones(tmp_path):
    mine, others = write(tmp_path / "mine"), tmp_path / "other"
    with FileLog(others, segment_bytes=200) as log:
        for seq in range(1, 13):
            log.append([encode_command(Sequenced(seq, seq, CancelOrder("bob", f"c{seq}", seq)))])
    for segment in mine[:-1]:
        shutil.copy(others / segment.path.name, segment.path)
        with pytest.raises(LogCorruptError, match="not what was written here"):
            seqs(tmp_path / "mine")
        break


def test_a_sealed_segment_that_was_cut_at_a_record_is_refused_when_opened(tmp_path):
    segment = write(tmp_path)[0]
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LogCorruptError, match="when it was finished"):
        FileLog(tmp_path)


def test_a_log_of_an_older_program_gets_its_manifest(tmp_path):
    write(tmp_path)
    whole = (tmp_path / "manifest").read_bytes()
    (tmp_path / "manifest").unlink()
    assert seqs(tmp_path) == list(range(1, 13))
    assert not check_log(tmp_path).manifest
    FileLog(tmp_path).close()
    assert (tmp_path / "manifest").read_bytes() == whole
    (tmp_path / "manifest").unlink()
    list_segments(tmp_path)[1].path.unlink()
    with pytest.raises(LogCorruptError, match="a segment is missing"):
        FileLog(tmp_path)


class DiesAt(OsDisk):
    """A machine that stops before one of its calls."""

    def __init__(self, call):
        self.left = call

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def write(self, fd, data):
        self._count()
        return super().write(fd, data)

    def fsync(self, fd):
        self._count()
        super().fsync(fd)

    def replace(self, source, target):
        self._count()
        super().replace(source, target)

    def remove(self, path):
        self._count()
        super().remove(path)


def test_a_stop_at_any_call_of_beginning_a_segment_loses_nothing(tmp_path):
    """Also a stop between a segment and the manifest that names it."""
    for call in itertools.count():
        directory, done = tmp_path / str(call), 0
        try:
            with FileLog(directory, segment_bytes=100, disk=DiesAt(call)) as log:
                for seq in range(1, 9):
                    log.append([command(seq)])
                    done = log.sync()
        except KeyboardInterrupt:
            pass
        with FileLog(directory, segment_bytes=100) as log:
            assert log.last_seq >= done
            log.append([command(log.last_seq + 1)])
            assert seqs(directory) == list(range(1, log.last_seq + 1))
        assert check_log(directory).bad is None
        if done == 8:
            break
    assert call > 40


# --- compaction of one log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covered", range(14))
def test_compaction_removes_whole_segments_and_nothing_that_is_not_covered(tmp_path, covered):
    write(tmp_path)
    with FileLog(tmp_path, segment_bytes=200) as log:
        removed = log.compact(covered).records
        first = log.first_seq
        assert removed == first - 1 <= covered
        assert log.compact(covered) == (0, 0, 0)
        log.append([command(13)])
    assert seqs(tmp_path, first) == list(range(first, 14))
    if first > 1:
        with pytest.raises(PermanentError, match=f"begins with record {first}"):
            seqs(tmp_path, 1)
    assert check_log(tmp_path).first_seq == first
    with FileLog(tmp_path) as log:
        assert (log.first_seq, log.last_seq) == (first, 13)


def test_a_compaction_stopped_before_the_files_went_is_finished_when_opened(tmp_path):
    segments = write(tmp_path)
    kept = {one.path: one.path.read_bytes() for one in segments}
    with FileLog(tmp_path) as log:
        assert log.compact(segments[2].first_seq - 1).segments == 2
    for path, data in kept.items():
        path.write_bytes(data)
    first = segments[2].first_seq
    assert seqs(tmp_path, first) == list(range(first, 13))
    FileLog(tmp_path).close()
    assert [one.first_seq for one in list_segments(tmp_path)] == [one.first_seq for one in segments[2:]]


def test_nothing_goes_while_somebody_reads_and_it_goes_afterwards(tmp_path):
    segments = write(tmp_path)
    with FileLog(tmp_path) as log:
        records = read_records(tmp_path)
        next(records)
        with pytest.raises(LogReadError, match="somebody is reading it"):
            log.compact(12)
        assert [record.seq for record in records] == list(range(2, 13))
        with reading(tmp_path), pytest.raises(LogReadError):
            log.compact(12)
        assert log.compact(12).segments == len(segments) - 1


@pytest.mark.parametrize("kept", range(0, 900, 50))
def test_the_newest_bytes_that_are_to_be_kept_stay(tmp_path, kept):
    sizes = [one.path.stat().st_size for one in write(tmp_path)]
    with FileLog(tmp_path) as log:
        log.compact(12, Keep(size=kept))
    left = len(list_segments(tmp_path))
    assert sum(sizes[-left:]) >= kept or left == len(sizes)
    assert left == 1 or sum(sizes[1 - left :]) < kept


def test_what_was_written_to_lately_stays_and_so_does_all_that_follows(tmp_path):
    segments = write(tmp_path)
    for place, one in enumerate(segments):
        os.utime(one.path, ns=(0, 1_000 * (place if place != 1 else 50)))
    with FileLog(tmp_path) as log:
        assert log.compact(12, Keep(age=500), now=2_600).segments == 1  # the second was written to at 50,000
        assert log.compact(12, Keep(age=500), now=50_499).segments == 0
        assert log.compact(12, Keep(age=500), now=50_500).segments == len(segments) - 2


def test_an_append_never_waits_for_a_compaction_and_the_segment_ends_with_the_next_one(tmp_path):
    write(tmp_path)
    before = list_segments(tmp_path)
    with FileLog(tmp_path, segment_bytes=200) as log, log._manifest_lock:
        for seq in range(13, 21):
            log.append([command(seq)])
            assert log.sync() == seq
        assert list_segments(tmp_path) == before
        log._manifest_lock.release()
        log.append([command(21)])
        log._manifest_lock.acquire()
        assert len(list_segments(tmp_path)) == len(before) + 1
    assert seqs(tmp_path) == list(range(1, 22))


def test_a_file_that_cannot_be_removed_leaves_a_log_that_goes_on(tmp_path):
    segments = write(tmp_path)

    class Keeps(OsDisk):
        def remove(self, path):
            raise PermissionError(13, "Permission denied", str(path))

    with FileLog(tmp_path, disk=Keeps()) as log:
        with pytest.raises(PermissionError):
            log.compact(12)
        log.append([command(13)])
        log.sync()
    assert list_segments(tmp_path) == segments
    assert seqs(tmp_path, segments[-1].first_seq) == list(range(segments[-1].first_seq, 14))
    FileLog(tmp_path).close()
    assert list_segments(tmp_path) == segments[-1:]


def test_a_compaction_the_disk_refuses_removes_nothing(tmp_path):
    segments = write(tmp_path)

    class Full(OsDisk):
        def write(self, fd, data):
            raise OSError(28, os.strerror(28))

    with FileLog(tmp_path, disk=Full()) as log, pytest.raises(LogFailedError, match="compact failed: No space left"):
        log.compact(segments[2].first_seq - 1)
    assert seqs(tmp_path) == list(range(1, 13))


# --- the check --------------------------------------------------------------------------------------------------------


def test_a_sound_log_is_read_to_its_end(tmp_path):
    write(tmp_path / "journal")
    told = []
    found = check_log(tmp_path / "journal", told.append)
    assert (found.kind, found.records, found.first_seq, found.last_seq, found.bad) == ("commands", 12, 1, 12, None)
    with FileLog(tmp_path / "events", Kind.EVENTS) as log:
        log.append([encode_events(Happened(1, 1, (SessionOpened(),)))])
    assert check_log(tmp_path / "events").kind == "events"


def test_every_flipped_bit_of_every_file_is_named_to_the_byte(tmp_path):
    write(tmp_path, count=3, segment_bytes=80)
    for path in sorted(tmp_path.iterdir()):
        if path.name == "lock":
            continue
        data = path.read_bytes()
        for index in range(len(data)):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[index] ^= 1 << bit
                path.write_bytes(damaged)
                with pytest.raises(LogCorruptError):
                    seqs(tmp_path)
                if bit == index % 8:  # looking for the byte tries every bit: one of eight is enough for the place
                    bad = check_log(tmp_path).bad
                    assert (bad.path, bad.offset, bad.exact) == (str(path), index, True), (bit, bad.what)
        path.write_bytes(data)
    assert check_log(tmp_path).bad is None


def test_every_cut_of_the_last_file_is_torn_or_whole_and_of_another_is_damage(tmp_path):
    segments = write(tmp_path, count=5, segment_bytes=150)
    for segment in segments:
        data = segment.path.read_bytes()
        for size in range(len(data)):
            segment.path.write_bytes(data[:size])
            found = check_log(tmp_path)
            if segment is segments[-1]:
                assert found.bad is None
                assert found.torn_bytes <= size
                assert found.last_seq == segment.first_seq - 1 + (size - found.torn_bytes > SEGMENT_HEAD_BYTES)
            else:
                assert found.bad is not None
                assert found.bad.path == str(segment.path)
        segment.path.write_bytes(data)


def test_more_than_one_damaged_bit_names_the_record(tmp_path):
    (segment,) = write(tmp_path, count=5, segment_bytes=10_000)
    data = bytearray(segment.path.read_bytes())
    begins = data.index(b"TJ", len(data) // 2)
    data[begins + 30 : begins + 34] = b"????"
    segment.path.write_bytes(data)
    bad = check_log(tmp_path).bad
    assert (bad.offset, bad.exact) == (begins, False)


def test_a_whole_record_with_other_content_is_named(tmp_path):
    with FileLog(tmp_path) as log:
        log.append([command(1), b"no command"])
    found = check_log(tmp_path)
    assert (found.records, found.bad.exact) == (1, False)
    assert "cannot read" in found.bad.what


def test_no_log_is_wrong_usage(tmp_path):
    for directory in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="there is no log here"):
            check_log(directory)


def test_a_segment_that_no_manifest_names_between_others_is_told(tmp_path):
    segments = write(tmp_path)
    shutil.copy(segments[0].path, segment_path(tmp_path, segments[0].first_seq + 1))
    with pytest.raises(LogCorruptError, match="does not name"):
        seqs(tmp_path)


def test_whoever_reads_while_segments_begin_and_go_sees_whole_records_in_order(tmp_path):
    """The reader looks at files that change under it: it may be told that a record is gone, never anything wrong."""
    stop, looks = threading.Event(), []

    def read():
        while not stop.is_set():
            first = max(1, read_manifest(tmp_path).removed_to + 1)
            try:
                found = seqs(tmp_path, first)
            except LogCorruptError as error:
                looks.append(error)
                return
            except PermanentError:
                looks.append("compacted")
                continue
            looks.append(found == list(range(first, first + len(found))))

    with FileLog(tmp_path, segment_bytes=150) as log:
        reader = threading.Thread(target=read)
        reader.start()
        for seq in range(1, 400):
            log.append([command(seq)])
            if seq % 50 == 0:
                with contextlib.suppress(LogReadError):
                    log.compact(seq - 20)
        while looks.count(True) < 3 and reader.is_alive():
            time.sleep(0.01)
        stop.set()
        reader.join()
    assert set(looks) <= {True, "compacted"}
    assert seqs(tmp_path, log.first_seq) == list(range(log.first_seq, 400))
