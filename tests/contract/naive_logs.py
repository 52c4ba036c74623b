"""Everything a log store is asked, done again in the plainest way over a list of dicts."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal

from kernel.time import from_rfc3339
from monitor.log_query import All, Between, Everything, Exists, Joker, Like, Not, OneOf, Some


def flat(record, prefix=""):
    found = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            for inner, values in flat(value, f"{name}.").items():
                found.setdefault(inner, []).extend(values)
        else:
            values = value if isinstance(value, list) else [value]
            found.setdefault(name, []).extend(one for one in values if one is not None)
    return {name: values for name, values in found.items() if values}


def values(record, field, kind):
    found = []
    for value in flat(record).get(field, []):
        text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
        try:
            if kind == "keyword" and len(text) <= 1024:
                found.append(text)
            elif kind == "text" and isinstance(value, str):
                found.append(text[:8191])
            elif kind == "boolean" and text in ("true", "false"):
                found.append(text)
            elif kind == "double" and not isinstance(value, bool):
                found.append(float(text))
            elif kind == "long" and not isinstance(value, bool):
                whole = int(Decimal(text))
                if -(2**63) <= whole < 2**63:
                    found.append(whole)
            elif kind == "ip":
                found.append(_ip(text))
        except (ValueError, ArithmeticError):
            pass
    return found


def _ip(text):
    one = ipaddress.ip_address(text)
    return one if one.version == 6 else ipaddress.ip_address(f"::ffff:{one}")


def _lower(text):
    return "".join(one.lower() if one.isascii() else one for one in text)


def matches(query, record):  # noqa: C901, PLR0911 - the whole language in one place
    match query:
        case Everything():
            return True
        case Exists(field, kind):
            return bool(values(record, field, kind))
        case OneOf(field, kind, wanted):
            return any(_key(kind, one) in [_own(kind, each) for each in wanted] for one in values(record, field, kind))
        case Like(field, kind, parts, fold):
            change = _lower if fold else str
            shape = "".join(
                {Joker.ANY: ".*", Joker.ONE: "."}[one] if isinstance(one, Joker) else re.escape(change(one))
                for one in parts
            )
            return any(re.fullmatch(shape, change(one), re.DOTALL) for one in values(record, field, kind))
        case Between(field, kind, low, high, with_low, with_high):
            for one in values(record, field, kind):
                key = _key(kind, one)
                above = low is None or key > _own(kind, low) or (with_low and key == _own(kind, low))
                below = high is None or key < _own(kind, high) or (with_high and key == _own(kind, high))
                if above and below:
                    return True
            return False
        case Not(part):
            return not matches(part, record)
        case All(parts):
            return all(matches(part, record) for part in parts)
        case Some(parts):
            return any(matches(part, record) for part in parts)


def _key(kind, value):
    return int(value) if kind == "ip" else value


def _own(kind, value):
    return int(value, 16) if kind == "ip" else value


def at_ms(record):
    return from_rfc3339(record["@timestamp"]) // 1_000_000


def chosen(query, span, records):
    return [one for one in records if span.start <= at_ms(one) * 1_000_000 < span.end and matches(query, one)]


def shown(kind, value):
    if kind == "ip":
        return str(value.ipv4_mapped or value)
    return str(value)


def tally(query, span, step_ms, records, keys=(), measure=None):
    """Return {(bucket start in ms, keys): (count, [measured values])}; `keys` and `measure` are (field, kind)."""
    rows = {}
    start = span.start // 1_000_000
    for record in chosen(query, span, records):
        bucket = start + (at_ms(record) - start) // step_ms * step_ms
        combinations = [()]
        for field, kind in keys:
            found = dict.fromkeys(shown(kind, one) for one in values(record, field, kind))
            combinations = [(*before, one) for before in combinations for one in found]
        for combination in combinations:
            row = rows.setdefault((bucket, combination), [0, []])
            row[0] += 1
            if measure:
                row[1].extend(values(record, *measure))
    return rows
