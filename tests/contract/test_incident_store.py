"""What every incident store promises, held against the one in memory and the one in SQLite."""

from __future__ import annotations

import os
import signal as posix
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from incidents.adapters.memory_store import MemoryStore
from incidents.adapters.sql_store import SqlStore
from incidents.adapters.store_tables import STORE
from incidents.incident import IllegalTransitionError, Signal, State, transition
from incidents.ports import IncidentStore, RunRecord
from incidents.signals import AlertSignal, Status, own_signal
from incidents.timeline import Draft, EntryKind, TamperKind
from kernel.adapters import upsert
from kernel.adapters.database import make_engine, parse
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import DAY, SECOND, Instant, from_rfc3339

KEY = b"a key of the estate, 32 bytes ..."
T0 = from_rfc3339("2026-03-02T09:30:00Z")


def laid(url: str) -> str:
    engine = make_engine(parse(url, "test"), "test")
    with engine.begin() as connection:
        STORE.upgrade(connection)
    engine.dispose()
    return url


@pytest.fixture(params=["memory", "sqlite", "plain SQL", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IncidentStore]:
    made: IncidentStore
    if request.param == "memory":
        made = MemoryStore(KEY)
    elif request.param == "postgres":
        made = SqlStore(laid(request.getfixturevalue("database")), KEY)
    else:
        if request.param == "plain SQL":  # as Oracle is spoken to
            monkeypatch.setattr(upsert, "native", lambda _: None)
        made = SqlStore.at(tmp_path / "i.sqlite", KEY)
    yield made
    made.close()


def alert(n: int, *, resolved: bool = False) -> AlertSignal:
    return own_signal(
        {"alertname": "GatewayDown", "service": "gateway", "replica": f"gateway-{n}"},
        {"summary": "down"},
        status=Status.RESOLVED if resolved else Status.FIRING,
        starts_at=T0,
        ends_at=Instant(T0 + n * SECOND) if resolved else None,
        received_at=Instant(T0 + n),
    )


def opened(incident: str, at: Instant = T0) -> Draft:
    data = {
        "incident": incident,
        "title": "A gateway is down",
        "level": 2,
        "service": "gateway",
        "team": "x",
        "key": "k",
    }
    return Draft(at, EntryKind.OPENED, "control", "Opened", data)


def note(text: str) -> Draft:
    return Draft(T0, EntryKind.NOTE, "person:ada", text, {"by": "ada", "text": text})


def run_of(run_id: str, at: Instant = T0) -> RunRecord:
    labels = {"replica": "gateway-1"}
    return RunRecord(
        id=run_id, incident="I-1", runbook="gateway-down", target="gateway/gateway-1", labels=labels, started_at=at
    )


def test_a_signal_is_taken_in_once(store: IncidentStore) -> None:
    assert store.take_in([alert(1), alert(2), alert(1)]) == 2
    assert store.take_in([alert(2), alert(3)]) == 1
    assert store.take_in([]) == 0
    assert [one for _, one in store.pending(10)] == [alert(1), alert(2), alert(3)]
    assert [one for _, one in store.pending(2)] == [alert(1), alert(2)]
    assert store.backlog() == 3


def test_whatever_an_alert_says_is_kept_as_it_was_said(store: IncidentStore) -> None:
    for text in ("a\0b", "", "\ue000", "\ue0000\ue000m\0", "\U0001f4a5 ümläut"):
        store.append(f"I-{len(store.incidents())}", [opened(f"I-{len(store.incidents())}"), note(text)])
        told = store.incidents()[-1]
        assert store.timeline(told.id)[-1].text == text
        assert store.verify(told.id) is None


def test_decided_signals_are_not_pending_and_offsets_grow(store: IncidentStore) -> None:
    store.take_in([alert(1), alert(2)])
    (first, _), (second, _) = store.pending(10)
    assert first < second
    store.decide(first, {})
    assert store.pending(10) == [(second, alert(2))]
    store.decide(first - 1, {})
    assert store.pending(10) == [(second, alert(2))], "a decision is never taken back"
    store.decide(second + 1000, {})
    store.take_in([alert(2), alert(3)])
    assert [one for _, one in store.pending(10)] == [alert(3)], "an offset beyond the last decides nothing unseen"


def test_the_end_of_an_alert_is_known_once_decided(store: IncidentStore) -> None:
    one, two = alert(1, resolved=True), alert(2, resolved=True)
    store.take_in([one, two, alert(3)])
    assert store.ended([one.fingerprint]) == {}
    store.decide(store.pending(10)[-1][0], {})
    assert store.ended([one.fingerprint, alert(3).fingerprint]) == {one.fingerprint: one.ends_at}


def test_entries_signals_and_runs_are_decided_together_or_not_at_all(store: IncidentStore) -> None:
    store.take_in([alert(1)])
    offset = store.pending()[0][0]
    store.append("I-1", [opened("I-1")])
    relapse = Draft(T0, EntryKind.STATE_CHANGED, "control", "?", {"from": "open", "to": "open", "signal": "relapsed"})
    with pytest.raises(IllegalTransitionError):
        store.decide(offset, {"I-2": [opened("I-2")], "I-1": [note("one"), relapse]}, [run_of("r1")])
    assert store.incident("I-2") is None
    assert store.timeline("I-2") == []
    assert len(store.timeline("I-1")) == 1
    assert store.open_runs() == []
    assert store.backlog() == 1
    store.decide(offset, {"I-2": [opened("I-2")], "I-1": [note("one")]}, [run_of("r1")])
    assert [one.id for one in store.incidents()] == ["I-1", "I-2"]
    assert store.open_runs() == [run_of("r1")]
    assert store.backlog() == 0


def test_an_incident_is_what_its_entries_say(store: IncidentStore) -> None:
    store.append("I-1", [opened("I-1")])
    incident = store.incident("I-1")
    assert incident is not None
    store.append("I-1", [transition(incident, Signal.ACKNOWLEDGE, at=T0, source="person:ada", why="mine")])
    acknowledged = store.incident("I-1")
    assert acknowledged is not None
    assert (acknowledged.state, acknowledged.acknowledged_by, acknowledged.entries) == (State.ACKNOWLEDGED, "ada", 2)
    assert store.incidents([State.OPEN]) == []
    assert store.incidents([State.ACKNOWLEDGED, State.OPEN]) == [acknowledged]
    assert store.incident("I-9") is None


def test_the_newest_incidents_come_oldest_first(store: IncidentStore) -> None:
    for n in (2, 1, 3):
        store.append(f"I-{n}", [opened(f"I-{n}", Instant(T0 + n * SECOND))])
    assert [one.id for one in store.incidents(limit=2)] == ["I-2", "I-3"]
    assert store.incidents(limit=0) == []


def test_a_timeline_is_sealed_and_verifies(store: IncidentStore) -> None:
    store.append("I-1", [opened("I-1"), note("one")])
    store.append("I-1", [note("two")])
    assert [entry.n for entry in store.timeline("I-1")] == [1, 2, 3]
    assert store.verify("I-1") is None
    with pytest.raises(PermanentError, match="no incident I-9"):
        store.verify("I-9")


def test_ids_are_unique_and_name_the_day(store: IncidentStore) -> None:
    assert [store.new_id(T0), store.new_id(T0)] == ["INC-20260302-0001", "INC-20260302-0002"]
    assert store.new_id(Instant(T0 + DAY)) == "INC-20260303-0001"


def test_a_run_is_journalled_in_order_and_never_rewritten(store: IncidentStore) -> None:
    store.append("I-1", [opened("I-1")])
    store.start_run(run_of("r1"), [note("run")])
    store.record("r1", 1, "question", b"q1")
    store.record("r1", 1, "answer", b"a1")
    store.record("r1", 2, "question", b"q2")
    store.record("r1", 2, "question", b"q2")
    with pytest.raises(PermanentError, match="another question 2"):
        store.record("r1", 2, "question", b"other")
    with pytest.raises(PermanentError, match="no run r9"):
        store.record("r9", 1, "question", b"q")
    assert store.run_journal("r1") == [(1, "question", b"q1"), (1, "answer", b"a1"), (2, "question", b"q2")]
    assert store.run_journal("r9") == []


def test_a_run_ends_with_its_entries(store: IncidentStore) -> None:
    store.append("I-1", [opened("I-1")])
    store.start_run(run_of("r1"))
    store.start_run(run_of("r2", Instant(T0 + SECOND)))
    with pytest.raises(PermanentError, match="r1 is on record"):
        store.start_run(run_of("r1"))
    ended = replace(run_of("r1"), ended_at=Instant(T0 + 5), outcome="mended", detail="proven")
    store.end_run(ended, [note("over")])
    assert store.run("r1") == ended
    assert store.run("r9") is None
    assert [run.id for run in store.open_runs()] == ["r2"]
    assert [run.id for run in store.runs_since(T0)] == ["r1", "r2"]
    assert [run.id for run in store.runs_since(Instant(T0 + 1))] == ["r2"]
    assert store.timeline("I-1")[-1].text == "over"
    with pytest.raises(PermanentError, match="no run r9"):
        store.end_run(replace(ended, id="r9"), [note("never")])
    assert store.timeline("I-1")[-1].text == "over"


COPY_LAST = (
    "INSERT INTO entries SELECT incident, 5, at, kind, source, text, data, previous, digest FROM entries WHERE n = 4"
)

# --- SQLite alone: files, crashes and tampering -------------------------------------------------------------------


def test_a_reopened_store_knows_everything(tmp_path: Path) -> None:
    store = SqlStore.at(tmp_path / "i.sqlite", KEY)
    store.take_in([alert(1), alert(2)])
    store.decide(store.pending()[0][0], {"I-1": [opened("I-1"), note("ä")]}, [run_of("r1")])
    store.new_id(T0)
    before = (store.incidents(), store.timeline("I-1"), store.pending(), store.open_runs())
    store.close()
    store.close()
    again = SqlStore.at(tmp_path / "i.sqlite", KEY)
    assert (again.incidents(), again.timeline("I-1"), again.pending(), again.open_runs()) == before
    assert again.new_id(T0) == "INC-20260302-0002"
    assert again.verify("I-1") is None
    again.close()


@pytest.mark.parametrize(
    ("sql", "kind", "place"),
    [
        ("UPDATE entries SET text = 'nothing happened' WHERE n = 2", TamperKind.CHANGED, 2),
        ("UPDATE entries SET data = '{' WHERE n = 3", TamperKind.CHANGED, 3),
        ("UPDATE entries SET kind = 'impact' WHERE n = 2", TamperKind.CHANGED, 2),
        ("DELETE FROM entries WHERE n = 2", TamperKind.OUT_OF_PLACE, 2),
        ("DELETE FROM entries WHERE n = 4", TamperKind.CUT, 4),
        (COPY_LAST,
         TamperKind.APPENDED, 5),
        ("UPDATE incidents SET count = 3, digest = (SELECT digest FROM entries WHERE n = 3)", TamperKind.HEAD, 4),
        ("DELETE FROM incidents", TamperKind.HEAD, 4),
    ],
)  # fmt: skip
def test_tampering_with_the_file_is_named(tmp_path: Path, sql: str, kind: TamperKind, place: int) -> None:
    store = SqlStore.at(tmp_path / "i.sqlite", KEY)
    store.append("I-1", [opened("I-1"), note("one"), note("two"), note("three")])
    store.close()
    file = sqlite3.connect(tmp_path / "i.sqlite")
    file.execute(sql)
    file.commit()
    file.close()
    again = SqlStore.at(tmp_path / "i.sqlite", KEY)
    tamper = again.verify("I-1")
    again.close()
    assert tamper is not None
    assert (tamper.kind, tamper.n) == (kind, place)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    SqlStore.at(tmp_path / "i.sqlite", KEY).close()
    file = sqlite3.connect(tmp_path / "i.sqlite")
    file.execute("DROP TABLE store_revision")
    file.execute("UPDATE tapewatch_store SET version = 7")
    file.commit()
    file.close()
    with pytest.raises(InputError, match="version 7; this program reads version 1"):
        SqlStore.at(tmp_path / "i.sqlite", KEY)


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "i.sqlite"
    path.write_bytes(b"these are my notes, not a database\n" * 100)
    before = path.read_bytes()
    with pytest.raises(PermanentError, match="no database"):
        SqlStore.at(path, KEY)
    assert path.read_bytes() == before
    other = sqlite3.connect(tmp_path / "o.sqlite")
    other.execute("CREATE TABLE recipes (name)")
    other.commit()
    other.close()
    with pytest.raises(InputError, match="holds other tables"):
        SqlStore.at(tmp_path / "o.sqlite", KEY)


@pytest.mark.parametrize("url", ["no url", "mysql://u:hush@h/d", "sqlite+nothing:///x"])
def test_a_wrong_address_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(InputError, match="incident store: ") as refused:
        SqlStore(url, KEY)
    assert "hush" not in str(refused.value)


def test_a_read_only_store_says_so(tmp_path: Path) -> None:
    store = SqlStore.at(tmp_path / "i.sqlite", KEY)
    store._connection.exec_driver_sql("PRAGMA query_only = ON")
    store._connection.rollback()
    with pytest.raises(PermanentError, match="read-only"):
        store.take_in([alert(1)])
    store.close()


def test_a_full_disk_is_temporary_and_nothing_half_is_kept(tmp_path: Path) -> None:
    store = SqlStore.at(tmp_path / "i.sqlite", KEY)
    pages = store._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    store._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    store._connection.rollback()
    with pytest.raises(TemporaryError, match="disk is full"):
        store.take_in([alert(n) for n in range(2000)])
    assert store.backlog() == 0
    store._connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    store._connection.rollback()
    assert store.take_in([alert(n) for n in range(2000)]) == 2000, "it goes on once there is room"
    store.close()


CHILD = """
import sys
from pathlib import Path
from incidents.adapters.sql_store import SqlStore
from incidents.signals import Status, own_signal

store = SqlStore.at(Path(sys.argv[1]), b"a key of the estate, 32 bytes ...")
n = 0
while True:
    batch = [
        own_signal({"alertname": "A", "n": str(n + i)}, {}, status=Status.FIRING, starts_at=1, received_at=1)
        for i in range(7)
    ]
    store.take_in(batch)
    n += 7
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("acks", [1, 20, 60])
def test_no_acknowledged_signal_is_lost_to_a_kill(tmp_path: Path, acks: int) -> None:
    path = tmp_path / "i.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(acks)]
    os.kill(child.pid, posix.SIGKILL)
    lines += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    acknowledged = max(int(line) for line in lines if line.endswith("\n"))
    store = SqlStore.at(path, KEY)
    kept = [int(one.labels["n"]) for _, one in store.pending(1_000_000)]
    store.close()
    assert kept == list(range(len(kept)))
    assert len(kept) >= acknowledged
    assert len(kept) % 7 == 0, "a batch is kept whole or not at all"
