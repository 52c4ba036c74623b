"""A review as a self-contained page: HTML through Jinja2, styles inline, no script, nothing fetched."""

from __future__ import annotations

import jinja2

from incidents.adapters.report_files import TEMPLATES
from incidents.review import Review


def to_html(review: Review) -> str:
    """Render a review as one HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("review.html.j2").render(review=review)
