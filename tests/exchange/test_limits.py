"""Budgets of keys and accounts: what is let through over time, what is told, and how much memory it takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exchange.limits import Buckets, Budget, RateLimits, Rates


class NaiveBucket:
    """A bucket of tokens as one would write it down: filled by the clock, emptied by requests."""

    def __init__(self, per_s, size):
        self.per_s, self.size, self.tokens, self.at = per_s, size, float(size), 0.0

    def take(self, now):
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.per_s)
        self.at = now
        if self.tokens < 1 - 1e-6:
            return False
        self.tokens -= 1
        return True


@given(st.sampled_from([1.0, 3.0, 10.0, 100.0]), st.lists(st.integers(0, 40), max_size=80))
def test_a_bucket_agrees_with_the_naive_one(per_s, gaps):
    buckets, naive, now = Buckets("orders-key", per_s), NaiveBucket(per_s, round(per_s)), 0.0
    for gap in gaps:
        now += gap / 64 / per_s * 10
        standing = buckets.look("a", now)
        if standing.allowed:
            buckets.take("a", now)
        assert standing.allowed == naive.take(now)
        if standing.allowed:
            assert standing.remaining == int(naive.tokens + 1e-6)
        else:
            assert buckets.look("a", now + standing.wait_s + 1e-6).allowed


def test_a_second_worth_comes_at_once_and_the_rest_at_its_rate():
    limits = RateLimits(Rates(key_per_s=5.0))
    told = [limits.take(Budget.ORDERS, "k", "a", 100.0) for _ in range(6)]
    assert [one.remaining for one in told] == [4, 3, 2, 1, 0, 0]
    assert [one.allowed for one in told] == [True] * 5 + [False]
    assert told[-1].policy == "orders-key"
    assert abs(told[-1].wait_s - 0.2) < 1e-6
    assert limits.take(Budget.ORDERS, "k", "a", 100.21).allowed


def test_cancels_and_look_ups_have_budgets_of_their_own():
    limits = RateLimits(Rates(key_per_s=2.0, cancel_factor=3.0))
    while limits.take(Budget.ORDERS, "k", "a", 0.0).allowed:
        pass
    assert sum(limits.take(Budget.CANCELS, "k", "a", 0.0).allowed for _ in range(20)) == 6
    assert sum(limits.take(Budget.LOOK_UPS, "k", "a", 0.0).allowed for _ in range(20)) == 2


def test_a_refusal_by_the_account_costs_the_key_nothing():
    limits = RateLimits(Rates(key_per_s=10.0, account_per_s=1.0))
    assert limits.take(Budget.ORDERS, "k", "a", 0.0).policy == "orders-account"
    for _ in range(50):
        refused = limits.take(Budget.ORDERS, "k", "a", 0.0)
        assert (refused.allowed, refused.policy) == (False, "orders-account")
    assert sum(limits.take(Budget.ORDERS, "k", f"other-{n}", 0.0).allowed for n in range(20)) == 9


def test_one_account_through_many_keys_has_one_budget():
    limits = RateLimits(Rates(key_per_s=100.0, account_per_s=3.0))
    assert sum(limits.take(Budget.ORDERS, f"k{n}", "a", 0.0).allowed for n in range(10)) == 3


def test_without_rates_nothing_is_counted():
    limits = RateLimits(Rates())
    assert not limits.any
    assert limits.take(Budget.ORDERS, "k", "a", 0.0) is None
    assert limits.policies(Budget.ORDERS) == ""
    assert RateLimits(Rates(2.0, 1.0)).policies(Budget.CANCELS) == '"cancels-key";q=4;w=1, "cancels-account";q=2;w=1'


def test_memory_is_bounded_and_who_is_idle_is_forgotten_first():
    buckets = Buckets("orders-key", 1.0, max_names=100)
    for number in range(1000):
        if buckets.look(f"k{number}", 0.0).allowed:
            buckets.take(f"k{number}", 0.0)
    assert len(buckets) <= 101
    assert not buckets.look("k0", 0.0).allowed, "who used his budget up is not forgotten for it"
    assert not buckets.look("never-seen", 0.0).allowed, "newcomers beyond the bound share one bucket"
    buckets.take("later", 10.0)
    assert len(buckets) <= 2
