"""A process's metrics in Prometheus's text format: the catalogue's metrics of one role, and facts of the process.

The cells are our own (an addition costs a fraction of a locked child's), and so is their text, for every process is
asked for it each second. It equals `prometheus_client`'s byte for byte, which tells the facts of the process. A cell is
written from one event loop; nothing here promises more.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from monitor.catalog import BY_NAME, LABEL_VALUES, MAX_LABEL_VALUES, OTHER, Kind, Metric, Role, of

OPENMETRICS: Final = "application/openmetrics-text"
MAX_LABEL_CHARACTERS: Final = 120
"""No name of ours comes near it; what is longer is an attack or a mistake."""
_GO_DIFFERS: Final = 1_000_000
_FRESH_S: Final = 1.0
_WORTH_SORTING: Final = 8
"""Values in a batch; below, a search each is the cheaper way."""


class CountCell:
    """One counter series."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1) -> None:
        """Add `amount`, which is not negative."""
        assert amount >= 0, "a counter only grows"
        self.value += amount


class LevelCell:
    """One gauge series; None: left out."""

    __slots__ = ("value",)

    def __init__(self, value: float | None = None) -> None:
        self.value = value

    def set(self, value: float) -> None:
        """Let the series be `value`."""
        self.value = value

    def unset(self) -> None:
        """Leave the series out until it is set again."""
        self.value = None


class SpreadCell:
    """One histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[Callable[[], str], float, float]] = {}
        """Of a bucket, the latest example: who tells its trace id, its value, and when it was."""

    def observe(self, value: float, exemplar: Callable[[], str] | None = None) -> None:
        """Count one value; `exemplar` tells the trace id of an example of it."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        if exemplar is not None:
            self.exemplars[place] = (exemplar, value, time.time())

    def observe_same(self, value: float, times: int, exemplar: Callable[[], str] | None = None) -> None:
        """Count one value several times."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += times
        self.total += value * times
        if exemplar is not None:
            self.exemplars[place] = (exemplar, value, time.time())

    def wants_exemplar(self, value: float) -> bool:
        """Tell whether the bucket of a value has no exemplar of the last second."""
        found = self.exemplars.get(bisect_left(self.bounds, value))
        return found is None or time.time() - found[2] >= _FRESH_S

    def observe_many(self, values: Sequence[float]) -> None:
        """Count a batch of values."""
        bounds, counts = self.bounds, self.counts
        if len(values) < _WORTH_SORTING:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        else:
            # A batch lies in few buckets: in order, each is one search for its end instead of one search a value.
            ranked = sorted(values)
            begin, end = 0, len(ranked)
            while begin < end:
                place = bisect_left(bounds, ranked[begin])
                beyond = bisect_right(ranked, bounds[place], begin) if place < len(bounds) else end
                counts[place] += beyond - begin
                begin = beyond
        self.total += sum(values)

    def cumulative(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Return the buckets as Prometheus wants them: upper bound as text, number of values up to it, an example."""
        counted: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        reached = 0
        for place, (bound, count) in enumerate(zip((*self.bounds, math.inf), self.counts, strict=True)):
            reached += count
            told, text = self.exemplars.get(place), "+Inf" if math.isinf(bound) else f"{float(bound)!r}"
            if told is None:
                counted.append((text, float(reached)))
            else:
                counted.append((text, float(reached), Exemplar({"trace_id": told[0]()}, told[1], told[2])))
        return counted


class Exporter:
    """The meter of one role (`monitor.instruments.Meter`) and its `/metrics` (`exchange.ports.Exposition`).

    Metrics of other roles are refused: a process exports what the catalogue says and nothing else.
    """

    def __init__(self, role: Role, *, process: bool = True) -> None:
        self._role = role
        self._metrics = tuple(of(role))
        self._cells: dict[tuple[str, ...], CountCell | LevelCell | SpreadCell] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}
        self._before_read: list[Callable[[], None]] = []
        for metric in self._metrics:
            self._start(metric)
        self._registry = CollectorRegistry(auto_describe=False)
        if process:
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)

    @property
    def content_type(self) -> str:
        """The media type of `render`."""
        return CONTENT_TYPE_LATEST

    def render(self) -> bytes:
        """Return every metric of this process in Prometheus's text format."""
        return self._text(openmetrics_form=False) + generate_latest(self._registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return every metric and the media type: OpenMetrics with exemplars when the `Accept` header asks for it."""
        if OPENMETRICS in accept:
            facts: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return self._text(openmetrics_form=True) + facts, openmetrics.CONTENT_TYPE_LATEST
        return self.render(), self.content_type

    def count(self, name: str, *labels: str) -> CountCell:
        """Return a counter's cell. A label value outside the bounded set becomes `other`."""
        cell = self._cells.get((name, *labels)) or self._bind(name, Kind.COUNTER, labels)
        assert isinstance(cell, CountCell), f"{name} is not a counter"
        return cell

    def level(self, name: str, *labels: str) -> LevelCell:
        """Return a gauge's cell. A label value outside the bounded set becomes `other`."""
        cell = self._cells.get((name, *labels)) or self._bind(name, Kind.GAUGE, labels)
        assert isinstance(cell, LevelCell), f"{name} is not a gauge"
        return cell

    def spread(self, name: str) -> SpreadCell:
        """Return a histogram's cell."""
        cell = self._cells.get((name,)) or self._bind(name, Kind.HISTOGRAM, ())
        assert isinstance(cell, SpreadCell), f"{name} is not a histogram"
        return cell

    def before_read(self, count: Callable[[], None]) -> None:
        """Call `count` before each page."""
        self._before_read.append(count)

    def drop(self, name: str, *labels: str) -> None:
        """Forget one labelled series, such as that of a workload that is gone."""
        self._cells.pop((name, *labels), None)

    def written(self) -> Sequence[Metric]:
        """Return the metrics that are written from cells: all of the role's."""
        return self._metrics

    def _text(self, *, openmetrics_form: bool) -> bytes:
        """Return the catalogue's metrics, in its order."""
        for count in self._before_read:
            count()
        series: dict[str, list[tuple[tuple[str, ...], CountCell | LevelCell | SpreadCell]]] = {}
        for (name, *values), cell in list(self._cells.items()):
            series.setdefault(name, []).append((tuple(values), cell))
        lines: list[str] = []
        for metric in self.written():
            lines.append(_heading(metric, openmetrics_form=openmetrics_form))
            for labels, cell in series.get(metric.name, ()):
                if isinstance(cell, SpreadCell):
                    lines += _histogram(metric.name, cell, examples=openmetrics_form)
                elif cell.value is not None:
                    lines.append(f"{metric.name}{_labels(tuple(metric.labels), labels)} {_number(cell.value)}\n")
        return "".join(lines).encode()

    def _start(self, metric: Metric) -> None:
        """Export from the start what is known from the start, so that a first event is seen as a rise."""
        if not metric.labels:
            self._cells[(metric.name,)] = _new_cell(metric)
        elif len(metric.labels) == 1:
            for value in LABEL_VALUES.get((metric.name, metric.labels[0]), ()):
                self._cells[(metric.name, value)] = _new_cell(metric)

    def _bind(self, name: str, kind: Kind, labels: tuple[str, ...]) -> CountCell | LevelCell | SpreadCell:
        metric = BY_NAME.get(name)
        assert metric is not None, f"{name} is not in the catalogue"
        assert metric.role in {self._role, None}, f"{name} belongs to {metric.role}, this process is {self._role}"
        assert metric.kind is kind, f"{name} is a {metric.kind}, not a {kind}"
        assert len(labels) == len(metric.labels), f"{name} has the labels {metric.labels}, not {len(labels)} values"
        bounded = tuple(self._bounded(name, label, value) for label, value in zip(metric.labels, labels, strict=True))
        return self._cells.setdefault((name, *bounded), _new_cell(metric))

    def _bounded(self, name: str, label: str, value: str) -> str:
        closed = LABEL_VALUES.get((name, label))
        if closed is not None:
            return value if value in closed else OTHER
        value = bounded_label(value)
        seen = self._seen.setdefault((name, label), set())
        if value not in seen and len(seen) >= MAX_LABEL_VALUES:
            return OTHER
        seen.add(value)
        # Enum members and other str subclasses must not differ from the plain word in a key's text.
        return str(value)


def bounded_label(value: str) -> str:
    """Return a label value any reader can bear: cut to `MAX_LABEL_CHARACTERS`, and nothing that cannot be shown."""
    cut = value[:MAX_LABEL_CHARACTERS]
    return cut if cut.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in cut)


def _new_cell(metric: Metric) -> CountCell | LevelCell | SpreadCell:
    match metric.kind:
        case Kind.COUNTER:
            return CountCell()
        case Kind.GAUGE:
            return LevelCell(None if metric.silent_until_set or metric.labels else 0.0)
        case Kind.HISTOGRAM:
            return SpreadCell(metric.buckets)


# --- the text ---------------------------------------------------------------------------------------------------------


@cache
def _heading(metric: Metric, *, openmetrics_form: bool) -> str:
    name = metric.name.removesuffix("_total") if openmetrics_form else metric.name
    told = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics_form:
        told = told.replace('"', r"\"")
    return f"# HELP {name} {told}\n# TYPE {name} {metric.kind}\n"


@lru_cache(maxsize=4096)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    # Where there is one engine no series names it. Prometheus takes an empty label for none; people would see it.
    named = (pair for pair in zip(names, values, strict=True) if pair != ("engine", ""))
    pairs = sorted((name, _escaped(value)) for name, value in named)
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """Return a number as Go writes it: below a million Python's way is the same, and quicker."""
    return repr(float(value)) if 0 <= value < _GO_DIFFERS else str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _histogram(name: str, cell: SpreadCell, *, examples: bool) -> Iterator[str]:
    reached = 0.0
    for bound, count, *example in cell.cumulative():
        reached = count
        told = ""
        if examples and example:
            (one,) = example
            told = f' # {{trace_id="{_escaped(one.labels["trace_id"])}"}} {_number(one.value)} {one.timestamp}'
        yield f'{name}_bucket{{le="{bound}"}} {_number(count)}{told}\n'
    yield f"{name}_count {_number(reached)}\n{name}_sum {_number(cell.total)}\n"


def samples(text: bytes) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Yield name, labels and value of each sample of an exposition: for tests and the terminal."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
