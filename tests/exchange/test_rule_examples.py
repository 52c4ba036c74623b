# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The rules by hand, asked of the engine and of the naive one alike."""

from __future__ import annotations

import pytest

from exchange.engine import Engine
from exchange.types import Instrument, ReplaceQuantity, StopReached, Venue
from tests.exchange.naive import NaiveEngine
from tests.exchange.rule_examples import BANDS, BREAKERS, EXAMPLES, LIMITED
from tests.exchange.spoken import Reader, say

AAA, BBB = Instrument("AAA", 100, 50), Instrument("BBB", 50, 25)
MOVING = Instrument("AAA", 100, 50, luld_ppm=100_000)
BOTH = pytest.mark.parametrize("kind", [NaiveEngine, Engine], ids=["naive", "engine"])


def told(engine, lines):
    """What the last line is answered with."""
    reader = Reader()
    for line in lines:
        events = engine.apply(reader.read(line))
    return [say(event) for event in events]


@BOTH
@pytest.mark.parametrize("rule", EXAMPLES)
def test_the_rule_holds_as_worked_out_by_hand(kind, rule):
    lines, answer = EXAMPLES[rule]
    assert told(kind((AAA, BBB), Venue()), lines) == answer


@BOTH
@pytest.mark.parametrize("rule", BANDS)
def test_the_moving_band_holds_as_worked_out_by_hand(kind, rule):
    lines, answer = BANDS[rule]
    assert told(kind((MOVING, BBB), Venue()), lines) == answer


@BOTH
@pytest.mark.parametrize("rule", BREAKERS)
def test_the_breakers_hold_as_worked_out_by_hand(kind, rule):
    lines, answer = BREAKERS[rule]
    assert told(kind((AAA, BBB), Venue(breakers=True)), lines) == answer


@BOTH
@pytest.mark.parametrize("rule", LIMITED)
def test_the_limit_of_trades_holds_as_worked_out_by_hand(kind, rule):
    lines, answer = LIMITED[rule]
    assert told(kind((AAA, BBB), Venue(max_trades_per_command=2)), lines) == answer


@BOTH
@pytest.mark.parametrize(
    ("venue", "lines", "answer"),
    [
        (
            Venue(stop_reached=StopReached.REJECT),
            ["ann sell 2 @100", "bob buy 1 @100", "cid buy 1 stop 99"],
            "stop_reached",
        ),
        (Venue(orders_per_second=1), ["ann buy 1 @100", "+0.5s ann buy 1 @100"], "rate_limited"),
        (
            Venue(replace_quantity=ReplaceQuantity.TOTAL),
            ["ann buy 5 @100", "bob sell 3 @100", "ann replace 1 3 @100"],
            "too_late",
        ),
        (Venue(holds=True), ["fund ann $cash 1000", "ann buy 1 @100"], "insufficient_funds"),
        (Venue(holds=True), ["fund ann AAA 5", "ann sell 3 @100", "ann sell 3 @100"], "insufficient_position"),
        (Venue(holds=True), ["fund ann AAA 5", "ann sell 3 @100", "fund ann AAA -3"], "insufficient_position"),
    ],
)
def test_a_venues_own_rule_refuses(kind, venue, lines, answer):
    assert told(kind((AAA, BBB), venue), lines) == [f"no {answer}"]


@BOTH
def test_a_second_later_the_rate_is_free_again(kind):
    lines = ["ann buy 1 @100", "+1s ann buy 1 @100"]
    assert told(kind((AAA, BBB), Venue(orders_per_second=1)), lines) == ["take 2", "rest 2 1@100"]


@BOTH
def test_what_is_gone_holds_nothing(kind):
    lines = ["fund ann AAA 5", "ann sell 5 @100", "ann cancel 1", "ann sell 5 @101", "ann replace 2 5 @102"]
    assert told(kind((AAA, BBB), Venue(holds=True)), lines) == ["replace 2 5@102 lost", "rest 2 5@102"]
