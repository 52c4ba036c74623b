"""How a drill is shown: live for a person at a terminal, a line a fact when piped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from control.drill import Result
from control.scenario import Scenario

ROWS: Final = 16
"""Facts that stay on the screen while it runs; all are printed at the end."""
_MARKS: Final = {"step": ("·", "cyan"), "seen": ("✓", "green"), "missed": ("✗", "bold red")}


class View:
    """Shows one drill while it runs."""

    def __init__(self, console: Console, scenario: Scenario) -> None:
        """Show on `console`; with a live display only where it is a terminal."""
        self._console = console
        self._scenario = scenario
        self._lines: list[tuple[str, str]] = []
        self._began = time.monotonic()
        self._spinner = Spinner("dots")
        live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)
        self._live = live if console.is_terminal else None

    def __enter__(self) -> Self:
        title = Text.assemble((self._scenario.name, "bold"), f"  {self._scenario.title}")
        self._console.print(title)
        if self._live is not None:
            self._console.print(Text(self._scenario.story.strip(), style="dim"))
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            for mark, line in self._lines:
                self._console.print(_line(mark, line))

    def tell(self, kind: str, line: str) -> None:
        """Show one more fact."""
        self._lines.append((kind, line))
        if self._live is None:
            self._console.print(_line(kind, line), soft_wrap=True)

    def _render(self) -> Group:
        """Return what is known and what is waited for, as of now."""
        told = {line.partition(" after ")[0].partition(":")[0] for kind, line in self._lines if kind != "step"}
        awaited = [link.name for link in self._scenario.links if link.name not in told]
        rows = [_line(mark, text) for mark, text in self._lines[-ROWS:]]
        words = f" {time.monotonic() - self._began:.0f} s, waiting for {', '.join(awaited) or 'the account'}"
        self._spinner.update(text=Text(words, style="dim"))
        return Group(*rows, self._spinner)


def _line(kind: str, line: str) -> Text:
    mark, style = _MARKS.get(kind, ("·", ""))
    return Text.assemble(("  " + mark + " ", style), line)


def print_result(console: Console, result: Result) -> None:
    """Show a verdict a person enjoys reading."""
    style = "green" if result.passed else "red"
    verdict = Text.assemble(
        ("passed" if result.passed else "FAILED", f"bold {style}"), f" in {result.took_s:.0f} s: {result.outcome}"
    )
    spans = Table.grid(padding=(0, 2))
    for name, value in result.timings.items():
        if value is not None:
            spans.add_row(Text(name.removesuffix("_s").replace("_", " "), style="dim"), f"{value:.2f} s")
    counts = "  ".join(f"{name} {value}" for name, value in result.orders.items())
    spans.add_row(Text("orders", style="dim"), counts)
    parts: list[Text | Table] = [verdict, spans]
    parts += [Text(f"problem: {problem}", style="red") for problem in result.problems]
    parts += [Text(f"missed: {link.name}: {link.evidence}", style="red") for link in result.links if not link.seen]
    console.print(Panel(Group(*parts), border_style=style, title=result.scenario, title_align="left"))
    if result.report:
        console.print(Text(f"post-mortem: {result.report}"), soft_wrap=True)


def print_summary(console: Console, results: Sequence[Result]) -> None:
    """Show all verdicts of `drill all` in one table."""
    table = Table(title=f"{sum(r.passed for r in results)} of {len(results)} scenarios passed", title_justify="left")
    for column in ("scenario", "verdict", "fault to firing", "to action", "to proof", "orders lost", "took"):
        table.add_column(column, justify="left" if column in {"scenario", "verdict"} else "right")
    for result in results:
        spans = result.timings
        table.add_row(
            result.scenario,
            Text("passed", style="green") if result.passed else Text("FAILED", style="bold red"),
            _seconds(spans.get("fault_to_firing_s")),
            _seconds(spans.get("incident_to_action_s")),
            _seconds(spans.get("action_to_proof_s")),
            str(result.orders["lost"]),
            f"{result.took_s:.0f} s",
        )
    console.print(table)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
