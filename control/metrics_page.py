"""The page of metrics with who looks at each: `python -m control.metrics_page > docs/metrics.md`."""

from __future__ import annotations

import sys

from control.review import lookers
from monitor.catalog_page import page


def text() -> str:
    """Return the page in Markdown.

    Raises:
        InputError: a rule file is broken.
    """
    return page(*lookers())


if __name__ == "__main__":
    sys.stdout.write(text())
