"""One order's spans as a tree."""

from control.trace_view import rows
from monitor.zipkin_json import ReadEndpoint, ReadSpan


def span(number, parent=None, at=0, took=10, **tags):
    above = None if parent is None else str(parent)
    return ReadSpan(str(number), "t", f"n{number}", 1_000 + at, took, above, None, ReadEndpoint("s"), tags)


def shape(spans):
    return [(row.depth, row.name, row.after_us) for row in rows(spans)]


def test_children_hang_below_their_parent_by_their_start():
    found = shape([span(3, 1, 5), span(2, 1, 1), span(1, None, 0, 50), span(4, 2, 2)])
    assert found == [(0, "n1", 0), (1, "n2", 1), (2, "n4", 2), (1, "n3", 5)]


def test_a_span_whose_parent_is_not_there_hangs_at_the_root():
    assert shape([span(2, 9, 3), span(1, 8, 0)]) == [(0, "n1", 0), (0, "n2", 3)]


def test_a_span_that_names_itself_as_parent_is_a_root():
    assert shape([span(1, 1)]) == [(0, "n1", 0)]


def test_an_error_is_told():
    assert rows([span(1, error="unknown")])[0].error == "unknown"


def test_no_spans_no_rows():
    assert rows([]) == []
