from __future__ import annotations

import json

import pytest

from control import faults
from control.layout import Layout
from exchange.adapters.engine_server import ENGINE_FAULTS
from exchange.adapters.market_data_server import FEED_FAULTS
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS
from kernel.errors import InputError, TemporaryError


def test_every_fault_inside_a_role_is_known_to_that_role_and_offered():
    for known in (ENGINE_FAULTS, FEED_FAULTS, SETTLEMENT_FAULTS):
        assert known <= set(faults.FAULTS)


def test_an_unknown_fault_names_those_there_are():
    with pytest.raises(InputError, match="'nothing' is not known; there are gateway-hang, engine-crash"):
        faults.find("nothing")


def test_without_an_estate_nothing_is_reached(tmp_path):
    with pytest.raises(TemporaryError, match="no estate runs in"):
        faults.connect(tmp_path)


def test_failpoints_add_up_and_are_cleared(tmp_path):
    plant = faults.Plant(Layout(tmp_path), None, "")  # type: ignore[arg-type] # a failpoint is a file: no address is asked
    faults.inject(plant, "control-crash")
    faults.inject(plant, "control-crash", value="after-effect")
    assert json.loads(faults.failpoints(plant.layout).read_bytes()) == ["after-effect", "before-effect"]
    faults.clear(plant, "control-crash")
    assert not faults.failpoints(plant.layout).exists()
    assert len(faults.record(plant.layout).read_bytes().splitlines()) == 2
