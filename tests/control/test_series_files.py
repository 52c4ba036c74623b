from __future__ import annotations

import gzip
import math
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from control import series_files
from control.series_files import SeriesFile, number_of
from control.series_stamps import UNREADABLE, stamp_of, stamps_of
from kernel.errors import InputError
from kernel.time import from_rfc3339

SECOND = 10**9


def _file(tmp_path, data, name="one.csv"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return SeriesFile(path)


def _rows(series):
    blocks = list(series.blocks())
    return (
        np.concatenate([block.at for block in blocks]).tolist(),
        np.concatenate([block.values for block in blocks]).tolist(),
        np.concatenate([block.lines for block in blocks]).tolist(),
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-02T09:30:00Z", "2026-03-02T09:30:00Z"),
        ("2026-03-02 09:30:00", "2026-03-02T09:30:00Z"),
        ("2026/03/02 09:30", "2026-03-02T09:30:00Z"),
        ("2026-03-02", "2026-03-02T00:00:00Z"),
        ("2026-03-02 09:30:00+00:00", "2026-03-02T09:30:00Z"),
        ("2026-03-02T09:30:00.123456789-05:00", "2026-03-02T14:30:00.123456789Z"),
        ("2026-03-02T09:30:00,5 UTC", "2026-03-02T09:30:00.5Z"),
        ("1772443800", "2026-03-02T09:30:00Z"),
        ("1772443800.25", "2026-03-02T09:30:00.25Z"),
        ("1772443800250", "2026-03-02T09:30:00.25Z"),
        ("1772443800250000", "2026-03-02T09:30:00.25Z"),
        ("1772443800250000000", "2026-03-02T09:30:00.25Z"),
        ("-1", "1969-12-31T23:59:59Z"),
    ],
)
def test_a_time_is_read_in_every_usual_form(text, meant):
    assert stamp_of(text.encode()) == from_rfc3339(meant)


@pytest.mark.parametrize(
    "text",
    [
        "", "timestamp", "2026-02-30 00:00:00", "2026-13-01 00:00:00", "2026-01-01 25:00:00", "0001-01-01", "9" * 19,
        "12:30", "1e9",
    ],
)  # fmt: skip
def test_what_is_no_time_is_not_read_as_one(text):
    assert stamp_of(text.encode()) == UNREADABLE


_STAMPS = st.sampled_from(
    [
        "2026-03-02T09:30:00Z", "2026-03-02 09:30:00", "2026-03-02 09:30:00.5", "2026-03-02T09:30:00.25+01:00",
        "1772443800", "1772443800250", "99999999999", "100000000000", "5", "2026-02-29 00:00:00", "2024-02-29 00:00:00",
        "2026-12-31 23:59:59", "2026-12-31 23:59:60", "2026-12-31t23:59:59z", "1600-01-01 00:00:00", "word", "",
    ]
)  # fmt: skip


@given(st.one_of(st.lists(_STAMPS, min_size=1, max_size=4), _STAMPS.map(lambda one: [one, one])))
def test_times_read_together_are_those_read_one_by_one(texts):
    cells = [text.encode() for text in texts]
    together = stamps_of(cells)
    if together is not None:
        assert together.tolist() == [stamp_of(cell) for cell in cells]


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("timestamp,value\n1,2\n2,3\n", ("value",), 2),
        ("Time;Load\n1;2\n", ("Load",), 1),
        ("value\ttimestamp\n2\t1\n", ("value",), 1),
        ("1,2\n2,3\n3,4\n", ("column-2",), 3),
        ("ds,y\n2026-03-02,1\n", ("y",), 1),
        ("when,host,cpu,disk\n1,web,2,3\n2,web,3,4\n", ("cpu", "disk"), 2),
        ('"timestamp","value"\n"1","2"\n', ("value",), 1),
        ("\n\n timestamp , value \n\n1,2\n\n2,3", ("value",), 2),
        ("timestamp,value\r\n1,2\r\n2,3\r\n", ("value",), 2),
    ],
)
def test_headers_and_separators_of_every_usual_form_are_understood(tmp_path, text, columns, rows):
    series = _file(tmp_path, text)
    assert series.columns == columns
    at, values, _ = _rows(series)
    assert len(at) == rows
    assert values[0] == ([2.0] if len(columns) == 1 and "y" not in columns else [1.0] if "y" in columns else [2.0, 3.0])
    assert not series.notes


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_marks_of_other_encodings_are_understood(tmp_path, coding):
    series = _file(tmp_path, "timestamp,value\n1,2\n".encode(coding))
    assert series.columns == ("value",)
    assert _rows(series)[1] == [[2.0]]


def test_gzip_is_known_by_its_first_bytes_whatever_the_name(tmp_path):
    assert _rows(_file(tmp_path, gzip.compress(b"timestamp,value\n1,2\n")))[1] == [[2.0]]


def test_what_is_wrong_is_said_with_its_first_line_and_the_rest_is_read(tmp_path):
    text = b"timestamp,value\n1,2\n2,broken\nyesterday,4\n4,inf\n5\n6,7,8\n7,\n8,NaN\n9,\xff\xfe\n10,1_000\n11,5\n"
    series = _file(tmp_path, text)
    at, values, lines = _rows(series)
    assert lines == list(range(2, 13))
    assert [one == UNREADABLE for one in at] == [False, False, True] + [False] * 8
    assert [math.isnan(one) for (one,) in values] == [
        False, True, False, True, True, False, True, True, True, True, False,
    ]  # fmt: skip
    found = {kind: (note.rows, note.line) for kind, note in series.notes.items()}
    assert found == {"text": (3, 3), "stamp": (1, 4), "infinite": (1, 5), "cells": (2, 6)}
    assert "'broken' in column value" in series.notes["text"].what


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "the file is empty"),
        (b"\n\n \n", "the file is empty"),
        (b"timestamp,value\n", "there is a header and no row"),
        (b"1\n2\n3\n", "one column only"),
        (b"name,value\na,1\nb,2\n", "no time in column 1"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "column"),
        (b"x" * (3 << 20), "a line is longer than"),
        (b"\x1f\x8b\x08\x00rubbish that is no gzip", "compressed data"),
    ],
)
def test_a_file_that_is_no_series_is_refused_in_a_sentence(tmp_path, data, word):
    with pytest.raises(InputError, match=word):
        _file(tmp_path, data)


def test_what_came_before_the_end_of_damaged_compressed_data_is_read(tmp_path):
    text = b"timestamp,value\n" + b"".join(b"%d,%d\n" % (k, k * k % 977) for k in range(50_000))
    series = _file(tmp_path, gzip.compress(text)[:-30_000], "cut.csv.gz")
    at, _, _ = _rows(series)
    assert 1000 < len(at) < 50_000
    assert "ends too early" in series.notes["cut"].what


def test_gzip_in_several_members_is_one_text(tmp_path):
    packed = gzip.compress(b"timestamp,value\n1,2\n2,") + gzip.compress(b"3\n3,4\n")
    assert _rows(_file(tmp_path, packed))[1] == [[2.0], [3.0], [4.0]]


def test_a_short_line_and_a_long_one_do_not_make_up_for_each_other(tmp_path):
    series = _file(tmp_path, "timestamp,value\n100\n200,2,3\n300,4\n")
    at, values, _ = _rows(series)
    assert at == [100 * SECOND, 200 * SECOND, 300 * SECOND]
    assert math.isnan(values[0][0])
    assert values[1:] == [[2.0], [4.0]]
    assert series.notes["cells"].rows == 2


_CELLS = st.sampled_from(["1", "2.5", "-3e4", "", "nan", "x", "inf", "1_0", " 7", "0x1", "1e999"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_STAMPS, _CELLS, _CELLS), min_size=25, max_size=60), st.integers(20, 60))
def test_a_row_means_the_same_whatever_stands_near_it(tmp_path_factory, rows, cut):
    """The file in small blocks, and the file cut off: the rows before say what they said."""
    folder = tmp_path_factory.mktemp("rows")
    body = [",".join(row) for row in rows]
    head = ["timestamp,a,b", *[f"{k},1,2" for k in range(20)]]
    whole = _rows(_file(folder, "\n".join([*head, *body])))
    part = _rows(_file(folder, "\n".join([*head, *body[:cut]])))
    count = len(part[0])
    assert whole[0][:count] == part[0]
    np.testing.assert_array_equal(whole[1][:count], part[1])
    with mock.patch.object(series_files, "_BLOCK", 64):
        small = _rows(_file(folder, "\n".join([*head, *body])))
    assert small[0] == whole[0]
    assert small[2] == whole[2]
    np.testing.assert_array_equal(small[1], whole[1])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_to_its_last_bit(value):
    assert number_of(repr(value).encode()) == value
    assert np.array([repr(value).encode()]).astype(np.float64)[0] == value
