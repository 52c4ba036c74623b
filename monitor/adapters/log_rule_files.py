"""Log rules from YAML files: checked against the schema, their queries and fields against the model of the records."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import jsonschema

from kernel.errors import InputError
from kernel.time import MINUTE, SECOND, Duration, parse_duration
from monitor.adapters.lucene import parse
from monitor.adapters.yaml_places import Lines, read
from monitor.log_fields import FIELDS, FieldKind, Value, kind_of, typed
from monitor.log_store import key_kind, measure_kind
from monitor.logrules.model import COMMON, OPTIONS, Direction, Flapping, Kind, Metric, Rule
from monitor.logrules.schema import DURATION, PROPERTIES, file_schema, rule_schema

HOUSE: Final = Path(__file__).resolve().parents[2] / "alerts" / "logs"
"""The rules that ship with the program."""
_DURATIONS: Final = ("every", "lateness", "hold", "realert", "realert_max", "timeframe", "known_for")
_MAX_WINDOW_STEPS: Final = 1_000
_MEASURED: Final = {Kind.METRIC_AGGREGATION, Kind.SPIKE_AGGREGATION}
_GROUPED: Final = {Kind.CARDINALITY, Kind.NEW_TERM}


def load(path: Path) -> tuple[Rule, ...]:
    """Return the rules of a file, or of all `*.yaml` in a directory, by name.

    Raises:
        InputError: a rule is wrong: names file and line, what is wrong and what would be right.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise InputError(str(path), "no rules are there", right="a directory with *.yaml, such as alerts/logs")
    rules: dict[str, Rule] = {}
    for file in files:
        for rule in _rules(file):
            if rule.name in rules:
                raise InputError(rule.where, f"{rule.name} is also in {rules[rule.name].where}", right="another name")
            rules[rule.name] = rule
    return tuple(rules[name] for name in sorted(rules))


def _rules(file: Path) -> Iterable[Rule]:
    value, lines = read(file)
    if not isinstance(value, dict) or not isinstance(value.get("rules"), list) or set(value) != {"rules"}:
        raise InputError(f"{file}:1", "this is no file of log rules", right="one key, rules:, with a list of rules")
    for place, given in enumerate(value["rules"]):
        yield rule_of(given, str(file), lines, ("rules", place))


def rule_of(given: Any, file: str, lines: Lines, above: tuple[str | int, ...] = ()) -> Rule:
    """Return one rule of a file; `lines` holds where its parts stand, below `above`."""

    def place(*path: str | int) -> str:
        line = lines.get((*above, *path)) or lines.get(above, 1)
        return f"{file}:{line}"

    _shape(given, place)
    kind = Kind(given["kind"])
    _options(given, kind, place)
    parts: dict[str, Any] = {
        name: given[name] for name in given if name not in {*_DURATIONS, "query", "part", "then", "kind", "flapping"}
    }
    parts |= {name: _duration(given[name], place(name), name) for name in _DURATIONS if name in given}
    parts |= {name: parse(given[name], place(name)) for name in ("query", "part", "then") if name in given}
    if "flapping" in given:
        spans = {
            name: _duration(given["flapping"][name], place("flapping", name), name) for name in ("within", "quiet")
        }
        parts["flapping"] = Flapping(given["flapping"]["times"], **spans)
    parts["by"] = tuple(given.get("by", ()))
    if kind is Kind.NEW_TEMPLATE:
        parts.setdefault("field", "message")
    for name, reads in (("metric", Metric), ("direction", Direction)):
        if name in parts:
            parts[name] = reads(parts[name])
    _fields(parts, kind, place)
    rule = Rule(kind=kind, query_text=given["query"], where=place(), **parts)
    _times(rule, place)
    return rule


def _path(error: jsonschema.ValidationError) -> list[str]:
    return [str(one) for one in error.absolute_path]


def _shape(given: Any, place: Any) -> None:
    checker = jsonschema.Draft202012Validator({**_RULE, "allOf": []})
    for error in sorted(checker.iter_errors(given), key=_path):
        path = tuple(error.absolute_path)
        if error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            what = ".".join(map(str, path)) or "a rule"
            right = f"a rule has {', '.join(_RULE['required'])}; labels severity, level, team, service"
            raise InputError(place(*path), f"{what} lacks {', '.join(missing)}", right=right)
        if error.validator == "pattern" and error.validator_value == DURATION:
            raise InputError(
                place(*path), f"{path[-1]}: {error.instance!r} is no duration", right="such as 500ms, 30s, 5m"
            )
        shown = str(error.message)[:200]
        right = error.schema.get("description", "see alerts/logs/schema.json")
        raise InputError(place(*path), f"{'.'.join(map(str, path)) or 'rule'}: {shown}", right=right)


def _options(given: Mapping[str, Any], kind: Kind, place: Any) -> None:
    needs = OPTIONS[kind]
    known = (*COMMON, *needs.must, *needs.may, *needs.one_of)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            other = name in PROPERTIES
            own = ", ".join((*needs.must, *needs.may, *needs.one_of)) or "no options of its own"
            right = f"did you mean {near[0]}?" if near and not other else f"{kind} has {own}"
            raise InputError(place(name), f"{name} is no option of kind {kind}", right=right)
    if missing := [name for name in needs.must if name not in given]:
        raise InputError(place("kind"), f"kind {kind} lacks {', '.join(missing)}", right="add it")
    if needs.one_of and not any(name in given for name in needs.one_of):
        raise InputError(place("kind"), f"kind {kind} has no bound", right=f"add {' or '.join(needs.one_of)}")


def _fields(parts: dict[str, Any], kind: Kind, place: Any) -> None:
    for number, name in enumerate(parts["by"]):
        _with_place(lambda name=name: key_kind(name), place("by", number))
    if "field" not in parts:
        return
    name = parts["field"]
    check = measure_kind if kind in _MEASURED else key_kind if kind in _GROUPED else None
    found = cast(
        "FieldKind", _with_place(lambda: check(name) if check else kind_of(name, place("field")), place("field"))
    )
    parts["field_kind"] = found
    if kind is Kind.NEW_TEMPLATE and found not in {FieldKind.TEXT, FieldKind.KEYWORD}:
        raise InputError(place("field"), f"{name} is {found}: it has no lines to compare", right="name a text")
    if "values" in parts:
        if found is FieldKind.TEXT:
            raise InputError(
                place("field"), f"{name} is text: it is no list's entry", right="name a keyword, or use any"
            )
        values: list[Value] = []
        for number, one in enumerate(parts["values"]):
            value = typed(found, one)
            if value is None:
                raise InputError(place("values", number), f"{name} is {found}, {one!r} is none", right=f"a {found}")
            values.append(value)
        parts["values"] = tuple(values)


def _with_place(work: Any, place: str) -> object:
    try:
        return work()
    except InputError as error:
        raise InputError(place, error.problem, right=error.right) from error


def _times(rule: Rule, place: Any) -> None:
    if not SECOND <= rule.every <= 60 * MINUTE or rule.every % SECOND:
        raise InputError(place("every"), "every is not whole seconds from 1s to 1h", right="such as 5s")
    if rule.timeframe and rule.kind not in {Kind.CHANGE, Kind.CORRELATION}:
        if rule.timeframe % rule.every or rule.timeframe < rule.every:
            raise InputError(place("timeframe"), "timeframe is no multiple of every", right="5m with every: 5s, say")
        if rule.timeframe // rule.every > _MAX_WINDOW_STEPS:
            raise InputError(
                place("every"), f"a window has more than {_MAX_WINDOW_STEPS:,} steps", right="a longer every"
            )
    if rule.realert_max and rule.realert_max < rule.realert:
        raise InputError(place("realert_max"), "realert_max is less than realert", right="at least as long")
    if rule.hold < rule.every:
        raise InputError(place("hold"), "hold is less than every: the alert would end between two windows",
                         right="at least as long as every")  # fmt: skip
    if rule.lateness > 60 * MINUTE:
        raise InputError(place("lateness"), "lateness is more than 1h", right="what comes later is no alert any more")


def _duration(text: str, place: str, name: str) -> Duration:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(place, f"{name}: {error}", right="such as 30s") from error


_RULE: Final = rule_schema()
assert FIELDS, "the model of the records has fields"
SCHEMA: Final = file_schema()
"""The published schema, as `alerts/logs/schema.json` holds it."""
