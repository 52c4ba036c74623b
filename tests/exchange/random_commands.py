# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Scripts of commands for the comparison: mostly sensible, at prices near each other, sometimes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from msgspec import structs

from exchange import commands as c
from exchange.types import (
    CrossPrices,
    HaltReason,
    Instrument,
    MarketRemainder,
    ReplaceQuantity,
    SelfTrade,
    Side,
    StopReached,
    TimeInForce,
    TradingPhase,
    Venue,
)

SECOND = 1_000_000_000
ACCOUNTS = ("p", "q", "q", "r")
SESSIONS = ("", "s1", "s2")


@dataclass(frozen=True)
class Profile:
    """A venue, its instruments, and how often its scripts ask for what."""

    name: str
    instruments: tuple[Instrument, ...]
    venue: Venue = field(default_factory=Venue)
    admin: float = 0.015
    """Share of halts, phases and sessions."""
    fund: float = 0.0
    spread: int = 3
    """Prices are so many steps around the last one."""
    pace: tuple[int, ...] = (0, 1, SECOND // 10, SECOND // 3, 2 * SECOND)
    leap: float = 0.01
    """How often minutes pass at once."""
    patience: float = 0.06
    """How often standing still is ended."""
    hasty: float = 0.0
    """Share of stops that are ioc or fok."""


PROFILES = (
    Profile("plain", (Instrument("AAA", 10, 8), Instrument("BBB", 100, 3))),
    Profile(
        "holds",
        (
            Instrument("AAA", 10, 8, tick_size="0.0001", maker_fee_ppm=-2_500, taker_fee_ppm=12_500),
            Instrument("BBB", 20, 6, lot_size="5", taker_fee_ppm=50_000, auction_fee_ppm=1_505),
        ),
        Venue(holds=True),
        fund=0.15,
    ),
    Profile(
        "bands",
        (
            Instrument("AAA", 100, 40, luld_ppm=40_000),
            Instrument("BBB", 50, 30, luld_ppm=60_000),
            Instrument("CCC", 40, 20),
        ),
        Venue(breakers=True, limit_state_seconds=3, pause_seconds=30, breaker_seconds=60),
        spread=4,
        pace=(1, SECOND // 3, SECOND, 2 * SECOND, 8 * SECOND),
        leap=0.02,
    ),
    Profile("auctions", (Instrument("AAA", 10, 8, auction_fee_ppm=777), Instrument("BBB", 30, 5)), admin=0.1, spread=4),
    Profile(
        "steps",
        (
            Instrument(
                "AAA", 100, 40, tick_step=5, lot_step=2, min_quantity=2, max_quantity=12, min_notional=1_500_000
            ),
            Instrument("BBB", 61, 30, tick_step=2, max_notional=3_000_000, min_display=2),
        ),
        Venue(
            orders_per_second=3,
            stop_reached=StopReached.REJECT,
            replace_quantity=ReplaceQuantity.TOTAL,
            cross_prices=CrossPrices.LIMITS,
        ),
        pace=(0, SECOND // 10, SECOND // 4, SECOND // 3, SECOND),
    ),
    Profile(
        "all",
        (
            Instrument("AAA", 50, 20, luld_ppm=80_000, maker_fee_ppm=-333, taker_fee_ppm=1_005, auction_fee_ppm=55),
            Instrument("BBB", 40, 20, tick_step=2, luld_ppm=90_000, taker_fee_ppm=9_999),
        ),
        Venue(
            holds=True, orders_per_second=20, breakers=True, limit_state_seconds=5, pause_seconds=20, breaker_seconds=40
        ),
        admin=0.04,
        fund=0.1,
        leap=0.02,
    ),
    Profile(
        "turns",  # phases, halts and pauses in every order; also of one symbol beside the market
        (
            Instrument("AAA", 100, 40, luld_ppm=20_000, auction_fee_ppm=777),
            Instrument("BBB", 50, 30, luld_ppm=40_000),
            Instrument("CCC", 40, 20),
        ),
        Venue(breakers=True, limit_state_seconds=2, pause_seconds=10, reopening_seconds=10, breaker_seconds=20),
        admin=0.2,
        spread=4,
        pace=(1, SECOND // 3, SECOND, 4 * SECOND),
        leap=0.01,
        patience=0.03,
    ),
    Profile(
        "limited",  # one order meets two others at once: sweeps are cut, cascades and all-or-nones go on afterwards
        (Instrument("AAA", 10, 8, taker_fee_ppm=1_005), Instrument("BBB", 100, 40, luld_ppm=60_000)),
        Venue(holds=True, max_trades_per_command=2, pause_seconds=10, limit_state_seconds=2),
        admin=0.03,
        fund=0.1,
    ),
    Profile(
        "rests",  # what market orders leave stands; half of the stops are ioc or fok
        (
            Instrument("AAA", 10, 8, taker_fee_ppm=12_500, maker_fee_ppm=-500),
            Instrument("BBB", 50, 30, luld_ppm=60_000, tick_size="0.001"),
        ),
        Venue(holds=True, market_remainder=MarketRemainder.REST, limit_state_seconds=3, pause_seconds=10),
        admin=0.03,
        fund=0.15,
        hasty=0.5,
    ),
)
GATHERING = (TradingPhase.PRE_OPEN, TradingPhase.OPENING_AUCTION, TradingPhase.CLOSING_AUCTION)
FIELDS = ("account", "symbol", "side", "terms", "time_in_force", "expires_at", "self_trade", "session")
GARBAGE = (None, 7, -1, True, 1.5, "north")
CONTRARY = (0, -1, 1_000_001, 2_000_000_000, "5", True, 1.5)


class Script:
    """One walk: what is asked next, of what stands in the naive engine."""

    def __init__(self, profile: Profile, rng: random.Random, naive):
        self.profile, self.rng, self.naive = profile, rng, naive
        self.number, self.at = 0, 0
        self.wrong = 0.03

    def next(self):
        """The next instant and command."""
        rng = self.rng
        self.number += 1
        self.at += rng.choice(self.profile.pace)
        if rng.random() < self.profile.leap:
            self.at += rng.choice((5, 20, 70, 400)) * SECOND
        if rng.random() < 0.01:
            return self.at - rng.choice((1, SECOND)), self.command()
        return self.at, self.command()

    def command(self):
        rng, profile = self.rng, self.profile
        kind = rng.random()
        way_out = self.way_out()
        if way_out is not None and kind < profile.patience:
            return way_out
        asked = rng.choices(
            (self.admin, self.fund, self.place, self.cancel, self.replace, self.rare),
            (profile.admin, profile.fund, 0.74, 0.09, 0.145, 0.025),
        )
        return asked[0]()

    def off(self):
        return self.rng.random() < self.wrong

    def client_id(self):
        if self.off():
            return self.rng.choice(("", "x" * 65, "é", f"c{self.rng.randrange(self.number + 1)}", 7, "c1\n"))
        return f"c{self.number}"

    def order_id(self):
        """The order that `owner` chose, or any other near the last ones."""
        if self.chosen is not None and not self.off():
            return self.chosen.order_id
        if self.off():
            return self.rng.choice(CONTRARY)
        return self.rng.randrange(max(0, self.naive.made - 20), self.naive.made + 2)

    def owner(self):
        self.chosen = self.rng.choice(self.naive.orders) if self.naive.orders else None
        return self.chosen.account if self.chosen else self.rng.choice(ACCOUNTS)

    def price(self, symbol):
        instrument = self.naive.instruments.get(symbol)
        if instrument is None:
            return 10
        if self.off():
            return self.rng.choice(
                (*CONTRARY, instrument.reference + instrument.band, instrument.reference - instrument.band - 1)
            )
        middle = self.naive.last.get(symbol, instrument.reference)
        step, spread = instrument.tick_step, self.profile.spread
        wanted = middle // step * step + self.rng.randrange(-spread, spread + 1) * step
        if self.rng.random() < 0.1:
            return wanted + 1
        low, high = instrument.reference - instrument.band, instrument.reference + instrument.band
        return max(1, low, min(high, wanted))

    def lots(self, symbol, most=7):
        if self.off():
            return self.rng.choice(CONTRARY)
        instrument = self.naive.instruments.get(symbol)
        step = instrument.lot_step if instrument else 1
        return self.rng.randrange(1, most) * step

    def symbol(self):
        if self.off():
            return self.rng.choice(("ZZZ", ""))
        return self.rng.choice((self.naive.symbols[0], *self.naive.symbols))

    def place(self):
        rng, symbol = self.rng, self.symbol()
        terms, lasts, most = self.terms(symbol)
        expires_at = 0
        if lasts is TimeInForce.GTT:
            expires_at = self.at + rng.choice((1, SECOND, 5 * SECOND, 90 * SECOND))
        if self.off():
            lasts, expires_at = rng.choice(tuple(TimeInForce)), rng.choice((0, expires_at, -1, self.at))
        mode = rng.choice(tuple(SelfTrade)) if rng.random() < 0.6 else SelfTrade.NONE
        account = rng.choice(ACCOUNTS) if not self.off() else rng.choice(("", "x" * 65, "d"))
        side = rng.choice(tuple(Side))
        lots = self.lots(symbol, most)
        session = rng.choice(SESSIONS)
        order = c.PlaceOrder(account, self.client_id(), symbol, side, lots, terms, lasts, expires_at, mode, session)
        return structs.replace(order, **{rng.choice(FIELDS): rng.choice(GARBAGE)}) if self.off() else order

    def terms(self, symbol):
        """Terms, how long they last, and how many lots at most."""
        rng, price = self.rng, self.price(symbol)
        long = rng.choice((TimeInForce.DAY, TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTT))
        at_once = rng.choice((TimeInForce.IOC, TimeInForce.FOK))
        gathers = self.naive.state(symbol if symbol in self.naive.instruments else None) == "gather" and not self.off()
        hasty = self.profile.hasty and rng.random() < self.profile.hasty
        stays = at_once if hasty else long
        kinds = (
            (0.35, lambda: (c.Limit(price), long, 7)),
            (0.0 if gathers else 0.12, lambda: (c.Limit(price), at_once, 9)),
            (0.08, lambda: (c.Market(), rng.choice((TimeInForce.DAY, TimeInForce.IOC, TimeInForce.FOK)), 9)),
            (
                0.0 if gathers else 0.07,
                lambda: (c.Limit(price, post_only=True, display=rng.choice((0, 0, 1))), long, 7),
            ),
            (0.12, lambda: (c.Limit(price, display=self.lots(symbol, 4)), long, 13)),
            (0.0 if gathers else 0.1, lambda: (c.Limit(price, all_or_none=True), long, 12)),
            (0.08, lambda: (c.Stop(self.price(symbol)), stays, 7)),
            (0.06, lambda: (c.StopLimit(self.price(symbol), price, 0 if hasty else rng.choice((0, 0, 2))), stays, 7)),
            (0.02, lambda: self.contrary_terms(price, long, at_once)),
        )
        return rng.choices([make for _, make in kinds], [share for share, _ in kinds])[0]()

    def contrary_terms(self, price, long, at_once):
        return self.rng.choice(
            (
                (c.Limit(price, post_only=True, all_or_none=True), long, 7),
                (c.Limit(price, display=2, all_or_none=True), long, 7),
                (c.Limit(price, display=2), at_once, 7),
                (c.Limit(price, post_only=1), long, 7),
                (c.Stop(price), at_once, 7),
                (c.Market(), TimeInForce.GTC, 7),
            )
        )

    def cancel(self):
        owner = self.owner()
        account = self.rng.choice(ACCOUNTS) if self.off() else owner
        return c.CancelOrder(account, self.client_id(), self.order_id())

    def replace(self):
        rng, account = self.rng, self.owner()
        order_id = self.order_id()
        order = self.naive.find(order_id)
        symbol = self.symbol() if order is None else order.symbol
        price, lots, trigger = self.price(symbol), self.lots(symbol, 9), None
        if order is not None and order.price is not None and rng.random() < 0.5:
            price = order.price
        if order is not None and order.quantity > 1 and rng.random() < 0.3:
            lots = rng.randrange(1, order.quantity + 1)
        if rng.random() < 0.4:
            trigger = self.price(symbol)
        if self.off():
            account = rng.choice(ACCOUNTS)
        return c.ReplaceOrder(account, self.client_id(), order_id, lots, price, trigger)

    def fund(self):
        rng = self.rng
        asset = rng.choice(("$cash", *self.naive.symbols)) if not self.off() else "ZZZ"
        size = 3_000_000 if asset == "$cash" else 12
        return c.Fund(
            self.client_id(),
            rng.choice(ACCOUNTS),
            asset,
            rng.randrange(-size // 4, size) if not self.off() else rng.choice((*CONTRARY, 10**18, 10**18 + 1)),
        )

    def rare(self):
        rng, key = self.rng, self.client_id()
        account = rng.choice(ACCOUNTS)
        kind = rng.random()
        if kind < 0.3:
            symbol = rng.choice((None, *self.naive.symbols, "ZZZ"))
            return c.MassCancel(
                account,
                key,
                symbol,
                rng.choice((None, *Side)) if not self.off() else "north",
                rng.choice((None, None, *SESSIONS)) if not self.off() else 7,
            )
        if kind < 0.36:
            return c.DisableAccount(key, account)
        if kind < 0.7:
            return c.Tick(key)
        if kind < 0.8:
            return self.fund()
        return c.EnableAccount(key, min(self.naive.disabled, default=account))

    def way_out(self):
        """What leads back to trading; standing still is soon over, or most of a script would be refusals."""
        naive, key = self.naive, self.client_id()
        if naive.market_phase is TradingPhase.CLOSED:
            return c.OpenSession(key)
        if naive.market_halted:
            return c.Resume(key, None)
        if naive.market_phase is not TradingPhase.CONTINUOUS:
            return c.SetPhase(key, TradingPhase.CONTINUOUS)
        if naive.halted:
            return c.Resume(key, min(naive.halted), self.rng.random() < 0.3)
        if naive.disabled:
            return c.EnableAccount(key, min(naive.disabled))
        odd = [one for one in naive.symbols if naive.phase[one] is not TradingPhase.CONTINUOUS]
        return c.SetPhase(key, TradingPhase.CONTINUOUS, odd[0]) if odd else None

    def admin(self):
        rng, key = self.rng, self.client_id()
        symbol = rng.choice((None, *self.naive.symbols)) if not self.off() else "ZZZ"
        kind = rng.random()
        if kind < 0.15:
            return c.Halt(key, symbol, rng.choice(tuple(HaltReason)) if not self.off() else "fun")
        if kind < 0.3:
            return c.Resume(key, symbol, rng.random() < 0.4 if not self.off() else 1)
        if kind < 0.85:
            if self.off():
                return c.SetPhase(key, "lunch", symbol)
            phase = rng.choice((*TradingPhase, *GATHERING, TradingPhase.CONTINUOUS))
            if self.naive.state(None) == "gather" and rng.random() < 0.3:
                phase = rng.choice((TradingPhase.POST_CLOSE, TradingPhase.CLOSED))
            return c.SetPhase(key, phase, symbol)
        if kind < 0.93:
            return c.CloseSession(key)
        # The same draw decides: another one would make all scripts other ones.
        opened = TradingPhase.PRE_OPEN if kind > 0.98 else TradingPhase.CONTINUOUS
        return c.OpenSession(key, TradingPhase.CLOSED if kind > 0.995 else opened)
