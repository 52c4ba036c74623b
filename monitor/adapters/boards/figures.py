"""Figures as people read them: 12.3 ms, 4.5 k/s, 99.95 %."""

from __future__ import annotations

import math
from typing import Final

_TIMES: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SCALES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_NEARLY: Final = 99.0
_PER_SECOND: Final = frozenset({"ops", "reqps", "pps", "Bps"})


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value of a Grafana unit as text."""
    if not math.isfinite(value):
        return "no number" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if unit == "percentunit":
        return f"{_share(value * 100, decimals)} %"
    if unit == "s":
        return _time(value, decimals)
    tail = unit.removeprefix("suffix:").strip() if unit.startswith("suffix:") else ""
    base = "B" if unit in {"bytes", "Bps"} else ""
    text = _scaled(value, base, decimals)
    return f"{text}{'/s' if unit in _PER_SECOND else ''}{' ' + tail if tail else ''}"


def _share(value: float, decimals: int | None) -> str:
    """Return per cent; just below 100 with more places, for 99.95 is not 100."""
    if decimals is None and _NEARLY < value < 100:  # noqa: PLR2004 - all of it
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return _digits(value, decimals)


def _time(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    for size, name in _TIMES:
        if abs(value) >= size:
            return f"{_digits(value / size, decimals)} {name}"
    return f"{_digits(value * 1e9, decimals)} ns"


def _scaled(value: float, base: str, decimals: int | None) -> str:
    for size, name in _SCALES:
        if abs(value) >= size:
            return f"{_digits(value / size, decimals)} {name}{base}"
    return _digits(value, decimals) + (f" {base}" if base else "")


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
