"""The tests of the rules can fail: each rule is spoilt in small ways, and its tests must notice."""

from pathlib import Path

import pytest

from control.mutation import GOAL, cases, run
from monitor.mutants import ratio_of

ALERTS = Path(__file__).parents[2] / "alerts"


@pytest.mark.long
def test_at_least_nine_of_ten_spoilt_rules_are_noticed():
    outcomes = run(list(cases(ALERTS / "rules", ALERTS / "tests")), print)
    survivors = [f"{one.name}: {mutant.kind}: {mutant.change}" for one in outcomes for mutant in one.survivors]
    assert ratio_of(outcomes) >= GOAL, "\n".join(survivors)


def test_the_table_that_is_kept_names_every_alert_that_is_spoilt():
    kept = (ALERTS / "mutants.md").read_text()
    for case in cases(ALERTS / "rules", ALERTS / "tests"):
        assert f"| {case.rule.name} | " in kept, f"make mutate-alerts: {case.rule.name} is not in the table"
