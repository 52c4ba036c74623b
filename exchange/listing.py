"""What a market trades and by which conventions, and what instruments and a venue must be to fit together.

An engine that is given a contradiction would refuse every order, or none that it should: it is not begun at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from exchange.ledger import money_per_tick
from exchange.types import (
    MAX_ID_LENGTH,
    MAX_PRICE_TICKS,
    MOST_LOTS,
    CrossPrices,
    Instrument,
    MarketRemainder,
    ReplaceQuantity,
    StopReached,
    Venue,
)
from kernel.errors import InputError

MILLION: Final = 1_000_000
DAY_SECONDS: Final = 86_400
MAX_NOTIONAL: Final = 10**18
"""Millionths; more than this no ledger of 64 bits adds up."""
MAX_MONEY: Final = (1 << 63) - 1
"""What a journal and a ledger hold of money, in millionths."""
_WHOLE_FROM_TO: Final = "write a whole number from {} to {}"


class Listing(msgspec.Struct, frozen=True):
    """Everything that is traded, and the conventions of the whole market."""

    instruments: tuple[Instrument, ...]
    venue: Venue = Venue()


def refuse_contradictions(instruments: Sequence[Instrument], venue: Venue, where: str = "") -> None:
    """Check what an engine is to trade; `where` is the file it stands in, if it stands in one.

    Raises:
        InputError: something contradicts itself or another; tells file, place and what would be right.
    """
    before = f"{where}: " if where else ""
    if not instruments:
        raise InputError(f"{before}instruments", "there are none", right="name at least one")
    places: dict[str, int] = {}
    for number, instrument in enumerate(instruments):
        place = f"{before}instruments[{number}]"
        _check_symbol(place, instrument)
        if instrument.symbol in places:
            raise InputError(
                f"{place}.symbol",
                f"{instrument.symbol} stands at instruments[{places[instrument.symbol]}], too: a symbol stands twice",
                right="name each symbol once",
            )
        places[instrument.symbol] = number
        _check_instrument(f"{place} ({instrument.symbol})", instrument)
    _check_venue(f"{before}venue", venue)


def _check_symbol(place: str, instrument: Instrument) -> None:
    symbol: object = instrument.symbol
    if (
        not isinstance(symbol, str)
        or not 0 < len(symbol) <= MAX_ID_LENGTH
        or not all("!" <= letter <= "~" for letter in symbol)
        or symbol.startswith("$")
    ):
        raise InputError(
            f"{place}.symbol",
            f"{str(symbol)[:40]!r} is none",
            right=f"write 1 to {MAX_ID_LENGTH} printable ASCII characters without spaces, the first no $",
        )


_RANGES: Final[dict[str, tuple[int, int]]] = {
    "reference": (1, MAX_PRICE_TICKS),
    "band": (0, MAX_PRICE_TICKS),
    "tick_step": (1, MAX_PRICE_TICKS),
    "lot_step": (1, MOST_LOTS),
    "min_quantity": (1, MOST_LOTS),
    "max_quantity": (1, MOST_LOTS),
    "min_notional": (0, MAX_NOTIONAL),
    "max_notional": (0, MAX_NOTIONAL),
    "min_display": (0, MOST_LOTS),
    "luld_ppm": (0, MILLION),
    "maker_fee_ppm": (-MILLION, MILLION),
    "taker_fee_ppm": (-MILLION, MILLION),
    "auction_fee_ppm": (-MILLION, MILLION),
}
"""What each figure of an instrument may be by itself. A fee of a million millionths is all of the notional."""


def _check_instrument(place: str, one: Instrument) -> None:
    _check_ranges(place, one, _RANGES)
    money = money_per_tick(one)
    for name, problem, right in _CONTRADICTIONS:
        if problem(one, money):
            raise InputError(f"{place}.{name}", _told(one, name), right=right)


def _told(one: Instrument, name: str) -> str:
    others = {
        "max_quantity": f"min_quantity {one.min_quantity}, lot_step {one.lot_step}",
        "tick_step": f"reference {one.reference}, band {one.band}",
        "max_notional": f"min_notional {one.min_notional}",
        "min_notional": "every order of a price and quantity that can be",
        "band": f"reference {one.reference} and max_quantity {one.max_quantity}: no ledger could hold their trades",
        "min_display": f"max_quantity {one.max_quantity}, lot_step {one.lot_step}",
        "luld_ppm": f"band {one.band} of reference {one.reference}",
    }
    return f"{getattr(one, name)} contradicts {others[name]}"


def _highest(one: Instrument) -> int:
    """Return the highest price that orders may have."""
    return min(one.reference + one.band, MAX_PRICE_TICKS) // one.tick_step * one.tick_step


_CONTRADICTIONS: Final[tuple[tuple[str, Callable[[Instrument, int], bool], str], ...]] = (
    (
        "max_quantity",
        lambda one, _: one.max_quantity // one.lot_step * one.lot_step < one.min_quantity,
        "let a multiple of lot_step lie between min_quantity and max_quantity",
    ),
    (
        "tick_step",
        lambda one, _: _highest(one) < max(one.tick_step, one.reference - one.band),
        "let a multiple of tick_step lie within band of reference",
    ),
    (
        "max_notional",
        lambda one, _: 0 < one.max_notional < one.min_notional,
        "write at least min_notional, or 0 for no limit",
    ),
    (
        "min_notional",
        lambda one, money: _highest(one) * one.max_quantity * money < one.min_notional,
        "write less: the largest order at the highest price within band would be too small",
    ),
    (
        "band",
        lambda one, money: (one.reference + one.band) * one.max_quantity * money > MAX_MONEY,
        f"let the largest trade be worth at most {MAX_MONEY} millionths",
    ),
    (
        "min_display",
        lambda one, _: one.max_quantity // one.lot_step * one.lot_step < one.min_display,
        "write at most max_quantity, as a multiple of lot_step, or 0 for no limit: no iceberg could be",
    ),
    (
        "luld_ppm",
        lambda one, _: one.reference * one.luld_ppm // MILLION > one.band,
        "write a moving band no wider than band, in millionths of the reference",
    ),
)
"""Member, what is wrong, what would be right; each looked at with the money of a tick of a lot."""

_SECONDS: Final = (1, DAY_SECONDS)
_VENUE_RANGES: Final[dict[str, tuple[int, int]]] = {
    "orders_per_second": (0, MILLION),
    "max_trades_per_command": (0, MILLION),
    "limit_state_seconds": _SECONDS,
    "pause_seconds": _SECONDS,
    "reopening_seconds": _SECONDS,
    "breaker_seconds": _SECONDS,
}


def _check_venue(place: str, venue: Venue) -> None:
    for name in ("holds", "breakers"):
        if not isinstance(getattr(venue, name), bool):
            raise InputError(f"{place}.{name}", f"{getattr(venue, name)!r} is no flag", right="write true or false")
    for name, kind in (
        ("stop_reached", StopReached),
        ("replace_quantity", ReplaceQuantity),
        ("cross_prices", CrossPrices),
        ("market_remainder", MarketRemainder),
    ):
        value: object = getattr(venue, name)
        if not isinstance(value, kind):
            words = " or ".join(one.value for one in kind)
            member = next((f"; in Python {kind.__name__}.{one.name}" for one in kind if one == value), "")
            raise InputError(f"{place}.{name}", f"{value!r} is none", right=f"write {words}{member}")
    _check_ranges(place, venue, _VENUE_RANGES)


def _check_ranges(place: str, one: Instrument | Venue, ranges: dict[str, tuple[int, int]]) -> None:
    for name, (least, most) in ranges.items():
        value = getattr(one, name)
        if type(value) is not int or not least <= value <= most:
            raise InputError(f"{place}.{name}", f"is {value!r}", right=_WHOLE_FROM_TO.format(least, most))
