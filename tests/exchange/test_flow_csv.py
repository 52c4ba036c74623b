# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""A flow in a file holds every member of every request, is read as it was written, and tells where it is wrong."""

import io
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.adapters.listing_file import read_listing
from exchange.adapters.order_requests import request_of
from exchange.adapters.orders_json import PlaceBody, read_cancel, read_mass_cancel, read_place, read_replace
from exchange.commands import CancelOrder, Limit, Market, MassCancel, PlaceOrder, ReplaceOrder, Stop, StopLimit
from exchange.engine import Engine
from exchange.flow_csv import COLUMNS, NEEDED, CsvFlow, CsvWriter, read_flow
from exchange.offline_load import run_offline
from exchange.types import SelfTrade, Side, TimeInForce
from kernel.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "every-order.csv"
PAGE = (EXAMPLE.parents[1] / "exchange.md").read_text()
INSTRUMENTS = read_listing(EXAMPLE.parent / "instruments.json").instruments

names = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
whole = st.integers(1, 2**53 - 1)
maybe = st.none() | whole
terms = st.one_of(
    st.builds(Limit, whole, st.booleans(), st.just(0) | whole, st.booleans()),
    st.just(Market()),
    st.builds(Stop, whole),
    st.builds(StopLimit, whole, whole, st.just(0) | whole),
)
places = st.builds(
    PlaceOrder, names, names, names, st.sampled_from(Side), whole, terms,
    st.sampled_from([one for one in TimeInForce if one is not TimeInForce.GTT]), st.just(0),
    st.sampled_from(SelfTrade), st.just("") | names,
) | st.builds(
    PlaceOrder, names, names, names, st.sampled_from(Side), whole, terms, st.just(TimeInForce.GTT), whole,
    st.sampled_from(SelfTrade), st.just("") | names,
)  # fmt: skip
commands = st.one_of(
    places,
    st.builds(CancelOrder, names, names, st.integers(0, 10**6)),
    st.builds(ReplaceOrder, names, names, st.integers(0, 10**6), whole, st.just(0) | whole, maybe),
    st.builds(MassCancel, names, names, st.none() | names, st.none() | st.sampled_from(Side), st.none() | names),
)


def written(given_commands, start=0):
    file = io.StringIO()
    writer = CsvWriter(file, start)
    for number, command in enumerate(given_commands):
        writer.write(number * 1_000, command, ())
    return file.getvalue()


@settings(max_examples=150, deadline=None)
@given(st.lists(commands, max_size=6))
def test_whatever_is_written_is_read_as_it_was(given_commands):
    text = written(given_commands)
    rows = read_flow("a.csv", text)
    assert [row.at for row in rows] == [number * 1_000 for number in range(len(given_commands))]
    assert list(CsvFlow(rows)) == given_commands


@settings(max_examples=150, deadline=None)
@given(commands)
def test_what_a_gateway_is_sent_is_read_as_the_command_it_was(command):
    method, path, body = request_of(command)
    bare, _, query = path.partition("?")
    if method == "POST":
        read = read_place(body)
    elif method == "PATCH":
        read = read_replace(bare.rsplit("/", 1)[1], body)
    else:
        asked = dict(parse_qsl(query, keep_blank_values=True))
        read = read_mass_cancel(asked) if bare == "/v1/orders" else read_cancel(bare.rsplit("/", 1)[1], asked)
    assert read == command


def test_every_member_of_an_order_has_a_column():
    other = {"expires_at": "expires_ns"}
    assert {other.get(name, name) for name in PlaceBody.__struct_fields__} <= set(COLUMNS)
    fields = {name for kind in (PlaceOrder, CancelOrder, ReplaceOrder, MassCancel) for name in kind.__struct_fields__}
    assert {other.get(name, name) for name in fields - {"terms"}} <= set(COLUMNS)
    assert all(f"`{name}`" in PAGE for name in COLUMNS)


def test_the_example_holds_every_kind_and_does_what_it_says():
    rows = read_flow(str(EXAMPLE), EXAMPLE.read_text())
    sent = [row.command for row in rows]
    assert {type(one) for one in sent} == {PlaceOrder, CancelOrder, ReplaceOrder, MassCancel}
    placed = [one for one in sent if isinstance(one, PlaceOrder)]
    assert {type(one.terms) for one in placed} == {Limit, Market, Stop, StopLimit}
    assert {one.time_in_force for one in placed} == set(TimeInForce)
    lines = [line.split(",") for line in EXAMPLE.read_text().splitlines()]
    assert tuple(lines[0]) == COLUMNS
    assert all(any(line[place] for line in lines[1:]) for place in range(len(COLUMNS)))
    file = io.StringIO()
    writer = CsvWriter(file)
    account = run_offline(
        Engine(INSTRUMENTS), CsvFlow(rows), iter([row.at for row in rows]), 100,
        keep=lambda item, events: writer.write(item.at, item.command, events),
    )  # fmt: skip
    assert account.rejected_by_reason == {"not_your_order": 1, "unknown_order": 1}
    again = read_flow("again", file.getvalue())
    found = run_offline(Engine(INSTRUMENTS), CsvFlow(again), iter([row.at for row in again]), 100)
    assert found == account


def test_what_expires_counts_from_the_start_of_the_flow():
    order = PlaceOrder("a", "b", "AAA", Side.BUY, 1, Limit(1), TimeInForce.GTT, expires_at=5_000_000_007)
    text = written([order], start=5_000_000_000)
    assert read_flow("a.csv", text)[0].command.expires_at == 7
    assert next(CsvFlow(read_flow("a.csv", text), start=100)).expires_at == 107


def test_columns_may_stand_in_any_order_and_be_missing():
    text = "action,client_id,account,at_us,side,symbol,quantity,type,trigger\nplace,c,a,0,buy,AAA,5,stop,9\n"
    [row] = read_flow("a.csv", text)
    assert row.command == PlaceOrder("a", "c", "AAA", Side.BUY, 5, Stop(9))


HEAD = f"{','.join(NEEDED)},symbol,side,quantity,price,type,trigger,display,post_only,order,order_id"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0,a,c,cancel,,,,7,,,,,o,", "a.csv:2:17: price: a cancel has none; leave it empty; it belongs to place"),
        ("0,a,c,mass_cancel,AAA,,,,,,,,o,", "order: a mass_cancel has none; leave it empty; it belongs to cancel"),
        ("0,a,c,place,AAA,buy,5,7,market,,,,,", "a.csv:2:23: price: a market order has none; leave it empty, or"),
        ("0,a,c,place,AAA,buy,5,7,limit,8,,,,", "trigger: a limit order has none; leave it empty, or let type"),
        ("0,a,c,place,AAA,buy,5,,limit,,,,,", "price: '' is no whole number; prices are ticks"),
        ("0,a,c,place,AAA,buy,5,,stop,,,,,", "trigger: '' is no whole number"),
        ("0,a,c,place,AAA,buy,5,7,limit,,,yes,,", "post_only: 'yes' is not known; one of true, false"),
        ("0,a,c,place,AAA,buy,5,7,peg,,,,,", "type: 'peg' is not known; one of limit, market, stop, stop_limit"),
        ('0,"a,b",c,place,AAA,up,5,7,,,,,,', "a.csv:2:21: side: 'up' is not known"),
        ("0,a,c,cancel,,,,,,,,,o,7", "order_id: stands beside an order; keep one of them"),
        ("0,a,c,cancel,,,,,,,,,,", "order: has 0 letters"),
        ('0,"a', "a.csv:2: is no CSV: unexpected end of data; close a quote"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column_with_what_would_be_right(line, told):
    with pytest.raises(InputError) as caught:
        read_flow("a.csv", f"{HEAD}\n{line}\n")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (f"{HEAD},colour", "a.csv:1: 'colour': is no column; there are at_us"),
        (f"{HEAD},side", "a.csv:1: side: stands there twice"),
        ("at_us,account,client_id", "action is missing"),
    ],
)
def test_a_wrong_header_is_named(head, told):
    with pytest.raises(InputError) as caught:
        read_flow("a.csv", head + "\n")
    assert told in str(caught.value)
