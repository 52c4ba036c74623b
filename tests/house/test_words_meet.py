"""Words that two rooms must share although neither imports the other."""

from __future__ import annotations

from typing import get_args

from control.scenario import load_scenario, names
from exchange.types import HaltReason
from incidents.words import _ACTIONS, action_words
from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.model import Action, HaltMarket, HaltSymbol


def test_every_reason_a_runbook_gives_for_a_halt_is_one_the_exchange_knows():
    library, errors = load_library(LIBRARY)
    assert not errors
    reasons = [
        step.action.reason
        for runbook in library
        for step in runbook.steps
        if isinstance(step.action, HaltSymbol | HaltMarket)
    ]
    assert reasons
    assert set(reasons) <= {str(reason) for reason in HaltReason}


def test_every_action_has_words_in_a_report():
    kinds = {str(kind.__struct_config__.tag) for kind in get_args(Action)}
    assert kinds == set(_ACTIONS)
    assert "{" not in "".join(action_words({"type": kind}) for kind in kinds)


def test_every_scenario_awaits_alerts_that_a_runbook_answers():
    library, _ = load_library(LIBRARY)
    answered = {alert for runbook in library for alert in runbook.answers}
    by_name = {runbook.name for runbook in library}
    assert len(names()) == 16
    for name in names():
        scenario = load_scenario(name)
        assert {link.alertname for link in scenario.links if link.alertname} <= answered
        assert {link.runbook for link in scenario.links if link.runbook} <= by_name
        assert scenario.outcome
