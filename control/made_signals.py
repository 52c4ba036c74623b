"""The estate's fault `signal`: series that make an alert fire while nothing of the plant is broken."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from control.alert_plan import planned
from monitor.signals import AlertScript, exposition


class MadeSignals:
    """The alerts that are being made to fire, and the page that Prometheus scrapes for it."""

    def __init__(self) -> None:
        self._playing: dict[str, tuple[AlertScript, float]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The alerts that are being made to fire."""
        return tuple(self._playing)

    def begin(self, alert: str) -> None:
        """Let an alert's series begin now; those that play already begin anew.

        Raises:
            InputError: there is no such alert, or none that fires while somebody waits.
        """
        (one,) = planned(every=False, only=[alert])[0]
        series = [dataclasses.replace(each, labels=_made(each.labels)) for each in one.script.series]
        self._playing[alert] = (dataclasses.replace(one.script, series=series), time.time())

    def end(self, alert: str) -> bool:
        """Let an alert's series end; False when none played."""
        return self._playing.pop(alert, None) is not None

    def render(self) -> str:
        """Return the series as they are now, in Prometheus's text format."""
        now_s = time.time()
        return "".join(
            exposition(script.series, now_s - began_s, began_s) for script, began_s in self._playing.values()
        )


def _made(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels under which no real series stands: the largest of a replica would be the real one."""
    return {name: f"made-{value}" if name in {"replica", "symbol"} else value for name, value in labels.items()}
