"""Whole incidents on virtual time: signals in, incidents, runs and outcomes out."""

import asyncio

import msgspec
import pytest

import control.loop as loop_room
from control.config import ControlTuning
from incidents.incident import UNRESOLVED, State
from incidents.timeline import EntryKind
from kernel.time import Instant
from runbooks.model import Consent, Outcome
from tests.sim.invariants import broken_promises
from tests.sim.library import GATEWAY
from tests.sim.virtual import run
from tests.sim.world import World


def play(folder, script, *, seconds=40.0, **how):
    """Live through a script, hold every promise against it, return the world."""

    async def main():
        world = World(3, folder, **how)
        try:
            await world.live(5)
            result = script(world)
            if result is not None:
                await result
            await world.live(seconds)
        finally:
            await world.stop()
        assert not broken_promises(world)
        return world

    return run(main())


def runs(world):
    return world.store.runs_since(Instant(0))


def entries(world, kind):
    return [e for one in world.store.incidents() for e in world.store.timeline(one.id) if e.kind is kind]


def test_a_hung_gateway_is_restarted_proven_and_closed(tmp_path):
    world = play(tmp_path, lambda w: w.hang("gateway", "gateway-1"))
    (one,) = world.store.incidents()
    assert one.state is State.RESOLVED
    assert [record.outcome for record in runs(world)] == [Outcome.MENDED]
    assert len(world.done) == 1


def test_two_hung_replicas_are_mended_one_after_the_other_in_one_incident(tmp_path):
    def both(world):
        world.hang("gateway", "gateway-1")
        world.hang("gateway", "gateway-2")

    world = play(tmp_path, both)
    assert len(world.store.incidents()) == 1
    assert [record.outcome for record in runs(world)] == [Outcome.MENDED, Outcome.MENDED]


def test_a_storm_of_two_thousand_alerts_is_one_incident_and_one_run(tmp_path):
    def storm(world):
        world.hang("gateway", "gateway-1")
        symptom = {"alertname": "ClientOrdersFailing", "service": "client", "level": "2", "team": "t"}
        world.noise = [{**symptom, "client": f"c{n}"} for n in range(1_999)]

    world = play(tmp_path, storm, seconds=12)
    (one,) = world.store.incidents()
    assert len(one.alerts) == 2_000
    assert len(runs(world)) == 1
    assert len(world.done) == 1


def test_a_cause_that_shows_late_takes_its_symptoms_over(tmp_path):
    def late(world):
        world.noise = [
            {"alertname": "SettlementDown", "service": "settlement", "level": "2", "team": "t"},
            {"alertname": "FeedDown", "service": "market-data", "level": "2", "team": "t"},
        ]
        asyncio.get_running_loop().call_later(3.0, world.hang, "engine", "engine-1")

    world = play(tmp_path, late, seconds=15)
    standing = [one for one in world.store.incidents() if not one.merged_into]
    assert len(standing) == 1
    assert standing[0].service == "engine"
    assert [record.runbook for record in runs(world)] == ["engine-down"]


async def _relapse(world):
    world.hang("gateway", "gateway-1")
    await world.until(lambda: any(one.state is State.MITIGATED for one in world.store.incidents()))
    await world.live(2)
    world.hang("gateway", "gateway-1")


def test_a_relapse_waits_for_the_cool_down_is_told_once_and_gets_a_second_run(tmp_path):
    world = play(tmp_path, _relapse, seconds=60)
    first, second = runs(world)
    assert second.started_at - first.ended_at >= 20 * 10**9
    declined = entries(world, EntryKind.RUN_DECLINED)
    assert [entry.data["reason"] for entry in declined] == ["cool_down"]
    assert all(one.state is State.RESOLVED for one in world.store.incidents())


def test_a_remedy_that_does_not_help_is_undone_handed_over_once_and_not_repeated(tmp_path):
    def slow(world):
        world.latency = 0.9

    world = play(tmp_path, slow, seconds=90)
    assert [record.outcome for record in runs(world)] == [Outcome.UNDONE]
    assert len(entries(world, EntryKind.HANDED_OVER)) == 1
    assert len(world.done) == 2
    assert world.alerts.posted, "a person is paged"


ANOMALY = {
    "alertname": "SeriesAnomalous", "service": "gateway", "severity": "info", "level": "3", "team": "t",
    "series": "gateway-latency", "replica": "gateway-1",
}  # fmt: skip


@pytest.mark.parametrize("marked", [False, True])
def test_a_detector_alone_starts_only_a_runbook_that_is_marked_and_the_refusal_is_told(tmp_path, marked):
    answer = msgspec.structs.replace(GATEWAY, answers=("SeriesAnomalous",), anomaly_may_start=marked)

    def unusual(world):
        world.hang("gateway", "gateway-1")
        world.noise = [ANOMALY]

    world = play(tmp_path, unusual, library={"SeriesAnomalous": answer}, seconds=20)
    (incident,) = [one for one in world.store.incidents() if one.key == "SeriesAnomalous/gateway"]
    assert incident.level == 3
    declined = [entry.data["reason"] for entry in entries(world, EntryKind.RUN_DECLINED)]
    if marked:
        assert declined == []
        assert [record.runbook for record in runs(world)] == [answer.name]
    else:
        assert declined == ["anomaly_alone"]
        assert runs(world) == []
        assert not world.done
        assert incident.needs_person


def test_under_the_kill_switch_nothing_is_done_and_a_person_is_asked_once(tmp_path):
    def forbidden(world):
        world.throw()
        world.hang("gateway", "gateway-1")

    world = play(tmp_path, forbidden, seconds=60)
    assert not world.done
    assert not runs(world)
    assert len(entries(world, EntryKind.HANDED_OVER)) == 1
    assert [entry.data["reason"] for entry in entries(world, EntryKind.RUN_DECLINED)] == ["kill_switch"]


@pytest.mark.parametrize("restarted", [False, True])
def test_silence_of_the_monitoring_opens_and_closes_even_across_a_restart(tmp_path, restarted):
    async def silence(world):
        world.mute = True
        await world.live(40)
        assert any(a.name == "MonitoringSilent" for one in world.store.incidents(UNRESOLVED) for a in one.firing)
        if restarted:
            world.kill()
            await world.live(5)
        world.mute = False

    world = play(tmp_path, silence, seconds=30)
    (one,) = world.store.incidents()
    assert not one.firing
    assert len(one.alerts) == 1


def test_the_silence_is_told_although_the_store_fails_at_that_moment(tmp_path):
    async def silence(world):
        world.mute = True
        await world.live(10)
        world.store_down = True
        await world.live(30)
        world.store_down = False

    world = play(tmp_path, silence, seconds=10)
    assert any(alert.name == "MonitoringSilent" for one in world.store.incidents() for alert in one.firing)


def test_a_run_cut_short_by_the_store_goes_on_without_a_restart(tmp_path):
    async def failing(world):
        world.hang("gateway", "gateway-1")
        await world.until(lambda: bool(runs(world)))
        world.store_down = True
        await world.live(5)
        assert world.store.open_runs()
        world.store_down = False

    world = play(tmp_path, failing)
    assert world.lives == 1
    assert [record.outcome for record in runs(world)] == [Outcome.MENDED]
    assert len(world.done) == 1


def test_a_fault_in_one_run_ends_that_run_and_wakes_a_person(tmp_path, monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("a fault")

    monkeypatch.setattr("control.driver.Driver.drive", broken)
    world = play(tmp_path, lambda w: w.hang("gateway", "gateway-1"), seconds=30)
    (one,) = world.store.incidents()
    assert one.needs_person
    assert [record.outcome for record in runs(world)] == [Outcome.FAILED]


def test_a_run_of_a_runbook_that_is_gone_is_handed_over(tmp_path):
    async def upgrade(world):
        world.hang("gateway", "gateway-1")
        await world.until(lambda: bool(runs(world)))
        world.kill()
        world.library = {name: book for name, book in world.library.items() if name != "GatewayDown"}
        await world.live(1)

    world = play(tmp_path, upgrade, seconds=10)
    assert runs(world)[0].outcome == Outcome.FAILED
    assert "is gone from the library" in runs(world)[0].detail
    assert world.store.incidents()[0].needs_person


def test_a_signal_our_program_cannot_decide_on_holds_up_none_and_is_handed_over(tmp_path, monkeypatch):
    real = loop_room.tell_signals

    def fragile(signals, *arguments, **named):
        assert not any(signal.name == "Poison" for signal in signals), "a fault of the program"
        return real(signals, *arguments, **named)

    monkeypatch.setattr(loop_room, "tell_signals", fragile)

    def script(world):
        world.noise = [{"alertname": "Poison", "service": "client", "level": "2", "team": "t"}]
        world.hang("gateway", "gateway-1")

    world = play(tmp_path, script, seconds=60)
    assert Outcome.MENDED in [record.outcome for record in runs(world)]
    assert any("SignalUndecidable" in alert.name for one in world.store.incidents() for alert in one.alerts.values())
    assert world.store.backlog() == 0


@pytest.mark.parametrize(
    ("by_level", "floor", "outcome"),
    [
        ({}, {}, Outcome.MENDED),
        ({2: Consent.ONE_APPROVER}, {}, Outcome.REFUSED),
        ({1: Consent.ONE_APPROVER}, {}, Outcome.MENDED),
        ({}, {"*": Consent.ONE_APPROVER}, Outcome.REFUSED),
        ({}, {"gateway-down": Consent.FOUR_EYES}, Outcome.REFUSED),
        ({}, {"engine-down": Consent.FOUR_EYES}, Outcome.MENDED),
    ],
)
def test_the_incidents_level_and_the_floor_say_who_must_agree(tmp_path, by_level, floor, outcome):
    library = {"GatewayDown": msgspec.structs.replace(GATEWAY, consent_by_level=by_level)}
    tuning = ControlTuning(handover_s=8.0, consent_s=10.0, consent_floor=floor)
    world = play(tmp_path, lambda w: w.hang("gateway", "gateway-1"), library=library, tuning=tuning, seconds=30)
    assert runs(world)[0].outcome == outcome
    assert bool(world.done) is (outcome is Outcome.MENDED)
    if outcome is Outcome.REFUSED:
        assert runs(world)[0].reason == "no_consent"
