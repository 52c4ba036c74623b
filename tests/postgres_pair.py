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
from control.layout import Layout
from control.plan import free_ports
from control.servers.hosted import ServerConfig
from control.servers.hosted_postgres import HostedPostgres
from control.servers.postgres import USER, end_all
from control.servers.postgres_pair import LOGIN, Pair, PostgresTurnover, Record, pair_url

WORDS = {"postgres": "of-the-servers", "postgres-roles": "of-the-roles"}
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
        layout = Layout(root)
        layout.secret("x").parent.mkdir()
        for name, word in WORDS.items():
            layout.secret(name).write_text(word + "\n")
        self.ports = dict(zip(NAMES, free_ports(2), strict=True))
        ports = {name: {"host": 1, "server": port} for name, port in self.ports.items()}
        self.configs = {
            name: ServerConfig(
                service="postgres", replica=name, state=str(root), directory=str(root / "servers" / name), ports=ports
            )
            for name in NAMES
        }
        self.hosts: dict[str, HostedPostgres] = {}
        self.pair = Pair(layout.postgres_pair, NAMES[0])
        self.turnover = PostgresTurnover(lambda: self.configs[NAMES[0]])

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
            self.hosts[name] = HostedPostgres(self.configs[name])
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
        end_all(Path(self.configs[name].directory) / "data")
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
            host=HOST, port=self.ports[name], user=USER, password=WORDS["postgres"], dbname=database,
            autocommit=True, connect_timeout=2,
        ) as connection:  # fmt: skip
            cursor = connection.execute(question.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str = "ledger") -> str:
        """Return what a role is told, with the password in it."""
        return pair_url(database, list(self.ports.values())).replace(f"{LOGIN}@", f"{LOGIN}:{WORDS['postgres-roles']}@")

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
        for name in list(pair.hosts):
            pair.kill(name)
        shutil.rmtree(root, ignore_errors=True)
