# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Commands and events as short lines of text, so that an example of a rule can be read at a glance.

ann buy 5 @10 show=2      a limit order of ann for 5 lots at 10 ticks that shows 2
bob sell 3 market fok     bob sells 3 at any price, all or nothing
ann buy 5 stop 12 @13     a stop-limit order
ann replace 1 4 @10       order 1 shall have 4 left at 10
+3s tick                  three seconds later nothing comes
"""

from __future__ import annotations

from exchange import commands as c
from exchange import events as e
from exchange.types import HaltReason, SelfTrade, Side, TimeInForce, TradingPhase

SECOND = 1_000_000_000
MODES = {
    "newest": SelfTrade.CANCEL_NEWEST,
    "oldest": SelfTrade.CANCEL_OLDEST,
    "both": SelfTrade.CANCEL_BOTH,
    "decrement": SelfTrade.DECREMENT,
}


class Reader:
    """Reads lines; numbers the client ids and moves the time on."""

    def __init__(self):
        self.number, self.at = 0, 0

    def read(self, line):
        """The sequenced command of a line."""
        words = line.split()
        if words[0].startswith("+"):
            self.at += int(float(words.pop(0)[1:-1]) * SECOND)
        self.number += 1
        key = f"c{self.number}"
        command = self.admin(words, key) or self.order(words, key)
        return c.Sequenced(self.number, self.at, command)

    def admin(self, words, key):
        what, rest = words[0], words[1:]
        symbol = next((word for word in rest if word.isupper()), None)
        made = {
            "halt": lambda: c.Halt(key, symbol, HaltReason.OPERATOR),
            "resume": lambda: c.Resume(key, symbol, "auction" in rest),
            "phase": lambda: c.SetPhase(key, TradingPhase(rest[0]), symbol),
            "close": lambda: c.CloseSession(key),
            "open": lambda: c.OpenSession(key),
            "fund": lambda: c.Fund(key, rest[0], rest[1], int(rest[2])),
            "disable": lambda: c.DisableAccount(key, rest[0]),
            "enable": lambda: c.EnableAccount(key, rest[0]),
            "tick": lambda: c.Tick(key),
        }
        return made[what]() if what in made else None

    def order(self, words, key):
        account, what, rest = words[0], words[1], words[2:]
        options = dict(word.split("=") for word in rest if "=" in word)
        price = next((int(word[1:]) for word in rest if word.startswith("@")), None)
        if what == "cancel":
            return c.CancelOrder(account, key, int(rest[0]))
        if what == "replace":
            trigger = int(options["trigger"]) if "trigger" in options else None
            return c.ReplaceOrder(account, key, int(rest[0]), int(rest[1]), price or 0, trigger)
        if what == "mass":
            symbol = next((word for word in rest if word.isupper()), None)
            side = next((Side(word) for word in rest if word in ("buy", "sell")), None)
            return c.MassCancel(account, key, symbol, side, options.get("session"))
        display = int(options.get("show", "0"))
        if "stop" in rest:
            trigger = int(rest[rest.index("stop") + 1])
            terms = c.Stop(trigger) if price is None else c.StopLimit(trigger, price, display)
        else:
            terms = c.Market() if price is None else c.Limit(price, "post" in rest, display, "aon" in rest)
        lasts = TimeInForce.GTT if "gtt" in options else TimeInForce.DAY
        for one in TimeInForce:
            lasts = one if one.value in rest else lasts
        expires_at = int(options["gtt"]) * SECOND if "gtt" in options else 0
        mode = next((MODES[word] for word in rest if word in MODES), SelfTrade.NONE)
        symbol = next((word for word in rest if word.isupper()), "AAA")
        session = options.get("session", "")
        return c.PlaceOrder(account, key, symbol, Side(what), int(rest[0]), terms, lasts, expires_at, mode, session)


def say(event):
    """An event as a line, without what most examples do not ask for."""
    return SAID[type(event)](event) if type(event) in SAID else type(event).__name__.lower()


def lots_at(event):
    return f"{event.quantity}@{event.price}"


SAID = {
    e.Accepted: lambda one: f"take {one.order_id}",
    e.Rested: lambda one: f"rest {one.order_id} {lots_at(one)}",
    e.Rejected: lambda one: f"no {one.reason.value}",
    e.Traded: lambda one: f"trade {lots_at(one)} {one.maker_order_id}<{one.taker_order_id}",
    e.Canceled: lambda one: (
        f"cancel {one.order_id} {one.quantity} {one.reason.value}" + (f" left {one.left}" if one.left else "")
    ),
    e.Replaced: lambda one: f"replace {one.order_id} {lots_at(one)} {'kept' if one.kept_priority else 'lost'}",
    e.Expired: lambda one: f"expire {one.order_id} {lots_at(one)}",
    e.Replenished: lambda one: f"again {one.order_id} {lots_at(one)}",
    e.Triggered: lambda one: f"trigger {one.order_id}",
    e.Crossed: lambda one: f"cross {lots_at(one)} surplus {one.surplus}",
    e.PhaseChanged: lambda one: f"phase {one.symbol or 'all'} {one.phase.value}",
    e.LimitState: lambda one: f"limit {'in' if one.entered else 'out'} {one.lower}-{one.upper}",
    e.Paused: lambda one: f"pause {one.symbol or 'all'} until {one.until // SECOND}s",
    e.Breaker: lambda one: f"breaker {one.level}",
    e.MassCanceled: lambda one: f"gone {one.count}",
}
