"""Lucene's query strings, as far as both stores can mean the same by them; read by luqum.

Known: `field:value`, `field:"a phrase"`, `*` and `?`, `[1 TO 5]` `{1 TO 5}` `>5` `<=5`, `field:*`, `_exists_:field`,
AND, OR, NOT, `&& || !`, `+` and `-`, parentheses, `field:(a OR b)`, `client.ip:"10.0.0.0/8"`, and a bare word, which is
looked for in `message`. AND binds closer than OR. Refused, with the place: fuzzy `~`, proximity, boosts `^`, regular
expressions, and two conditions side by side, which mean OR to one program and AND to another.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from luqum import tree  # type: ignore[import-untyped]
from luqum.exceptions import ParseError  # type: ignore[import-untyped]
from luqum.parser import parser  # type: ignore[import-untyped]

from kernel.errors import InputError
from monitor.log_fields import FIELDS, FieldKind, Value, ip_key, kind_of, typed
from monitor.log_query import All, Between, Everything, Exists, Joker, Like, Not, OneOf, Query, Some

DEFAULT_FIELD: Final = "message"
MAX_QUERY: Final = 4_000
MAX_DEPTH: Final = 40
MAX_JOKERS: Final = 8
_POSITION: Final = re.compile(r"position (\d+)")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_PIECES: Final = re.compile(r"\\(.)|([*?])|([^\\*?]+)", re.DOTALL)


def parse(text: str, where: str = "query", fields: Mapping[str, FieldKind] = FIELDS) -> Query:
    """Read a query string; an empty one and `*` mean every record.

    Raises:
        InputError: it is no such query, names no known field, or asks what the stores would answer differently; names
            the place in the query.
    """
    if len(text) > MAX_QUERY:
        raise InputError(where, f"the query has {len(text):,} characters", right=f"at most {MAX_QUERY:,} are read")
    if text.count("(") > MAX_DEPTH:
        raise InputError(where, f"more than {MAX_DEPTH} parentheses", right="split the question")
    if not text.strip():
        return Everything()
    try:
        found = parser.parse(text)
    except ParseError as error:
        at = _POSITION.search(str(error))
        place = f", position {int(at[1]) + 1}" if at else ""
        raise InputError(
            where + place, f"{str(error).rstrip('!')[:200]}", right='such as log.level:error AND service.name:"engine"'
        ) from error
    except (RecursionError, AttributeError, TypeError, IndexError, ValueError) as error:
        raise InputError(where, "this cannot be read as a query", right="such as log.level:error") from error
    if found is None:
        return Everything()
    return _Reader(where, fields).read(found, None, 0)


_UNKNOWN: Final = {
    tree.Regex: ("regular expressions are not searched for", "use * and ?, or several conditions"),
    tree.Fuzzy: ("fuzzy searches are not known", "use * and ?"),
    tree.Proximity: ("proximity searches are not known", "use a phrase"),
    tree.Boost: ("boosts are for ranking; here a record matches or not", "leave ^ away"),
}


class _Reader:
    """Turns luqum's tree into a query."""

    def __init__(self, where: str, fields: Mapping[str, FieldKind]) -> None:
        self._where = where
        self._fields = fields

    def read(  # noqa: PLR0911 - one case a form
        self, node: tree.Item, field: str | None, depth: int
    ) -> Query:
        if depth > 4 * MAX_DEPTH:
            raise self._refused(node, "the query is nested too deep", "split the question")
        match node:
            case tree.Group() | tree.FieldGroup() | tree.Plus():
                return self.read(node.children[0], field, depth + 1)
            case tree.AndOperation():
                return All(tuple(self.read(one, field, depth + 1) for one in node.children))
            case tree.OrOperation():
                return Some(tuple(self.read(one, field, depth + 1) for one in node.children))
            case tree.Not() | tree.Prohibit():
                return Not(self.read(node.children[0], field, depth + 1))
            case tree.UnknownOperation():
                return self._side_by_side(node, field, depth)
            case tree.SearchField():
                if field is not None:
                    raise self._refused(node, f"a field inside the value of {field}", "end the parenthesis before it")
                return self._field(node, depth)
            case tree.Word() | tree.Phrase() | tree.Range() | tree.From() | tree.To():
                return self._condition(node, field or DEFAULT_FIELD)
            case _:
                problem, right = _UNKNOWN.get(
                    type(node), (f"{type(node).__name__} is not known", "see docs/log-alerts.md")
                )
                raise self._refused(node, problem, right)

    def _side_by_side(self, node: tree.Item, field: str | None, depth: int) -> Query:
        """Conditions without a word between are known only when each says by + or - what it is."""
        if all(isinstance(one, tree.Plus | tree.Prohibit | tree.Not) for one in node.children):
            return All(tuple(self.read(one, field, depth + 1) for one in node.children))
        raise self._refused(node.children[1], "two conditions stand side by side", "write AND or OR between them")

    def _field(self, node: tree.SearchField, depth: int) -> Query:
        name = _ESCAPE.sub(r"\1", node.name)
        inner = node.children[0]
        if name == "_exists_":
            name = str(inner).strip().strip('"')
            return Exists(name, kind_of(name, self._place(inner), self._fields))
        if name == "*" and isinstance(inner, tree.Word) and inner.value == "*":
            return Everything()
        kind = kind_of(name, self._place(node), self._fields)
        if isinstance(inner, tree.Word) and inner.value == "*":
            return Exists(name, kind)
        return self.read(inner, name, depth + 1)

    def _condition(self, node: tree.Item, field: str) -> Query:
        kind = kind_of(field, self._place(node), self._fields)
        match node:
            case tree.Range():
                low, high = (None if one.value == "*" else self._bound(one, field, kind) for one in node.children)
                return self._between(node, Between(field, kind, low, high, node.include_low, node.include_high))
            case tree.From():
                low = self._bound(node.children[0], field, kind)
                return self._between(node, Between(field, kind, low, None, with_low=node.include))
            case tree.To():
                high = self._bound(node.children[0], field, kind)
                return self._between(node, Between(field, kind, None, high, with_high=node.include))
            case tree.Phrase():
                text = _ESCAPE.sub(r"\1", node.value[1:-1])
                return self._value(node, field, kind, (text,) if text else ())
            case _:
                if node.value == "*" and field == DEFAULT_FIELD:
                    return Everything()
                return self._value(node, field, kind, _pieces(node.value))

    def _value(self, node: tree.Item, field: str, kind: FieldKind, parts: tuple[str | Joker, ...]) -> Query:
        if sum(isinstance(part, Joker) for part in parts) > MAX_JOKERS:
            raise self._refused(node, f"more than {MAX_JOKERS} of * and ?", "write more of the value")
        if kind is FieldKind.TEXT:
            return Like(field, kind, (Joker.ANY, *parts, Joker.ANY), fold=True)
        if any(isinstance(part, Joker) for part in parts):
            if kind is not FieldKind.KEYWORD:
                raise self._refused(node, f"{field} is {kind}: * and ? are for text", "give a value or a range")
            return Like(field, kind, parts, fold=False)
        text = "".join(part for part in parts if isinstance(part, str))
        if kind is FieldKind.IP and "/" in text:
            return self._network(node, field, text)
        return OneOf(field, kind, (self._typed(node, field, kind, text),))

    def _network(self, node: tree.Item, field: str, text: str) -> Query:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise self._refused(node, f"{text[:60]!r} is no network", "such as 10.0.0.0/8") from None
        return Between(field, FieldKind.IP, ip_key(str(network[0])), ip_key(str(network[-1])))

    def _between(self, node: tree.Item, between: Between) -> Query:
        if between.kind in {FieldKind.TEXT, FieldKind.BOOLEAN}:
            raise self._refused(node, f"{between.field} is {between.kind}: it has no order", "search for a part of it")
        return Exists(between.field, between.kind) if between.low is None and between.high is None else between

    def _bound(self, node: tree.Item, field: str, kind: FieldKind) -> Value:
        text = node.value[1:-1] if isinstance(node, tree.Phrase) else node.value
        return self._typed(node, field, kind, _ESCAPE.sub(r"\1", text))

    def _typed(self, node: tree.Item, field: str, kind: FieldKind, text: str) -> Value:
        whole = kind is FieldKind.LONG and "." in text
        if (value := typed(kind, text)) is None or whole:
            right = {FieldKind.LONG: "a whole number", FieldKind.DOUBLE: "a number", FieldKind.IP: "an address",
                     FieldKind.BOOLEAN: "true or false"}.get(kind, "at most 1,024 characters")  # fmt: skip
            raise self._refused(node, f"{field} is {kind}, {text[:60]!r} is none", right)
        return value

    def _place(self, node: tree.Item) -> str:
        return self._where if node.pos is None else f"{self._where}, position {node.pos + 1}"

    def _refused(self, node: tree.Item, problem: str, right: str) -> InputError:
        return InputError(self._place(node), problem, right=right)


def _pieces(text: str) -> tuple[str | Joker, ...]:
    """Return a word as what is written and what stands for anything."""
    parts: list[str | Joker] = []
    for escaped, joker, plain in _PIECES.findall(text):
        if joker:
            parts.append(Joker(joker))
        elif parts and isinstance(parts[-1], str):
            parts[-1] += escaped or plain
        else:
            parts.append(escaped or plain)
    return tuple(parts)
