"""What to do about an incident next, over the situations it can be in."""

import pytest

from control.decide import LEVEL_1_PATIENCE, LINGER, RETRY_AFTER, TRIES_MAX, HandOver, Start, next_step
from incidents.incident import AlertFact, Incident, State
from incidents.ports import RunRecord
from kernel.time import Instant, seconds
from tests.sim.library import ENGINE, GAP, GATEWAY, LIBRARY

PATIENCE = seconds(12)
T0 = Instant(1_000 * seconds(1))


def at(offset_s: float) -> Instant:
    return Instant(T0 + seconds(offset_s))


def alert(name="GatewayDown", replica="gateway-1", service="gateway", *, firing=True, since=0.0):
    labels = {"alertname": name, "service": service, "replica": replica}
    return AlertFact(
        fingerprint=f"{name}/{replica}", name=name, labels=labels, annotations={}, firing=firing, starts_at=T0,
        since=at(since),
    )  # fmt: skip


def incident(*alerts, level=2, cause=None, **more):
    return Incident(
        id="INC-1", key="gateway", title="t", service="gateway", team="t", level=level,
        state=more.pop("state", State.OPEN),
        opened_at=T0, updated_at=T0, entries=1, alerts={one.fingerprint: one for one in alerts},
        cause=cause or (alerts[0].fingerprint if alerts else ""), **more,
    )  # fmt: skip


def ended(outcome, *, of=None, start=0.1, end=5.0, n=1, runbook="gateway-down"):
    of = of or alert()
    return RunRecord(
        id=f"INC-1/run-{n}", incident="INC-1", runbook=runbook, target="x", labels=of.labels, started_at=at(start),
        ended_at=None if end is None else at(end), outcome=None if end is None else outcome, detail="so it was",
    )  # fmt: skip


def choose(one, *runs, now=6.0, library=LIBRARY):
    return next_step(one, library, runs, at(now), PATIENCE)


def test_a_firing_alert_with_a_runbook_gets_a_run():
    assert choose(incident(alert())) == Start(alert(), GATEWAY)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(incident(alert(), state=State.RESOLVED), id="it is over"),
        pytest.param(incident(alert(firing=False)), id="nothing fires"),
        pytest.param(incident(), id="it has no alerts"),
    ],
)
def test_nothing_is_begun_when(one):
    assert choose(one, now=1_000) is None


def test_what_was_handed_over_is_not_tried_again_but_a_new_alert_is_its_own_matter():
    vain = ended("not_proven")
    one = incident(alert(), needs_person=True)
    assert choose(one, vain, now=1_000) is None
    second = alert(replica="gateway-2", since=20)
    both = incident(alert(), second, needs_person=True)
    assert choose(both, vain, now=30) == Start(second, GATEWAY)


def test_an_alert_whose_runbook_may_not_begin_holds_up_no_other():
    first, second = alert(), alert(replica="gateway-2", since=1)
    choice = next_step(incident(first, second), LIBRARY, [], at(6), PATIENCE, declined={first.fingerprint})
    assert choice == Start(second, GATEWAY)


def test_one_run_at_a_time():
    assert choose(incident(alert()), ended("", end=None), now=1_000) is None


def test_the_cause_is_cured_before_its_symptoms():
    cause = alert("EngineDown", "engine-1", "engine", since=3)
    one = incident(alert(since=0), cause, cause=cause.fingerprint)
    assert choose(one) == Start(cause, ENGINE)


def test_a_symptom_of_a_firing_cause_gets_no_run_of_its_own():
    cause = alert("EngineDown", "engine-1", "engine")
    one = incident(cause, alert())
    run = ended("mended", of=cause, runbook="engine-down")
    assert choose(one, run, now=5 + 11.9) is None


@pytest.mark.parametrize(("after_s", "expected"), [(-0.1, None), (0.0, Start(alert(), GATEWAY))])
def test_an_alert_that_outlives_its_cause_for_long_enough_has_a_cause_of_its_own(after_s, expected):
    cause = alert("EngineDown", "engine-1", "engine", firing=False, since=10)
    assert choose(incident(cause, alert()), now=10 + LINGER / seconds(1) + after_s) == expected


def test_of_two_hung_replicas_the_second_is_cured_after_the_first():
    second = alert(replica="gateway-2", since=0.5)
    one = incident(alert(), second)
    assert choose(one, ended("mended")) == Start(second, GATEWAY)
    assert choose(one, ended("mended"), ended("mended", of=second, n=2, start=6, end=9), now=10) is None


def test_another_episode_of_the_same_alert_gets_another_run():
    again = alert(since=20)
    assert choose(incident(again), ended("mended"), now=21) == Start(again, GATEWAY)


@pytest.mark.parametrize(("after_s", "over"), [(11.9, False), (12.0, True)])
def test_a_proof_that_held_while_the_alert_goes_on_is_a_matter_for_a_person(after_s, over):
    choice = choose(incident(alert()), ended("mended"), now=5 + after_s)
    assert isinstance(choice, HandOver) is over
    if isinstance(choice, HandOver):
        assert "still fires" in choice.reason
        assert choice.what_to_do == GATEWAY.when_refused


@pytest.mark.parametrize("outcome", ["refused", "failed", "not_proven", "undone"])
def test_a_run_that_did_not_help_is_not_repeated_but_handed_over(outcome):
    choice = choose(incident(alert()), ended(outcome))
    assert isinstance(choice, HandOver)
    assert outcome in choice.reason


def test_a_runbook_that_did_not_apply_is_tried_again_after_a_moment_and_then_handed_over():
    runs = [ended("not_applicable", n=n, start=n * 3, end=n * 3 + 1.0) for n in range(TRIES_MAX)]
    first = runs[:1]
    assert choose(incident(alert()), *first, now=1 + 1.9) is None
    assert choose(incident(alert()), *first, now=1 + RETRY_AFTER / seconds(1)) == Start(alert(), GATEWAY)
    assert choose(incident(alert()), *runs[:-1], now=100) == Start(alert(), GATEWAY)
    choice = choose(incident(alert()), *runs, now=100)
    assert isinstance(choice, HandOver)
    assert f"did not apply {TRIES_MAX} times" in choice.reason


@pytest.mark.parametrize(
    ("level", "after_s", "over"),
    [
        pytest.param(1, LEVEL_1_PATIENCE / seconds(1) - 0.1, False, id="level 1, a moment"),
        pytest.param(1, LEVEL_1_PATIENCE / seconds(1), True, id="level 1, soon"),
        pytest.param(2, 11.9, False, id="level 2, not yet"),
        pytest.param(2, 12.0, True, id="level 2, later"),
        pytest.param(3, 100_000.0, False, id="level 3 is a ticket"),
    ],
)
def test_what_no_runbook_answers_goes_to_a_person_as_its_level_demands(level, after_s, over):
    choice = choose(incident(alert("Odd", "x"), level=level), now=after_s)
    assert isinstance(choice, HandOver) is over
    if isinstance(choice, HandOver):
        assert "no runbook answers Odd" in choice.reason


def test_an_alert_without_a_runbook_does_not_hide_one_that_has_one():
    odd, known = alert("Odd", "x"), alert()
    assert choose(incident(odd, known), now=1_000) == Start(known, GATEWAY)


def test_a_reopened_incident_has_its_patience_anew():
    one = incident(alert("Odd", "x", since=100), reopened_at=at(100))
    assert choose(one, now=105) is None
    assert isinstance(choose(one, now=112), HandOver)


def test_a_symbols_own_incident_halts_that_symbol():
    gap = AlertFact(
        fingerprint="g", name="SequenceGap", labels={"service": "market-data", "symbol": "TWA"}, annotations={},
        firing=True, starts_at=T0, since=T0,
    )  # fmt: skip
    assert choose(incident(gap, level=1)) == Start(gap, GAP)
