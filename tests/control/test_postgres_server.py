"""A PostgreSQL of our own: it is found, starts, survives being killed, is copied, and its copy takes over."""

import subprocess
import sys
import time

import psutil
import psycopg
import pytest

from control.servers import postgres as room
from control.servers.local_server import family_of, runs
from control.servers.postgres import Server, find
from kernel.errors import InputError, PermanentError


def test_a_directory_without_its_programs_is_refused_and_says_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match=r"TAPEWATCH_POSTGRES.*has no program postgres; name the directory"):
        find(str(tmp_path))


def test_a_machine_without_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(room, "DEBIAN", tmp_path)
    assert find() is None
    with pytest.raises(PermanentError, match="apt-get install"):
        room.found()


def test_of_several_versions_the_newest_whole_one_is_taken(tmp_path, monkeypatch):
    for number, names in (("9", room.PROGRAMS), ("15", room.PROGRAMS), ("16", ("postgres",))):
        directory = tmp_path / number / "bin"
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {number}.1'\n")
            (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(room.shutil, "which", lambda _: None)
    monkeypatch.setattr(room, "DEBIAN", tmp_path)
    assert find() == tmp_path / "15" / "bin"
    with pytest.raises(InputError, match="is version 9; 14 or newer is needed"):
        find(str(tmp_path / "9" / "bin"))


def test_what_was_committed_is_there_after_every_process_was_killed(own_postgres):
    server = own_postgres()
    server.ask("CREATE TABLE kept (x int)")
    server.ask("INSERT INTO kept VALUES (7)")
    server.kill()
    with pytest.raises(psycopg.OperationalError):
        server.connect()
    server.start()
    assert server.ask("SELECT x FROM kept") == [(7,)]


def test_it_listens_on_loopback_only_and_asks_for_the_password(postgres):
    addresses = {one.laddr.ip for one in psutil.Process(postgres.pid).net_connections("tcp") if one.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url().replace("+psycopg", "").replace(postgres.password, "wrong"))


def test_a_stand_by_takes_over_and_the_old_one_is_never_written_again(own_postgres):
    server = own_postgres()
    server.ask("CREATE TABLE kept (x int)")
    with server.stand_by() as other:
        server.wait_for(synchronous=False)
        server.wait_for(synchronous=True)
        server.ask("INSERT INTO kept VALUES (1)")
        assert other.ask("SELECT x FROM kept") == [(1,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            other.ask("INSERT INTO kept VALUES (2)")
        server.kill()
        server.fence()
        other.promote()
        other.ask("INSERT INTO kept VALUES (2)")
        server.start()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            server.ask("INSERT INTO kept VALUES (3)")


def test_it_ends_when_whoever_started_it_is_killed(postgres_programs):
    program = (
        "import sys, time; from pathlib import Path; from control.servers.postgres import Server\n"
        "server = Server(Path(sys.argv[1])).start(); print(server.pid, server.directory, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(postgres_programs)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        parent.kill()
    until = time.monotonic() + 60
    whole = list(family_of(int(pid)))
    while any(runs(one) for one in whole) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(runs(one) for one in family_of(int(pid)))
    room.shutil.rmtree(directory)


def test_its_password_is_in_no_file_that_others_may_read(postgres):
    server: Server = postgres
    assert not (server.directory / "password").exists()
    files = [path for path in server.directory.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        if path.stat().st_mode & 0o004:
            assert server.password.encode() not in path.read_bytes()
