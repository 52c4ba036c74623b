"""The real servers of the contract suites that need one."""

from __future__ import annotations

from tests.kube.conftest import kube, ns, testbed_binary

__all__ = ["kube", "ns", "testbed_binary"]
