"""Bounds of accounts are read as a person writes them, each service is told its own, and wrong ones are named."""

import pytest

from control import server_plan
from control.config import SagaTuning
from control.saga_bounds import rules_of
from control.servers.catalogue import SAGA_PARTS
from control.settings import Settings, load_settings
from exchange.saga import Rules
from kernel.errors import InputError

BOUNDS = {"*": {"cash": -1_000_000, "lots": -5}, "p7": {"cash": 0.5, "fees": -3}, "p8": {"cash": None}}


def rules(settings: Settings) -> dict[str, Rules]:
    return {
        replica.removeprefix("saga-").removesuffix("-1"): rules_of(server_plan.saga_tuning(settings, replica))
        for replica in SAGA_PARTS
    }


def test_each_service_is_told_its_own_bounds_in_what_it_counts():
    told = rules(Settings(saga_bounds=BOUNDS, saga_suspended=("p9",)))
    assert told == {
        "coordinator": Rules(),
        "cash": Rules(-1_000_000_000_000, least_of={"p7": 500_000, "p8": None}),
        "securities": Rules(-5),
        "fees": Rules(None, least_of={"p7": -3_000_000}),
        "clearing": Rules(suspended=frozenset({"p9"})),
    }


def test_nothing_is_refused_unless_it_is_said():
    assert all(one == Rules() and not one.bounded for one in rules(Settings()).values())


def test_the_coordinator_alone_is_told_how_long_to_keep():
    assert server_plan.saga_tuning(Settings(saga_keep_days=2), "saga-coordinator-1") == SagaTuning(
        part="coordinator", keep_s=172_800.0
    )
    assert server_plan.saga_tuning(Settings(saga_keep_days=2), "saga-cash-1") == SagaTuning(part="cash")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('{"*": {"csh": 1}}', r"made of cash, lots, fees; csh is none of them"),
        ('{"$escrow": {"cash": 1}}', r"the name of an account; what begins with \$ is the exchange's own"),
        ('{"a b": {}}', r"printable ASCII without spaces, or \* for all"),
        ('{"p": {"cash": 0.0000001}}', "at most 1000000000000 units and six decimals"),
        ('{"p": {"cash": 1e13}}', "at most 1000000000000 units and six decimals"),
        ('{"p": {"cash": "much"}}', "a valid decimal"),
        ('{"p": {"lots": 1.5}}', "a valid integer"),
        ('{"p": 3}', r"of the form \{cash: ..., lots: ..., fees: ...\}"),
        ("cats", "error parsing value for field"),
    ],
)
def test_a_wrong_bound_is_refused_with_what_it_should_be(monkeypatch, value, why):
    monkeypatch.setenv("TAPEWATCH_SAGA_BOUNDS", value)
    with pytest.raises(InputError, match=why):
        load_settings()


def test_all_accounts_cannot_be_suspended_for_that_would_suspend_nobody(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_SAGA_SUSPENDED", '["p1", "*"]')
    with pytest.raises(InputError, match=r"setting saga_suspended .* one account, not \*"):
        load_settings()


def test_a_suspended_account_is_a_name(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_SAGA_SUSPENDED", '["$fees"]')
    with pytest.raises(InputError, match=r"setting saga_suspended .* the exchange's own"):
        load_settings()
