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

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Canceled, Event, Happened, Rejected, Replaced, Traded
from exchange.ports import RequestOutcome
from exchange.tracing import Answered, Committed, Handled
from exchange.types import CancelReason
from kernel.time import Duration, Instant, seconds
from kernel.trace import derived_span_id, derived_trace_id, is_kept, parse_traceparent

MAX_TRADES_TOLD: Final = 16
"""A market order that eats through a book trades hundreds of times; the count is told in any case."""
_CRC: Final = 1 << 32
_FAILED: Final = frozenset({RequestOutcome.UNKNOWN, RequestOutcome.UNAVAILABLE})
_NOTABLE: Final = frozenset({*_FAILED, RequestOutcome.REJECTED, RequestOutcome.MISMATCH})
_SAID: Final = _NOTABLE - {RequestOutcome.REJECTED}
"""What a gateway alone sees. The engine and who reads its events see a reject themselves."""
_ASKED_FOR: Final = frozenset({CancelReason.REQUESTED, CancelReason.MASS_CANCEL})
_MANY: Final = 4
"""Orders in a batch from which on looking for the few that are kept pays."""
_ORDERS: Final = frozenset({PlaceOrder, CancelOrder, ReplaceOrder, MassCancel})
Value = str | int | float | bool
Key = tuple[str, str]
"""An order by its account and client id."""
NOBODY: Final[Set[Key]] = frozenset()


class SpanKind(StrEnum):
    """OpenTelemetry's kinds, as far as we use them."""

    SERVER = "server"
    INTERNAL = "internal"
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
    wanted: Set[Key] = NOBODY
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
    order = (account, client_id)
    return _Place(
        trace_id,
        context.span_id if context is not None else "",
        derived_span_id(trace_id, "gateway", *order),
        derived_span_id(trace_id, "engine", *order),
    )


def is_picked(share: float, client_id: str, traceparent: str) -> bool:
    """Tell whether an order belongs to the share that is kept: cheap, and the same in every process."""
    if traceparent:
        context = parse_traceparent(traceparent)
        if context is not None:
            return is_kept(context.trace_id, share)
    return crc32(client_id.encode("utf-8", "surrogatepass")) < share * _CRC


# --- the gateway ------------------------------------------------------------------------------------------------------


def request_spans(one: Answered, look: Look) -> Iterator[Span]:
    """Yield the span of an order request, if it is kept."""
    command = one.command
    slow = one.answered_at - one.received_at >= look.policy.slow
    by_itself = slow or one.outcome in _NOTABLE or is_picked(look.policy.share, command.client_id, one.trace)
    if not look.keeps((command.account, command.client_id), by_itself=by_itself):
        return
    told = slow or one.outcome in _SAID
    place = _place(command.account, command.client_id, one.trace)
    # The first answer is the order's own span; what is asked again stands beside it. Whoever asks again may give each
    # request the same name: the instant tells them apart.
    again = one.outcome in {RequestOutcome.REPLAYED, RequestOutcome.MISMATCH, RequestOutcome.IN_FLIGHT}
    span_id = (
        derived_span_id(place.trace_id, "gateway", one.request_id, str(one.received_at))
        if again
        else place.gateway_span
    )
    yield Span(
        trace_id=place.trace_id, span_id=span_id, parent_id=place.client_span, name="gateway request",
        kind=SpanKind.SERVER, start=one.received_at, end=max(one.received_at, one.answered_at),
        attributes={
            **_asked(command), "http.response.status_code": one.http_status, "exchange.outcome": str(one.outcome),
            "http.request.id": one.request_id, "exchange.slow": slow,
        },
        error=str(one.outcome) if one.outcome in _FAILED else "",
        verdict=Verdict(command.account, command.client_id, one.received_at) if told else None,
    )  # fmt: skip


def _asked(command: ParticipantCommand) -> dict[str, Value]:
    told: dict[str, Value] = {
        "exchange.command": str(type(command).__struct_config__.tag),
        "user.id": command.account,
        "exchange.client_id": command.client_id,
    }
    if isinstance(command, PlaceOrder):
        return told | {
            "exchange.symbol": command.symbol, "exchange.side": str(command.side), "exchange.lots": command.quantity
        }  # fmt: skip
    if isinstance(command, MassCancel):
        return told | ({} if command.symbol is None else {"exchange.symbol": command.symbol})
    return told | {"exchange.order_id": command.order_id}


# --- the engine -------------------------------------------------------------------------------------------------------


def commit_spans(one: Committed, look: Look) -> Iterator[Span]:
    """Yield the spans of the orders of a batch that are kept."""
    policy, common = look.policy, seconds(one.sync_s + sum(one.apply_s))
    for place in _worth_a_look(one, look, common):
        item, command, events = one.batch[place], one.batch[place].command, one.happened[place].events
        if not isinstance(command, PlaceOrder | CancelOrder | ReplaceOrder | MassCancel):
            continue  # an order of the market's staff
        slow = seconds(one.waited_s[place]) + common >= policy.slow
        by_itself = slow or _is_reject(events) or is_picked(policy.share, command.client_id, item.trace)
        if look.keeps((command.account, command.client_id), by_itself=by_itself):
            yield from _order_spans(one, place, command, slow=slow)


def _worth_a_look(one: Committed, look: Look, common: Duration) -> Iterable[int]:
    """Return the places in a batch of what may be kept.

    All orders of the exchange pass here, and few are kept: one look each at what is cheap to see, then the few.
    """
    policy = look.policy
    if look.wanted or len(one.batch) < _MANY or seconds(max(one.waited_s)) + common >= policy.slow:
        return range(len(one.batch))
    limit = policy.share * _CRC
    return [
        place
        for place, (item, happened) in enumerate(zip(one.batch, one.happened, strict=True))
        if item.trace
        or (
            type(command := item.command) in _ORDERS
            and crc32(command.client_id.encode("utf-8", "surrogatepass")) < limit  # type: ignore[union-attr]
        )
        or (happened.events and type(happened.events[-1]) is Rejected)
    ]


def _is_reject(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Rejected)


def _order_spans(one: Committed, number: int, command: ParticipantCommand, *, slow: bool) -> Iterator[Span]:
    item, events = one.batch[number], one.happened[number].events
    place = _place(command.account, command.client_id, item.trace)
    told = _asked(command) | _became(events) | {"exchange.seq": item.seq, "exchange.slow": slow}
    taken = item.at
    matched = Instant(taken + seconds(sum(one.apply_s[:number])))
    durable = max(one.durable_at, taken)
    yield Span(
        trace_id=place.trace_id, span_id=place.engine_span, parent_id=place.gateway_span, name="engine order",
        start=taken, end=durable, attributes=told, events=tuple(_trades(events, matched)),
        verdict=Verdict(command.account, command.client_id, taken) if slow else None,
    )  # fmt: skip
    for name, start, end in (
        ("engine queue", Instant(taken - seconds(one.waited_s[number])), taken),
        ("engine match", matched, Instant(matched + seconds(one.apply_s[number]))),
        ("journal sync", Instant(max(taken, durable - seconds(one.sync_s))), durable),
    ):
        yield Span(
            trace_id=place.trace_id, span_id=derived_span_id(place.engine_span, name), parent_id=place.engine_span,
            name=name, start=start, end=max(start, end),
            attributes={"exchange.seq": item.seq, "exchange.batch_commands": len(one.batch)},
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
    for item in one.happened:
        yield from _consumer_span(item, one, look, "market-data publish")


def settle_spans(one: Handled, look: Look) -> Iterator[Span]:
    """Yield a span for each kept order that traded and was posted to the ledger."""
    for item in one.happened:
        if any(isinstance(event, Traded) for event in item.events):
            yield from _consumer_span(item, one, look, "settlement post")


def _consumer_span(item: Happened, one: Handled, look: Look, name: str) -> Iterator[Span]:
    if not item.events:
        return
    first = _answer(item.events)
    if first is None or isinstance(first, Rejected):
        return  # the market hears of no reject, and halts belong to nobody's order
    slow = one.ended_at - item.at >= look.policy.slow
    by_itself = slow or is_picked(look.policy.share, first.client_id, item.trace)
    if not look.keeps((first.account, first.client_id), by_itself=by_itself):
        return
    place = _place(first.account, first.client_id, item.trace)
    yield Span(
        trace_id=place.trace_id, span_id=derived_span_id(place.engine_span, name), parent_id=place.engine_span,
        name=name, kind=SpanKind.CONSUMER, start=one.began_at, end=max(one.began_at, one.ended_at),
        attributes={
            "exchange.seq": item.seq, "exchange.symbol": first.symbol, "exchange.slow": slow,
            "exchange.trades": sum(isinstance(event, Traded) for event in item.events),
        },
        verdict=Verdict(first.account, first.client_id, item.at) if slow else None,
    )  # fmt: skip
