"""A flow as CSV: written while it is sent, read to send the same again. The same flow gives the same bytes.

    at_us,account,client_id,action,symbol,side,quantity,price,time_in_force,order

`action` is place, cancel or replace. A place has symbol, side, quantity, a price in ticks (empty: a market order) and a
time in force (empty: day); a cancel has the client id of the `order` it is about, a replace that and a quantity and
price. `at_us` is microseconds since the start of the flow. An order is named by the client id it was placed with, as
its number is not known before it is sent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TextIO

from exchange.commands import CancelOrder, Limit, Market, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Event
from exchange.types import AccountId, ClientId, Lots, OrderId, Side, Symbol, Ticks, TimeInForce
from kernel.errors import InputError
from kernel.time import Duration

COLUMNS: Final = (
    "at_us", "account", "client_id", "action", "symbol", "side", "quantity", "price", "time_in_force", "order",
)  # fmt: skip
MAX_NUMBER: Final = 2**63 - 1
"""The largest that a journal keeps. Whether an engine takes it is the engine's answer."""
MAX_TEXT: Final = 200
_ACTIONS: Final = ("place", "cancel", "replace")


class Row(NamedTuple):
    """One request of a flow in a file."""

    at: Duration
    """Since the start of the flow."""
    command: ParticipantCommand
    """For a cancel or a replace with the order number 0."""
    order: tuple[AccountId, ClientId] | None
    """Which order a cancel or a replace is about."""


class CsvFlow:
    """The requests of a file, in turn. Tell it under which number orders were accepted (`placed` or `observe`)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: Final = rows
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
        if row.order is None:
            return row.command
        number = self._numbers.get(row.order, OrderId(0))
        match row.command:
            case ReplaceOrder(account=account, client_id=client_id, quantity=quantity, price=price):
                return ReplaceOrder(account, client_id, number, quantity, price)
            case CancelOrder(account=account, client_id=client_id):
                return CancelOrder(account, client_id, number)
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


class CsvWriter:
    """Writes a flow while it is sent."""

    def __init__(self, file: TextIO) -> None:
        self._rows: Final = csv.writer(file, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self._names: Final[dict[OrderId, ClientId]] = {}

    def write(self, at: Duration, command: ParticipantCommand, events: Sequence[Event]) -> None:
        """Add a request and learn from its answer."""
        for event in events:
            if isinstance(event, Accepted):
                self._names[event.order_id] = event.client_id
        head = (at // 1000, command.account, command.client_id)
        match command:
            case PlaceOrder(symbol=symbol, side=side, quantity=quantity, terms=terms, time_in_force=lasts):
                price = terms.price if isinstance(terms, Limit) else ""
                self._rows.writerow((*head, "place", symbol, side.value, quantity, price, lasts.value, ""))
            case CancelOrder(order_id=order_id):
                self._rows.writerow((*head, "cancel", "", "", "", "", "", self._names.get(order_id, "")))
            case ReplaceOrder(order_id=order_id, quantity=quantity, price=price):
                self._rows.writerow((*head, "replace", "", "", quantity, price, "", self._names.get(order_id, "")))


def read_flow(where: str, text: str) -> list[Row]:
    """Read a flow; `where` names it in messages.

    Raises:
        InputError: a line is wrong; the message names line and column.
    """
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(reader, None)
        if header is None or tuple(header) != COLUMNS:
            raise InputError(f"{where}:1", "is not the header of a flow", right=f"it reads {','.join(COLUMNS)}")
        return list(_rows(where, reader))
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}", f"is no CSV: {error}") from error


def _rows(where: str, reader: Iterable[list[str]]) -> Iterator[Row]:
    latest = Duration(0)
    for number, fields in enumerate(reader, 2):
        line = f"{where}:{number}"
        if not fields:
            continue
        if len(fields) != len(COLUMNS):
            raise InputError(line, f"has {len(fields)} fields", right=f"there are {len(COLUMNS)}")
        row = _row(line, dict(zip(COLUMNS, fields, strict=True)))
        if row.at < latest:
            raise InputError(f"{line}: at_us", "is earlier than the line before", right="sort the lines by time")
        latest = row.at
        yield row


def _row(line: str, fields: dict[str, str]) -> Row:
    at = Duration(_number(line, "at_us", fields) * 1000)
    account = AccountId(_text(line, "account", fields))
    client_id = ClientId(_text(line, "client_id", fields))
    action = _one_of(line, "action", fields, _ACTIONS)
    if action == "place":
        price = fields["price"]
        command = PlaceOrder(
            account,
            client_id,
            Symbol(_text(line, "symbol", fields)),
            Side(_one_of(line, "side", fields, [one.value for one in Side])),
            Lots(_number(line, "quantity", fields)),
            Limit(Ticks(_number(line, "price", fields))) if price else Market(),
            TimeInForce(_one_of(line, "time_in_force", fields, [one.value for one in TimeInForce]))
            if fields["time_in_force"]
            else TimeInForce.DAY,
        )
        return Row(at, command, None)
    order = account, ClientId(_text(line, "order", fields))
    if action == "cancel":
        return Row(at, CancelOrder(account, client_id, OrderId(0)), order)
    quantity, price_ticks = Lots(_number(line, "quantity", fields)), Ticks(_number(line, "price", fields))
    return Row(at, ReplaceOrder(account, client_id, OrderId(0), quantity, price_ticks), order)


def _text(line: str, column: str, fields: dict[str, str]) -> str:
    text = fields[column]
    if not 0 < len(text) <= MAX_TEXT:
        raise InputError(f"{line}: {column}", f"has {len(text)} letters", right=f"1 to {MAX_TEXT}")
    return text


def _number(line: str, column: str, fields: dict[str, str]) -> int:
    text = fields[column]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_NUMBER))):
        raise InputError(
            f"{line}: {column}", f"{text[:40]!r} is no whole number", right="prices are ticks, quantities lots"
        )
    number = int(text)
    lowest = 0 if column == "at_us" else -MAX_NUMBER
    highest = MAX_NUMBER // 1000 if column == "at_us" else MAX_NUMBER
    if not lowest <= number <= highest:
        raise InputError(f"{line}: {column}", f"is {number}", right=f"between {lowest} and {highest}")
    return number


def _one_of(line: str, column: str, fields: dict[str, str], allowed: Sequence[str]) -> str:
    text = fields[column]
    if text not in allowed:
        raise InputError(f"{line}: {column}", f"{text[:40]!r} is not known", right=f"one of {', '.join(allowed)}")
    return text
