"""What RabbitMQ's host tells of it. What the broker says of itself, queue by queue, stands on its own page."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, gauge

RABBIT: Final[tuple[Metric, ...]] = (
    gauge(Role.RABBITMQ, "rabbitmq_up", "1 while the broker takes its user's connection by its own protocol."),
    gauge(Role.RABBITMQ, "rabbitmq_handshake_seconds", "How long its last answer to a connection took."),
)
RABBIT_OWN: Final = (
    "rabbitmq_queue_", "rabbitmq_channel_", "rabbitmq_alarms_", "rabbitmq_disk_", "rabbitmq_process_",
    "rabbitmq_global_", "rabbitmq_connections", "rabbitmq_channels", "rabbitmq_consumers", "rabbitmq_queues",
    "rabbitmq_resident_memory_limit_bytes",
)  # fmt: skip
"""What the broker's own page tells that rules and boards ask for: names, or prefixes that end in `_`."""
