"""The services that a distributed exchange stands on: one list for the estate, `doctor` and the compose file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

HOST_PORT: Final = "host"
"""Of each replica: where its server host answers (health, metrics)."""


@dataclass(frozen=True)
class Service:
    """A service, and what its replicas listen on."""

    name: str
    """Workload, Prometheus job and, with a number behind it, replica."""
    what: str
    replicas: int
    ports: tuple[str, ...]
    """What the server itself listens on, by name, for each replica."""
    image: str = ""
    """The public container image of the version that an estate runs, for `deploy/compose`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the replicas."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.replicas + 1))


SERVICES: Final = (
    Service("kafka", "the journal and what follows from it, on three brokers", 3, ("broker", "controller"),
            "apache/kafka:4.4.0"),
    Service("postgres", "ledger and books, a primary and its synchronous stand-by", 2, ("server",), "postgres:15"),
    Service("rabbitmq", "messages between the services of settlement", 1,
            ("amqp", "management", "prometheus", "distribution", "epmd"), "rabbitmq:3.10-management"),
    Service("zipkin", "traces, with a page", 1, ("server",), "openzipkin/zipkin:3.6.1"),
    Service("edge", "the load balancer before the gateways", 1, ("https", "stats"), "haproxy:2.6"),
)  # fmt: skip
SAGA_PARTS: Final[Mapping[str, Literal["coordinator", "cash", "securities", "fees", "clearing"]]] = {
    "saga-coordinator-1": "coordinator",
    "saga-cash-1": "cash",
    "saga-securities-1": "securities",
    "saga-fees-1": "fees",
    "saga-clearing-1": "clearing",
}
"""The parts of settlement by sagas: replicas of one workload, each with a part of its own."""
PARTS: Final = (*SAGA_PARTS, "mirror-1")
"""Processes of ours that only a distributed estate has: the parts of settlement by sagas, and who follows a region."""
BY_NAME: Final = {service.name: service for service in SERVICES}


def port_names() -> Iterator[str]:
    """Yield the name of every port, `kafka-1/host`, `kafka-1/broker`, ..., always in the same order."""
    for service in SERVICES:
        for replica in service.ids:
            for port in (HOST_PORT, *service.ports):
                yield f"{replica}/{port}"
    for replica in PARTS:
        yield f"{replica}/{HOST_PORT}"
