# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Members that contradict each other are named exactly when the engine refuses them, in the same words each time."""

import itertools
import json
import re
from pathlib import Path

import pytest

from exchange.adapters.orders_json import PlaceBody
from exchange.answers import answer_of
from exchange.commands import CancelOrder, Limit, Market, PlaceOrder, ReplaceOrder, Sequenced, Stop, StopLimit
from exchange.contradictions import contradictions_of, explained
from exchange.engine import Engine
from exchange.events import Rejected
from exchange.types import Instrument, RejectReason, Side, TimeInForce, TradingPhase
from tests.exchange.desk import Desk
from tests.exchange.test_gateway import plant

R = RejectReason
BODY_MEMBERS = set(PlaceBody.__struct_fields__)
FLAGS = [Limit(100, *flags) for flags in itertools.product((False, True), (0, 1), (False, True))]
EVERY = [*FLAGS, Market(), Stop(110), StopLimit(110, 110), StopLimit(110, 110, 1)]


def placed(terms, lasts, quantity=5, side=Side.BUY):
    return PlaceOrder("ann", "k", "AAA", side, quantity, terms, lasts, 9 if lasts is TimeInForce.GTT else 0)


def refused(command):
    [told] = [one for one in Engine([Instrument("AAA", 100, 50)]).apply(command) if isinstance(one, Rejected)] or [None]
    return None if told is None else told.reason


@pytest.mark.parametrize("lasts", TimeInForce)
@pytest.mark.parametrize("terms", EVERY)
def test_members_are_named_exactly_when_the_engine_says_bad_combination(terms, lasts):
    command = placed(terms, lasts)
    found = contradictions_of(command)
    assert (refused(command) is R.BAD_COMBINATION) == bool(found)
    assert all(set(one.members) <= BODY_MEMBERS and one.right for one in found)


@pytest.mark.parametrize("lasts", TimeInForce)
@pytest.mark.parametrize("terms", FLAGS)
def test_leaving_out_what_is_named_mends_it(terms, lasts):
    about = explained(placed(terms, lasts), R.BAD_COMBINATION)
    if about is None:
        return
    kept = [None if name in about.members else getattr(terms, name) for name in ("post_only", "display", "all_or_none")]
    mended = placed(Limit(100, bool(kept[0]), kept[1] or 0, bool(kept[2])), lasts)
    assert refused(mended) is not R.BAD_COMBINATION


def test_several_contradictions_are_told_at_once():
    about = explained(placed(Limit(100, True, 1, True), TimeInForce.FOK), R.BAD_COMBINATION)
    assert about.members == ("time_in_force", "post_only", "display", "all_or_none")
    assert about.right.count(";") == 1


@pytest.mark.parametrize(
    ("command", "reason", "members"),
    [
        (placed(Limit(100), TimeInForce.DAY), R.BAD_QUANTITY, ("quantity",)),
        (placed(Limit(100), TimeInForce.DAY), R.BAD_PRICE, ("price",)),
        (placed(Stop(100), TimeInForce.DAY), R.BAD_PRICE, ("trigger",)),
        (placed(StopLimit(100, 90), TimeInForce.DAY), R.PRICE_OUT_OF_BAND, ("price", "trigger")),
        (placed(Limit(100, display=9), TimeInForce.DAY), R.BAD_DISPLAY, ("display", "quantity")),
        (placed(Limit(100), TimeInForce.DAY), R.BAD_NOTIONAL, ("price", "quantity")),
        (placed(Limit(100), TimeInForce.GTT), R.BAD_EXPIRY, ("expires_at",)),
        (placed(Limit(100, post_only=True), TimeInForce.DAY), R.WRONG_PHASE, ("post_only",)),
        (placed(Limit(100), TimeInForce.IOC), R.WRONG_PHASE, ("time_in_force",)),
        (placed(Limit(100), TimeInForce.DAY), R.INSUFFICIENT_FUNDS, ("quantity", "price")),
        (placed(Market(), TimeInForce.DAY), R.INSUFFICIENT_FUNDS, ("quantity",)),
        (placed(Limit(100, post_only=True), TimeInForce.DAY), R.POST_ONLY_WOULD_TRADE, ("post_only", "price")),
        (ReplaceOrder("ann", "k", 1, 5, 100), R.POST_ONLY_WOULD_TRADE, ("price",)),
        (ReplaceOrder("ann", "k", 1, 5, 100, 90), R.BAD_PRICE, ("price", "trigger")),
    ],
)
def test_other_reasons_name_what_they_can_be_about(command, reason, members):
    assert explained(command, reason).members == members


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (placed(Limit(100), TimeInForce.DAY), R.HALTED),
        (placed(Limit(100), TimeInForce.DAY), R.WRONG_PHASE),
        (CancelOrder("ann", "k", 1), R.UNKNOWN_ORDER),
        (ReplaceOrder("ann", "k", 1, 5, 100), R.TOO_LATE),
    ],
)
def test_a_refusal_that_is_about_no_member_names_none(command, reason):
    assert explained(command, reason) is None


def test_an_answer_read_from_the_journal_has_the_words_only_where_the_request_is_known():
    desk = Desk()
    command = placed(Limit(100, post_only=True), TimeInForce.IOC)
    events = desk.engine.apply(Sequenced(1, 0, command))
    assert answer_of(1, "k", events, command).members == ("time_in_force", "post_only")
    assert answer_of(1, "k", events).members == ()


async def test_a_gateway_names_the_members_and_says_the_same_words_again(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "order-entry.md").read_text()
    example = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])
    body = {"client_id": "a", "time_in_force": "ioc", "post_only": True, "display": 2}
    async with plant(tmp_path) as (running, front):
        status, first, _ = await front.place(**body)
        assert (status, first) == (422, example)
        _, again, headers = await front.place(**body)
        assert again == first
        assert headers["Idempotent-Replayed"] == "true"
        status, found, _ = await front.call("GET", "/v1/orders/by-client-id/ann/a")
        assert (status, found["reason"]) == (200, "bad_combination")
        assert "members" not in found
        assert running.server.status().market_phase is TradingPhase.CONTINUOUS
