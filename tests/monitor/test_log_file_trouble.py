# mypy: disable-error-code="arg-type"
# (plain numbers stand for instants in these figures)
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import time

import pytest

from kernel.adapters.clock import SystemClock
from monitor.adapters import log_files
from monitor.adapters.log_files import FileLog
from monitor.logs import MAX_LINE_BYTES, EcsFormat

FORM = EcsFormat("engine", "engine-1")
DEADLINE_S = 10.0


def until(true):
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]


def accounted(log):
    return sum(log.written.values()) + log.dropped + log.failed


def test_records_are_counted_by_severity(tmp_path):
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock())
    for severity in ("info", "info", "error", "made-up"):
        log.event("tick", severity=severity)
    log.close()
    assert log.written == {"critical": 0, "debug": 0, "error": 1, "info": 3, "warning": 0}


@pytest.mark.parametrize("taken", [0, 1, 150, 400])
def test_a_disk_that_fills_within_a_batch_keeps_whole_lines_and_counts_the_rest(tmp_path, monkeypatch, taken):
    room = [taken]
    real = os.write

    def scarce(file, data):
        if room[0] is None:
            return real(file, data)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "full")
        part = bytes(data[: room[0]])
        room[0] -= len(part)
        return real(file, part)

    path = tmp_path / "a.jsonl"
    monkeypatch.setattr(log_files, "_IDLE_S", 0.01)
    monkeypatch.setattr(log_files.os, "write", scarce)
    log = FileLog(path, FORM, SystemClock())
    for number in range(10):
        log.event("tick", offset=number)
    until(lambda: accounted(log) == 10)
    assert log.failed == 10 - sum(log.written.values()) > 0
    assert len(records(path)) == sum(log.written.values())
    room[0] = None
    log.event("tick", offset=99)
    log.close()
    *_, last, told = records(path)
    assert last["exchange.offset"] == 99
    assert (told["event.action"], told["exchange.failed"]) == ("log-records-lost", log.failed)


def test_a_file_at_the_limit_of_its_process_loses_records_and_no_more(tmp_path):
    child = """
import resource, sys
from pathlib import Path
from kernel.adapters.clock import SystemClock
from monitor.adapters.log_files import FileLog
from monitor.logs import EcsFormat
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
log = FileLog(Path(sys.argv[1]), EcsFormat("engine", "engine-1"), SystemClock())
for number in range(100):
    log.event("tick", offset=number)
log.close()
print(sum(log.written.values()), log.failed, log.dropped)
"""
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", child, str(path)], check=True, capture_output=True, text=True)
    written, failed, dropped = map(int, done.stdout.split())
    assert (written + failed, dropped) == (100, 0)
    assert len(records(path)) == written > 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000


def test_a_file_that_was_renamed_away_is_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    log = FileLog(path, FORM, SystemClock())
    log.event("tick", offset=1)
    until(lambda: sum(log.written.values()) == 1)
    path.rename(tmp_path / "taken")
    log.event("tick", offset=2)
    until(lambda: sum(log.written.values()) == 2)
    path.unlink()
    log.event("tick", offset=3)
    log.close()
    assert [one["exchange.offset"] for one in records(tmp_path / "taken") + records(path)] == [1, 3]


def test_a_place_that_cannot_be_written_costs_records_only(tmp_path):
    (tmp_path / "file").write_text("")
    log = FileLog(tmp_path / "file" / "a.jsonl", FORM, SystemClock())
    log.event("tick")
    log.close()
    assert (log.failed, log.dropped) == (1, 0)


def test_a_pipe_that_nobody_reads_blocks_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock())
    log.event("tick")
    log.close()
    assert not log._thread.is_alive()
    assert log.failed == 1


def test_a_hanging_disk_holds_nobody_up_and_what_waits_is_counted(tmp_path, monkeypatch):
    held = threading.Event()
    real = os.write
    monkeypatch.setattr(log_files.os, "write", lambda file, data: held.wait() and real(file, data))
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock(), capacity=10)
    log.event("tick")
    until(lambda: not log._waiting)
    for _ in range(25):
        log.event("tick")
    assert log.dropped == 15
    log.close(timeout_s=0.01)
    assert log.dropped == 25
    held.set()
    log._thread.join(DEADLINE_S)
    assert accounted(log) >= 26


def test_a_directory_that_forbids_rotation_lets_the_file_grow(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(log_files.Path, "replace", refuse)
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock(), max_bytes=1)
    for _ in range(3):
        log.event("tick")
    log.close()
    assert (len(records(tmp_path / "a.jsonl")), log.failed) == (3, 0)


class SlowClock:
    def __init__(self):
        self.at = 0

    def now(self):
        return self.at


def test_a_quiet_file_is_rotated_by_age(tmp_path):
    clock = SlowClock()
    log = FileLog(tmp_path / "a.jsonl", FORM, clock, max_age=100)
    log.event("tick", offset=1)
    until(lambda: sum(log.written.values()) == 1)
    clock.at = 100
    log.event("tick", offset=2)
    log.close()
    assert [one["exchange.offset"] for one in records(tmp_path / "a.jsonl.1")] == [1, 2]


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        b"\x00\xff" * 500_000,
        "\x1b[2J\x1b]0;gone\x07\r\n\x9b2J\x7f",
        "\udcff\udc80",
        "a\u2028b\u0085c\n",
        "\0",
    ],
    ids=["1 MB", "binary", "escapes", "broken", "breaks", "nul"],
)
def test_one_record_stays_one_line_without_anything_a_terminal_obeys(tmp_path, value):
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock())
    log.event("tick", why=value)
    log.event("after")
    log.close()
    raw = (tmp_path / "a.jsonl").read_bytes()
    assert len(raw.decode().splitlines()) == raw.count(b"\n") == 2
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in raw.decode().replace("\n", ""))
    assert max(map(len, raw.split(b"\n"))) <= MAX_LINE_BYTES
    assert json.loads(raw.split(b"\n")[1])["event.action"] == "after"


def test_a_nested_value_without_an_end_is_named_and_costs_nothing_else():
    endless = {"token": "abc"}
    endless["self"] = endless
    told = json.loads(FORM.line(0, "tick", "info", {"before": 1, "endless": endless, "symbol": "ACME"}))
    assert told["exchange.symbol"] == "ACME"
    assert "dict" in told["exchange.endless"]
    assert "abc" not in json.dumps(told)


def test_the_file_is_not_for_everybody(tmp_path):
    log = FileLog(tmp_path / "a.jsonl", FORM, SystemClock())
    log.event("tick")
    log.close()
    assert stat.S_IMODE((tmp_path / "a.jsonl").stat().st_mode) & 0o007 == 0
