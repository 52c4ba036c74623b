"""What is wrong with a PromQL expression by the catalogue: names, labels, units, counters that are read raw."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from monitor.catalog import BY_NAME, Kind, is_foreign
from monitor.promql_tokens import COMPARISONS, Token, UnreadableError
from monitor.promql_tree import AGGREGATIONS, Binary, Call, Node, Number, Over, Selector, Text, tree

TARGET_LABELS: Final = frozenset({"job", "replica", "instance"})
"""Labels that Prometheus gives every scraped series."""
_RATES: Final = frozenset({"rate", "irate", "increase"})
_COUNTER_WORDS: Final = _RATES | {"resets", "changes", "absent", "absent_over_time", "present_over_time", "count",
                                  "count_over_time", "group", "timestamp"}  # fmt: skip
"""What may be asked of a counter's series: how it rises, or only whether it is there."""
_PLAIN: Final = frozenset({"changes", "resets", "count", "group", "absent", "absent_over_time", "present_over_time",
                           "count_over_time", "count_values", "sgn", "exp", "ln", "log2", "log10"})  # fmt: skip
"""Functions whose result is a bare number whatever they are given."""
_EPOCH_S: Final = 1e8
"""A time since the epoch is never below this; an age always is."""

Units = Mapping[str, int]
"""A unit as powers of base units; empty is a bare number."""


@dataclass(frozen=True)
class Finding:
    """What is wrong at a character of an expression (from 0), and what would be right."""

    at: int
    what: str
    right: str


@dataclass(frozen=True)
class _Shape:
    """What is known of a part: its unit and labels (None: unknown), its number if it is one, its histogram's unit."""

    units: Units | None = None
    labels: frozenset[str] | None = None
    number: float | None = None
    scalar: bool = False
    bucket_of: Units | None = None


@dataclass(frozen=True)
class Recorded:
    """A recording rule: what it computes, and the labels it adds."""

    expr: str
    labels: frozenset[str] = frozenset()


@dataclass
class _Check:
    recorded: Mapping[str, tuple[Recorded, ...]]
    findings: list[Finding] = field(default_factory=list)
    open: frozenset[str] = frozenset()
    """Recorded series that are being looked through, so that a circle ends."""

    def tell(self, at: int, what: str, right: str) -> None:
        self.findings.append(Finding(at, what, right))


def findings_of(expression: str, recorded: Mapping[str, Iterable[Recorded]] = MappingProxyType({})) -> list[Finding]:
    """Return what is wrong with an expression, by its place; an empty list when nothing is.

    It needs no file: rules and the questions of boards can both be held to it. Variables of boards must have been
    replaced by values before, except in brackets and in quotes, where anything may stand.

    Args:
        expression: PromQL.
        recorded: The recording rules by the name they record; several may record one name with different labels.
    """
    check = _Check({name: tuple(rules) for name, rules in recorded.items()})
    try:
        node = tree(expression)
    except UnreadableError as problem:
        return [Finding(problem.at, f"cannot be read: {problem}", "write PromQL that promtool accepts")]
    _look(node, "", check)
    return sorted(set(check.findings), key=lambda one: (one.at, one.what))


def _look(node: Node, inside: str, check: _Check) -> _Shape:
    match node:
        case Number(value):
            return _Shape(labels=frozenset(), number=value, scalar=True)
        case Text():
            return _Shape()
        case Over(inner):
            return _look(inner, "", check)
        case Selector():
            return _selector(node, inside, check)
        case Call():
            return _call(node, check)
        case Binary():
            return _binary(node, check)


# --- series -----------------------------------------------------------------------------------------------------------
def _selector(node: Selector, inside: str, check: _Check) -> _Shape:
    name, part = node.name, ""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and base in BY_NAME and BY_NAME[base].kind is Kind.HISTOGRAM:
            name, part = base, suffix
    if name in check.recorded:
        shape = _of_recorded(name, check)
    elif name in BY_NAME:
        shape = _of_catalogue(name, part)
        _as_its_kind(node, BY_NAME[name].kind, inside, check)
    elif is_foreign(name):
        if inside in _RATES and not name.endswith(("_total", "_bucket", "_sum", "_count")):
            check.tell(node.at, f"{inside} of {name}, which is no counter", "deriv or delta tell how a gauge moves")
        return _Shape(units=_units(_unit_by_name(name)))
    else:
        near = difflib.get_close_matches(name, [*BY_NAME, *check.recorded], 1, 0.8)
        right = f"did you mean {near[0]}?" if near else "every metric stands in monitor/catalog_*.py"
        check.tell(node.at, f"nobody exports or records {name or 'a series without a name'}", right)
        return _Shape()
    for matcher in node.matchers:
        _known(matcher.label, matcher.at, shape.labels, f"{node.name} has no label {matcher.label}", check)
    return shape


def _of_catalogue(name: str, part: str) -> _Shape:
    metric = BY_NAME[name]
    labels = TARGET_LABELS | frozenset(metric.labels)
    unit = _units("epoch" if name.endswith("_timestamp") else metric.unit)
    if name.startswith("kube_") and unit == {}:
        unit = None  # their names do not tell the unit: resource limits have it in a label
    if part == "_bucket":
        return _Shape({}, labels | {"le"}, bucket_of=unit)
    return _Shape({} if part == "_count" else unit, labels)


def _as_its_kind(node: Selector, kind: Kind, inside: str, check: _Check) -> None:
    if kind is Kind.GAUGE and inside in _RATES:
        right = "deriv or delta tell how a gauge moves"
        check.tell(node.at, f"{inside} of {node.name}, which is a gauge", right)
    elif kind is not Kind.GAUGE and inside not in _COUNTER_WORDS:
        kinds = "counter" if kind is Kind.COUNTER else "histogram's counter"
        right = f"ask for its rise: rate({node.name}[…]) or increase({node.name}[…])"
        check.tell(node.at, f"{node.name} is a {kinds} read raw", right)


def _of_recorded(name: str, check: _Check) -> _Shape:
    if name in check.open:
        return _Shape()
    inner = _Check(check.recorded, open=check.open | {name})
    shapes = []
    for rule in check.recorded[name]:
        try:
            shape = _look(tree(rule.expr), "", inner)
        except UnreadableError:
            return _Shape()
        labels = None if shape.labels is None else shape.labels | rule.labels
        shapes.append(_Shape(shape.units, labels))
    units = shapes[0].units if all(one.units == shapes[0].units for one in shapes) else None
    known = [one.labels for one in shapes if one.labels is not None]
    return _Shape(units, frozenset().union(*known) if len(known) == len(shapes) else None)


def _unit_by_name(name: str) -> str:
    for ending, unit in (("_timestamp_seconds", "epoch"), ("_seconds", "seconds"), ("_seconds_total", "seconds"),
                         ("_bytes", "bytes"), ("_bytes_total", "bytes")):  # fmt: skip
        if name.endswith(ending):
            return unit
    return ""


def _units(unit: str) -> Units | None:
    if not unit:
        return None
    return {
        "count": {},
        "ratio": {},
        "seconds since the epoch": {"epoch": 1},
        "ticks times lots": {"ticks": 1, "lots": 1},
    }.get(unit, {unit: 1})


def _known(label: str, at: int, labels: frozenset[str] | None, what: str, check: _Check) -> None:
    if labels is None or label in labels or label == "__name__":
        return
    near = difflib.get_close_matches(label, sorted(labels), 1, 0.6)
    right = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(labels)) or 'none'}"
    check.tell(at, what, right)


# --- functions --------------------------------------------------------------------------------------------------------
def _call(node: Call, check: _Check) -> _Shape:
    shapes = [_look(argument, node.name, check) for argument in node.arguments]
    if node.name == "time":
        return _Shape({"epoch": 1}, frozenset(), scalar=True)
    if node.name in {"vector", "scalar"}:
        return replace(shapes[0], labels=frozenset(), scalar=node.name == "scalar") if shapes else _Shape()
    vectors = [one for one, argument in zip(shapes, node.arguments, strict=True)
               if not isinstance(argument, Number | Text)]  # fmt: skip
    if not vectors:
        return _Shape()
    if node.name in AGGREGATIONS:
        return _measured(node.name, _grouped(node, vectors[0], check))
    return _measured(node.name, _relabelled(node, vectors[0]))


def _relabelled(node: Call, shape: _Shape) -> _Shape:
    """Return what a function that is no aggregation leaves of the labels."""
    if shape.labels is None or node.name in {"absent", "absent_over_time"}:
        return replace(shape, labels=None)
    if node.name in {"label_replace", "label_join"} and len(node.arguments) > 1:
        made = node.arguments[1]
        return replace(shape, labels=shape.labels | ({made.value} if isinstance(made, Text) else set()))
    return replace(shape, labels=shape.labels - {"le"}) if node.name == "histogram_quantile" else shape


def _measured(name: str, shape: _Shape) -> _Shape:
    """Return what a function makes of the unit."""
    if name == "histogram_quantile":
        return replace(shape, units=shape.bucket_of, bucket_of=None)
    if name in {"rate", "irate", "deriv"}:
        return replace(shape, units=_times(shape.units, {"seconds": 1}, -1))
    if name == "timestamp":
        return replace(shape, units={"epoch": 1})
    return replace(shape, units={}, bucket_of=None) if name in _PLAIN else shape


def _grouped(node: Call, shape: _Shape, check: _Check) -> _Shape:
    names = frozenset(token.text for token in node.by or ())
    for token in node.by or ():
        _known(token.text, token.start, shape.labels, f"{node.name} groups by {token.text}, which is not there", check)
    if node.name in {"topk", "bottomk"}:
        return shape
    if node.without:
        return replace(shape, labels=None if shape.labels is None else shape.labels - names)
    return replace(shape, labels=names)


# --- two sides --------------------------------------------------------------------------------------------------------
def _binary(node: Binary, check: _Check) -> _Shape:
    left, right = _look(node.left, "", check), _look(node.right, "", check)
    for token in () if node.ignoring else node.on or ():
        _on(token, left, right, check)
    if node.op in {"and", "unless"}:
        return left
    if node.op in {"+", "-", "%"} or node.op in COMPARISONS:
        _fit(node, left, right, check)
    return _Shape(_result(node, left, right), _labels(node, left, right))


def _on(token: Token, left: _Shape, right: _Shape, check: _Check) -> None:
    for side, shape in (("left", left), ("right", right)):
        _known(token.text, token.start, shape.labels, f"the {side} side has no label {token.text} to match on", check)


def _fit(node: Binary, left: _Shape, right: _Shape, check: _Check) -> None:
    if left.number is not None or right.number is not None:
        _fit_number(node, left, right, check)
        return
    if left.units is None or right.units is None or left.units == right.units:
        return
    if node.op in {"+", "-"} and left.units == {"epoch": 1} and right.units == {"seconds": 1}:
        return
    if node.op == "-" and left.units == {"epoch": 1}:
        right_words = "take a metric that ends in _timestamp_seconds, or seconds, from a time"
    else:
        right_words = "both sides of it must have one unit"
    check.tell(node.at, f"{_words(left.units)} {node.op} {_words(right.units)}", right_words)


def _fit_number(node: Binary, left: _Shape, right: _Shape, check: _Check) -> None:
    units = right.units if left.number is not None else left.units
    number = left.number if left.number is not None else right.number
    if node.op not in COMPARISONS or units is None or number is None:
        return
    if units == {"bytes": 1} and 0 < abs(number) < 1:
        check.tell(
            node.at, f"bytes {node.op} {number:g}", "a share of bytes is bytes / bytes; a bound of bytes is above 1"
        )
    elif units == {"epoch": 1} and 0 < abs(number) < _EPOCH_S:
        check.tell(node.at, f"a time since the epoch {node.op} {number:g}", "an age is time() - …_timestamp_seconds")


def _result(node: Binary, left: _Shape, right: _Shape) -> Units | None:
    if node.boolean:
        return {}
    if node.op in {"*", "/"}:
        first = {} if left.number is not None else left.units
        second = {} if right.number is not None else right.units
        return _times(first, second, 1 if node.op == "*" else -1)
    if node.op == "^":
        return None
    if node.op == "-" and left.units == right.units == {"epoch": 1}:
        return {"seconds": 1}
    return right.units if left.number is not None else left.units


def _labels(node: Binary, left: _Shape, right: _Shape) -> frozenset[str] | None:
    many, one = (right, left) if node.group == "group_right" else (left, right)
    if left.scalar:
        return right.labels
    if node.group:
        return None if many.labels is None else many.labels | {token.text for token in node.include}
    if node.op == "or":
        return None if many.labels is None or one.labels is None else many.labels | one.labels
    if node.on is not None and not node.ignoring:
        return frozenset(token.text for token in node.on)
    return many.labels


def _times(first: Units | None, second: Units | None, power: int) -> Units | None:
    if first is None or second is None:
        return None
    every = {name: first.get(name, 0) + power * second.get(name, 0) for name in (*first, *second)}
    return {name: times for name, times in sorted(every.items()) if times}


def _words(units: Units) -> str:
    names = {"epoch": "a time since the epoch"}
    over = [names.get(name, name) for name, times in units.items() if times > 0]
    under = [name for name, times in units.items() if times < 0]
    return " times ".join(over or ["a bare number"]) + "".join(f" / {name}" for name in under)
