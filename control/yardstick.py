"""The open yardstick of the detectors: labelled series that lie outside the project, and what scores them.

Nothing of the data is part of the project. It is looked for where TAPEWATCH_ANOMALY_DATA says, else as
`shared/data/nab` beside the checkout or beside any folder above it: a folder with `manifest.json`, its series, and
`tools/score.py` beside or above it. The figures are made by that program, at the one fixed threshold. A detector is
given times and values only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import THRESHOLD
from control.series_files import SeriesFile
from control.series_joint import FileDetector
from kernel.errors import InputError

VARIABLE: Final = "TAPEWATCH_ANOMALY_DATA"
BESIDE: Final = Path("shared") / "data" / "nab"
SCORER: Final = Path("tools") / "score.py"
PROFILES: Final = ("standard", "low_fp", "low_fn")


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """One series of the yardstick: what the detector may see, and how the scorer knows it."""

    id: str
    group: str
    kind: str
    """A finer group: the folder it comes from, or what it measures."""
    at: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Contestant:
    """A detector under its name.

    `make` is called anew for every series with the number of its columns, and can be sent to another process.
    """

    name: str
    make: Callable[[int], FileDetector]


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """What a detector said of one series."""

    score: NDArray[np.float64]
    alert: NDArray[np.bool_]
    seconds: float


class Yard:
    """The data and its scorer, found and read once."""

    def __init__(self, folder: Path, scorer: Path) -> None:
        """Read the manifest and the scorer; the series are read as they are asked for.

        Raises:
            InputError: the manifest is none.
        """
        self.folder, self.scorer = folder, scorer
        try:
            self.manifest: Mapping[str, Any] = json.loads((folder / "manifest.json").read_text())
            self._entries = {str(one["id"]): one for one in self.manifest["series"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(str(folder / "manifest.json"), f"is no manifest of series ({error})") from error
        self._whole = _module(scorer)
        self._cheap = _module(scorer)
        # The volume under the surface takes minutes; who wants only what pages does without.
        self._cheap.vus_pr = lambda *_: float("nan")  # type: ignore[attr-defined]

    def kinds(self, group: str) -> list[str]:
        """Return the finer groups within a group, sorted."""
        return sorted({kind_of(one) for one in self._entries.values() if one["group"] == group})

    def groups(self) -> list[str]:
        """Return the groups of series, sorted."""
        return sorted({str(one["group"]) for one in self._entries.values()})

    def series(self, group: str | None = None) -> Iterator[Labelled]:
        """Yield the series with their values.

        Raises:
            InputError: a file is not what the manifest says.
        """
        for one in self._entries.values():
            if group is not None and one["group"] != group:
                continue
            at, values = read(self.folder / str(one["file"]))
            if len(at) != one["n"]:
                raise InputError(str(one["file"]), f"has {len(at)} rows, the manifest says {one['n']}")
            yield Labelled(str(one["id"]), str(one["group"]), kind_of(one), at, values)

    def figures(
        self,
        outputs: Mapping[str, Output],
        *,
        group: str | None = None,
        kinds: Sequence[str] = (),
        whole: bool = False,
        tuned: bool = True,
    ) -> dict[str, float]:
        """Return the scorer's figures for a group of series, or some kinds of it, at the fixed threshold.

        `nab_*` (without `_fixed`) are at the best threshold over the corpus: of the scores where there was an alert, or
        of all scores when that is better, because a detector may be tuned either way. `whole` adds what ranks.
        """
        chosen = self._chosen(group, kinds)
        module = self._whole if whole else self._cheap
        corpus, rows = module.evaluate(chosen, lambda sid, n: _paged(outputs.get(sid), n), THRESHOLD)
        if not any(row["events"] for row in rows):  # no window to find: there is nothing but false alarms to tell
            return _quiet(rows)
        found: dict[str, float] = {key: float(value) for key, value in module.summary(corpus, rows, THRESHOLD).items()}
        if tuned:
            raw, raw_rows = self._cheap.evaluate(chosen, lambda sid, n: _ranked(outputs.get(sid), n), THRESHOLD)
            best = self._cheap.summary(raw, raw_rows, THRESHOLD)
            for profile in PROFILES:
                found[f"nab_{profile}"] = max(found[f"nab_{profile}"], float(best[f"nab_{profile}"]))
        return found | _counts(rows)

    def _chosen(self, group: str | None, kinds: Sequence[str]) -> dict[str, Any]:
        return {
            "series": [
                one for one in self._entries.values()
                if (group is None or one["group"] == group) and (not kinds or kind_of(one) in kinds)
            ]
        }  # fmt: skip


def find_yard(start: Path | None = None) -> Yard:
    """Find the data and the scorer.

    Args:
        start: where the search for a folder beside begins; else the folder of the project.

    Raises:
        InputError: there is none, and how to name one.
    """
    named = os.environ.get(VARIABLE, "")
    begin = start or Path(__file__).resolve().parent.parent
    places = [Path(named)] if named else [above / BESIDE for above in (begin, *begin.parents)]
    for folder in places:
        if (folder / "manifest.json").is_file():
            near = [above / SCORER for above in (folder.resolve(), *folder.resolve().parents)]
            near += [above / BESIDE.parts[0] / SCORER for above in (begin, *begin.parents)]
            scorer = next((path for path in near if path.is_file()), None)
            if scorer is None:
                raise InputError(str(folder), f"has no {SCORER} beside or above it to score it by")
            return Yard(folder, scorer)
    right = f"set {VARIABLE} to a folder with manifest.json and its series, or put it at {BESIDE} beside the project"
    raise InputError(named or "the labelled series", "are not here", right=right)


def kind_of(entry: Mapping[str, Any]) -> str:
    """Return a series' finer group, as the manifest tells it."""
    return str(entry.get("category") or entry["group"])


def read(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all times and values of a file."""
    blocks = list(SeriesFile(path).blocks())
    return np.concatenate([block.at for block in blocks]), np.concatenate([block.values for block in blocks])


def outputs_of(contestant: Contestant, series: Sequence[Labelled], *, jobs: int = 1) -> dict[str, Output]:
    """Run a detector over series, each with a fresh one; a detector sees times and values only."""
    work = [(contestant.make, one.at, one.values) for one in series]
    if jobs <= 1:
        return {one.id: _run(job) for one, job in zip(series, work, strict=True)}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return {one.id: found for one, found in zip(series, pool.map(_run, work, chunksize=2), strict=True)}


def _run(work: tuple[Callable[[int], FileDetector], NDArray[np.int64], NDArray[np.float64]]) -> Output:
    make, at, values = work
    detector = make(values.shape[1])
    begun = time.process_time()  # of the processor: what others do on the machine is not counted
    found = detector.run(at, values)
    taken = time.process_time() - begun
    return Output(np.clip(np.nan_to_num(found.score), 0.0, 1.0), found.alert.copy(), taken)


class Scratch:
    """Outputs kept between runs, for what changes seldom; a file each, under a name that changes with the code."""

    def __init__(self, folder: Path) -> None:
        """Keep outputs in `folder`, made when there is none."""
        self._folder = folder

    def outputs_of(
        self, contestant: Contestant, series: Sequence[Labelled], *, sources: Sequence[Path], jobs: int = 1
    ) -> dict[str, Output]:
        """Return kept outputs of a detector whose code is in `sources`, or run it and keep them."""
        digest = hashlib.sha256(contestant.name.encode())
        for path in sorted(sources):
            digest.update(path.read_bytes())
        for one in series:
            digest.update(one.id.encode() + one.at.tobytes() + one.values.tobytes())
        kept = self._folder / f"{contestant.name}-{digest.hexdigest()[:16]}.npz"
        if kept.exists():
            with np.load(kept, allow_pickle=False) as held:
                return {
                    one.id: Output(held[f"s{k}"], held[f"a{k}"], float(held["t"][k])) for k, one in enumerate(series)
                }
        found = outputs_of(contestant, series, jobs=jobs)
        arrays: dict[str, NDArray[Any]] = {"t": np.array([found[one.id].seconds for one in series])}
        for k, one in enumerate(series):
            arrays[f"s{k}"], arrays[f"a{k}"] = found[one.id].score, found[one.id].alert
        self._folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npz")
        np.savez_compressed(part, allow_pickle=False, **arrays)
        part.replace(kept)
        return found


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        "false": float(sum(row["false"] for row in rows)), "days": float(sum(row["days"] for row in rows)),
        "quiet_series": float(sum(not row["events"] for row in rows)),
    }  # fmt: skip


def _quiet(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts = _counts(rows)
    rate = counts["false"] / counts["days"] if counts["days"] > 0 else float("nan")
    # Nothing to find: a detector that is silent loses nothing and gains nothing.
    nab = {f"nab_{profile}{kind}": float("nan") for profile in PROFILES for kind in ("", "_fixed")}
    return {"series": float(len(rows)), "fa_per_day": rate, "quiet_fa_per_day": rate, **nab, **counts}


def _paged(output: Output | None, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    if output is None:
        return np.zeros(count), np.zeros(count), False
    return output.score, np.where(output.alert, np.maximum(output.score, THRESHOLD), 0.0), True


def _ranked(output: Output | None, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    if output is None:
        return np.zeros(count), np.zeros(count), False
    return output.score, output.score, True


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"yardstick_scorer_{id(path)}", path)
    if spec is None or spec.loader is None:
        raise InputError(str(path), "cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # its folder is not ours to write to
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module
