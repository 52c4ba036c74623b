"""The catalogue as a page of documentation. Pure: who looks at what is told by the caller."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from monitor.catalog import CATALOG, LABEL_VALUES, MAX_LABEL_VALUES, Metric, Role, series_max

SHOWN: int = 6
"""Alerts or boards that are named; of more, the number is told."""


def page(alerts: Mapping[str, Collection[str]], boards: Mapping[str, Collection[str]]) -> str:
    """Return the page in Markdown; `alerts` and `boards` tell who looks at each metric."""
    lines = [
        "# Metrics",
        "",
        "Written from `monitor/catalog.py` by `python -m control.metrics_page > docs/metrics.md`; a test compares.",
        "The section is the Prometheus job. Each series also carries `replica` and `instance`. A label without its",
        f"values takes at most {MAX_LABEL_VALUES} of them in one process, and `other` for the rest. `Series` is what",
        "one process exports at most.",
    ]
    for title, role, owner in _sections():
        head = "| Metric | Type | Unit | Labels | Series | Meaning | Looked at by |"
        lines += ["", f"## {title}", "", f"Owner: {owner}.", "", head, "|---|---|---|---|---|---|---|"]
        lines += [_row(metric, alerts, boards) for metric in CATALOG if metric.role is role]
    return "\n".join(lines) + "\n"


def _sections() -> list[tuple[str, Role | None, str]]:
    owners = {metric.role: metric.owner for metric in CATALOG}
    return [
        ("every process", None, owners[None]),
        *((str(role), role, owners[role]) for role in Role if role in owners),
    ]


def _row(metric: Metric, alerts: Mapping[str, Collection[str]], boards: Mapping[str, Collection[str]]) -> str:
    labels = "; ".join(
        f"`{label}`" + (f": {', '.join(values)}" if (values := LABEL_VALUES.get((metric.name, label))) else "")
        for label in metric.labels
    )
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
    return (
        f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {series_max(metric)} | {metric.help}{buckets} "
        f"| {_lookers('alert', metric, alerts)}; {_lookers('board', metric, boards)} |"
    )


def _lookers(what: str, metric: Metric, by: Mapping[str, Collection[str]]) -> str:
    parts = ("", "_bucket", "_sum", "_count")
    names = sorted({one for part in parts for one in by.get(metric.name + part, ())})
    if not names:
        return f"no {what}"
    return ", ".join(names) if len(names) <= SHOWN else f"{len(names)} {what}s"
