"""Hundreds of client-side alerts, as a monitoring of the participants' own would post them: a drill's storm."""

from __future__ import annotations

import time
from typing import Final

from control.calls import call
from kernel.time import SECOND, to_rfc3339

LAST_S: Final = 14
"""They end by themselves: a participant that is served again complains no more."""


def post_symptoms(alertmanager: str, count: int) -> None:
    """Post `count` symptoms of service `client`.

    Raises:
        TapewatchError: Alertmanager does not take them.
    """
    at = time.time_ns()
    alerts = [
        {
            "labels": {
                "alertname": "ClientOrdersFailing",
                "severity": "warning",
                "level": "2",
                "team": "participants",
                "service": "client",
                "client": f"c{number:04d}",
            },
            "annotations": {"summary": f"Participant c{number:04d} gets no answers to its orders"},
            "startsAt": to_rfc3339(at),
            "endsAt": to_rfc3339(at + LAST_S * SECOND),
        }
        for number in range(count)
    ]
    call("POST", alertmanager + "/api/v2/alerts", body=alerts)
