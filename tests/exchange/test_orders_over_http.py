"""Every kind of order, mass cancels and the operators' commands, as HTTP takes them."""

from __future__ import annotations

import json

import aiohttp
import pytest

from exchange.adapters.engine_http import engine_app
from exchange.adapters.http import HttpServer, listen
from exchange.adapters.orders_json import BadOrderError, read_mass_cancel, read_place
from exchange.commands import Limit, Market, MassCancel, Stop, StopLimit
from exchange.recording import RecordingExposition
from exchange.types import TradingPhase
from tests.exchange.plant import AAA, engine
from tests.exchange.test_gateway import ORDER, plant

BARE = {key: value for key, value in ORDER.items() if key != "price"}
ADMIN = {"Authorization": "Bearer admin-secret"}


def terms(**changes):
    return read_place(json.dumps(BARE | changes).encode()).terms


def test_each_type_of_order_is_read():
    assert terms(price=9, post_only=True, display=2) == Limit(9, post_only=True, display=2)
    assert terms(price=9, all_or_none=True) == Limit(9, all_or_none=True)
    assert terms(type="market") == Market()
    assert terms(type="stop", trigger=8) == Stop(8)
    assert terms(type="stop_limit", trigger=8, price=9, display=1) == StopLimit(8, 9, 1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "price"),
        ({"type": "market", "price": 9}, "price"),
        ({"type": "stop"}, "trigger"),
        ({"type": "stop", "trigger": 8, "price": 9}, "price"),
        ({"price": 9, "trigger": 8}, "trigger"),
        ({"type": "market", "post_only": True}, "post_only"),
        ({"type": "stop_limit", "trigger": 8, "price": 9, "all_or_none": True}, "all_or_none"),
        ({"type": "stop", "trigger": 8, "display": 1}, "display"),
    ],
)
def test_a_field_its_type_has_no_use_for_is_named(changes, field):
    with pytest.raises(BadOrderError, match=f"^{field}: "):
        terms(**changes)


def test_a_mass_cancel_is_read_from_its_query():
    query = {"account": "ann", "client_id": "x", "symbol": "AAA", "side": "buy", "session": "s1"}
    assert read_mass_cancel(query) == MassCancel("ann", "x", "AAA", "buy", "s1")
    with pytest.raises(BadOrderError, match=r"^query: "):
        read_mass_cancel({"account": "ann"})


async def test_hidden_and_waiting_orders_are_told_as_open_and_a_mass_cancel_takes_them(tmp_path):
    async with plant(tmp_path) as (running, front):
        for client_id, changes in (("i", {"display": 2}), ("a", {"all_or_none": True}), ("s", {"session": "s1"})):
            status, told, _ = await front.place(client_id=client_id, **changes)
            assert (status, told["status"], told["resting"]) == (201, "accepted", 5)
        stop = BARE | {"client_id": "t", "type": "stop", "trigger": 1100}
        status, told, _ = await front.call("POST", "/v1/orders", stop)
        assert (status, told["resting"]) == (201, 5)
        status, told, _ = await front.call("DELETE", "/v1/orders?account=ann&client_id=m1&session=s1")
        assert (status, told["status"], told["canceled"]) == (201, "canceled", 5)
        status, told, _ = await front.call("DELETE", "/v1/orders?account=ann&client_id=m2")
        assert (status, told["canceled"]) == (201, 15)
        assert running.server._sequencer.engine.resting_orders == 0


async def test_operators_turn_phases_fund_and_switch_accounts(tmp_path):
    async with engine(tmp_path) as running:
        app = engine_app(running.server, RecordingExposition(), running.faults, "admin-secret")
        server = HttpServer(app, listen(0))
        await server.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", headers=ADMIN) as session:

                async def ask(name, **body):
                    async with session.post(f"/admin/{name}", json={"key": name, **body}) as answer:
                        return answer.status

                assert await ask("phase", phase="pre_open") == 200
                assert await ask("fund", account="ann", asset="$cash", amount=5) == 200
                assert await ask("account", account="ann", enabled=False) == 200
                assert await ask("fund", account="ann", asset="XYZ", amount=5) == 422
                assert await ask("fund", account="ann lee", asset="$cash", amount=5) == 400
                assert await ask("account", account="ann lee", enabled=False) == 400
                assert await ask("account", key="k", account="ann lee", enabled=True) == 200
                assert await ask("phase", phase="lunch") == 400
                assert await ask("resume", auction="yes") == 400
                for amount in (10**30, 2**63, 1.5, "5", True, None):
                    assert await ask("fund", account="ann", asset="$cash", amount=amount) == 400
                async with session.post("/admin/phase", json={"key": "x", "phase": "lunch"}) as answer:
                    assert "right: pre_open, opening_auction, continuous" in (await answer.json())["error"]
                for token in ("trade-secret", ""):
                    headers = {"Authorization": f"Bearer {token}"}
                    for name in ("phase", "fund", "account", "resume"):
                        async with session.post(f"/admin/{name}", json={}, headers=headers) as answer:
                            assert answer.status == 401
                inner = running.server._sequencer.engine
                assert inner.phase(AAA) is TradingPhase.PRE_OPEN
                assert inner.balance("ann", "$cash") == 5
                assert inner.disabled_accounts() == ("ann",)
        finally:
            await server.stop()
