"""A cluster, and the part of it that one engine has: what is told of Kafka where its client is not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class KafkaPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, and the part of it that one engine has."""

    bootstrap: str
    """Addresses of brokers, `host:port`, parted by commas."""
    topic: str = "exchange"
    """What the topics' names begin with."""
    partition: int = 0
    partitions: int = 1
    copies: int = 3
    """On how many brokers each record lies."""
    needed: int = 2
    """How many of them must have a record before it counts: so many less one may be lost."""
    cluster_id: str = ""
    """Which cluster it must be; empty: whichever answers."""
    delivery_s: float = 10.0
    """How long a record may take until it counts as not written; a dead broker is noticed within nine seconds."""

    @property
    def commands(self) -> str:
        """The topic of the journals, one a partition."""
        return f"{self.topic}.commands"

    @property
    def events(self) -> str:
        """The topic of what the commands caused."""
        return f"{self.topic}.events"

    @property
    def dead(self) -> str:
        """The topic of messages among the events that cannot be read."""
        return f"{self.events}.dead"

    @property
    def listing(self) -> str:
        """The topic of what is traded; its last message counts."""
        return f"{self.topic}.listing"

    def client(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a client's settings."""
        # The library writes on standard error of every connection that breaks; what matters comes as an error.
        return {"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 1_000, **(more or {})}
