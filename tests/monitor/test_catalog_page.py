from pathlib import Path

from control.metrics_page import text
from monitor.catalog import CATALOG, Kind
from monitor.catalog_page import page


def test_the_page_of_metrics_is_what_the_catalogue_says():
    written = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert written == text(), "run: python -m control.metrics_page > docs/metrics.md"


def test_the_page_names_who_looks_at_a_metric_through_every_part_of_a_histogram():
    spread = next(metric for metric in CATALOG if metric.kind is Kind.HISTOGRAM)
    told = page({f"{spread.name}_bucket": {"Slow"}}, {f"{spread.name}_count": ["board-b", "board-a"]})
    (row,) = [line for line in told.split("\n") if line.startswith(f"| `{spread.name}`")]
    assert row.endswith("| Slow; board-a, board-b |")
    (other,) = [line for line in told.split("\n") if line.startswith(f"| `{CATALOG[0].name}`")]
    assert other.endswith("| no alert; no board |")
