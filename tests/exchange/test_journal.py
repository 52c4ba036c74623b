# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The codec: every interrupted write is recovered from, every flipped bit is found."""

import pytest

from exchange import journal, scanning
from exchange.journal import CorruptError, Kind, Scan, Torn, VersionError, frame, read_segment_head, segment_head

PAYLOADS = [b"first", b"", b"ends in zeros\0\0\0", bytes(range(40))]
JOURNAL = b"".join(frame(seq, payload) for seq, payload in enumerate(PAYLOADS, 1))
ENDS = [0]
for _seq, _payload in enumerate(PAYLOADS, 1):
    ENDS.append(ENDS[-1] + len(frame(_seq, _payload)))


@pytest.fixture(autouse=True, params=["by_calls", "by_bytes"])
def way(request, monkeypatch):
    """Whichever build runs, both ways of finding records are tried."""
    monkeypatch.setattr(journal, "_whole_records", getattr(scanning, request.param))


def whole(data):
    scan = Scan(data, first_seq=1)
    return [record.payload for record in scan], scan.torn


def test_what_is_written_is_read():
    assert whole(JOURNAL) == (PAYLOADS, None)


@pytest.mark.parametrize("zeros", [0, 1, 7, 4096])
def test_every_cut_keeps_the_whole_records_and_tells_the_tail(zeros):
    for size in range(len(JOURNAL) + 1):
        data = JOURNAL[:size] + bytes(zeros)
        records = sum(end <= size for end in ENDS[1:])
        start = ENDS[records]
        # Zero bytes of the record itself may be among those appended: then it may be whole after all, never wrong.
        payloads, torn = whole(data)
        assert payloads == PAYLOADS[: len(payloads)]
        assert len(payloads) == records, size
        assert torn == (None if len(data) == start else Torn(start, len(data) - start))


def test_every_flipped_bit_is_found():
    for index in range(len(JOURNAL)):
        for bit in range(8):
            data = bytearray(JOURNAL)
            data[index] ^= 1 << bit
            with pytest.raises(CorruptError) as caught:
                whole(bytes(data))
            assert caught.value.offset in ENDS


def test_a_missing_record_is_corruption():
    with pytest.raises(CorruptError, match="record 3 stands where 2 should"):
        whole(frame(1, b"a") + frame(3, b"c"))


def test_a_segments_head_is_whole_torn_of_another_version_or_damaged():
    head = segment_head(Kind.COMMANDS, 7)
    assert read_segment_head(head, Kind.COMMANDS, 7) is None
    for size in range(len(head)):
        assert read_segment_head(head[:size], Kind.COMMANDS, 7) == Torn(0, size)
        assert read_segment_head(head[:size] + bytes(100), Kind.COMMANDS, 7) == Torn(0, size + 100)
    for index in range(len(head) * 8):
        data = bytearray(head)
        data[index // 8] ^= 1 << index % 8
        with pytest.raises(CorruptError):
            read_segment_head(bytes(data), Kind.COMMANDS, 7)
    with pytest.raises(CorruptError, match="should"):
        read_segment_head(head, Kind.EVENTS, 7)


def test_another_version_is_told_from_damage(monkeypatch):
    monkeypatch.setattr("exchange.journal.FORMAT_VERSION", 2)
    newer = segment_head(Kind.COMMANDS, 1)
    monkeypatch.undo()
    with pytest.raises(VersionError, match="format version 2; this program reads version 1"):
        read_segment_head(newer, Kind.COMMANDS, 1)


def test_both_ways_of_finding_records_find_the_same():
    flips = [JOURNAL[:at] + bytes((JOURNAL[at] ^ 1 << at % 8,)) + JOURNAL[at + 1 :] for at in range(len(JOURNAL))]
    cuts = [JOURNAL[:size] for size in range(len(JOURNAL) + 1)]
    far = (1 << 33) + 5
    for data in (*flips, *cuts, frame(far, b"far") + frame(far + 1, b"ther")):
        for seq, most, checked in ((1, 9, False), (1, 9, True), (1, 2, False), (2, 9, False), (far, 9, False)):
            found, also = [], []
            end = scanning.by_calls(data, 0, seq, most, found, checked=checked)
            assert scanning.by_bytes(data, 0, seq, most, also, checked=checked) == end
            assert also == found
            assert len(found) <= most


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_batches_hold_what_the_records_hold(most):
    scan = Scan(JOURNAL, first_seq=1)
    batches = list(scan.batches(most=most))
    assert [payload for batch in batches for payload in batch] == PAYLOADS
    assert all(0 < len(batch) <= most for batch in batches)
    assert (scan.next_seq, scan.end, scan.torn) == (5, len(JOURNAL), None)


def test_an_iteration_that_was_left_goes_on_where_it_was():
    scan = Scan(JOURNAL, first_seq=1)
    for record in scan:
        if record.seq == 2:
            break
    assert (scan.next_seq, scan.end) == (3, ENDS[2])
    assert [record.seq for record in scan] == [3, 4]
