"""PostgreSQL: found, and run as a child on loopback: a server, its stand-by, the loss of one and the other's promotion.

Nothing is fetched: it is Debian's (`scripts/setup.sh` installs it in CI), or any other whose programs are named.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import psutil
import psycopg
from psycopg import sql

from control.addresses import HOST
from control.child import tied
from control.plan import free_ports
from control.servers.local_server import LocalServer
from control.servers.unprivileged import as_nobody, check_open, give
from kernel.errors import InputError, PermanentError, TemporaryError

DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs, a directory a version; they are not on PATH there."""
OLDEST: Final = 14
"""The oldest version that its makers still mend."""
PROGRAMS: Final = ("postgres", "initdb", "pg_basebackup", "pg_rewind")
READY_WITHIN_S: Final = 60.0
USER: Final = "tapewatch"
"""The server's superuser; its password is made anew for each server."""
_SOCKET_MAX: Final = 90
"""A socket's path may have 107 bytes, of which the server takes its own name."""
_STEP_S: Final = 0.05
_GRACE_S: Final = 10.0
_SMALL: Final[Mapping[str, object]] = {
    "max_connections": 40, "shared_buffers": "32MB", "max_wal_senders": 6, "max_replication_slots": 6,
    "wal_level": "replica", "hot_standby": "on", "wal_keep_size": "256MB", "timezone": "UTC", "log_timezone": "UTC",
    "lc_messages": "C", "log_statement": "none", "log_parameter_max_length_on_error": 0,
}  # fmt: skip


def find(named: str = "") -> Path | None:
    """Return the directory of PostgreSQL's programs: the one `named` (setting postgres), on PATH, Debian's newest.

    Raises:
        InputError: the one named lacks a program, or is too old.
    """
    if named:
        directory = Path(named).expanduser()
        missing = [name for name in PROGRAMS if not os.access(directory / name, os.X_OK)]
        if missing:
            raise InputError(
                f"setting postgres (TAPEWATCH_POSTGRES): {named}", f"has no program {missing[0]}",
                right="name the directory that holds postgres, initdb and pg_basebackup",
            )  # fmt: skip
        if version(directory) < OLDEST:
            raise InputError(
                f"setting postgres (TAPEWATCH_POSTGRES): {named}", f"is version {version(directory)}",
                right=f"{OLDEST} or newer is needed",
            )  # fmt: skip
        return directory
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(DEBIAN.glob("*/bin"), key=lambda path: _leading_number(path.parent.name), reverse=True)
    for directory in candidates:
        whole = all(os.access(directory / name, os.X_OK) for name in PROGRAMS)
        if whole and version(directory) >= OLDEST:
            return directory
    return None


def found(named: str = "") -> Path:
    """Return the directory of PostgreSQL's programs.

    Raises:
        InputError: the one named is none.
        PermanentError: there is none; says what to install.
    """
    directory = find(named)
    if directory is None:
        raise PermanentError(
            f"there is no PostgreSQL {OLDEST} or newer: install it (Debian: apt-get install --no-install-recommends "
            "postgresql-15), or name the directory of its programs with TAPEWATCH_POSTGRES"
        )
    return directory


def version(directory: Path) -> int:
    """Return the major version of the programs in a directory; 0 when it cannot be told."""
    argv = [str(directory / "postgres"), "--version"]
    try:
        said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    number = re.search(r"\) (\d+)", said)
    return int(number[1]) if number else 0


def _leading_number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


class Server(LocalServer):
    """One PostgreSQL server. A context manager; its processes end with the thread that started them."""

    title = "PostgreSQL"
    house = "postgres"
    ready_within_s = READY_WITHIN_S
    step_s = _STEP_S
    ends_by = signal.SIGINT  # its "fast" shutdown
    telling = ("FATAL", "ERROR", "PANIC")

    def __init__(
        self,
        programs: Path,
        directory: Path | None = None,
        *,
        port: int = 0,
        password: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take a port; nothing is written before `start`.

        Args:
            programs: the directory of its programs, of `find`.
            directory: where its data, its log and its socket lie; None for one of its own that is removed at the end.
                Every directory above it must be open to others when we are root.
            port: on loopback; 0 for a free one.
            password: of the superuser `tapewatch`; empty for a new one.
            settings: of postgresql.conf; they come before ours.
        """
        super().__init__(directory)
        self.programs = programs
        self.port = port or free_ports(1)[0]
        self.password = password or secrets.token_urlsafe(18)
        self._settings = dict(settings or {})

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    # --- asking -----------------------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", *, others: Sequence[Server] = ()) -> str:
        """Return the address of a database, with the password in it.

        With `others`, it names those servers too and leads to whichever takes writes.
        """
        login = f"postgresql+psycopg://{USER}:{self.password}@"
        if not others:
            return f"{login}{HOST}:{self.port}/{database}"
        hosts = "&".join(f"host={HOST}:{each.port}" for each in (self, *others))
        return f"{login}/{database}?{hosts}&target_session_attrs=read-write&connect_timeout=2"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection that commits each statement by itself.

        Raises:
            psycopg.OperationalError: it takes none.
        """
        return psycopg.connect(
            host=HOST, port=self.port, user=USER, password=self.password, dbname=database, connect_timeout=5,
            autocommit=True,
        )  # fmt: skip

    def ask(self, question: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out one statement on a connection of its own and return the rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(question.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> str:
        """Make an empty database and return its address."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    # --- its stand-by -----------------------------------------------------------------------------------------------

    def stand_by(self, name: str = "standby", directory: Path | None = None) -> Server:
        """Copy this server into a stand-by that follows it by streaming; it is not started.

        Raises:
            PermanentError: the copy failed; carries the program's last words.
        """
        other = Server(self.programs, directory, password=self.password, settings=self._settings)
        try:
            other.copy(self.port, name)
        except BaseException:
            other.close()
            raise
        return other

    def copy(self, port: int, name: str = "standby") -> None:
        """Make this one a stand-by called `name` of the server at a port; what data it had are removed first.

        The data are there whole or not at all, whenever this is cut short.

        Raises:
            PermanentError: the copy failed; carries the program's last words.
        """
        assert self._process is None, "a server that runs is not copied over"
        self._move_in()
        part = self._part()
        shutil.rmtree(self.data, ignore_errors=True)
        source = f"host={HOST} port={port} user={USER} password={self.password} application_name={name}"
        self._run("pg_basebackup", "-D", str(part), "-d", source, "-R", "-X", "stream", "-c", "fast")
        part.rename(self.data)
        self.configure()

    def wait_for(self, name: str = "standby", within_s: float = READY_WITHIN_S, *, synchronous: bool) -> None:
        """Have commits wait for the stand-by `name`, or not; returns when it streams so.

        Raises:
            TemporaryError: it does not stream in time.
        """
        names = f"FIRST 1 ({name})" if synchronous else ""
        with self.connect() as connection:
            set_names = sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}")
            connection.execute(set_names.format(sql.Literal(names)))
            connection.execute("SELECT pg_reload_conf()")
            wanted, until = "sync" if synchronous else "async", time.monotonic() + within_s
            ask = "SELECT sync_state FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
            while time.monotonic() < until:
                if (wanted,) in connection.execute(ask, (name,)).fetchall():
                    return
                time.sleep(_STEP_S)
        raise TemporaryError(f"the stand-by {name} did not follow in time")

    def cut_off(self) -> None:
        """Have a stand-by receive nothing any more, as if the line to the first server were cut."""
        with self.connect() as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone():
                time.sleep(_STEP_S)

    def promote(self, within_s: float = READY_WITHIN_S) -> None:
        """Make a stand-by the one that is written to; returns when it takes writes.

        Raises:
            TemporaryError: it did not turn in time.
        """
        until = time.monotonic() + within_s
        with self.connect() as connection:
            connection.execute("SELECT pg_promote(false)")  # what waits in the server looks ten times a second only
            while connection.execute("SELECT pg_is_in_recovery()").fetchall() != [(False,)]:
                if time.monotonic() > until:
                    raise TemporaryError(f"the stand-by was not promoted within {within_s:g} s: {self.last_words()}")
                time.sleep(_STEP_S / 10)

    def fence(self) -> None:
        """Keep a stopped server from ever being written to again: whoever starts it finds it read-only.

        It then is a stand-by that follows nobody, until somebody copies it anew.
        """
        assert self._process is None, "a server that runs is not fenced by a file: kill it first"
        fence_data(self.data)

    # --- starting ---------------------------------------------------------------------------------------------------

    def _move_in(self) -> None:
        super()._move_in()
        if os.getuid() == 0:
            self.directory.chmod(0o755)
            give(self.directory)
            check_open(self.directory, self.title)

    def _prepare(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._lay()

    def _lay(self) -> None:
        word, part = self.directory / "password", self._part()
        self._write(word, self.password + "\n")
        try:
            self._run("initdb", "-D", str(part), "-U", USER, f"--pwfile={word}", "--auth=scram-sha-256",
                      "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions")  # fmt: skip
        finally:
            word.unlink()
        part.rename(self.data)
        self.configure()

    def _part(self) -> Path:
        """Return where data are made until they are whole; what an earlier try left there is removed."""
        part = self.directory / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        return part

    def configure(self) -> None:
        """Say what is ours behind what the server's own files say; the last of two lines counts."""
        socket = str(self.directory) if len(str(self.directory)) <= _SOCKET_MAX else ""
        ours = {**_SMALL, "listen_addresses": HOST, "port": self.port, "unix_socket_directories": socket,
                **self._settings}  # fmt: skip
        lines = [f"{name} = '{value}'" for name, value in ours.items()]
        self._write(self.data / "tapewatch.conf", "\n".join(lines) + "\n")
        conf = self.data / "postgresql.conf"
        include = "include = 'tapewatch.conf'\n"
        if not conf.read_text().endswith(include):
            with conf.open("a") as out:
                out.write("\n" + include)

    def _write(self, path: Path, text: str) -> None:
        _write_as_its_own(path, text)

    def _run(self, program: str, *args: str) -> None:
        argv = tied([*as_nobody(), str(self.programs / program), *args])
        done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd="/", env=_environment())
        if done.returncode:
            words = (done.stderr or done.stdout).replace(self.password, "***").strip()
            raise PermanentError(f"{program} failed (exit code {done.returncode}): {words[-600:]}")

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        argv = [*as_nobody(), str(self.programs / "postgres"), "-D", str(self.data)]
        return self._child(argv, output, _environment())

    def _why_not(self) -> str:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return "it takes no connections"
        return ""


def end_all(data: Path, within_s: float = _GRACE_S) -> None:
    """End every process of a server by its data directory, whoever started it; returns when none is left.

    Each process of a server works in that directory, also one whose first process is gone.

    Raises:
        PermanentError: one is still there.
    """
    until = time.monotonic() + within_s
    while left := list(_working_in(data)):
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        if time.monotonic() > until:
            raise PermanentError(f"process {left[0].pid} of the server in {data} cannot be ended")
        time.sleep(_STEP_S / 10)


def fence_data(data: Path) -> None:
    """Have a server that does not run find itself a stand-by of nobody at its next start; no data, nothing to do."""
    if data.is_dir():
        _write_as_its_own(data / "standby.signal", "")


def _working_in(data: Path) -> Iterator[psutil.Process]:
    wanted = str(data.resolve())
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.cwd() == wanted and one.status() != psutil.STATUS_ZOMBIE:
                yield one


def _write_as_its_own(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    give(path)


def _environment() -> dict[str, str]:
    """What the server is started with: no PG* variable of ours may change it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "HOME": "/"}
