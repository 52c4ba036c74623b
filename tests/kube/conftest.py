"""One test bed a session, one namespace a test, a test bed of one's own for what breaks things.

Session state that is not in a namespace (nodes, admission policies, cluster roles) is put back by whoever made it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control.settings import load_settings
from control.testbed import build
from control.testbed.cluster import Cluster

REQUIRED = "TESTBED_REQUIRED"
"""Set where the tests must not pass by being skipped."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and not item.get_closest_marker("kube"):
            pytest.fail(f"{item.nodeid} has no marker kube", pytrace=False)


@pytest.fixture(scope="session")
def testbed_binary() -> Path:
    found = build.find(load_settings().testbed)
    if found is None:
        why = "the test bed is not built; `make test-kube` builds it"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def kube(testbed_binary: Path) -> Iterator[Cluster]:
    """A test bed of three nodes that the tests share. Nothing in it is killed or stopped."""
    with Cluster(testbed_binary, nodes=3) as cluster:
        yield cluster


@pytest.fixture
def ns(kube: Cluster) -> Iterator[str]:
    """A namespace of one's own in `kube`, in which pods can be made at once."""
    name = new_namespace(kube)
    yield name
    kube.request("DELETE", f"/api/v1/namespaces/{name}")  # not waited for: it takes five seconds


@pytest.fixture
def own_kube(testbed_binary: Path) -> Iterator[Cluster]:
    """A test bed of one node of one's own: it may be broken. Starts in five seconds."""
    with Cluster(testbed_binary, nodes=1) as cluster:
        yield cluster


@pytest.fixture
def audit() -> Callable[[Cluster], Audit]:
    """Call with a test bed: a reader of what is asked of it from now on."""
    return Audit


class Audit:
    """What the API server was asked since this was made, or since the last `mark`."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.audit_log
        self._from = 0
        self.mark()

    def mark(self) -> None:
        """Forget what was asked before."""
        self._from = self._path.stat().st_size

    def records(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the records, oldest first; `verb="patch"`, `resource=`, `subresource=`, `namespace=`, `name=`,
        `user=` narrow them. A record may come a moment after its answer."""
        with self._path.open("rb") as file:
            file.seek(self._from)
            lines = file.read().split(b"\n")[:-1]
        found = [json.loads(line) for line in lines]
        return [one for one in found if all(_field(one, name) == value for name, value in wanted.items())]

    def writes(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the records of what changes something, dry runs included."""
        return [one for one in self.records(**wanted) if one["verb"] not in {"get", "list", "watch"}]


def _field(record: dict[str, Any], name: str) -> Any:
    if name == "verb":
        return record["verb"]
    if name == "user":
        return record.get("user", {}).get("username", "")
    return record.get("objectRef", {}).get(name, "")


def new_namespace(cluster: Cluster, name: str = "") -> str:
    """Make a namespace and wait until pods can be made in it."""
    name = name or f"t-{uuid.uuid4().hex[:8]}"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    cluster.wait("the default service account", lambda: cluster.request("GET", account), timeout_s=30)
    return name
