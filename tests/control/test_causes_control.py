"""What moved first, gathered for an incident: from the series of its time, beside the loop, and never in its way."""

import asyncio
import itertools
import random

import msgspec
import pytest

from control import causes
from control.causes import Investigator, changes_of, tracks_of, window_of
from control.intake import StoreThread
from exchange.recording import RecordingLog
from incidents.adapters.memory_store import MemoryStore
from incidents.ranked import ranked_of
from incidents.timeline import Draft, EntryKind
from kernel.errors import TemporaryError
from kernel.time import MINUTE, SECOND, Instant
from monitor.adapters.watched_files import HOUSE, load_watched
from monitor.ports import Curve
from monitor.watched import BUILDS, PROCESSES

KEY = b"a key of the test"
ALERT = Instant(1_772_443_800 * SECOND)
NOW = Instant(ALERT + 10 * SECOND)
WATCHED = load_watched(HOUSE)


class Still:
    def now(self):
        return NOW


class Prometheus:
    """Answers the question for the watched series with made curves."""

    def __init__(self, curves=(), alive=(), error=None, takes_s=0.0):
        self.curves, self.alive, self.error, self.takes_s = curves, alive, error, takes_s
        self.asked = []

    async def read(self, query, *, fresh, max_age):
        raise AssertionError("a ranking reads curves")

    async def curve(self, query, start, end, step):
        self.asked.append((query, start, end, step))
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        if query.startswith("max by (job, replica) (up)"):
            return self.alive
        return [one for one in self.curves if f'"{one.labels["series"]}"' in query]


def curve(series, level, *, item="", job="", moved_to=None, since_s=-20, n=120, **labels):
    chance = random.Random(f"{series} {item} {job}")
    points = []
    for i in range(n):
        at_s = i - n + 10
        value = moved_to if moved_to is not None and at_s >= since_s else level
        points.append((Instant(ALERT + at_s * SECOND), value * chance.uniform(0.95, 1.05)))
    return Curve({"series": series, "item": item, "job": job, **labels}, points)


SLOW_DISK = (
    curve("engine-commit-time", 0.002, moved_to=0.2),
    curve("engine-order-rate", 300.0),
    curve("gateway-latency", 0.005, item="gateway-1", moved_to=0.21, since_s=-14),
    curve("gateway-latency", 0.005, item="gateway-2", moved_to=0.21, since_s=-14),
    curve("settlement-rate", 40.0),
    curve("process-memory", 4e7, job="gateway", item="gateway-1"),
    curve("not-in-the-list", 1.0, moved_to=99.0),
)
ALIVE = tuple(Curve({"job": "gateway", "replica": f"gateway-{i}"}, curve("up", 1).points) for i in (1, 2))


class Bench:
    def __init__(self, folder, metrics, **more):
        self.store, self.metrics, self.log = MemoryStore(KEY), metrics, RecordingLog()
        data = {"incident": "INC-1", "title": "t", "level": 3, "service": "gateway", "team": "t", "key": "gateway"}
        labels = {"alertname": "SeriesAnomalous", "service": "gateway", "level": "3"}
        alert = {"fingerprint": "f", "alertname": "SeriesAnomalous", "labels": labels, "annotations": {}}
        self.put(EntryKind.OPENED, data)
        self.put(EntryKind.ALERT_FIRING, {**alert, "starts_at": ALERT})
        self.faults = folder / "faults"
        self.thread = StoreThread(self.store)
        self.investigator = Investigator(
            self.thread, metrics, WATCHED, scrape_s=1, faults=self.faults, clock=Still(), log=self.log, **more
        )

    def put(self, kind, data):
        self.store.append("INC-1", [Draft(ALERT, kind, "control", "t", data)])

    @property
    def incident(self):
        found = self.store.incident("INC-1")
        assert found is not None
        return found

    @property
    def ranked(self):
        return [ranked_of(one) for one in self.store.timeline("INC-1") if one.kind is EntryKind.CAUSES_RANKED]


async def test_a_detector_opened_incident_gets_its_ranking_as_a_chained_entry(tmp_path):
    bench = Bench(tmp_path, Prometheus(SLOW_DISK, ALIVE), settle_s=0.0, second_look_s=0.0)
    bench.investigator.begin("INC-1")
    bench.investigator.begin("INC-1")  # told twice is ranked once
    await asyncio.gather(*bench.investigator._waiting.values())
    (ranked,) = bench.ranked  # the second look says the same, and is not written
    assert ranked.stands_out
    assert ranked.leader == "engine"
    assert ranked.hypotheses[0].metric == "engine-commit-time"
    assert [one.service for one in ranked.hypotheses[:2]] == ["engine", "gateway"]
    assert bench.store.verify("INC-1") is None
    assert bench.incident.likely_cause == ranked.sentence
    questions = [query for query, *_ in bench.metrics.asked]
    looks = 2
    assert all(sum(f'"{one.id}"' in query for query in questions) == looks for one in WATCHED), "each series once"
    assert len(questions) == looks * (len(causes.grouped(WATCHED)) + 2)
    await bench.investigator.stop()
    await bench.thread.close()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (Prometheus(error=TemporaryError("Prometheus at http://p does not answer")), "does not answer"),
        (Prometheus(takes_s=60.0), "took longer than"),
        (Prometheus(error=ZeroDivisionError("x")), "a fault of the program"),
    ],
)
async def test_a_ranking_that_fails_is_a_line_that_says_so(tmp_path, monkeypatch, metrics, said):
    monkeypatch.setattr(causes, "PATIENCE_S", 0.05)
    bench = Bench(tmp_path, metrics, settle_s=0.0)
    ranked = await bench.investigator.again(bench.incident)
    assert said in ranked.trouble
    assert said in bench.ranked[-1].trouble
    assert said in bench.store.timeline("INC-1")[-1].text
    assert bench.log.names() == ["causes-unknown"]
    await bench.thread.close()


async def test_the_end_adds_a_ranking_only_when_it_says_something_new(tmp_path):
    bench = Bench(tmp_path, Prometheus(SLOW_DISK, ALIVE))
    (first,) = await bench.investigator.at_end(bench.incident, bench.store.timeline("INC-1"))
    bench.store.append("INC-1", [first])
    assert await bench.investigator.at_end(bench.incident, bench.store.timeline("INC-1")) == []
    bench.metrics.curves = (curve("settlement-rate", 40.0, moved_to=2.0), *SLOW_DISK[1:2])
    (second,) = await bench.investigator.at_end(bench.incident, bench.store.timeline("INC-1"))
    assert ranked_of(second).leader != "engine"
    bench.metrics.error = TemporaryError("gone")
    assert await bench.investigator.at_end(bench.incident, bench.store.timeline("INC-1")) == []
    await bench.thread.close()


async def test_a_fault_injected_on_purpose_is_told_and_a_restart_after_the_alert_is_not(tmp_path):
    starts = [(Instant(ALERT + s * SECOND), float(1_772_443_000 if s < 5 else 1_772_443_805)) for s in range(-60, 10)]
    restart = Curve({"series": PROCESSES, "job": "engine", "item": "engine-1"}, starts)
    bench = Bench(tmp_path, Prometheus((*SLOW_DISK, restart), ALIVE))
    line = {"name": "engine-slow-sync", "target": "engine-1", "value": "0.2", "at": ALERT - 21 * SECOND}
    bench.faults.write_bytes(msgspec.json.encode(line) + b"\n")
    ranked = await bench.investigator.look(bench.incident)
    said = " ".join(ranked.hypotheses[0].speaks_for)
    assert "engine-slow-sync of engine-1" in said
    assert "restarted" not in said
    await bench.thread.close()


def test_restarts_and_deploys_before_the_alert_are_changes():
    window = window_of_alert()
    starts = [(Instant(ALERT + s * SECOND), 1_772_443_000.0 if s < -30 else 1_772_443_765.0) for s in range(-60, 10)]
    later = [(Instant(ALERT + s * SECOND), 1.0) for s in range(-34, 10)]
    found = changes_of(
        [
            Curve({"series": PROCESSES, "job": "engine", "item": "engine-1"}, starts),
            Curve({"series": BUILDS, "job": "engine", "item": "engine-1", "version": "1"}, curve("x", 1).points),
            Curve({"series": BUILDS, "job": "engine", "item": "engine-1", "version": "2"}, later),
        ],
        window,
    )
    assert [(one.service, str(one.kind), one.words) for one in found] == [
        ("engine", "restart", "engine-1 was started anew"),
        ("engine", "deploy", "engine-1 runs version 2"),
    ]


def window_of_alert():
    store = MemoryStore(KEY)
    data = {"incident": "INC-1", "title": "t", "level": 2, "service": "engine", "team": "t", "key": "engine"}
    store.append("INC-1", [Draft(ALERT, EntryKind.OPENED, "control", "t", data)])
    incident = store.incident("INC-1")
    assert incident is not None
    return window_of(incident, NOW)


def test_the_window_ends_with_the_remedy_or_a_while_after_the_alert():
    window = window_of_alert()
    assert (window.start, window.alert, window.end) == (ALERT - 20 * MINUTE, ALERT, NOW)


def test_series_are_named_by_the_list_and_foreign_ones_are_left_out():
    names = {(one.service, one.metric) for one in tracks_of(SLOW_DISK, WATCHED)}
    assert ("gateway", "gateway-latency of gateway-1") in names
    assert ("gateway", "process-memory of gateway-1") in names
    assert ("engine", "engine-commit-time") in names
    assert len(names) == 6


def test_what_matters_to_nobody_by_the_list_is_said_with_the_series():
    tracks = {one.metric: one for one in tracks_of(SLOW_DISK, WATCHED)}
    assert tracks["engine-commit-time"].least == 0.005
    assert tracks["process-memory of gateway-1"].least_share == 0.1
    assert tracks["engine-commit-time"].follows == ""


async def test_half_a_minute_later_it_is_looked_again_and_written_only_when_it_says_something_else(tmp_path):
    bench = Bench(tmp_path, Prometheus(SLOW_DISK[1:2], ALIVE), settle_s=0.0, second_look_s=0.5)
    bench.investigator.begin("INC-1")
    async with asyncio.timeout(60):
        while not bench.ranked:  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.005)
    bench.metrics.curves = SLOW_DISK
    await asyncio.gather(*bench.investigator._waiting.values())
    assert [ranked.leader for ranked in bench.ranked] == ["", "engine"]
    bench.investigator.begin("INC-1")
    await asyncio.gather(*bench.investigator._waiting.values())
    assert [ranked.leader for ranked in bench.ranked] == ["", "engine", "engine"], "the second look said the same"
    await bench.investigator.stop()
    await bench.thread.close()


def test_no_question_holds_more_series_than_one_may_unless_a_single_entry_does():
    groups = causes.grouped(WATCHED)
    assert [one for group in groups for one in group] == list(WATCHED)
    assert all(len(group) == 1 or sum(one.most for one in group) <= causes.AT_ONCE for group in groups)
    assert all(sum(one.most for one in [*a, b[0]]) > causes.AT_ONCE for a, b in itertools.pairwise(groups))
