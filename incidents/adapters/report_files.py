"""Post-mortems as self-contained pages, and their files: HTML through Jinja2, Markdown beside it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from incidents.markdown import REFERENCES_SHOWN, ranges, to_markdown
from incidents.plot import NARROW, WIDE, Plot, to_svg
from incidents.report import Fold, Report
from kernel.errors import PermanentError, TemporaryError

TEMPLATES: Final = Path(__file__).resolve().parent.parent / "templates"
_FULL: Final = frozenset({28, 122})
"""errno ENOSPC and EDQUOT: space can come back."""


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["fold"] = lambda item: isinstance(item, Fold)
    environment.filters["ranges"] = ranges
    return environment


def _drawings(plot: Plot, n: int) -> list[Markup]:
    # The plot's own texts are escaped by to_svg; that is what makes its markup safe here.
    return [
        Markup(to_svg(plot, WIDE, f"plot-{n}-wide")),  # noqa: S704 - see above
        Markup(to_svg(plot, NARROW, f"plot-{n}-narrow")),  # noqa: S704 - see above
    ]


def to_html(report: Report) -> str:
    """Render a report as one HTML page: styles and drawings inline, no script, nothing fetched."""
    template = _environment().get_template("postmortem.html.j2")
    drawings = [_drawings(drawn.plot, n) for n, drawn in enumerate(report.plots, start=1)]
    return template.render(report=report, drawings=drawings, references_shown=REFERENCES_SHOWN)


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `ID.html` and `ID.md` into a folder, each renamed into place whole.

    Returns:
        The paths of the HTML page and the Markdown text.

    Raises:
        TemporaryError: the disk is full.
        PermanentError: the folder cannot be written.
    """
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", report.id)[:80].strip("-") or "incident"
    page, text = folder / f"{stem}.html", folder / f"{stem}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(page, to_html(report))
        _replace(text, to_markdown(report))
    except OSError as error:
        kind = TemporaryError if error.errno in _FULL else PermanentError
        raise kind(f"cannot write the post-mortem of {report.id} into {folder}: {error.strerror}") from error
    return page, text


def _replace(path: Path, content: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(content, encoding="utf-8", newline="\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
