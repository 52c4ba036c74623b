import re

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.trace import (
    TraceContext,
    derived_span_id,
    derived_trace_id,
    is_kept,
    is_place_kept,
    parse_traceparent,
    places_kept,
    traceparent,
)

IDS = st.tuples(
    st.integers(1, 2**128 - 1).map("{:032x}".format), st.integers(1, 2**64 - 1).map("{:016x}".format), st.booleans()
)


@given(IDS)
def test_what_is_written_is_read_again(ids):
    context = TraceContext(*ids)
    assert parse_traceparent(traceparent(context)) == context


def test_the_example_of_the_standard_is_read():
    found = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert found == TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)


def test_what_the_standard_forbids_is_no_context():
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for wrong in (
        "",
        f"00-{trace}-{span}",
        f"ff-{trace}-{span}-01",
        f"00-{'0' * 32}-{span}-01",
        f"00-{trace}-{'0' * 16}-01",
        f"00-{trace.upper()}-{span}-01",
        f"00-{trace}-{span}-01-more",
        f"00-{trace}-{span}-01\n",
        f" 00-{trace}-{span}-01",
        f"00-{trace}-{span}-01" + "x" * 10_000,
    ):
        assert parse_traceparent(wrong) is None, wrong


def test_a_later_version_is_read_as_far_as_it_is_known():
    assert parse_traceparent(f"cc-{'1' * 32}-{'2' * 16}-01-what-the-future-will-be") is not None


@given(st.text(max_size=300))
def test_no_text_breaks_it(text):
    parse_traceparent(text)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_derived_ids_are_valid_and_the_same_each_time(names):
    trace = derived_trace_id(*names)
    assert re.fullmatch(r"[0-9a-f]{32}", trace)
    assert re.fullmatch(r"[0-9a-f]{16}", derived_span_id(trace, *names))
    assert trace == derived_trace_id(*names)


def test_the_borders_between_names_count():
    assert derived_trace_id("ab", "c") != derived_trace_id("a", "bc")


def test_about_the_share_that_was_asked_for_is_kept_and_a_larger_share_keeps_all_of_a_smaller():
    ids = [derived_trace_id("account", str(n)) for n in range(20_000)]
    kept = [one for one in ids if is_kept(one, 0.01)]
    assert 130 < len(kept) < 280
    assert all(is_kept(one, 0.05) for one in kept)
    assert not any(is_kept(one, 0.0) for one in ids)
    assert all(is_kept(one, 1.0) for one in ids)


@given(
    st.integers(0, 2**40),
    st.integers(-5, 9000),
    st.one_of(st.floats(0, 1), st.sampled_from([0.01, 0.02, 0.5, 1e-4, 1e-9])),
)
@settings(max_examples=60)
def test_the_places_that_are_kept_are_found_without_looking_at_each(first, count, share):
    expected = [seq for seq in range(first, first + count) if is_place_kept(seq, share)]
    assert list(places_kept(first, first + count - 1, share)) == expected
