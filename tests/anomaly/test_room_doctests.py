"""The examples in the room's own modules are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import anomaly
from anomaly import channels

MODULES = sorted(
    one.name
    for where in (anomaly, channels)
    for one in pkgutil.iter_modules(where.__path__, prefix=where.__name__ + ".")
    if not one.ispkg
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("anomaly.channels.")])
def test_every_channel_has_a_seeded_example(name):
    tests = doctest.DocTestFinder().find(importlib.import_module(name))
    assert any(one.examples for one in tests)
