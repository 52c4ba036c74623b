"""`tapewatch edge renew`: what a person is told of a new certificate, and of one that is refused."""

import json

import pytest
from typer.testing import CliRunner

import cli
from control import faults
from control.fault import Plant
from kernel.errors import PermanentError

TOLD = {"serial": "ab12", "not_after": 1_767_225_600.0, "issued": True}


class Book:
    """An address book with an edge, or without."""

    def __init__(self, *workloads):
        self.workloads = dict.fromkeys(workloads, ("one",))


@pytest.fixture
def estate(monkeypatch):
    """Return a function by which an estate answers as told, and the list of what it was asked."""
    asked = []

    def answers(told, *workloads):
        def role(_, *what):
            asked.append(what)
            if isinstance(told, Exception):
                raise told
            return told

        monkeypatch.setattr(Plant, "role", role)
        monkeypatch.setattr(faults, "connect", lambda _: Plant(None, Book(*workloads), "secret"))
        return asked

    return answers


def run(*words):
    return CliRunner().invoke(cli.app, ["edge", "renew", *words])


def test_it_says_which_certificate_is_shown_and_until_when(estate):
    asked = estate(TOLD, "edge")
    said = run()
    assert said.exit_code == 0
    assert "edge-1 shows a new one of the state's own, serial ab12, until 2026-01-01T00:00:00" in said.output
    assert asked == [("POST", "edge-1", "/admin/renew", {})]
    assert json.loads(run("--json").output) == TOLD
    estate(TOLD | {"issued": False}, "edge")
    assert "shows the one that was put there" in run().output


def test_a_refusal_and_an_estate_without_an_edge_are_told_and_end_badly(estate):
    estate(PermanentError("the new certificate is refused: no key"), "edge")
    assert run().exit_code != 0
    estate(TOLD)
    said = run()
    assert said.exit_code != 0
    assert "this estate runs no edge" in said.stderr
