# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Venues and instruments by chance: conventions that nobody would choose together, and that contradict nothing."""

from __future__ import annotations

import random
from contextlib import suppress

from exchange.engine import Engine
from exchange.types import CrossPrices, Instrument, MarketRemainder, ReplaceQuantity, StopReached, Venue
from kernel.errors import InputError
from tests.exchange.random_commands import SECOND, Profile

SYMBOLS = ("AAA", "BBB", "CCC")


def profile(seed):
    """The profile of a seed."""
    rng = random.Random(seed)
    while True:
        instruments = tuple(instrument(rng, symbol) for symbol in SYMBOLS[: rng.randrange(1, 4)])
        chosen = venue(rng)
        with suppress(InputError):  # a contradiction
            Engine(instruments, chosen)
            return Profile(
                f"chance {seed}",
                instruments,
                chosen,
                admin=rng.choice((0.015, 0.05, 0.2)),
                fund=rng.choice((0.0, 0.1, 0.2)),
                spread=rng.choice((2, 4, 6)),
                pace=rng.choice(((0, 1, SECOND // 10, SECOND // 3, 2 * SECOND), (0,), (SECOND, 8 * SECOND))),
                leap=rng.choice((0.0, 0.01, 0.05)),
                patience=rng.choice((0.03, 0.06, 0.2)),
            )


def some(rng, **choices):
    """Members, some of them, each by chance."""
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.5}


def venue(rng):
    return Venue(
        **some(
            rng,
            holds=(True,),
            orders_per_second=(0, 1, 3, 20),
            breakers=(True,),
            limit_state_seconds=(1, 2, 5),
            pause_seconds=(1, 10, 30),
            reopening_seconds=(1, 10),
            breaker_seconds=(5, 20, 60),
            max_trades_per_command=(0, 1, 2, 3, 5),
            stop_reached=tuple(StopReached),
            replace_quantity=tuple(ReplaceQuantity),
            cross_prices=tuple(CrossPrices),
            market_remainder=tuple(MarketRemainder),
        )
    )


def instrument(rng, symbol):
    step, lots = rng.choice((1, 1, 1, 2, 5)), rng.choice((1, 1, 1, 2, 3))
    reference = rng.randrange(2, 120)
    return Instrument(
        symbol,
        reference,
        rng.choice((3, 8, 2 * reference)),
        tick_step=step,
        lot_step=lots,
        **some(
            rng,
            luld_ppm=(20_000, 50_000, 90_000, 300_000, 1_000_000),
            maker_fee_ppm=(-333, 0, 1, 1_005, 50_000),
            taker_fee_ppm=(333, 1_005, 50_000),
            auction_fee_ppm=(0, 333, 50_000),
            min_quantity=(lots, 2 * lots),
            max_quantity=(6 * lots, 12 * lots),
            min_display=(0, 1, 2, 3),
            tick_size=("0.0001", "1", "0.05"),
        ),
    )
