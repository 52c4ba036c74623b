"""What the market's phases may silence, and what they never may."""

from pathlib import Path

import yaml

ALERTS = Path(__file__).parents[2] / "alerts"
MUTES = {one["alert"]: one for one in yaml.safe_load((ALERTS / "routing/phase_mutes.yaml").read_text())["mutes"]}
RULES = {
    rule["alert"]: rule
    for path in sorted((ALERTS / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
INVARIANTS = {
    "SequenceGap", "BookCrossed", "TradeThrough", "LedgerImbalance", "ReconciliationDifference", "JournalFailed",
    "JournalDiskFull", "TradingWhileClosed", "PageNotDelivered",
}  # fmt: skip


def test_every_muted_alert_is_one_and_its_reason_is_a_sentence():
    assert MUTES.keys() <= RULES.keys()
    assert all(len(one["reason"].split()) >= 5 and one["reason"].endswith(".") for one in MUTES.values())


def test_what_must_never_be_is_heard_in_every_phase():
    assert RULES.keys() >= INVARIANTS
    level_1 = {name for name, rule in RULES.items() if rule["labels"]["level"] == "1"}
    assert level_1 & INVARIANTS
    assert not MUTES.keys() & (INVARIANTS | level_1)


def test_nothing_critical_and_no_dead_process_is_silent_in_any_phase():
    critical = {name for name, rule in RULES.items() if rule["labels"]["severity"] == "critical"}
    down = {name for name, rule in RULES.items() if "up{" in rule["expr"]}
    assert critical
    assert down
    assert not MUTES.keys() & (critical | down)


def test_a_rule_that_asks_for_the_continuous_phase_is_silent_in_all_others():
    asking = {name for name, rule in RULES.items() if 'tapewatch_market_phase{phase="continuous"}' in rule["expr"]}
    assert asking
    for name in asking:
        assert set(MUTES[name]["phases"]) == {
            "pre_open", "opening_auction", "intraday_auction", "closing_auction", "post_close", "closed",
        }, name  # fmt: skip
