"""Where an order stands in its trace, for those who pass it on: in a header `traceparent` of Kafka and of RabbitMQ.

Our own processes need no header: account and client id give the ids of all spans of an order (`kernel.trace`). A header
is for those who do not know that, so it stands where there is something to join: on messages of orders of the share
that is kept, and of those whose client sent a `traceparent`. A record says itself which it is; only those few are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from exchange.commands import CancelOrder, MassCancel, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Canceled, Event, Happened, Rejected, Replaced
from exchange.journal import decode_command, decode_events
from exchange.types import CancelReason
from kernel.trace import (
    TraceContext,
    derived_span_ids,
    is_kept,
    is_place_kept,
    order_trace_id,
    parse_traceparent,
    traceparent,
)

TRACEPARENT: Final = "traceparent"
Headers = list[tuple[str, str | bytes | None]]
_ASKED_FOR: Final = frozenset({CancelReason.REQUESTED, CancelReason.MASS_CANCEL})
_HAS_TRACE: Final = b"\xa5trace\xd9"
"""How the field stands in a record that has it: its name, then a text of 32 bytes or more. Elsewhere it may stand by
chance, which costs a look."""


def answering(events: Sequence[Event]) -> Rejected | Accepted | Canceled | Replaced | None:
    """Return the event that answers an order request; what was due before it came first."""
    if events and isinstance(events[-1], Rejected):
        return events[-1]
    for one in events:
        if isinstance(one, (Accepted, Replaced)):  # a tuple: a union costs four times as much
            return one
    return next((one for one in events if isinstance(one, Canceled) and one.reason in _ASKED_FOR), None)


def caused(happened: Happened, share: float) -> str:
    """Return the `traceparent` of what an order led to, below the engine's span; empty when it was no order's."""
    first = answering(happened.events)
    if first is None:
        return ""
    return _header(first.account, first.client_id, happened.trace, happened.seq, share, of_engine=True)


def command_headers(seq: int, record: bytes, share: float) -> Headers | None:
    """Return the headers of a command's message, below the gateway's span; None when it has none."""
    if not _worth_it(seq, record, share):
        return None
    item = decode_command(record)
    command = item.command
    if not isinstance(command, PlaceOrder | CancelOrder | ReplaceOrder | MassCancel):
        return None
    return _headers(_header(command.account, command.client_id, item.trace, seq, share, of_engine=False))


def event_headers(seq: int, record: bytes, share: float) -> Headers | None:
    """Return the headers of the message of what a command caused; None when it has none."""
    return _headers(caused(decode_events(record), share)) if _worth_it(seq, record, share) else None


def context_of(headers: Iterable[tuple[str, bytes | None]] | None) -> TraceContext | None:
    """Return the trace context in a message's headers; None when there is none, or it is not one."""
    for name, value in headers or ():
        if name == TRACEPARENT and value is not None:
            return parse_traceparent(value.decode("ascii", "replace"))
    return None


def _worth_it(seq: int, record: bytes, share: float) -> bool:
    return is_place_kept(seq, share) or _HAS_TRACE in record


def _headers(header: str) -> Headers | None:
    return [(TRACEPARENT, header.encode("ascii"))] if header else None


def _header(account: str, client_id: str, trace: str, seq: int, share: float, *, of_engine: bool) -> str:
    trace_id = order_trace_id(account, client_id, trace)
    gateway, engine = derived_span_ids(trace_id, account, client_id)
    theirs = parse_traceparent(trace) if trace else None
    sampled = is_place_kept(seq, share) if theirs is None else is_kept(trace_id, share)
    return traceparent(TraceContext(trace_id, engine if of_engine else gateway, sampled))
