"""Expressions are held to the catalogue: what is wrong is told with file, line, and what would be right."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.adapters.rule_files import sentences
from monitor.promql_tokens import UnreadableError
from monitor.promql_tree import Binary, Call, Selector, tree
from monitor.rule_check import Recorded, findings_of

RULES = sorted((Path(__file__).parents[2] / "alerts/rules").glob("*.yml"))
RECORDED = {"service:age:seconds": [Recorded("max(exchange_settlement_lag_seconds)")]}

ACK = "histogram_quantile(0.9, sum by (le) (rate(exchange_order_ack_seconds_bucket[5s])))"
MEAN = "rate(exchange_order_ack_seconds_sum[5s]) / rate(exchange_order_ack_seconds_count[5s])"
HALTED = "exchange_symbol_halted"
WRONG = [
    ("exchange_bok_crossed > 0", 0, "nobody exports or records exchange_bok_crossed", "exchange_"),
    ('sum(rate(exchange_gateway_requests_total{outcom="shed"}[5s])) > 1', 41, "no label outcom", "mean outcome?"),
    ("sum by (symbl) (exchange_symbol_halted) > 1", 8, "sum groups by symbl", "did you mean symbol?"),
    ("exchange_symbol_halted and on (symbl) exchange_symbol_halted", 31, "no label symbl to match on", "symbol"),
    ("exchange_settlement_lag_seconds > exchange_journal_bytes", 32, "seconds > bytes", "one unit"),
    ("service:age:seconds > exchange_journal_bytes", 20, "seconds > bytes", "one unit"),
    ("exchange_settlement_lag_seconds + on (replica) exchange_journal_bytes > 1", 32, "seconds + bytes", "one unit"),
    ("exchange_trades_total > 5", 0, "exchange_trades_total is a counter read raw", "rate(exchange_trades_total[…])"),
    ("sum(exchange_order_ack_seconds_bucket) > 5", 4, "a histogram's counter read raw", "rate("),
    ("avg_over_time(exchange_trades_total[5s]) > 5", 14, "read raw", "rate("),
    ("rate(exchange_journal_bytes[5s]) > 5", 5, "rate of exchange_journal_bytes, which is a gauge", "deriv or delta"),
    ("rate(node_load5[1m]) > 5", 5, "rate of node_load5, which is no counter", "deriv"),
    ("max(exchange_snapshot_timestamp_seconds) > 600", 41, "a time since the epoch > 600", "time() -"),
    ("time() - exchange_journal_bytes > 600", 7, "a time since the epoch - bytes", "_timestamp_seconds"),
    ("time() - exchange_settlement_lag_seconds > 600", 41, "a time since the epoch > 600", "time() -"),
    ("exchange_journal_disk_free_bytes < 0.1", 33, "bytes < 0.1", "bytes / bytes"),
    (f"{ACK} > on () exchange_journal_bytes", 83, "seconds > bytes", "one unit"),
]  # fmt: skip
RIGHT = [
    "time() - max(exchange_snapshot_timestamp_seconds) > 600",
    f"{ACK} > on () exchange_settlement_lag_seconds",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.05",
    "service:age:seconds > 30 and on () sum(rate(exchange_trades_total[5s])) > 1",
    'sum by (phase) (tapewatch_market_phase{phase!="closed", job=~"contr.+"} offset 5m) == bool 1',
    f'label_replace({HALTED}, "share", "$1", "symbol", "(.+)") * on (symbol) group_left {HALTED}',
    f"{MEAN} < on () exchange_settlement_lag_seconds",
    "deriv(exchange_journal_bytes[30s:1s]) ^ 2 > -1 or absent(exchange_trades_total)",
]


def test_every_rule_of_the_house_holds_to_the_catalogue():
    assert sentences(RULES) == []


@pytest.mark.parametrize(("expression", "at", "what", "right"), WRONG, ids=[one[0][:40] for one in WRONG])
def test_a_wrong_expression_is_told_with_its_place_and_what_would_be_right(expression, at, what, right):
    (found,) = [one for one in findings_of(expression, RECORDED) if what in one.what][:1]
    assert (found.at, what in found.what) == (at, True)
    assert right in found.right


@pytest.mark.parametrize("expression", RIGHT)
def test_a_sound_expression_is_not_accused(expression):
    assert findings_of(expression, RECORDED) == []


def test_each_mistake_of_a_file_names_file_line_and_rule(tmp_path):
    path = tmp_path / "planted.yml"
    path.write_text(
        "groups:\n"
        "  - name: planted\n"
        "    rules:\n"
        "      - alert: Raw\n"
        "        expr: 'exchange_trades_total > 5'\n"
        "      - alert: Lines\n"
        "        expr: |-\n"
        "          max(exchange_settlement_lag_seconds) > 5\n"
        "          and on () max(exchange_bok_spread_ticks) > 1\n"
        "      - record: service:x:y\n"
        "        expr: exchange_journal_bytes <\n"
    )
    told = sentences([path])
    assert [one.split(": ")[0] for one in told] == [f"{path}:5", f"{path}:9", f"{path}:11"]
    assert (
        "Lines: nobody exports or records exchange_bok_spread_ticks; did you mean exchange_book_spread_ticks?"
        in told[1]
    )
    assert "service:x:y: cannot be read: the expression ends" in told[2]


@pytest.mark.parametrize(
    "broken", ["", "sum(", "a b", "a{b}", 'a{b="c"', "a +", "sum by (a", "a[5m", "a $ b", ")", "a{b=1}", "(" * 200]
)
def test_what_is_no_promql_is_refused_with_a_place(broken):
    with pytest.raises(UnreadableError) as refused:
        tree(broken)
    assert 0 <= refused.value.at <= len(broken)


@given(st.text(alphabet='ab_:(){}[],="~!<>+-*/^ 0159smhbyonr\n#', max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    at = 0
    try:
        tree(text)
    except UnreadableError as refused:
        at = refused.at
    assert 0 <= at <= len(text)


def test_operators_bind_as_prometheus_binds_them():
    node = tree("a or b and c > d + e * f ^ g")
    spine = []
    while isinstance(node, Binary):
        spine.append(node.op)
        node = node.right
    assert spine == ["or", "and", ">", "+", "*", "^"]
    assert node == Selector("g", (), None, 27)
    left = tree("a - b - c")
    assert isinstance(left, Binary)
    assert isinstance(left.left, Binary)


def test_grouping_is_read_before_and_after_the_arguments():
    before, after = tree("sum by (job) (a)"), tree("sum (a) by (job)")
    assert isinstance(before, Call)
    assert isinstance(after, Call)
    assert [token.text for token in before.by] == [token.text for token in after.by] == ["job"]
