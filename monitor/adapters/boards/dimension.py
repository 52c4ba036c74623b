"""What an expression measures, from the units of its metrics: seconds, bytes a second, a plain number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from monitor.adapters.boards.tree import Call, Number, Pair, Select, Tree, parse, walk
from monitor.catalog import BY_NAME, Kind, Metric

Dimension = tuple[tuple[str, int], ...]
"""Base units with their powers, sorted; empty for a plain number."""
PLAIN: Final[Dimension] = ()
SECONDS: Final[Dimension] = (("seconds", 1),)
PER_SECOND: Final[Dimension] = (("seconds", -1),)
_UNITS: Final[Mapping[str, Dimension]] = {
    "seconds": SECONDS,
    "seconds since the epoch": SECONDS,
    "bytes": (("bytes", 1),),
    "lots": (("lots", 1),),
    "ticks": (("ticks", 1),),
    "ticks times lots": (("lots", 1), ("ticks", 1)),
}
GRAFANA: Final[Mapping[str, Dimension]] = {
    "s": SECONDS, "bytes": (("bytes", 1),), "Bps": (("bytes", 1), ("seconds", -1)),
    "ops": PER_SECOND, "reqps": PER_SECOND, "pps": PER_SECOND, "short": PLAIN, "percentunit": PLAIN,
    "suffix: lots": (("lots", 1),), "suffix: lots/s": (("lots", 1), ("seconds", -1)), "suffix: ticks": (("ticks", 1),),
    "suffix: ticks·lots": (("lots", 1), ("ticks", 1)),
}  # fmt: skip
"""The units of Grafana that boards may use."""
_RATES: Final = frozenset({"rate", "irate", "deriv"})
_COUNTS: Final = frozenset({"count", "count_over_time", "absent", "absent_over_time", "group", "changes", "resets"})
_COMPARE: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})


def metric_of(name: str) -> Metric | None:
    """Return the catalogue's metric that a series' name belongs to."""
    found = BY_NAME.get(name)
    if found is not None:
        return found
    for suffix in ("_bucket", "_sum", "_count"):
        base = BY_NAME.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base is not None and base.kind is Kind.HISTOGRAM:
            return base
    return None


def told(dimension: Dimension) -> str:
    """Return a dimension in words."""
    over = "·".join(f"{unit}^{power}" if power > 1 else unit for unit, power in dimension if power > 0)
    under = "·".join(unit for unit, power in dimension if power < 0)
    return (over or "count") + (f" per {under}" if under else "") if dimension else "a plain number"


def _product(left: Dimension, right: Dimension, sign: int) -> Dimension:
    powers = dict(left)
    for unit, power in right:
        powers[unit] = powers.get(unit, 0) + sign * power
    return tuple(sorted((unit, power) for unit, power in powers.items() if power))


@dataclass
class Measure:
    """Finds what expressions measure; `recorded` are the expressions behind recorded series."""

    recorded: Mapping[str, str]
    troubles: list[str] = field(default_factory=list)
    """Sums and comparisons of unlike units, met on the way."""

    def of(self, tree: Tree) -> Dimension | None:
        """Return what a tree measures; None for what any unit fits: a literal."""
        match tree:
            case Number():
                return None
            case Select():
                return self._series(tree.name)
            case Call():
                return self._call(tree)
            case Pair():
                return self._pair(tree)

    def _series(self, name: str) -> Dimension:
        if ":ratio" in name:  # the name of a recorded series ends with its operation
            return PLAIN
        if name in self.recorded:
            return (
                Measure({key: text for key, text in self.recorded.items() if key != name}).of(
                    parse(self.recorded[name])
                )
                or PLAIN
            )
        metric = metric_of(name)
        if metric is not None:
            if name != metric.name and name.endswith(("_bucket", "_count")):
                return PLAIN
            return PER_SECOND if name.endswith("_per_second") else _UNITS.get(metric.unit, PLAIN)
        if name.endswith(("_bucket", "_count")):
            return PLAIN
        base = name.removesuffix("_total").removesuffix("_sum")
        return next((_UNITS[unit] for unit in ("seconds", "bytes") if base.endswith(f"_{unit}")), PLAIN)

    def _call(self, call: Call) -> Dimension | None:
        if call.name == "time":
            return SECONDS
        if call.name in _COUNTS:
            return PLAIN
        if call.name == "histogram_quantile":
            return self.axis(call)
        found = [self.of(part) for part in call.inner]
        last = next((one for one in reversed(found) if one is not None), None)  # the number of `clamp_min` has none
        if call.name == "timestamp":
            return SECONDS
        if call.name in _RATES and last is not None:
            return _product(last, SECONDS, -1)
        return last

    def axis(self, tree: Tree) -> Dimension:
        """Return what the histogram under a tree measures: the unit of its quantiles, and of a heatmap's axis."""
        names = (part.name for part, _ in walk(tree) if isinstance(part, Select))
        return next((self._series(name.removesuffix("_bucket") + "_sum") for name in names), PLAIN)

    def _pair(self, pair: Pair) -> Dimension | None:
        left, right = self.of(pair.left), self.of(pair.right)
        if pair.sign in {"*", "/"}:
            return _product(left or PLAIN, right or PLAIN, 1 if pair.sign == "*" else -1)
        if pair.sign in {"and", "unless", "^", "%"}:
            return left
        if left is not None and right is not None and left != right:
            verb = {"+": "adds", "-": "subtracts", "or": "mixes"}.get(pair.sign, "compares")
            self.troubles.append(f"{verb} {told(left)} and {told(right)}")
        return right if left is None and pair.sign not in _COMPARE else left
