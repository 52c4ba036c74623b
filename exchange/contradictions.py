"""Which members of a request a refusal is about, and what would be right: a pure reading of the request itself.

The engine tells a reason and nothing more, for whoever sent the request knows it. Where several members could be meant
this module names them, by the rules of `docs/exchange-rules.md` (F17, table C). The same request and reason give the
same words, whenever they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from exchange.commands import Limit, Market, ParticipantCommand, PlaceOrder, ReplaceOrder, StopLimit
from exchange.types import RejectReason, TimeInForce

_AT_ONCE: Final = (TimeInForce.IOC, TimeInForce.FOK)
_LASTING: Final = (TimeInForce.GTC, TimeInForce.GTT)
_FLAGS: Final = ("post_only", "display", "all_or_none")


class Contradiction(NamedTuple):
    """Members of a body that a refusal is about, by their names in JSON, and what would be right."""

    members: tuple[str, ...]
    right: str


def contradictions_of(command: PlaceOrder) -> tuple[Contradiction, ...]:
    """Return what of an order's terms does not go together (F17); empty where everything does.

    What the types of the fields already exclude (a market order with a price) is not looked at.
    """
    terms, lasts = command.terms, command.time_in_force
    match terms:
        case Limit():
            return _of_limit(terms, lasts)
        case StopLimit(display=display) if lasts in _AT_ONCE and display:
            return (_never_rests(lasts, ("display",)),)
        case Market() if lasts in _LASTING:
            right = (
                "a market order never rests: make time_in_force day, ioc or fok, or type limit, with a price; "
                "expires_at goes with gtt only"
            )
            return (Contradiction(("type", "time_in_force"), right),)
        case _:
            return ()


def _never_rests(lasts: TimeInForce, given: tuple[str, ...]) -> Contradiction:
    right = f"an order that is {lasts} never rests: leave out {_and(given)}, or make time_in_force day, gtc or gtt"
    return Contradiction(("time_in_force", *given), right)


def _of_limit(terms: Limit, lasts: TimeInForce) -> tuple[Contradiction, ...]:
    given = tuple(name for name in _FLAGS if getattr(terms, name))
    found: list[Contradiction] = []
    if lasts in _AT_ONCE and given:
        found.append(_never_rests(lasts, given))
    others = tuple(name for name in given if name != "all_or_none")
    if terms.all_or_none and others:
        right = f"an all-or-none order waits unseen: leave out all_or_none, or {_and(others)}"
        found.append(Contradiction(("all_or_none", *others), right))
    return tuple(found)


def explained(command: ParticipantCommand, reason: RejectReason) -> Contradiction | None:
    """Return which members of a request a refusal is about; None where it is about none of them.

    So it is with halts, a closed session, an account that is switched off, an order that is no longer there.
    """
    if not isinstance(command, PlaceOrder | ReplaceOrder):
        return None
    if reason is RejectReason.BAD_COMBINATION:
        found = contradictions_of(command) if isinstance(command, PlaceOrder) else ()
        members = dict.fromkeys(name for one in found for name in one.members)
        return Contradiction(tuple(members), "; ".join(one.right for one in found)) if found else None
    about = _ABOUT.get(reason)
    if about is None:
        return None
    members_of, right = about
    named = members_of(command)
    return Contradiction(named, right) if named else None


def _prices(command: PlaceOrder | ReplaceOrder) -> tuple[str, ...]:
    terms = command.terms if isinstance(command, PlaceOrder) else command
    # A price of 0 is one that was left out, or is none; a trigger that is None is kept as it was.
    return tuple(name for name in ("price", "trigger") if getattr(terms, name, None) is not None)


def _at_once(command: PlaceOrder | ReplaceOrder) -> tuple[str, ...]:
    if not isinstance(command, PlaceOrder):
        return ()
    flags = tuple(name for name in ("post_only", "all_or_none") if getattr(command.terms, name, False))
    # A stop waits for its trigger, whatever its time in force.
    waits = not isinstance(command.terms, Limit | Market)
    return ("time_in_force", *flags) if command.time_in_force in _AT_ONCE and not waits else flags


def _and(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


_About = tuple[Callable[[PlaceOrder | ReplaceOrder], tuple[str, ...]], str]
_ABOUT: Final[dict[RejectReason, _About]] = {
    RejectReason.UNKNOWN_SYMBOL: (lambda _: ("symbol",), "a symbol of the exchange's instruments"),
    RejectReason.BAD_QUANTITY: (
        lambda _: ("quantity",),
        "a multiple of the instrument's lot_step, from its min_quantity to its max_quantity",
    ),
    RejectReason.BAD_PRICE: (
        _prices,
        "multiples of the instrument's tick_step, from 1 to 1000000000; none may be left out",
    ),
    RejectReason.PRICE_OUT_OF_BAND: (_prices, "at most the instrument's band away from its reference"),
    RejectReason.BAD_DISPLAY: (
        lambda _: ("display", "quantity"),
        "a display of at most quantity and at least the instrument's min_display, a multiple of its lot_step",
    ),
    RejectReason.BAD_NOTIONAL: (
        lambda _: ("price", "quantity"),
        "a price times quantity from the instrument's min_notional to its max_notional",
    ),
    RejectReason.BAD_EXPIRY: (lambda _: ("expires_at",), "an instant later than now"),
    RejectReason.WRONG_PHASE: (
        _at_once,
        "while orders are gathered for a cross none can trade at once: leave these out, or wait for continuous trading",
    ),
    RejectReason.INSUFFICIENT_FUNDS: (
        lambda command: ("quantity", *_prices(command)[:1]),
        "price times quantity and the highest fee, at most what is free of the account's cash",
    ),
    RejectReason.INSUFFICIENT_POSITION: (lambda _: ("quantity",), "at most what is free of the account's position"),
    RejectReason.POST_ONLY_WOULD_TRADE: (
        lambda command: ("post_only", "price") if isinstance(command, PlaceOrder) else ("price",),
        "a price that does not reach the other side, or no post_only",
    ),
    RejectReason.STOP_REACHED: (lambda _: ("trigger",), "a trigger that the last trade has not reached"),
}
"""Of each reason the members that it can be about, and what would be right."""
