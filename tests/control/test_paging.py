"""Who waits for a person keeps an alert up, through an Alertmanager that comes and goes."""

import msgspec
import pytest

from control.paging import NEEDS_PERSON, Pager
from control.telemetry import ControlInstruments
from exchange.recording import RecordingLog
from incidents.incident import Incident, State
from kernel.time import Instant, seconds
from monitor.adapters.fake_alerts import FakeAlerts
from tests.sim.virtual import EPOCH, VirtualClock
from tests.sim.world import METER

EVERY = seconds(30)


def incident(*, waits=True, state=State.OPEN, id="INC-1"):  # noqa: A002 - the field's name
    return Incident(
        id=id, key="gateway", title="A gateway hangs", service="gateway", team="platform", level=2, state=state,
        opened_at=EPOCH, updated_at=EPOCH, entries=1, needs_person=waits, needs_person_why="it did not help",
        what_to_do="look at it", acknowledged_at=EPOCH if state is State.ACKNOWLEDGED else None,
    )  # fmt: skip


@pytest.fixture
def parts():
    clock = VirtualClock()
    alerts, log = FakeAlerts(clock), RecordingLog()
    return alerts, log, Pager(alerts, "http://127.0.0.1:1", EVERY, ControlInstruments(METER), log, clock)


def at(offset_s):
    return Instant(EPOCH + seconds(offset_s))


async def test_an_incident_that_waits_has_one_alert_with_what_to_do(parts):
    alerts, _, pager = parts
    await pager.turn([incident(), incident(waits=False, id="INC-2")], at(0))
    assert len(alerts.posted) == 1
    posted = alerts.posted[0]
    assert posted.labels["alertname"] == NEEDS_PERSON
    assert posted.labels["incident"] == "INC-1"
    assert posted.annotations["description"] == "it did not help\nlook at it"
    assert posted.annotations["incident_url"] == "http://127.0.0.1:1/api/v1/incidents/INC-1"


async def test_what_moved_first_is_told_when_one_cause_stands_out(parts):
    alerts, _, pager = parts
    await pager.turn([msgspec.structs.replace(incident(), likely_cause="engine is the likeliest cause (0.84).")], at(0))
    told = alerts.posted[0].annotations["description"]
    assert told == "it did not help\nlook at it\nWhat moved first: engine is the likeliest cause (0.84)."


async def test_it_is_posted_again_so_that_it_never_ends_by_itself(parts):
    alerts, _, pager = parts
    for second in range(61):
        await pager.turn([incident()], at(second))
    assert len(alerts.posted) == 3
    assert all(one.ends_at is not None and one.ends_at > at(60) for one in alerts.posted)


@pytest.mark.parametrize("after", [[incident(state=State.ACKNOWLEDGED)], []])
async def test_it_ends_when_somebody_takes_it_on_or_it_is_over(parts, after):
    alerts, _, pager = parts
    await pager.turn([incident()], at(0))
    await pager.turn(after, at(5))
    assert alerts.posted[-1].ends_at == at(5)
    await pager.turn(after, at(50))
    assert len(alerts.posted) == 2


async def test_an_alertmanager_that_was_down_learns_of_it_soon(parts):
    alerts, log, pager = parts
    alerts.fail(down=True)
    await pager.turn([incident()], at(0))
    await pager.turn([incident()], at(1))
    assert log.names() == ["page-failed"]
    alerts.fail(down=False)
    await pager.turn([incident()], at(2.1))
    assert len(alerts.posted) == 1


async def test_a_failure_to_end_it_is_no_harm(parts):
    alerts, log, pager = parts
    await pager.turn([incident()], at(0))
    alerts.fail(down=True)
    await pager.turn([], at(1))
    assert log.names() == ["page-end-failed"]


async def test_whoever_may_consent_is_told_while_a_run_asks_even_of_an_incident_that_somebody_took_on(parts):
    alerts, _, pager = parts
    seen = incident(waits=False, state=State.ACKNOWLEDGED)
    await pager.turn([seen], at(0), {"INC-1": "asks one person to approve plan 0123456789ab"})
    assert alerts.posted[0].annotations["description"] == "asks one person to approve plan 0123456789ab"
    await pager.turn([seen], at(5), {})
    assert alerts.posted[-1].ends_at == at(5)
