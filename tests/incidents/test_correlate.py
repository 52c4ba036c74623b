"""Which alerts are one incident, told as timelines."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from incidents.correlate import Ignored, IgnoreReason, Told, opens_with, tell
from incidents.flap import DEFAULT, clears_at, is_flapping
from incidents.incident import Incident, Signal, State, apply, transition
from incidents.signals import AlertSignal, Status, own_signal
from kernel.time import MINUTE, SECOND, Instant

T0 = Instant(1_772_443_800 * SECOND)
SERVICES = {
    "EngineDown": ("engine", "1"), "GatewayDown": ("gateway", "2"), "GatewayShedding": ("gateway", "2"),
    "SettlementLagging": ("settlement", "2"), "SymbolFeedStale": ("market-data", "3"),
    "FeedStalled": ("market-data", "2"),
    "SequenceGap": ("market-data", "1"), "GatewayOvercapacity": ("gateway", "3"), "Watchdog": ("monitoring", "3"),
}  # fmt: skip
INFO = {"GatewayOvercapacity", "Watchdog", "SeriesAnomalous"}


def at(seconds: float) -> Instant:
    return Instant(T0 + int(seconds * SECOND))


def alert(name: str, when: float, *, ended: float | None = None, **labels: str) -> AlertSignal:
    service, level = SERVICES.get(name, ("", "3"))
    severity = "info" if name in INFO else "critical"
    full = {"alertname": name, "service": service, "level": level, "team": "t", "severity": severity, **labels}
    return own_signal(
        full, {"summary": name}, status=Status.FIRING if ended is None else Status.RESOLVED, starts_at=at(when),
        ends_at=None if ended is None else at(ended), received_at=at(when),
    )  # fmt: skip


class Story:
    """Incidents as they grow, one signal after another."""

    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}

    def hears(self, *signals: AlertSignal, now: float, ended: Mapping[str, Instant] | None = None) -> Told:
        ids = iter(f"I-{n}" for n in range(len(self.incidents) + 1, 10**6))
        told = tell(
            signals, self.incidents.values(), lambda: next(ids), now=at(now), opens=opens_with(INFO - {"Watchdog"}),
            ended=ended,
        )  # fmt: skip
        self.incidents |= told.incidents
        return told

    def moves(self, incident: str, signal: Signal, now: float) -> None:
        one = self.incidents[incident]
        self.incidents[incident] = apply(one, transition(one, signal, at=at(now), source="control", why="test"))

    @property
    def going(self) -> list[Incident]:
        return [one for one in self.incidents.values() if one.unresolved]


def test_symptoms_seen_before_their_cause_end_as_one_incident_of_the_cause() -> None:
    story = Story()
    stale = [alert("SymbolFeedStale", n / 100, symbol=f"S{n}") for n in range(300)]
    story.hears(*stale, alert("GatewayShedding", 3), alert("SettlementLagging", 4), now=5)
    assert len(story.going) == 3
    story.hears(alert("EngineDown", 6), now=6)
    (only,) = story.going
    assert only.cause_alert is not None
    assert (only.cause_alert.name, only.service, only.level, len(only.firing)) == ("EngineDown", "engine", 1, 303)
    assert {one.merged_into for one in story.incidents.values() if not one.unresolved} == {only.id}
    story.hears(alert("GatewayDown", 8, replica="gateway-1"), now=8)
    assert [one.id for one in story.going] == [only.id], "what stands on the engine is a symptom"


def test_siblings_stay_two_incidents() -> None:
    story = Story()
    story.hears(alert("SettlementLagging", 0), alert("GatewayDown", 1, replica="gateway-1"), now=1)
    assert [one.service for one in story.going] == ["settlement", "gateway"]


def test_an_old_incident_below_is_not_explained_by_a_new_cause() -> None:
    story = Story()
    story.hears(alert("SettlementLagging", 0), now=0)
    story.hears(alert("EngineDown", 600), now=600)
    assert [one.service for one in story.going] == ["settlement", "engine"]


def test_each_symbol_with_a_gap_is_an_incident_of_its_own() -> None:
    story = Story()
    story.hears(alert("FeedStalled", 0), now=0)
    story.hears(alert("SequenceGap", 1, symbol="A"), alert("SequenceGap", 1, symbol="B"), alert("EngineDown", 2), now=2)
    assert sorted(one.key for one in story.going) == ["SequenceGap/A", "SequenceGap/B", "market-data"]


def test_information_opens_only_with_a_runbook() -> None:
    story = Story()
    told = story.hears(alert("Watchdog", 0), alert("GatewayOvercapacity", 0), now=0)
    assert told.decisions[0] == Ignored(IgnoreReason.INFORMATION)
    assert [(one.key, one.level) for one in story.going] == [("GatewayOvercapacity/gateway", 3)]


def test_a_resolved_notice_only_closes() -> None:
    story = Story()
    story.hears(alert("GatewayDown", 0, ended=5), now=6)
    assert story.incidents == {}
    story.hears(alert("GatewayDown", 10), alert("GatewayDown", 10), alert("GatewayDown", 10, ended=20), now=21)
    (one,) = story.going
    assert one.firing == ()
    assert clears_at(one) == at(21) + DEFAULT.quiet_ns


def test_an_alert_overtaken_by_its_own_end_opens_nothing() -> None:
    story = Story()
    told = story.hears(alert("GatewayDown", 0, ended=5), alert("GatewayDown", 0), now=6)
    assert told.decisions[1] == Ignored(IgnoreReason.ALREADY_ENDED)
    late = alert("GatewayDown", 0)
    assert story.hears(late, now=7, ended={late.fingerprint: at(5)}).decisions == told.decisions[1:]
    assert story.incidents == {}


def test_a_second_episode_overtaken_by_its_own_end_does_not_fire_for_ever() -> None:
    story = Story()
    story.hears(alert("GatewayDown", 0), alert("GatewayDown", 0, ended=5), now=6)
    told = story.hears(alert("GatewayDown", 10, ended=15), alert("GatewayDown", 10), now=16)
    assert told.decisions[1] == Ignored(IgnoreReason.ALREADY_ENDED)
    (one,) = story.going
    assert one.firing == ()


@pytest.mark.parametrize(("after", "count"), [(9 * MINUTE, 1), (11 * MINUTE, 2)])
def test_an_alert_that_comes_back_soon_reopens(after: int, count: int) -> None:
    story = Story()
    story.hears(alert("GatewayDown", 0), alert("GatewayDown", 0, ended=5), now=5)
    story.moves("I-1", Signal.CLEARED, 20)
    again = 20 + after / SECOND
    story.hears(alert("GatewayDown", again), now=again)
    assert len(story.incidents) == count
    assert story.going[0].state is State.OPEN


def test_an_alert_after_the_proof_is_a_relapse() -> None:
    story = Story()
    story.hears(alert("GatewayDown", 0), alert("GatewayDown", 0, ended=5), now=5)
    story.moves("I-1", Signal.VERIFIED, 6)
    story.hears(alert("GatewayDown", 8), now=8)
    assert (story.going[0].state, story.going[0].mitigated_at) == (State.OPEN, None)


def test_a_flapping_alert_must_be_quiet_for_longer() -> None:
    story = Story()
    for n in range(2):
        story.hears(alert("GatewayDown", n * 10), now=n * 10)
        story.hears(alert("GatewayDown", n * 10, ended=n * 10 + 5), now=n * 10 + 5)
    (one,) = story.going
    assert is_flapping(one.alerts[one.cause])
    assert clears_at(one) == at(15) + DEFAULT.flap_quiet_ns


def test_a_storm_of_ten_thousand_is_one_incident() -> None:
    story = Story()
    story.hears(alert("EngineDown", 0), now=0)
    storm = [alert("GatewayShedding", n / 1000, shard=str(n)) for n in range(10_000)]
    began = time.perf_counter()
    for start in range(0, len(storm), 500):
        story.hears(*storm[start : start + 500], now=10)
    print(f"10,000 signals in {time.perf_counter() - began:.2f} s")  # noqa: T201 - shown with -s
    (one,) = story.going
    assert len(one.alerts) == 10_001


# --- what only detectors find ---------------------------------------------------------------------------------------


def departs(service: str, when: float, series: str = "memory", *, ended: float | None = None) -> AlertSignal:
    return alert("SeriesAnomalous", when, ended=ended, service=service, series=series)


BUSY = ("engine", "gateway", "settlement", "market-data", "watchdog", "control", "load")


@pytest.mark.parametrize("at_once", [True, False])
def test_departures_of_many_services_within_a_minute_are_one_incident(*, at_once: bool) -> None:
    story = Story()
    signals = [departs(service, n * 8) for n, service in enumerate(BUSY)]
    if at_once:
        story.hears(*signals, now=60)
    else:
        for n, signal in enumerate(signals):
            story.hears(signal, now=n * 8 + 5)
    (one,) = story.going
    assert {alert.labels["service"] for alert in one.alerts.values()} == set(BUSY)
    assert (one.level, len(one.firing)) == (3, len(BUSY))
    (merged,) = (each for each in story.incidents.values() if each.merged_into)
    assert merged.merged_into == one.id, "two may be two troubles: the third shows that they are one"
    for n, service in enumerate(BUSY):
        story.hears(departs(service, n * 8, ended=90), now=90)
    assert one.id == story.going[0].id
    assert story.going[0].firing == ()


@pytest.mark.parametrize(
    ("whens", "incidents"),
    [
        pytest.param((0, 10), 2, id="two services may be two troubles"),
        pytest.param((0, 10, 200), 3, id="the third began later"),
        pytest.param((0, 100, 200), 3, id="one after the other"),
        pytest.param((0, 50, 100), 3, id="never three within a minute of the last"),
        pytest.param((0, 10, 20, 200), 2, id="what departs long after is a matter of its own"),
    ],
)
def test_departures_that_did_not_begin_together_stay_apart(whens: tuple[float, ...], incidents: int) -> None:
    story = Story()
    for service, when in zip(BUSY, whens, strict=False):
        story.hears(departs(service, when), now=when + 5)
    assert len(story.going) == incidents


def test_a_real_fault_is_not_swallowed_by_departures_and_holds_none_of_them() -> None:
    story = Story()
    story.hears(*(departs(service, n) for n, service in enumerate(BUSY)), now=10)
    story.hears(alert("GatewayDown", 12, replica="gateway-1"), alert("SequenceGap", 13, symbol="A"), now=14)
    keys = sorted(one.key for one in story.going)
    assert keys == ["SequenceGap/A", "SeriesAnomalous/engine", "gateway"]
    assert [len(one.alerts) for one in story.going if one.key == "gateway"] == [1]
    story.hears(alert("EngineDown", 15), now=16)
    causes = {one.key: one.cause_alert.name for one in story.going if one.cause_alert is not None}
    assert causes == {
        "SequenceGap/A": "SequenceGap",
        "SeriesAnomalous/engine": "SeriesAnomalous",
        "gateway": "EngineDown",
    }


def test_another_series_of_a_service_joins_wherever_its_departures_are() -> None:
    story = Story()
    story.hears(*(departs(service, n) for n, service in enumerate(BUSY)), now=10)
    story.hears(departs("load", 500, series="rate"), departs("load", 900, series="lag"), now=900)
    (one,) = story.going
    assert len(one.alerts) == len(BUSY) + 2
    story.hears(
        *(departs("load", when, name, ended=950) for when, name in ((6, "memory"), (500, "rate"), (900, "lag"))),
        now=950,
    )
    story.hears(departs("load", 1_000, series="files"), now=1_000)
    assert [one.key for one in story.going] == ["SeriesAnomalous/engine", "SeriesAnomalous/load"], "a matter of its own"


def test_departures_are_told_in_the_timeline_as_what_they_are() -> None:
    story = Story()
    told = story.hears(*(departs(service, n) for n, service in enumerate(BUSY[:3])), now=10)
    (moved,) = (draft for draft in told.drafts["I-2"] if draft.data.get("into"))
    assert moved.text.endswith("departures of 3 services began together: engine, gateway, settlement")
