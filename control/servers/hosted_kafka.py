"""One Kafka broker of a cluster under a server host; its peers have hosts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from control.addresses import HOST
from control.servers import kafka
from control.servers.hosted import ServerConfig
from control.servers.kafka_cluster import HEAP, Cluster
from control.servers.kafka_observe import KafkaObserver

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from monitor.adapters.exporter import Exporter


class HostedKafka:
    """Broker and controller in one, on its own data."""

    def __init__(self, config: ServerConfig) -> None:
        """Nothing is started yet."""
        self._broker = config.number
        places = [config.ports[replica] for replica in sorted(config.ports, key=_number)]
        ports = [place["broker"] for place in places] + [place["controller"] for place in places]
        self._cluster = Cluster(
            kafka.find_or_fetch(config.program), Path(config.directory), brokers=len(places), ports=ports,
            heap=config.options.get("heap", HEAP),
        )  # fmt: skip
        self._observer = KafkaObserver(self._broker, HOST, config.own["broker"], self._cluster.directory)

    def start(self) -> None:
        """Start the broker on the data it had.

        It returns when the program runs, for the first of three is ready only with the second.
        """
        self._cluster.start_one(self._broker, wait=False)

    def ready(self) -> tuple[bool, str]:
        """Ask the broker itself whether it is part of its cluster."""
        return self._observer.ready()

    def ended(self) -> str:
        """Return its last words once it has ended."""
        code = self._cluster.code(self._broker)
        if code is None:
            return ""
        if code < 0:
            return f"Kafka broker {self._broker} was killed by signal {-code}"
        return f"Kafka broker {self._broker} ended with {code}: {self._cluster.last_words(self._broker)}"

    def observe(self, exporter: Exporter) -> None:
        """Tell of the broker and of the cluster as it sees it."""
        self._observer.observe(exporter)

    def stop(self) -> None:
        """End it in order; without a majority of controllers that takes twenty seconds and then force."""
        self._cluster.stop()
        self._observer.close()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:  # noqa: ARG002 - it has none
        """Return nothing: what is done to a broker is starting it again."""
        return ()


def _number(replica: str) -> int:
    return int(replica.rsplit("-", 1)[1])
