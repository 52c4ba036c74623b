from __future__ import annotations

import asyncio
import json

import pytest
from msgspec import structs
from starlette.applications import Starlette

from control import faults
from control.addresses import Addresses, ReplicaAddress, url_of
from control.child import now
from control.errors import RefusedByRailError
from control.fault import Plant
from control.layout import Layout
from control.plan import free_ports
from exchange.adapters.engine_server import ENGINE_FAULTS
from exchange.adapters.http import Faults, HttpServer, listen
from exchange.adapters.market_data_server import FEED_FAULTS
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS
from kernel.errors import InputError, TemporaryError


def test_every_fault_inside_a_role_is_known_to_that_role_and_offered():
    for known in (ENGINE_FAULTS, FEED_FAULTS, SETTLEMENT_FAULTS):
        assert known <= set(faults.FAULTS)


def test_an_unknown_fault_names_those_there_are():
    with pytest.raises(InputError, match="'nothing' is not known; there are gateway-hang, gateway-kill, engine-crash"):
        faults.find("nothing")


def test_without_an_estate_nothing_is_reached(tmp_path):
    with pytest.raises(TemporaryError, match="no estate runs in"):
        faults.connect(tmp_path)


def plant(root, *, allowed=True) -> Plant:
    layout, nobody = Layout(root), url_of(free_ports(1)[0])
    (root / "instruments.json").write_text('[{"symbol": "ACME"}, {"symbol": "BETA"}]')
    addresses = Addresses(
        version=1, phase="up", pid=1, started_at=now(), state=str(root), estate=nobody, control=nobody,
        prometheus=nobody, alertmanager=nobody, market_data=nobody, settlement=nobody, engine=nobody, load=nobody,
        engine_stream_port=1, faults_allowed=allowed,
        workloads={"settlement": (ReplicaAddress("settlement-1", nobody),)},
    )  # fmt: skip
    return Plant(layout, addresses, "")


def test_failpoints_add_up_and_are_cleared(tmp_path):
    made = plant(tmp_path)
    faults.inject(made, "control-crash")
    faults.inject(made, "control-crash", value="after-effect")
    assert json.loads(faults.failpoints(made.layout).read_bytes()) == ["after-effect", "before-effect"]
    faults.clear(made, "control-crash")
    assert not faults.failpoints(made.layout).exists()
    assert len(faults.record(made.layout).read_bytes().splitlines()) == 2


@pytest.mark.parametrize("name", faults.FAULTS)
def test_where_faults_are_not_allowed_each_is_refused_and_none_is_recorded(tmp_path, name):
    made = plant(tmp_path, allowed=False)
    with pytest.raises(RefusedByRailError, match="faults are not allowed on this estate"):
        faults.inject(made, name)
    assert not faults.record(made.layout).exists()
    assert not faults.failpoints(made.layout).exists()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("settlement-slow", "abc", "'abc' is no number"),
        ("settlement-slow", "nan", "more than 0, at most 3600"),
        ("engine-slow-sync", "-5", "more than 0, at most 60"),
        ("load-surge", "inf", "more than 0, at most 1000"),
        ("engine-sync-creep", "fast", "'fast' is no number"),
        ("memory-leak", "0", "more than 0, at most 10000"),
        ("feed-conflation", "1.5", "more than 0, at most 1"),
        ("load-surge", "0", "more than 0"),
        ("feed-gap", "NOPE", "'NOPE' is not known; there are ACME, BETA"),
        ("control-crash", "before-effect,nonsense", "'nonsense' is not known; there are before-effect, after-effect"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_anybody_is_asked(tmp_path, name, value, told):
    made = plant(tmp_path)
    with pytest.raises(InputError, match=told):
        faults.inject(made, name, value=value)
    assert not faults.record(made.layout).exists()


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("gateway-hang", "engine-1", "'engine-1' is none that gateway-hang strikes; its name begins with gateway-"),
        ("engine-crash", "gateway-1", "its name begins with engine-, such as engine-1"),
        ("load-surge", "engine-1", "its name begins with load-"),
        ("prometheus-down", "engine", "its name begins with prometheus"),
    ],
)
def test_a_target_of_another_kind_is_refused_before_anybody_is_asked(tmp_path, name, target, told):
    made = plant(tmp_path)
    for change in (faults.inject, faults.clear):
        with pytest.raises(InputError, match=told):
            change(made, name, target=target)
    assert not faults.record(made.layout).exists()


def test_what_is_not_taken_back_by_hand_is_said_to_be(tmp_path):
    made = plant(tmp_path)
    told = faults.clear(made, "gateway-kill")
    assert told == "gateway-kill is not taken back by hand: its alert's runbook restarts it"
    assert faults.clear(made, "control-crash") == "control-crash is not at control-1: nothing was done"


def test_a_fault_that_could_not_be_injected_is_not_recorded(tmp_path):
    made = plant(tmp_path)
    with pytest.raises(TemporaryError, match="does not answer"):
        faults.inject(made, "settlement-slow")
    assert not faults.record(made.layout).exists()


async def test_a_running_estate_is_asked_what_its_processes_suffer_and_who_is_silent_is_left_out(tmp_path):
    suffering = Faults(frozenset({"settlement-slow", "memory-leak"}), allowed=True)
    server = HttpServer(Starlette(routes=suffering.routes("admin-secret")), listen(0))
    await server.start()
    try:
        calm = plant(tmp_path)
        silent = ReplicaAddress("settlement-2", calm.addresses.estate)
        replicas = (ReplicaAddress("settlement-1", url_of(server.port)), silent)
        made = Plant(calm.layout, structs.replace(calm.addresses, workloads={"settlement": replicas}), "admin-secret")
        assert await asyncio.to_thread(faults.active, made) == {}
        await asyncio.to_thread(faults.inject, made, "settlement-slow", value="2.5")
        await asyncio.to_thread(faults.inject, made, "memory-leak")
        assert await asyncio.to_thread(faults.active, made) == {
            "settlement-slow": {"settlement-1": "2.5"}, "memory-leak": {"settlement-1": "12.0"},
        }  # fmt: skip
        with pytest.raises(InputError, match="settlement-1 knows no feed-stall; `tapewatch fault list` says where"):
            await asyncio.to_thread(faults.inject, made, "feed-stall", target="settlement-1")
        assert "cleared" in await asyncio.to_thread(faults.clear, made, "settlement-slow")
        told = await asyncio.to_thread(faults.clear, made, "settlement-slow")
        assert told == "settlement-slow is not at settlement-1: nothing was done"
        with pytest.raises(InputError, match="settlement-1 knows no feed-stall; `tapewatch fault list` says where"):
            await asyncio.to_thread(faults.clear, made, "feed-stall", target="settlement-1")
        assert await asyncio.to_thread(faults.active, made) == {"memory-leak": {"settlement-1": "12.0"}}
    finally:
        await server.stop()
