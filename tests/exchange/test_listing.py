"""Instruments and a venue that contradict themselves are refused, by an engine and by whoever reads their file."""

from __future__ import annotations

import msgspec
import pytest

from exchange.adapters.listing_file import listing_of, read_listing, write_listing
from exchange.adapters.recovery import recover
from exchange.adapters.verify import verify
from exchange.engine import Engine
from exchange.listing import Listing, refuse_contradictions
from exchange.recording import RecordingLog
from exchange.types import Instrument, Lots, Money, StopReached, Symbol, Ticks, Venue
from kernel.errors import InputError
from tests.exchange.plant import INSTRUMENTS, client_of, engine, order, paths

GOOD = Instrument(Symbol("AAA"), Ticks(1000), Ticks(500))
FULL = msgspec.structs.replace(
    GOOD, tick_step=5, lot_step=10, min_quantity=Lots(10), max_quantity=Lots(1000), min_notional=Money(10),
    max_notional=Money(10**12), luld_ppm=50_000, maker_fee_ppm=-100, taker_fee_ppm=300, auction_fee_ppm=1_000_000,
)  # fmt: skip
WRONG = [
    ("reference", 0), ("reference", -1), ("reference", 10**9 + 1), ("reference", True), ("band", -1), ("band", 1.5),
    ("tick_step", 0), ("tick_step", -5), ("lot_step", 0), ("min_quantity", 0), ("min_quantity", 2 * 10**12),
    ("max_quantity", 0), ("max_quantity", 10**12 + 1), ("min_notional", -1), ("max_notional", -1), ("luld_ppm", -1),
    ("min_display", -1), ("luld_ppm", 1_000_001), ("maker_fee_ppm", 1_000_001), ("maker_fee_ppm", -1_000_001),
    ("taker_fee_ppm", 2_000_000),
    ("auction_fee_ppm", 10**7), ("symbol", ""), ("symbol", "A B"), ("symbol", "Ä"), ("symbol", "$cash"),
    ("symbol", "x" * 65),
]  # fmt: skip
CONTRADICTIONS = [
    ({"min_quantity": 20, "max_quantity": 10}, "max_quantity", "between min_quantity and max_quantity"),
    ({"lot_step": 7, "min_quantity": 8, "max_quantity": 13}, "max_quantity", "a multiple of lot_step"),
    ({"tick_step": 3_000}, "tick_step", "a multiple of tick_step"),
    ({"tick_step": 300, "band": 1}, "tick_step", "within band of reference"),
    ({"min_display": 21, "max_quantity": 20}, "min_display", "at most max_quantity"),
    ({"min_display": 20, "max_quantity": 20, "lot_step": 3}, "min_display", "a multiple of lot_step"),
    ({"min_notional": 5, "max_notional": 4}, "max_notional", "at least min_notional, or 0"),
    ({"min_notional": 10**18, "max_quantity": 1}, "min_notional", "would be too small"),
    ({"band": 10**9}, "band", "let the largest trade be worth at most"),
    ({"luld_ppm": 600_000}, "luld_ppm", "no wider than band"),
]
VENUES = [
    ("orders_per_second", -1), ("orders_per_second", True), ("limit_state_seconds", 0), ("pause_seconds", -3),
    ("pause_seconds", 86_401), ("reopening_seconds", 0), ("breaker_seconds", 1.5), ("holds", 1), ("breakers", "yes"),
    ("stop_reached", "perhaps"), ("replace_quantity", None), ("cross_prices", "middle"),
]  # fmt: skip


def test_what_fits_together_is_taken():
    for one in (GOOD, FULL):
        Engine([one], Venue(holds=True, orders_per_second=5, breakers=True))
        assert listing_of(write_listing(Listing((one,))), "x").instruments == (one,)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_figure_out_of_range_is_named_with_its_place_and_what_would_be_right(name, value):
    other = msgspec.structs.replace(GOOD, symbol=Symbol("ZZZ"))
    with pytest.raises(InputError) as caught:
        Engine([other, msgspec.structs.replace(GOOD, **{name: value})])
    assert caught.value.where.startswith("instruments[1]")
    assert caught.value.where.endswith(f".{name}")
    assert "write " in str(caught.value)


@pytest.mark.parametrize(("changes", "name", "right"), CONTRADICTIONS)
def test_figures_that_contradict_each_other_are_named(changes, name, right):
    with pytest.raises(InputError) as caught:
        Engine([msgspec.structs.replace(GOOD, **changes)])
    assert caught.value.where == f"instruments[0] (AAA).{name}"
    assert right in str(caught.value)
    assert "contradicts" in str(caught.value)


@pytest.mark.parametrize(("name", "value"), VENUES)
def test_a_venue_that_cannot_be_is_named(name, value):
    with pytest.raises(InputError) as caught:
        Engine([GOOD], msgspec.structs.replace(Venue(), **{name: value}))
    assert caught.value.where == f"venue.{name}"
    assert "write " in str(caught.value)


def test_a_symbol_that_stands_twice_is_named_with_both_places():
    with pytest.raises(InputError, match=r"instruments\[1\]\.symbol: AAA stands at instruments\[0\], too"):
        refuse_contradictions([GOOD, GOOD], Venue())
    with pytest.raises(InputError, match="there are none; name at least one"):
        refuse_contradictions([], Venue())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is no list of instruments"),
        (b"{", "is no list of instruments"),
        (b"\xff", "is no list of instruments"),
        (b"3", "is no list of instruments"),
        (b'{"instruments": 3}', "Expected `array`"),
        (b"[3]", r"\$\.instruments\[0\]"),
        (b"[]", "there are none"),
        (b'[{"symbol": "A", "reference": "9", "band": 1}]', r"Expected `int`, got `str` - at `\$\.instruments\[0\]"),
        (b'[{"symbol": "A", "reference": 9}]', "missing required field `band`"),
        (b'[{"symbol": "A", "reference": 9, "band": -1}]', r"instruments\[0\] \(A\)\.band: is -1; write a whole"),
        (b'[{"symbol": "A", "reference": 9, "band": 1, "luldppm": 5}]', r"there is no 'luldppm'; there are symbol, .*"),
        (b'{"instruments": [{"symbol": "A", "reference": 9, "band": 1}], "venue": {"hold": true}}', "no 'hold'; there"),
        (b'{"instruments": [{"symbol": "A", "reference": 9, "band": 1}], "venue": {"pause_seconds": 0}}',
         r"venue\.pause_seconds: is 0; write a whole number from 1 to 86400"),
    ],
)  # fmt: skip
def test_a_file_is_refused_with_its_name_the_place_and_what_would_be_right(tmp_path, text, words):
    file = tmp_path / "traded.json"
    file.write_bytes(text)
    with pytest.raises(InputError, match=words) as caught:
        read_listing(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_venue_comes_back_from_the_file_and_a_plain_one_needs_none():
    venue = Venue(holds=True, stop_reached=StopReached.REJECT, pause_seconds=7)
    assert listing_of(write_listing(Listing((GOOD,), venue)), "x") == Listing((GOOD,), venue)
    assert write_listing(Listing((GOOD,))).startswith(b"[")


async def test_the_engines_process_its_recovery_and_a_replay_keep_the_venue(tmp_path):
    venue = Venue(holds=True)
    async with engine(tmp_path, venue=venue) as running, client_of(running.port) as client:
        reply = await client.submit(order("a"), 60)
        assert reply.events[0].reason == "insufficient_funds"
        held = await running.server.state_hash()
    assert verify(tmp_path / "journal", INSTRUMENTS, venue=venue).state_hash == held.state_hash
    assert verify(tmp_path / "journal", INSTRUMENTS).state_hash != held.state_hash
    recovered = recover(paths(tmp_path), INSTRUMENTS, RecordingLog(), venue=venue)
    assert (recovered.engine.venue, recovered.engine.state_hash()) == (venue, held.state_hash)
    recovered.journal.close()
    recovered.events.close()
    with pytest.raises(InputError, match="another venue"):
        recover(paths(tmp_path), INSTRUMENTS, RecordingLog())
