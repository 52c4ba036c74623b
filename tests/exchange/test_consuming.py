# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""A partition is read in order, whole and without repeats, whatever lies between its records."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.consuming import LOOKS_MAX, SUSPECTS_MAX, Missing, PartitionReader, Raw
from exchange.events import Happened
from exchange.journal import Kind, encode_events
from exchange.messages import SCHEMA_VERSION, seal, unseal
from exchange.ports import DeadReason

GOLDEN = Path(__file__).parent / "golden" / "messages-1.txt"


def event(seq):
    return seal(Kind.EVENTS, seq, encode_events(Happened(seq, seq * 1_000, ())))


def newer(seq, monkeypatch):
    monkeypatch.setattr("exchange.messages.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    message = event(seq)
    monkeypatch.undo()
    return message


def raws(*values, offset=0):
    return [Raw(place, None, value) for place, value in enumerate(values, offset)]


def seqs(stretch):
    return [item.seq for item in stretch.happened]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(0, 40))
def test_repeats_in_any_order_are_left_alone_and_the_rest_comes_once(repeats, reached):
    told, log = [], []
    for seq in range(1, 41):
        log.append(seq)
        log += [one for one in repeats if one <= seq][: seq % 3]
    reader = PartitionReader(reached)
    for start in range(0, len(log), 7):
        stretch = reader.read(raws(*map(event, log[start : start + 7]), offset=start), start)
        told += seqs(stretch)
        assert (stretch.broken, stretch.poison, stretch.end) == (None, (), min(start + 7, len(log)))
    assert told == list(range(reached + 1, 41))


def test_events_end_behind_what_was_carried_out_by_the_greatest_number_not_by_one_that_came_again_late():
    reader = PartitionReader(3)
    reader.read(raws(event(1), event(2), event(1)), 0)
    assert (reader.last_seen, reader.behind) == (2, True), "another exchange's, or published late"
    reader.read(raws(event(3), event(4), event(2), offset=3), 3)
    assert (reader.last_seen, reader.behind) == (4, False)


def test_a_stranger_s_message_is_put_aside_and_the_next_number_proves_that_nothing_is_missing():
    reader = PartitionReader(0)
    first = reader.read(raws(event(1), b"{}"), 0)
    assert ([one.reason for one in first.poison], first.broken) == ([DeadReason.DAMAGED], None)
    # It is not done with before that: whoever reads next has to see it, too.
    assert (seqs(first), first.end) == ([1], 1)
    second = reader.read(raws(None, event(2), offset=2), first.end)
    assert (seqs(second), second.end, second.broken, len(second.poison)) == ([2], 4, None, 1)


def test_a_damaged_record_stops_the_partition_at_the_next_number_and_says_which_it_was():
    reader = PartitionReader(0)
    damaged = event(2)[:-1] + b"\x00"
    stretch = reader.read(raws(event(1), damaged, event(3), event(4)), 0)
    assert (seqs(stretch), stretch.end) == ([1], 1)
    assert stretch.broken is not None
    assert stretch.broken.why == (
        "record 3 stands where 2 should; the message at offset 1 cannot be read: it does not fit its checksum"
    )
    assert (stretch.broken.offset, stretch.broken.look_from) == (2, 1)


@pytest.mark.parametrize("before", [0, 1])
def test_a_record_of_another_version_stops_at_once_unless_it_was_carried_out_before(before, monkeypatch):
    reader = PartitionReader(before)
    stretch = reader.read(raws(newer(1, monkeypatch), event(2)), 0)
    assert [one.reason for one in stretch.poison] == [DeadReason.SCHEMA]
    if before:
        assert (seqs(stretch), stretch.broken) == ([2], None)
    else:
        assert seqs(stretch) == []
        assert stretch.broken is not None
        assert (stretch.broken.look_from, stretch.broken.why) == (None, "schema version 2; this program reads 1")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (seal(Kind.EVENTS, 1, b"\x80"), "record 1 holds no events"),
        (seal(Kind.EVENTS, 1, b"\xc1"), "record 1 holds no events"),
        (seal(Kind.EVENTS, 1, encode_events(Happened(2, 2, ()))), "the message says record 1, what it holds says 2"),
    ],
)
def test_a_whole_message_whose_contents_are_none_stops_at_once(value, why):
    stretch = PartitionReader(0).read(raws(value, event(2)), 0)
    assert ([one.reason for one in stretch.poison], seqs(stretch)) == ([DeadReason.UNREADABLE], [])
    assert stretch.broken is not None
    assert why in stretch.broken.why


def test_who_may_go_on_without_passes_over_as_many_numbers_as_could_not_be_read(monkeypatch):
    reader = PartitionReader(0, Missing.PASSES)
    damaged = event(2)[:-1] + b"\x00"
    stretch = reader.read(raws(event(1), damaged, newer(3, monkeypatch), event(4), event(6)), 0)
    assert (seqs(stretch), stretch.end) == ([1, 4], 4)
    assert stretch.broken is not None  # nothing explains that 5 is not there
    assert stretch.broken.why == "record 6 stands where 5 should"


def test_a_place_where_a_number_is_missing_is_read_again_before_it_is_believed():
    reader, looks = PartitionReader(0), 0
    stretch = reader.read(raws(event(1), event(3)), 0)
    while stretch.broken is not None and stretch.broken.look_from is not None:
        looks += 1
        reader.moved()
        stretch = reader.read(raws(event(1), event(3)), 0)
    assert looks == LOOKS_MAX - 1
    # It was the reading, not the log.
    reader.moved()
    assert seqs(reader.read(raws(event(1), event(2), event(3)), 0)) == [2, 3]


@pytest.mark.parametrize("begins_at", [0, 2, 3])
def test_a_damaged_record_stops_for_good_however_far_back_it_is_looked_for(begins_at):
    log = [event(1), b"{}", event(2), event(3)[:-1] + b"\x00", b"", event(4)]
    reader, start, looks = PartitionReader(0 if begins_at == 0 else 2), begins_at, 0
    while True:
        stretch = reader.read(raws(*log[start:], offset=start), start)
        broken = stretch.broken
        assert broken is not None
        if broken.look_from is None or max(begins_at, broken.look_from) >= broken.look_below:
            break
        start, looks = max(begins_at, broken.look_from), looks + 1
        reader.moved()
    assert looks < 10
    assert broken.why.startswith("record 4 stands where 3 should; the message at offset 3 cannot be read")


def test_who_went_back_is_led_to_the_record_that_is_due():
    log = [event(seq) for seq in (1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9)]
    reader, start = PartitionReader(2), 10  # the group is at record 8, the effect at 2
    while True:
        stretch = reader.read(raws(*log[start:], offset=start), start)
        if stretch.broken is None:
            break
        assert stretch.broken.look_from is not None
        assert stretch.broken.look_from < start
        start = stretch.broken.look_from
        reader.moved()
    assert seqs(stretch) == [3, 4, 5, 6, 7, 8, 9]


def test_messages_that_cannot_be_read_in_a_long_row_stop_the_partition():
    stretch = PartitionReader(0).read(raws(*[b"x"] * 200), 0)
    assert stretch.broken is not None
    assert (len(stretch.poison), stretch.end) == (SUSPECTS_MAX, 0)
    assert stretch.broken.why.startswith("100 messages in a row cannot be read")


def test_events_that_end_before_what_was_carried_out_are_noticed():
    reader = PartitionReader(50)
    reader.read(raws(event(1), event(2)), 0)
    assert reader.behind
    assert seqs(reader.read(raws(*[event(seq) for seq in range(3, 53)], offset=2), 2)) == [51, 52]
    assert not reader.behind


def test_messages_of_the_first_program_are_read():
    lines = [line.split() for line in GOLDEN.read_text().splitlines()]
    old = [bytes.fromhex(data) for name, data in lines if name == "events"]
    stretch = PartitionReader(0).read(raws(*old), 0)
    assert seqs(stretch) == [unseal(data, Kind.EVENTS).seq for data in old] == list(range(1, 14))
