"""The services that a distributed estate stands on: where they are, what they are told, and how others reach them.

A service that a setting names by address (a database's URL, brokers of your own) is not started: the estate then uses
yours. Everything listens on loopback.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from control.addresses import HOST, url_of, write_atomically
from control.child import PYTHON, Slot
from control.config import EdgeAccess, EngineAddress, KafkaAccess, RabbitAccess, RoleConfig, SagaTuning
from control.layout import Layout
from control.leave import Balance, EdgeBalance
from control.saga_bounds import tuned
from control.servers.catalogue import BY_NAME, HOST_PORT, SAGA_PARTS, SERVICES, Service
from control.servers.hosted import ServerConfig, load_server_config
from control.servers.trial_authority import TrialAuthority
from control.supervisor import Turnover, WorkloadSpec
from exchange.listing import Listing
from exchange.shards import engine_of, instruments_of
from kernel.errors import InputError

if TYPE_CHECKING:
    from control.plan import Ports
    from control.settings import Settings

SECRETS: Final = ("postgres", "postgres-roles", "rabbitmq")
"""Passwords of the services, made once for each state directory."""
DATABASES: Final = ("ledger", "saga")
"""What the estate keeps on its pair by itself. Not the incident store: who fails over must not need what is gone."""
HTTP: Final = "http"
STREAM: Final = "stream"
"""The two ports of an engine, by name."""
_DAY_S: Final = 86_400.0
_START_S: Final = 150.0
"""A Java machine on two busy cores takes ten times what it takes alone."""
_GRACE_S: Final = 15.0
_OPEN_TO_OTHERS: Final = 0o001


def services(settings: Settings) -> tuple[Service, ...]:
    """Return the services that the estate runs itself: none when it is embedded."""
    if settings.estate != "distributed":
        return ()
    yours = {"kafka"} if settings.journal == "kafka" else set()
    return tuple(one for one in SERVICES if one.name in set(settings.services) - yours)


def runs(settings: Settings, name: str) -> bool:
    """Tell whether the estate runs that service itself."""
    return any(one.name == name for one in services(settings))


def home(layout: Layout) -> Path:
    """Return where the servers keep their data: below the state, unless a server could not reach it there.

    PostgreSQL refuses to run as root and runs as nobody, to whom a directory below root's home is closed.
    """
    inside = layout.root / "servers"
    above = (path for path in inside.parents if path.exists())
    if os.getuid() != 0 or all(path.stat().st_mode & _OPEN_TO_OTHERS for path in above):
        return inside
    name = hashlib.sha256(str(layout.root).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"tapewatch-servers-{name}"  # noqa: S108 - made with its owner's rights only, by its server


def ports_of(service: Service, ports: Ports) -> dict[str, dict[str, int]]:
    """Return the ports of every replica of a service, by name."""
    return {
        replica: {name: ports.servers[f"{replica}/{name}"] for name in (HOST_PORT, *service.ports)}
        for replica in service.ids
    }


def completed(settings: Settings, layout: Layout, ports: Ports) -> Settings:
    """Return the settings with the addresses of the services that the estate runs itself; makes their passwords.

    Raises:
        OSError: the secrets cannot be written.
    """
    if settings.estate != "distributed":
        return settings
    for name in SECRETS:
        if not layout.secret(name).exists():
            write_atomically(layout.secret(name), secrets.token_urlsafe(24).encode(), mode=0o600)
    more: dict[str, object] = {}
    if runs(settings, "postgres"):
        for kind in DATABASES:
            if not getattr(settings, f"{kind}_url"):
                more[f"{kind}_url"] = database_url(kind, layout, ports)
    if runs(settings, "zipkin") and not settings.zipkin_url:
        more["zipkin_url"] = f"http://{HOST}:{ports.servers['zipkin-1/server']}"
    return settings.model_copy(update=more)


def database_url(database: str, layout: Layout, ports: Ports) -> str:
    """Return the address of a database of the pair, whichever of the two takes writes; the password is in it."""
    from control.servers.postgres_pair import LOGIN, pair_url

    word = layout.secret("postgres-roles").read_text().strip()
    url = pair_url(database, [ports.servers[f"{one}/server"] for one in BY_NAME["postgres"].ids])
    return url.replace(f"{LOGIN}@", f"{LOGIN}:{word}@", 1)


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Return the engines, in the order of their partitions."""
    return tuple(engine_of(partition) for partition in range(settings.engines))


def engine_port_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the ports that several engines have of their own; none where there is one engine."""
    if settings.engines == 1:
        return ()
    return tuple(f"{name}/{port}" for name in engine_names(settings) for port in (HTTP, STREAM))


def engine_ports(settings: Settings, ports: Ports) -> list[tuple[str, int]]:
    """Return the engines and the ports of their HTTP interfaces."""
    if settings.engines == 1:
        return [("engine-1", ports.engine)]
    return [(name, ports.servers[f"{name}/{HTTP}"]) for name in engine_names(settings)]


def engine_addresses(settings: Settings, ports: Ports, role: str) -> tuple[EngineAddress, ...]:
    """Return where a role finds the engines of all partitions; none where there is one, or it does not go to them."""
    if settings.engines == 1 or role not in {"gateway", "market-data"}:
        return ()
    return tuple(EngineAddress(ports.servers[f"{name}/{STREAM}"]) for name in engine_names(settings))


def of_engine(settings: Settings, ports: Ports, config: RoleConfig) -> RoleConfig:
    """Return an engine's configuration with what is its own, where it is one of several; others' as they are."""
    if settings.engines == 1 or config.role != "engine":
        return config
    place = engine_names(settings).index(config.replica)
    assert config.kafka is not None, "several engines have their journal in Kafka"
    return msgspec.structs.replace(
        config, engine_http_port=config.port, engine_stream_port=ports.servers[f"{config.replica}/{STREAM}"],
        instruments=instruments_of(config.instruments, place, settings.engines),
        kafka=msgspec.structs.replace(config.kafka, partition=place),
    )  # fmt: skip


def check_engines(settings: Settings, listing: Listing) -> None:
    """Refuse a listing that several engines cannot share.

    Raises:
        InputError: an engine would trade nothing, or the venue has breakers.
    """
    if settings.engines == 1:
        return
    for place in range(settings.engines):
        instruments_of(listing.instruments, place, settings.engines)
    if listing.venue.breakers:
        raise InputError(
            "instruments.json: venue.breakers", f"watch the whole market, of which each of {settings.engines} engines "
            "sees its own symbols", right="leave them out, or set engines=1",
        )  # fmt: skip


def kafka_access(settings: Settings, ports: Ports, role: str) -> KafkaAccess | None:
    """Return how a role reaches the brokers; None for roles that do not."""
    if role not in {"engine", "settlement", "saga", "mirror"}:
        return None
    if settings.journal == "kafka":
        return own_kafka(settings)
    if not runs(settings, "kafka"):
        return None
    brokers = ",".join(f"{HOST}:{ports.servers[f'{one}/broker']}" for one in BY_NAME["kafka"].ids)
    return KafkaAccess(bootstrap=brokers, partitions=settings.engines)


def followed(settings: Settings, role: str) -> KafkaAccess | None:
    """Return the cluster of the region that a mirror follows."""
    return KafkaAccess(bootstrap=settings.follows) if settings.follows and role == "mirror" else None


def own_kafka(settings: Settings) -> KafkaAccess:
    """Return how the cluster is reached that the settings name."""
    return KafkaAccess(
        bootstrap=settings.kafka_bootstrap, topic=settings.kafka_topic, copies=settings.kafka_copies,
        needed=settings.kafka_needed, cluster_id=settings.kafka_cluster_id, partitions=settings.engines,
    )  # fmt: skip


def rabbit_access(settings: Settings, layout: Layout, ports: Ports, role: str) -> RabbitAccess | None:
    """Return how a role reaches the broker of messages; None for roles that do not."""
    if not runs(settings, "rabbitmq") or role not in {"settlement", "saga"}:
        return None
    url = f"amqp://tapewatch@{HOST}:{ports.servers['rabbitmq-1/amqp']}/"
    return RabbitAccess(url=url, password_file=str(layout.secret("rabbitmq")))


def edge_access(settings: Settings, layout: Layout, ports: Ports, role: str) -> EdgeAccess | None:
    """Return how a role reaches the gateways through the edge; None for roles that do not."""
    if not runs(settings, "edge") or role != "load":
        return None
    return EdgeAccess(
        url=f"https://{HOST}:{ports.servers['edge-1/https']}", ca_file=str(TrialAuthority(layout.edge).certificate)
    )


def balance(settings: Settings, layout: Layout, ports: Ports) -> Balance | None:
    """Return what is told before a gateway is replaced; None without an edge, and of nginx, which takes no commands."""
    if not runs(settings, "edge") or settings.edge != "haproxy":
        return None
    return EdgeBalance(url_of(ports.servers[f"edge-1/{HOST_PORT}"]), lambda: layout.secret("admin").read_text().strip())


def own_pages(settings: Settings, ports: Ports) -> dict[str, list[tuple[str, int]]]:
    """Return the services whose own page of metrics Prometheus reads besides their hosts': job, replicas, ports."""
    pages = {}
    if runs(settings, "rabbitmq"):
        pages["rabbitmq-server"] = [("rabbitmq-1", ports.servers["rabbitmq-1/prometheus"])]
    if runs(settings, "edge") and settings.edge == "haproxy":
        pages["edge-server"] = [("edge-1", ports.servers["edge-1/stats"])]
    return pages


def saga_ports(settings: Settings, ports: Ports) -> dict[str, list[tuple[str, int]]]:
    """Return the parts of settlement by sagas and their ports: none where no broker of messages runs."""
    if not runs(settings, "rabbitmq"):
        return {}
    return {"saga": [(replica, ports.servers[f"{replica}/{HOST_PORT}"]) for replica in SAGA_PARTS]}


def saga_tuning(settings: Settings, replica: str) -> SagaTuning:
    """Return which part a replica such as `saga-cash-1` is."""
    keep_s = settings.saga_keep_days * _DAY_S
    tuning = SagaTuning(part=SAGA_PARTS[replica], style=settings.saga_style, keep_s=keep_s)
    return tuned(tuning, settings.saga_bounds, settings.saga_suspended)


def write_configs(settings: Settings, layout: Layout, ports: Ports) -> None:
    """Write what each server host reads at its start."""
    for service in services(settings):
        for replica in service.ids:
            config = ServerConfig(
                service=service.name, replica=replica, state=str(layout.root),
                directory=str(home(layout) / replica), ports=ports_of(service, ports),
                program=_program(settings, service.name), options=_options(settings, service.name, ports),
                faults_allowed=settings.faults_allowed,
            )  # fmt: skip
            path = layout.config(replica)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))


def _program(settings: Settings, service: str) -> str:
    return {
        "kafka": settings.kafka_home, "postgres": settings.postgres, "rabbitmq": settings.rabbitmq,
        "zipkin": settings.zipkin,
    }.get(service, "")  # fmt: skip


def _options(settings: Settings, service: str, ports: Ports) -> Mapping[str, str]:
    if service != "edge":
        return {}
    gateways = ",".join(f"gateway-{number}={port}" for number, port in enumerate(ports.gateways, 1))
    return {
        "balancer": settings.edge, "gateways": gateways, "market_data": str(ports.market_data),
        "renew_share": str(settings.edge_renew_share),
    }  # fmt: skip


def workloads(settings: Settings, layout: Layout, ports: Ports) -> list[WorkloadSpec]:
    """Return the services as workloads: runbooks mend them, and prove that it helped."""
    return [
        WorkloadSpec(
            service.name,
            tuple(_slot(layout, replica, ports.servers[f"{replica}/{HOST_PORT}"]) for replica in service.ids),
            service.replicas, singleton=True, grace_s=_GRACE_S, start_timeout_s=_START_S,
            turnover=_turnover(service, layout),
        )
        for service in services(settings)
    ]  # fmt: skip


def _turnover(service: Service, layout: Layout) -> Turnover | None:
    """Return how one of a pair takes over from the other, where a service is a pair."""
    if service.name != "postgres":
        return None
    from control.servers.postgres_pair import PostgresTurnover

    return PostgresTurnover(lambda: load_server_config(layout.config(service.ids[0])))


def _slot(layout: Layout, replica: str, port: int) -> Slot:
    argv = (sys.executable, "-m", "control.serverhost", str(layout.config(replica)))
    return Slot(replica, port, argv, layout.output(replica), PYTHON)
