"""A RabbitMQ of our own: it is found, listens on loopback, keeps what it confirmed, and leaves no process behind."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from control.plan import free_ports
from control.servers import rabbit as room
from control.servers.rabbit import find
from control.servers.rabbit_handshake import log_in
from kernel.errors import InputError, PermanentError, TemporaryError


def lay(directory: Path, number: str) -> Path:
    scripts = directory / f"rabbitmq_server-{number}" / "sbin"
    (scripts.parent / "plugins" / f"rabbit-{number}").mkdir(parents=True)
    scripts.mkdir()
    for name in ("rabbitmq-server", "rabbitmq-env"):
        (scripts / name).write_text("#!/bin/sh\n")
        (scripts / name).chmod(0o755)
    return scripts


def test_a_directory_without_its_scripts_is_refused_and_says_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match=r"TAPEWATCH_RABBITMQ.*has no program rabbitmq-server; name the directory"):
        find(str(tmp_path))


def test_of_several_versions_the_newest_is_taken_and_one_too_old_is_refused(tmp_path, monkeypatch):
    old, newer, newest = (lay(tmp_path, number) for number in ("3.8.9", "3.10.8", "3.13.0"))
    monkeypatch.setattr(room.shutil, "which", lambda name: None if name == "rabbitmq-server" else f"/usr/bin/{name}")
    monkeypatch.setattr(room, "DEBIAN", tmp_path)
    assert find() == newest
    assert find(str(newer)) == newer
    with pytest.raises(InputError, match=r"is version 3\.8\.9; 3\.10 or newer is needed"):
        find(str(old))


def test_a_machine_without_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(room, "DEBIAN", tmp_path)
    assert find() is None
    with pytest.raises(PermanentError, match="apt-get install"):
        room.found()


def test_nobody_and_somebody_else_at_its_port_are_told_apart_from_a_refusal():
    with pytest.raises(TemporaryError, match="no broker answers"):
        log_in(free_ports(1)[0], "tapewatch", "x")


def test_all_five_ports_are_on_loopback_only(rabbit):
    listening = [
        (one.laddr.ip, one.laddr.port)
        for process in rabbit.pids
        for one in psutil.Process(process).net_connections("tcp")
        if one.status == "LISTEN"
    ]
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}
    assert {port for _, port in listening} == set(rabbit.ports.values())


def test_it_takes_its_own_user_with_the_password_and_nobody_else(rabbit):
    log_in(rabbit.ports["amqp"], "tapewatch", rabbit.password, within_s=60)
    for user, password in (("tapewatch", "wrong"), ("guest", "guest")):
        with pytest.raises(PermanentError, match="403 ACCESS_REFUSED"):
            log_in(rabbit.ports["amqp"], user, password, within_s=60)
    with pytest.raises(PermanentError, match="530 NOT_ALLOWED"):
        log_in(rabbit.ports["amqp"], "tapewatch", rabbit.password, "nowhere", within_s=60)


def test_its_cookie_and_its_password_are_closed_to_others(rabbit):
    assert (rabbit.directory / ".erlang.cookie").stat().st_mode & 0o777 == 0o400
    assert (rabbit.directory / "rabbitmq.conf").stat().st_mode & 0o777 == 0o600
    logs = "".join(path.read_text(errors="replace") for path in rabbit.directory.rglob("*.log"))
    assert rabbit.password not in logs


def test_its_own_metrics_tell_of_each_queue(rabbit):
    import urllib.request

    rabbit.ask("/api/queues/%2F/seen", "PUT", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with urllib.request.urlopen(f"http://127.0.0.1:{rabbit.ports['prometheus']}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        if 'rabbitmq_queue_messages_ready{vhost="/",queue="seen"}' in text:
            break
        time.sleep(0.2)
    rabbit.ask("/api/queues/%2F/seen", "DELETE")
    assert 'rabbitmq_queue_messages_ready{vhost="/",queue="seen"} 0' in text


ORPHANS = """
import sys, time
from pathlib import Path
from control.servers.rabbit import Rabbit
server = Rabbit(Path(sys.argv[1]), Path(sys.argv[2])).start()
print(*server.pids, flush=True)
time.sleep(600)
"""


def test_no_process_of_it_outlives_whoever_started_it(rabbit_scripts, tmp_path):
    starter = subprocess.Popen(
        [sys.executable, "-c", ORPHANS, str(rabbit_scripts), str(tmp_path / "r")], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pids = [int(word) for word in starter.stdout.readline().split()]
    whole = [psutil.Process(pid) for pid in pids]
    assert len(whole) >= 4
    starter.kill()
    starter.wait()
    starter.stdout.close()
    _, alive = psutil.wait_procs(whole, timeout=60)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
