"""One test bed a session, one namespace a test, a test bed of one's own for what breaks things.

Session state that is not in a namespace (nodes, admission policies, cluster roles) is put back by whoever made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.settings import load_settings
from control.testbed import build
from control.testbed.cluster import Cluster
from tests.kube.audit import Audit, new_namespace
from tests.kube.plant import Plant

REQUIRED = "TESTBED_REQUIRED"
"""Set where the tests must not pass by being skipped."""


@pytest.hookimpl(tryfirst=True)  # before the markers choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("kube")


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
def plant(kube: Cluster, ns: str) -> Plant:
    """A small exchange to be made in `ns`."""
    return Plant(kube, ns)


@pytest.fixture
def own_kube(testbed_binary: Path) -> Iterator[Cluster]:
    """A test bed of one node of one's own: it may be broken. Starts in five seconds."""
    with Cluster(testbed_binary, nodes=1) as cluster:
        yield cluster


@pytest.fixture
def audit() -> Callable[[Cluster], Audit]:
    """Call with a test bed: a reader of what is asked of it from now on."""
    return Audit
