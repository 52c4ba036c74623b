# mypy: disable-error-code="arg-type"
"""A seeded flow of every kind of command: for comparing builds, and for their speed.

It hears which orders were taken, never what became of them: one that it replaces or cancels may be gone.
"""

import random
from math import nan

from msgspec.structs import replace

from exchange import commands as c
from exchange.events import Accepted
from exchange.types import HaltReason, Instrument, SelfTrade, Side, TimeInForce, TradingPhase, Venue

SECOND = 1_000_000_000
ACCOUNTS = [f"account-{number}" for number in range(12)]
INSTRUMENTS = [
    Instrument("AAA", 10_000, 4_000, maker_fee_ppm=-100, taker_fee_ppm=300, auction_fee_ppm=200),
    Instrument("BBB", 5_000, 2_000, luld_ppm=3_000, taker_fee_ppm=250),
    Instrument("CCC", 2_000, 1_500, tick_step=5, lot_step=10, lot_size="5"),
]
VENUE = Venue(holds=True, breakers=True, orders_per_second=5_000, pause_seconds=5, limit_state_seconds=2,
              reopening_seconds=3, breaker_seconds=10)  # fmt: skip
RARE = 0.002
"""Share of halts, phases, sessions and the like. An exchange that stands still would hide the rest."""


WRONG = 0.02
"""Share of commands with a field of a wrong type or value."""


class EveryKind:
    """The flow of one seed: yields an instant and a command."""

    def __init__(self, seed, *, rare=RARE, wrong=WRONG):
        self.rng = random.Random(seed)
        self.rare, self.wrong = rare, wrong
        self.at = 0
        self.made = 0
        self.orders = []
        self.middle = {one.symbol: one.reference for one in INSTRUMENTS}
        self.owed = []

    def __iter__(self):
        for account in ACCOUNTS:
            for asset, amount in (("$cash", 10**15), *((one.symbol, 10**9) for one in INSTRUMENTS)):
                yield self.at, c.Fund(self.key(), account, asset, amount)
        while True:
            self.at += self.rng.choice((0, 50_000, 200_000, 1_000_000))
            command = self.command()
            yield self.at, self.spoiled(command) if self.rng.random() < self.wrong else command

    def spoiled(self, command):
        """Return the command with one field, or one of its terms, that is not what it says."""
        spoiled = self.rng.choice(
            (0, -1, 2**63, "5", True, 1.5, None, "", "x" * 65, "\u00e9", b"x", ["x"], {"x": 1}, nan)
        )
        terms = getattr(command, "terms", None)
        inner = terms is not None and terms.__struct_fields__
        if inner and self.rng.random() < 0.4:
            return replace(command, terms=replace(terms, **{self.rng.choice(inner): spoiled}))
        return replace(command, **{self.rng.choice(command.__struct_fields__): spoiled})

    def observe(self, events):
        """Remember the orders that were taken."""
        self.orders.extend((one.order_id, one.account, one.symbol) for one in events if isinstance(one, Accepted))

    def key(self):
        self.made += 1
        return f"k-{self.made}"

    def command(self):
        if self.owed and self.rng.random() < 0.03:
            return self.owed.pop()(self.key())
        choice = self.rng.random()
        if choice < self.rare:
            return self.admin()
        if choice < 0.30 and self.orders:
            order_id, account, symbol = self.orders[-1 - min(len(self.orders) - 1, int(self.rng.expovariate(0.02)))]
            if self.rng.random() < 0.03:
                account, order_id = self.rng.choice(ACCOUNTS), order_id + self.rng.choice((0, 1_000_000))
            if choice < 0.20:
                return c.CancelOrder(account, self.key(), order_id)
            one = next(each for each in INSTRUMENTS if each.symbol == symbol)
            price = self.price(one, self.rng.choice((-1, 1)))
            return c.ReplaceOrder(account, self.key(), order_id, self.lots(one), price)
        return self.place()

    def lots(self, one):
        return self.rng.randrange(1, 40) * one.lot_step

    def price(self, one, sign):
        if self.rng.random() < 0.05:
            self.middle[one.symbol] += self.rng.choice((-1, 1)) * one.tick_step
        if self.rng.random() < 0.0007:  # news, mostly bad: bands and breakers shall see something
            moved = self.middle[one.symbol] * self.rng.choice((85, 85, 112)) // 100
            self.middle[one.symbol] = max(one.reference - one.band // 2, min(one.reference + one.band // 2, moved))
        away = int(self.rng.expovariate(0.3)) * one.tick_step
        if self.rng.random() < 0.25:
            away = -away
        return (self.middle[one.symbol] - sign * away) // one.tick_step * one.tick_step

    def place(self):
        rng = self.rng
        account, one, side = rng.choice(ACCOUNTS), rng.choice(INSTRUMENTS), rng.choice((Side.BUY, Side.SELL))
        sign = 1 if side is Side.BUY else -1
        terms, lasts = self.terms(one, sign)
        expires_at = self.at + rng.choice((1, SECOND, 20 * SECOND)) if lasts is TimeInForce.GTT else 0
        mode = rng.choice(tuple(SelfTrade))
        session, lots = rng.choice(("", "s1", "s2")), self.lots(one)
        return c.PlaceOrder(account, self.key(), one.symbol, side, lots, terms, lasts, expires_at, mode, session)

    def terms(self, one, sign):
        rng, price = self.rng, self.price(one, sign)
        beyond = price + sign * rng.randrange(0, 15) * one.tick_step
        lasts = rng.choice((TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTT))
        kind = rng.random()
        for share, make in (
            (0.01, lambda: (c.Limit(rng.choice((0, price + 1, 2**63))), lasts)),
            (0.55, lambda: (c.Limit(price), lasts)),
            (0.63, lambda: (c.Limit(price), rng.choice((TimeInForce.IOC, TimeInForce.FOK)))),
            (0.68, lambda: (c.Market(), rng.choice((TimeInForce.DAY, TimeInForce.FOK)))),
            (0.76, lambda: (c.Limit(price, display=one.lot_step), lasts)),
            (0.82, lambda: (c.Limit(price, post_only=True), lasts)),
            (0.88, lambda: (c.Limit(price, all_or_none=True), lasts)),
            (0.94, lambda: (c.Stop(beyond), lasts)),
        ):
            if kind < share:
                return make()
        return c.StopLimit(beyond, price, rng.choice((0, one.lot_step))), lasts

    def admin(self):
        """Return something rare, and owe what ends it."""
        rng, symbol, account = self.rng, self.rng.choice((None, *self.middle)), self.rng.choice(ACCOUNTS)
        kind = rng.randrange(7)
        if kind == 0:
            self.owed.append(lambda key: c.Resume(key, symbol, auction=symbol is not None))
            return c.Halt(self.key(), symbol, HaltReason.OPERATOR)
        if kind <= 2:
            self.owed.append(lambda key: c.SetPhase(key, TradingPhase.CONTINUOUS, symbol))
            gathers = (TradingPhase.PRE_OPEN, TradingPhase.OPENING_AUCTION, TradingPhase.INTRADAY_AUCTION)
            return c.SetPhase(self.key(), rng.choice(gathers), symbol)
        if kind == 3:
            self.owed.append(c.OpenSession)
            return c.CloseSession(self.key())
        if kind == 4:
            self.owed.append(lambda key: c.EnableAccount(key, account))
            return c.DisableAccount(self.key(), account)
        if kind == 5:
            return c.Tick(self.key())
        return c.MassCancel(account, self.key(), symbol, rng.choice((None, Side.BUY)), rng.choice((None, "s1")))
