"""Every kind of order over HTTP: what is taken, what the answer tells, what is turned away before the engine."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
from yarl import URL

from exchange.adapters.orders_json import (
    MAX_NUMBER,
    BadOrderError,
    OrderType,
    PlaceBody,
    read_cancel,
    read_mass_cancel,
    read_place,
    read_replace,
)
from exchange.answers import OrderAnswer, OrderState, Status
from exchange.commands import Limit, Market, MassCancel, Stop, StopLimit
from exchange.shards import whole_id
from exchange.types import CancelReason, SelfTrade, Side, TimeInForce
from kernel.time import SECOND, to_rfc3339
from tests.exchange.plant import client_of, engine
from tests.exchange.test_gateway import ORDER, TOKEN, gateway

MEMBERS = {
    "type": "stop_limit", "trigger": 1010, "display": 2, "time_in_force": "gtt", "expires_at": "2126-03-02T09:30:00Z",
    "self_trade": "cancel_both", "session": "s-1",
}  # fmt: skip


@asynccontextmanager
async def front(root):
    async with engine(root) as running, client_of(running.port) as client, gateway(client) as http:
        yield running, http


def read(**changes):
    return read_place(json.dumps(ORDER | changes).encode())


def without_price(**changes):
    return read_place(json.dumps({key: value for key, value in ORDER.items() if key != "price"} | changes).encode())


# --- reading ---------------------------------------------------------------------------------------------------------


def test_an_order_of_the_old_members_is_read_as_it_was():
    order = read()
    assert (order.terms, order.time_in_force, order.expires_at) == (Limit(1000), TimeInForce.DAY, 0)
    assert (order.self_trade, order.session) == (SelfTrade.NONE, "")
    assert without_price(type="market", time_in_force="ioc").terms == Market()


def test_every_member_reaches_the_command():
    order = read(**MEMBERS)
    assert order.terms == StopLimit(1010, 1000, 2)
    assert (order.time_in_force, order.expires_at) == (TimeInForce.GTT, 4_928_117_400 * SECOND)
    assert (order.self_trade, order.session) == (SelfTrade.CANCEL_BOTH, "s-1")
    assert read(post_only=True).terms == Limit(1000, post_only=True)
    assert read(display=2).terms == Limit(1000, display=2)
    assert read(all_or_none=True).terms == Limit(1000, all_or_none=True)
    assert without_price(type="stop", trigger=1010).terms == Stop(1010)


def test_an_expiry_in_nanoseconds_is_kept_to_the_last_one():
    assert read(time_in_force="gtt", expires_at=2**63 - 1).expires_at == 2**63 - 1
    assert read(time_in_force="gtt", expires_at="1970-01-01T00:00:00.000000001Z").expires_at == 1


def test_a_replace_takes_a_trigger_and_need_not_name_a_price():
    change = read_replace("7", json.dumps({"account": "a", "client_id": "b", "quantity": 3, "trigger": 1011}).encode())
    assert (change.order_id, change.quantity, change.price, change.trigger) == (7, 3, 0, 1011)
    change = read_replace("7", json.dumps({"account": "a", "client_id": "b", "quantity": 3, "price": 9}).encode())
    assert (change.price, change.trigger) == (9, None)


@pytest.mark.parametrize("partition", [0, 7, 8, 63])
def test_the_id_of_an_order_of_any_engine_is_read(partition):
    for number in (whole_id(partition, 1), whole_id(partition + 1, 0) - 1 if partition < 63 else MAX_NUMBER):
        assert read_cancel(str(number), {"account": "a", "client_id": "b"}).order_id == number


@pytest.mark.parametrize("text", [str(MAX_NUMBER + 1), "9" * 17, "-1", "", "1e3", "\u0663"])
def test_what_is_no_id_of_an_order_is_refused(text):
    with pytest.raises(BadOrderError, match="order_id: a whole number is needed"):
        read_cancel(text, {"account": "a", "client_id": "b"})


def test_a_mass_cancel_takes_symbol_side_and_session():
    body = {"account": "ann", "client_id": "m", "symbol": "AAA", "side": "sell", "session": "s"}
    assert read_mass_cancel(body) == MassCancel("ann", "m", "AAA", Side.SELL, "s")
    assert read_mass_cancel({"account": "ann", "client_id": "m"}) == MassCancel("ann", "m")


NUMBERS = ("quantity", "price", "trigger", "display")
NUMBERS_WRONG: tuple[object, ...] = (0, -1, 2**63, 10**30, 1.5, 1e300, "5", True, [], {}, "ß")
NAMES_WRONG: tuple[object, ...] = (
    "", "x" * 65, "Zoë", "a b", "a\nb", "\u0000", "\U0001f600", 5, 1.5, True, [], {},
)  # fmt: skip
CHOICES_WRONG: tuple[object, ...] = ("none of them", "BUY", "", "köpfen", 1, True, None, [], {})
FLAGS_WRONG: tuple[object, ...] = ("true", 1, 0, None, [], {})
TIMES_WRONG: tuple[object, ...] = (
    0, -1, 2**63, 1.5, True, [], {}, "", "tomorrow", "2126-03-02", "2126-13-02T09:30:00Z", "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z", "2126-03-02T09:30:00", "٢126-03-02T09:30:00Z", "x" * 4_000,
)  # fmt: skip
WRONG: list[tuple[str, object]] = [
    *product(NUMBERS, NUMBERS_WRONG),
    *product(("account", "client_id", "symbol", "session"), NAMES_WRONG),
    *product(("side", "type", "time_in_force", "self_trade"), CHOICES_WRONG),
    *product(("post_only", "all_or_none"), FLAGS_WRONG),
    *product(("expires_at",), TIMES_WRONG),
]
RIGHT = {
    **dict.fromkeys(NUMBERS, "whole "),
    **dict.fromkeys(("account", "client_id", "symbol", "session"), "1 to 64 printable ASCII characters"),
    "side": "buy or sell", "type": "limit, market, stop or stop_limit", "time_in_force": "day, ioc, fok, gtc or gtt",
    "self_trade": "none, cancel_newest, cancel_oldest, cancel_both or decrement",
    "post_only": "true or false", "all_or_none": "true or false", "expires_at": "RFC 3339 such as",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda one: str(one)[:20])
def test_a_wrong_value_is_named_with_its_member_and_what_would_be_right(name, value):
    with pytest.raises(BadOrderError) as caught:
        read(**MEMBERS | {name: value})
    assert name in str(caught.value)
    assert RIGHT[name] in str(caught.value)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", ".5", "0x10", "1_000"])
def test_what_json_has_no_number_for_is_named_with_its_member(name, word):
    text = json.dumps(ORDER | MEMBERS | {name: 12345}).replace("12345", word)
    with pytest.raises(BadOrderError, match=rf"`{name}`; right: whole"):
        read_place(text.encode())


@pytest.mark.parametrize(
    "body", [b'{"side":"\xed\xa0\xbd"}', b'{"\xff":1}', b'{"account":"\\ud83d"}', b'{"\\ud83d":1}']
)
def test_text_that_is_no_unicode_is_refused(body):
    for reading in (read_place, lambda data: read_replace("1", data)):
        with pytest.raises(BadOrderError, match=r"no JSON|unknown field"):
            reading(body)


def test_an_unknown_member_is_named_and_the_known_ones_are_told():
    with pytest.raises(BadOrderError, match=r"unknown field `pricé`; there are account, client_id, .*, session"):
        read(pricé=5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "market"}, "price: a market order has none; leave it out, or make `type` limit or stop_limit"),
        ({"trigger": 5}, "trigger: a limit order has none; leave it out, or make `type` stop or stop_limit"),
        ({"type": "stop", "trigger": 5}, "price: a stop order has none"),
        ({"type": "stop", "price": None}, "trigger: a stop order needs one, in whole ticks"),
        ({"type": "stop_limit"}, "trigger: a stop_limit order needs one"),
        ({"type": "stop_limit", "price": None, "trigger": 5}, "price: a stop_limit order needs one"),
        ({"price": None}, "price: a limit order needs one"),
        ({"type": "market", "price": None, "post_only": True}, "post_only: a market order has none; .* `type` limit"),
        ({"type": "market", "price": None, "all_or_none": True}, "all_or_none: a market order has none"),
        ({"type": "market", "price": None, "display": 1}, "display: a market order has none"),
        ({"type": "stop_limit", "trigger": 5, "post_only": True}, "post_only: a stop_limit order has none"),
        ({"time_in_force": "gtt"}, "expires_at: an order of `time_in_force` gtt needs one; RFC 3339"),
        ({"expires_at": "2126-03-02T09:30:00Z"}, "expires_at: an order of `time_in_force` day has none; .* say gtt"),
        ({"time_in_force": "gtc", "expires_at": 5}, "expires_at: an order of `time_in_force` gtc has none"),
    ],
)
def test_members_that_do_not_go_with_the_type_are_named(changes, words):
    with pytest.raises(BadOrderError, match=words):
        read(**changes)


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_nothing_that_is_malformed_reaches_the_engine(tmp_path):
    async with front(tmp_path) as (running, http):
        for name, value in WRONG[::3]:
            status, problem, _ = await http.place(**MEMBERS | {name: value})
            assert (status, problem["status"]) == (400, "bad_request")
            assert name in problem["error"]
        nan = json.dumps(ORDER).replace("1000", "NaN").encode()
        for body in (nan, b'{"side":"\xed\xa0\xbd"}'):
            assert (await http.call("POST", "/v1/orders", body))[0] == 400
            assert (await http.call("PATCH", "/v1/orders/1", body))[0] == 400
        for query, words in (
            ("", "`account`"), ("account=ann", "`client_id`"), ("account=ann&client_id=m&side=up", "buy or sell"),
            ("account=ann&client_id=m&symbol=", "`symbol`"), ("account=ann&client_id=m&session=%C3%9F", "`session`"),
            ("account=ann&client_id=m&sid=buy", "unknown field `sid`; there are account, client_id, symbol, side"),
        ):  # fmt: skip
            status, problem, _ = await http.call("DELETE", f"/v1/orders?{query}")
            assert (status, words in problem["error"]) == (400, True), problem
        # The cancel of one order whose id got lost on the way cancels nothing, not everything.
        assert (await http.call("DELETE", "/v1/orders/?account=ann&client_id=m"))[0] == 400
        assert running.telemetry.commands == 0
        assert (await http.place())[0] == 201


async def test_a_filled_a_partly_filled_and_a_cancelled_order_are_told_apart(tmp_path):
    async with front(tmp_path) as (_, http):
        _, rested, _ = await http.place(client_id="a", quantity=10)
        assert (rested["state"], rested["resting"]) == ("resting", 10)
        sell = {"side": "sell", "account": "bob"}
        _, filled, _ = await http.place(client_id="b", quantity=4, **sell)
        assert (filled["state"], filled["filled"], filled["fills"][0]["quantity"]) == ("filled", 4, 4)
        _, partly, _ = await http.place(client_id="c", quantity=8, **sell)
        assert (partly["state"], partly["filled"], partly["resting"]) == ("partly_filled", 6, 2)
        _, ioc, _ = await http.place(client_id="d", quantity=5, time_in_force="ioc")
        assert (ioc["state"], ioc["filled"], ioc["canceled"]) == ("canceled", 2, 3)
        assert ioc["cancel_reason"] == "ioc_remainder"
        _, fok, _ = await http.place(client_id="e", time_in_force="fok")
        assert (fok["state"], fok["canceled"], fok["cancel_reason"]) == ("canceled", 5, "fok_unfilled")
        _, unseen, _ = await http.place(client_id="f", all_or_none=True)
        assert (unseen["state"], unseen["resting"]) == ("waiting", 5)


async def test_post_only_and_iceberg_do_over_http_what_they_do_in_the_engine(tmp_path):
    async with front(tmp_path) as (running, http):
        _, iceberg, _ = await http.place(client_id="a", quantity=10, display=3)
        assert (iceberg["state"], iceberg["resting"]) == ("resting", 10)
        assert running.server._sequencer.engine.depth("AAA", 1).bids == ((1000, 3),)
        status, refused, _ = await http.place(client_id="b", account="bob", side="sell", post_only=True)
        assert (status, refused["reason"], refused.get("state")) == (422, "post_only_would_trade", None)
        status, refused, _ = await http.place(client_id="c", display=6)
        assert (status, refused["reason"]) == (422, "bad_display")
        status, refused, _ = await http.place(client_id="d", display=2, time_in_force="ioc")
        assert (status, refused["reason"]) == (422, "bad_combination")


async def test_a_stop_waits_its_trigger_is_moved_and_it_trades(tmp_path):
    async with front(tmp_path) as (running, http):
        body = {**ORDER, "client_id": "stop", "type": "stop", "trigger": 1010}
        del body["price"]
        status, waiting, _ = await http.call("POST", "/v1/orders", body)
        assert (status, waiting["status"], waiting["state"], waiting["resting"]) == (201, "accepted", "waiting", 5)
        path = f"/v1/orders/{waiting['order_id']}"
        change = {"account": "ann", "client_id": "moved", "quantity": 4, "trigger": 1005}
        status, moved, _ = await http.call("PATCH", path, change)
        assert (status, moved["status"], moved["state"], moved["resting"]) == (201, "replaced", "waiting", 4)
        assert running.server._sequencer.engine.order(waiting["order_id"]).trigger == 1005
        await http.place(client_id="b", account="bob", side="sell", price=1005, quantity=1)
        await http.place(client_id="c", account="cat", side="sell", price=1006, quantity=9)
        await http.place(client_id="d", account="dan", price=1005, quantity=1)
        assert running.server._sequencer.engine.order(waiting["order_id"]).status == "filled"
        status, late, _ = await http.call("DELETE", f"{path}?account=ann&client_id=late")
        assert (status, late["reason"]) == (422, "too_late")


async def test_a_replace_without_a_price_is_refused_by_the_order_that_needs_one(tmp_path):
    async with front(tmp_path) as (_, http):
        _, placed, _ = await http.place()
        change = {"account": "ann", "client_id": "b", "quantity": 3}
        status, refused, _ = await http.call("PATCH", f"/v1/orders/{placed['order_id']}", change)
        assert (status, refused["reason"]) == (422, "bad_price")


async def test_a_good_till_time_order_expires_by_itself(tmp_path):
    async with front(tmp_path) as (running, http):
        soon = to_rfc3339(time.time_ns() + 2 * SECOND)
        _, placed, _ = await http.place(time_in_force="gtt", expires_at=soon)
        assert placed["state"] == "resting"
        status, refused, _ = await http.place(client_id="b", time_in_force="gtt", expires_at="2020-01-01T00:00:00Z")
        assert (status, refused["reason"]) == (422, "bad_expiry")
        async with asyncio.timeout(60):
            while running.server._sequencer.engine.resting_orders:  # noqa: ASYNC110 - the engine's own clock ends it
                await asyncio.sleep(0.02)


async def test_self_trade_prevention_is_told_as_the_reason(tmp_path):
    async with front(tmp_path) as (_, http):
        await http.place(client_id="a", quantity=3)
        _, stopped, _ = await http.place(client_id="b", side="sell", self_trade="cancel_newest")
        assert (stopped["state"], stopped["canceled"], stopped["cancel_reason"]) == ("canceled", 5, "self_trade")
        _, smaller, _ = await http.place(client_id="c", side="sell", self_trade="decrement")
        assert (smaller["state"], smaller["canceled"], smaller["resting"]) == ("resting", 3, 2)
        assert smaller["cancel_reason"] == "self_trade"


async def test_a_mass_cancel_takes_what_fits_and_says_how_many(tmp_path):
    async with front(tmp_path) as (running, http):
        await http.place(client_id="a", session="one")
        await http.place(client_id="b", session="two")
        await http.place(client_id="c", symbol="BBB", session="one")
        await http.place(client_id="d", side="sell", price=1100, session="one")
        await http.place(client_id="e", account="bob", session="one")
        path = "/v1/orders?account=ann&client_id=m&session=one&side=buy"
        status, answer, _ = await http.call("DELETE", path)
        assert (status, answer["status"], answer["orders"], answer["canceled"]) == (201, "canceled", 2, 10)
        assert "state" not in answer
        assert answer.get("order_id") is None
        again = await http.call("DELETE", path)
        assert (again[1], again[2]["Idempotent-Replayed"]) == (answer, "true")
        _, rest, _ = await http.call("DELETE", "/v1/orders?account=ann&client_id=n")
        assert (rest["orders"], running.server._sequencer.engine.resting_orders) == (2, 1)
        _, none, _ = await http.call("DELETE", "/v1/orders?account=ann&client_id=o")
        assert (none["orders"], none.get("canceled", 0)) == (0, 0)


@pytest.mark.parametrize("client_id", ["plain", "a/b", "50%", "a%41", "?x=#", "+", "~!'()*;:@&=,[]"])
async def test_every_request_is_found_by_its_client_id(tmp_path, client_id):
    async with front(tmp_path) as (_, http):
        account = f"b/{client_id}"
        request = {**ORDER, "account": account, "client_id": client_id}
        of_it = f"{quote(account, safe='')}/{quote(client_id, safe='')}"
        _, told, _ = await http.call("POST", "/v1/orders", request | {"display": 2})
        assert await raw("GET", http, f"/v1/orders/by-client-id/{of_it}") == (200, told)
        query = f"account=ann&client_id={quote(client_id, safe='')}"
        status, told = await raw("DELETE", http, f"/v1/orders?{query}")
        assert (status, told["client_id"]) == (201, client_id)
        assert await raw("GET", http, f"/v1/orders/by-client-id/ann/{quote(client_id, safe='')}") == (200, told)


async def raw(method, http, path):
    """Ask for a path as it stands: a client that normalizes it would hide what the gateway makes of it."""
    async with http.session.request(method, URL(http.url + path, encoded=True), headers=TOKEN) as answer:
        return answer.status, await answer.json()


async def test_the_document_describes_what_is_read(tmp_path):
    async with front(tmp_path) as (_, http):
        _, document, _ = await http.call("GET", "/openapi.json")
        schemas = document["components"]["schemas"]
        place = schemas["PlaceBody"]
        assert set(place["properties"]) == {*ORDER, *MEMBERS, "post_only", "all_or_none"}
        assert set(place["required"]) == {"account", "client_id", "symbol", "side", "quantity"}
        assert set(schemas["OrderType"]["enum"]) == {"limit", "market", "stop", "stop_limit"}
        assert set(schemas["TimeInForce"]["enum"]) == {str(one) for one in TimeInForce}
        query = document["paths"]["/v1/orders"]["delete"]["parameters"]
        assert {one["name"] for one in query} == {"account", "client_id", "symbol", "side", "session"}
        assert all(one["schema"].get("$ref", "#/components/schemas/Side").endswith("/Side") for one in query)
        told = schemas["OrderAnswer"]["properties"]
        bodies = [await http.place(**ORDER | {"client_id": f"c{n}"} | more) for n, more in enumerate((
            {}, {"time_in_force": "ioc", "price": 900}, {"price": 1}))]  # fmt: skip
        assert all(set(body) <= set(told) for _, body, _ in bodies)


def test_the_page_of_order_entry_names_every_member_and_word():
    page = (Path(__file__).parents[2] / "docs" / "order-entry.md").read_text()
    words = [*PlaceBody.__struct_fields__, *OrderAnswer.__struct_fields__]
    for kind in (OrderType, Side, TimeInForce, SelfTrade, Status, OrderState, CancelReason):
        words += kind
    assert [word for word in words if f"`{word}`" not in page] == []
