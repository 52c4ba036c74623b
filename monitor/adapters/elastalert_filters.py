"""ElastAlert's filters, which are Elasticsearch's query DSL, as query strings of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kernel.errors import InputError
from monitor.adapters.lucene import parse
from monitor.log_fields import FieldKind, kind_of

Path_ = tuple[str | int, ...]
Lost = Callable[[Path_, str, str], None]
_SUFFIX: Final = re.compile(r"\.(keyword|raw)$")
_SPECIAL: Final = re.compile(r'(["\\])')
_ODD: Final = re.compile(r"([^\w.*?@-])")
_PLAIN: Final = re.compile(r"[\w.@-]+")
_BOUNDS: Final = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<", "from": ">=", "to": "<="}


class FilterError(Exception):
    """A part of a filter has no equal; says where, what, and what comes nearest."""

    def __init__(self, path: Path_, what: str, nearest: str) -> None:
        super().__init__(what)
        self.path, self.what, self.nearest = path, what, nearest


def query_of(filters: Any, above: Path_, lost: Lost) -> str:
    """Return the query that all filters make together; what is lost is told, and left out."""
    if filters is None:
        return ""
    given = filters if isinstance(filters, list) else [filters]
    parts = []
    for place, one in enumerate(given):
        path = (*above, place) if isinstance(filters, list) else above
        try:
            text = _one(one, path)
            if text:
                parts.append(text)
        except FilterError as error:
            lost(error.path, error.what, error.nearest)
    return _joined(parts, "AND")


def field_of(name: str) -> str:
    """Return our name of a field: ours have no twin for whole values."""
    return _SUFFIX.sub("", name)


def _one(given: Any, path: Path_) -> str:
    if not isinstance(given, Mapping) or len(given) != 1:
        raise FilterError(
            path, "this is no filter of one kind", "one of query_string, term, terms, range, exists, bool"
        )
    kind, body = next(iter(given.items()))
    path = (*path, kind)
    reads = _KINDS.get(kind)
    if reads is None:
        raise FilterError(path, f"the filter {kind} is not known", _NEAREST.get(kind, "a query_string with * and ?"))
    return _checked(reads(body, path), path)


def _checked(text: str, path: Path_) -> str:
    try:
        parse(text)
    except InputError as error:
        raise FilterError(path, f"the query {text[:120]!r}: {error.problem}", error.right or "another query") from error
    return text


def _query_string(body: Any, path: Path_) -> str:
    text = body.get("query") if isinstance(body, Mapping) else body
    if not isinstance(text, str):
        raise FilterError(path, "query_string has no query", "query: followed by text")
    for option in body if isinstance(body, Mapping) else ():
        if option not in {"query", "analyze_wildcard"}:
            raise FilterError(
                (*path, option), f"query_string's {option} is not known", "write fields and AND into the query"
            )
    return re.sub(r"(?<![\\\w])([\w.@]+?)\.(keyword|raw):", r"\1:", text)


def _term(body: Any, path: Path_) -> str:
    name, value = _pair(body, path)
    return f"{name}:{_value(value.get('value') if isinstance(value, Mapping) else value, path, name)}"


def _terms(body: Any, path: Path_) -> str:
    name, values = _pair(
        {key: one for key, one in body.items() if key != "boost"} if isinstance(body, Mapping) else body, path
    )
    if not isinstance(values, list) or not values:
        raise FilterError(path, "terms without a list of values", "terms: {field: [a, b]}")
    return f"{name}:({' OR '.join(_value(one, path, name) for one in values)})"


def _range(body: Any, path: Path_) -> str:
    name, bounds = _pair(body, path)
    if name == "@timestamp":
        raise FilterError(path, "a range of @timestamp", "the rule's own timeframe")
    if not isinstance(bounds, Mapping) or not bounds:
        raise FilterError(path, "a range without bounds", "gte, gt, lte or lt")
    parts = []
    for bound, value in bounds.items():
        if bound not in _BOUNDS:
            raise FilterError((*path, name, bound), f"range's {bound} is not known", "gte, gt, lte or lt")
        parts.append(f"{name}:{_BOUNDS[bound]}{value}")
    return _joined(parts, "AND")


def _exists(body: Any, path: Path_) -> str:
    if not isinstance(body, Mapping) or not isinstance(body.get("field"), str):
        raise FilterError(path, "exists without a field", "exists: {field: name}")
    return f"_exists_:{field_of(body['field'])}"


def _match(body: Any, path: Path_) -> str:
    name, value = _pair(body, path)
    value = value.get("query") if isinstance(value, Mapping) else value
    words = str(value).split()
    if path[-1] == "match" and len(words) > 1 and _kind(name, path) is FieldKind.TEXT:
        return "(" + " OR ".join(f"{name}:{_quoted(word)}" for word in words) + ")"
    return f"{name}:{_value(value, path, name)}"


def _wildcard(body: Any, path: Path_) -> str:
    name, value = _pair(body, path)
    value = value.get("value", value.get("wildcard")) if isinstance(value, Mapping) else value
    return f"{name}:" + _ODD.sub(r"\\\1", str(value))


def _prefix(body: Any, path: Path_) -> str:
    name, value = _pair(body, path)
    return _wildcard({name: str(value.get("value") if isinstance(value, Mapping) else value) + "*"}, path)


def _bool(body: Any, path: Path_) -> str:
    if not isinstance(body, Mapping):
        raise FilterError(path, "bool without clauses", "must, should, must_not or filter")
    parts = []
    required = any(body.get(name) for name in ("must", "filter"))
    for clause, given in body.items():
        each = given if isinstance(given, list) else [given]
        here = (*path, clause)
        if clause in {"must", "filter"}:
            parts += [_one(one, here) for one in each]
        elif clause == "must_not":
            parts += [f"NOT ({_one(one, here)})" for one in each]
        elif clause == "should":
            if body.get("minimum_should_match", 0 if required else 1) != 1:
                continue  # it only ranks
            parts.append(f"({_joined([_one(one, here) for one in each], 'OR')})")
        elif clause == "minimum_should_match":
            if given not in (0, 1):
                raise FilterError(here, f"minimum_should_match {given}", "1, or the combinations written out")
        else:
            raise FilterError(here, f"bool's {clause} is not known", "must, should, must_not or filter")
    return _joined(parts, "AND")


def _several(word: str) -> Callable[[Any, Path_], str]:
    def read(body: Any, path: Path_) -> str:
        given = body.get("filters", [body]) if isinstance(body, Mapping) else body
        return _joined([_one(one, (*path, place)) for place, one in enumerate(given)], word)

    return read


def _not(body: Any, path: Path_) -> str:
    return f"NOT ({_one(body.get('filter', body) if isinstance(body, Mapping) else body, path)})"


def _pair(body: Any, path: Path_) -> tuple[str, Any]:
    if not isinstance(body, Mapping) or len(body) != 1:
        raise FilterError(path, f"{path[-1]} is not of one field", "one field each")
    name, value = next(iter(body.items()))
    return field_of(str(name)), value


def _kind(name: str, path: Path_) -> FieldKind:
    try:
        return kind_of(name, name)
    except InputError as error:
        raise FilterError(path, error.problem, error.right or "another field") from error


def _value(value: Any, path: Path_, name: str) -> str:
    if value is None or isinstance(value, Mapping | list):
        raise FilterError(path, f"{name} is compared with no single value", "one value, or terms with a list")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) and text not in {"AND", "OR", "NOT"} else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + _SPECIAL.sub(r"\\\1", text) + '"'


def _joined(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f" {word} ".join(f"({part})" for part in parts)


_KINDS: Final[Mapping[str, Callable[[Any, Path_], str]]] = {
    "query": _one, "query_string": _query_string, "term": _term, "terms": _terms, "range": _range, "exists": _exists,
    "match": _match, "match_phrase": _match, "wildcard": _wildcard, "prefix": _prefix, "bool": _bool,
    "and": _several("AND"), "or": _several("OR"), "not": _not,
}  # fmt: skip
_NEAREST: Final = {
    "regexp": "wildcard with * and ?", "script": "a field that the process writes", "fuzzy": "wildcard with * and ?",
    "match_all": "no filter at all", "missing": "NOT _exists_:field", "ids": "none",
}  # fmt: skip
