"""The tables of the yardstick in Markdown: detectors side by side, false alarms and budget, transfer, ablation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

FACTOR: Final = 3.0
"""False alarms of a group may be so many times the promised budget."""
_FIGURES: Final = (
    ("NAB fixed 0.5: standard", "nab_standard_fixed", 1), ("low-FP", "nab_low_fp_fixed", 1),
    ("low-FN", "nab_low_fn_fixed", 1), ("NAB tuned: standard", "nab_standard", 1), ("low-FP ", "nab_low_fp", 1),
    ("low-FN ", "nab_low_fn", 1), ("AUC-PR", "auc_pr", 2), ("VUS-PR", "vus_pr", 2), ("event F1", "ev_f1", 2),
    ("recall", "ev_recall", 2), ("precision", "ev_precision", 2), ("false/series-day", "fa_per_day", 3),
    ("on quiet series", "quiet_fa_per_day", 3), ("delay, rows", "delay_rows", 0),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One detector's figures over one group of series."""

    name: str
    figures: Mapping[str, float]
    us_per_row: float
    state_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """False alarms of one kind of series."""

    kind: str
    series: int
    days: float
    false: int

    @property
    def per_day(self) -> float:
        """False alarms of one series a day."""
        return self.false / self.days if self.days > 0 else math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class Fold:
    """What was chosen on some folders, and what that gave on the others."""

    tuned_on: str
    reported_on: str
    chosen: str
    there: Mapping[str, float]
    """The figures where it was chosen."""
    here: Mapping[str, float]
    """The figures where it was not."""
    usual: Mapping[str, float]
    """The same of the settings as they are."""
    best: float
    """The most that any of the grid gives there, which nobody could know."""


def detectors(rows: Sequence[Row]) -> str:
    """Return the detectors side by side."""
    head = ["detector", *(title.strip() for title, _, _ in _FIGURES), "µs/row", "state, bytes"]
    body = [
        [
            row.name, *(number(row.figures.get(key), digits) for _, key, digits in _FIGURES),
            number(row.us_per_row, 1), "-" if row.state_bytes is None else f"{row.state_bytes:,}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, body)


def budgets(shares: Sequence[Share], budget: float) -> str:
    """Return each kind's false alarms beside the promise."""
    body = [
        [
            one.kind, f"{one.series}", f"{one.days:.0f}", f"{one.false}", number(one.per_day, 3),
            f"{one.days * budget:.1f}", number(one.per_day / budget, 1),
            "yes" if one.per_day <= FACTOR * budget else "NO",
        ]
        for one in shares
    ]  # fmt: skip
    head = ["kind", "series", "days", "false", "a series-day", "promised at most", "times the budget", "within 3 times"]
    return table(head, body)


def transfer(folds: Sequence[Fold]) -> str:
    """Return what tuning on some folders gives on others."""
    body = [
        [
            one.tuned_on, one.reported_on, one.chosen, number(one.there.get("nab_standard_fixed"), 1),
            number(one.here.get("nab_standard_fixed"), 1), number(one.usual.get("nab_standard_fixed"), 1),
            number(one.best, 1), number(one.here.get("fa_per_day"), 3), number(one.usual.get("fa_per_day"), 3),
        ]
        for one in folds
    ]  # fmt: skip
    head = [
        "tuned on", "reported on", "chosen", "NAB where tuned", "NAB where reported", "untouched settings there",
        "best of the grid there", "false/series-day", "untouched",
    ]  # fmt: skip
    return table(head, body)


def ablation(rows: Sequence[Row]) -> str:
    """Return what is lost without each part; the first row is the whole."""
    whole = rows[0].figures
    keys = (("nab_standard_fixed", 1), ("ev_f1", 2), ("ev_recall", 2), ("fa_per_day", 3), ("quiet_fa_per_day", 3),
            ("auc_pr", 3))  # fmt: skip
    body = [
        [
            row.name, *(number(row.figures.get(key), digits) for key, digits in keys),
            "" if row is rows[0] else f"{row.figures['nab_standard_fixed'] - whole['nab_standard_fixed']:+.1f}",
            number(row.us_per_row, 1),
        ]
        for row in rows
    ]  # fmt: skip
    head = ["", "NAB standard, fixed", "event F1", "recall", "false/series-day", "on quiet series", "AUC-PR", "change",
            "µs/row"]  # fmt: skip
    return table(head, body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown whose columns stand below each other in plain text as well."""
    widths = [max(len(row[k]) for row in (head, *body)) for k in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (head, rule, *body))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {first.strip().ljust(widths[0])} | " + " | ".join(rest) + " |"


def number(value: float | None, digits: int) -> str:
    """Return a figure, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
