# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The codec: every interrupted write is recovered from, every flipped bit is found."""

import pytest

from exchange.journal import CorruptError, Kind, Scan, Torn, VersionError, frame, read_segment_head, segment_head

PAYLOADS = [b"first", b"", b"ends in zeros\0\0\0", bytes(range(40))]
JOURNAL = b"".join(frame(seq, payload) for seq, payload in enumerate(PAYLOADS, 1))
ENDS = [0]
for _seq, _payload in enumerate(PAYLOADS, 1):
    ENDS.append(ENDS[-1] + len(frame(_seq, _payload)))


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
