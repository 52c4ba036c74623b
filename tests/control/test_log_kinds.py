"""Kinds of log lines: out of a store, out of files of every shape, in the role, and as a person asks for them."""

import csv
import gzip
import json
import random

import pytest
from typer.testing import CliRunner

from anomaly.log_rates import LogWatcher
from anomaly.templates import Limits
from cli import app
from control import verbs_anomaly_logs
from control.child import now
from control.log_kinds import Reading, bucket_for, feed, file_lines, records, time_of, words_of
from control.log_kinds_watch import CATCH_UP, KindParts, KindWatch
from exchange.recording import RecordingLog
from kernel.errors import TemporaryError
from kernel.time import MINUTE, SECOND, Duration, Instant, from_rfc3339, to_rfc3339
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.catalog import Role
from monitor.log_store import Span
from tests.anomaly.test_log_rates import Plain

RUN = CliRunner()
T0 = from_rfc3339("2026-03-02T09:30:00Z")
LIMITS = Limits(warm_lines=100)


def record(at, action="order-accepted", message="order 7 accepted", **fields):
    return {
        "@timestamp": to_rfc3339(at), "log.level": "info", "service.name": "gateway", "event.action": action,
        "message": message, **fields,
    }  # fmt: skip


def made(kept=None):
    return LogWatcher.restore(kept, Plain, Plain.restore) if kept else LogWatcher(Plain, limits=LIMITS, rated=5)


# --- records and files ----------------------------------------------------------------------------------------------


def test_a_record_is_told_by_who_what_how_bad_and_its_words_each_once():
    told = words_of(record(T0, "order-slow", "order slow", **{"exchange.message": "took 312 ms"}))
    assert told == "gateway order-slow info took 312 ms"


def test_every_record_of_a_range_is_read_once_and_in_order_however_many(monkeypatch):
    monkeypatch.setattr("control.log_kinds.MAX_RECORDS", 50)
    store = DuckdbLogStore(None)
    store.add([record(T0 + i * SECOND // 100, message=f"order {i} accepted") for i in range(777)])
    found = [one["message"] for one in records(store, Span(T0, Instant(T0 + 60 * SECOND)))]
    assert found == [f"order {i} accepted" for i in range(777)]
    store.close()


def test_what_is_said_about_kinds_is_no_line_of_the_log():
    store, watcher = DuckdbLogStore(None), made()
    store.add([record(T0), record(T0, "log-kind-new", "a kind"), record(T0, "log-rate-anomalous", "a rate")])
    feed(watcher, store, Span(T0, Instant(T0 + SECOND)))
    assert watcher.templates.lines == 1
    store.close()


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("2026-03-02T09:30:00Z up", "2026-03-02T09:30:00Z"),
        ("INFO [2026-03-02 09:30:00,125] up", "2026-03-02T09:30:00.125Z"),
        ('1.2.3.4 - - [02/Mar/2026:10:30:00 +0100] "GET / HTTP/1.1" 200 5', "2026-03-02T09:30:00Z"),
        ("Mar  2 09:30:00 host sshd[17]: up", "2026-03-02T09:30:00Z"),
        ("1772443800 up", "2026-03-02T09:30:00Z"),
        ("1772443800125 up", "2026-03-02T09:30:00.125Z"),
        ('{"@timestamp":"2026-03-02T09:30:00Z","message":"up"}', "2026-03-02T09:30:00Z"),
        ('{"ts":1772443800.125,"msg":"up"}', "2026-03-02T09:30:00.125Z"),
        ("up since yesterday", None),
        ("Foo  2 09:30:00 x", None),
        ("99/Mar/2026:10:30:00", None),
        ('{"ts":true}', None),
        ("{broken", None),
        ('["2026"]', None),
    ],
)
def test_the_time_of_a_line_is_read_in_every_usual_form(line, at):
    assert time_of(line, 2026) == (None if at is None else from_rfc3339(at))


def test_a_file_with_lines_without_a_time_is_read_and_what_they_are_is_counted(tmp_path):
    path = tmp_path / "x.log.gz"
    text = "a head\n2026-03-02T09:30:00Z one\n  at frame 1\n\n2026-03-02T09:29:00Z two \xff\n"
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    reading = Reading()
    found = list(file_lines(path, reading))
    assert [line for line, _ in found] == ["2026-03-02T09:30:00Z one", "  at frame 1", "2026-03-02T09:29:00Z two �"]
    assert (reading.lines, reading.without_time, reading.continued, reading.backward) == (4, 1, 1, 1)


@pytest.mark.parametrize(("length_s", "bucket_s"), [(60, 1), (3_600, 12), (86_400, 60)])
def test_a_look_back_has_enough_buckets(length_s, bucket_s):
    assert bucket_for(Span(T0, Instant(T0 + length_s * SECOND))) == bucket_s * SECOND


# --- in the role ----------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.at = T0 + 123_456  # no clock ticks in whole milliseconds

    def now(self):
        return Instant(self.at)


class Plant:
    def __init__(self, folder):
        self.clock, self.log, self.exporter = Clock(), RecordingLog(), Exporter(Role.LOG_WATCH)
        self.store, self.folder = DuckdbLogStore(None), folder
        self.chance = random.Random(1)

    async def anew(self, watcher=made):
        parts = KindParts(
            self.store, self.exporter, self.log, self.clock, self.folder / "kinds", Duration(0), watcher
        )  # fmt: skip
        watch = KindWatch(parts)
        await watch.prepare()
        return watch

    def minutes(self, watch, n, actions=("order-accepted", "trade-settled"), per=20):
        for _ in range(n):
            for action in actions:
                count = round(self.chance.gauss(per, 1))
                self.store.add([record(self.clock.at + i * SECOND, action, action) for i in range(count)])
            self.clock.at += MINUTE
            watch.turn(self.clock.now())

    def value(self, name):
        lines = self.exporter.render().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


@pytest.fixture
def plant(tmp_path):
    one = Plant(tmp_path)
    yield one
    one.store.close()


async def test_the_role_tells_lines_kinds_and_when_it_judged_last(plant):
    watch = await plant.anew()
    plant.minutes(watch, 30)
    assert plant.value("tapewatch_log_templates") == 2
    assert plant.value("tapewatch_log_templates_lines_total") == pytest.approx(1_200, abs=80)
    assert plant.value("tapewatch_log_templates_timestamp_seconds") >= (plant.clock.at - MINUTE) / SECOND
    assert plant.value("tapewatch_log_rate_alert") == 0
    assert watch.why == ""


async def test_a_never_seen_kind_is_counted_and_said_in_the_log_once(plant):
    watch = await plant.anew()
    plant.minutes(watch, 70)
    plant.store.add([record(plant.clock.at, "journal-torn", "the journal is torn")])
    plant.minutes(watch, 2)
    assert plant.value("tapewatch_log_templates_new_total") == 1
    said = [fields for name, _, fields in plant.log.events if name == "log-kind-new"]
    assert len(said) == 1
    assert "journal-torn" in said[0]["message"]


async def test_a_kind_that_comes_ten_times_as_often_raises_the_rate_alert_until_it_is_calm(plant):
    watch = await plant.anew()
    plant.minutes(watch, 60)
    plant.minutes(watch, 1, per=200)
    plant.minutes(watch, 1)
    assert "log-rate-anomalous" in plant.log.names()
    plant.minutes(watch, 5)
    assert plant.value("tapewatch_log_rate_alert") == 0


async def test_a_stop_forgets_nothing_and_what_came_meanwhile_is_read(plant):
    watch = await plant.anew()
    plant.minutes(watch, 20)
    watch.save()
    before = plant.value("tapewatch_log_templates_lines_total")
    plant.store.add([record(plant.clock.at + i * SECOND, message="order-accepted") for i in range(50)])
    plant.clock.at += 2 * MINUTE
    again = await plant.anew()
    again.turn(plant.clock.now())
    assert plant.value("tapewatch_log_templates_lines_total") == before + 50
    assert plant.value("tapewatch_log_templates_new_total") == 0


@pytest.mark.parametrize("state", [b"", b"12\nrubbish", b"\xff" * 99])
async def test_a_state_that_is_none_is_said_and_begun_anew(plant, state):
    (plant.folder / "kinds").write_bytes(state)
    watch = await plant.anew()
    plant.minutes(watch, 2)
    assert "log-kinds-forgotten" in plant.log.names()
    assert plant.value("tapewatch_log_templates") == 2


async def test_a_store_that_is_down_is_missing_and_never_zero(plant, monkeypatch):
    watch = await plant.anew()
    plant.minutes(watch, 40)
    lines = plant.value("tapewatch_log_templates_lines_total")

    def down(*_args, **_more):
        raise TemporaryError("the store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(plant.store, "search", down)
        plant.clock.at += CATCH_UP + 2 * MINUTE
        watch.turn(plant.clock.now())
    assert watch.why == "the store does not answer"
    plant.minutes(watch, 5)
    assert watch.why == ""
    assert plant.value("tapewatch_log_templates_lines_total") > lines
    assert "log-rate-anomalous" not in plant.log.names()


async def test_before_the_detectors_are_there_nothing_is_read(plant):
    watch = KindWatch(KindParts(plant.store, plant.exporter, plant.log, plant.clock, plant.folder / "kinds"))
    watch.turn(plant.clock.now())
    watch.save()
    assert not (plant.folder / "kinds").exists()


# --- the verbs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "version").write_text("1")
    base = now() - 50 * MINUTE
    with (tmp_path / "logs" / "gateway-1.jsonl").open("w") as file:
        for i in range(2_990):
            line = record(base + i * SECOND, message=f"order {i} accepted\x1b[31m")
            file.write(json.dumps(line) + "\n")
        file.write(json.dumps(record(base + 2_401 * SECOND, "journal-torn", "the journal is torn")) + "\n")
    monkeypatch.setenv("TAPEWATCH_STATE", str(tmp_path))
    monkeypatch.setattr(verbs_anomaly_logs, "_watcher", lambda bucket: LogWatcher(Plain, bucket=bucket))
    return tmp_path


def test_logs_templates_shows_kinds_with_numbers_the_unusual_first_and_nothing_a_terminal_would_obey(state):
    done = RUN.invoke(app, ["logs", "templates", "--since", "1h", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["count"] for row in rows] == [1, 2_990], rows
    assert rows[0]["alert"] is True
    assert "never seen" in rows[0]["why"]
    assert rows[1]["per_minute"] == pytest.approx(50, abs=1)
    shown = RUN.invoke(app, ["logs", "templates", "--since", "1h"])
    assert shown.exit_code == 0
    assert "\x1b[31m" not in shown.stdout


def access_log(path):
    chance = random.Random(2)
    with path.open("w") as file:
        for minute in range(90):
            for i in range(60):
                status = 500 if minute == 80 and i % 2 else 200
                clock = f"{9 + (30 + minute) // 60:02d}:{(30 + minute) % 60:02d}:{i:02d}"
                file.write(
                    f'10.0.0.{i} - - [02/Mar/2026:{clock} +0000] "GET /x/{chance.random()} HTTP/1.1" {status} {i}\n'
                )


def test_anomaly_logs_writes_a_row_a_bucket_and_says_what_it_found(state, tmp_path):
    access_log(tmp_path / "access.log")
    done = RUN.invoke(app, ["anomaly", "logs", str(tmp_path / "access.log"), str(tmp_path / "out.csv"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert (told["lines"], told["buckets"], len(rows)) == (5_400, 90, 90)
    assert [row["timestamp"] for row in rows if row["alert"] == "1"] == ["2026-03-02 10:51:00"]
    assert {row["score"] for row in rows[:20]} == {"0"}
    assert "GET:500" in told["findings"][0]["text"]


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (None, [], "cannot be read"),
        ("", [], "it holds no line"),
        ("no time\nat all\n", [], "none of its 2 lines names a time"),
        ("2026-03-02T09:30:00Z x\n", ["--bucket", "soon"], "is no duration"),
        ("2026-03-02T09:30:00Z x\n", ["--bucket", "10ms"], "1s to 24h"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_sentence_and_exit_code_2(state, tmp_path, text, more, says):
    path = tmp_path / "in.log"
    if text is not None:
        path.write_text(text)
    done = RUN.invoke(app, ["anomaly", "logs", str(path), str(tmp_path / "out.csv"), *more])
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_result_that_cannot_be_written_is_one_sentence(state, tmp_path):
    (tmp_path / "in.log").write_text("2026-03-02T09:30:00Z x\n")
    done = RUN.invoke(app, ["anomaly", "logs", str(tmp_path / "in.log"), str(tmp_path / "no" / "out.csv")])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
