"""Which service stands on which: the one home of that fact, for grouping alerts and for ranking causes."""

from __future__ import annotations

from typing import Final

from kernel.graph import Graph

DEPENDS_ON: Final[Graph] = {
    "engine": ("cluster", "kafka"),
    "gateway": ("engine",),
    "gateway-canary": ("engine",),
    "market-data": ("engine",),
    "settlement": ("engine", "kafka"),
    "saga": ("engine", "rabbitmq", "postgres"),
    "mirror": ("kafka",),
    "watchdog": ("market-data",),
    "edge": ("gateway",),
    "client": ("edge", "gateway"),
    "exchange": ("gateway", "market-data"),
}
"""Service -> the services it directly depends on."""
