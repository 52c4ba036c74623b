# mypy: disable-error-code="arg-type"
# (plain numbers and texts stand for instants, symbols and ids in these figures)
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.adapters.clock import SystemClock
from monitor.adapters.log_files import FileLog
from monitor.logs import MAX_LINE_BYTES, EcsFormat

SECRET = "canary-0123456789abcdef"
FORM = EcsFormat("engine", "engine-1", secrets=[SECRET])
TOP = ("@timestamp", "log.", "message", "event.", "ecs.", "service.", "exchange.", "error.", "trace.", "url.", "http.",
       "user.", "client.", "host.", "process.", "server.")  # fmt: skip


def record(**fields):
    line = FORM.line(1_000_000_000, "engine-recovered", "info", fields)
    assert line.count(b"\n") == 1
    return json.loads(line)


def test_a_record_says_when_who_and_what_in_ecs():
    told = record(error="broken", duration_ns=5, symbol="ACME")
    assert told["@timestamp"] == "1970-01-01T00:00:01.000000Z"
    assert told["ecs.version"].startswith("9.")
    assert (told["service.name"], told["service.node.name"]) == ("engine", "engine-1")
    assert (told["event.action"], told["message"]) == ("engine-recovered", "engine recovered")
    assert (told["error.message"], told["event.duration"], told["exchange.symbol"]) == ("broken", 5, "ACME")


@given(
    st.dictionaries(
        st.text(min_size=1), st.recursive(st.text() | st.integers() | st.floats() | st.binary(), st.lists), max_size=5
    )
)
def test_whatever_is_logged_is_one_line_of_json_with_known_names(fields):
    line = FORM.line(0, "x", "info", fields)
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1, "no reader may see two lines"
    assert all(key.startswith(TOP) for key in json.loads(line))


@pytest.mark.parametrize(
    "fields",
    [
        {"webhook_token": SECRET[:12]},
        {"headers": {"Authorization": SECRET[:12]}},
        {"calls": [{"api_key": SECRET[:12]}]},
        {"error": f"refused: {SECRET}"},
        {"error": f"Bearer {SECRET[:12]}"},
        {"error": "x" * 20_000 + SECRET},
    ],
    ids=["name", "nested", "listed", "value", "bearer", "long"],
)
def test_a_secret_never_appears(fields):
    assert SECRET[:12] not in json.dumps(record(**fields))


def test_a_secret_too_short_to_redact_is_refused():
    with pytest.raises(ValueError, match="8 are needed"):
        EcsFormat("engine", "engine-1", secrets=["abc"])


def test_what_cannot_be_encoded_is_shown_as_text():
    told = record(thing=object, torn="a\udc80", big=10**400)
    assert told["exchange.torn"] == "a\\udc80"


def test_a_record_too_long_keeps_its_place_and_loses_its_fields():
    told = record(body="x" * (2 * MAX_LINE_BYTES))
    assert told["event.action"] == "engine-recovered"
    assert told["exchange.cut_bytes"] > MAX_LINE_BYTES
    assert "exchange.body" not in told


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_log_file_holds_every_record_in_order(tmp_path):
    log = FileLog(tmp_path / "logs" / "engine.jsonl", FORM, SystemClock())
    for number in range(2_000):
        log.event("tick", number=number)
    log.close()
    assert [one["exchange.number"] for one in lines_of(tmp_path / "logs" / "engine.jsonl")] == list(range(2_000))
    assert (log.dropped, log.failed) == (0, 0)


def test_a_full_queue_drops_and_counts(tmp_path):
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock(), capacity=0)
    log.event("tick")
    log.close()
    assert log.dropped == 1


def test_a_full_disk_costs_records_and_never_the_process():
    log = FileLog(__import__("pathlib").Path("/dev/full"), FORM, SystemClock())
    for _ in range(10):
        log.event("tick")
    log.close()
    assert log.failed == 10


def newest_number(path):
    try:
        return lines_of(path)[-1]["exchange.number"]
    except FileNotFoundError:  # it is not there yet, or just being renamed
        return None


def test_a_file_is_rotated_and_the_oldest_goes(tmp_path):
    path = tmp_path / "a.jsonl"
    log = FileLog(path, FORM, SystemClock(), max_bytes=1, keep=2)
    for number in range(4):
        log.event("tick", number=number)
        deadline = time.monotonic() + 60
        while newest_number(tmp_path / "a.jsonl.1") != number:
            assert time.monotonic() < deadline
            os.sched_yield()
    log.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.jsonl.1", "a.jsonl.2"]


def test_a_torn_last_line_does_not_swallow_the_next_record(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"torn": ')
    log = FileLog(path, FORM, SystemClock())
    log.event("tick")
    log.close()
    assert json.loads(path.read_bytes().split(b"\n")[1])["event.action"] == "tick"
