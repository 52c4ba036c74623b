# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The mark spares a start the look at each record, and never a finding: with it a log opens as it does without."""

import itertools
import shutil
from pathlib import Path

from exchange.adapters import file_log
from exchange.adapters.file_log import FileLog, LogCorruptError, list_segments, read_records
from exchange.adapters.log_mark import read_mark, write_mark
from exchange.journal import SEGMENT_HEAD_BYTES, Scan
from exchange.manifest import Sealed


def payload(seq):
    return b"c%d" % seq


def write(directory, count=12, mark_bytes=100):
    """A log of one segment whose mark stands somewhere before its end."""
    with FileLog(directory) as log:
        log._mark_bytes = mark_bytes
        for seq in range(1, count + 1):
            log.append([payload(seq)])
        log.sync()
    return list_segments(directory)[-1].path


def marked(directory, first_seq, segment):
    """What the mark says, read with and without keeping what it is about; the file is left where that ends."""
    told = []
    for keep in (True, False):
        with segment.open("rb", buffering=0) as file:
            found = read_mark(directory, first_seq, file, keep=keep)
            data = segment.read_bytes()
            assert file.tell() == (0 if found is None else found.stands.size)
            assert found is None or data[: found.stands.size if keep else SEGMENT_HEAD_BYTES] == found.data
            told.append(None if found is None else found.stands)
    assert told[0] == told[1]
    return told[0]


def opened(directory):
    """What opening finds: the last record, all that is kept, what was cut off; or what is wrong, and where."""
    try:
        with FileLog(directory, keep=True) as log:
            kept = list(itertools.chain.from_iterable(log.payloads()))
            cut = None if log.repaired is None else (log.repaired.offset, log.repaired.size)
            return log.last_seq, kept, cut, log._size, log._crc32
    except LogCorruptError as error:
        return error.offset, error.what


def as_without(root, changed):
    """What opening a changed log finds, which is what it finds without its mark."""
    for name in ("with", "without"):
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(changed, root / name)
    (root / "without" / "mark").unlink(missing_ok=True)
    found = opened(root / "with")
    assert found == opened(root / "without")
    assert [one.payload for one in records(root / "with")] == [one.payload for one in records(root / "without")]
    return found


def records(directory):
    try:
        return list(read_records(directory))
    except LogCorruptError:
        return []


def test_what_the_mark_is_about_is_not_looked_at_and_all_of_it_is_there(tmp_path, monkeypatch):
    write(tmp_path / "log")
    mark = marked(tmp_path / "log", 1, list_segments(tmp_path / "log")[-1].path)
    assert 5 < mark.last_seq < 12
    looked = []

    class Watched(Scan):
        def __init__(self, data, *, first_seq, offset=0):
            super().__init__(data, first_seq=first_seq, offset=offset)
            looked.append(first_seq)

    monkeypatch.setattr(file_log, "Scan", Watched)
    assert opened(tmp_path / "log")[:3] == (12, [payload(seq) for seq in range(1, 13)], None)
    assert looked == [mark.last_seq + 1, 1]  # taken apart when it is asked for
    with FileLog(tmp_path / "log") as log:  # nothing is kept: what the mark is about is not even split
        assert log.last_seq == 12
    assert looked[2:] == [mark.last_seq + 1]


def test_every_flipped_bit_of_log_and_mark_is_found_as_it_is_without_the_mark(tmp_path):
    write(tmp_path / "log", count=6)
    for path in sorted((tmp_path / "log").iterdir()):
        if path.name == "lock":
            continue
        data = path.read_bytes()
        for index in range(len(data)):
            damaged = bytearray(data)
            damaged[index] ^= 1 << index % 8
            path.write_bytes(damaged)
            found = as_without(tmp_path, tmp_path / "log")
            assert (len(found) == 2) is (path.name != "mark"), (path.name, index)
        path.write_bytes(data)


def test_every_cut_is_repaired_as_it_is_without_the_mark(tmp_path):
    segment = write(tmp_path / "log", count=6)
    data = segment.read_bytes()
    for size in range(len(data)):
        for rest in (b"", bytes(40))[: 1 + (size % 3 == 0)]:
            segment.write_bytes(data[:size] + rest)
            assert len(as_without(tmp_path, tmp_path / "log")) == 5


def test_after_another_history_the_mark_of_the_first_is_nothing(tmp_path):
    """A power loss kept the mark and lost what it is about; other records stand there now."""
    write(tmp_path / "log")
    mark = (tmp_path / "log" / "mark").read_bytes()
    shutil.rmtree(tmp_path / "log")
    segment = write(tmp_path / "log", count=4, mark_bytes=10**6)
    with FileLog(tmp_path / "log") as log:
        log.append([payload(90 + seq) for seq in range(5, 15)])
    (tmp_path / "log" / "mark").write_bytes(mark)
    assert marked(tmp_path / "log", 1, segment) is None
    assert as_without(tmp_path, tmp_path / "log")[0] == 14


def test_a_new_segment_has_no_mark_until_it_has_grown(tmp_path):
    with FileLog(tmp_path, segment_bytes=400) as log:
        log._mark_bytes = 100
        for seq in range(1, 40):
            log.append([payload(seq)])
        last = list_segments(tmp_path)[-1]
        mark = marked(tmp_path, last.first_seq, last.path)
        assert mark is None or mark.first_seq == last.first_seq
    assert opened(tmp_path)[:2] == (39, [payload(seq) for seq in range(1, 40)])


def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with FileLog(tmp_path) as log:
        log._mark_bytes = 1
        log.append([payload(1)])
        assert log.sync() == 1
    assert not (tmp_path / "mark").exists()


def test_a_mark_about_other_bytes_is_not_believed(tmp_path):
    segment = write(tmp_path / "log")
    data = segment.read_bytes()
    for stands in (Sealed(1, 12, len(data) + 1, 0), Sealed(2, 12, len(data), 0), Sealed(1, 12, len(data), 1)):
        write_mark(tmp_path / "log", stands)
        assert marked(tmp_path / "log", 1, segment) is None
