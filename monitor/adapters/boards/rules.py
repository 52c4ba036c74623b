"""What every board is held to before it is asked anything: names, labels, units, windows, limits, links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from monitor.adapters.boards.dimension import GRAFANA, Measure, metric_of, told
from monitor.adapters.boards.reading import Document, Query, label_values
from monitor.adapters.boards.tree import Call, Pair, Select, Tree, parse, walk
from monitor.catalog import FOREIGN, LABEL_VALUES, OTHER, Kind

OURS: Final = frozenset({"job", "replica", "instance", "le"})
RATES: Final = frozenset({"rate", "irate", "increase"})
LIMITED: Final = frozenset({"stat", "gauge"})
_COUNTERS: Final = ("_total", "_bucket", "_sum", "_count")
_SOURCE: Final = "${datasource}"
_RATE_WINDOW: Final = "$__rate_interval"


def findings(boards: Sequence[Document], recorded: Mapping[str, str]) -> list[str]:
    """Return what is wrong, one sentence each, with file and line. `recorded` are the rules' recorded series."""
    found: list[str] = []
    seen: dict[str, str] = {}
    for board in boards:
        where = board.at("uid")
        if board.uid in seen:
            found.append(f"{where}: the uid {board.uid!r} is that of {seen[board.uid]} too; give each board its own")
        seen.setdefault(board.uid, where)
        found.extend(_shape(board))
        for place, panel in board.panels:
            found.extend(_panel(board, place, panel))
        for query in board.queries():
            found.extend(f"{where}: {said}" for where, said in _query(query, recorded))
    return found


def _shape(board: Document) -> Iterator[str]:
    value = board.value
    if not re.fullmatch(r"tapewatch-[a-z-]+", board.uid):
        yield f"{board.at('uid')}: the uid is {board.uid!r}; write tapewatch-<name>"
    if value.get("editable") is not False:
        yield f'{board.at("editable")}: it can be edited; write "editable": false, for its source is code'
    kinds = [variable.get("type") for _, variable in board.variables()]
    if kinds.count("datasource") != 1:
        yield f"{board.at('templating')}: {kinds.count('datasource')} datasource variables; one is right"
    names = {variable.get("name") for _, variable in board.variables()}
    for name in sorted({"job", "replica"} - names):
        yield f"{board.at('templating')}: no variable {name}; every board has one"
    for place, event in enumerate(value.get("annotations", {}).get("list", [])):
        if event.get("datasource", {}).get("uid") != _SOURCE:
            at = board.at("annotations", "list", place, "datasource", "uid")
            yield f"{at}: the annotation {event.get('name')} does not use the variable {_SOURCE}"
    for place, variable in board.variables():
        if variable.get("type") == "query" and variable.get("datasource", {}).get("uid") != _SOURCE:
            at = board.at("templating", "list", place, "datasource", "uid")
            yield f"{at}: the variable {variable.get('name')} does not use the variable {_SOURCE}"
    if not value.get("links"):
        yield f"{board.at('links')}: no link to the other boards"


def _panel(board: Document, place: int, panel: Mapping[str, Any]) -> Iterator[str]:
    name = panel.get("title") or f"panel {place}"
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    where = board.at("panels", place)
    for key in ("title", "description"):
        if not panel.get(key):
            yield f"{where}: {name} has no {key}"
    if not defaults.get("unit"):
        yield f"{where}: {name} has no unit"
    elif defaults["unit"] not in GRAFANA:
        at = board.at("panels", place, "fieldConfig", "defaults", "unit")
        yield f"{at}: {name} has the unit {defaults['unit']!r}; known are {', '.join(GRAFANA)}"
    if panel.get("type") in LIMITED and not defaults.get("thresholds", {}).get("steps"):
        yield f"{where}: {name} has no thresholds"
    if not panel.get("targets"):
        yield f"{where}: {name} asks nothing"
    sources = [panel.get("datasource"), *(target.get("datasource") for target in panel.get("targets", []))]
    if any(source is None or source.get("uid") != _SOURCE for source in sources):
        yield f"{board.at('panels', place, 'datasource')}: {name} does not use the variable {_SOURCE}"


def _query(query: Query, recorded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    text = query.expr
    if query.kind == "variable":
        asked = label_values(text)
        if asked is None:
            yield query.where, f"the variable {query.title} asks {text!r}; write label_values(series, label)"
            return
        text = asked[0]
    try:
        tree = parse(text)
    except ValueError as error:
        yield query.where, f"{query.title}: no PromQL: {error}"
        return
    for part, above in walk(tree):
        if isinstance(part, Select):
            for said in _select(part, above, query.kind, recorded):
                yield query.where, f"{query.title}: {said}"
        elif isinstance(part, Call):
            yield from ((query.where, f"{query.title}: {said}") for said in _call(part))
    if query.kind == "panel":
        yield from _unit(query, tree, recorded)


def _select(part: Select, above: Sequence[Tree], kind: str, recorded: Mapping[str, str]) -> Iterator[str]:
    if part.name in recorded or part.name == "ALERTS":
        return
    metric = metric_of(part.name)
    foreign = any(part.name == known or (known.endswith("_") and part.name.startswith(known)) for known in FOREIGN)
    if metric is None and not foreign:
        yield f"{part.name or 'a selector without a name'} is no metric of the catalogue and no recorded series"
        return
    if metric is not None and metric.kind is Kind.HISTOGRAM and part.name == metric.name:
        yield f"{part.name} is a histogram; ask for its _bucket, _sum or _count"
    if metric is not None:
        for label, sign, value in part.matchers:
            yield from _matcher(metric.name, (*metric.labels, *OURS), label, sign, value)
    matched = {(label, value) for label, _, value in part.matchers}
    if kind == "panel" and not {("job", "$job"), ("replica", "$replica")} <= matched:
        yield f'{part.name} is not chosen by the variables; write {{job=~"$job",replica=~"$replica"}}'
    counter = metric.kind is not Kind.GAUGE if metric is not None else part.name.endswith(_COUNTERS)
    if counter and not _grows(part, above):
        yield f"{part.name} is a counter; put it under rate or increase"


def _matcher(name: str, labels: Sequence[str], label: str, sign: str, value: str) -> Iterator[str]:
    if label not in labels:
        yield f"{name} has no label {label}; it has {', '.join(labels)}"
    closed = LABEL_VALUES.get((name, label))
    if closed is not None and "$" not in value:
        for one in value.split("|") if sign in {"=~", "!~"} else [value]:
            if one not in {*closed, OTHER} and re.fullmatch(r"\w*", one):
                yield f"{label} of {name} is never {one!r}; it is one of {', '.join(closed)}"


def _grows(part: Select, above: Sequence[Tree]) -> bool:
    """Tell whether a counter is asked for its growth.

    Two ways: below `rate` or `increase`; or counted, or as one side of `max_over_time(x[w]) unless x offset w`, which
    is how a series that begins with its first event is seen, and tells of growth too.
    """
    names = {call.name for call in above if isinstance(call, Call)}
    if names & RATES or "count" in names:
        return True
    pair = next((one for one in reversed(above) if isinstance(one, Pair)), None)
    return pair is not None and pair.sign == "unless" and _bare(pair.left) == _bare(pair.right) == part.name


def _bare(tree: Tree) -> str:
    if isinstance(tree, Call) and tree.name == "max_over_time":
        return _bare(tree.inner[0])
    return tree.name if isinstance(tree, Select) else ""


def _call(call: Call) -> Iterator[str]:
    if call.name in {"rate", "irate"}:
        for part in call.inner:
            if isinstance(part, Select) and part.window != _RATE_WINDOW:
                yield f"the window of {call.name}({part.name}) is {part.window or 'missing'}; write [{_RATE_WINDOW}]"
    if call.by:
        metrics = [metric_of(part.name) for part, _ in walk(call) if isinstance(part, Select)]
        known = {label for metric in metrics if metric is not None for label in metric.labels} | OURS
        for label in call.by:
            if metrics and all(metric is not None for metric in metrics) and label not in known:
                yield f"{call.name} by {label}: no metric under it has that label"


def _unit(query: Query, tree: Tree, recorded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    measure = Measure(recorded)
    found = measure.axis(tree) if query.shown_as == "heatmap" else measure.of(tree)
    for said in measure.troubles:
        yield query.where, f"{query.title}: {said}"
    wanted = GRAFANA.get(query.unit)
    if wanted is not None and found is not None and found != wanted:
        yield query.unit_at, f"{query.title}: the unit is {query.unit}, but its question measures {told(found)}"
    if query.unit == "percentunit" and not any(
        (isinstance(part, Pair) and part.sign == "/")
        or (isinstance(part, Select) and ("ratio" in part.name or metric_of(part.name) is None))
        for part, _ in walk(tree)
    ):
        yield query.unit_at, f"{query.title}: shown as per cent, but nothing is divided"
