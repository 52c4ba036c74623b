"""Objectives from OpenSLO files: checked part by part, their metrics against the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kernel.errors import InputError
from monitor.adapters.yaml_places import Lines, parse
from monitor.catalog import BY_NAME, LABEL_VALUES, Kind, is_foreign
from monitor.promql import metric_names
from monitor.slo import SECONDS, WINDOW, Condition, Ratio, Slo, Threshold, alert_name

HOUSE: Final = Path(__file__).resolve().parents[2] / "alerts" / "slo"
"""The objectives that ship with the program."""
VERSION: Final = "openslo/v1"
MINIMUM_EVENTS: Final = "tapewatch.example/minimum-events"
SHORT_WINDOW: Final = "tapewatch.example/short-window"
TEAMS: Final = ("exchange-platform", "market-operations", "settlement-operations", "platform-operations")
_OPS: Final = {"lte": "<=", "lt": "<", "gte": ">=", "gt": ">"}
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MINUTES: Final = re.compile(r"[1-9][0-9]?m")
_ALERT_WINDOWS: Final = ("1h", "6h", "1d", "3d")
_LE: Final = re.compile(r'(\w+)_bucket\{[^}]*\ble="([^"]*)"')
_LABEL: Final = re.compile(r"(\w+)\{([^}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_RATE: Final = re.compile(r"\brate\([a-z_]+(\{[^}]*\})?\[\{\{\.window\}\}\]\)")
_OF_HISTOGRAM: Final = ("_bucket", "_sum", "_count")

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class _Part:
    """One document of a file, and where its parts stand."""

    file: str
    data: Mapping[str, Any]
    lines: Lines

    def where(self, *path: str | int) -> str:
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"

    def wrong(self, path: Place, problem: str, right: str) -> InputError:
        return InputError(self.where(*path), problem, right=right)

    def mapping(self, path: Place, must: tuple[str, ...], may: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Return the mapping at `path`, which has these keys and no others."""
        found = self.at(path)
        if not isinstance(found, dict):
            raise self.wrong(path, f"{_shown(path)} is no mapping", f"with the keys {', '.join(must)}")
        for key in found:
            if key not in {*must, *may}:
                known = ", ".join((*must, *may))
                raise self.wrong((*path, key), f"{_shown((*path, key))} is not known", f"known are {known}")
        if missing := [key for key in must if key not in found]:
            raise self.wrong(path, f"{_shown(path)} lacks {', '.join(missing)}", "add it")
        return found

    def at(self, path: Place) -> Any:
        found: Any = self.data
        for key in path:
            found = found[key]
        return found

    def text(self, *path: str | int) -> str:
        found = self.at(path)
        if not isinstance(found, str) or not found.strip():
            raise self.wrong(path, f"{_shown(path)} is {found!r}", "a text in quotes, not empty")
        return found

    def number(self, *path: str | int) -> float:
        found = self.at(path)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.wrong(path, f"{_shown(path)} is {found!r}", "a number")
        return float(found)

    def one_of(self, path: Place, words: tuple[str, ...]) -> str:
        found = self.at(path)
        if found not in words:
            raise self.wrong(path, f"{_shown(path)} is {found!r}", f"one of {', '.join(words)}")
        return str(found)


def _shown(path: Place) -> str:
    return ".".join(str(key) for key in path) or "the document"


@dataclass
class _Parts:
    """All documents by kind and name."""

    by_kind: dict[str, dict[str, _Part]] = field(
        default_factory=lambda: {kind: {} for kind in ("Service", "SLO", "AlertPolicy", "AlertCondition")}
    )

    def add(self, part: _Part) -> None:
        part.mapping((), ("apiVersion", "kind", "metadata", "spec"))
        part.one_of(("apiVersion",), (VERSION,))
        kind = part.one_of(("kind",), tuple(self.by_kind))
        part.mapping(("metadata",), ("name",), ("displayName", "labels", "annotations"))
        name = part.text("metadata", "name")
        if not _NAME.fullmatch(name):
            raise part.wrong(("metadata", "name"), f"the name is {name!r}", "small words with hyphens, such as a-name")
        if other := self.by_kind[kind].get(name):
            place = other.where("metadata", "name")
            raise part.wrong(("metadata", "name"), f"{kind} {name} is also in {place}", "another name")
        self.by_kind[kind][name] = part

    def get(self, kind: str, asker: _Part, *path: str | int) -> _Part:
        name = asker.text(*path)
        if (found := self.by_kind[kind].get(name)) is None:
            known = ", ".join(sorted(self.by_kind[kind])) or "none"
            raise asker.wrong(path, f"there is no {kind} {name}", f"known are {known}")
        return found


def load(path: Path = HOUSE) -> tuple[Slo, ...]:
    """Return the objectives of all `*.yaml` in a directory, by name.

    Raises:
        InputError: something is wrong: names file and line, what is wrong and what would be right.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else []
    if not files:
        raise InputError(str(path), "no objectives are there", right="a directory with *.yaml, such as alerts/slo")
    texts: dict[str, bytes] = {}
    for file in files:
        try:
            texts[str(file)] = file.read_bytes()
        except OSError as error:
            raise InputError(str(file), f"cannot be read ({error.strerror})", right="a readable file") from error
    return of_texts(texts)


def of_texts(texts: Mapping[str, bytes]) -> tuple[Slo, ...]:
    """Return the objectives of files given by name; see `load`."""
    parts = _Parts()
    for file, content in texts.items():
        for part in _documents(file, content):
            parts.add(part)
    for service in parts.by_kind["Service"].values():
        service.mapping(("spec",), ("description",))
        service.mapping(("metadata", "labels"), ("team",)) if "labels" in service.data["metadata"] else None
    slos = tuple(_slo(parts, parts.by_kind["SLO"][name]) for name in sorted(parts.by_kind["SLO"]))
    if not slos:
        raise InputError(next(iter(texts), "the files"), "no SLO is in any file", right="a document of kind SLO")
    return slos


def _documents(file: str, content: bytes) -> list[_Part]:
    """Cut a file at its `---` lines; each document keeps its line numbers by the empty lines before it."""
    found, before, cut = [], 0, re.compile(rb"(?m)^---[ \t]*(?:#.*)?$")
    for text in cut.split(content):
        data, lines = parse(b"\n" * before + text, file)
        before += text.count(b"\n")
        if data is None:
            continue
        if not isinstance(data, dict):
            raise InputError(
                f"{file}:{before}", "this is no OpenSLO document", right="apiVersion, kind, metadata, spec"
            )
        found.append(_Part(file, data, lines))
    return found


def _slo(parts: _Parts, part: _Part) -> Slo:
    must = ("description", "service", "indicator", "timeWindow", "budgetingMethod", "objectives", "alertPolicies")
    part.mapping(("spec",), must)
    name = part.text("metadata", "name")
    service = parts.get("Service", part, "spec", "service")
    if "labels" not in service.data["metadata"]:
        raise service.wrong(("metadata",), "the service has no team", "labels: {team: ...}")
    part.one_of(("spec", "budgetingMethod"), ("Occurrences",))
    _window(part)
    objective = _objective(part)
    conditions = _conditions(parts, part)
    for condition in conditions:
        if condition.burn * (1 - objective) >= 1:
            problem = f"at {objective:g} a burn rate of {condition.burn:g} can never be reached"
            raise part.wrong(("spec", "objectives", 0, "target"), problem, "a higher target, or a lower threshold")
    return Slo(
        name=name, title=part.text("metadata", "displayName") if "displayName" in part.data["metadata"] else name,
        description=_sentence(part, "spec", "description"), service=service.text("metadata", "name"),
        team=service.one_of(("metadata", "labels", "team"), TEAMS), indicator=_indicator(part), objective=objective,
        minimum_events=_minimum(part), conditions=conditions, where=part.where("metadata", "name"),
    )  # fmt: skip


def _sentence(part: _Part, *path: str | int) -> str:
    found = part.text(*path)
    if not found.endswith(".") or '"' in found or "\\" in found:
        raise part.wrong(path, f"{_shown(path)} is no plain sentence", "a sentence that ends in a full stop")
    return found


def _minimum(part: _Part) -> int:
    path = ("metadata", "annotations")
    if "annotations" not in part.data["metadata"]:
        raise part.wrong(("metadata",), "the SLO has no annotations", f"{MINIMUM_EVENTS}: a number in quotes")
    part.mapping(path, (MINIMUM_EVENTS,))
    found = part.text(*path, MINIMUM_EVENTS)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", found):
        raise part.wrong((*path, MINIMUM_EVENTS), f"{found!r} is no number of events", 'such as "100"')
    return int(found)


def _list(part: _Part, *path: str | int) -> list[Any]:
    found = part.at(path)
    if not isinstance(found, list) or not found:
        raise part.wrong(path, f"{_shown(path)} is no list", "a list with an entry")
    return found


def _window(part: _Part) -> None:
    if len(_list(part, "spec", "timeWindow")) != 1:
        raise part.wrong(("spec", "timeWindow"), "more than one time window", "one: 30d, rolling")
    part.mapping(("spec", "timeWindow", 0), ("duration", "isRolling"))
    part.one_of(("spec", "timeWindow", 0, "duration"), ("30d",))
    if part.at(("spec", "timeWindow", 0, "isRolling")) is not True:
        raise part.wrong(("spec", "timeWindow", 0, "isRolling"), "the window does not roll", "isRolling: true")


def _objective(part: _Part) -> float:
    if len(_list(part, "spec", "objectives")) != 1:
        raise part.wrong(("spec", "objectives", 1), "more than one objective", "one; write another SLO for the other")
    part.mapping(("spec", "objectives", 0), ("target",), ("displayName", "op", "value"))
    target = part.number("spec", "objectives", 0, "target")
    if not 0.5 <= target <= 0.99999:  # noqa: PLR2004 - told in the message
        raise part.wrong(("spec", "objectives", 0, "target"), f"the target is {target:g}", "from 0.5 to 0.99999")
    return target


def _indicator(part: _Part) -> Ratio | Threshold:
    path: Place = ("spec", "indicator")
    part.mapping(path, ("metadata", "spec"))
    part.mapping((*path, "metadata"), ("name",), ("displayName",))
    found = part.mapping((*path, "spec"), (), ("ratioMetric", "thresholdMetric"))
    if len(found) != 1:
        raise part.wrong((*path, "spec"), "not exactly one indicator", "ratioMetric or thresholdMetric")
    goal: Place = ("spec", "objectives", 0)
    has = {key for key in ("op", "value") if key in part.at(goal)}
    if "ratioMetric" in found:
        if has:
            raise part.wrong((*goal, min(has)), "a ratio has no op and no value", "leave them out")
        return _ratio(part, (*path, "spec", "ratioMetric"))
    if has != {"op", "value"}:
        raise part.wrong(goal, "a threshold needs op and value", "such as op: lte, value: 30")
    op = _OPS[part.one_of((*goal, "op"), tuple(_OPS))]
    query = _query(part, (*path, "spec", "thresholdMetric"), counted=False)
    return Threshold(query, op, part.number(*goal, "value"))


def _ratio(part: _Part, path: Place) -> Ratio:
    found = part.mapping(path, ("counter", "total"), ("good", "bad"))
    if found["counter"] is not True:
        raise part.wrong((*path, "counter"), "only counters are read", "counter: true")
    sides = [side for side in ("good", "bad") if side in found]
    if len(sides) != 1:
        raise part.wrong(path, "not exactly one of good and bad", "good or bad, beside total")
    one = _query(part, (*path, sides[0]), counted=True)
    return Ratio(one, _query(part, (*path, "total"), counted=True), part_is_bad=sides[0] == "bad")


def _query(part: _Part, path: Place, *, counted: bool) -> str:
    part.mapping(path, ("metricSource",))
    part.mapping((*path, "metricSource"), ("type", "spec"))
    part.one_of((*path, "metricSource", "type"), ("Prometheus",))
    part.mapping((*path, "metricSource", "spec"), ("query",))
    place = (*path, "metricSource", "spec", "query")
    query = part.text(*place)

    def wrong(problem: str, right: str) -> InputError:
        return part.wrong(place, problem, right)

    if counted and not _RATE.search(query):
        raise wrong("the query takes no rate over the window", f"such as sum(rate(a_total[{WINDOW}]))")
    if not counted and "{{" in query:
        raise wrong("the query of a threshold has a window", "an expression of the present moment")
    names = metric_names(query.replace(WINDOW, "5m"))
    if not names:
        raise wrong("the query names no metric", "a metric of docs/metrics.md")
    for name in names:
        _known(name, wrong)
    _labels(query, wrong)
    return query


def _base(name: str) -> str:
    for ending in _OF_HISTOGRAM:
        bare = name.removesuffix(ending)
        if bare != name and bare in BY_NAME and BY_NAME[bare].kind is Kind.HISTOGRAM:
            return bare
    return name


def _known(name: str, wrong: Callable[[str, str], InputError]) -> None:
    if _base(name) not in BY_NAME and not is_foreign(name):
        raise wrong(f"nobody exports {name}", "a metric of docs/metrics.md")
    metric = BY_NAME.get(name)
    if metric is not None and metric.kind is Kind.HISTOGRAM:
        raise wrong(f"{name} is a histogram", f"{name}_bucket with a bound, or {name}_count")


def _labels(query: str, wrong: Callable[[str, str], InputError]) -> None:
    """Check bounds of buckets and values of closed labels: a wrong one would select nothing, silently."""
    for name, bound in _LE.findall(query):
        buckets = BY_NAME[name].buckets if name in BY_NAME else ()
        known = (*(str(float(bucket)) for bucket in buckets), "+Inf")
        if buckets and bound not in known:
            raise wrong(f"{name} has no bucket {bound}", f"one of {', '.join(known)}")
    for name, inside in _LABEL.findall(query):
        metric = BY_NAME.get(_base(name))
        for label, op, value in _MATCHER.findall(inside) if metric else ():
            assert metric is not None
            own = (*metric.labels, "job", "instance", "replica", *(("le",) if metric.kind is Kind.HISTOGRAM else ()))
            if label not in own:
                raise wrong(f"{metric.name} has no label {label}", f"one of {', '.join(own)}")
            closed = LABEL_VALUES.get((metric.name, label))
            for one in value.split("|") if "~" in op else [value]:
                if closed is not None and one not in closed:
                    raise wrong(f"{label} of {metric.name} is never {one!r}", f"one of {', '.join(closed)}")


def _conditions(parts: _Parts, part: _Part) -> tuple[Condition, ...]:
    found: dict[str, Condition] = {}
    for number, _ in enumerate(_list(part, "spec", "alertPolicies")):
        policy = parts.get("AlertPolicy", part, "spec", "alertPolicies", number)
        flags = ("alertWhenNoData", "alertWhenBreaching", "alertWhenResolved")
        policy.mapping(("spec",), ("description", *flags, "conditions"))
        for flag, value in zip(flags, (False, True, True), strict=True):
            if policy.at(("spec", flag)) is not value:
                raise policy.wrong(("spec", flag), f"{flag} is not {value}".lower(), "no data has alerts of its own")
        for place, _ in enumerate(_list(policy, "spec", "conditions")):
            policy.mapping(("spec", "conditions", place), ("conditionRef",))
            condition = _condition(parts.get("AlertCondition", policy, "spec", "conditions", place, "conditionRef"))
            if condition.name in found:
                problem = f"{alert_name(part.text('metadata', 'name'), condition.name)} comes twice"
                raise part.wrong(("spec", "alertPolicies", number), problem, "each condition once")
            found[condition.name] = condition
    return tuple(found.values())


def _condition(part: _Part) -> Condition:
    part.mapping(("spec",), ("description", "severity", "condition"))
    inner: Place = ("spec", "condition")
    part.mapping(inner, ("kind", "op", "threshold", "lookbackWindow", "alertAfter"))
    part.one_of((*inner, "kind"), ("burnrate",))
    part.one_of((*inner, "op"), ("gte",))
    kind = part.one_of(("spec", "severity"), ("page", "ticket"))
    part.mapping(("metadata",), ("name", "labels", "annotations"), ("displayName",))
    part.mapping(("metadata", "labels"), ("severity", "level"))
    part.mapping(("metadata", "annotations"), (SHORT_WINDOW,))
    level = part.one_of(("metadata", "labels", "level"), ("2",) if kind == "page" else ("3",))
    severity = part.one_of(("metadata", "labels", "severity"), ("warning", "info"))
    long = part.one_of((*inner, "lookbackWindow"), _ALERT_WINDOWS)
    short = part.one_of(("metadata", "annotations", SHORT_WINDOW), tuple(SECONDS))
    if SECONDS[short] >= SECONDS[long]:
        raise part.wrong(("metadata", "annotations", SHORT_WINDOW), f"{short} is not shorter than {long}", "about 1/12")
    after = part.text(*inner, "alertAfter")
    if not _MINUTES.fullmatch(after):
        raise part.wrong((*inner, "alertAfter"), f"alertAfter is {after!r}", "minutes, from 1m to 99m")
    threshold = part.number(*inner, "threshold")
    if not 0 < threshold <= 1000:  # noqa: PLR2004 - told in the message
        raise part.wrong((*inner, "threshold"), f"the burn rate is {threshold:g}", "above 0, at most 1000")
    return Condition(
        part.text("metadata", "name"),
        threshold,
        long,
        short,
        after,
        severity,
        level,
        _sentence(part, "spec", "description"),
    )
