"""What can be broken in a distributed estate besides: its services, by their server hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.fault import Fault
from control.faults import role_fault

_RUNBOOK: Final = "its alert's runbook starts it again"
_CATALOG: Final = (
    Fault("server-kill", "A service's server is killed by SIGKILL: a broker, a database, the balancer, ...", _RUNBOOK,
          "kafka-2", "", **role_fault("server-kill")),
    Fault("server-stall", "A service's server stands still (SIGSTOP): its port is open and nothing is answered.",
          "clearing, or its alert's runbook", "kafka-2", "", **role_fault("server-stall")),
)  # fmt: skip
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _CATALOG}
