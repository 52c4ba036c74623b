"""Write seeded, labelled series and machines of kinds that no open corpus holds, to see whether a threshold transfers.

    python bench/made_series.py OUT [--seed N ...] [--group NAME ...]

OUT gets `series/*.csv.gz` (`timestamp,value`, a machine `timestamp,m00,m01,...`, an empty field where a scrape was
missed) and `manifest.json`: id, file, group, rows, columns, seconds between rows, the first scored row, events as
[first row, last row] with kinds and, for machines, the causing columns. The same seed writes the same bytes.
Detectors are not to be tuned to single series of it.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.parts import made_machines, made_series_kinds
from bench.parts.made_shapes import Made

GROUPS = ("server5", "server1", "requests", "session", "machine")


def entry(made: Made) -> dict[str, Any]:
    """Return what the manifest says of a series."""
    rows, columns = made.values.shape
    return {
        "id": made.name, "file": f"series/{made.name}.csv.gz", "group": made.group, "category": made.category,
        "n": rows, "dims": columns, "interval_s": 60.0 * made.step, "scored_from": made.scored_from,
        "events": [[event.first, event.last] for event in made.events],
        "kinds": [event.kind for event in made.events],
        "causes": [list(event.causes) for event in made.events],
        "vus_window": max(12, 60 // made.step),
        "merge_gap": 5,
    }  # fmt: skip


def text(made: Made) -> str:
    """Return the series as CSV."""
    rows, columns = made.values.shape
    names = ["value"] if columns == 1 else [f"m{index:02d}" for index in range(columns)]
    start = np.datetime64(made.start.replace(" ", "T"))
    at = start + np.arange(rows) * np.timedelta64(60 * made.step, "s")
    stamps = np.char.replace(np.datetime_as_string(at), "T", " ")
    out = io.StringIO()
    out.write("timestamp," + ",".join(names) + "\n")
    for stamp, values in zip(stamps.tolist(), made.values.tolist(), strict=True):
        out.write(stamp + "," + ",".join("" if value != value else f"{value:.7g}" for value in values) + "\n")  # noqa: PLR0124 - NaN
    return out.getvalue()


def write(folder: Path, seeds: list[int], groups: list[str]) -> list[Made]:
    """Write the series of the seeds and their manifest; return them."""
    (folder / "series").mkdir(parents=True, exist_ok=True)
    made = [
        made_series_kinds.make(seed, group, kind, number)
        for seed in seeds
        for group, kind, number in made_series_kinds.EVERYTHING
        if group in groups
    ]
    if "machine" in groups:
        made += [made_machines.make(seed, number, columns) for seed in seeds
                 for number, columns in made_machines.EVERYTHING]  # fmt: skip
    for each in made:
        (folder / "series" / f"{each.name}.csv.gz").write_bytes(gzip.compress(text(each).encode(), 1, mtime=0))
    manifest = {"name": "made", "series": [entry(each) for each in made]}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="folder to write; without it a temporary one, only counted")
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--group", choices=GROUPS, nargs="+", default=list(GROUPS))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = write(chosen.out or Path(scratch), chosen.seed, chosen.group)
    for group in chosen.group:
        mine = [each for each in made if each.group == group]
        rows, events = sum(len(each.values) for each in mine), sum(len(each.events) for each in mine)
        print(f"{group:<10} {len(mine):3} series, {rows:8,} rows, {events:4} events")


if __name__ == "__main__":
    main()
