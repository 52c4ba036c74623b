"""What a server host needs to know of its server: the port that each kind implements, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

import msgspec

from control.layout import Layout
from control.servers.catalogue import HOST_PORT
from kernel.errors import PermanentError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from exchange.ports import Log
    from monitor.adapters.exporter import Exporter


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server host is told at its start. Secrets stand in files of the state, never here."""

    service: str
    """Such as `kafka`; which kind of server it is."""
    replica: str
    """Such as `kafka-2`."""
    state: str
    """The estate's state directory."""
    directory: str
    """Where the server keeps its data; not below the state when root's server runs as another user."""
    ports: Mapping[str, Mapping[str, int]]
    """Of every replica of the service, this one too: its ports by name (`control.servers.catalogue`)."""
    program: str = ""
    """What the user's settings name as its program or home; empty: the one that is found."""
    options: Mapping[str, str] = {}
    """Of one kind only, such as the edge's backends."""
    faults_allowed: bool = False

    @property
    def number(self) -> int:
        """Which replica this is, from 1."""
        return int(self.replica.rsplit("-", 1)[1])

    @property
    def port(self) -> int:
        """Where the host answers."""
        return self.ports[self.replica][HOST_PORT]

    @property
    def own(self) -> Mapping[str, int]:
        """This replica's ports."""
        return self.ports[self.replica]

    @property
    def layout(self) -> Layout:
        """The paths of the estate."""
        return Layout(Path(self.state))

    def secret(self, name: str) -> str:
        """Return one of the estate's secrets.

        Raises:
            PermanentError: it cannot be read.
        """
        try:
            return self.layout.secret(name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PermanentError(f"{self.layout.secret(name)}: the secret cannot be read ({error})") from error


class Hosted(Protocol):
    """A server of one kind, as its host sees it. Every call is made in a thread and may block."""

    def start(self) -> None:
        """Start it on the data it had, and return when it is ready or about to be.

        Raises:
            TapewatchError: it cannot be started; carries its last words.
        """
        ...

    def ready(self) -> tuple[bool, str]:
        """Tell, within a second, by the server's own protocol whether it serves, and a sentence about it."""
        ...

    def ended(self) -> str:
        """Return the server's last words once it has ended by itself; nothing while it runs."""
        ...

    def observe(self, exporter: Exporter) -> None:
        """Look at the server, within a second, and set the metrics of its kind; called about once a second."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:
        """Return what the host answers for this kind besides health, metrics and faults."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A hosted server that has more to say in the host's log than that it began, is ready, or ended."""

    def log_to(self, log: Log) -> None:
        """Write to `log` from now on; called once, before `start`."""
        ...


_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "kafka": ("control.servers.hosted_kafka", "HostedKafka"),
    "postgres": ("control.servers.hosted_postgres", "HostedPostgres"),
    "rabbitmq": ("control.servers.hosted_rabbit", "HostedRabbit"),
    "zipkin": ("control.servers.hosted_zipkin", "HostedZipkin"),
    "edge": ("control.servers.hosted_edge", "HostedEdge"),
}
"""Module and class of each kind: a broker's host does not load PostgreSQL's client."""


def hosted(config: ServerConfig) -> Hosted:
    """Return the server that a host is to run; nothing is started.

    Raises:
        PermanentError: there is no such kind.
    """
    kind = _KINDS.get(config.service)
    if kind is None:
        raise PermanentError(f"service {config.service!r} is not known; there are {', '.join(_KINDS)}")
    return cast("Hosted", getattr(import_module(kind[0]), kind[1])(config))


def load_server_config(path: Path) -> ServerConfig:
    """Read a host's configuration.

    Raises:
        msgspec.DecodeError: the file does not fit this version of the program.
    """
    return msgspec.json.decode(path.read_bytes(), type=ServerConfig)
