from pathlib import Path

from monitor.catalog_page import page


def test_the_page_of_metrics_is_what_the_catalogue_says():
    written = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert written == page(), "run: python -m monitor.catalog_page > docs/metrics.md"
