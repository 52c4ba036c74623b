"""A real pair of hosted PostgreSQL servers, and what is asked of it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from control.addresses import HOST
from control.plan import free_ports
from control.servers.hosted_postgres import HostedPostgres
from control.servers.postgres import USER
from control.servers.postgres_pair import LOGIN, Pair, PostgresPlace, PostgresTurnover, Record, pair_url

WORDS = {"password": "of-the-servers", "app-password": "of-the-roles"}
NAMES = ("postgres-1", "postgres-2")


def until(true: Callable[[], Any], within_s: float = 40.0) -> Any:
    """Wait for something true and return it."""
    end = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < end, f"not within {within_s:g} s"
        time.sleep(0.02)
    return found


class RealPair:
    """Two places, and the servers that were started there."""

    def __init__(self, root: Path) -> None:
        root.chmod(0o755)
        for name, word in WORDS.items():
            (root / name).write_text(word + "\n")
        self.ports = dict(zip(NAMES, free_ports(2), strict=True))
        self.places = {name: self._place(root, name) for name in NAMES}
        self.hosts: dict[str, HostedPostgres] = {}
        self.pair = Pair(root / "pair" / "record.json", NAMES[0])
        self.turnover = PostgresTurnover(self.places[NAMES[0]])

    def _place(self, root: Path, name: str) -> PostgresPlace:
        other = next(each for each in NAMES if each != name)
        return PostgresPlace(
            name=name, port=self.ports[name], directory=str(root / name), other_name=other,
            other_port=self.ports[other], other_directory=str(root / other), first=NAMES[0],
            pair=str(root / "pair" / "record.json"), password_file=str(root / "password"),
            app_password_file=str(root / "app-password"),
        )  # fmt: skip

    def start(self, *names: str) -> None:
        """Start servers at the same moment; returns when all have begun."""
        failed: list[BaseException] = []

        def begin(name: str) -> None:
            try:
                self.hosts[name].start()
            except BaseException as error:  # noqa: BLE001 - the test is told
                failed.append(error)

        threads = []
        for name in names:
            self.hosts[name] = HostedPostgres(self.places[name])
            threads.append(threading.Thread(target=begin, args=(name,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def whole(self) -> RealPair:
        """Start what does not run; return when every commit waits for the stand-by."""
        self.start(*(name for name in NAMES if name not in self.hosts))
        until(lambda: self.record.synchronous)
        return self

    def kill(self, name: str) -> None:
        """End every process of a server as a power cut would; its host notices."""
        host = self.hosts.pop(name)
        host._server._end(9)
        host.stop()

    def stop(self, name: str) -> None:
        """End a host in order."""
        self.hosts.pop(name).stop()

    def turn(self, old: str, key: str = "k/0") -> None:
        """Let the other one take over, as the estate does it."""
        self.turnover.check(old)
        self.turnover.depose(old, key)
        self.turnover.complete(old)

    @property
    def record(self) -> Record:
        return self.pair.read()

    def ask(self, name: str, question: str, database: str = "ledger") -> list[tuple[Any, ...]]:
        """Carry out a statement on one server, as its superuser."""
        with psycopg.connect(
            host=HOST, port=self.ports[name], user=USER, password=WORDS["password"], dbname=database,
            autocommit=True, connect_timeout=2,
        ) as connection:  # fmt: skip
            cursor = connection.execute(question.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str = "ledger") -> str:
        """Return what a role is told, with the password in it."""
        return pair_url(database, list(self.ports.values())).replace(f"{LOGIN}@", f"{LOGIN}:{WORDS['app-password']}@")

    def taking_writes(self) -> list[str]:
        """Return the servers that are no stand-by now."""
        found = []
        for name in NAMES:
            with contextlib.suppress(psycopg.Error):
                if self.ask(name, "SELECT pg_is_in_recovery()", "postgres") == [(False,)]:
                    found.append(name)
        return found


@contextlib.contextmanager
def real_pair() -> Iterator[RealPair]:
    """Give a new pair, of which nothing runs; all that was started is ended."""
    root = Path(tempfile.mkdtemp(prefix="tapewatch-pair-"))
    pair = RealPair(root)
    try:
        yield pair
    finally:
        for host in pair.hosts.values():
            host._server.kill()
            host.stop()
        shutil.rmtree(root, ignore_errors=True)
