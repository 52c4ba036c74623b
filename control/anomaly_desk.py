"""What the terminal asks of the detectors' process, and how an answer of a person finds its series."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from control import anomaly_feedback
from control.addresses import load_addresses
from control.anomaly_feedback import Said
from control.anomaly_state import Page, Seat, peek
from control.anomaly_view import SeriesNow, View
from control.calls import call
from control.layout import Layout
from exchange.adapters.http import read_secret
from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError
from kernel.time import Instant
from runbooks.model import OF_DETECTORS

WATCHED_S: Final = 3.0
"""How long the terminal waits for the process."""
_INCIDENT: Final = re.compile(r"INC-\d{8}-\d+")
_SHOWN: Final = 6
_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def view(layout: Layout) -> View:
    """Return what the process sees now.

    Raises:
        TemporaryError: no estate runs, it runs without detectors, or they do not answer.
        PermanentError: what answers is another version of the program.
    """
    urls = load_addresses(layout.addresses).urls("anomaly")
    if not urls:
        raise TemporaryError("the estate runs without detectors: start it with TAPEWATCH_ANOMALY=true")
    try:
        return msgspec.convert(call("GET", f"{urls[0]}/v1/series", timeout_s=WATCHED_S), type=View)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the detectors answer in another version's words ({error})") from error


def say(layout: Layout, what: str, *, false_alarm: bool, by: str, at: Instant) -> list[str]:
    """Keep what a person says of a page, a series or an incident; return the series it is said of.

    Raises:
        InputError: nothing of that name is known; says what is.
        TapewatchError: the answer cannot be kept, or nobody knows the incident now.
    """
    names = _of_incident(layout, what) if _INCIDENT.fullmatch(what) else _of_known(layout, what)
    for name in names:
        said = Said(at=at, by=by[:100], what=name, false_alarm=false_alarm, about=what if name != what else "")
        anomaly_feedback.append(layout.anomaly / "feedback.jsonl", said)
    return names


def _of_incident(layout: Layout, incident: str) -> list[str]:
    """Return the series whose alerts an incident holds."""
    url = load_addresses(layout.addresses).control
    found = call("GET", f"{url}/api/v1/incidents/{incident}", token=read_secret(layout.secret("admin")))
    names = sorted(set(_series_of(found)))
    if not names:
        raise InputError(incident, "no detector told of it", right="name an incident that holds SeriesAnomalous")
    return names


def _series_of(incident: Any) -> Iterable[str]:
    alerts = incident.get("alerts", {}) if isinstance(incident, dict) else {}
    for alert in alerts.values() if isinstance(alerts, dict) else alerts:
        labels = alert.get("labels", {})
        if labels.get("alertname") in OF_DETECTORS and labels.get("series"):
            item = labels.get("item", "")
            yield f"{labels['series']}/{item}" if item else str(labels["series"])


def _of_known(layout: Layout, what: str) -> list[str]:
    """Return the name itself where it is a page's or a series'."""
    pages, series = known(layout)
    if what in {page.id for page in pages} or what in series or any(one.startswith(f"{what}/") for one in series):
        return [what]
    near = [one for one in series if what in one] or difflib.get_close_matches(what, series) or series
    near = near[:_SHOWN]
    right = f"such as {', '.join(near)}" if near else "see tapewatch anomaly watch"
    raise InputError(what[:60], "no page and no watched series is called that", right=right)


def known(layout: Layout) -> tuple[Sequence[Page], list[str]]:
    """Return the pages and the series there are: of the process, or of its state where it does not answer.

    Raises:
        TapewatchError: neither is there.
    """
    try:
        seen = view(layout)
        if seen.series:
            return seen.pages, [one.id for one in seen.series]
    except TapewatchError:
        kept = peek(layout.anomaly / "state.bin")
        if kept is None:
            raise
        return kept.pages, sorted(map(_name, kept.seats))
    kept = peek(layout.anomaly / "state.bin")
    return (kept.pages, sorted(map(_name, kept.seats))) if kept is not None else (seen.pages, [])


def _name(seat: Seat) -> str:
    return f"{seat.series}/{seat.item}" if seat.item else seat.series


def ranked(series: Sequence[SeriesNow]) -> list[SeriesNow]:
    """Return series, the most unusual first: those that ask for attention, then by score, then as they come."""
    return sorted(series, key=lambda one: (not one.alert, -(one.score or 0.0)))


def figure(value: float | None, unit: str = "") -> str:
    """Return a number with its unit as people read it, such as 1.502 ms, 86.1 MB or 41.2 orders/s; a dash for none."""
    if value is None:
        return "-"
    scale, name = _scaled(abs(value), unit)
    return f"{value * scale:.4g} {name}".rstrip()


def span(low: float | None, high: float | None, unit: str = "") -> str:
    """Return a range with its unit, such as `98.02 to 99.33 MB`; a dash for none."""
    if low is None or high is None:
        return "-"
    scale, name = _scaled(max(abs(low), abs(high)), unit)
    return f"{low * scale:.4g} to {high * scale:.4g} {name}".rstrip()


def _scaled(size: float, unit: str) -> tuple[float, str]:
    """Return by what a number is multiplied to be read, and what it then counts."""
    if unit == "s" and 0 < size < 1:
        return (1e3, "ms") if size >= 1e-3 else (1e6, "us")  # noqa: PLR2004 - a millisecond
    if unit.startswith("bytes"):
        scale, name = next(((1 / large, word) for large, word in _SIZES if size >= large), (1.0, "B"))
        return scale, name + unit.removeprefix("bytes")
    return 1.0, unit


def sentence(one: SeriesNow) -> str:
    """Return one series as a line of text."""
    expected = f"expected {span(one.low, one.high, one.unit)}" if one.low is not None else "nothing expected yet"
    text = f"{one.id} ({one.service}): {figure(one.value, one.unit)}, {expected}, score {one.score or 0:.2f}"
    if one.sentence:
        text += f", {one.channel}: {one.sentence}"
    return text
