# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""A small world in which trades are settled by sagas, with crashes, loss, repeats and disorder, judged after every act.

The world knows both styles. What it judges is written from the promise and not from the code: sums never change,
nothing is delivered that is not cleared, nothing is cleared that is not reserved and paid, taking back goes in reverse
order.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec

from exchange.events import Traded
from exchange.ledger import CASH, FEES, Balances, postings
from exchange.types import Side
from kernel.time import MILLISECOND, SECOND

ROOT = Path(__file__).parents[2]
NAMES = ("saga", "saga_coordinator", "saga_choreography")
STYLES = ("orchestrated", "choreographed")
READER = "reader"
MONEY = 10
PATIENCE = 20_000
"""So many acts until a world that has not ended counts as one that never ends."""


class Crash(Exception):  # noqa: N818 - nothing is wrong, the world wants it so
    """A part dies here; what it had not written is gone."""


class BrokenPromiseError(AssertionError):
    """What must not be."""


@dataclass(frozen=True)
class Parts:
    """The modules under test."""

    saga: Any
    coordinator: Any
    choreography: Any
    entries: msgspec.json.Decoder[Any]


def parts(module="", right="", wrong=""):
    """Import the modules anew, with a passage of one replaced."""
    kept = {name: sys.modules.pop(f"exchange.{name}", None) for name in NAMES}
    try:
        made = []
        for name in NAMES:
            file = ROOT / "exchange" / f"{name}.py"
            source = file.read_text("utf-8")
            if name == module:
                assert source.count(right) == 1, f"{right!r} is {source.count(right)} times in {name}; plant it anew"
                source = source.replace(right, wrong)
            spec = spec_from_file_location(f"exchange.{name}", file)
            assert spec is not None
            made.append(module_from_spec(spec))
            sys.modules[f"exchange.{name}"] = made[-1]
            exec(compile(source, str(file), "exec"), made[-1].__dict__)
        # msgspec looks the annotations up in sys.modules, so this has to be made while the modules stand there.
        return Parts(*made, entries=msgspec.json.Decoder(made[1].Entry))
    finally:
        for name, old in kept.items():
            sys.modules.pop(f"exchange.{name}", None)
            if old is not None:
                sys.modules[f"exchange.{name}"] = old


def trade(number, quantity=3, buyer="p", seller="q", price=105):
    return Traded(number, "AAA", number, price, quantity, 1, 2, Side.BUY, buyer, seller, 0, buyer_fee=7, seller_fee=-2)


@dataclass(frozen=True)
class Plan:
    """What happens to a world."""

    style: str
    trades: tuple[Traded, ...]
    least: int | None = None
    """The least an account may have, of cash, lots and for fees."""
    opening: tuple[tuple[str, str, str, int], ...] = ()
    """Service, account, asset and amount."""
    suspended: tuple[str, ...] = ()
    crashes: tuple[int, ...] = ()
    """At which points, by number, a part dies."""
    away: tuple[str, ...] = ()
    """These services hear nothing for `away_for`."""
    away_for: int = 8 * SECOND
    trouble: float = 0.0
    """How probable each of loss, repeat and crash is at each act, while `troubled_acts` last."""
    troubled_acts: int = 250
    impatient: bool = False
    """Sagas are given up so soon that the pivot decides."""
    ends_as: str = ""
    """How every saga has to end; empty: either way."""


class World:
    """One run of a plan."""

    def __init__(self, plan, made, rng=None, patience=PATIENCE):
        self.plan, self.made, self.rng, self.patience = plan, made, rng, patience
        saga = made.saga
        give_up = 30 * MILLISECOND if plan.impatient else 5 * SECOND
        self.times = made.coordinator.Times(200 * MILLISECOND, 2 * SECOND, give_up, 20 * SECOND)
        self.books = {service: saga.Book() for service in saga.Service}
        self.rules = {service: saga.Rules(plan.least, frozenset(plan.suspended)) for service in saga.Service}
        for service, account, asset, amount in plan.opening:
            self.books[saga.Service(service)].deposit(account, asset, amount)
        self.sums = self.summed()
        self.now, self.acts, self.points, self.sent = 0, 0, [], 0
        self.wire: list[tuple[str, Any]] = []
        self.journal: list[bytes] = []
        self.lead = made.coordinator.Coordinator(self.times)
        self.kept = {name: {} for name in (*saga.Service, READER)}
        self.heard = {name: {} for name in self.kept}
        self.sayings = {name: made.choreography.Sayings(self.times) for name in self.kept}
        self.read = 0
        self.ends: dict[int, str] = {}
        self.answers: dict[tuple[int, str], Any] = {}
        self.noted: set[tuple[str, int, str]] = set()

    # What happens

    def run(self):
        """Settle everything, and judge."""
        while not self.over():
            self.acts += 1
            if self.acts > self.patience:
                raise BrokenPromiseError(f"never ends: {self.ends}, {self.lead.standing}, {self.kept[READER]}")
            try:
                self.act()
            except Crash:
                self.wake()
            self.judge()
        self.judge_end()
        return self

    def over(self):
        if self.read < len(self.plan.trades) or self.wire:
            return False
        if self.plan.style == "orchestrated":
            return not self.lead.standing
        return not any(self.kept.values())

    def act(self):
        if self.read < len(self.plan.trades):
            self.begin(self.made.saga.instruction(self.plan.trades[self.read], MONEY))
        elif self.wire:
            self.now += MILLISECOND
            to, message = self.wire.pop(self.rng.randrange(len(self.wire)) if self.rng else 0)
            if self.happens():
                self.wire.append((to, message))
            if not self.happens() and not (to in self.plan.away and self.now < self.plan.away_for):
                self.deliver(to, message)
        else:
            self.now += 100 * MILLISECOND
        self.turn()

    def happens(self):
        return self.rng is not None and self.acts < self.plan.troubled_acts and self.rng.random() < self.plan.trouble

    def point(self, where):
        self.points.append(where)
        if len(self.points) - 1 in self.plan.crashes or self.happens():
            raise Crash(where)

    def send(self, to, message):
        self.sent += 1
        self.wire.append((to, message))

    def begin(self, instruction):
        if self.plan.style == "orchestrated":
            entry = self.lead.begin(instruction, self.now)
            if entry is not None:
                self.note(entry)
        else:
            self.point("reader: before it is kept")
            self.sayings[READER].begin(instruction, self.now)
            self.kept[READER] = self.sayings[READER].kept
        self.read += 1

    def note(self, entry):
        self.point(f"coordinator: before the journal has {type(entry).__name__}")
        self.judge_entry(entry)
        self.journal.append(msgspec.json.encode(entry))
        self.point(f"coordinator: after the journal has {type(entry).__name__}")
        self.lead.apply(entry)

    def turn(self):
        """Let everybody say what is due."""
        if self.plan.style == "orchestrated":
            for entry in self.lead.late(self.now):
                self.note(entry)
            for ask in self.lead.asks(self.now):
                self.send(self.made.saga.AT[ask.step], ask)
                self.point(f"coordinator: after asking {ask.step}")
            return
        if self.sayings[READER].late(self.now):
            self.kept[READER] = self.sayings[READER].kept
            self.point("reader: after giving up is kept")
        for name, sayings in self.sayings.items():
            for answer in sayings.due(self.now):
                self.say(name, answer)

    def say(self, name, answer):
        end = isinstance(self.made.choreography.follows(answer), self.made.saga.End)
        for to in self.kept:
            if end or (to != READER and self.made.choreography.reaction(to, answer)):
                self.send(to, answer)
        self.point(f"{name}: after saying {answer.step} {answer.verdict}")

    def deliver(self, to, message):
        if to == "coordinator":
            self.point(f"coordinator: before it takes the answer to {message.step}")
            entry = self.lead.told(message, self.now)
            if entry is not None:
                self.note(entry)
        elif self.plan.style == "orchestrated":
            self.send("coordinator", self.carry_out(to, message).answer)
        else:
            self.hear(to, message)

    def hear(self, name, heard):
        if self.sayings[name].hear(heard):
            self.kept[name], self.heard[name] = self.sayings[name].kept, self.sayings[name].ends
        after = self.made.choreography.follows(heard)
        if isinstance(after, self.made.saga.End):
            self.ended(heard.instruction.trade_id, after)
        ask = None if name == READER else self.made.choreography.reaction(name, heard)
        if ask is None:
            return
        carried = self.carry_out(name, ask)
        end = isinstance(self.made.choreography.follows(carried.answer), self.made.saga.End)
        said = carried.answer if carried.remembered and end else None
        if not carried.remembered:
            said = self.sayings[name].again(carried.answer)
        if said is not None:
            self.say(name, said)

    def carry_out(self, service, ask):
        self.point(f"{service}: before the effect of {ask.step}")
        carried = self.made.saga.carry_out(ask, self.books[service], self.rules[service])
        if carried.remembered:
            self.judge_step(carried)
        self.judge_answer(carried.answer)
        self.books[service].write(carried)
        if self.plan.style == "choreographed" and carried.remembered:
            self.sayings[service].keep(carried.answer, self.now)
            self.kept[service], self.heard[service] = self.sayings[service].kept, self.sayings[service].ends
        self.point(f"{service}: after the effect of {ask.step}, before the answer")
        return carried

    def wake(self):
        """Everybody starts anew from what is durable."""
        entries = [self.made.entries.decode(line) for line in self.journal]
        self.lead = self.made.coordinator.Coordinator(self.times, entries)
        self.sayings = {
            name: self.made.choreography.Sayings(self.times, kept.values(), self.heard[name].values())
            for name, kept in self.kept.items()
        }

    # What is judged

    def summed(self):
        return {
            (service, asset): sum(n for (_, other), n in book.amounts().items() if other == asset)
            for service, book in self.books.items()
            for asset in (CASH, "AAA")
        }

    def ended(self, trade_id, end):
        if self.ends.setdefault(trade_id, end) != end:
            raise BrokenPromiseError(f"trade {trade_id} is {self.ends[trade_id]} and {end}")

    def did(self, trade_id, step):
        saga = self.made.saga
        remembered = self.books[saga.AT[saga.Step(step)]].remembered(trade_id, saga.Step(step))
        return remembered is not None and remembered.verdict == "done"

    def judge_entry(self, entry):
        it = entry.answer.instruction.trade_id if hasattr(entry, "answer") else None
        key = (type(entry).__name__, it or getattr(entry, "trade_id", None) or entry.instruction.trade_id)
        noted = (*key, entry.answer.step if it else "")
        if noted in self.noted:
            raise BrokenPromiseError(f"the journal has {' '.join(map(str, noted))} twice")
        self.noted.add(noted)

    def judge_answer(self, answer):
        if answer.reason == "not_reserved":
            raise BrokenPromiseError(f"{answer.step} was asked although nothing is reserved")
        said = (answer.verdict, answer.reason)
        if self.answers.setdefault((answer.instruction.trade_id, answer.step), said) != said:
            raise BrokenPromiseError(f"{answer.step} was answered otherwise before")

    def judge_step(self, carried):
        answer = carried.answer
        if answer.verdict != "done":
            return
        trade_id = answer.instruction.trade_id
        holds = {
            "cash": self.did(trade_id, "reserve_cash") and not self.did(trade_id, "release_cash"),
            "securities": self.did(trade_id, "reserve_securities") and not self.did(trade_id, "release_securities"),
            "fees": self.did(trade_id, "charge_fees") and not self.did(trade_id, "refund_fees"),
        }
        cleared = self.did(trade_id, "clear")
        if self.did(trade_id, answer.step):
            raise BrokenPromiseError(f"{answer.step} twice")
        wrong = {
            "reserve_securities": not self.did(trade_id, "reserve_cash"),
            "charge_fees": not self.did(trade_id, "reserve_securities"),
            "clear": not all(holds.values()),
            "deliver_securities": not cleared or not holds["securities"],
            "deliver_cash": not cleared or not holds["cash"] or not self.did(trade_id, "deliver_securities"),
            "void": cleared,
            "refund_fees": cleared,
            "release_securities": cleared or holds["fees"],
            "release_cash": cleared or holds["fees"] or holds["securities"],
        }
        if wrong.get(answer.step, False):
            raise BrokenPromiseError(f"{answer.step} out of order")

    def judge(self):
        if self.summed() != self.sums:
            raise BrokenPromiseError(f"sums changed from {self.sums} to {self.summed()}")
        for service, book in self.books.items():
            for (account, _), amount in book.amounts().items():
                if account == "$escrow" and amount < 0:
                    raise BrokenPromiseError(f"{service} gave away what was not reserved")
                # A rebate that is taken back may be spent already: that far an account may go below.
                spent = 2 * len(self.plan.trades) if service == "fees" else 0
                if (
                    self.plan.least is not None
                    and account not in {"$escrow", FEES}
                    and amount < self.plan.least - spent
                ):
                    raise BrokenPromiseError(f"{account} has {amount} at {service}")
        for trade_id, end in self.lead.ended.items():
            self.ended(trade_id, end)

    def judge_end(self):
        if set(self.ends) != {item.trade_id for item in self.plan.trades}:
            raise BrokenPromiseError(f"not every saga ended: {self.ends}")
        if self.plan.ends_as and set(self.ends.values()) != {self.plan.ends_as}:
            raise BrokenPromiseError(f"not {self.plan.ends_as} but {self.ends}")
        expected, amounts = Balances(), Counter()
        for item in self.plan.trades:
            if self.ends[item.trade_id] == "settled":
                expected.post(postings(item, MONEY))
        amounts.update(expected.amounts())
        for _, account, asset, amount in self.plan.opening:
            amounts[account, asset] += amount
        found: Counter = Counter()
        for book in self.books.values():
            for key, amount in book.amounts().items():
                found[key] += amount
        if {k: n for k, n in found.items() if n} != {k: n for k, n in amounts.items() if n}:
            raise BrokenPromiseError(f"balances {dict(found)} are not those of the settled trades, {dict(amounts)}")
