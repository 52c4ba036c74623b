"""The simulation can fail: one planted bug per guard, each noticed within 50 seeds, and all of them on a page."""

import pytest

from tests.sim.planted import BUGS, PAGE, ROW, SEEDS, caught, told
from tests.sim.rail_cases import complaints as rail_complaints
from tests.sim.rail_cases import rails

QUICK = {"rails", "proofs"}
BY_NAME = {bug.name: bug for bug in BUGS}


@pytest.mark.parametrize("name", [bug.name for bug in BUGS if bug.where in QUICK])
def test_a_planted_bug_is_noticed_at_once(name, tmp_path):
    assert caught(BY_NAME[name], tmp_path) is not None


@pytest.mark.parametrize(
    "name", ["takes_over_at_once", "old_epochs_are_accepted", "the_ledger_forgets", "writes_are_not_compared"]
)
def test_a_planted_bug_of_the_election_or_the_ledger_is_noticed(name, tmp_path):
    assert caught(BY_NAME[name], tmp_path) is not None


@pytest.mark.long
@pytest.mark.parametrize("name", [bug.name for bug in BUGS if bug.where not in QUICK])
def test_every_planted_bug_is_noticed_within_fifty_seeds(name, tmp_path):
    assert caught(BY_NAME[name], tmp_path) is not None, f"{BY_NAME[name].what}: nobody noticed within {SEEDS} seeds"


def test_the_rails_are_right_about_everything_when_nothing_is_planted():
    for seed in range(200):
        assert not rail_complaints(seed), seed


def test_every_rail_is_planted_against():
    assert {f"no_{name}" for name in rails()} <= set(BY_NAME)
    assert len(rails()) >= 20


def test_the_page_lists_every_planted_bug_where_it_is_noticed():
    page = told()
    assert len(ROW.findall(PAGE.read_text())) == len(page), "each once"
    assert {name: where for name, (where, _) in page.items()} == {bug.name: bug.where for bug in BUGS}
    assert all(0 <= seed < SEEDS for _, seed in page.values())
