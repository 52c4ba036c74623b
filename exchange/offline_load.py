"""A flow against an engine of its own, without files, clocks or network: what was sent, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from exchange.commands import ParticipantCommand, Sequenced
from exchange.engine import Engine
from exchange.events import Accepted, Canceled, Event, Rejected, Replaced, Traded
from exchange.types import CancelReason
from kernel.time import Duration, Instant

Kept = Callable[[Sequenced, Sequence[Event]], None]


class Flow(Protocol):
    """What is sent next, given what was answered."""

    def __next__(self) -> ParticipantCommand:
        """Return the next request.

        Raises:
            StopIteration: there is none.
        """
        ...

    def observe(self, events: Sequence[Event]) -> None:
        """Take in what the exchange answered to one request."""
        ...


class LoadAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent to an engine of one's own, and what became of it. Prices in ticks, quantities in lots."""

    sent: int
    sent_by_action: dict[str, int]
    accepted: int
    replaced: int
    canceled: int
    """Cancels that were carried out."""
    rejected: int
    rejected_by_reason: dict[str, int]
    trades: int
    traded_lots: int
    notional: int
    """Price times quantity of all trades, in ticks times lots."""
    resting_orders: int
    seconds_of_flow: float
    """From the first request to the last, by the flow's own clock."""
    state_hash: str


def run_offline(
    engine: Engine,
    flow: Flow,
    times: Iterator[Duration],
    count: int,
    *,
    keep: Kept = lambda _item, _events: None,
    progress: Callable[[int], None] = lambda _: None,
) -> LoadAccount:
    """Send up to `count` requests; `keep` is told each with what it caused, `progress` how many were sent."""
    actions: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    said: Counter[type] = Counter()
    lots = notional = canceled = 0
    at = Duration(0)
    began: Final = engine.sequence
    for number in range(1, count + 1):
        command = next(flow, None)
        if command is None:
            break
        at = next(times, at)
        item = Sequenced(began + number, Instant(at), command)
        events = engine.apply(item)
        flow.observe(events)
        keep(item, events)
        actions[str(type(command).__struct_config__.tag)] += 1
        for event in events:
            said[type(event)] += 1
            if isinstance(event, Traded):
                lots += event.quantity
                notional += event.quantity * event.price
            elif isinstance(event, Rejected):
                reasons[event.reason.value] += 1
            elif isinstance(event, Canceled) and event.reason is CancelReason.REQUESTED:
                canceled += 1
        progress(number)
    return LoadAccount(
        sent=actions.total(), sent_by_action=dict(sorted(actions.items())), accepted=said[Accepted],
        replaced=said[Replaced], canceled=canceled, rejected=reasons.total(),
        rejected_by_reason=dict(sorted(reasons.items())), trades=said[Traded], traded_lots=lots, notional=notional,
        resting_orders=engine.resting_orders, seconds_of_flow=at / 1e9, state_hash=engine.state_hash(),
    )  # fmt: skip
