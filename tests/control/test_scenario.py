"""Scenarios are data: each is complete, and each kind of link can be seen."""

from typing import get_args

import pytest

from control import scenario
from control.links import _SEE
from control.scenario import LinkKind, load_scenario, names
from kernel.errors import InputError


def test_every_kind_of_link_has_an_eye():
    assert set(_SEE) == set(get_args(LinkKind))


def test_every_file_is_in_the_order_and_the_other_way_round():
    assert sorted(names()) == sorted(path.stem for path in scenario.DRILLS.glob("*.yaml"))
    assert len(names()) == 11


@pytest.mark.parametrize("name", names())
def test_a_scenario_is_whole(name):
    one = load_scenario(name)
    assert one.name == name
    assert one.title
    assert one.story
    assert one.outcome
    assert one.links
    assert len({link.name for link in one.links}) == len(one.links)


def test_an_unknown_scenario_names_those_there_are():
    with pytest.raises(InputError, match="gateway-hang"):
        load_scenario("nothing")
    with pytest.raises(InputError):
        load_scenario("../pyproject")


@pytest.mark.parametrize(
    "text",
    ["[", "title: x", "title: x\nstory: y\nacts: []\nlinks: [{name: a, see: dreams}]\noutcome: z",
     "title: x\nstory: y\nacts: [{do: await, name: b}]\nlinks: [{name: a, see: paged}]\noutcome: z"],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_name(tmp_path, monkeypatch, text):
    monkeypatch.setattr(scenario, "DRILLS", tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    (tmp_path / "order.txt").write_text("x\n")
    with pytest.raises(InputError, match=r"x\.yaml"):
        load_scenario("x")
