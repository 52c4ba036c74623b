"""From what the exchange tells of single orders to spans. Pure: nothing here knows an exporter or a clock.

An order's trace is the client's, when it sent a `traceparent`, or derived from account and client id. Either way every
process knows the ids of all spans of the order, so the parts fit together although nobody passes them on:

    gateway request            received .. answered          (child of the client's span, or the root)
      engine order             sequenced .. durable
        engine queue           entered the queue .. batch taken
        engine match           its matching
        journal sync           the one sync of its batch
        market-data publish    received .. published
        kafka publish          handed over .. on enough brokers
          kafka receive        read .. handed to settlement
        settlement post        received .. posted            (only when it traded)
        saga step              read .. durable               (one for each step of its trades' settlement)
        saga                   begun .. ended                (one for each of its trades, by who began it)

Kept are a share of all orders, picked by their id so that every process picks the same, and besides every error, every
reject and every slow order. A reject is seen by all who have a span of it. What one process alone can see (a gateway
that was slow, settlement that came late) it says in a `Verdict`; the others look for the order in what they still
remember (`monitor/hindsight.py`) and build what they had left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder, ReplaceOrder, Sequenced
from exchange.events import Accepted, Canceled, Event, Happened, Rejected, Replaced, Traded
from exchange.journal import decode_events
from exchange.order_trace import answering
from exchange.ports import RequestOutcome, Resting, RestingOrder
from exchange.saga import End
from exchange.saga import Verdict as Said
from exchange.tracing import Answered, Committed, Concluded, Handled, RestedTogether, Sent, Stepped
from kernel.time import Duration, Instant, seconds, to_seconds
from kernel.trace import (
    GOLDEN,
    MASK,
    child_span_id,
    derived_span_id,
    derived_span_ids,
    derived_trace_id,
    is_kept,
    is_place_kept,
    order_trace_id,
    parse_traceparent,
    places_kept,
)

MAX_TRADES_TOLD: Final = 16
"""A market order that eats through a book trades hundreds of times; the count is told in any case."""
_RANGE: Final = MASK + 1
_FAILED: Final = frozenset({RequestOutcome.UNKNOWN, RequestOutcome.UNAVAILABLE})
_NOTABLE: Final = frozenset({*_FAILED, RequestOutcome.REJECTED, RequestOutcome.MISMATCH})
_SAID: Final = _NOTABLE - {RequestOutcome.REJECTED}
"""What a gateway alone sees. The engine and who reads its events see a reject themselves."""
_AGAIN: Final = frozenset({RequestOutcome.REPLAYED, RequestOutcome.MISMATCH, RequestOutcome.IN_FLIGHT})
_TAGS: Final = {kind: str(kind.__struct_config__.tag) for kind in (PlaceOrder, CancelOrder, ReplaceOrder, MassCancel)}
_CHILDREN: Final = {
    "engine queue": 1, "engine match": 2, "journal sync": 3, "market-data publish": 4, "settlement post": 5,
    "kafka publish": 6, "kafka receive": 7,
}  # fmt: skip
"""Of the engine's span, each with its number."""
_OF_KAFKA: Final = frozenset({"kafka publish", "kafka receive"})
_REJECTED: Final = b"\xa8rejected"
_TRACE: Final = b"\xa5trace\xd9"
"""How a reject, and a client's `traceparent`, stand in a record; what is found by chance is seen when it is read."""
_BEFORE_A_STEP: Final = seconds(120)
"""So long before a step of its settlement an order was taken, at most."""
_MANY: Final = 4
"""Orders told of together from which on looking for the few that are kept pays."""
_SEQ: Final = itemgetter(1)
"""The place in the journal of a `RestingOrder`."""
_ROUNDED_S: Final = 1e-6
"""What the rounding of a sum of seconds can take away; whoever is so close to slow is looked at again."""
Value = str | int | float | bool
Key = tuple[str, str]
"""An order by its account and client id, or a trace: `("", trace_id)`."""
NOBODY: Final[AbstractSet[Key]] = frozenset()


class SpanKind(StrEnum):
    """OpenTelemetry's kinds, as far as we use them."""

    SERVER = "server"
    INTERNAL = "internal"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class SpanEvent(NamedTuple):
    """Something that happened at one instant of a span."""

    at: Instant
    name: str
    attributes: Mapping[str, Value]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """An order whose trace is kept whole, whatever its id: what one process saw, for the others to know."""

    account: str
    client_id: str
    """Both empty: who saw it knows the trace only."""
    trace_id: str
    since: Instant
    """When the order's way began, as far as the process knows; nobody was told of it before."""

    @property
    def key(self) -> Key:
        """Name the order, or the trace where no order is known."""
        return (self.account, self.client_id) if self.client_id else ("", self.trace_id)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One finished piece of work."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    kind: SpanKind = SpanKind.INTERNAL
    start: Instant
    end: Instant
    attributes: Mapping[str, Value]
    events: tuple[SpanEvent, ...] = ()
    error: str = ""
    """What went wrong; empty when nothing did. A reject is an answer, not an error."""
    verdict: Verdict | None = None
    """Says that the others have to keep this order, too; no store is told."""


class Policy(NamedTuple):
    """Which orders are kept."""

    share: float = 0.01
    """Of all orders, 0 to 1."""
    slow: Duration = seconds(0.25)
    """From this on an order is kept whatever its id."""


class Look(NamedTuple):
    """How what was told is looked at."""

    policy: Policy
    wanted: AbstractSet[Key] = NOBODY
    """Orders that are kept because another process said so, and their traces."""
    late: bool = False
    """Whether this is a second look: only what is wanted, and was left out at the first."""
    done: AbstractSet[Key] = NOBODY
    """Of a second look: what was wanted at the first."""
    whole: AbstractSet[str] = frozenset()
    """Traces of which every order is kept: who wanted it knows no order."""

    def keeps(self, key: Key, trace: str, *, by_itself: bool) -> bool:
        """Tell whether an order is kept in this look.

        `trace` is the client's `traceparent`; `by_itself`: what was told of it is reason enough.
        """
        if by_itself or key in self.done:
            return not self.late
        return key in self.wanted or (bool(self.whole) and order_trace_id(*key, trace) in self.whole)


Kept = Callable[[], Sequence[Span]]
"""Something that is kept, and builds its spans when it is called: whoever decides has no time for that. It holds what
belongs to it and nothing else that was told."""


def built(some: Iterable[Kept]) -> Iterator[Span]:
    """Yield the spans of what is kept."""
    for kept in some:
        yield from kept()


class _Place(NamedTuple):
    """Where an order stands: its trace and the spans that others hang on."""

    trace_id: str
    client_span: str
    gateway_span: str
    engine_span: str


def _place(account: str, client_id: str, traceparent: str) -> _Place:
    context = parse_traceparent(traceparent) if traceparent else None
    trace_id = context.trace_id if context is not None else derived_trace_id(account, client_id)
    gateway_span, engine_span = derived_span_ids(trace_id, account, client_id)
    return _Place(trace_id, context.span_id if context is not None else "", gateway_span, engine_span)


def is_picked(share: float, seq: int, client_id: str, traceparent: str) -> bool:
    """Tell whether an order belongs to the share that is kept: cheap, and the same in every process.

    A client's trace is picked by its id, so that all its orders stand together. Others are picked by their place in the
    journal (Fibonacci hashing: as even as can be over any stretch), and what has none by its client id.
    """
    if traceparent:
        context = parse_traceparent(traceparent)
        if context is not None:
            return is_kept(context.trace_id, share)
    if seq:
        return is_place_kept(seq, share)
    return crc32(client_id.encode("utf-8", "surrogatepass")) < share * _RANGE


# --- the gateway ------------------------------------------------------------------------------------------------------


def kept_requests(told: Sequence[Answered], look: Look) -> list[Kept]:
    """Return those of the order requests that are kept."""
    policy = look.policy
    slow_s, limit = to_seconds(policy.slow), policy.share * _RANGE
    found: list[Kept] = []
    for one in told if look.wanted else _notable(told, slow_s, limit):
        command, slow = one.command, one.took_s >= slow_s
        by_itself = slow or one.outcome in _NOTABLE or is_picked(policy.share, one.seq, command.client_id, one.trace)
        if look.keeps((command.account, command.client_id), one.trace, by_itself=by_itself):
            found.append(partial(_request_span, one, slow=slow))
    return found


def request_spans(told: Sequence[Answered], look: Look) -> Iterator[Span]:
    """Yield the spans of the order requests that are kept."""
    return built(kept_requests(told, look))


def _notable(told: Sequence[Answered], slow_s: float, limit: float) -> list[Answered]:
    """Return what may be kept. All orders of a gateway pass here: one look each at what is cheap to see."""
    accepted = RequestOutcome.ACCEPTED
    return [
        one
        for one in told
        if (one.seq * GOLDEN & MASK) < limit or one.outcome is not accepted or one.took_s >= slow_s or one.trace
    ]


def kept_resting(told: RestedTogether, look: Look) -> list[Kept]:
    """Return those of many orders answered together that are kept."""
    slow, share = told.took_s >= to_seconds(look.policy.slow), look.policy.share
    if slow or look.wanted or told.traced:
        found = [
            order
            for order in told.orders
            if look.keeps(
                (order[0].account, order[0].client_id), order[2],
                by_itself=slow or is_picked(share, order[1], order[0].client_id, order[2]),
            )
        ]  # fmt: skip
    else:
        found = _at_places(told.orders, share)
    return [partial(_resting_spans, told._replace(orders=found), slow=slow)] if found else []


def _resting_spans(kept: RestedTogether, *, slow: bool) -> Sequence[Span]:
    return [span for order in kept.orders for span in _request_span(kept.each(order), slow=slow)]


def resting_spans(told: RestedTogether, look: Look) -> Iterator[Span]:
    """Yield the spans of those of many orders answered together that are kept."""
    return built(kept_resting(told, look))


def _at_places(orders: Resting, share: float) -> list[RestingOrder]:
    """Return those of the share. All orders of a gateway pass here: where they stand close together, none is looked at.

    They stand in the journal's order, so that they are found by their places.
    """
    first, last, count = orders[0][1], orders[-1][1], len(orders)
    if not 0 <= last - first < count * _MANY:
        limit = share * _RANGE
        return [order for order in orders if (order[1] * GOLDEN & MASK) < limit]
    places = places_kept(first, last, share)
    if last - first == count - 1:
        return [orders[seq - first] for seq in places]
    found = [orders[bisect_left(orders, seq, key=_SEQ)] for seq in places]
    return [order for order, seq in zip(found, places, strict=True) if order[1] == seq]


def _request_span(one: Answered, *, slow: bool) -> tuple[Span]:
    command, received_at = one.command, one.received_at
    place = _place(command.account, command.client_id, one.trace)
    # The first answer is the order's own span; what is asked again stands beside it. Whoever asks again may give each
    # request the same name: the instant tells them apart.
    again = one.outcome in _AGAIN
    span_id = (
        derived_span_id(place.trace_id, "gateway", one.request_id, str(received_at)) if again else place.gateway_span
    )
    said = slow or one.outcome in _SAID
    told = _asked(command)
    told["http.response.status_code"] = one.http_status
    told["exchange.outcome"] = str(one.outcome)
    told["http.request.id"] = one.request_id
    told["exchange.slow"] = slow
    return (Span(
        trace_id=place.trace_id, span_id=span_id, parent_id=place.client_span, name="gateway request",
        kind=SpanKind.SERVER, start=received_at, end=Instant(max(received_at, one.answered_at)),
        attributes=told,
        error=str(one.outcome) if one.outcome in _FAILED else "",
        verdict=Verdict(command.account, command.client_id, place.trace_id, received_at) if said else None,
    ),)  # fmt: skip


def _asked(command: ParticipantCommand) -> dict[str, Value]:
    told: dict[str, Value] = {
        "exchange.command": _TAGS[type(command)], "user.id": command.account, "exchange.client_id": command.client_id
    }  # fmt: skip
    if isinstance(command, PlaceOrder):
        told["exchange.symbol"] = command.symbol
        told["exchange.side"] = str(command.side)
        told["exchange.lots"] = command.quantity
    elif not isinstance(command, MassCancel):
        told["exchange.order_id"] = command.order_id
    elif command.symbol is not None:
        told["exchange.symbol"] = command.symbol
    return told


# --- the engine -------------------------------------------------------------------------------------------------------


class _OrderOfCommit(NamedTuple):
    """One order of a group commit, with all that its spans tell; the others may go."""

    item: Sequenced
    command: ParticipantCommand
    events: Sequence[Event]
    waited_s: float
    before_s: float
    """Seconds of matching those before it in its commit."""
    apply_s: float
    sync_s: float
    durable_at: Instant
    commands: int
    """How many the commit had."""
    slow: bool


def kept_of_commits(told: Sequence[Committed], look: Look) -> list[Kept]:
    """Return the orders of some batches that are kept."""
    found: list[Kept] = []
    for one, places in _worth_a_look(told, look):
        common = seconds(one.sync_s + sum(one.apply_s))
        for place in places:
            item, command, events = one.batch[place], one.batch[place].command, one.happened[place].events
            if not isinstance(command, (PlaceOrder, CancelOrder, ReplaceOrder, MassCancel)):
                continue  # an order of the market's staff
            slow = seconds(one.waited_s[place]) + common >= look.policy.slow
            by_itself = (
                slow or _is_reject(events) or is_picked(look.policy.share, item.seq, command.client_id, item.trace)
            )
            if look.keeps((command.account, command.client_id), item.trace, by_itself=by_itself):
                order = _OrderOfCommit(
                    item, command, events, one.waited_s[place], sum(one.apply_s[:place]), one.apply_s[place],
                    one.sync_s, one.durable_at, len(one.batch), slow,
                )  # fmt: skip
                found.append(partial(_order_spans, order))
    return found


def commit_spans(one: Committed, look: Look) -> Iterator[Span]:
    """Yield the spans of the orders of a batch that are kept."""
    return built(kept_of_commits((one,), look))


def _worth_a_look(told: Sequence[Committed], look: Look) -> Iterator[tuple[Committed, Iterable[int]]]:
    """Yield batches, each with the places in it of what may be kept.

    All orders of the exchange pass here, and few are kept: one look each at what is cheap to see, then the few.
    """
    share, slow_s = look.policy.share, to_seconds(look.policy.slow) - _ROUNDED_S
    for one in told:
        batch, first, last = one.batch, one.batch[0].seq, one.batch[-1].seq
        if look.wanted or last - first != len(batch) - 1 or max(one.waited_s) + one.sync_s + sum(one.apply_s) >= slow_s:
            yield one, range(len(batch))
            continue
        found = [
            place
            for place, item in enumerate(one.happened)
            if item.trace or (item.events and type(item.events[-1]) is Rejected)
        ]
        kept = places_kept(first, last, share)
        if kept:
            found = sorted({*found, *(seq - first for seq in kept)})
        if found:
            yield one, found


def _is_reject(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Rejected)


def _order_spans(one: _OrderOfCommit) -> tuple[Span, ...]:
    item, command = one.item, one.command
    place = _place(command.account, command.client_id, item.trace)
    told = _asked(command)
    told |= _became(one.events)
    told["exchange.seq"] = item.seq
    told["exchange.slow"] = one.slow
    taken = item.at
    matched = Instant(taken + seconds(one.before_s))
    durable = max(one.durable_at, taken)
    order = Span(
        trace_id=place.trace_id, span_id=place.engine_span, parent_id=place.gateway_span, name="engine order",
        start=taken, end=durable, attributes=told, events=tuple(_trades(one.events, matched)),
        verdict=Verdict(command.account, command.client_id, place.trace_id, taken) if one.slow else None,
    )  # fmt: skip
    common: dict[str, Value] = {"exchange.seq": item.seq, "exchange.batch_commands": one.commands}
    parts = (
        ("engine queue", Instant(taken - seconds(one.waited_s)), taken),
        ("engine match", matched, Instant(matched + seconds(one.apply_s))),
        ("journal sync", Instant(max(taken, durable - seconds(one.sync_s))), durable),
    )
    return order, *[
        Span(
            trace_id=place.trace_id, span_id=child_span_id(place.engine_span, _CHILDREN[name]),
            parent_id=place.engine_span, name=name, start=start, end=max(start, end), attributes=common,
        )
        for name, start, end in parts
    ]  # fmt: skip


def _became(events: Sequence[Event]) -> dict[str, Value]:
    told: dict[str, Value] = {"exchange.trades": [type(event) for event in events].count(Traded)}
    match answering(events):
        case Rejected() as rejected:
            told |= {"exchange.outcome": "rejected", "event.reason": str(rejected.reason)}
        case Accepted() | Canceled() | Replaced() as first:
            told |= {"exchange.outcome": str(type(first).__struct_config__.tag), "exchange.order_id": first.order_id,
                     "exchange.symbol": first.symbol}  # fmt: skip
        case _:
            pass
    return told


def _trades(events: Sequence[Event], at: Instant) -> Iterator[SpanEvent]:
    trades = (event for event in events if isinstance(event, Traded))
    for _, trade in zip(range(MAX_TRADES_TOLD), trades, strict=False):
        yield SpanEvent(
            at, "trade",
            {"exchange.trade_id": trade.trade_id, "exchange.price_ticks": trade.price, "exchange.lots": trade.quantity,
             "exchange.maker_order_id": trade.maker_order_id},
        )  # fmt: skip


# --- the consumers of the event log -----------------------------------------------------------------------------------


def sent_spans(one: Sent, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order whose events the engine's process published in Kafka."""
    limit, keeps_all = look.policy.share * _RANGE, bool(look.wanted)
    # Records of one message were made about together: the first tells whether they come late.
    if not keeps_all and one.records:
        keeps_all = one.ended_at - decode_events(one.records[0]).at >= look.policy.slow
    for seq, record in enumerate(one.records, one.first_seq):
        if keeps_all or (seq * GOLDEN & MASK) < limit or _REJECTED in record or _TRACE in record:
            told = Handled((decode_events(record),), one.began_at, one.ended_at)
            yield from _consumer_span(told.happened[0], told, look, "kafka publish", SpanKind.PRODUCER)


def received_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order whose events a member of a group read from Kafka."""
    for item in one.happened if look.wanted else _passing(one, look, rejects=True):
        yield from _consumer_span(item, one, look, "kafka receive")


def publish_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order whose events market data published."""
    for item in _passing(one, look):
        yield from _consumer_span(item, one, look, "market-data publish")


def settle_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order that traded and was posted to the ledger."""
    for item in _passing(one, look):
        if any(isinstance(event, Traded) for event in item.events):
            yield from _consumer_span(item, one, look, "settlement post")


def step_spans(told: Sequence[Stepped], look: Look) -> Iterator[Span]:
    """Yield a span for each step of settlement by sagas whose order is kept; a refused step is an error."""
    for one in told:
        context = parse_traceparent(one.trace)
        if context is None:
            continue
        slow = one.ended_at - one.began_at >= look.policy.slow
        failed = one.verdict is not Said.DONE
        if not look.keeps(("", context.trace_id), "", by_itself=slow or failed or context.sampled):
            continue
        since = Instant(one.began_at - _BEFORE_A_STEP)
        yield Span(
            trace_id=context.trace_id,
            span_id=derived_span_id(context.trace_id, "saga", str(one.trade_id), one.step),
            parent_id=context.span_id, name="saga step", kind=SpanKind.CONSUMER,
            start=one.began_at, end=max(one.began_at, one.ended_at),
            attributes={
                "exchange.saga.step": str(one.step), "exchange.saga.verdict": str(one.verdict),
                "exchange.trade_id": one.trade_id, "exchange.slow": slow,
            },
            error=str(one.verdict) if failed else "",
            verdict=Verdict("", "", context.trace_id, since) if slow or failed else None,
        )  # fmt: skip


def saga_spans(one: Concluded, look: Look) -> Iterator[Span]:
    """Yield the span of a saga that ended, if its order is kept; a cancelled one is an error.

    It may take long without a reason to look at its order: how long sagas take, a histogram tells.
    """
    context = parse_traceparent(one.trace)
    if context is None:
        return
    failed = one.end is not End.SETTLED
    if not look.keeps(("", context.trace_id), "", by_itself=failed or context.sampled):
        return
    since = Instant(one.began_at - _BEFORE_A_STEP)
    yield Span(
        trace_id=context.trace_id, span_id=derived_span_id(context.trace_id, "saga", str(one.trade_id)),
        parent_id=context.span_id, name="saga", kind=SpanKind.CONSUMER,
        start=one.began_at, end=max(one.began_at, one.ended_at),
        attributes={"exchange.saga.end": str(one.end), "exchange.trade_id": one.trade_id},
        error=str(one.end) if failed else "",
        verdict=Verdict("", "", context.trace_id, since) if failed else None,
    )  # fmt: skip


def _passing(one: Handled, look: Look, *, rejects: bool = False) -> Sequence[Happened]:
    """Return what may be kept: one look each at what is cheap to see, as for a commit."""
    policy, happened = look.policy, one.happened
    if look.wanted or len(happened) < _MANY or one.ended_at - min(item.at for item in happened) >= policy.slow:
        return happened
    limit = policy.share * _RANGE
    return [
        item
        for item in happened
        if (item.seq * GOLDEN & MASK) < limit or item.trace or (rejects and _is_reject(item.events))
    ]


def _consumer_span(
    item: Happened, one: Handled, look: Look, name: str, kind: SpanKind = SpanKind.CONSUMER
) -> Iterator[Span]:
    if not item.events:
        return
    first = answering(item.events)
    rejected = isinstance(first, Rejected)
    if first is None or (rejected and name not in _OF_KAFKA):
        return  # the market hears of no reject, and halts belong to nobody's order
    slow = one.ended_at - item.at >= look.policy.slow
    by_itself = slow or rejected or is_picked(look.policy.share, item.seq, first.client_id, item.trace)
    if not look.keeps((first.account, first.client_id), item.trace, by_itself=by_itself):
        return
    place = _place(first.account, first.client_id, item.trace)
    above = child_span_id(place.engine_span, _CHILDREN["kafka publish"]) if name == "kafka receive" else ""
    yield Span(
        trace_id=place.trace_id, span_id=child_span_id(place.engine_span, _CHILDREN[name]),
        parent_id=above or place.engine_span,
        name=name, kind=kind, start=one.began_at, end=max(one.began_at, one.ended_at),
        attributes={
            "exchange.seq": item.seq, "exchange.symbol": first.symbol or "", "exchange.slow": slow,
            "exchange.trades": sum(isinstance(event, Traded) for event in item.events),
        },
        verdict=Verdict(first.account, first.client_id, place.trace_id, item.at) if slow else None,
    )  # fmt: skip
