"""The life of an incident: every pair of state and signal is decided by the table."""

from __future__ import annotations

import itertools

import pytest

from incidents.incident import (
    TRANSITIONS,
    IllegalTransitionError,
    Incident,
    Signal,
    State,
    apply,
    fold,
    handed_over,
    level_change,
    next_state,
    transition,
)  # fmt: skip
from incidents.timeline import Draft, EntryKind
from kernel.time import Instant

OPENED = Draft(
    Instant(1), EntryKind.OPENED, "control", "Opened",
    {"incident": "I-1", "title": "t", "level": 2, "service": "gateway", "team": "x", "key": "gateway"},
)  # fmt: skip
PATHS = {
    State.OPEN: [],
    State.ACKNOWLEDGED: [Signal.ACKNOWLEDGE],
    State.MITIGATED: [Signal.VERIFIED],
    State.RESOLVED: [Signal.CLEARED],
}


def incident_in(state: State) -> Incident:
    incident = fold([OPENED])
    for signal in PATHS[state]:
        incident = apply(incident, transition(incident, signal, at=Instant(2), source="control", why="test"))
    assert incident.state is state
    return incident


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(State, Signal)))
def test_every_pair_is_decided(state: State, signal: Signal) -> None:
    incident = incident_in(state)
    if signal in TRANSITIONS[state]:
        draft = transition(incident, signal, at=Instant(3), source="control", why="test")
        assert apply(incident, draft).state is TRANSITIONS[state][signal]
        return
    with pytest.raises(IllegalTransitionError, match=f"the incident is {state}: {signal} is not allowed"):
        transition(incident, signal, at=Instant(3), source="control", why="test")
    forged = Draft(Instant(3), EntryKind.STATE_CHANGED, "control", "x", {"from": state, "to": "open", "signal": signal})
    with pytest.raises(IllegalTransitionError):
        apply(incident, forged)
    assert incident == incident_in(state), "an illegal signal changes nothing"


@pytest.mark.parametrize("state", [State.OPEN, State.ACKNOWLEDGED])
def test_nothing_but_a_proof_mitigates(state: State) -> None:
    assert [signal for signal, to in TRANSITIONS[state].items() if to is State.MITIGATED] == [Signal.VERIFIED]
    assert next_state(state, Signal.VERIFIED) is State.MITIGATED


def test_a_level_falls_only_by_a_person() -> None:
    incident = incident_in(State.OPEN)
    higher = apply(incident, level_change(incident, 1, at=Instant(3), source="control", why="worse"))
    assert higher.level == 1
    with pytest.raises(AssertionError, match="only rises"):
        level_change(higher, 3, at=Instant(4), source="control", why="better")
    assert apply(higher, level_change(higher, 3, at=Instant(4), source="person:ada", why="drill")).level == 3


def test_a_handed_over_incident_needs_a_person_until_it_is_resolved() -> None:
    incident = apply(incident_in(State.OPEN), handed_over(at=Instant(3), source="control", reason="r", what_to_do="w"))
    assert (incident.needs_person, incident.needs_person_why, incident.what_to_do) == (True, "r", "w")
    for signal, needed in ((Signal.ACKNOWLEDGE, True), (Signal.VERIFIED, True), (Signal.CLEARED, False)):
        incident = apply(incident, transition(incident, signal, at=Instant(4), source="person:ada", why="x"))
        assert incident.needs_person is needed


def test_a_relapse_takes_the_mitigation_back() -> None:
    incident = incident_in(State.MITIGATED)
    assert incident.mitigated_at == 2
    after = apply(incident, transition(incident, Signal.RELAPSED, at=Instant(3), source="control", why="x"))
    assert (after.state, after.mitigated_at) == (State.OPEN, None)


def test_what_is_handed_over_anew_has_to_be_seen_anew():
    opened = fold([
        Draft(Instant(1), EntryKind.OPENED, "control", "t",
              {"incident": "INC-1", "key": "k", "title": "t", "service": "s", "team": "t", "level": 2}),
        handed_over(at=Instant(2), source="control", reason="it did not help", what_to_do="look"),
    ])  # fmt: skip
    seen = apply(opened, transition(opened, Signal.ACKNOWLEDGE, at=Instant(3), source="person:ann", why="on it"))
    assert (seen.state, seen.acknowledged_at) == (State.ACKNOWLEDGED, 3)
    again = apply(seen, handed_over(at=Instant(4), source="control", reason="another", what_to_do="look again"))
    assert (again.acknowledged_at, again.needs_person_why) == (None, "another")
    both = apply(again, transition(again, Signal.ACKNOWLEDGE, at=Instant(5), source="person:ben", why="on it, too"))
    assert (both.state, both.acknowledged_at, both.acknowledged_by) == (State.ACKNOWLEDGED, 5, "ben")
