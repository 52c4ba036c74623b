"""The verbs `anomaly`: score recorded series, say why in words, look back, and measure."""

from __future__ import annotations

import typer

from control.terminal import EXIT_CODES

ANOMALY = typer.Typer(
    no_args_is_help=True, help="Find what is unusual in series, and say why in words.", epilog=EXIT_CODES
)
