"""Series as a rule's own promtool test writes them, played in real time: how an alert is made to fire on purpose.

Nothing of the plant is broken then. The rule, Prometheus, Alertmanager, the routes and whoever is told are real; only
the numbers are made. Pure: whoever plays it brings the time.

The notation is promtool's: `1 2 _ 4` single values, `0+5x3` is `0 5 10 15`, `7x2` is `7 7 7`, `_x3` is three missing
samples, and `stale` ends a series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kernel.errors import InputError
from kernel.time import parse_duration, to_seconds

MAX_VALUES: Final = 100_000
_NUMBER: Final = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?[Ii]nf|[Nn]a[Nn]"
_RANGE: Final = re.compile(
    rf"(?P<first>{_NUMBER})(?:(?P<step>[-+](?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?))?x(?P<times>\d+)"
)
_GAP: Final = re.compile(r"_(?:x(\d+))?")
_SERIES: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<labels>.*)\})?", re.ASCII | re.DOTALL)
_LABEL: Final = re.compile(
    r"""\s*(?P<name>[a-zA-Z_]\w*)\s*=\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)')\s*(?:,|$)""",
    re.ASCII | re.DOTALL,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_CLOCKS: Final = ("_timestamp_seconds", "_timestamp", "_time_seconds", "_date_seconds")
"""Names of metrics whose value is a point in time; in a test time begins at 0."""


@dataclass(frozen=True)
class SeriesScript:
    """One series and its values; None: no sample."""

    name: str
    labels: Mapping[str, str]
    values: Sequence[float | None]
    interval_s: float

    def at(self, elapsed_s: float) -> float | None:
        """Return the value after so long; the last one stands from then on."""
        if not self.values or elapsed_s < 0:
            return None
        return self.values[min(int(elapsed_s / self.interval_s), len(self.values) - 1)]


@dataclass(frozen=True)
class AlertScript:
    """How one alert is made to fire."""

    alert: str
    series: Sequence[SeriesScript]
    fires_after_s: float
    """After so long the test expects it to fire."""
    labels: Mapping[str, str]
    """What it then bears, `alertname` left out."""
    where: str
    """The file of the test."""
    quiet: Sequence[SeriesScript] = ()
    """The series of the test that it does not fire: how it is made to end."""

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the series it needs."""
        return frozenset(one.name for one in self.series)


def parse_values(text: str) -> list[float | None]:
    """Read values in promtool's notation.

    Raises:
        InputError: a word is none of the notation's, or there are more than `MAX_VALUES` values.
    """
    values: list[float | None] = []
    for word in text.split():
        values.extend(_word(word))
        if len(values) > MAX_VALUES:
            raise InputError("values", f"are more than {MAX_VALUES}", right="write fewer, or a longer interval")
    return values


def _word(word: str) -> list[float | None]:
    gap = _GAP.fullmatch(word)
    if gap is not None:
        return [None] * _times(gap[1] or "1")
    if word == "stale":
        return [None]
    spread = _RANGE.fullmatch(word)
    if spread is not None:
        first, step = float(spread["first"]), float(spread["step"] or 0)
        return [first + step * number for number in range(_times(spread["times"]) + 1)]
    if re.fullmatch(_NUMBER, word):
        return [float(word)]
    raise InputError("values", f"{word[:40]!r} is no value", right="write 1, 0+5x10, 7x3, _x5 or stale")


def _times(text: str) -> int:
    if len(text) > len(str(MAX_VALUES)) or int(text) > MAX_VALUES:
        raise InputError("values", f"{text[:20]} repetitions", right=f"at most {MAX_VALUES}")
    return int(text)


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """Read a series such as `up{job="gateway"}` as its name and labels.

    Raises:
        InputError: it is none.
    """
    found = _SERIES.fullmatch(text.strip())
    if found is None:
        raise InputError("series", f"{text[:80]!r} is none", right='write such as up{job="gateway"}')
    labels: dict[str, str] = {}
    rest = (found["labels"] or "").strip()
    while rest:
        label = _LABEL.match(rest)
        if label is None:
            raise InputError("series", f"{rest[:40]!r} is no label", right='write such as job="gateway"')
        labels[label["name"]] = _ESCAPED.sub(
            lambda one: {"n": "\n"}.get(one[1], one[1]), label["double"] or label["single"] or ""
        )
        rest = rest[label.end() :].strip()
    return found["name"], labels


def alert_scripts(suite: Mapping[str, Any], where: str) -> Iterator[AlertScript]:
    """Yield how each alert of a promtool test file is made to fire, from its tests titled `NAME: fires`.

    Raises:
        InputError: a test is not what promtool reads.
    """
    quiet: dict[str, Sequence[SeriesScript]] = {}
    for test in suite.get("tests", []):
        alert, _, kind = str(test.get("name", "")).partition(": ")
        if kind.startswith("does not fire"):
            quiet.setdefault(alert, _series(test))
    for test in suite.get("tests", []):
        alert, _, kind = str(test.get("name", "")).partition(": ")
        fired = _first_firing(test, alert) if kind.startswith("fires") else None
        if fired is not None:
            yield AlertScript(alert, _series(test), fired[0], fired[1], where, quiet.get(alert, ()))


def _series(test: Mapping[str, Any]) -> Sequence[SeriesScript]:
    interval_s = to_seconds(parse_duration(str(test.get("interval", "1m"))))
    return [
        SeriesScript(*parse_series(str(one["series"])), parse_values(str(one["values"])), interval_s)
        for one in test.get("input_series", [])
    ]


def _first_firing(test: Mapping[str, Any], alert: str) -> tuple[float, dict[str, str]] | None:
    for case in test.get("alert_rule_test", []):
        expected = case.get("exp_alerts") or []
        if case.get("alertname") == alert and expected:
            labels = {str(name): str(value) for name, value in (expected[0].get("exp_labels") or {}).items()}
            return to_seconds(parse_duration(str(case["eval_time"]))), labels
    return None


def exposition(series: Iterable[SeriesScript], elapsed_s: float, began_s: float) -> str:
    """Return the series at `elapsed_s` in Prometheus's text format; `began_s` is when they began, since the epoch."""
    lines: dict[str, list[str]] = {}
    for one in series:
        value = one.at(elapsed_s)
        if value is None:
            continue
        if one.name.endswith(_CLOCKS):
            value += began_s
        labels = ",".join(f'{name}="{_quoted(text)}"' for name, text in sorted(one.labels.items()))
        lines.setdefault(one.name, []).append(f"{one.name}{{{labels}}} {value!r}\n")
    # All samples of one metric stand together, or Prometheus takes them for two.
    return "".join(line for name in lines for line in lines[name])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
