# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""How long incidents took, seen from turn to turn."""

from types import SimpleNamespace

from control.telemetry import ControlInstruments
from incidents.incident import State
from kernel.time import SECOND
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role


def incident(name, state, opened_at=10):
    return SimpleNamespace(id=name, state=state, opened_at=opened_at * SECOND)


def sums(exporter):
    return {
        name.removeprefix("tapewatch_incident_").removesuffix("_seconds_sum"): value
        for name, _, value in samples(exporter.render())
        if name.startswith("tapewatch_incident_") and name.endswith("_seconds_sum") and value
    }


def test_times_are_counted_once_when_an_incident_gets_there():
    exporter = Exporter(Role.CONTROL, process=False)
    told = ControlInstruments(exporter, lambda: "closing_auction")

    def turn(now, *incidents):
        told.standing(incidents, backlog=0, runs=0, now=now * SECOND)

    turn(10, incident("A", State.OPEN))
    turn(13, incident("A", State.ACKNOWLEDGED), incident("B", State.OPEN, 12))
    turn(14, incident("A", State.ACKNOWLEDGED), incident("B", State.MITIGATED, 12))
    turn(15, incident("A", State.MITIGATED), incident("B", State.MITIGATED, 12))
    assert sums(exporter) == {"acknowledge": 3, "mitigate": 2 + 5}
    turn(20, incident("B", State.MITIGATED, 12))
    turn(30)
    turn(31)
    assert sums(exporter) == {"acknowledge": 3, "mitigate": 7, "resolve": 10 + 18}
    phases = {labels["phase"]: value for name, labels, value in samples(exporter.render()) if name.endswith("_phase")}
    assert [phase for phase, value in phases.items() if value] == ["closing_auction"]
    assert len(phases) == 7


def test_an_incident_that_falls_back_is_mitigated_once_more():
    exporter = Exporter(Role.CONTROL, process=False)
    told = ControlInstruments(exporter)
    for now, state in ((11, State.OPEN), (12, State.MITIGATED), (13, State.OPEN), (15, State.MITIGATED)):
        told.standing([incident("A", state)], backlog=0, runs=0, now=now * SECOND)
    assert sums(exporter) == {"mitigate": 2 + 5}
