"""A real Elasticsearch that a session's tests share, and nodes of their own for tests that break things.

A test that asks for `elastic` (or `elastic_home`, `filebeat_program`) bears the marker `elastic` by itself. What a test
puts into the shared node has a name of its own (`elastic_name`) and is removed after it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.servers import elastic as elastic_server
from control.servers import filebeat as filebeat_server
from control.servers.elastic_node import ElasticStatusError, Node
from control.settings import load_settings

REQUIRED = "SERVERS_REQUIRED"
"""Set where the tests must not pass by being skipped."""
NEEDS = {"elastic_home", "filebeat_program", "elastic_6_home"}


@pytest.hookimpl(tryfirst=True)  # before the markers choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, "fixturenames", ())
        if NEEDS.intersection(names) and not item.get_closest_marker("elastic"):
            item.add_marker("elastic")
        if "postgres_programs" in names and not item.get_closest_marker("postgres"):
            item.add_marker("postgres")
        if "rabbit_scripts" in names and not item.get_closest_marker("rabbit"):
            item.add_marker("rabbit")


def there(found: Path | None, name: str) -> Path:
    if found is None:
        why = f"{name} is not there; `make servers` fetches it"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def elastic_home() -> Path:
    return there(elastic_server.find(named=load_settings().elasticsearch_home), "Elasticsearch 8")


@pytest.fixture(scope="session")
def elastic_6_home() -> Path:
    found = elastic_server.find(elastic_server.LIFECYCLE)
    if found is None:
        pytest.skip("Elasticsearch 6.8 is not there; `tapewatch servers build --all` fetches it")
    return found


@pytest.fixture(scope="session")
def filebeat_program() -> Path:
    return there(filebeat_server.find(load_settings().filebeat), "Filebeat")


@pytest.fixture(scope="session")
def elastic(elastic_home: Path) -> Iterator[Node]:
    """The session's node, empty at first: starts in twelve seconds. Nobody stops or breaks it."""
    with Node(elastic_home) as node:
        yield node


@pytest.fixture
def elastic_name(elastic: Node) -> Iterator[str]:
    """A name that no other test has; what is called `logs-exchange.*-<name>` or `<name>*` goes with the test."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield name
    for pattern in (f"{name}*", f"logs-exchange.*-{name}"):
        with contextlib.suppress(ElasticStatusError):
            streams = elastic.request("GET", f"/_resolve/index/{pattern}?expand_wildcards=all")
            for stream in streams.get("data_streams", []):
                for index in stream["backing_indices"]:
                    with contextlib.suppress(ElasticStatusError):  # the write index has to stay
                        elastic.request("DELETE", f"/{index}")
            for index in streams.get("indices", []):
                with contextlib.suppress(ElasticStatusError):
                    elastic.request("DELETE", f"/{index['name']}")


@pytest.fixture
def own_elastic(elastic_home: Path) -> Iterator[Callable[..., Node]]:
    """Call for a node of one's own, which may be broken; the arguments are those of `Node`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Node(elastic_home, **options))
