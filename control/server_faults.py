"""What can be broken in a distributed estate besides: its services, by their server hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.fault import Change, Fault, Plant
from control.faults import role_fault

_CHURN: Final = "/admin/churn"


def _disturb(group: str, topic: str) -> Change:
    def begin(plant: Plant, target: str, value: str) -> None:
        plant.role("POST", target, _CHURN, {"group": group, "topic": topic, "stay_s": float(value)})

    return begin


def _leave(plant: Plant, target: str, _: str) -> None:
    plant.role("DELETE", target, _CHURN)


_RUNBOOK: Final = "its alert's runbook starts it again"
_CATALOG: Final = (
    Fault("server-kill", "A service's server is killed by SIGKILL: a broker, a database, the balancer, ...", _RUNBOOK,
          "kafka-2", "", **role_fault("server-kill")),
    Fault("server-stall", "A service's server stands still (SIGSTOP): its port is open and nothing is answered.",
          "clearing, or its alert's runbook", "kafka-2", "", **role_fault("server-stall")),
    Fault("consumer-churn", "A consumer joins settlement's group, stays so many seconds, leaves, and joins again.",
          "clearing", "kafka-1", "1", _disturb("settlement", "exchange.events"), _leave),
)  # fmt: skip
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _CATALOG}
