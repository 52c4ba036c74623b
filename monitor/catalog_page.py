"""The catalogue as a page of documentation: `python -m monitor.catalog_page > docs/metrics.md`."""

from __future__ import annotations

import sys

from monitor.catalog import CATALOG, LABEL_VALUES, Metric, Role


def page() -> str:
    """Return the page in Markdown."""
    lines = [
        "# Metrics",
        "",
        "Written from `monitor/catalog.py` by `python -m monitor.catalog_page > docs/metrics.md`; a test compares.",
        "The section is the Prometheus job. Each series also carries `replica` and `instance`.",
    ]
    for role in Role:
        lines += ["", f"## {role}", "", "| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
        lines += [_row(metric) for metric in CATALOG if metric.role is role]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    labels = "; ".join(
        f"`{label}`" + (f": {', '.join(values)}" if (values := LABEL_VALUES.get((metric.name, label))) else "")
        for label in metric.labels
    )
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{buckets} |"


if __name__ == "__main__":
    sys.stdout.write(page())
