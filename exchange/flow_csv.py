"""A flow as CSV: written while it is sent, read to send the same again. The same flow gives the same bytes.

The first line names the columns, in any order; those that a flow has no use for may be missing. `docs/exchange.md`
tells what each means, `docs/examples/every-order.csv` shows a flow with every kind of request.

An order is named by the client id it was placed with (and its `owner`, where that is not the sender), as its number is
not known before it is sent; by `order_id` only where nobody knows one. Instants are counted from the start of the flow.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TextIO

import msgspec

from exchange.commands import (
    CancelOrder,
    Limit,
    Market,
    MassCancel,
    ParticipantCommand,
    PlaceOrder,
    ReplaceOrder,
    Stop,
    StopLimit,
    Terms,
)
from exchange.events import Accepted, Event
from exchange.types import AccountId, ClientId, Lots, OrderId, SelfTrade, SessionId, Side, Symbol, Ticks, TimeInForce
from kernel.errors import InputError
from kernel.time import Duration, Instant

NEEDED: Final = ("at_us", "account", "client_id", "action")
"""The columns that every flow has."""
COLUMNS: Final = (
    *NEEDED, "symbol", "side", "quantity", "price", "time_in_force", "order", "type", "trigger", "display", "post_only",
    "all_or_none", "expires_ns", "self_trade", "session", "owner", "order_id",
)  # fmt: skip
"""All columns there are, in the order in which they are written."""
MAX_NUMBER: Final = 2**63 - 1
"""The largest that a journal keeps. Whether an engine takes it is the engine's answer."""
MAX_TEXT: Final = 200
BEGINNING: Final = Instant(0)
"""When a flow begins that is sent to an engine of its own."""

_USES: Final[dict[str, tuple[str, ...]]] = {
    "place": (
        "symbol", "side", "quantity", "price", "time_in_force", "type", "trigger", "display", "post_only",
        "all_or_none", "expires_ns", "self_trade", "session",
    ),
    "cancel": ("order", "owner", "order_id"),
    "replace": ("order", "owner", "order_id", "quantity", "price", "trigger"),
    "mass_cancel": ("symbol", "side", "session"),
}  # fmt: skip
"""What each action has beside what all have."""
_TERMS: Final[dict[str, tuple[str, ...]]] = {
    "limit": ("price", "post_only", "display", "all_or_none"),
    "market": (),
    "stop": ("trigger",),
    "stop_limit": ("trigger", "price", "display"),
}
"""What each type of order has."""
_OF_TYPES: Final = ("price", "trigger", "display", "post_only", "all_or_none")


class Row(NamedTuple):
    """One request of a flow in a file."""

    at: Duration
    """Since the start of the flow."""
    command: ParticipantCommand
    """What expires does so that long after the start."""
    order: tuple[AccountId, ClientId] | None
    """Which order a cancel or a replace is about; None where it names it by its number."""


class CsvFlow:
    """The requests of a file, in turn. Tell it under which number orders were accepted (`placed` or `observe`)."""

    def __init__(self, rows: Sequence[Row], start: Instant = BEGINNING) -> None:
        """Begin a flow of which orders expire so long after `start` as the file says."""
        self._rows: Final = rows
        self._start: Final = start
        self._next = 0
        self._numbers: Final[dict[tuple[AccountId, ClientId], OrderId]] = {}

    @property
    def symbols(self) -> frozenset[Symbol]:
        """What is traded."""
        return frozenset(one.command.symbol for one in self._rows if isinstance(one.command, PlaceOrder))

    def __iter__(self) -> Iterator[ParticipantCommand]:
        return self

    def __next__(self) -> ParticipantCommand:
        """Return the next request; an order that nobody accepted has the number 0, which no order ever has."""
        if self._next >= len(self._rows):
            raise StopIteration
        row = self._rows[self._next]
        self._next += 1
        match row.command:
            case PlaceOrder(expires_at=expires_at) as command:
                if not expires_at or not self._start:
                    return command
                return msgspec.structs.replace(command, expires_at=Instant(self._start + expires_at))
            case ReplaceOrder() | CancelOrder() as command if row.order is not None:
                return msgspec.structs.replace(command, order_id=self._numbers.get(row.order, OrderId(0)))
        return row.command

    def observe(self, events: Sequence[Event]) -> None:
        """Take in what the exchange answered to one request."""
        for event in events:
            if isinstance(event, Accepted):
                self.placed(event.account, event.client_id, event.order_id)

    def placed(self, account: AccountId, client_id: ClientId, order_id: OrderId) -> None:
        """Learn under which number an order was accepted."""
        self._numbers[account, client_id] = order_id

    def rested(self, order_id: OrderId, account: AccountId, symbol: Symbol, side: Side, price: Ticks) -> None:
        """Learn that an order rests: the file says already what is done with it."""

    def gone(self, order_id: OrderId) -> None:
        """Learn that an order rests no longer."""


# --- writing -------------------------------------------------------------------------------------------------------


class CsvWriter:
    """Writes a flow while it is sent."""

    def __init__(self, file: TextIO, start: Instant = BEGINNING) -> None:
        """Write into `file` a flow that began at `start`."""
        self._rows: Final = csv.writer(file, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self._start: Final = start
        self._names: Final[dict[OrderId, tuple[AccountId, ClientId]]] = {}

    def write(self, at: Duration, command: ParticipantCommand, events: Sequence[Event]) -> None:
        """Add a request that was sent `at` after the start, and learn from its answer."""
        for event in events:
            if isinstance(event, Accepted):
                self._names[event.order_id] = event.account, event.client_id
        cells: dict[str, object] = {"at_us": at // 1000, "account": command.account, "client_id": command.client_id}
        match command:
            case PlaceOrder():
                cells |= {"action": "place", **self._placed(command)}
            case CancelOrder():
                cells |= {"action": "cancel", **self._named(command)}
            case ReplaceOrder():
                cells |= {"action": "replace", "quantity": command.quantity, "price": command.price or ""}
                cells |= {"trigger": command.trigger, **self._named(command)}
            case MassCancel():
                cells |= {"action": "mass_cancel", "symbol": command.symbol, "side": command.side}
                cells |= {"session": command.session}
        self._rows.writerow([_cell(cells.get(name)) for name in COLUMNS])

    def _placed(self, order: PlaceOrder) -> dict[str, object]:
        terms = order.terms
        kind = str(type(terms).__struct_config__.tag)
        return {
            "symbol": order.symbol,
            "side": order.side,
            "quantity": order.quantity,
            "time_in_force": order.time_in_force,
            "type": kind,
            **{name: getattr(terms, name) or "" for name in _TERMS[kind]},
            "expires_ns": order.expires_at - self._start if order.expires_at else "",
            "self_trade": "" if order.self_trade is SelfTrade.NONE else order.self_trade,
            "session": order.session,
        }

    def _named(self, command: CancelOrder | ReplaceOrder) -> dict[str, object]:
        if command.order_id not in self._names:
            return {"order_id": command.order_id}
        owner, client_id = self._names[command.order_id]
        return {"order": client_id, "owner": "" if owner == command.account else owner}


def _cell(value: object) -> object:
    if value is None:
        return ""
    return "true" if value is True else str(value)


# --- reading -------------------------------------------------------------------------------------------------------


def read_flow(where: str, text: str) -> list[Row]:
    """Read a flow; `where` names it in messages.

    Raises:
        InputError: a line is wrong; the message names line and column (as `FILE:LINE:COLUMN`) and what would be right.
    """
    lines = text.split("\n")
    header = _fields(f"{where}:1", lines[0].removesuffix("\r"))
    _check_header(where, header)
    rows: list[Row] = []
    latest = Duration(0)
    for number, raw in enumerate(lines[1:], 2):
        line = raw.removesuffix("\r")
        if not line:
            continue
        fields = _fields(f"{where}:{number}", line)
        if len(fields) != len(header):
            raise InputError(f"{where}:{number}", f"has {len(fields)} fields", right=f"there are {len(header)}")
        row = _Cells(where, number, line, header, fields).row()
        if row.at < latest:
            told = f"{where}:{number}:{_place(line, header.index('at_us'))}: at_us"
            raise InputError(told, "is earlier than the line before", right="sort the lines by time")
        latest = row.at
        rows.append(row)
    return rows


def _fields(line: str, text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        right = "close a quote on the line it was opened on, and write a quote within as two"
        raise InputError(line, f"is no CSV: {error}", right=right) from error


def _check_header(where: str, header: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing:
        problem = f"is not the header of a flow: {', '.join(missing)} is missing"
        raise InputError(f"{where}:1", problem, right=f"there are {','.join(COLUMNS)}")
    if unknown:
        raise InputError(f"{where}:1: {unknown[0][:40]!r}", "is no column", right=f"there are {','.join(COLUMNS)}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{where}:1: {twice[0]}", "stands there twice", right="keep one of them")


def _place(line: str, index: int) -> int:
    """Return at which letter of a line, from 1, its field with an index begins."""
    quoted, passed = False, 0
    for place, letter in enumerate(line, 1):
        if passed == index:
            return place
        quoted = quoted is not (letter == '"')
        passed += letter == "," and not quoted
    return len(line) + 1


class _Cells:
    """The fields of one line, read strictly."""

    def __init__(self, where: str, number: int, line: str, header: Sequence[str], fields: Sequence[str]) -> None:
        self._where, self._number, self._line, self._header = where, number, line, header
        self._cells = dict(zip(header, fields, strict=True))

    def row(self) -> Row:
        at = Duration(self._whole("at_us", 0, MAX_NUMBER // 1000) * 1000)
        account, client_id = AccountId(self._text("account")), ClientId(self._text("client_id"))
        action = self._one_of("action", tuple(_USES))
        for name in COLUMNS:
            if self._has(name) and name not in NEEDED and name not in _USES[action]:
                users = ", ".join(one for one, uses in _USES.items() if name in uses)
                raise self._wrong(name, f"a {action} has none", f"leave it empty; it belongs to {users}")
        if action == "place":
            return Row(at, self._order(account, client_id), None)
        if action == "mass_cancel":
            symbol = Symbol(self._text("symbol")) if self._has("symbol") else None
            session = SessionId(self._text("session")) if self._has("session") else None
            side = Side(self._one_of("side", tuple(Side))) if self._has("side") else None
            return Row(at, MassCancel(account, client_id, symbol, side, session), None)
        number, order = self._named(account)
        if action == "cancel":
            return Row(at, CancelOrder(account, client_id, number), order)
        quantity, price = Lots(self._whole("quantity")), Ticks(self._whole("price") if self._has("price") else 0)
        trigger = Ticks(self._whole("trigger")) if self._has("trigger") else None
        return Row(at, ReplaceOrder(account, client_id, number, quantity, price, trigger), order)

    def _named(self, account: AccountId) -> tuple[OrderId, tuple[AccountId, ClientId] | None]:
        """Return which order is meant: its number, or whose it is and under which client id it was placed."""
        if self._has("order_id"):
            if self._has("order"):
                raise self._wrong("order_id", "stands beside an order", "keep one of them")
            return OrderId(self._whole("order_id")), None
        owner = AccountId(self._text("owner")) if self._has("owner") else account
        return OrderId(0), (owner, ClientId(self._text("order")))

    def _order(self, account: AccountId, client_id: ClientId) -> PlaceOrder:
        lasts, self_trade = TimeInForce.DAY, SelfTrade.NONE
        if self._has("time_in_force"):
            lasts = TimeInForce(self._one_of("time_in_force", tuple(TimeInForce)))
        if self._has("self_trade"):
            self_trade = SelfTrade(self._one_of("self_trade", tuple(SelfTrade)))
        return PlaceOrder(
            account,
            client_id,
            Symbol(self._text("symbol")),
            Side(self._one_of("side", tuple(Side))),
            Lots(self._whole("quantity")),
            self._terms(),
            lasts,
            Instant(self._whole("expires_ns", 1) if self._has("expires_ns") else 0),
            self_trade,
            SessionId(self._text("session") if self._has("session") else ""),
        )

    def _terms(self) -> Terms:
        usual = "limit" if self._has("price") else "market"
        kind = self._one_of("type", tuple(_TERMS)) if self._has("type") else usual
        for name in _OF_TYPES:
            if self._has(name) and name not in _TERMS[kind]:
                others = ", ".join(one for one, members in _TERMS.items() if name in members)
                raise self._wrong(name, f"a {kind} order has none", f"leave it empty, or let type be one of {others}")
        price, trigger, display = (
            self._whole(name) if name in _TERMS[kind] and (name != "display" or self._has(name)) else 0
            for name in ("price", "trigger", "display")
        )
        match kind:
            case "limit":
                post_only, all_or_none = self._flag("post_only"), self._flag("all_or_none")
                return Limit(Ticks(price), post_only, Lots(display), all_or_none)
            case "stop":
                return Stop(Ticks(trigger))
            case "stop_limit":
                return StopLimit(Ticks(trigger), Ticks(price), Lots(display))
        return Market()

    def _has(self, name: str) -> bool:
        return bool(self._cells.get(name))

    def _wrong(self, name: str, problem: str, right: str) -> InputError:
        place = _place(self._line, self._header.index(name)) if name in self._header else 1
        return InputError(f"{self._where}:{self._number}:{place}: {name}", problem, right=right)

    def _text(self, name: str) -> str:
        text = self._cells.get(name, "")
        if not 0 < len(text) <= MAX_TEXT:
            raise self._wrong(name, f"has {len(text)} letters", f"1 to {MAX_TEXT}")
        return text

    def _whole(self, name: str, lowest: int = -MAX_NUMBER, highest: int = MAX_NUMBER) -> int:
        text = self._cells.get(name, "")
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_NUMBER))):
            raise self._wrong(name, f"{text[:40]!r} is no whole number", "prices are ticks, quantities lots")
        number = int(text)
        if not lowest <= number <= highest:
            raise self._wrong(name, f"is {number}", f"between {lowest} and {highest}")
        return number

    def _flag(self, name: str) -> bool:
        return self._has(name) and self._one_of(name, ("true", "false")) == "true"

    def _one_of(self, name: str, allowed: Sequence[str]) -> str:
        text = self._cells.get(name, "")
        if text not in allowed:
            raise self._wrong(name, f"{text[:40]!r} is not known", f"one of {', '.join(allowed)}")
        return text
