# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Kinds of flow have their shape; a flow in a file is the flow that was sent; what is wrong in a file is named."""

import io
from itertools import pairwise, repeat

import pytest

from exchange.commands import CancelOrder, Limit, PlaceOrder, ReplaceOrder
from exchange.engine import Engine
from exchange.events import Traded
from exchange.flow import OrderFlow
from exchange.flow_csv import COLUMNS, CsvFlow, CsvWriter, read_flow
from exchange.flow_kinds import FlowKind, made_flow
from exchange.offline_load import run_offline
from exchange.types import Instrument, Side
from kernel.errors import InputError

INSTRUMENTS = (Instrument("AAA", 10_000, 2_000), Instrument("BBB", 5_000, 1_000))
HEADER = ",".join(COLUMNS[:10])
"""What the first flows had; the other columns may be missing."""


def sent(kind, seed=1, count=2_500):
    """Send a whole flow; return the account, the file, and each request with what it caused."""
    file, kept = io.StringIO(), []
    writer = CsvWriter(file)

    def keep(item, events):
        writer.write(item.at, item.command, events)
        kept.append((item.command, events))

    flow = made_flow(kind, seed, INSTRUMENTS, ("p", "q", "r"), count=count)
    found = run_offline(Engine(INSTRUMENTS), flow, iter(range(0, 10**12, 1_000_000)), count, keep=keep)
    return found, file.getvalue(), kept


def trades(kept):
    """The prices of each tenth of a flow in AAA."""
    tenth = len(kept) / 10
    found = {}
    for index, (_, events) in enumerate(kept):
        found.setdefault(int(index / tenth), []).extend(
            event.price for event in events if isinstance(event, Traded) and event.symbol == "AAA"
        )
    return found


def share(kept, first, last, which):
    part = [command for command, _ in kept[int(len(kept) * first) : int(len(kept) * last)]]
    return sum(map(which, part)) / len(part)


def crosses(command):
    return isinstance(command, PlaceOrder) and command.time_in_force == "ioc"


def buys(command):
    return isinstance(command, PlaceOrder) and command.side is Side.BUY


def places(command):
    return isinstance(command, PlaceOrder)


@pytest.mark.parametrize("kind", FlowKind)
def test_the_same_seed_gives_the_same_bytes_and_another_others(kind):
    account, file, _ = sent(kind, seed=5, count=1_000)
    again, same, _ = sent(kind, seed=5, count=1_000)
    assert (again, same) == (account, file)
    assert sent(kind, seed=6, count=1_000)[1] != file


def test_calm_is_the_flow_that_there_always_was():
    usual, calm = (
        run_offline(Engine(INSTRUMENTS), flow, repeat(0), 2_000).state_hash
        for flow in (
            OrderFlow(3, INSTRUMENTS, ("p", "q")),
            made_flow(FlowKind.CALM, 3, INSTRUMENTS, ("p", "q"), count=50),
        )
    )
    assert usual == calm


def test_the_kinds_differ_from_the_first_to_the_last():
    assert len({sent(kind)[0].state_hash for kind in FlowKind}) == len(FlowKind)


def test_a_calm_market_stays_where_it_is():
    prices = trades(sent(FlowKind.CALM)[2])
    assert max(max(each) for each in prices.values()) - min(min(each) for each in prices.values()) < 200


def test_a_rush_crosses_most_at_the_open():
    _, _, kept = sent(FlowKind.OPEN_RUSH)
    assert share(kept, 0, 0.2, crosses) > 2 * share(kept, 0.5, 1, crosses)


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_falls_by_most_of_the_band_on_sellers_and_recovers_some(seed):
    account, _, kept = sent(FlowKind.CRASH, seed)
    prices = trades(kept)
    before, lowest, after = prices[2][-1], min(min(each) for each in prices.values() if each), prices[9][-1]
    assert abs(before - 10_000) < 100
    assert 8_000 <= lowest < 8_500
    assert lowest + 200 < after < before
    assert share(kept, 0.3, 0.6, buys) < share(kept, 0.3, 0.6, places) / 3
    assert account.rejected < account.sent / 10


def test_news_moves_the_price_far_up_or_down_by_seed_after_quotes_went():
    directions = set()
    for seed in range(8):
        _, _, kept = sent(FlowKind.NEWS, seed, 2_000)
        prices = trades(kept)
        moved = prices[9][-1] - prices[3][-1]
        assert abs(moved) > 700
        directions.add(moved > 0)
        assert share(kept, 0.4, 0.45, lambda one: isinstance(one, CancelOrder)) > 0.35
    assert directions == {True, False}


@pytest.mark.parametrize("kind", FlowKind)
def test_a_flow_read_from_its_file_leads_to_the_same_state_and_the_same_file(kind):
    account, file, _ = sent(kind, seed=2)
    rows = read_flow("a.csv", file)
    again = io.StringIO()
    writer = CsvWriter(again)
    found = run_offline(
        Engine(INSTRUMENTS), CsvFlow(rows), iter([row.at for row in rows]), 10**6,
        keep=lambda item, events: writer.write(item.at, item.command, events),
    )  # fmt: skip
    assert found == account
    assert again.getvalue() == file
    assert CsvFlow(rows).symbols == {"AAA", "BBB"}


def test_an_account_adds_up():
    account, _, kept = sent(FlowKind.CRASH)
    assert account.sent == len(kept) == sum(account.sent_by_action.values())
    assert account.accepted + account.canceled + account.replaced + account.rejected == account.sent
    assert account.rejected == sum(account.rejected_by_reason.values())
    assert account.trades == sum(isinstance(event, Traded) for _, events in kept for event in events)


def test_an_order_nobody_accepted_is_refused_and_not_another_ones():
    placed = "0,p,c0,place,AAA,buy,5,9999,,"
    rows = read_flow("a.csv", f"{HEADER}\n{placed}\n1,p,c1,cancel,,,,,,never\n5,p,c2,replace,,,3,9999,,never\n")
    found = run_offline(Engine(INSTRUMENTS), CsvFlow(rows), repeat(0), 10)
    assert found.rejected_by_reason == {"unknown_order": 2}
    assert (found.accepted, found.resting_orders) == (1, 1)


def test_what_a_file_may_hold_is_read_as_it_says():
    text = f"{HEADER}\n\n1,p,a,place,AAA,buy,5,,,\n1,p,b,place,AAA,sell,7,-3,ioc,\n2,p,c,replace,,,9,8,,a\n"
    market, limit, replace = read_flow("a.csv", text)
    assert market.command.time_in_force == "day"
    assert market.at == 1_000
    assert limit.command.terms == Limit(-3)
    assert isinstance(replace.command, ReplaceOrder)
    assert replace.order == ("p", "a")
    assert all(one.at <= other.at for one, other in pairwise((market, limit, replace)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a.csv:1: is not the header of a flow"),
        ("at,what\n", "a.csv:1: is not the header of a flow: at_us, account, client_id, action is missing; there are"),
        (f"{HEADER}\n1,p\n", "a.csv:2: has 2 fields; there are 10"),
        (f"{HEADER}\nx,p,a,cancel,,,,,,o\n", "a.csv:2:1: at_us: 'x' is no whole number"),
        (f"{HEADER}\n-1,p,a,cancel,,,,,,o\n", "a.csv:2:1: at_us: is -1; between 0 and"),
        (f"{HEADER}\n5,p,a,cancel,,,,,,o\n4,p,b,cancel,,,,,,o\n", "a.csv:3:1: at_us: is earlier than the line before"),
        (f"{HEADER}\n1,,a,cancel,,,,,,o\n", "a.csv:2:3: account: has 0 letters"),
        (f"{HEADER}\n1,p,{'x' * 201},cancel,,,,,,o\n", "a.csv:2:5: client_id: has 201 letters"),
        (f"{HEADER}\n1,p,a,steal,,,,,,o\n", "a.csv:2:7: action: 'steal' is not known; one of place, cancel, replace"),
        (f"{HEADER}\n1,p,a,place,AAA,up,5,1,,\n", "a.csv:2:17: side: 'up' is not known"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,1.5,1,,\n", "a.csv:2:21: quantity: '1.5' is no whole number"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,nan,1,,\n", "a.csv:2:21: quantity: 'nan' is no whole number"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,٣,1,,\n", "a.csv:2:21: quantity: '٣' is no whole number"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,5,9223372036854775808,,\n", "a.csv:2:23: price: is 9223372036854775808"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,5,1{'0' * 5000},,\n", "a.csv:2:23: price: '1000"),
        (f"{HEADER}\n1,p,a,place,AAA,buy,5,1,soon,\n", "a.csv:2:25: time_in_force: 'soon' is not known"),
        (f"{HEADER}\n1,p,a,cancel,,,,,,\n", "a.csv:2:19: order: has 0 letters"),
        (f'{HEADER}\n1,p,"a,cancel', "is no CSV"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_line_and_column(text, told):
    with pytest.raises(InputError) as caught:
        read_flow("a.csv", text)
    assert told in str(caught.value)
