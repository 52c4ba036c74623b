"""Detectors on the open yardstick and on the clock: ours beside well-known ones, budget, transfer, ablation, speed.

    python bench/detectors.py [--whole] [--jobs N] [--to FILE]

Without options what takes a minute or two; `--whole` (make bench-anomaly) everything, and writes bench/anomaly.md.
The labelled series are no part of the project (control/yardstick.py says where they are looked for); without them only
speed is measured. Outputs of the baselines are kept in a scratch folder until their code or the data changes.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly.baselines import BASELINES
from anomaly.settings import Settings
from bench import made_series
from bench.parts.anomaly_healthy import DAYS, SEEDS, healthy
from bench.parts.anomaly_speed import speed, state_bytes
from bench.parts.anomaly_variants import grid, without
from bench.parts.half_space_trees import HalfSpaceTrees
from control.series_joint import alone, ours
from control.yardstick import Contestant, Output, Scratch, Yard, find_yard
from control.yardstick_contest import TUNED, Contest
from control.yardstick_table import Share, ablation, budgets, detectors, transfer
from kernel.errors import InputError

HERE = Path(__file__).resolve().parent
SOURCES = [*(HERE.parent / "anomaly" / "baselines").glob("*.py"), HERE / "parts" / "half_space_trees.py"]
RIVALS: dict[str, Any] = {**BASELINES, "half-space-trees": HalfSpaceTrees}
QUICK = ("windowed-gaussian", "ewma", "last-value")
OURS = "tapewatch"
MACHINES = "machine"
TITLES = {
    "nab": "The Numenta Anomaly Benchmark: 58 series, 116 windows",
    "synth": "Made series that lie beside it: 14 of 14 days at one minute",
    "server5": "Made here (bench/made_series.py): metrics of servers at five minutes",
    "server1": "Made here: metrics of servers at one minute",
    "requests": "Made here: counts of requests",
    "session": "Made here: series that follow a market's session",
    "machine": "Made here: machines of several columns, scored jointly",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="everything, and write the page")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each loads the compiled code anew")
    parser.add_argument("--to", type=Path, default=HERE / "anomaly.md", help="where --whole writes")
    asked = parser.parse_args()
    speeds = speed()
    print(speeds, flush=True)
    try:
        yard = find_yard()
    except InputError as error:
        print(f"SKIPPED, all but speed: {error}")
        return
    scratch = Scratch(Path(tempfile.gettempdir()) / f"tapewatch-yardstick-{os.getuid()}")
    contest = Contest(yard, jobs=asked.jobs, scratch=scratch, say=say)
    mine = contest.outputs(Contestant(OURS, ours))
    tables = side_by_side(contest, yard.groups(), mine, list(RIVALS) if asked.whole else QUICK, whole=asked.whole)
    shares = contest.shares(mine)
    if asked.whole:
        others, more = on_made_series(yard, scratch, asked.jobs)
        tables.update(others)
        shares += more
    budget = Settings().budget_per_day
    kept = budgets(shares, budget)
    print(f"\nfalse alarms, promised at most {budget:g} a series-day\n{kept}", flush=True)
    if not asked.whole:
        return
    calm = healthy(budget)
    print(f"\nhealthy series\n{calm}", flush=True)
    lost = removed(contest, yard.groups(), mine)
    names, folds = tuned(contest, mine)
    print(*lost.values(), folds, sep="\n\n")
    sections = [(TITLES.get(group, group), text) for group, text in tables.items()]
    sections += [
        (f"False alarms against the promise of {budget:g} a series-day", kept),
        (f"Healthy series: {SEEDS} seeds of {DAYS} days of each kind, nothing to find", calm),
        ("Does tuning transfer?", f"{TRANSFER} The grid: {', '.join(names)}.\n\n{folds}"),
    ]
    sections += [(f"What each part is worth: {group}", f"{REMOVED}\n\n{text}") for group, text in lost.items()]
    sections.append(("Speed", f"Processor time of one core.\n\n{speeds}"))
    asked.to.write_text(page(sections))
    print(f"written: {asked.to}")


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def on_made_series(yard: Yard, scratch: Scratch, jobs: int) -> tuple[dict[str, str], list[Share]]:
    """Score kinds of series that nothing was tuned on: servers, requests, sessions, machines of several columns."""
    with tempfile.TemporaryDirectory() as folder:
        made_series.write(Path(folder), [1, 2], list(made_series.GROUPS))
        other = Yard(Path(folder), yard.scorer)
        contest = Contest(other, jobs=jobs, scratch=scratch, say=say)
        mine = contest.outputs(Contestant(OURS, ours))
        # Baselines know one column; on a machine's, one for each, they are slow and page for every column's noise.
        machines = [group for group in other.groups() if group == MACHINES]
        single = [group for group in other.groups() if group != MACHINES]
        tables = side_by_side(contest, single, mine, ["windowed-gaussian", "ewma"], whole=True)
        tables |= side_by_side(contest, machines, mine, [], whole=True)
        return tables, contest.shares(mine)


def side_by_side(
    contest: Contest, groups: Sequence[str], mine: Mapping[str, Output], names: Sequence[str], *, whole: bool
) -> dict[str, str]:
    outputs = {OURS: dict(mine)}
    for name in names:
        contestant = Contestant(name, functools.partial(alone, RIVALS[name]))
        outputs[name] = {}
        for group in groups:
            outputs[name] |= contest.outputs(contestant, sources=SOURCES, group=group)
    size = state_bytes()
    found = {}
    for group in groups:
        rows = [
            contest.row(name, one, group, whole=whole, state_bytes=size if name == OURS else None)
            for name, one in outputs.items()
        ]
        found[group] = detectors(rows)
        print(f"\n{group}\n{found[group]}", flush=True)
    return found


def removed(contest: Contest, groups: Sequence[str], mine: Mapping[str, Output]) -> dict[str, str]:
    outputs = {"as it is": mine}
    for name, settings in without():
        outputs[name] = contest.outputs(Contestant(name, functools.partial(ours, settings=settings)))
    return {
        group: ablation([contest.row(name, found, group, whole=False) for name, found in outputs.items()])
        for group in groups
    }


def tuned(contest: Contest, mine: Mapping[str, Output]) -> tuple[list[str], str]:
    tried = [("as it is", mine)]
    for name, settings in grid():
        contestant = Contestant(name, functools.partial(ours, settings=settings))
        tried.append((name, contest.outputs(contestant, group=TUNED)))
    return [name for name, _ in tried], transfer(contest.transfer(tried))


def page(sections: Sequence[tuple[str, str]]) -> str:
    told = [f"## {title}\n\n{text}" for title, text in sections]
    return "\n\n".join([f"# Detectors on the yardstick\n\n{HOW}", *told]) + "\n"


HOW = """\
Made by `make bench-anomaly`. Every detector runs with one set of parameters for every series, sees times and values and
no name, row by row. Figures are those of the data's own scorer over the rows after the probation, at the fixed
threshold 0.5; *tuned* is the threshold that would have been best on this corpus, which no user can know. A false alarm
is one outside every window; one that stays on counts again every four hours. Nothing of the data is kept here."""
TRANSFER = """\
Of a grid of settings, that with the best NAB standard at 0.5 on some folders is reported on the others. *Untouched* are
the settings as they are, *best of the grid there* is what nobody could know beforehand."""
REMOVED = "One part removed at a time, all else as it is."


if __name__ == "__main__":
    main()
