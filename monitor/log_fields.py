"""What the fields of a log record are, and the one form in which both log stores compare them.

Rules of the form, for the local store and for Elasticsearch alike:
  1. `{"a.b": 1}` and `{"a": {"b": 1}}` are one field. A list holds several values of it; null and `[]` are no value.
  2. keyword: the whole value, case told apart; numbers and booleans as JSON text; over 1,024 characters: none.
  3. text: strings only, searched for a part of them, ASCII case ignored, the first 8,191 characters.
  4. long and double: numbers, and strings that write one; a long loses its fraction. ip: an address. boolean: true,
     false. What is none of these is no value of the field; the record stays.
  5. A record without a readable `@timestamp` is none. Time counts in whole milliseconds.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

import msgspec

from kernel.errors import InputError
from kernel.time import MILLISECOND, from_rfc3339
from monitor.elk import schema

TIME: Final = "@timestamp"
MAX_KEYWORD: Final = 1_024
MAX_TEXT: Final = 8_191
MAX_DEPTH: Final = 20
_NUMBER: Final = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,3})?", re.ASCII)
_LONGS: Final = range(-(2**63), 2**63)

Value = str | int | float
Record = dict[str, object]
"""A flat record: each field's value, a list where it has several."""


class FieldKind(StrEnum):
    """How the values of a field are compared; Elasticsearch's own names of types."""

    KEYWORD = "keyword"
    TEXT = "text"
    LONG = "long"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    IP = "ip"


FIELDS: Final[Mapping[str, FieldKind]] = {
    field.name: FieldKind(field.type.value) for field in schema.FIELDS if field.type.value in set(FieldKind)
}
"""Every field a query or a rule may name, beside `@timestamp`, which ranges of time are for."""


def kind_of(field: str, where: str, fields: Mapping[str, FieldKind] = FIELDS) -> FieldKind:
    """Return what a field is.

    Raises:
        InputError: it is none a record has; says which comes nearest.
    """
    if field == TIME:
        raise InputError(
            where, f"{TIME} is not searched by the query", right="give the range of time: --since, --until"
        )
    if (kind := fields.get(field)) is not None:
        return kind
    group = f"{field.partition('.')[0]}."
    kin = [name for name in fields if name.startswith(group)]  # who writes `http.` means something of HTTP
    near = difflib.get_close_matches(field, kin, 1, 0.5) or difflib.get_close_matches(field, fields, 1, 0.5)
    right = f"did you mean {near[0]}?" if near else "ECS's own fields and those under exchange. are known"
    raise InputError(where, f"{field[:80]!r} is no field of a log record", right=right)


def typed(kind: FieldKind, value: object) -> Value | None:
    """Return one value in the form it is compared in; None when it is no value of that kind."""
    match kind:
        case FieldKind.KEYWORD:
            return _keyword(value)
        case FieldKind.TEXT:
            return value[:MAX_TEXT] if isinstance(value, str) else None
        case FieldKind.LONG | FieldKind.DOUBLE:
            return _number(value, whole=kind is FieldKind.LONG)
        case FieldKind.BOOLEAN:
            return _boolean(value)
        case FieldKind.IP:
            return ip_key(value) if isinstance(value, str) else None


def ip_key(text: str) -> str | None:
    """Return an address as 32 hexadecimal digits, which sort as addresses do; None when it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return None
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)  # noqa: PLR2004 - RFC 4291, 2.5.5.2
    return f"{number:032x}"


def ip_shown(key: str) -> str:
    """Return the address that `ip_key` made `key` of."""
    address = ipaddress.IPv6Address(int(key, 16))
    return str(address.ipv4_mapped or address)


def _keyword(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return value if isinstance(value, str) and len(value) <= MAX_KEYWORD else None


def _boolean(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value in {"true", "false"} and isinstance(value, str) else None


def _number(value: object, *, whole: bool) -> Value | None:  # noqa: PLR0911 - one return a form that is none
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return None
        try:
            exact = Decimal(value)
        except InvalidOperation:
            return None
        value = int(exact) if whole else float(exact)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if whole:
        return int(value) if int(value) in _LONGS else None
    try:
        return float(value) + 0.0
    except OverflowError:
        return None


def flatten(record: Mapping[str, object]) -> Record:
    """Return a record with one name a field: what is nested, joined by dots; values of one name, together."""
    if not any(value is None or isinstance(value, dict | list | tuple) for value in record.values()):
        return {name: record[name] for name in sorted(record)}  # as our own processes write it
    found: dict[str, list[object]] = {}
    for name, value in _leaves("", record, 0):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in sorted(found.items())}


def _leaves(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    if depth > MAX_DEPTH or value is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(name, inner, depth + 1)
    else:
        yield name, value


def values_of(record: Record, field: str) -> list[object]:
    """Return the values of a field of a flat record, as they were written."""
    value = record.get(field)
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def compared(record: Record, fields: Mapping[str, FieldKind] = FIELDS) -> dict[str, list[Value]]:
    """Return the values of the known fields of a flat record in the form they are compared in."""
    found = {}
    for name in record:
        if (kind := fields.get(name)) is not None:
            values = [one for one in (typed(kind, value) for value in values_of(record, name)) if one is not None]
            if values:
                found[name] = values
    return found


def time_ms(record: Record) -> int | None:
    """Return the time of a flat record in whole milliseconds since the epoch; None when it has none."""
    text = record.get(TIME)
    if not isinstance(text, str):
        return None
    try:
        return from_rfc3339(text) // MILLISECOND
    except ValueError:
        return None


def canonical(record: Record) -> str:
    """Return a flat record as text; equal records give equal text, and it breaks ties of time."""
    return _ENCODER.encode(record).decode()


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
