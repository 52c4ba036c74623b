"""Contests on the yardstick: detectors side by side, the budget kind by kind, tuning on some folders for others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from control.yardstick import Contestant, Labelled, Output, Scratch, Yard, outputs_of
from control.yardstick_table import Fold, Row, Share

HALVES = (
    ("artificialNoAnomaly", "artificialWithAnomaly", "realAWSCloudwatch", "realTweets"),
    ("realAdExchange", "realKnownCause", "realTraffic"),
)
"""Two parts of the Numenta Anomaly Benchmark with about as many windows each."""
TUNED = "nab"
"""The group whose folders are split."""


class Contest:
    """Runs detectors over all series of a yardstick, each once, and gives their figures."""

    def __init__(self, yard: Yard, *, jobs: int, scratch: Scratch | None = None, say: Callable[[str], None]) -> None:
        """Read all series; `say` hears how far it is."""
        self._yard, self._jobs, self._scratch, self._say = yard, jobs, scratch, say
        self.series: list[Labelled] = list(yard.series())

    def outputs(
        self, contestant: Contestant, *, sources: Sequence[Path] = (), group: str | None = None
    ) -> dict[str, Output]:
        """Run a detector over a group, or all series; one whose `sources` did not change is run once and kept."""
        series = [one for one in self.series if group is None or one.group == group]
        if self._scratch is not None and sources:
            found = self._scratch.outputs_of(contestant, series, sources=sources, jobs=self._jobs)
        else:
            found = outputs_of(contestant, series, jobs=self._jobs)
        self._say(f"{contestant.name}: {sum(one.seconds for one in found.values()):.0f} s of one core")
        return found

    def row(
        self, name: str, outputs: Mapping[str, Output], group: str, *, whole: bool, state_bytes: int | None = None
    ) -> Row:
        """Return the figures of a detector over a group; `whole` takes minutes and adds what ranks."""
        mine = [outputs[one.id] for one in self.series if one.group == group and one.id in outputs]
        # The first series pays for compiling and for cold caches: the median is what a row costs.
        cost = statistics.median(1e6 * one.seconds / max(1, len(one.score)) for one in mine) if mine else 0.0
        return Row(name, self._yard.figures(outputs, group=group, whole=whole), cost, state_bytes)

    def shares(self, outputs: Mapping[str, Output]) -> list[Share]:
        """Return the false alarms of every kind of series, and of each group in all."""
        found: list[Share] = []
        for group in self._yard.groups():
            for kinds in [*([kind] for kind in self._yard.kinds(group)), []]:
                figures = self._yard.figures(outputs, group=group, kinds=kinds, tuned=False)
                name = f"{group}: {kinds[0]}" if kinds else f"**{group}, all**"
                found.append(Share(name, int(figures["series"]), figures["days"], int(figures["false"])))
        return found

    def transfer(self, grid: Sequence[tuple[str, Mapping[str, Output]]]) -> list[Fold]:
        """Choose on some folders and report on the others: halves both ways, then each folder by all others.

        Args:
            grid: names and outputs; the first are the settings as they are.
        """
        kinds = self._yard.kinds(TUNED)
        splits: list[tuple[Sequence[str], Sequence[str]]] = []
        if all(set(half) <= set(kinds) for half in HALVES):
            splits += [(HALVES[0], HALVES[1]), (HALVES[1], HALVES[0])]
        # A folder without a window has nothing to report.
        shown = [
            kind
            for kind in kinds
            if not math.isnan(self._yard.figures({}, group=TUNED, kinds=[kind])["nab_standard_fixed"])
        ]
        splits += [(tuple(one for one in kinds if one != left), (left,)) for left in shown]
        return [self._fold(grid, there, here) for there, here in splits]

    def _fold(
        self, grid: Sequence[tuple[str, Mapping[str, Output]]], there: Sequence[str], here: Sequence[str]
    ) -> Fold:
        tuned = [self._yard.figures(outputs, group=TUNED, kinds=there, tuned=False) for _, outputs in grid]
        reported = [self._yard.figures(outputs, group=TUNED, kinds=here, tuned=False) for _, outputs in grid]
        best = max(range(len(grid)), key=lambda index: tuned[index]["nab_standard_fixed"])
        return Fold(
            tuned_on=_named(there), reported_on=_named(here), chosen=grid[best][0], there=tuned[best],
            here=reported[best], usual=reported[0], best=max(one["nab_standard_fixed"] for one in reported),
        )  # fmt: skip


def _named(kinds: Sequence[str]) -> str:
    short = [kind.removeprefix("real") for kind in kinds]
    return ", ".join(short) if len(short) <= max(len(half) for half in HALVES) else f"the {len(short)} others"
