# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Bugs planted into the sagas' source, and what finds each; and how many messages both styles take.

`python -m tests.exchange.saga_plants` writes both tables into `docs/sagas.md`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.exchange.saga_plans import CALM_END, SCENARIOS, money_comes_later, random_plan
from tests.exchange.saga_world import STYLES, Plan, World, parts, trade

DOCUMENT = Path(__file__).parents[2] / "docs" / "sagas.md"
BEGIN, END = "<!-- planted bugs: written by tests/exchange/saga_plants.py -->", "<!-- end of planted bugs -->"
MESSAGES = "<!-- messages: written by tests/exchange/saga_plants.py -->"
MESSAGES_END = "<!-- end of messages -->"
SEEDS = 60


@dataclass(frozen=True)
class Plant:
    """One bug. The passage `right` stands once in the module."""

    name: str
    module: str
    right: str
    wrong: str


PLANTS = (
    Plant("a step asked again is done again", "saga", "if before is not None:", "if before is None and False:"),
    Plant(
        "no tombstone is left",
        "saga",
        "tombstone = () if taken is not None else (Remembered(step, Verdict.REFUSED, Reason.OVERTAKEN),)",
        "tombstone: tuple[Remembered, ...] = ()",
    ),
    Plant(
        "the refund of fees is forgotten",
        "saga",
        "(Step.CLEAR, Verdict.REFUSED): Step.REFUND_FEES",
        "(Step.CLEAR, Verdict.REFUSED): Step.RELEASE_SECURITIES",
    ),
    Plant(
        "the reserved securities are not released",
        "saga",
        "(Step.REFUND_FEES, Verdict.DONE): Step.RELEASE_SECURITIES",
        "(Step.REFUND_FEES, Verdict.DONE): Step.RELEASE_CASH",
    ),
    Plant(
        "the reserved cash is not released",
        "saga",
        "(Step.RELEASE_SECURITIES, Verdict.DONE): Step.RELEASE_CASH",
        "(Step.RELEASE_SECURITIES, Verdict.DONE): End.CANCELLED",
    ),
    Plant(
        "it is cleared before the fees are charged",
        "saga",
        "(Step.RESERVE_SECURITIES, Verdict.DONE): Step.CHARGE_FEES",
        "(Step.RESERVE_SECURITIES, Verdict.DONE): Step.CLEAR",
    ),
    Plant(
        "cash is delivered before the securities",
        "saga",
        "(Step.CLEAR, Verdict.DONE): Step.DELIVER_SECURITIES",
        "(Step.CLEAR, Verdict.DONE): Step.DELIVER_CASH",
    ),
    Plant(
        "taking back goes in the order of the steps",
        "saga",
        "(Step.VOID, Verdict.DONE): Step.REFUND_FEES",
        "(Step.VOID, Verdict.DONE): Step.RELEASE_CASH",
    ),
    Plant(
        "what is too late to void is taken back",
        "saga",
        "(Step.VOID, Verdict.TOO_LATE): Step.DELIVER_SECURITIES",
        "(Step.VOID, Verdict.TOO_LATE): Step.REFUND_FEES",
    ),
    Plant(
        "what is cleared can be voided",
        "saga",
        "        if ask.step is Step.VOID:\n",
        "        if ask.step is Step.BEGIN:\n",
    ),
    Plant(
        "a refusal is not remembered",
        "saga",
        "        (Remembered(ask.step, verdict, reason),),\n",
        "        () if reason else (Remembered(ask.step, verdict, reason),),\n",
    ),
    Plant("a refused step has its effect", "saga", "        () if reason else entries,\n", "        entries,\n"),
    Plant(
        "what was never done is taken back all the same",
        "saga",
        "        remembered=(*tombstone, Remembered(ask.step, Verdict.DONE)),\n",
        "        postings=movement(ask),\n        remembered=(*tombstone, Remembered(ask.step, Verdict.DONE)),\n",
    ),
    Plant(
        "a movement is posted on one side",
        "saga",
        "return (Posting(it.trade_id, giver, asset, -amount), Posting(it.trade_id, taker, asset, amount))",
        "return (Posting(it.trade_id, giver, asset, -amount),)",
    ),
    Plant(
        "the buyer is given the cash",
        "saga",
        "_move(it, CASH, it.cost, ESCROW, it.seller)",
        "_move(it, CASH, it.cost, ESCROW, it.buyer)",
    ),
    Plant(
        "the rebate is not taken back",
        "saga",
        "entries += _move(it, CASH, it.seller_fee, FEES, it.seller)",
        "entries += ()",
    ),
    Plant(
        "an account may have less than it may",
        "saga",
        "known.amount(account, asset) + amount < least",
        "known.amount(account, asset) < least",
    ),
    Plant(
        "the coordinator takes an answer to another step",
        "saga_coordinator",
        "if standing is None or standing.step is not answer.step:",
        "if standing is None:",
    ),
    Plant(
        "the coordinator begins a saga twice",
        "saga_coordinator",
        "return None if known else Begun(now, instruction)",
        "return Begun(now, instruction)",
    ),
    Plant(
        "the coordinator asks once only",
        "saga_coordinator",
        "if asked is not None and times and now - asked.at < self._wait(times):",
        "if asked is not None and times:",
    ),
    Plant(
        "the coordinator gives nothing up",
        "saga_coordinator",
        "now - standing.begun >= self._times.give_up",
        "now < standing.begun",
    ),
    Plant(
        "the coordinator gives up behind the pivot",
        "saga_coordinator",
        "if standing.step in BEFORE_THE_PIVOT and now - ",
        "if now - ",
    ),
    Plant(
        "a service says its event once only",
        "saga_choreography",
        "if times and now - at < min(self._times.longest, self._times.first << min(times - 1, 32)):",
        "if times:",
    ),
    Plant(
        "a service says its event for ever",
        "saga_choreography",
        "        self._kept.pop(trade_id, None)\n        return True",
        "        return True",
    ),
    Plant(
        "the end is not told again",
        "saga_choreography",
        "return self._ends.get(answer.instruction.trade_id)",
        "return None",
    ),
    Plant(
        "the reader gives nothing up",
        "saga_choreography",
        "and now - saying.since >= self._times.give_up",
        "and now < saying.since",
    ),
)


def plans() -> Iterator[tuple[str, Plan, random.Random | None]]:
    """Return what is tried, the cheapest first."""
    for name, scenario in SCENARIOS.items():
        for style in STYLES:
            plan = Plan(style, (trade(1),), ends_as=CALM_END.get(name, "cancelled"), **scenario)
            yield f"{style}: {name}", plan, None
    for name, scenario in SCENARIOS.items():
        for style in STYLES:
            for crash in range(30):
                where = f"{style}: {name}, crash at point {crash}"
                yield where, Plan(style, (trade(1),), crashes=(crash,), **scenario), None
    for crash in range(60):
        for style in STYLES:
            yield f"{style}: money comes later, crash at point {crash}", money_comes_later(style, crash), None
    for seed in range(SEEDS):
        for style in STYLES:
            rng = random.Random(seed)
            yield f"{style}: trouble of seed {seed}", random_plan(style, rng), rng


def caught(plant):
    """Return by which plan a bug is found and what was said, or nothing."""
    made = parts(plant.module, plant.right, plant.wrong)
    for name, plan, rng in plans():
        world = World(plan, made, rng, patience=2_000 if rng is None else 20_000)
        try:
            world.run()
        except AssertionError as error:  # a broken promise, or the program's own assertion
            return name, str(error).split(":")[0]
    return None


def messages(style, trouble, seeds):
    """Return how many messages a trade takes on average, ten trades a world."""
    made, sent = parts(), 0
    for seed in range(seeds):
        rng = random.Random(seed) if trouble else None
        sent += World(Plan(style, tuple(trade(n) for n in range(1, 11)), trouble=trouble), made, rng).run().sent
    return sent / (10 * seeds)


def message_table():
    """Return the messages a trade takes in both styles, in calm and in trouble."""
    rows = ["| loss, repeats and crashes, each | " + " | ".join(STYLES) + " |", "|---|---|---|"]
    for trouble in (0.0, 0.01, 0.03, 0.1):
        counts = [messages(style, trouble, 20 if trouble else 1) for style in STYLES]
        rows.append(f"| {trouble:.0%} | " + " | ".join(f"{count:.1f}" for count in counts) + " |")
    return "\n".join(rows)


def table():
    """Return the rows of the document."""
    rows = ["| planted bug | found by | what was said |", "|---|---|---|"]
    for plant in PLANTS:
        found = caught(plant)
        assert found is not None, plant.name
        rows.append(f"| {plant.name} | {found[0]} | {found[1].split(' {')[0]} |")
    return "\n".join(rows)


def main() -> None:
    """Write the table into the document."""
    text = DOCUMENT.read_text("utf-8")
    for begin, end, made in ((BEGIN, END, table()), (MESSAGES, MESSAGES_END, message_table())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"
    DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
