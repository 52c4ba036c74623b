"""One Kafka broker of a cluster under a server host; its peers have hosts of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from control.addresses import HOST
from control.servers import kafka
from control.servers.hosted import ServerConfig
from control.servers.kafka_churn import STAY_S, Churn
from control.servers.kafka_cluster import HEAP, Cluster
from control.servers.kafka_observe import KafkaObserver

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from monitor.adapters.exporter import Exporter


class _Disturbed(msgspec.Struct, frozen=True, kw_only=True):
    """Which group a consumer that comes and goes disturbs."""

    group: str
    topic: str
    stay_s: float = STAY_S


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
        self._churn = Churn(self._cluster.bootstrap)
        self._faults_allowed = config.faults_allowed
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
        self._churn.end()
        self._cluster.stop()
        self._observer.close()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:
        """Return `/admin/churn`: POST `{group, topic, stay_s}` lets a consumer come and go there, DELETE ends it."""
        from starlette.routing import Route

        from exchange.adapters.http import guarded, json_response, problem, read_body

        async def change(request: Request) -> Response:
            if not self._faults_allowed:
                return problem(403, "faults are not allowed here; start the estate with faults allowed")
            if request.method == "DELETE":
                await asyncio.to_thread(self._churn.end)
                return json_response({"disturbed": ""})
            told = msgspec.json.decode(await read_body(request), type=_Disturbed)
            await asyncio.to_thread(self._churn.begin, told.group, told.topic, told.stay_s)
            return json_response({"disturbed": told.group})

        return [Route("/admin/churn", guarded(admin_secret, change), methods=["POST", "DELETE"])]


def _number(replica: str) -> int:
    return int(replica.rsplit("-", 1)[1])
