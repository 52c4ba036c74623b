"""What the host of the edge tells of it. What HAProxy says of itself and of its gateways stands on its own page."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge

EDGE: Final[tuple[Metric, ...]] = (
    gauge(Role.EDGE, "tapewatch_edge_serves", "1 while the load balancer answers over TLS, whatever the gateways do."),
    gauge(
        Role.EDGE,
        "tapewatch_edge_certificate_not_after_timestamp_seconds",
        "Until when the certificate lasts that the load balancer shows.",
    ),
    gauge(
        Role.EDGE,
        "tapewatch_edge_certificate_refused",
        "1 while a new certificate is not taken and the one before is shown on.",
    ),
    counter(Role.EDGE, "tapewatch_edge_certificates_total", "New certificates while the load balancer ran.", "result"),
)
