"""An alert router in memory: the other side of `monitor.ports.Alerts`. It keeps what it is sent, notifies nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from kernel.errors import PermanentError, TemporaryError
from kernel.time import Clock
from monitor.ports import PostableAlert

_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')
_LABEL: Final = re.compile(r"[a-zA-Z_]\w*", re.ASCII)


class FakeAlerts:
    """Alerts by their labels; a later one with equal labels takes the place of the earlier."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._down = False
        self._known: dict[frozenset[tuple[str, str]], PostableAlert] = {}
        self.posted: list[PostableAlert] = []
        """Everything it was ever sent, in order."""

    def fail(self, *, down: bool) -> None:
        """Stop, or go on, answering."""
        self._down = down

    async def post(self, alerts: Sequence[PostableAlert]) -> None:
        """See `Alerts`."""
        self._answer()
        for alert in alerts:
            if not alert.labels or not all(_LABEL.fullmatch(name) for name in alert.labels):
                raise PermanentError(f"labels {dict(alert.labels)} are empty or misnamed")
            self.posted.append(alert)
            self._known[frozenset(alert.labels.items())] = alert

    async def active(self, *matchers: str) -> Sequence[Mapping[str, object]]:
        """See `Alerts`."""
        self._answer()
        for text in matchers:
            _fits({}, text)  # a wrong matcher is refused even when there is no alert to match
        now = self._clock.now()
        return [
            {"labels": dict(alert.labels), "annotations": dict(alert.annotations), "status": {"state": "active"}}
            for alert in self._known.values()
            if (alert.ends_at is None or alert.ends_at > now) and all(_fits(alert.labels, text) for text in matchers)
        ]

    def _answer(self) -> None:
        if self._down:
            raise TemporaryError("the fake was told to fail")


def _fits(labels: Mapping[str, str], matcher: str) -> bool:
    found = _MATCHER.fullmatch(matcher)
    if found is None:
        raise PermanentError(f'{matcher!r} is no matcher such as alertname="EngineDown"')
    name, relation, value = found.groups()
    present = labels.get(name, "")
    same = present == value if relation in {"=", "!="} else re.fullmatch(value, present) is not None
    return same is not relation.startswith("!")
