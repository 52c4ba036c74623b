"""Growth by copies of a part: the rate at each number, where the processor time went, and the drawing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil


class Step(NamedTuple):
    """What so many copies did."""

    copies: int
    rate: float
    """Orders a second."""
    shares: Mapping[str, float]
    """Microseconds of the processor an order, by part; the copies of a part together."""

    @property
    def bound(self) -> float:
        """Orders a second if every core did nothing else than this: no number of copies goes beyond it here."""
        return (psutil.cpu_count() or 1) * 1e6 / sum(self.shares.values())

    @property
    def used(self) -> float:
        """The share of the machine's cores that these processes had, 0 to 1."""
        return self.rate / self.bound

    def sentence(self, unit: str, alone: float) -> str:
        """Return one line of the table; `alone` is the rate of one copy, 0 when this is it."""
        shares = ", ".join(f"{name} {us:.0f}" for name, us in self.shares.items())
        growth = f"   {self.rate / alone:.2f} of one" if alone else ""
        return (
            f"{self.copies} {unit}  {self.rate:8,.0f}/s   us of the processor each: {shares}   "
            f"{self.used:.0%} of the cores, at most {self.bound:,.0f}/s on them{growth}"
        )


def processor_s(pids: Sequence[int]) -> float:
    """Return the processor time that processes have used so far, in seconds."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def draw(path: Path, panels: Sequence[tuple[str, str, Sequence[Step]]]) -> None:
    """Draw for each panel (title, unit, steps) the rates above and the processor time below, as SVG.

    The same figures give the same bytes.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "tapewatch", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(2, len(panels), figsize=(4.6 * len(panels), 6.0), squeeze=False)
        for place, (title, unit, steps) in enumerate(panels):
            above, below, names = axes[0][place], axes[1][place], [str(step.copies) for step in steps]
            rates, bounds = [step.rate for step in steps], [step.bound for step in steps]
            above.plot(names, rates, marker="o", color="#2c7fb8", label="seen")
            above.plot(names, bounds, "--", color="#555555", label="if the cores did nothing else")
            above.set_ylim(bottom=0)
            above.set_title(title)
            above.set_ylabel("orders a second")
            above.legend(fontsize=7)
            above.grid(visible=True, alpha=0.3)
            floor = [0.0] * len(steps)
            for number, part in enumerate(steps[0].shares):
                heights = [step.shares[part] for step in steps]
                below.bar(names, heights, bottom=floor, label=part, color=f"C{number}", width=0.6)
                floor = [under + height for under, height in zip(floor, heights, strict=True)]
            below.set_xlabel(unit)
            below.set_ylabel("µs of the processor an order")
            below.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
