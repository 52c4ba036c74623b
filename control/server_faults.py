"""What can be broken in a distributed estate besides: its services, by their server hosts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from control.fault import Change, Fault, Plant
from control.faults import kill_fault, number, role_fault
from control.supervisor import PERSON

_EDGE: Final = "edge-1"
_CHURN: Final = "/admin/churn"


def _certificate(plant: Plant, target: str, value: str) -> None:
    plant.role("POST", target, "/admin/certificate", {"seconds": number(value)})


def _kept_certificate(plant: Plant, target: str, _: str) -> None:
    plant.role("POST", target, "/admin/certificate", {"seconds": 0})


def _drain(state: str) -> Change:
    def change(plant: Plant, target: str, _: str) -> None:
        plant.role("POST", _EDGE, "/admin/server", {"server": target, "state": state})

    return change


def _disturb(group: str, topic: str) -> Change:
    def begin(plant: Plant, target: str, value: str) -> None:
        plant.role("POST", target, _CHURN, {"group": group, "topic": topic, "stay_s": float(value)})

    return begin


def _leave(plant: Plant, target: str, _: str) -> None:
    plant.role("DELETE", target, _CHURN)


def _deploy(plant: Plant, target: str, value: str) -> None:
    body = {
        "replica": target, "revision": f"bad-{uuid.uuid4().hex[:6]}", "by": PERSON,
        "settings": {"gateway": {"engine_timeout_s": number(value)}}, "key": f"deploy-{uuid.uuid4().hex}",
    }  # fmt: skip
    plant.estate("/v1/workloads/gateway/deploy", body)


def _roll_back(plant: Plant, _: str, __: str) -> None:
    plant.estate("/v1/workloads/gateway/roll-back", {"key": f"back-{uuid.uuid4().hex}", "by": PERSON})


_RUNBOOK: Final = "its alert's runbook starts it again"
_CATALOG: Final = (
    Fault("server-kill", "A service's server is killed by SIGKILL: a broker, a database, the balancer, ...", _RUNBOOK,
          "kafka-2", "", **role_fault("server-kill")),
    Fault("server-stall", "A service's server stands still (SIGSTOP): its port is open and nothing is answered.",
          "clearing, or its alert's runbook", "kafka-2", "", **role_fault("server-stall")),
    Fault("saga-crash", "A part of settlement by sagas is killed by SIGKILL, in the middle of its steps.", _RUNBOOK,
          "saga-securities-1", "", **kill_fault("saga-")),
    Fault("saga-slow", "A part of settlement by sagas takes so many seconds longer for each batch.",
          "clearing, or a restart of the part", "saga-cash-1", "5", **role_fault("saga-slow")),
    Fault("server-slow", "A server stands still for 0.4 s of every 0.5 s, as one whose disk is slow: it answers, late.",
          "clearing; no runbook mends it", "kafka-2", "", **role_fault("server-slow")),
    Fault("certificate-ends", "HAProxy shows a certificate that ends in so many seconds; below 0 it has ended.",
          "clearing; no runbook mends it", _EDGE, "86400", _certificate, _kept_certificate),
    Fault("bad-deploy", "One gateway is given a bad revision: it waits only so many seconds for an order's answer.",
          "its alert's runbook rolls it back", "gateway-2", "0.004", _deploy, _roll_back),
    Fault("edge-leaves-out", "HAProxy is told to send a gateway nothing new, though it is well.",
          "clearing; no runbook mends it", "gateway-2", "", _drain("drain"), _drain("ready")),
    Fault("mirror-kill", "The mirror of a region that follows is killed by SIGKILL.", _RUNBOOK, "mirror-1", "",
          **kill_fault("mirror-")),
    Fault("mirror-narrow", "At most so many records a second come over from the region that is followed.", "clearing",
          "mirror-1", "5", **role_fault("mirror-narrow")),
    Fault("consumer-churn", "A consumer joins settlement's group, stays so many seconds, leaves, and joins again.",
          "clearing", "kafka-1", "1", _disturb("settlement", "exchange.events"), _leave),
)  # fmt: skip
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _CATALOG}
