"""What settlement's services say to each other over a broker: bodies with a version, routing keys, and who hears what.

A body of a version that is not known is refused and never guessed at; a field that is not known is left alone, so an
older program reads what a newer one adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from exchange.messaging import Delivery, Outgoing, PoisonError
from exchange.saga import AT, NEXT, Answer, Ask, End, Service
from exchange.types import TradeId

VERSION: Final = 1
READ: Final = frozenset({1})
"""The versions that this program reads."""
ANSWERS: Final = "saga.answer"
COORDINATOR: Final = "saga.coordinator"
"""The queue of all answers."""
READER: Final = "saga.coordinator.events"
"""The queue in which the reader of the trades hears the ends."""


class Style(StrEnum):
    """Who knows what comes next."""

    ORCHESTRATED = "orchestrated"
    CHOREOGRAPHED = "choreographed"


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Every saga of a part of the exchange up to this trade has ended, and nobody speaks of it any more."""

    up_to: TradeId


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    version: int
    ask: Ask | None = None
    answer: Answer | None = None
    forget: Forget | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Body).decode


def queue(service: Service, style: Style) -> str:
    """Return the queue a service reads."""
    return f"saga.{service}" + (".events" if style is Style.CHOREOGRAPHED else "")


def asking(ask: Ask) -> Outgoing:
    """Return the message that asks a service for a step."""
    return Outgoing(
        routing_key=f"saga.ask.{AT[ask.step]}",
        body=_encode(_Body(VERSION, ask=ask)),
        message_id=f"{ask.instruction.trade_id}.{ask.step}.ask",
        trace=ask.instruction.trace,
    )


def answering(answer: Answer) -> Outgoing:
    """Return the message that tells the coordinator what became of a step."""
    return Outgoing(
        routing_key=ANSWERS,
        body=_encode(_Body(VERSION, answer=answer)),
        message_id=f"{answer.instruction.trade_id}.{answer.step}.answer",
        trace=answer.instruction.trace,
    )


def saying(answer: Answer) -> Outgoing:
    """Return the event that tells every service what became of a step."""
    return Outgoing(
        routing_key=f"saga.said.{answer.step}.{answer.verdict}",
        body=_encode(_Body(VERSION, answer=answer)),
        message_id=f"{answer.instruction.trade_id}.{answer.step}.{answer.verdict}",
        trace=answer.instruction.trace,
    )


def forgetting(forget: Forget, service: Service, style: Style) -> Outgoing:
    """Return the message that tells a service up to which trade it need not remember."""
    return Outgoing(
        routing_key=_forget_key(service, style),
        body=_encode(_Body(VERSION, forget=forget)),
        message_id=f"{forget.up_to}.forget.{service}",
    )


def _forget_key(service: Service, style: Style) -> str:
    return f"saga.forget.{style}.{service}"


def read_ask(delivery: Delivery) -> Ask:
    """Return what a delivery asks.

    Raises:
        PoisonError: it asks nothing that this program understands, or asks `begin`, which no service carries out.
    """
    body = _read(delivery)
    if body.ask is None or body.ask.step not in AT:
        raise PoisonError(delivery, "it asks for no step")
    return body.ask


def read_answer(delivery: Delivery) -> Answer:
    """Return what a delivery tells.

    Raises:
        PoisonError: it tells nothing that this program understands.
    """
    body = _read(delivery)
    if body.answer is None:
        raise PoisonError(delivery, "it tells no answer")
    return body.answer


def read_asked(delivery: Delivery) -> Ask | Forget:
    """Return what a service that a coordinator leads is to do.

    Raises:
        PoisonError: as `read_ask`.
    """
    return _read(delivery).forget or read_ask(delivery)


def read_heard(delivery: Delivery) -> Answer | Forget:
    """Return what a service hears that no coordinator leads.

    Raises:
        PoisonError: as `read_answer`.
    """
    return _read(delivery).forget or read_answer(delivery)


def _read(delivery: Delivery) -> _Body:
    try:
        body = _decode(delivery.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PoisonError(delivery, f"it is no message of a saga ({error})") from error
    if body.version not in READ:
        known = ", ".join(map(str, sorted(READ)))
        raise PoisonError(delivery, f"it is of version {body.version}, this program reads {known}")
    return body


def bindings(style: Style) -> Mapping[str, tuple[str, ...]]:
    """Return which routing keys reach which queue. What tells an end reaches every one of the choreographed."""
    if style is Style.ORCHESTRATED:
        asked = {queue(service, style): (f"saga.ask.{service}", _forget_key(service, style)) for service in Service}
        return {**asked, COORDINATOR: (ANSWERS,)}
    forget = {queue(service, style): [_forget_key(service, style)] for service in Service}
    heard: dict[str, list[str]] = {READER: [], **forget}
    for (step, verdict), after in NEXT.items():
        key = f"saga.said.{step}.{verdict}"
        for name in heard if isinstance(after, End) else (queue(AT[after], style),):
            heard[name].append(key)
    return {name: tuple(keys) for name, keys in heard.items()}
