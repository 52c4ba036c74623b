# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.chance import stream
from kernel.time import SECOND, from_rfc3339, parse_duration, seconds, to_rfc3339, to_seconds

LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", SECOND // 2), ("5s", 5 * SECOND), ("1m30s", 90 * SECOND), ("1d2h", 26 * 3600 * SECOND)],
)
def test_durations_are_read_as_prometheus_writes_them(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1.5s", "5sx", "x5s"])
def test_what_is_no_duration_is_refused_by_name(text):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@given(st.integers(0, LAST_SECOND * 1_000_000))
def test_an_instant_survives_being_written_and_read_to_the_microsecond(micros):
    assert from_rfc3339(to_rfc3339(micros * 1_000)) == micros * 1_000


@pytest.mark.parametrize(
    "text", ["2026-03-02T09:30:00.123456789Z", "2026-03-02T10:30:00.123456789+01:00", "2026-03-02t09:30:00.123456789z"]
)
def test_every_offset_and_nanosecond_counts(text):
    assert from_rfc3339(text) == 1_772_443_800_123_456_789


@pytest.mark.parametrize(
    "text", ["", "2026-03-02", "2026-03-02T09:30:00", "2026-13-02T09:30:00Z", "2026-03-02T09:30:00.1234567890Z"]
)
def test_what_is_no_instant_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        from_rfc3339(text)


def test_seconds_round_to_the_nearest_nanosecond():
    assert seconds(0.1) == 100_000_000
    assert to_seconds(1_500_000_000) == 1.5


def test_streams_of_chance_are_repeatable_and_independent():
    first = stream(1, "a")
    assert [first.random(), first.random()] == [(again := stream(1, "a")).random(), again.random()]
    assert stream(1, "a").random() != stream(1, "b").random() != stream(2, "b").random()
