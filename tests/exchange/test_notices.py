"""Whom each event concerns, by which key and under which id; and what is no notice."""

from __future__ import annotations

import msgspec
import pytest

from exchange.adapters.rabbit_topology import TOPOLOGY, Queue
from exchange.commands import DisableAccount, Halt, MassCancel, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Canceled, Expired, Halted, Happened, Paused, PhaseChanged, SessionOpened, Traded
from exchange.messaging import Delivery, PoisonError
from exchange.notices import (
    ORDERS_LISTED,
    QUEUE,
    Notice,
    NoticeKind,
    cancelled,
    last_trade,
    notices_of,
    read_notice,
    telling,
    word,
)
from exchange.saga import Instruction
from exchange.shards import whole_id
from exchange.types import CancelReason, HaltReason, Side, Symbol, TradingPhase
from kernel.time import Instant
from tests.exchange.plant import AAA, INSTRUMENTS, order
from tests.exchange.test_settlement import happenings, trades_of

A_B = Symbol("A.B")


def delivered(body: bytes, key: str = "notice.market.halted") -> Delivery:
    return Delivery(routing_key=key, body=body, message_id="m")


def told(*events, seq: int = 7, part: int = 0) -> list[Notice]:
    return notices_of(part, Happened(seq, Instant(seq), events))


def test_both_sides_of_every_trade_are_told_with_their_own_fee_and_not_of_the_other():
    happened = happenings(200)
    trades = trades_of(happened)
    notices = [one for item in happened for one in notices_of(0, item) if one.kind is NoticeKind.TRADE_SETTLED]
    assert len(notices) == 2 * len(trades) > 0
    for trade, buyer, seller in zip(trades, notices[::2], notices[1::2], strict=True):
        assert (buyer.account, buyer.side, buyer.fee) == (trade.buyer, Side.BUY, trade.buyer_fee)
        assert (seller.account, seller.side, seller.fee) == (trade.seller, Side.SELL, trade.seller_fee)
        assert {(one.trade_id, one.price, one.quantity) for one in (buyer, seller)} == {
            (trade.trade_id, trade.price, trade.quantity)
        }
    assert all(trade.seller.encode() not in telling(one).body for trade, one in zip(trades, notices[::2], strict=True)
               if trade.buyer != trade.seller)  # fmt: skip


def test_an_account_that_trades_with_itself_is_told_twice_under_two_ids():
    trade = Traded(3, "AAA", 1, 10, 2, 1, 2, Side.BUY, "ann", "ann", 0)
    assert [one.id for one in told(trade)] == ["trade.3.buy", "trade.3.sell"]


def test_trades_of_several_parts_have_ids_of_their_own():
    trade = Traded(3, "AAA", 1, 10, 2, 1, 2, Side.BUY, "ann", "bob", 0)
    ids = {one.id for part in range(3) for one in told(trade, part=part)}
    assert len(ids) == 6


def test_all_that_one_mass_cancel_took_is_one_notice_for_each_account():
    plant = Engine(INSTRUMENTS)
    for seq in range(1, 61):
        plant.apply(Sequenced(seq, Instant(seq), order(f"o{seq}", price=900 + seq)))
    events = plant.apply(Sequenced(61, Instant(61), MassCancel("ann", "disconnect-1")))
    (one,) = notices_of(0, Happened(61, Instant(61), events))
    assert (one.kind, one.account, one.reason) == (NoticeKind.ORDERS_CANCELLED, "ann", "mass_cancel")
    assert (one.count, len(one.orders), one.client_id) == (60, ORDERS_LISTED, "disconnect-1")


def test_the_kill_switch_is_told_of_and_so_are_the_orders_it_took():
    plant = Engine(INSTRUMENTS)
    plant.apply(Sequenced(1, Instant(1), order("o1")))
    events = plant.apply(Sequenced(2, Instant(2), DisableAccount("k1", "ann")))
    kinds = {one.kind: one for one in notices_of(0, Happened(2, Instant(2), events))}
    assert set(kinds) == {NoticeKind.DISABLED, NoticeKind.ORDERS_CANCELLED}
    assert kinds[NoticeKind.ORDERS_CANCELLED].reason == CancelReason.KILL_SWITCH
    assert len({one.id for one in kinds.values()}) == 2


def test_what_a_participant_asked_for_itself_is_no_notice():
    asked = Canceled(1, "ann", "c", "AAA", 1, Side.BUY, 10, 5, CancelReason.REQUESTED, True)
    plant = Engine(INSTRUMENTS)
    events = plant.apply(Sequenced(1, Instant(1), order("o1")))
    assert isinstance(order("o1"), PlaceOrder)
    assert told(asked, *events) == []


def test_orders_that_expired_are_told_by_account():
    expired = [Expired(n, "ann" if n % 2 else "bob", "AAA", n, Side.BUY, 10, 1) for n in range(1, 6)]
    assert [(one.account, one.count, one.orders) for one in told(*expired)] == [
        ("ann", 3, (1, 3, 5)), ("bob", 2, (2, 4)),
    ]  # fmt: skip


def test_orders_are_named_by_the_ids_that_participants_know_them_by():
    expired = Expired(3, "ann", "AAA", 1, Side.BUY, 10, 1)
    canceled = Canceled(4, "ann", "m", "AAA", 2, Side.BUY, 10, 5, CancelReason.MASS_CANCEL, True)
    assert {one.orders for one in told(expired, canceled, part=2)} == {(whole_id(2, 3),), (whole_id(2, 4),)}


@pytest.mark.parametrize(
    ("event", "key", "more"),
    [
        (Halted(None, 0, HaltReason.OPERATOR), "notice.market.halted", {"reason": "operator"}),
        (
            Halted(Symbol("A.B"), 3, HaltReason.RUNBOOK),
            "notice.symbol.A%2EB.halted",
            {"reason": "runbook", "symbol": "A.B"},
        ),
        (PhaseChanged(None, 0, TradingPhase.CLOSED), "notice.market.phase", {"phase": "closed"}),
        (Paused(AAA, 1, Instant(9)), "notice.symbol.AAA.paused", {"symbol": "AAA", "until": 9}),
        (SessionOpened(), "notice.market.session.opened", {"phase": "continuous"}),
    ],
)
def test_the_market_is_told_of_by_keys_that_a_reader_may_bind_for(event, key, more):
    (one,) = told(event)
    assert one.key == key
    assert msgspec.to_builtins(one) == {"id": "0.7.0", "kind": one.kind.value, "at": 7} | more


def test_a_halt_of_the_engine_is_a_notice():
    events = Engine(INSTRUMENTS).apply(Sequenced(1, Instant(1), Halt("k", None, HaltReason.OPERATOR)))
    assert [one.key for one in notices_of(0, Happened(1, Instant(1), events))] == ["notice.market.halted"]


def test_a_halt_of_one_engine_of_several_says_whose_symbols_stand_and_one_of_a_symbol_needs_not_to():
    halts = (Halt("k", None, HaltReason.RECOVERY), Halt("l", "AAA", HaltReason.OPERATOR))
    engine = Engine(INSTRUMENTS)
    happened = [Happened(n, Instant(n), engine.apply(Sequenced(n, Instant(n), one))) for n, one in enumerate(halts, 1)]
    told = [one for item in happened for one in notices_of(1, item, 2)]
    assert [(one.key, one.engine) for one in told] == [
        ("notice.market.halted", 2), ("notice.symbol.AAA.halted", None),
    ]  # fmt: skip
    assert [one.engine for item in happened for one in notices_of(0, item)] == [None, None]


@pytest.mark.parametrize("name", ["a.b", "#", "*", "%", "~x", " ", "A" * 64, "#" * 64, "notice.market"])
def test_a_name_is_one_word_of_a_key_whatever_stands_in_it(name):
    one = Notice(id="1", kind=NoticeKind.SETTLEMENT_CANCELLED, at=Instant(1), account=name)
    assert not set(word(name)) & set(".#* ")
    assert len(one.key.encode()) <= 255
    assert Queue(name="x", patterns=(f"notice.account.{word(name)}.#",)).takes(one.key)
    assert not Queue(name="x", patterns=("notice.account.ann.#",)).takes(one.key)
    assert [queue.name for queue in TOPOLOGY.taking(one.key)] == [QUEUE]


def test_names_that_differ_are_words_that_differ():
    names = ["a.b", "a%2Eb", "a%252Eb", "A.b", "a b", "a+b"]
    assert len({word(name) for name in names}) == len(names)


def test_a_cancelled_settlement_is_told_to_both_parties_under_the_same_ids_each_time():
    it = Instruction(5, "AAA", 3, 300, "ann", "bob")
    first, again = cancelled(it, Instant(1)), cancelled(it, Instant(2))
    assert [one.key for one in first] == [f"notice.account.{who}.settlement.cancelled" for who in ("ann", "bob")]
    assert [one.id for one in first] == [one.id for one in again] == ["saga.5.buy", "saga.5.sell"]


def test_the_last_command_that_traded_is_found():
    trade = Traded(3, "AAA", 1, 10, 2, 1, 2, Side.BUY, "ann", "bob", 0)
    quiet, traded, after = (Happened(seq, Instant(1), (trade,) if seq == 2 else ()) for seq in (1, 2, 3))
    assert (last_trade([quiet, traded, after]), last_trade([quiet])) == (2, 0)


def test_a_notice_reads_as_it_was_told_and_its_body_is_the_one_that_others_know():
    one = Notice(id="trade.3.buy", kind=NoticeKind.TRADE_SETTLED, at=Instant(5), account="ann", symbol="AAA",
                 trade_id=3, side=Side.BUY, quantity=2, price=10, fee=0)  # fmt: skip
    message = telling(one, "00-trace")
    assert message.body == (
        b'{"version":1,"notice":{"id":"trade.3.buy","kind":"trade.settled","at":5,"account":"ann","symbol":"AAA",'
        b'"trade_id":3,"side":"buy","quantity":2,"price":10,"fee":0}}'
    )
    assert (message.message_id, message.trace) == ("notice.trade.3.buy", "00-trace")
    assert read_notice(delivered(message.body)) == one


def test_a_field_that_is_not_known_is_left_alone():
    body = b'{"version":1,"more":1,"notice":{"id":"1","kind":"halted","at":5,"colour":"red"}}'
    assert read_notice(delivered(body)) == Notice(id="1", kind=NoticeKind.HALTED, at=Instant(5))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is no notice"),
        (b"\xff\xfe", "it is no notice"),
        (b"[" * 100_000, "it is no notice"),
        (b"{}", "missing required field `version`"),
        (b'{"version":2,"notice":{"all":"new"}}', "of version 2, this program reads 1"),
        (b'{"version":1}', "missing required field `notice`"),
        (b'{"version":1,"notice":{"id":"1","kind":"gossip","at":5}}', "Invalid enum value 'gossip'"),
        (b'{"version":1,"notice":{"id":"","kind":"halted","at":5}}', "a name is empty"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":5,"account":"a\\u0000"}}', "cannot be shown"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":5,"reason":"\\u001b[2J"}}', "cannot be shown"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":%d}}' % (1 << 64), "it is no notice"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":5,"count":-9223372036854775809}}', "it is no notice"),
        (b'{"version":1,"notice":{"id":"%s","kind":"halted","at":5}}' % (b"x" * 129), "it is no notice"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":5,"account":"%s"}}' % (b"x" * 129), "no notice"),
        (b'{"version":1,"notice":{"id":"1","kind":"halted","at":5,"orders":[%s1]}}' % (b"1234567890," * 200), "longer"),
    ],
)
def test_what_is_no_notice_is_refused_with_the_reason(body, why):
    with pytest.raises(PoisonError, match="message m") as caught:
        read_notice(delivered(body))
    assert why in caught.value.why
