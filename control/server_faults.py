"""What can be broken in a distributed estate besides: its services, by their server hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.fault import Change, Fault, Plant
from control.faults import kill_fault, number, role_fault


def _certificate(plant: Plant, target: str, value: str) -> None:
    plant.role("POST", target, "/admin/certificate", {"seconds": number(value)})


def _kept_certificate(plant: Plant, target: str, _: str) -> None:
    plant.role("POST", target, "/admin/certificate", {"seconds": 0})


def _drain(state: str) -> Change:
    def change(plant: Plant, target: str, _: str) -> None:
        plant.role("POST", _EDGE, "/admin/server", {"server": target, "state": state})

    return change


_EDGE: Final = "edge-1"
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
    Fault("server-slow", "A server stands still for 0.4 s of every 0.5 s, as one whose disk is slow: it answers, late.",
          "clearing; no runbook mends it", "kafka-2", "", **role_fault("server-slow")),
    Fault("certificate-ends", "HAProxy shows a certificate that ends in so many seconds; below 0 it has ended.",
          "clearing; no runbook mends it", _EDGE, "86400", _certificate, _kept_certificate),
    Fault("edge-leaves-out", "HAProxy is told to send a gateway nothing new, though it is well.",
          "clearing; no runbook mends it", "gateway-2", "", _drain("drain"), _drain("ready")),
)  # fmt: skip
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _CATALOG}
