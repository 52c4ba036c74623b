"""`tapewatch slo` as a person uses it."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from cli import app
from control import verbs_slo
from monitor.adapters.slo_files import HOUSE

RUN = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_STATE", str(tmp_path / "state"))


def test_without_an_estate_objectives_are_listed_and_that_budgets_are_not_known_is_exit_code_4():
    done = RUN.invoke(app, ["slo", "list", "--json"])
    assert done.exit_code == 4
    assert "budgets are not known: no estate runs in" in done.stderr
    told = json.loads(done.stdout)
    assert told["measured"] is False
    assert {one["name"] for one in told["slos"]} >= {"settlement-lag", "order-entry-availability"}
    assert all(one["budget_remaining"] is None for one in told["slos"])
    assert "settlement-lag" in RUN.invoke(app, ["slo", "list"]).stdout


def test_a_running_estate_says_what_is_left(monkeypatch):
    monkeypatch.setattr(
        verbs_slo, "_measured", lambda _: ({"left": {"settlement-lag": -0.5}, "burn_1h": {"settlement-lag": 15.0}}, "")
    )
    told = json.loads(RUN.invoke(app, ["slo", "list", "--json"]).stdout)
    one = next(one for one in told["slos"] if one["name"] == "settlement-lag")
    assert (one["budget_remaining"], one["burn_rate_1h"]) == (-0.5, 15.0)
    shown = RUN.invoke(app, ["slo", "list"]).stdout
    assert "-50.0%" in shown
    assert "15.00" in shown


def test_one_objective_is_shown_with_its_alerts():
    done = RUN.invoke(app, ["slo", "show", "order-entry-latency", "--json"])
    told = json.loads(done.stdout)
    assert [one["alert"] for one in told["conditions"]] == [
        "OrderEntryLatencyBurnsFast", "OrderEntryLatencyBurns",
        "OrderEntryLatencyBurnsSlowly", "OrderEntryLatencyLeaks",
    ]  # fmt: skip
    assert "6h & 30m" in RUN.invoke(app, ["slo", "show", "order-entry-latency"]).stdout


def test_an_unknown_objective_is_a_sentence_with_those_that_are_known():
    done = RUN.invoke(app, ["slo", "show", "uptime"])
    assert done.exit_code == 2
    assert "objective uptime: is not known; known are incident-mitigation" in done.stderr


def test_check_passes_on_the_house_objectives_and_names_the_line_of_a_wrong_one(tmp_path):
    assert RUN.invoke(app, ["slo", "check"]).exit_code == 0
    own = shutil.copytree(HOUSE, tmp_path / "own")
    lag = own / "settlement-lag.yaml"
    lag.write_text(lag.read_text().replace("exchange_settlement_lag_seconds", "exchange_settlement_delay"))
    done = RUN.invoke(app, ["slo", "check", "--slos", str(own)])
    assert done.exit_code == 2
    assert "settlement-lag.yaml:17: nobody exports exchange_settlement_delay" in done.stderr


def test_check_fails_when_the_rules_are_not_those_of_the_objectives(monkeypatch, tmp_path):
    monkeypatch.setattr(verbs_slo, "RULES", tmp_path)
    done = RUN.invoke(app, ["slo", "check", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["stale"] == ["slo.yml", "slo_burn.yml"]
    assert RUN.invoke(app, ["slo", "rules", "--write"]).exit_code == 0
    assert RUN.invoke(app, ["slo", "check"]).exit_code == 0
