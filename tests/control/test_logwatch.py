"""Log-watch: alerts are posted while they stand, ended when they do not, and a store that is down changes nothing."""

import json

import pytest

from control.logwatch import AGAIN, STANDS, LogWatch, WatchParts
from kernel.errors import TemporaryError
from kernel.time import SECOND, Duration, Instant, from_rfc3339, to_rfc3339
from monitor.adapters.exporter import Exporter
from monitor.adapters.fake_alerts import FakeAlerts
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.adapters.lucene import parse
from monitor.catalog import Role
from monitor.logrules.model import Kind, Rule

T0 = from_rfc3339("2026-03-02T09:30:00Z")
LABELS = {"severity": "warning", "level": "2", "team": "observability", "service": "engine"}
RULE = Rule(
    name="Trial", kind=Kind.ANY, query=parse("log.level:error"), by=("user.id",), lateness=Duration(0),
    hold=Duration(60 * SECOND), labels=LABELS, annotations={"summary": "s"},
)  # fmt: skip


class Clock:
    def __init__(self):
        self.at = T0

    def now(self):
        return Instant(self.at)


class Log:
    def __init__(self):
        self.events = []

    def event(self, name, /, *, severity="info", **fields):
        self.events.append(name)


class Plant:
    def __init__(self, directory):
        self.directory, self.clock, self.log = directory, Clock(), Log()
        self.logs = directory / "logs"
        self.logs.mkdir(exist_ok=True)
        self.alerts, self.exporter = FakeAlerts(self.clock), Exporter(Role.LOG_WATCH)
        self.store = DuckdbLogStore(self.logs)
        self.watch = self.anew()

    def anew(self):
        memory = self.directory / "rules.json"
        return LogWatch(WatchParts((RULE,), self.store, self.alerts, self.exporter, self.log, self.clock, memory))

    def write(self, **fields):
        line = {"@timestamp": to_rfc3339(self.clock.at), "log.level": "error", "user.id": "u1", **fields}
        with (self.logs / "engine-1.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def turn(self, seconds=5):
        self.clock.at += seconds * SECOND
        await self.watch.turn()


@pytest.fixture
def plant(tmp_path):
    made = Plant(tmp_path)
    yield made
    made.store.close()


async def test_an_alert_is_posted_told_again_while_it_stands_and_ended_when_it_does_not(plant):
    await plant.turn(0)
    plant.write()
    await plant.turn()
    (first,) = plant.alerts.posted
    assert first.labels["user_id"] == "u1"
    assert first.ends_at == plant.clock.at + STANDS
    await plant.turn()
    assert len(plant.alerts.posted) == 1  # nothing new to say
    await plant.turn(AGAIN // SECOND)
    assert [one.labels for one in plant.alerts.posted] == [first.labels] * 2
    await plant.turn(60)
    last = plant.alerts.posted[-1]
    assert (last.labels, last.starts_at, last.ends_at) == (first.labels, first.starts_at, plant.clock.at)
    count = len(plant.alerts.posted)
    await plant.turn()
    assert len(plant.alerts.posted) == count


async def test_what_alertmanager_did_not_take_is_told_at_the_next_turn(plant):
    await plant.turn(0)
    plant.write()
    plant.alerts.fail(down=True)
    await plant.turn()
    assert plant.watch.why
    plant.alerts.fail(down=False)
    await plant.turn()
    assert len(plant.alerts.posted) == 1


async def test_a_store_that_is_down_is_told_once_and_ends_no_alert(plant, monkeypatch):
    await plant.turn(0)
    plant.write()
    await plant.turn()

    def down(*_):
        raise TemporaryError("the disk is gone")

    monkeypatch.setattr(plant.store, "refresh", down)
    for _ in range(5):
        await plant.turn(60)
    assert plant.watch.why == "the disk is gone"
    assert plant.log.events.count("log-rule-unknown") == 1
    assert plant.alerts.posted[-1].ends_at == plant.clock.at + STANDS


async def test_a_restart_goes_on_where_it_was(plant):
    await plant.turn(0)
    await plant.turn()
    plant.watch.save()
    plant.clock.at += 30 * SECOND
    plant.write()
    plant.watch = plant.anew()
    await plant.turn(60)
    assert len(plant.alerts.posted) == 1


async def test_a_memory_that_cannot_be_read_is_begun_anew_and_said(plant):
    (plant.directory / "rules.json").write_bytes(b"\xff{")
    plant.watch = plant.anew()
    assert plant.log.events[-1] == "log-rules-forgotten"
    await plant.turn(0)
    plant.watch.save()
    assert json.loads((plant.directory / "rules.json").read_bytes())["version"] == 1
