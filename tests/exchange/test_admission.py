"""The token bucket of a gateway."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exchange.admission import TokenBucket


@given(st.lists(st.floats(0, 0.05), max_size=300))
def test_never_more_than_the_rate_and_one_burst_get_in(gaps):
    bucket, now, taken = TokenBucket(100.0, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
        assert taken <= 50 + 100 * now + 1


def test_a_steady_flow_at_the_rate_is_never_shed():
    bucket = TokenBucket(100.0, 0.0)
    assert all(bucket.take(number * 0.0101) for number in range(5_000))


def test_whoever_reduces_risk_gets_in_after_the_others_are_shed_but_not_without_end():
    bucket = TokenBucket(10.0, 0.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(0.0, reserve=True) for _ in range(6)] == [True] * 5 + [False]


def test_many_get_in_together_or_none_of_them():
    bucket = TokenBucket(10.0, 0.0)
    assert not bucket.take_many(6, 0.0)
    assert bucket.take_many(5, 0.0), "those who were refused took nothing"
    assert not bucket.take_many(1, 0.0)


def test_a_clock_that_stands_or_goes_back_gives_nothing():
    bucket = TokenBucket(2.0, 10.0)
    assert bucket.take(10.0)
    assert not bucket.take(0.0)
    assert bucket.wait_s() > 0
