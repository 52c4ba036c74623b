"""Scenarios are data: each is complete, and each kind of link can be seen."""

from typing import get_args

import pytest

from control import faults, scenario
from control.links import _SEE
from control.scenario import LinkKind, load_scenario, names
from kernel.errors import InputError


def test_every_kind_of_link_has_an_eye():
    assert set(_SEE) == set(get_args(LinkKind))


def test_every_file_is_in_the_order_and_the_other_way_round():
    assert sorted(names()) == sorted(path.stem for path in scenario.DRILLS.glob("*.yaml"))
    assert sorted(names("distributed")) == sorted(
        path.stem for path in (scenario.DRILLS / "distributed").glob("*.yaml")
    )
    assert len(names()) == 16


@pytest.mark.parametrize("name", names())
def test_a_scenario_is_whole(name):
    one = load_scenario(name)
    assert one.name == name
    assert one.title
    assert one.story
    assert one.outcome
    assert one.links
    assert len({link.name for link in one.links}) == len(one.links)


@pytest.mark.parametrize("place", ["local", "distributed", "kubernetes"])
def test_every_fault_of_a_scenario_is_known_there_and_strikes_what_it_names(place):
    scenarios = [load_scenario(name, place) for name in names(place)]
    acts = [act for one in scenarios for act in (*one.prepare, *one.acts) if act.do in {"fault", "clear"}]
    assert acts
    for act in acts:
        fault = faults.find(act.name, place)
        assert (act.target or fault.target).startswith(fault.strikes), (act.name, act.target)


def test_an_unknown_scenario_names_those_there_are():
    with pytest.raises(InputError, match="gateway-hang"):
        load_scenario("nothing")
    with pytest.raises(InputError):
        load_scenario("../pyproject")


def test_a_scenario_of_another_kind_of_estate_is_told_with_its_option():
    with pytest.raises(InputError, match="it is there with --estate distributed"):
        load_scenario("broker-loss")
    with pytest.raises(InputError, match="it is there with --estate distributed"):
        load_scenario("region-loss", "kubernetes")
    with pytest.raises(InputError, match="region-loss and all"):
        load_scenario("nothing", "distributed")


HEAD = "title: x\nstory: y\noutcome: z\n"
CALM = HEAD + "acts: []\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", r"x\.yaml:2: no YAML"),
        ("title: x", r"x\.yaml:1: is no scenario: .*story"),
        (
            CALM + "links:\n  - {name: a, see: paged}\n  - {name: b, see: dreams}",
            r"x\.yaml:7: is no scenario: .*dreams",
        ),
        (HEAD + "acts: [{do: await, name: b}]\nlinks: [{name: a, see: paged}]", r"x\.yaml:4: awaits the link 'b'"),
        (
            CALM + "links:\n  - name: a\n    see: paged\n    after: b",
            r"x\.yaml:8: awaits the link 'b'; its links are a",
        ),
        (
            CALM + "links:\n  - {name: a, see: alert}",
            r"x\.yaml:6: the link 'a' says no alertname; alert needs alertname",
        ),
        (CALM + "links:\n  - {name: a, see: before, alertname: A}", r"x\.yaml:6: .*says no families; before needs"),
        (
            CALM + "links:\n  - name: a\n    see: no_page\n    families: [ordres]",
            r"x\.yaml:8: 'ordres' is no file of rules",
        ),
        (CALM + "links: [{name: a, see: cause}]", r"x\.yaml:5: .*says no service"),
        (CALM + "links: [{name: a, see: finding, text: '('}]", r"x\.yaml:5: is no regular expression"),
        (CALM + "links: [{name: a, see: reading, query: q, holds: about 3}]", r"x\.yaml:5: 'about 3' is no relation"),
        (CALM + "warm: {query: q, holds: '=< 1'}\nlinks: []", r"x\.yaml:5: '=< 1' is no relation"),
        (CALM + "day:\n  - {phase: noon, at_s: 1}\nlinks: []", r"x\.yaml:6: is no scenario: .*noon"),
        (
            CALM + "day:\n  - {phase: closed, at_s: 1}\n  - {phase: pre_open, at_s: 1}\nlinks: []",
            r"x\.yaml:7: .* no later",
        ),
        (CALM + "day: [{phase: continuous, at_s: 1}]\nlinks: []", r"x\.yaml:5: the day does not close"),
        (
            HEAD + "acts: [{do: phase, name: closed}]\nlinks: []",
            r"x\.yaml:4: awaits the phase 'closed'; day turns to none",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_line(tmp_path, monkeypatch, text, told):
    monkeypatch.setattr(scenario, "DRILLS", tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    (tmp_path / "order.txt").write_text("x\n")
    with pytest.raises(InputError, match=told):
        load_scenario("x")
