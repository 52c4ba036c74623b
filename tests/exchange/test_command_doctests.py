# mypy: disable-error-code="arg-type"
"""Every command and every type of order has an example that is true, and says which events and reasons it has."""

import doctest
from typing import get_args

import pytest

from exchange import commands, types
from exchange.engine import Engine
from exchange.events import Event

COMMANDS = get_args(commands.Command)
TERMS = get_args(commands.Terms)


def example(kind):
    """The doctest of a class, read from its docstring: a compiled module has it, too."""
    names = {**vars(types), **vars(commands), "kinds": kinds, "engine": Engine([types.Instrument("AAA", 100, 50)])}
    return doctest.DocTestParser().get_doctest(kind.__doc__, names, kind.__name__, None, None)


def kinds(events):
    return [type(one).__name__ for one in events]


@pytest.mark.parametrize("kind", [*COMMANDS, *TERMS])
def test_the_example_of_a_command_is_true(kind):
    told = []
    found = doctest.DocTestRunner().run(example(kind), out=told.append)
    assert found.attempted > 0, f"{kind.__name__} has no example"
    assert found.failed == 0, "".join(told)


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_tells_its_events_and_what_it_may_be_rejected_for(kind):
    text = " ".join(kind.__doc__.split())
    assert "Events: " in text
    assert "Rejected: " in text or "Never rejected for more than its key" in text
    words = set(types.RejectReason) | {f"`{one.__name__}`" for one in get_args(Event)}
    assert any(word in text for word in words)
