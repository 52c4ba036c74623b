"""Links about what detectors find: nothing counts that was asked for too early, too late or of somebody else."""

from __future__ import annotations

import pytest

from control import learned_links
from control.layout import Layout
from control.learned_links import why_not
from control.links import see
from control.scenario import Link
from control.witness import Witness
from kernel.time import SECOND, Instant

STATIC = ("settling", "orders")


@pytest.fixture
def witness(tmp_path):
    layout = Layout(tmp_path)
    layout.secret("admin").parent.mkdir(parents=True, exist_ok=True)
    layout.secret("admin").write_text("secret-of-the-test")
    made = Witness(layout)
    made.started_at = Instant(100 * SECOND)
    made.alerts = [{"labels": {"alertname": "Watchdog"}}]
    return made


def fire(witness, name, at_s, **labels):
    labels = {"alertname": name, **labels}
    witness.alerts_seen[str(sorted(labels.items()))] = {
        "labels": labels,
        "startsAt": f"1970-01-01T00:{at_s // 60:02}:{at_s % 60:02}Z",
        "seen_at": at_s * SECOND,
    }


def incident(opened_s, *, alert="SeriesAnomalous", incident_id="INC-1"):
    return {"id": incident_id, "title": "it leaks", "opened_at": opened_s * SECOND, "alerts": {"f": {"name": alert}}}


BEFORE = Link(
    name="x", see="before", alertname="SeriesAnomalous", labels={"item": "settlement-1"}, families=STATIC
)  # fmt: skip
QUIET = Link(name="x", see="no_page")


def test_silence_counts_only_while_the_dead_mans_switch_shows_that_somebody_would_have_been_told(witness):
    fire(witness, "Watchdog", 101)
    assert "no incident" in see(witness, QUIET)
    witness.alerts = []
    assert see(witness, QUIET) is None
    assert "dead man's switch" in why_not(witness, QUIET)


def test_one_alert_that_came_and_went_ends_the_silence_and_is_named(witness):
    fire(witness, "SeriesAnomalous", 130, series="feed-messages", service="market-data")
    assert see(witness, QUIET) is None
    assert why_not(witness, QUIET) == "SeriesAnomalous fired for feed-messages market-data"


def test_an_alert_of_another_family_leaves_a_named_silence_alone(witness):
    fire(witness, "HostLoadHigh", 130, replica="node-1")
    assert see(witness, Link(name="x", see="no_page", families=("detectors", "orders"))) is not None
    assert see(witness, Link(name="x", see="no_page", families=("host",))) is None


def test_an_incident_ends_the_silence_unless_it_was_there_before(witness):
    witness.incidents = [incident(99)]
    assert see(witness, QUIET) is not None
    witness.incidents = [incident(99), incident(101, incident_id="INC-2")]
    assert see(witness, QUIET) is None
    assert why_not(witness, QUIET) == "INC-2 was opened: it leaks"


def test_the_alert_counts_when_no_static_rule_fired_before_it(witness):
    assert see(witness, BEFORE) is None
    fire(witness, "SeriesAnomalous", 130, series="process-memory", item="settlement-1")
    assert "process-memory of settlement-1" in see(witness, BEFORE)
    fire(witness, "SettlementLate", 131, service="settlement")
    assert see(witness, BEFORE) is not None, "what fires later takes nothing away"


@pytest.mark.parametrize("at_s", [129, 130])
def test_a_static_rule_that_fired_before_or_with_it_is_named(witness, at_s):
    fire(witness, "SettlementLate", at_s, service="settlement")
    fire(witness, "SeriesAnomalous", 130, series="process-memory", item="settlement-1")
    assert see(witness, BEFORE) is None
    assert why_not(witness, BEFORE) == "SettlementLate had fired before for settlement"


def test_an_alert_of_another_series_and_a_static_rule_of_another_family_do_not_count(witness):
    fire(witness, "SeriesAnomalous", 130, series="process-memory", item="engine-1")
    assert see(witness, BEFORE) is None
    fire(witness, "HostLoadHigh", 120, replica="node-1")
    fire(witness, "SeriesAnomalous", 140, series="process-memory", item="settlement-1")
    assert see(witness, BEFORE) is not None


def ranked(*services, at_s=140):
    leaders = [
        {"service": service, "metric": metric, "score": 0.8, "sentence": "It rose."} for service, metric in services
    ]
    return {"kind": "causes_ranked", "at": at_s * SECOND, "text": "t", "data": {"hypotheses": leaders}}


def test_only_the_first_of_the_last_ranking_is_the_cause(witness):
    link = Link(name="x", see="cause", service="engine", metric="engine-commit-time")
    witness.timelines["INC-1"] = [{"kind": "causes_ranked", "at": 1, "text": "t", "data": {"trouble": "slow"}}]
    assert see(witness, link) is None
    witness.timelines["INC-1"].append(ranked(("gateway", "gateway-latency"), ("engine", "engine-commit-time")))
    assert see(witness, link) is None
    assert why_not(witness, link) == "first was gateway (gateway-latency)"
    witness.timelines["INC-1"].append(ranked(("engine", "engine-commit-time"), ("gateway", "gateway-latency")))
    assert "engine" in see(witness, link)
    assert see(witness, Link(name="x", see="cause", service="engine", metric="process-memory")) is None


def test_the_explanation_is_looked_for_in_the_report_of_the_alerts_incident(witness, monkeypatch):
    reports = {"INC-1": "# r\n- process\\-memory rose to 90 MB, usual before 70 MB.\n", "INC-2": "other\n"}
    monkeypatch.setattr(witness, "postmortem", reports.__getitem__)
    link = Link(name="x", see="finding", alertname="SeriesAnomalous", text="process-memory rose .* usual")
    assert see(witness, link) is None
    witness.incidents = [incident(101, alert="GatewayDown"), incident(101, incident_id="INC-2")]
    assert see(witness, link) is None
    witness.incidents.append(incident(101))
    assert see(witness, link) == "INC-1: process-memory rose to 90 MB, usual before 70 MB."


def test_a_missed_link_of_another_kind_has_no_reason_to_add(witness):
    assert learned_links.why_not(witness, Link(name="x", see="paged")) == ""


def test_a_static_rule_that_fired_already_before_the_start_speaks_of_something_else(witness):
    fire(witness, "SettlementLate", 99, service="settlement")
    fire(witness, "SeriesAnomalous", 130, series="process-memory", item="settlement-1")
    assert see(witness, BEFORE) is not None
