"""The published JSON schema of a file of log rules, made from the table of kinds; editors complete and check by it."""

from __future__ import annotations

from typing import Any, Final

from monitor.logrules.model import COMMON, OPTIONS, Direction, Kind, Metric

DURATION: Final = r"^([0-9]+(ms|s|m|h|d))+$"
NAME: Final = r"^[A-Z][A-Za-z0-9]{2,60}$"
SEVERITIES: Final = ("critical", "warning", "info")
LEVELS: Final = ("1", "2", "3")
MUST_LABELS: Final = ("severity", "level", "team", "service")
MUST_ANNOTATIONS: Final = ("summary", "description")


def _duration(words: str) -> dict[str, Any]:
    return {"type": "string", "pattern": DURATION, "description": f"{words}, such as 30s or 5m"}


_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
PROPERTIES: Final[dict[str, dict[str, Any]]] = {
    "name": {"type": "string", "pattern": NAME, "description": "Also the alert's name."},
    "kind": {"enum": [str(kind) for kind in Kind]},
    "query": {"type": "string", "description": "A query string; see docs/log-alerts.md. Empty: every record."},
    "by": {"type": "array", "items": {"type": "string"}, "maxItems": 3, "description": "Judge each value apart."},
    "every": _duration("The step: windows end at whole steps"),
    "lateness": _duration("How late a record may come"),
    "hold": _duration("How long an alert stands after its last match"),
    "realert": _duration("Not raised again before"),
    "realert_max": _duration("With it, realert doubles while the alert comes back, up to this"),
    "open_after": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Matches in a row that raise it."},
    "flapping": {
        "type": "object",
        "additionalProperties": False,
        "required": ["times", "within", "quiet"],
        "properties": {
            "times": {"type": "integer", "minimum": 2, "maximum": 100},
            "within": _duration("Raised so often within"),
            "quiet": _duration("Then held until so long without a match"),
        },
    },
    "labels": {
        **_TEXTS,
        "required": list(MUST_LABELS),
        "properties": {"severity": {"enum": list(SEVERITIES)}, "level": {"enum": list(LEVELS)}},
    },
    "annotations": {**_TEXTS, "required": list(MUST_ANNOTATIONS)},
    "field": {"type": "string", "description": "The field that is compared, counted or measured."},
    "values": {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1, "maxItems": 1000},
    "ignore_missing": {"type": "boolean"},
    "timeframe": _duration("The window"),
    "at_least": {"type": "integer", "minimum": 1},
    "below": {"type": "integer", "minimum": 1},
    "ratio": {"type": "number", "exclusiveMinimum": 1},
    "direction": {"enum": [str(one) for one in Direction]},
    "min_reference": {"type": "number", "minimum": 0},
    "min_current": {"type": "number", "minimum": 0},
    "metric": {"enum": [str(one) for one in Metric]},
    "max": {"type": "number"},
    "min": {"type": "number"},
    "part": {"type": "string", "description": "The query whose share of `query` is judged."},
    "min_total": {"type": "integer", "minimum": 1},
    "then": {"type": "string", "description": "The query that must follow within `timeframe`."},
    "known_for": _duration("A value not seen for so long is new again"),
}


def rule_schema() -> dict[str, Any]:
    """Return the schema of one rule."""
    kinds = []
    for kind, needs in OPTIONS.items():
        known = dict.fromkeys((*COMMON, *needs.must, *needs.may, *needs.one_of), True)
        then: dict[str, Any] = {"properties": known, "required": list(needs.must), "additionalProperties": False}
        if needs.one_of:
            then["anyOf"] = [{"required": [name]} for name in needs.one_of]
        kinds.append({"if": {"properties": {"kind": {"const": str(kind)}}}, "then": then})
    return {
        "type": "object",
        "required": ["name", "kind", "query", "labels", "annotations"],
        "properties": PROPERTIES,
        "allOf": kinds,
    }


def file_schema() -> dict[str, Any]:
    """Return the schema of a file: one rule, or `rules:` with several."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Log rules of Tapewatch",
        "$defs": {"rule": rule_schema()},
        "type": "object",
        "required": ["rules"],
        "additionalProperties": False,
        "properties": {"rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}, "minItems": 1}},
    }
