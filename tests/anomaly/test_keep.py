"""The state of detectors as bytes: equal after a way there and back, refused when it is anything else."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import keep
from anomaly.fleet import Fleet
from anomaly.kernel import STATE, blank
from anomaly.series import Series
from anomaly.settings import Settings
from kernel.errors import InputError
from kernel.time import MINUTE

COUNT, PAST, MORE = 3, 400, 200
RNG = np.random.default_rng(17)
VALUES = RNG.normal(10.0, 1.0, (PAST + MORE, COUNT))
VALUES[PAST - 4 : PAST + 20, 1] += 30.0
VALUES[PAST - 9 : PAST + 2, 2] = np.nan


def advanced(fleet, rows):
    """The scores of rows, one array a row, as bytes."""
    said = []
    for row in rows:
        found = fleet.advance(np.full(COUNT, row * MINUTE), VALUES[row])
        said.append(b"".join(getattr(found, field.name).tobytes() for field in dataclasses.fields(found)))
    return said


@pytest.fixture(scope="module")
def kept():
    fleet = Fleet(COUNT, Settings(budget_per_day=0.02))
    advanced(fleet, range(PAST))
    fleet.feedback(1, false_alarm=True)
    return fleet.save()


def again(head, body):
    return json.dumps(head, sort_keys=True).encode() + b"\n" + body


def test_what_was_saved_is_restored_bit_for_bit_with_its_settings(kept):
    fleet = Fleet.restore(kept)
    assert len(fleet) == COUNT
    assert fleet.settings == Settings(budget_per_day=0.02)
    assert fleet.save() == kept
    assert Fleet.restore(fleet.save()).save() == kept


def test_a_restored_fleet_goes_on_as_if_nothing_had_happened(kept):
    whole = Fleet(COUNT, Settings(budget_per_day=0.02))
    advanced(whole, range(PAST))
    whole.feedback(1, false_alarm=True)
    back = Fleet.restore(kept)
    rows = range(PAST, PAST + MORE)
    assert advanced(whole, rows) == advanced(back, rows)
    assert whole.save() == back.save()
    assert [whole.finding(i) for i in range(COUNT)] == [back.finding(i) for i in range(COUNT)]


def test_two_restored_from_the_same_bytes_share_nothing(kept):
    one, other = Fleet.restore(kept), Fleet.restore(kept)
    advanced(one, range(PAST, PAST + 5))
    assert other.save() == kept


def test_a_series_is_kept_likewise():
    series = Series()
    series.run(np.arange(PAST) * MINUTE, VALUES[:PAST, 0])
    back = Series.restore(series.save())
    assert back.save() == series.save()
    rest = np.arange(PAST, PAST + MORE) * MINUTE
    assert back.run(rest, VALUES[PAST:, 1]).score.tobytes() == series.run(rest, VALUES[PAST:, 1]).score.tobytes()


def test_an_empty_fleet_is_kept_too():
    assert len(Fleet.restore(Fleet(0).save())) == 0


def test_the_head_is_a_line_that_a_person_can_read(kept):
    head = json.loads(kept.split(b"\n", 1)[0])
    assert head["version"] == keep.VERSION
    assert head["count"] == COUNT
    assert head["settings"]["budget_per_day"] == 0.02


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.01, 0.3, 0.7, 0.999])
def test_a_torn_state_is_refused(kept, share):
    with pytest.raises(InputError, match="state of detectors"):
        Fleet.restore(kept[: int(len(kept) * share)])


def test_one_byte_less_or_more_is_refused(kept):
    for torn in (kept[:-1], kept + b"\0", kept[1:], b"\n" + kept):
        with pytest.raises(InputError, match="state of detectors"):
            Fleet.restore(torn)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(share, bit):
    whole = keep.pack(blank(1), Settings())
    spoilt = bytearray(whole)
    place = int(len(whole) * share)
    spoilt[place] ^= 1 << bit
    with pytest.raises(InputError, match="state of detectors"):
        keep.unpack(bytes(spoilt))


@pytest.mark.parametrize("place", range(0, 900, 7))
def test_a_flipped_bit_in_the_head_is_refused(place):
    spoilt = bytearray(keep.pack(blank(1), Settings()))
    spoilt[min(place, spoilt.index(b"\n"))] ^= 1
    with pytest.raises(InputError, match="state of detectors"):
        keep.unpack(bytes(spoilt))


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a state was executed",))


GARBAGE = {
    "nothing": b"",
    "a line": b"\n",
    "zeros": bytes(5000),
    "text": b"hello\nworld",
    "other JSON": b'{"a": 1}\n' + bytes(100),
    "a list": b"[1, 2]\n",
    "null": b"null\n",
    "a number": b"12\n",
    "not UTF-8": b"\xff\xfe\xfa\n123",
    "deep": b"[" * 100_000 + b"\n",
    "a pickle": pickle.dumps(_Bomb()),
    "a pickle behind a line": b"{}\n" + pickle.dumps(_Bomb()),
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_garbage_is_refused_in_a_sentence_and_nothing_in_it_is_executed(name):
    for one in (Fleet, Series):
        with pytest.raises(InputError, match=r"^state of detectors: [^\n]+$"):
            one.restore(GARBAGE[name])


CHANGED = {
    "another version": ({"version": keep.VERSION + 1}, "version"),
    "an older version": ({"version": 0}, "version"),
    "another layout": ({"layout": "0" * 16}, "layout"),
    "more series": ({"count": COUNT + 1}, "damaged"),
    "a count below nothing": ({"count": -1}, "state of detectors"),
    "an endless count": ({"count": float("inf")}, "state of detectors"),
    "no settings": ({"settings": None}, "state of detectors"),
    "a setting that is text": ({"settings": {"bar": "high"}}, "state of detectors"),
}


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_state_of_another_kind_is_refused_with_the_reason(kept, name):
    line, body = kept.split(b"\n", 1)
    change, word = CHANGED[name]
    with pytest.raises(InputError, match=word):
        Fleet.restore(again({**json.loads(line), **change}, body))


def test_a_version_with_other_settings_is_refused_for_its_version(kept):
    line, body = kept.split(b"\n", 1)
    head = json.loads(line)
    head["version"] += 1
    head["settings"]["of_a_later_day"] = 1.0
    with pytest.raises(InputError, match=f"version {keep.VERSION + 1}"):
        Fleet.restore(again(head, body))


def test_the_layout_is_named_by_the_fields_of_a_state():
    assert STATE.itemsize * COUNT + 4096 > len(Fleet(COUNT).save())
    assert len(keep.LAYOUT) == 16
