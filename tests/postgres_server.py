"""A real PostgreSQL that a worker's tests share, a database for each test, and servers of their own to break.

A test that asks for any of these fixtures bears the marker `postgres` by itself.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.servers import postgres as postgres_server
from control.servers.postgres import Server
from control.settings import load_settings
from tests.elastic_node import there


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    return there(postgres_server.find(load_settings().postgres), "PostgreSQL")


@pytest.fixture(scope="session")
def postgres(postgres_programs: Path) -> Iterator[Server]:
    """The session's server: starts in two seconds. Nobody stops or breaks it."""
    with Server(postgres_programs) as server:
        yield server


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The address of an empty database that goes with the test."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield postgres.create_database(name)
    postgres.ask(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_postgres(postgres_programs: Path) -> Iterator[Callable[..., Server]]:
    """Call for a server of one's own, which may be broken; the arguments are those of `Server`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(postgres_programs, **options))
