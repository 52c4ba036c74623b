"""Service level objectives: what is promised of a service, and the arithmetic of an error budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW: Final = "{{.window}}"
"""What a ratio's query has in the place of its window."""
MONTH_S: Final = 30 * 86_400
"""Every objective counts over the last 30 days."""
SHORT: Final = ("5m", "30m", "1h")
"""Windows that are computed from the scraped series at every turn."""
LONG: Final = ("2h", "6h", "1d", "3d", "30d")
"""Windows that are computed once a minute from sums over single minutes."""
SECONDS: Final = {
    "5m": 300, "30m": 1_800, "1h": 3_600, "2h": 7_200, "6h": 21_600, "1d": 86_400, "3d": 259_200, "30d": MONTH_S,
}  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """Events that are counted: of all in `total`, those in `part` are good, or bad."""

    part: str
    total: str
    part_is_bad: bool


@dataclass(frozen=True)
class Threshold:
    """A gauge that is looked at: the look is good while `query` `op` `value` holds."""

    query: str
    op: str
    """PromQL's comparison."""
    value: float


@dataclass(frozen=True)
class Condition:
    """When people are told: the budget burns at least `burn` times as fast as planned, over both windows."""

    name: str
    burn: float
    long: str
    short: str
    after: str
    """How long it must last."""
    severity: str
    level: str
    says: str


@dataclass(frozen=True)
class Slo:
    """One objective, as its file has it."""

    name: str
    title: str
    description: str
    service: str
    team: str
    indicator: Ratio | Threshold
    objective: float
    """Share of good events, below 1."""
    minimum_events: int
    """So many events in the long window before anybody is told."""
    conditions: tuple[Condition, ...]
    where: str
    """File and line."""

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 12)


def alert_name(slo: str, condition: str) -> str:
    """Return the name of the alert of an objective's condition, such as OrderEntryLatencyBurnsFast."""
    return "".join(word.capitalize() for word in f"{slo}-{condition}".split("-"))


def error_ratio(bad: float, total: float) -> float | None:
    """Return the share of bad events, or None when there was no event: no data is neither good nor bad."""
    return bad / total if total > 0 else None


def burn_rate(error: float, objective: float) -> float:
    """Return how many times faster than planned the budget goes; 1 uses it up in exactly 30 days."""
    return error / (1 - objective)


def budget_remaining(error: float, objective: float) -> float:
    """Return the share of the budget that is left, given the error ratio of 30 days; below 0 when overdrawn."""
    return 1 - error / (1 - objective)


def budget_used(burn: float, window: str) -> float:
    """Return the share of the month's budget that a burn rate uses up within a window."""
    return burn * SECONDS[window] / MONTH_S
