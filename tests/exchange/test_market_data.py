# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The feed and its subscriber: what was not lost is equal, what was lost is found."""

import pytest
from msgspec import structs

from exchange.commands import Halt, Resume, Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.market_data import Delta, Finding, Follower, LevelChange, MarketData, MarketStatus, Snapshot, Trouble
from exchange.types import HaltReason, Instrument, Side

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))


def feed(count):
    engine, flow, data, messages = (
        Engine(INSTRUMENTS),
        OrderFlow(5, INSTRUMENTS, ("p", "q")),
        MarketData(("AAA", "BBB")),
        [],
    )
    for seq in range(1, count + 1):
        events = engine.apply(Sequenced(seq, seq, next(flow)))
        flow.observe(events)
        messages.extend(data.fold(Happened(seq, seq, events)))
    return engine, data, messages


def begin():
    follower = Follower()
    for symbol in ("AAA", "BBB"):
        follower.take(Snapshot(symbol, 0, (), (), halted=False))
    return follower


ENGINE, DATA, MESSAGES = feed(300)


def test_deltas_lead_to_the_engines_book():
    follower = begin()
    assert [finding for message in MESSAGES for finding in follower.take(message)] == []
    for symbol in ("AAA", "BBB"):
        depth = ENGINE.depth(symbol, 100)
        book = follower.book(symbol)
        assert (book.bids.depth(), book.asks.depth()) == depth == DATA.depth(symbol, 100)
        assert DATA.top(symbol) == ENGINE.top(symbol) == book.top()
        assert book.seq == ENGINE.symbol_seq(symbol)


@pytest.mark.parametrize("lost", range(0, len(MESSAGES), 5))
def test_every_lost_message_is_found_and_a_snapshot_mends_it(lost):
    follower, symbol = begin(), MESSAGES[lost].symbol
    findings = [finding for index, one in enumerate(MESSAGES) if index != lost for finding in follower.take(one)]
    findings += follower.take(DATA.heartbeat(0))
    assert [(one.symbol, one.trouble) for one in findings] == [(symbol, Trouble.GAP)]
    assert follower.gapped == follower.missing == {symbol}
    assert follower.book(symbol) is None
    assert follower.take(DATA.snapshot(symbol)) == ()
    assert (follower.gapped, follower.missing) == (frozenset(), frozenset())
    assert follower.take(DATA.heartbeat(0)) == ()


def test_a_snapshot_taken_anywhere_joins_the_deltas():
    for place in range(0, len(MESSAGES), 11):
        ahead = begin()
        for message in MESSAGES[:place]:
            ahead.take(message)
        late = Follower(("AAA", "BBB"))
        for symbol in ("AAA", "BBB"):
            book = ahead.book(symbol)
            late.take(Snapshot(symbol, book.seq, book.bids.depth(), book.asks.depth(), halted=False))
        for message in MESSAGES[max(0, place - 10) :]:
            assert late.take(message) == ()
        assert late.book("AAA").bids.depth() == DATA.depth("AAA", 100).bids


def test_a_crossed_or_locked_book_is_found_once_and_seen_to_end():
    follower = begin()
    assert follower.take(Delta("AAA", 1, 0, 0, (LevelChange(Side.BUY, 10, 1), LevelChange(Side.SELL, 10, 1)))) == (
        Finding("AAA", Trouble.CROSSED, 1, 1),
    )
    assert follower.take(Delta("AAA", 2, 1, 0)) == ()
    assert follower.crossed == {"AAA"}
    follower.take(Delta("AAA", 3, 2, 0, (LevelChange(Side.BUY, 10, 0),)))
    assert follower.crossed == frozenset()


def test_halts_are_told():
    engine, data = Engine(INSTRUMENTS), MarketData(("AAA", "BBB"))
    commands = (Halt("a", "AAA", HaltReason.OPERATOR), Halt("b", None, HaltReason.OPERATOR), Resume("c", "AAA"))
    told = [data.fold(Happened(seq, 9, engine.apply(Sequenced(seq, 9, one)))) for seq, one in enumerate(commands, 1)]
    assert told == [
        (Delta("AAA", 1, 0, 9, halted=True),),
        (MarketStatus(halted=True, at=9, seq=2),),
        (Delta("AAA", 2, 1, 9, halted=False),),
    ]
    assert data.market_halted


def test_events_met_again_are_left_alone_and_a_hole_stops_the_fold():
    data = MarketData(("AAA",))
    data.fold(Happened(1, 0, ()))
    assert data.fold(Happened(1, 0, ())) == ()
    with pytest.raises(AssertionError, match="events of 3 follow those of 1"):
        data.fold(Happened(3, 0, ()))


def test_a_fold_begun_from_snapshots_goes_on_like_one_from_the_start():
    data = MarketData(("AAA", "BBB"))
    data.restore(DATA.journal_seq, [DATA.snapshot("AAA"), DATA.snapshot("BBB")])
    assert data.heartbeat(0) == structs.replace(DATA.heartbeat(0), market_seq=DATA.journal_seq)
    assert data.depth("BBB", 100) == DATA.depth("BBB", 100)
