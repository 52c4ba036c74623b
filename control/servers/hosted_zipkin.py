"""Zipkin under a server host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from control.servers import zipkin
from control.servers.hosted import ServerConfig

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from monitor.adapters.exporter import Exporter

START_WITHIN_S: Final = 140.0
"""A Java machine that shares two cores with ten other starts takes a minute."""


class HostedZipkin:
    """One Zipkin, its traces in memory."""

    def __init__(self, config: ServerConfig) -> None:
        """Nothing is started yet."""
        self._server = zipkin.Zipkin(zipkin.find_or_fetch(config.program), port=config.own["server"])

    def start(self) -> None:
        """Start it; returns when it takes spans."""
        self._server.start(START_WITHIN_S)

    def ready(self) -> tuple[bool, str]:
        """Ask its own health page."""
        healthy = self._server.healthy()
        return healthy, f"Zipkin {'takes spans' if healthy else 'does not answer'} at {self._server.url}"

    def ended(self) -> str:
        """Return its last words once it has ended."""
        return "" if self._server.pid is not None else f"Zipkin ended: {self._server.last_words()}"

    def observe(self, exporter: Exporter) -> None:
        """Nothing beyond readiness is told of it."""

    def stop(self) -> None:
        """End it; its traces are gone."""
        self._server.close()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:  # noqa: ARG002 - it has none
        """Return nothing: its page is its own."""
        return ()
