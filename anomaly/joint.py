"""A machine as one: many metrics of one machine or service, judged together, with the metrics to blame.

What is unusual is often not a value but a combination: work rises and the processor's use does not. So each row of a
machine's metrics is held against models of how they go together (`joint_model`), fitted again every so many rows to a
window of the past that is kept here; between two fits a row costs O(columns^2). The statistics and how they become a
score and a page are in `joint_rows`, the calibration in `joint_tail`.

>>> import numpy as np
>>> rng = np.random.default_rng(7)
>>> work = rng.gamma(5.0, 1.0, 4000)
>>> values = np.stack([work, 3 * work, 0.5 * work, np.ones(4000)], axis=1)
>>> values[:, :3] += 0.1 * rng.normal(size=(4000, 3))
>>> values[3000:3030, 1] = values[1000:1030, 1]  # as usual by itself, but not with the others
>>> said = Joint(4).run(np.arange(4000, dtype=np.int64) * 60 * 10**9, values)
>>> bool(said.alert[3000:3005].any()), int(said.causes[3003, 0])
(True, 1)
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anomaly import joint_keep, joint_model, joint_rows
from anomaly.detector import NO_SLOT, THRESHOLD, Channel, Verdict
from anomaly.joint_model import Floats, Model
from anomaly.joint_rows import Rows
from kernel.time import Instant

__all__ = ["DEFAULT", "Cause", "Joint", "JointFinding", "JointScore", "JointSettings", "Rows"]

FIRST_FIT: Final = 100
GROWTH: Final = 4
"""While a machine is young its models are fitted again each time its past has grown by a quarter."""


@dataclasses.dataclass(frozen=True, slots=True)
class JointSettings:
    """How a machine is judged, the same for every machine.

    `budget_per_day` is the promise: false pages of a healthy machine in a day. `window` rows are kept, one in up to
    `most_stride`; models are fitted anew every `fit_every` rows. `history` blocks of 60 rows calibrate. For
    `refractory` rows after a page only what is higher by far pages.
    """

    budget_per_day: float = 0.25
    window: int = 1024
    most_stride: int = 16
    fit_every: int = 480
    history: int = 336
    refractory: int = 180


DEFAULT: Final = JointSettings()


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """A metric to blame: its column, its value and the range expected of it, given all the others."""

    column: int
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class JointFinding:
    """An anomaly of a machine in words; the caller knows the columns' names."""

    at: Instant
    causes: tuple[Cause, ...]
    channel: Channel = Channel.JOINT

    def sentence(self, names: list[str] | None = None) -> str:
        """Return the finding as a sentence, with the columns' names if given."""
        if not self.causes:
            return "the metrics together are as they never were"
        parts = []
        for cause in self.causes:
            name = names[cause.column] if names else f"column {cause.column}"
            value = "no value" if np.isnan(cause.value) else f"{cause.value:.4g}"
            wanted = f"{cause.low:.4g}" if cause.low == cause.high else f"{cause.low:.4g} to {cause.high:.4g}"
            inside = cause.low <= cause.value <= cause.high
            parts.append(f"{name} {value}, {'within' if inside else 'expected'} {wanted} given the others")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class JointScore:
    """What is said of one row: as `detector.Score`, for a machine. `t2` and `spe` are the statistics of the PCA."""

    at: Instant
    score: float
    alert: bool
    episode: bool
    verdict: Verdict
    causes: tuple[int, ...]
    t2: float
    spe: float
    finding: JointFinding | None = None


class Joint:
    """The joint view of one machine: streaming, bounded state, one row at a time in time's order.

    The first score comes after 100 rows. Until some 1,500 rows are seen (a day at one minute) only a metric three times
    its usual range outside all it was may page. A missing value (NaN, infinite) leaves its metric out of that row.

    Raises:
        ValueError: fewer than one column, or rows of another width than the machine has.
    """

    def __init__(self, columns: int, settings: JointSettings = DEFAULT) -> None:
        if columns < 1:
            raise ValueError(f"a machine has at least one metric, not {columns}")
        self.columns = columns
        self.settings = settings
        self.restart()

    def restart(self) -> None:
        """Forget the past, as after a deploy that changes what is normal."""
        each = self.settings
        self._state = joint_rows.fresh(self.columns, each.window, each.history, FIRST_FIT, each.budget_per_day)
        blank = joint_model.blank(self.columns)
        self._models: tuple[Model, Model, Model] = (blank, blank, blank)

    def run(self, at: NDArray[np.int64], values: Floats) -> Rows:
        """Score many rows in order, as `update` would one by one; `at` in nanoseconds, `values` (rows, columns)."""
        at, values = np.ascontiguousarray(at, dtype=np.int64), np.ascontiguousarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape != (len(at), self.columns):  # noqa: PLR2004 - rows and columns
            raise ValueError(
                f"{len(at)} stamps of {self.columns} metrics do not go with values of shape {values.shape}"
            )
        rows = len(at)
        out = Rows(
            np.zeros(rows), np.zeros(rows, dtype=np.bool_), np.zeros(rows, dtype=np.bool_),
            np.zeros(rows, dtype=np.int8), np.full((rows, joint_rows.CAUSES), NO_SLOT, dtype=np.int32),
            np.full((rows, 2), np.nan),
        )  # fmt: skip
        row, counts = 0, self._state.counts
        limits = (self.settings.most_stride, self.settings.refractory)
        while row < rows:
            row = joint_rows.advance(self._state, self._models, at, values, out, row, limits)
            if counts[joint_rows.ROWS] >= counts[joint_rows.NEXT_FIT]:
                self._fit()
        return out

    def update(self, at: Instant, values: Floats) -> JointScore:
        """Score one row and learn from it; NaN for a metric without a value."""
        values = np.asarray(values, dtype=np.float64)
        said = self.run(np.array([at], dtype=np.int64), values[None, :])
        score, causes = float(said.score[0]), tuple(int(each) for each in said.causes[0] if each >= 0)
        finding = None
        if score >= THRESHOLD:
            low, high = joint_model.expected(self._models[0], values)
            parts = tuple(Cause(each, float(values[each]), float(low[each]), float(high[each])) for each in causes)
            finding = JointFinding(at, parts)
        return JointScore(
            at, score, bool(said.alert[0]), bool(said.episode[0]), Verdict(int(said.verdict[0])), causes,
            float(said.statistics[0, 0]), float(said.statistics[0, 1]), finding,
        )  # fmt: skip

    def feedback(self, *, false_alarm: bool) -> None:
        """Learn what a person says of the last page: half the budget from now on, or step by step as before."""
        levels, promised = self._state.levels, self.settings.budget_per_day
        factor = 0.5 if false_alarm else 2.0
        levels[joint_rows.BUDGET] = min(promised, max(promised / 8, levels[joint_rows.BUDGET] * factor))

    def save(self) -> bytes:
        """Return the whole state: versioned, no code in it, restored bit for bit by `restore`."""
        facts = {"columns": self.columns, "settings": dataclasses.asdict(self.settings)}
        arrays = {f"state.{name}": array for name, array in self._state._asdict().items()}
        for number, model in enumerate(self._models):
            arrays |= {f"model{number}.{name}": array for name, array in model._asdict().items()}
        return joint_keep.packed(facts, arrays)

    @classmethod
    def restore(cls, kept: bytes) -> Joint:
        """Return the machine that `save` kept.

        Raises:
            ValueError: the bytes are none of these, of another version, or damaged.
        """
        facts, arrays = joint_keep.unpacked(kept)
        joint = cls(int(facts["columns"]), JointSettings(**facts["settings"]))
        joint._state = joint_rows.State(**_fitting(arrays, "state.", joint._state._asdict()))
        models = [Model(**_fitting(arrays, f"model{n}.", joint._models[n]._asdict())) for n in range(3)]
        joint._models = (models[0], models[1], models[2])
        return joint

    def _fit(self) -> None:
        counts = self._state.counts
        filled, rows = int(counts[joint_rows.FILLED]), int(counts[joint_rows.ROWS])
        plain, fast, slow = (np.ascontiguousarray(self._state.ring[each, :filled]) for each in range(3))
        self._models = (
            joint_model.fit(plain), joint_model.fit(fast, components=False), joint_model.fit(slow, components=False),
        )  # fmt: skip
        counts[joint_rows.FITTED] += 1
        counts[joint_rows.NEXT_FIT] = rows + min(self.settings.fit_every, max(FIRST_FIT // 2, rows // GROWTH))


def _fitting(arrays: dict[str, NDArray[Any]], start: str, wanted: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the arrays whose names begin with `start`, each of the kind and shape that is wanted."""
    found = {}
    for name, like in wanted.items():
        array = arrays.get(start + name)
        if array is None or array.dtype != like.dtype or array.shape != like.shape:
            raise ValueError(f"the kept state of a machine has no fitting {start}{name}")
        found[name] = array
    return found
