# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The engine beside the naive one: the first difference of a walk, and the shortest script that still shows it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from msgspec import structs

from exchange.commands import CancelOrder, ReplaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Accepted, Funded, Happened
from exchange.market_data import Follower, MarketData
from exchange.types import Side
from tests.exchange.naive import NaiveEngine
from tests.exchange.random_commands import Profile, Script
from tests.exchange.told_book import ToldBook


class Pair:
    """Both engines, and what must be true of them after every command."""

    def __init__(self, profile: Profile, kind=Engine):
        self.profile, self.kind = profile, kind
        self.naive = NaiveEngine(profile.instruments, profile.venue)
        self.engine = kind(profile.instruments, profile.venue)
        self.funded: Counter[str] = Counter()
        self.followed = ToldBook()
        self.data, self.follower = MarketData(self.naive.symbols), Follower()
        for symbol in self.naive.symbols:
            self.follower.take(self.data.snapshot(symbol))
        self.seq = 0
        self.looked_at: set[int] = set()

    def step(self, at, command):
        """Carry a command out in both; what differs, or None."""
        self.seq += 1
        item = Sequenced(self.seq, at, command)
        right = self.naive.apply(item)
        try:
            told = self.engine.apply(item)
        except Exception as error:  # noqa: BLE001 - a planted bug may raise anything
            return f"raises: engine {error!r}, naive {right}"
        if told != right:
            return f"events: engine {told}, naive {right}"
        for event in told:
            self.followed.take(event)
            if isinstance(event, Funded):
                self.funded[event.asset] += event.amount
        return self.books() or self.feed(item, told) or self.orders() or self.money()

    def thaw(self):
        """Go on with an engine made of the frozen one."""
        before = self.engine.state_hash()
        self.engine = self.kind.thaw(self.engine.freeze(), self.profile.instruments, self.profile.venue)
        self.looked_at = set()
        return None if self.engine.state_hash() == before else "the thawed engine has another hash"

    def books(self):
        for symbol in self.naive.symbols:
            for side in Side:
                right, shown = self.naive.shown(symbol, side), list(map(tuple, self.engine.queue(symbol, side)))
                if shown != right:
                    return f"book {symbol} {side}: engine {shown}, naive {right}"
                levels: Counter[int] = Counter()
                for price, _, lots in right:
                    levels[price] += lots
                if self.followed.levels(symbol, side) != tuple(levels.items()):
                    return f"book {symbol} {side} as told: {self.followed.levels(symbol, side)}, naive {right}"
            if self.naive.state(symbol) == "continuous":
                bid, ask = self.engine.queue(symbol, Side.BUY)[:1], self.engine.queue(symbol, Side.SELL)[:1]
                if bid and ask and bid[0][0] >= ask[0][0]:
                    return f"book {symbol} stands crossed: {bid} {ask}"
            if self.naive.state(symbol) == "gather":
                right, found = self.naive.indicative(symbol), self.engine.indicative(symbol)
                if (found and (found.price, found.volume, found.surplus)) != right:
                    return f"indicative {symbol}: engine {found}, naive {right}"
        return None

    def feed(self, item, told):
        """The public feed, and what a subscriber makes of it."""
        for message in self.data.fold(Happened(item.seq, item.at, told)):
            found = self.follower.take(message)
            if found:
                return f"feed: {found} of {message}"
        for symbol in self.naive.symbols:
            right = tuple(self.followed.levels(symbol, side) for side in Side)
            book = self.follower.book(symbol)
            for who, depth in (
                ("engine", self.engine.depth(symbol, 1_000)),
                ("market data", self.data.depth(symbol, 1_000)),
                ("follower", (book.bids.depth(), book.asks.depth())),
            ):
                if tuple(depth) != right:
                    return f"feed {symbol}: {who} {depth}, naive {right}"
            if not book.seq == self.engine.symbol_seq(symbol) == self.naive.seqs[symbol]:
                return f"feed {symbol}: numbers {book.seq}, engine {self.engine.symbol_seq(symbol)}"
        return None

    def orders(self):
        right = sorted((order.order_id, order.quantity) for order in self.naive.orders)
        live = list(map(tuple, self.engine.live()))
        return self.ended() if live == right else f"live: engine {live}, naive {right}"

    def ended(self):
        """How orders ended, each once, and all of them anew when the engine was thawed (E8)."""
        if self.naive.day_begun:
            gone = [one for one in self.looked_at if one not in self.naive.ended]
            if any((view := self.engine.order(one)).status.value != "ended" or view.account for one in gone):
                return f"ended on another day: engine knows one of {gone}"
            self.looked_at = set()
        for order in self.naive.ended_now if self.looked_at else self.naive.ended.values():
            fills, view = self.engine.fills(order.order_id), self.engine.order(order.order_id)
            trades = tuple(one.trade_id for one in fills)
            price = None if order.fate[-2] is None else view.price
            name = view.client_id, view.account, view.symbol, view.side, price
            told = view.status.value, view.filled, view.canceled, view.reason, *name, trades
            if told != order.fate:
                return f"ended {order.order_id}: engine {told}, naive {order.fate}"
            self.looked_at.add(order.order_id)
        return None

    def money(self):
        right = {key: amount for key, amount in self.naive.balances.items() if amount}
        balances = {key: amount for key, amount in self.engine.balances().items() if amount}
        if balances != right:
            return f"balances: engine {balances}, naive {right}"
        sums: Counter[str] = Counter()
        for (_, asset), amount in balances.items():
            sums[asset] += amount
        if any(sums[asset] != self.funded[asset] for asset in sums | self.funded):
            return f"assets are not kept: {sums}, funded {self.funded}"
        if self.naive.venue.holds:
            for account, asset in self.naive.balances:
                right, free = self.naive.free(account, asset), self.engine.free(account, asset)
                if right != free:
                    return f"free {asset} of {account}: engine {free}, naive {right}"
        return None


def walk(profile, seed, steps, kind=Engine, thaws=0.0):
    """Commands up to the first difference, and that difference (None: none within `steps`)."""
    pair, commands, rng = Pair(profile, kind), [], random.Random(seed)
    script = Script(profile, random.Random(seed), pair.naive)
    for _ in range(steps):
        commands.append(script.next())
        difference = pair.step(*commands[-1])
        if difference is None and rng.random() < thaws:
            difference = pair.thaw()
        if difference is not None:
            return commands, difference
    return commands, None


def agree(profile, seed, steps, thaws=0.0):
    """Walk, and fail with the shortest script that shows a difference."""
    commands, difference = walk(profile, seed, steps, thaws=thaws)
    if difference is not None:
        shown = shortest(profile, commands) if differs(profile, commands) else (0, difference, commands[-1:])
        lines = "\n".join(f"{at} {command}" for at, command in shown[2])
        pytest.fail(f"profile {profile.name}, seed {seed}, command {len(commands)}: {shown[1]}\n{lines}")


def hashes(profile, seed, steps):
    """The hash of the engine's state after each command of a walk."""
    pair = Pair(profile)
    script, found = Script(profile, random.Random(seed), pair.naive), []
    for _ in range(steps):
        assert pair.step(*script.next()) is None
        found.append(pair.engine.state_hash())
    return found


def placed_by(profile, commands):
    """By order id, the place in the script of the command that placed it."""
    naive, found = NaiveEngine(profile.instruments, profile.venue), {}
    for number, (at, command) in enumerate(commands):
        for event in naive.apply(Sequenced(number + 1, at, command)):
            if isinstance(event, Accepted):
                found[event.order_id] = number
    return found


def differs(profile, commands, kept=None, kind=Engine):
    """The first difference of a script of which only some places are kept, and at which place.

    Orders are then others by number; a cancel or a replacement means the same order as in the whole script.
    """
    placed, now = placed_by(profile, commands), {}
    pair, script = Pair(profile, kind), []
    for number in range(len(commands)) if kept is None else kept:
        at, command = commands[number]
        if isinstance(command, CancelOrder | ReplaceOrder) and command.order_id in placed:
            command = structs.replace(command, order_id=now.get(placed[command.order_id], 10**6))
        script.append((at, command))
        made = pair.naive.made
        difference = pair.step(at, command)
        if difference is not None:
            return number, difference, script
        if pair.naive.made > made:
            now[number] = pair.naive.made
    return None


def shortest(profile, commands, kind=Engine):
    """Leave out what is not needed for a difference: halves, quarters, and so on down to single commands."""
    kept = list(range(len(commands)))
    part = len(commands) // 2
    while part:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + part :]
            found = differs(profile, commands, fewer, kind)
            if found is None:
                start += part
            else:
                kept = [number for number in fewer if number <= found[0]]
        part //= 2
    return differs(profile, commands, kept, kind)
