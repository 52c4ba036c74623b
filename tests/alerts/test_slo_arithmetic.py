"""Error ratios, burn rates and budgets are those that counting each event by hand gives."""

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.adapters.slo_files import load
from monitor.slo import MONTH_S, SECONDS, budget_remaining, budget_used, burn_rate, error_ratio

RULES = Path(__file__).parents[2] / "alerts/rules/slo.yml"
objectives = st.floats(0.5, 0.99999)
events = st.lists(st.booleans(), max_size=200)


@given(objectives, events)
def test_a_burn_rate_is_the_bad_events_over_those_that_were_allowed(objective, good):
    error = error_ratio(good.count(False), len(good))
    if not good:
        assert error is None, "no event is neither good nor bad"
        return
    allowed = len(good) * (1 - objective)
    bad = sum(not one for one in good)
    assert burn_rate(error, objective) == pytest.approx(bad / allowed)
    assert budget_remaining(error, objective) == pytest.approx((allowed - bad) / allowed)


@given(st.floats(0.01, 1000), st.sampled_from(sorted(SECONDS)))
def test_burning_at_one_rate_for_as_long_as_a_window_uses_what_a_second_by_second_sum_uses(burn, window):
    seconds = SECONDS[window]
    each = burn / MONTH_S
    assert budget_used(burn, window) == pytest.approx(sum([each * 60] * (seconds // 60)))


def test_the_bounds_use_two_five_ten_and_ten_percent_of_the_month():
    for slo in load():
        assert [round(budget_used(one.burn, one.long), 3) for one in slo.conditions] == [0.02, 0.05, 0.1, 0.1]


def ask(tmp_path, series, expectations, at="6m"):
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "2s",
        "tests": [
            {
                "interval": "1s",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "promql_expr_test": [
                    {
                        "expr": expr,
                        "eval_time": at,
                        "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
                    }
                    for expr, value in expectations
                ],
            }
        ],
    }
    path = tmp_path / "slo.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def near(name, slo, window, value, within=0.001):
    return (f'abs(sum({name}{window}{{slo="{slo}"}}) - {value!r}) < bool {within}', 1)


def absent(name, slo, window):
    return (f'sum({name}{window}{{slo="{slo}"}})', None)


WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
ERROR = "slo:sli_error:ratio_rate"


@settings(max_examples=2, deadline=None)
@given(good=st.integers(1, 40), bad=st.integers(0, 40))
def test_prometheus_records_the_share_of_bad_events_over_every_window(tmp_path_factory, good, bad):
    share = bad / (good + bad)
    both = [
        ('exchange_gateway_requests_total{outcome="accepted",replica="gateway-1"}', f"0+{good}x360"),
        ('exchange_gateway_requests_total{outcome="shed",replica="gateway-2"}', f"0+{bad}x360"),
        ('exchange_order_ack_seconds_bucket{le="0.25"}', f"0+{good}x360"),
        ("exchange_order_ack_seconds_count", f"0+{good + bad}x360"),
    ]
    wanted = [near(ERROR, slo, window, share) for window in WINDOWS
              for slo in ("order-entry-availability", "order-entry-latency")]  # fmt: skip
    left = 1 - share / 0.01
    wanted.append(near("slo:error_budget_remaining:", "order-entry-latency", "ratio", left, 0.01))
    wanted.append(near("slo:burn_rate:", "order-entry-latency", "ratio_rate1h", share / 0.01, 0.01))
    wanted += [absent(ERROR, "market-data-freshness", "5m"), absent(ERROR, "settlement-lag", "30d")]
    ask(tmp_path_factory.mktemp("slo"), both, wanted)


def test_a_gauge_is_bad_for_the_share_of_looks_above_its_bound(tmp_path):
    lag = [("exchange_settlement_lag_seconds", "30x179 31x360")]
    # A month is as old as its last minute, so one of six may be missing.
    # Looks at 0, 2 .. 360 s; those from 180 s on are bad: 91 of 181 in all, 91 of the 151 of the last five minutes.
    ask(tmp_path, lag, [near(ERROR, "settlement-lag", "5m", 91 / 151), near(ERROR, "settlement-lag", "1h", 91 / 181),
                        near(ERROR, "settlement-lag", "30d", 0.5, 0.11)])  # fmt: skip


def test_a_series_without_events_has_no_error_and_one_that_ended_keeps_what_its_window_saw(tmp_path):
    silent = [
        ("exchange_feed_delay_seconds_count", "7x360"),
        ('exchange_feed_delay_seconds_bucket{le="0.5"}', "7x360"),
        ("exchange_order_ack_seconds_count", "0+10x100 stale"),
        ('exchange_order_ack_seconds_bucket{le="0.25"}', "0+5x100 stale"),
    ]
    ask(tmp_path, silent, [
        absent(ERROR, "market-data-freshness", "5m"), absent(ERROR, "market-data-freshness", "30d"),
        near(ERROR, "order-entry-latency", "6h", 0.5),
    ])  # fmt: skip
