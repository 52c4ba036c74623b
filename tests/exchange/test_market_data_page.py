"""The page of market data says what the feed sends: its examples are read by the client's own decoder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec

from exchange.adapters.market_data_client import RESYNC_S, SILENCE_S, TOO_SLOW
from exchange.adapters.market_data_server import HEARTBEAT_S, MAX_WAITING_FRAMES
from exchange.market_data import Delta, FeedMessage, Follower, Snapshot
from exchange.types import TradingPhase

PAGE = (Path(__file__).parents[2] / "docs" / "market-data.md").read_text()
EXAMPLES = [json.loads(text)[0] for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_each_kind_of_message_has_an_example_with_every_member_and_no_other():
    read = [msgspec.convert(one, FeedMessage) for one in EXAMPLES]
    assert [type(one) for one in read] == list(get_args(FeedMessage))
    for given, one in zip(EXAMPLES, read, strict=True):
        assert list(given) == ["type", *one.__struct_fields__]
        assert json.loads(msgspec.json.encode(one)) == given
        for name in one.__struct_fields__:
            assert f"`{name}`" in PAGE, f"the page says nothing of {name}"


def test_the_examples_follow_each_other():
    snapshot, delta = (msgspec.convert(one, FeedMessage) for one in EXAMPLES[:2])
    assert isinstance(snapshot, Snapshot)
    assert isinstance(delta, Delta)
    follower = Follower()
    assert follower.take(snapshot) == follower.take(delta) == ()
    book = follower.book(delta.symbol)
    assert book is not None
    assert (book.seq, book.bids.depth(), book.asks.depth()) == (815, ((9990, 20), (9985, 100)), ())


def test_figures_and_phases_are_those_of_the_program():
    assert all(f"`{phase}`" in PAGE for phase in TradingPhase)
    assert f"{MAX_WAITING_FRAMES} frames may wait" in PAGE
    assert f"code {TOO_SLOW}" in PAGE
    assert (HEARTBEAT_S, SILENCE_S, RESYNC_S) == (0.2, 2.0, 1.0), "five a second, two seconds, a second"
