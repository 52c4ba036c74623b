"""From what the exchange tells of single orders to spans. Pure: nothing here knows an exporter or a clock.

An order's trace is the client's, when it sent a `traceparent`, or derived from account and client id. Either way every
process knows the ids of all spans of the order, so the parts fit together although nobody passes them on:

    gateway request            received .. answered          (child of the client's span, or the root)
      engine order             sequenced .. durable
        engine queue           entered the queue .. batch taken
        engine match           its matching
        journal sync           the one sync of its batch
        market-data publish    received .. published
        settlement post        received .. posted            (only when it traded)

Kept are a share of all orders, picked by their id so that every process picks the same, and besides every error, every
reject and every slow order. A reject is seen by all who have a span of it. What one process alone can see (a gateway
that was slow, settlement that came late) it says in a `Verdict`; the others look for the order in what they still
remember (`monitor/hindsight.py`) and build what they had left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Canceled, Event, Happened, Rejected, Replaced, Traded
from exchange.ports import RequestOutcome
from exchange.tracing import Answered, Committed, Handled
from exchange.types import CancelReason
from kernel.time import Duration, Instant, seconds, to_seconds
from kernel.trace import (
    child_span_id,
    derived_span_id,
    derived_span_ids,
    derived_trace_id,
    is_kept,
    parse_traceparent,
)

MAX_TRADES_TOLD: Final = 16
"""A market order that eats through a book trades hundreds of times; the count is told in any case."""
_RANGE: Final = 1 << 32
_MASK: Final = _RANGE - 1
_GOLDEN: Final = 0x9E3779B1
"""The golden ratio's part of 2^32, made prime (Knuth, volume 3, section 6.4)."""
_FAILED: Final = frozenset({RequestOutcome.UNKNOWN, RequestOutcome.UNAVAILABLE})
_NOTABLE: Final = frozenset({*_FAILED, RequestOutcome.REJECTED, RequestOutcome.MISMATCH})
_SAID: Final = _NOTABLE - {RequestOutcome.REJECTED}
"""What a gateway alone sees. The engine and who reads its events see a reject themselves."""
_AGAIN: Final = frozenset({RequestOutcome.REPLAYED, RequestOutcome.MISMATCH, RequestOutcome.IN_FLIGHT})
_ASKED_FOR: Final = frozenset({CancelReason.REQUESTED, CancelReason.MASS_CANCEL})
_TAGS: Final = {kind: str(kind.__struct_config__.tag) for kind in (PlaceOrder, CancelOrder, ReplaceOrder, MassCancel)}
_CHILDREN: Final = {
    "engine queue": 1, "engine match": 2, "journal sync": 3, "market-data publish": 4, "settlement post": 5,
}  # fmt: skip
"""Of the engine's span, each with its number."""
_MANY: Final = 4
"""Orders in a batch from which on looking for the few that are kept pays."""
Value = str | int | float | bool
Key = tuple[str, str]
"""An order by its account and client id."""
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
    since: Instant
    """When the order's way began, as far as the process knows; nobody was told of it before."""

    @property
    def key(self) -> Key:
        """Name the order."""
        return (self.account, self.client_id)


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
    """Orders that are kept because another process said so."""
    late: bool = False
    """Whether this is a second look: only what is wanted, and was left out at the first."""

    def keeps(self, key: Key, *, by_itself: bool) -> bool:
        """Tell whether an order is kept in this look; `by_itself`: what was told of it is reason enough."""
        if self.late:
            return not by_itself and key in self.wanted
        return by_itself or key in self.wanted


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
        return (seq * _GOLDEN & _MASK) < share * _RANGE
    return crc32(client_id.encode("utf-8", "surrogatepass")) < share * _RANGE


# --- the gateway ------------------------------------------------------------------------------------------------------


def request_spans(told: Sequence[Answered], look: Look) -> Iterator[Span]:
    """Yield the spans of the order requests that are kept."""
    policy = look.policy
    slow_s, limit = to_seconds(policy.slow), policy.share * _RANGE
    for one in told if look.wanted else _notable(told, slow_s, limit):
        command, slow = one.command, one.took_s >= slow_s
        by_itself = slow or one.outcome in _NOTABLE or is_picked(policy.share, one.seq, command.client_id, one.trace)
        if look.keeps((command.account, command.client_id), by_itself=by_itself):
            yield _request_span(one, slow=slow)


def _notable(told: Sequence[Answered], slow_s: float, limit: float) -> list[Answered]:
    """Return what may be kept. All orders of a gateway pass here: one look each at what is cheap to see."""
    accepted = RequestOutcome.ACCEPTED
    return [
        one
        for one in told
        if (one.seq * _GOLDEN & _MASK) < limit or one.outcome is not accepted or one.took_s >= slow_s or one.trace
    ]


def _request_span(one: Answered, *, slow: bool) -> Span:
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
    return Span(
        trace_id=place.trace_id, span_id=span_id, parent_id=place.client_span, name="gateway request",
        kind=SpanKind.SERVER, start=received_at, end=Instant(max(received_at, one.answered_at)),
        attributes=told,
        error=str(one.outcome) if one.outcome in _FAILED else "",
        verdict=Verdict(command.account, command.client_id, received_at) if said else None,
    )  # fmt: skip


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


def commit_spans(one: Committed, look: Look) -> Iterator[Span]:
    """Yield the spans of the orders of a batch that are kept."""
    policy, common = look.policy, seconds(one.sync_s + sum(one.apply_s))
    for place in _worth_a_look(one, look, common):
        item, command, events = one.batch[place], one.batch[place].command, one.happened[place].events
        if not isinstance(command, PlaceOrder | CancelOrder | ReplaceOrder | MassCancel):
            continue  # an order of the market's staff
        slow = seconds(one.waited_s[place]) + common >= policy.slow
        by_itself = slow or _is_reject(events) or is_picked(policy.share, item.seq, command.client_id, item.trace)
        if look.keeps((command.account, command.client_id), by_itself=by_itself):
            yield from _order_spans(one, place, command, slow=slow)


def _worth_a_look(one: Committed, look: Look, common: Duration) -> Iterable[int]:
    """Return the places in a batch of what may be kept.

    All orders of the exchange pass here, and few are kept: one look each at what is cheap to see, then the few.
    """
    policy = look.policy
    if look.wanted or len(one.batch) < _MANY or seconds(max(one.waited_s)) + common >= policy.slow:
        return range(len(one.batch))
    limit = policy.share * _RANGE
    return [
        place
        for place, item in enumerate(one.happened)
        if (item.seq * _GOLDEN & _MASK) < limit or item.trace or (item.events and type(item.events[-1]) is Rejected)
    ]


def _is_reject(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Rejected)


def _order_spans(one: Committed, number: int, command: ParticipantCommand, *, slow: bool) -> Iterator[Span]:
    item, events = one.batch[number], one.happened[number].events
    place = _place(command.account, command.client_id, item.trace)
    told = _asked(command)
    told |= _became(events)
    told["exchange.seq"] = item.seq
    told["exchange.slow"] = slow
    taken = item.at
    matched = Instant(taken + seconds(sum(one.apply_s[:number])))
    durable = max(one.durable_at, taken)
    yield Span(
        trace_id=place.trace_id, span_id=place.engine_span, parent_id=place.gateway_span, name="engine order",
        start=taken, end=durable, attributes=told, events=tuple(_trades(events, matched)),
        verdict=Verdict(command.account, command.client_id, taken) if slow else None,
    )  # fmt: skip
    common: dict[str, Value] = {"exchange.seq": item.seq, "exchange.batch_commands": len(one.batch)}
    for name, start, end in (
        ("engine queue", Instant(taken - seconds(one.waited_s[number])), taken),
        ("engine match", matched, Instant(matched + seconds(one.apply_s[number]))),
        ("journal sync", Instant(max(taken, durable - seconds(one.sync_s))), durable),
    ):
        yield Span(
            trace_id=place.trace_id, span_id=child_span_id(place.engine_span, _CHILDREN[name]),
            parent_id=place.engine_span, name=name, start=start, end=max(start, end), attributes=common,
        )  # fmt: skip


def _became(events: Sequence[Event]) -> dict[str, Value]:
    told: dict[str, Value] = {"exchange.trades": sum(isinstance(event, Traded) for event in events)}
    match _answer(events):
        case Rejected() as rejected:
            told |= {"exchange.outcome": "rejected", "event.reason": str(rejected.reason)}
        case Accepted() | Canceled() | Replaced() as first:
            told |= {"exchange.outcome": str(type(first).__struct_config__.tag), "exchange.order_id": first.order_id,
                     "exchange.symbol": first.symbol}  # fmt: skip
        case _:
            pass
    return told


def _answer(events: Sequence[Event]) -> Rejected | Accepted | Canceled | Replaced | None:
    """Return the event that answers an order request; what was due before it came first."""
    if events and isinstance(events[-1], Rejected):
        return events[-1]
    asked = (one for one in events if isinstance(one, Accepted | Replaced))
    canceled = (one for one in events if isinstance(one, Canceled) and one.reason in _ASKED_FOR)
    return next(asked, None) or next(canceled, None)


def _trades(events: Sequence[Event], at: Instant) -> Iterator[SpanEvent]:
    trades = (event for event in events if isinstance(event, Traded))
    for _, trade in zip(range(MAX_TRADES_TOLD), trades, strict=False):
        yield SpanEvent(
            at, "trade",
            {"exchange.trade_id": trade.trade_id, "exchange.price_ticks": trade.price, "exchange.lots": trade.quantity,
             "exchange.maker_order_id": trade.maker_order_id},
        )  # fmt: skip


# --- the consumers of the event log -----------------------------------------------------------------------------------


def publish_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order whose events market data published."""
    for item in _passing(one, look):
        yield from _consumer_span(item, one, look, "market-data publish")


def settle_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order that traded and was posted to the ledger."""
    for item in _passing(one, look):
        if any(isinstance(event, Traded) for event in item.events):
            yield from _consumer_span(item, one, look, "settlement post")


def _passing(one: Handled, look: Look) -> Sequence[Happened]:
    """Return what may be kept: one look each at what is cheap to see, as for a commit."""
    policy, happened = look.policy, one.happened
    if look.wanted or len(happened) < _MANY or one.ended_at - min(item.at for item in happened) >= policy.slow:
        return happened
    limit = policy.share * _RANGE
    return [item for item in happened if (item.seq * _GOLDEN & _MASK) < limit or item.trace]


def _consumer_span(item: Happened, one: Handled, look: Look, name: str) -> Iterator[Span]:
    if not item.events:
        return
    first = _answer(item.events)
    if first is None or isinstance(first, Rejected):
        return  # the market hears of no reject, and halts belong to nobody's order
    slow = one.ended_at - item.at >= look.policy.slow
    by_itself = slow or is_picked(look.policy.share, item.seq, first.client_id, item.trace)
    if not look.keeps((first.account, first.client_id), by_itself=by_itself):
        return
    place = _place(first.account, first.client_id, item.trace)
    yield Span(
        trace_id=place.trace_id, span_id=child_span_id(place.engine_span, _CHILDREN[name]), parent_id=place.engine_span,
        name=name, kind=SpanKind.CONSUMER, start=one.began_at, end=max(one.began_at, one.ended_at),
        attributes={
            "exchange.seq": item.seq, "exchange.symbol": first.symbol, "exchange.slow": slow,
            "exchange.trades": sum(isinstance(event, Traded) for event in item.events),
        },
        verdict=Verdict(first.account, first.client_id, item.at) if slow else None,
    )  # fmt: skip
