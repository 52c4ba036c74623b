"""Kibana's saved objects for our logs: data views, saved searches, a dashboard of Lens panels; pure.

Ids are stable, so that a second import replaces the first. Every reference resolves and every field is in the model:
tests hold them to it. Not looked at in Kibana: none can be had here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from monitor.elk.pipelines import DEAD_LETTERS

LOGS: Final = "tapewatch-logs"
DEAD: Final = "tapewatch-dead-letters"
DASHBOARD: Final = "tapewatch-logs-overview"
VERSION: Final = "8.8.0"
"""Which Kibana's form the objects have; newer ones migrate them."""
Object = dict[str, Any]


def _object(kind: str, id_: str, attributes: Mapping[str, Any], references: Iterable[Mapping[str, str]] = ()) -> Object:
    return {
        "type": kind, "id": id_, "attributes": dict(attributes), "references": list(references), "managed": False,
        "coreMigrationVersion": VERSION, "typeMigrationVersion": VERSION if kind != "index-pattern" else "8.0.0",
    }  # fmt: skip


def data_views() -> list[Object]:
    """Return the data views: all our logs, and the dead letters alone."""
    return [
        _object("index-pattern", id_, {
            "name": name, "title": pattern, "timeFieldName": "@timestamp", "allowNoIndex": True,
        })
        for id_, name, pattern in (
            (LOGS, "Tapewatch logs", "logs-exchange.*-*"),
            (DEAD, "Tapewatch dead letters", f"logs-{DEAD_LETTERS}-*"),
        )
    ]  # fmt: skip


SEARCHES: Final = (
    ("errors", "Errors and worse", LOGS, 'log.level: ("error" or "critical")',
     ("service.name", "event.action", "message", "error.message", "exchange.why")),
    ("order", "What was logged of one order (fill in the trace)", LOGS, "trace.id: *",
     ("service.name", "event.action", "trace.id", "user.id", "exchange.client_id", "event.duration")),
    ("incidents", "What control did about incidents", LOGS, "exchange.incident: *",
     ("event.action", "exchange.incident", "exchange.run", "exchange.outcome", "exchange.message")),
    ("lost", "Records that were lost or cut", LOGS, 'event.action: "log-records-lost" or tags: "cut"',
     ("service.name", "service.node.name", "exchange.dropped", "exchange.failed", "exchange.cut_bytes")),
    ("unmapped", "Fields that no model holds", LOGS, 'tags: "unmapped_field"',
     ("service.name", "event.action", "tapewatch.unmapped")),
    ("unread", "Lines that could not be read", DEAD, "",
     ("error.message", "event.original", "log.file.path", "log.offset")),
)  # fmt: skip
"""Saved searches: id, title, data view, query (KQL), columns."""


def _source(query: str, reference: str) -> dict[str, str]:
    return {"searchSourceJSON": json.dumps({
        "query": {"query": query, "language": "kuery"}, "filter": [], "indexRefName": reference,
    })}  # fmt: skip


def searches() -> list[Object]:
    """Return the saved searches."""
    name = "kibanaSavedObjectMeta.searchSourceJSON.index"
    return [
        _object(
            "search", f"tapewatch-{id_}",
            {
                "title": f"Tapewatch: {title}", "description": "", "columns": list(columns),
                "sort": [["@timestamp", "desc"]],
                "grid": {}, "hideChart": False, "kibanaSavedObjectMeta": _source(query, name),
            },
            [{"type": "index-pattern", "id": view, "name": name}],
        )
        for id_, title, view, query, columns in SEARCHES
    ]  # fmt: skip


def _count() -> Object:
    return {"label": "records", "dataType": "number", "operationType": "count", "isBucketed": False,
            "scale": "ratio", "sourceField": "___records___", "params": {"emptyAsNull": True}}  # fmt: skip


def _terms(field: str, most: int) -> Object:
    return {
        "label": field, "dataType": "string", "operationType": "terms", "isBucketed": True, "scale": "ordinal",
        "sourceField": field,
        "params": {"size": most, "orderBy": {"type": "column", "columnId": "count"}, "orderDirection": "desc",
                   "otherBucket": True, "missingBucket": False},
    }  # fmt: skip


def _time() -> Object:
    return {"label": "@timestamp", "dataType": "date", "operationType": "date_histogram", "isBucketed": True,
            "scale": "interval", "sourceField": "@timestamp", "params": {"interval": "auto"}}  # fmt: skip


PANELS: Final = (
    ("levels", "Records by level", "lnsXY", LOGS, "", "log.level", 5),
    ("services", "Errors by service", "lnsXY", LOGS, 'log.level: ("error" or "critical")', "service.name", 10),
    ("actions", "Events", "lnsPie", LOGS, "", "event.action", 12),
    ("reasons", "Reasons of refusals and failures", "lnsPie", LOGS, "event.reason: *", "event.reason", 12),
    ("dead", "Dead letters", "lnsMetric", DEAD, "", "", 0),
    ("cut", "Records cut, unmapped or with a wrong clock", "lnsPie", LOGS, "tags: *", "tags", 8),
)  # fmt: skip
"""Panels: id, title, kind, data view, query, field that divides them, how many of its values."""


def lenses() -> list[Object]:
    """Return the Lens panels."""
    return [_lens(*panel) for panel in PANELS]


def _lens(id_: str, title: str, kind: str, view: str, query: str, by: str, most: int) -> Object:
    columns: dict[str, Object] = {"count": _count()}
    visual: Object
    if kind == "lnsXY":
        columns = {"time": _time(), "by": _terms(by, most), **columns}
        visual = {
            "legend": {"isVisible": True, "position": "right"}, "preferredSeriesType": "bar_stacked",
            "layers": [{"layerId": "layer", "layerType": "data", "seriesType": "bar_stacked", "xAccessor": "time",
                        "splitAccessor": "by", "accessors": ["count"]}],
        }  # fmt: skip
    elif kind == "lnsPie":
        columns = {"by": _terms(by, most), **columns}
        visual = {
            "shape": "donut",
            "layers": [{"layerId": "layer", "layerType": "data", "primaryGroups": ["by"], "metrics": ["count"],
                        "numberDisplay": "value", "categoryDisplay": "default", "legendDisplay": "show"}],
        }  # fmt: skip
    else:
        visual = {"layerId": "layer", "layerType": "data", "metricAccessor": "count"}
    state = {
        "datasourceStates": {"formBased": {"layers": {"layer": {
            "columns": columns, "columnOrder": list(columns), "incompleteColumns": {},
        }}}},
        "visualization": visual, "query": {"query": query, "language": "kuery"}, "filters": [],
        "internalReferences": [], "adHocDataViews": {},
    }  # fmt: skip
    return _object(
        "lens", f"tapewatch-lens-{id_}",
        {"title": f"Tapewatch: {title}", "description": title, "visualizationType": kind, "state": state},
        [{"type": "index-pattern", "id": view, "name": "indexpattern-datasource-layer-layer"}],
    )  # fmt: skip


def dashboard() -> Object:
    """Return the dashboard: the panels, two in a row, and the saved search of errors below."""
    panels, references = [], []
    for place, (kind, id_) in enumerate([*(("lens", f"tapewatch-lens-{one[0]}") for one in PANELS),
                                         ("search", "tapewatch-errors")]):  # fmt: skip
        number = str(place + 1)
        wide = kind == "search"
        panels.append({
            "type": kind, "panelIndex": number, "panelRefName": f"panel_{number}", "embeddableConfig": {},
            "gridData": {"x": 0 if wide else place % 2 * 24, "y": place // 2 * 13, "w": 48 if wide else 24, "h": 13,
                         "i": number},
        })  # fmt: skip
        references.append({"type": kind, "id": id_, "name": f"{number}:panel_{number}"})
    return _object(
        "dashboard", DASHBOARD,
        {
            "title": "Tapewatch: logs", "description": "What the processes of the exchange say, and what was lost.",
            "panelsJSON": json.dumps(panels), "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
            "timeRestore": True, "timeFrom": "now-1h", "timeTo": "now", "version": 1,
            "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps({
                "query": {"query": "", "language": "kuery"}, "filter": [],
            })},
        },
        references,
    )  # fmt: skip


def objects() -> list[Object]:
    """Return all objects, what is referred to before what refers."""
    return [*data_views(), *searches(), *lenses(), dashboard()]


def ndjson() -> str:
    """Return the file that Kibana imports (Stack Management, Saved Objects, or its API)."""
    return "".join(json.dumps(one, sort_keys=True) + "\n" for one in objects())
