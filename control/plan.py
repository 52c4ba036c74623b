"""What a local estate consists of: ports, commands, owners and the order of things."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import psutil

from control import render, server_plan
from control.addresses import HOST, url_of
from control.child import PYTHON, Slot
from control.config import (
    AnomalyTuning,
    ControlTuning,
    GatewayTuning,
    JournalTuning,
    KubeAccess,
    LogShipping,
    RoleConfig,
    Tokens,
    Tracing,
    save_config,
)
from control.databases import access
from control.layout import Layout
from control.servers.catalogue import port_names
from control.settings import Settings
from control.supervisor import ESTATE, WorkloadSpec
from exchange.types import Instrument, Venue
from kernel.errors import PermanentError

START_ORDER: Final = (
    ("engine",),
    ("gateway", "market-data", "settlement", "watchdog"),
    ("prometheus", "alertmanager", "control"),
    ("load",),
)
"""Each group starts when the one before is ready. Watching begins when there is something to watch."""
KUBE_START_ORDER: Final = (("control", "kube-state"), ("prometheus", "alertmanager"), ("load",))
"""On Kubernetes, after the cluster and its pods."""
KUBE_STOP_ORDER: Final = (("load",), ("control",), ("podhost",), ("kube-state", "alertmanager", "prometheus"))
"""No new orders, then nobody who would mend what is being stopped; the pod host ends the exchange in its own order."""
STOP_ORDER: Final = (
    ("load",),
    ("gateway",),
    ("watchdog", "market-data", "settlement"),
    ("engine",),
    ("control",),
    ("alertmanager", "prometheus"),
)
"""No new orders, then nobody who listens, then the engine, which notes that it was stopped cleanly."""

BESIDE: Final = {
    "bridge": "alertmanager", "shipper": "alertmanager", "log-watch": "alertmanager", "node": "alertmanager",
    "anomaly": "alertmanager",
}  # fmt: skip
"""Workloads that run only when they are configured, and with whom they start and stop."""


def group_of(group: tuple[str, ...], running: Collection[str]) -> tuple[str, ...]:
    """Return a group of an order with those which run beside its members."""
    return (*group, *(name for name, with_whom in BESIDE.items() if with_whom in group and name in running))


@dataclass(frozen=True)
class Ports:
    """Every port of an estate."""

    control: int
    estate: int
    prometheus: int
    alertmanager: int
    engine: int
    engine_stream: int
    market_data: int
    settlement: int
    watchdog: int
    load: int
    podhost: int
    control_2: int
    kube_state: int
    bridge: int
    shipper: int
    log_watch: int
    anomaly: int
    node: int
    gateways: tuple[int, ...]
    servers: Mapping[str, int] = field(default_factory=dict)
    """Of the services of a distributed estate, such as `kafka-1/broker`; none when it is embedded."""

    def named(self) -> dict[str, int]:
        """Return name and number of each port."""
        named = {name: port for name, port in vars(self).items() if isinstance(port, int)}
        return named | {f"gateway-{index}": port for index, port in enumerate(self.gateways, 1)} | dict(self.servers)


KUBE_ONLY: Final = ("podhost", "control_2", "kube_state")
"""Ports that only an estate on Kubernetes opens."""
CONTROL_PATIENCE_S: Final = 60.0
DRAIN_S: Final = 6.0
"""Between taking a gateway out of the address books and stopping it.

Prometheus learns of it within five seconds; were it stopped before, its removal would look like its death.
"""


def choose_ports(settings: Settings) -> Ports:
    """Return the estate's ports: the fixed ones, or free ones.

    Raises:
        PermanentError: a fixed port is taken; says by whom.
    """
    servers = [*port_names(), *server_plan.engine_port_names(settings)] if settings.estate == "distributed" else []
    if settings.ports == "auto":
        names = [name for name in Ports.__dataclass_fields__ if name not in {"gateways", "servers"}]
        free = free_ports(len(names) + settings.gateways_max + len(servers))
        gateways, own = free[len(names) :][: settings.gateways_max], free[len(names) + settings.gateways_max :]
        return Ports(
            gateways=tuple(gateways), servers=dict(zip(servers, own, strict=True)),
            **dict(zip(names, free, strict=False)),
        )  # fmt: skip
    first = settings.port_gateways
    ports = Ports(
        settings.port_control, settings.port_estate, settings.port_prometheus, settings.port_alertmanager,
        settings.port_engine, settings.port_engine_stream, settings.port_market_data, settings.port_settlement,
        settings.port_watchdog, settings.port_load, settings.port_podhost, settings.port_control_2,
        settings.port_kube_state, settings.port_bridge, settings.port_shipper, settings.port_log_watch,
        settings.port_anomaly, settings.port_node,
        gateways=tuple(range(first, first + settings.gateways_max)),
        servers=dict(zip(servers, range(settings.port_servers, settings.port_servers + len(servers)), strict=True)),
    )  # fmt: skip
    for name, port in ports.named().items():
        needed = (
            settings.bridge is not None
            if name == "bridge"
            else ships(settings)
            if name == "shipper"
            else settings.log_watch
            if name == "log_watch"
            else settings.anomaly
            if name == "anomaly"
            else settings.on == "kubernetes" or name not in KUBE_ONLY
        )
        if needed and not is_free(port):
            key = "GATEWAYS" if name.startswith("gateway-") else "SERVERS" if "/" in name else name.upper()
            raise PermanentError(
                f"port {port} ({name}) is in use by {holder_of(port)}: stop that, "
                f"or set TAPEWATCH_PORT_{key} or TAPEWATCH_PORTS=auto"
            )
    return ports


_BELOW: Final = range(20_000, 32_000)
"""Above every fixed port of an estate, below what Linux gives to outgoing connections."""
_TRIES: Final = 100


def is_free(port: int) -> bool:
    """Tell whether a port can be opened on loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def holder_of(port: int) -> str:
    """Name the process that listens on a port, as far as we may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:] == (port,) and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now.

    They lie below those that the kernel gives to outgoing connections, where there is room: a server that begins some
    seconds later would else find its port taken by a connection of whoever waits for it.
    """
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(_free_socket()).getsockname()[1] for _ in range(count)]


def _free_socket() -> socket.socket:
    """Return a socket that holds a free port: one of chance below the kernel's own range, else whichever it gives."""
    for _ in range(_TRIES):
        one = socket.socket()
        try:
            one.bind((HOST, secrets.choice(_BELOW)))
        except OSError:
            one.close()
        else:
            return one
    one = socket.socket()
    one.bind((HOST, 0))
    return one


def write_configs(
    settings: Settings, layout: Layout, ports: Ports, instruments: tuple[Instrument, ...], venue: Venue | None = None
) -> None:
    """Write what each role reads at its start, and the monitoring's configuration.

    Raises:
        InputError: one of the project's own files is broken.
    """
    for role, replicas in _role_ports(settings, ports).items():
        for replica, port in replicas:
            config = _role_config(settings, layout, ports, instruments, role, replica, port)
            config = server_plan.of_engine(settings, ports, config)
            save_config(msgspec.structs.replace(config, venue=venue or Venue()), layout.config(replica))
    server_plan.write_configs(settings, layout, ports)
    from control.routing import estate_routes  # the terminal's other verbs shall not wait for it

    prometheus, alertmanager = _homes(layout)
    render.write_yaml(
        prometheus / "prometheus.yml",
        render.prometheus_config(
            render.load_yaml(render.ALERTS / "prometheus.yml"), rules=render.ALERTS / "rules",
            targets=prometheus / "targets", alertmanager_port=ports.alertmanager, interval_s=settings.scrape_interval_s,
        ),
    )  # fmt: skip
    render.write_yaml(
        alertmanager / "alertmanager.yml",
        render.alertmanager_config(
            estate_routes(settings, ports.control, ports.bridge, layout.secret("webhook")),
            control_ports=control_ports(settings, ports), secret=layout.secret("webhook"),
            group_wait_s=settings.group_wait_s,
        ),
        mode=0o600,
    )  # fmt: skip


def _homes(layout: Layout) -> tuple[Path, Path]:
    return layout.root / "prometheus", layout.root / "alertmanager"


def control_ports(settings: Settings, ports: Ports) -> tuple[int, ...]:
    """Return where control listens: once, or on Kubernetes twice."""
    return (ports.control, ports.control_2) if settings.on == "kubernetes" else (ports.control,)


def _role_ports(settings: Settings, ports: Ports) -> dict[str, list[tuple[str, int]]]:
    """Return the replicas that the estate starts itself; those of a cluster are the pod host's."""
    bridge = {"bridge": [("bridge-1", ports.bridge)]} if settings.bridge is not None else {}
    if ships(settings):
        bridge["shipper"] = [("shipper-1", ports.shipper)]
    if settings.log_watch:
        bridge["log-watch"] = [("log-watch-1", ports.log_watch)]
    if settings.anomaly:
        bridge["anomaly"] = [("anomaly-1", ports.anomaly)]
    if settings.follows:
        bridge["mirror"] = [("mirror-1", ports.servers["mirror-1/host"])]
    if settings.on == "kubernetes":
        return {
            "control": [(f"control-{n}", port) for n, port in enumerate(control_ports(settings, ports), 1)],
            "kube-state": [("kube-state-1", ports.kube_state)],
            "podhost": [("podhost-1", ports.podhost)],
            "load": [("load-1", ports.load)],
            **bridge,
        }
    return {
        "engine": server_plan.engine_ports(settings, ports),
        "gateway": [(f"gateway-{index}", port) for index, port in enumerate(ports.gateways, 1)],
        "market-data": [("market-data-1", ports.market_data)],
        "settlement": [("settlement-1", ports.settlement)],
        "watchdog": [("watchdog-1", ports.watchdog)],
        "control": [("control-1", ports.control)],
        "load": [("load-1", ports.load)],
        **server_plan.saga_ports(settings, ports),
        **bridge,
    }


def gateway_tuning(settings: Settings) -> GatewayTuning:
    """Return whom gateways let in, and how much of them one key and one account may use."""
    return GatewayTuning(
        tokens=Tokens(settings.gateway_tokens), issuer=settings.token_issuer, audience=settings.token_audience,
        key_rate_per_s=settings.gateway_key_rate_per_s, account_rate_per_s=settings.gateway_account_rate_per_s,
        cancel_factor=settings.gateway_cancel_factor,
    )  # fmt: skip


_LEDGERS: Final = {"settlement": "ledger", "saga": "saga"}
"""Which kind of database a role's `ledger` is."""


def _role_config(
    settings: Settings,
    layout: Layout,
    ports: Ports,
    instruments: tuple[Instrument, ...],
    role: str,
    replica: str,
    port: int,
) -> RoleConfig:
    return RoleConfig(
        role=role, replica=replica, state=str(layout.root), port=port,
        engine_http_port=ports.engine, engine_stream_port=ports.engine_stream, market_data_port=ports.market_data,
        settlement_port=ports.settlement, estate_port=ports.estate, control_port=ports.control,
        prometheus_url=url_of(ports.prometheus), alertmanager_url=url_of(ports.alertmanager), instruments=instruments,
        gateway_capacity_per_s=settings.gateway_capacity_per_s, gateway=gateway_tuning(settings),
        load_rate_per_s=settings.load_rate_per_s, load_by_phase=settings.load_by_phase,
        phases_by_calendar=settings.phases_by_calendar,
        journal=JournalTuning(
            compacts=settings.journal_compacts, keep_mib=settings.journal_keep_mib,
            keep_hours=settings.journal_keep_hours, snapshots=settings.snapshots_kept,
        ),
        seed=settings.seed, faults_allowed=settings.faults_allowed,
        bridge=str(settings.bridge.absolute()) if settings.bridge is not None else "",
        shipping=_shipping(settings) if role == "shipper" or (role == "log-watch" and settings.elastic_url) else None,
        log_rules=str(settings.log_rules.absolute()) if settings.log_rules is not None else "",
        log_kinds=settings.log_kinds,
        anomaly=AnomalyTuning(
            watched=str(settings.anomaly_watched.absolute()) if settings.anomaly_watched is not None else "",
            step_s=settings.anomaly_step_s, scrape_s=settings.scrape_interval_s, history_s=settings.anomaly_history_s,
            url=url_of(ports.anomaly) if settings.anomaly else "",
        ),
        ledger=access(settings, _LEDGERS[role], layout) if role in _LEDGERS else None,
        saga=server_plan.saga_tuning(settings, replica) if role == "saga" else None,
        store=access(settings, "store", layout) if role == "control" else None,
        tracing=Tracing(
            url=settings.otlp_url, zipkin_url=settings.zipkin_url,
            share=settings.trace_share, slow_s=settings.trace_slow_s,
        ) if settings.otlp_url or settings.zipkin_url else None,
        tuning=ControlTuning(
            quiet_s=settings.quiet_s, deadman_s=settings.deadman_s, allowed=settings.allowed_targets,
            library=settings.library, consent_s=settings.consent_s, consent_floor=settings.consent_floor,
            calendar=str(settings.calendar.absolute()) if settings.calendar is not None else "",
            auction_quiet_s=settings.auction_quiet_s,
        ),
        kube=_kube_access(settings, layout, ports, role) if settings.on == "kubernetes" else None,
        kafka=server_plan.kafka_access(settings, ports, role),
        engines=server_plan.engine_addresses(settings, ports, role),
        follows=server_plan.followed(settings, role),
        rabbit=server_plan.rabbit_access(settings, layout, ports, role),
        edge=server_plan.edge_access(settings, layout, ports, role),
    )  # fmt: skip


def ships(settings: Settings) -> bool:
    """Tell whether the estate ships its logs itself."""
    return bool(settings.elastic_url) and settings.ship_logs


def _shipping(settings: Settings) -> LogShipping:
    files = {
        name: str(path.absolute()) if path is not None else ""
        for name, path in (
            ("password_file", settings.elastic_password_file), ("api_key_file", settings.elastic_api_key_file),
            ("ca_file", settings.elastic_ca_file),
        )
    }  # fmt: skip
    return LogShipping(url=settings.elastic_url, environment=settings.environment, user=settings.elastic_user, **files)


def _kube_access(settings: Settings, layout: Layout, ports: Ports, role: str) -> KubeAccess:
    """Return a role's way into the cluster: each with the account that its work needs, and no other."""
    accounts = {"control": "tapewatch", "kube-state": "tapewatch-kube-state"}
    return KubeAccess(
        kubeconfig=str(layout.kube / f"{accounts.get(role, 'probe')}.kubeconfig"),
        cluster_id=settings.cluster_id,
        allowed=settings.kube_allowed if role == "control" else (),
        peers=tuple(url_of(port) for port in control_ports(settings, ports)),
        lease_s=settings.lease_s,
    )


def workloads(settings: Settings, layout: Layout, ports: Ports) -> list[WorkloadSpec]:
    """Return the workloads that the estate starts itself."""
    slots = {
        role: tuple(_python_slot(layout, replica, port) for replica, port in replicas)
        for role, replicas in _role_ports(settings, ports).items()
    }
    platform = [
        *_monitoring(settings, layout, ports),
        WorkloadSpec("load", slots["load"], int(settings.load_rate_per_s > 0), ESTATE, singleton=True),
    ]
    node = _node_exporter(settings, layout, ports)
    if node is not None:
        platform.append(node)
    if settings.bridge is not None:
        platform.append(WorkloadSpec("bridge", slots["bridge"], 1, ESTATE, singleton=True, grace_s=5.0))
    if ships(settings):
        platform.append(WorkloadSpec("shipper", slots["shipper"], 1, ESTATE, singleton=True, grace_s=12.0))
    if settings.log_watch:
        platform.append(WorkloadSpec("log-watch", slots["log-watch"], 1, ESTATE, singleton=True, grace_s=8.0))
    if settings.anomaly:
        platform.append(
            WorkloadSpec("anomaly", slots["anomaly"], 1, ESTATE, singleton=True, grace_s=8.0, patience_s=120.0)
        )
    if settings.on == "kubernetes":
        return [
            WorkloadSpec("podhost", slots["podhost"], 1, ESTATE, singleton=True, grace_s=15.0),
            # One leads, one stands by and says that it is not ready: alive is all that is asked. One that hangs is the
            # Lease's affair, which must not be mended behind its back.
            WorkloadSpec(
                "control", slots["control"], 2, ESTATE, ready_path="/health/live", patience_s=CONTROL_PATIENCE_S
            ),
            WorkloadSpec("kube-state", slots["kube-state"], 1, ESTATE, singleton=True),
            *platform,
        ]
    if settings.follows:
        platform.append(WorkloadSpec("mirror", slots["mirror"], 1, singleton=True, grace_s=12.0))
    return [
        *server_plan.workloads(settings, layout, ports),
        WorkloadSpec("engine", slots["engine"], len(slots["engine"]), singleton=True, grace_s=5.0),
        WorkloadSpec(
            "gateway",
            slots["gateway"],
            settings.gateways,
            drain_s=DRAIN_S,
            balance=server_plan.balance(settings, layout, ports),
        ),
        WorkloadSpec("market-data", slots["market-data"], 1, singleton=True),
        WorkloadSpec("settlement", slots["settlement"], 1, singleton=True),
        WorkloadSpec("watchdog", slots["watchdog"], 1, singleton=True),
        *(WorkloadSpec("saga", each, len(each), singleton=True) for each in (slots.get("saga"),) if each),
        WorkloadSpec("control", slots["control"], 1, ESTATE, singleton=True),
        *platform,
    ]


def _monitoring(settings: Settings, layout: Layout, ports: Ports) -> list[WorkloadSpec]:
    prometheus, alertmanager = _homes(layout)
    outputs = {name: layout.output(f"{name}-1") for name in ("prometheus", "alertmanager")}
    prometheus_argv = render.prometheus_command(
        settings.prometheus, prometheus / "prometheus.yml", prometheus / "data", ports.prometheus, settings.retention
    )
    alertmanager_argv = render.alertmanager_command(
        settings.alertmanager, alertmanager / "alertmanager.yml", alertmanager / "data", ports.alertmanager
    )
    return [
        WorkloadSpec(
            "prometheus", (Slot("prometheus-1", ports.prometheus, prometheus_argv, outputs["prometheus"]),),
            1, ESTATE, singleton=True, ready_path="/-/ready",
        ),
        WorkloadSpec(
            "alertmanager", (Slot("alertmanager-1", ports.alertmanager, alertmanager_argv, outputs["alertmanager"]),),
            1, ESTATE, singleton=True, ready_path="/-/ready",
        ),
    ]  # fmt: skip


NODE_COLLECTORS: Final = ("cpu", "meminfo", "loadavg", "filesystem", "diskstats", "netdev", "timex", "uname")
"""What boards and rules ask of a machine. All of its collectors would cost a dozen times the series."""


def _node_exporter(settings: Settings, layout: Layout, ports: Ports) -> WorkloadSpec | None:
    """Return the exporter of the machine's figures; None where it is not installed."""
    if shutil.which(settings.node_exporter) is None:
        return None
    argv = (
        settings.node_exporter, f"--web.listen-address={HOST}:{ports.node}", "--web.disable-exporter-metrics",
        "--collector.disable-defaults", *(f"--collector.{name}" for name in NODE_COLLECTORS), "--log.level=warn",
    )  # fmt: skip
    slot = Slot("node-1", ports.node, argv, layout.output("node-1"))
    return WorkloadSpec("node", (slot,), 1, ESTATE, singleton=True, ready_path="/")


def _python_slot(layout: Layout, replica: str, port: int) -> Slot:
    module = "control.podhost" if replica.startswith("podhost-") else "control.roles"
    argv = (sys.executable, "-m", module, str(layout.config(replica)))
    # Hash randomisation stays on: replay needs none.
    return Slot(replica, port, argv, layout.output(replica), PYTHON)


def targets_directory(layout: Layout) -> Path:
    """Return where Prometheus looks for its targets."""
    return _homes(layout)[0] / "targets"
