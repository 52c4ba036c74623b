"""What can be broken in a distributed estate besides: its services, by their server hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.fault import Fault
from control.faults import kill_fault, role_fault

_RUNBOOK: Final = "its alert's runbook starts it again"
_CATALOG: Final = (
    Fault("server-kill", "A service's server is killed by SIGKILL: a broker, a database, the balancer, ...", _RUNBOOK,
          "kafka-2", "", **role_fault("server-kill")),
    Fault("server-stall", "A service's server stands still (SIGSTOP): its port is open and nothing is answered.",
          "clearing, or its alert's runbook", "kafka-2", "", **role_fault("server-stall")),
    Fault("saga-crash", "A part of settlement by sagas is killed by SIGKILL, in the middle of its steps.", _RUNBOOK,
          "saga-securities-1", "", **kill_fault()),
    Fault("saga-slow", "A part of settlement by sagas takes so many seconds longer for each batch.",
          "clearing, or a restart of the part", "saga-cash-1", "5", **role_fault("saga-slow")),
)  # fmt: skip
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _CATALOG}
