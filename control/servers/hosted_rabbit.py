"""RabbitMQ under a server host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from control.servers import rabbit
from control.servers.hosted import ServerConfig
from control.servers.rabbit import PORTS, Rabbit
from kernel.errors import TapewatchError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from monitor.adapters.exporter import Exporter


class HostedRabbit:
    """One broker on its own data, with the queues that the exchange has."""

    def __init__(self, config: ServerConfig) -> None:
        """Nothing is started yet."""
        self._server = Rabbit(
            rabbit.found(config.program), Path(config.directory),
            ports={name: config.own[name] for name in PORTS}, password=config.secret("rabbitmq"),
        )  # fmt: skip
        self._answer_s: float | None = None

    def start(self) -> None:
        """Start it on the data it had, and declare the queues; returns when they would survive its death.

        Raises:
            PermanentError: it ended, or a queue is there otherwise than it should be.
            TemporaryError: it was not ready in time.
        """
        from exchange.adapters.rabbit_link import DECLARED_AFTER_S, RabbitLink, declare
        from exchange.adapters.rabbit_topology import TOPOLOGY

        self._server.start()
        new = not self._server.ask("/api/queues?columns=name")
        link = RabbitLink(self._server.url(), password=self._server.password, name="server host")
        asyncio.run(declare(link, TOPOLOGY, within_s=30))
        if new:
            time.sleep(DECLARED_AFTER_S)

    def ready(self) -> tuple[bool, str]:
        """Log in by its own protocol, as whoever publishes and consumes does."""
        began = time.monotonic()
        try:
            self._server.shake_hands(0.8)
        except TapewatchError as error:
            self._answer_s = None
            return False, f"RabbitMQ: {error}"
        self._answer_s = time.monotonic() - began
        return True, f"RabbitMQ takes connections at {self._server.url()}"

    def ended(self) -> str:
        """Return its last words once it has ended."""
        return "" if self._server.pid is not None else f"RabbitMQ ended: {self._server.last_words()}"

    def observe(self, exporter: Exporter) -> None:
        """Tell whether it answered the last look, and how fast; the rest it tells itself."""
        exporter.level("rabbitmq_up").set(self._answer_s is not None)
        if self._answer_s is not None:
            exporter.level("rabbitmq_handshake_seconds").set(self._answer_s)

    def stop(self) -> None:
        """End it in order; its data stay."""
        self._server.stop()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:  # noqa: ARG002 - it has none
        """Return nothing: what is done to a broker is starting it again."""
        return ()
