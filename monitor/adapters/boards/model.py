"""What a board is before it is Grafana's JSON: rows of panels, each with its questions, unit and limits.

Expressions are written short: `{$}` selects by the board's variables `job` and `replica`, `{$,symbol="X"}` by more,
and `[$r]` is the window of a rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GOOD: Final = "#2f9e5b"
WARN: Final = "#e0a100"
BAD: Final = "#d6453d"
CALM: Final = "#3c7dd9"
OTHER: Final = "#8b6fd1"
GREY: Final = "#8a8f99"
TEAL: Final = "#1b9aaa"
ORANGE: Final = "#e8743b"
SELECT: Final = 'job=~"$job",replica=~"$replica"'
Steps = tuple[tuple[float | None, str], ...]


def above(warn: float, bad: float) -> Steps:
    """Return limits of what must stay low."""
    return ((None, GOOD), (warn, WARN), (bad, BAD))


def below(bad: float, warn: float) -> Steps:
    """Return limits of what must stay high: red below `bad`, amber below `warn`."""
    return ((None, BAD), (bad, WARN), (warn, GOOD))


ZERO: Final[Steps] = ((None, GOOD), (1, BAD))
"""What must be 0."""
ONE: Final[Steps] = ((None, BAD), (1, GOOD))
"""What must be 1."""
PLAIN: Final[Steps] = ((None, CALM),)
"""A figure that is neither good nor bad."""
FRACTION: Final[Steps] = ((None, GOOD), (0.01, WARN), (0.05, BAD))
"""A share of failures: amber from 1 %, red from 5 %."""


@dataclass(frozen=True)
class Ask:
    """One question to Prometheus and how its answer is called."""

    text: str
    legend: str = ""
    exemplar: bool = False

    @property
    def expr(self) -> str:
        """The question as Grafana gets it."""
        return (
            self.text.replace("{$}", f"{{{SELECT}}}")
            .replace("{$,", f"{{{SELECT},")
            .replace("[$r]", "[$__rate_interval]")
        )


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. The description says what is shown and what to do when it is red."""

    title: str
    about: str
    unit: str
    asks: tuple[Ask, ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    steps: Steps = PLAIN
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    stacked: bool = False
    words: tuple[tuple[str, str, str], ...] = ()
    """Values shown as words: value, text, colour."""


@dataclass(frozen=True)
class Row:
    """A headline and what stands under it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board."""

    name: str
    """The uid without `tapewatch-`."""
    title: str
    about: str
    jobs: tuple[str, ...]
    """The jobs whose series it shows; the variable `job` offers these."""
    rows: tuple[Row, ...]
    span: str = "now-30m"

    @property
    def uid(self) -> str:
        """What Grafana and the alerts' links call it."""
        return f"tapewatch-{self.name}"


def ask(text: str, legend: str = "", *, exemplar: bool = False) -> Ask:
    """Return one question."""
    return Ask(text, legend, exemplar)


def graph(title: str, about: str, unit: str, *asks: Ask, **more: object) -> Panel:
    """Return a panel with lines over time."""
    return Panel(title=title, about=about, unit=unit, asks=asks, **more)  # type: ignore[arg-type]


def stat(title: str, about: str, unit: str, text: str, steps: Steps, **more: object) -> Panel:
    """Return a panel with one large figure; `legend` names each when there are several."""
    legend = str(more.pop("legend", ""))
    return Panel(
        title=title, about=about, unit=unit, asks=(Ask(text, legend),), kind="stat", steps=steps,
        **{"width": 4, "height": 4} | more,  # type: ignore[arg-type]
    )  # fmt: skip


def gauge(title: str, about: str, unit: str, text: str, steps: Steps, **more: object) -> Panel:
    """Return a panel with a dial."""
    legend = str(more.pop("legend", ""))
    return Panel(
        title=title, about=about, unit=unit, asks=(Ask(text, legend),), kind="gauge", steps=steps,
        **{"width": 4, "height": 6} | more,  # type: ignore[arg-type]
    )  # fmt: skip


def of_kind(kind: str, title: str, about: str, unit: str, *asks: Ask, **more: object) -> Panel:
    """Return a panel of another kind: `table`, `bargauge`, `heatmap`, `state-timeline`."""
    return Panel(title=title, about=about, unit=unit, asks=asks, kind=kind, **more)  # type: ignore[arg-type]


def quantile(q: float, metric: str, by: str = "") -> str:
    """Return the question for a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{$}}[$r])))"


def spread(metric: str) -> tuple[Ask, ...]:
    """Return the questions for the median, the 95th and 99th percentile of a histogram."""
    return tuple(
        Ask(quantile(q, metric), name, exemplar=True) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )


def risen(metric: str, window: str, by: str) -> str:
    """Return the question for a counter's growth whose series begins with its first event.

    `increase` alone does not see that first event. A series that was not there before the window counts whole.
    """
    young = f"max_over_time({metric}{{$}}[{window}]) unless {metric}{{$}} offset {window}"
    return f"sum by ({by}) ({young} or increase({metric}{{$}}[{window}]))"
