"""The watchdog's alarms as Alertmanager takes them: the words of the exchange bound to those of monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from exchange.ports import Alarm, PostResult, Raised
from kernel.errors import PermanentError, TemporaryError
from monitor.direct_alerts import book_crossed, journal_failed, sequence_gap
from monitor.ports import Alerts, PostableAlert


class DirectAlarms:
    """`exchange.ports.Alarms` over `monitor.ports.Alerts`."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts: Final = alerts

    async def post(self, raised: Sequence[Raised]) -> PostResult:
        """Hand alarms over; see `Alarms`."""
        try:
            await self._alerts.post([alert_of(one) for one in raised])
        except PermanentError:
            return PostResult.REFUSED
        except TemporaryError:
            return PostResult.UNREACHABLE
        return PostResult.ACCEPTED


def alert_of(raised: Raised) -> PostableAlert:
    """Return an alarm as an alert with the labels of its rule."""
    match raised.alarm:
        case Alarm.SEQUENCE_GAP:
            return sequence_gap(raised.symbol or "", raised.starts_at, raised.ends_at)
        case Alarm.BOOK_CROSSED:
            return book_crossed(raised.symbol or "", raised.starts_at, raised.ends_at)
        case Alarm.JOURNAL_FAILED:
            return journal_failed(raised.starts_at, raised.ends_at)
        case _:
            assert_never(raised.alarm)
