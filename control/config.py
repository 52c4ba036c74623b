"""What a process of the estate is told at its start: one JSON file a replica, written by the estate."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.kafka_place import KafkaPlace
from exchange.listing import refuse_contradictions
from exchange.types import Instrument, Venue
from runbooks.model import Consent


class ControlTuning(msgspec.Struct, frozen=True, kw_only=True):
    """How patient and how careful the control loop is. Durations in seconds."""

    quiet_s: float = 3.0
    """All alerts of an incident must stay resolved for so long before it is closed."""
    deadman_s: float = 15.0
    """Without a Watchdog alert for so long, the monitoring itself is taken to be down."""
    handover_s: float = 12.0
    """An incident still firing so long after its last run, with nothing left to try, goes to a person."""
    consent_s: float = 300.0
    """How long a question for consent stands before silence counts as no."""
    consent_floor: Mapping[str, Consent] = {}
    """Who must agree at least, by runbook or `*` for every one; it never asks for less than the runbook does."""
    calendar: str = ""
    """File of the market's calendar; empty: trading is always continuous."""
    auction_quiet_s: float = 300.0
    """For so long before an auction nothing disruptive begins."""
    repage_s: float = 30.0
    """How often a person is told again that an incident waits."""
    allowed: tuple[str, ...] = (
        "gateway", "market-data", "settlement", "watchdog", "engine",
        "kafka", "postgres", "rabbitmq", "zipkin", "edge", "saga", "mirror",
    )  # fmt: skip
    """Workloads that runbooks may touch at all."""
    library: str = ""
    """Directory of the runbooks; empty: the ones that ship with the program."""


class KubeAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How a process reaches the cluster that runs the exchange, and what it may touch there."""

    kubeconfig: str
    """Empty: the account of the pod this process runs in."""
    context: str = ""
    cluster_id: str = ""
    """The uid of the namespace kube-system it must be; empty: whichever it is."""
    allowed: tuple[str, ...] = ()
    """Workloads and other objects that runbooks may touch, as `namespace/Kind/name`."""
    peers: tuple[str, ...] = ()
    """Addresses of every control process, this one too: who stands by passes on to the leader."""
    lease_s: float = 15.0
    """How long a leader that is silent goes on leading."""


class LogShipping(msgspec.Struct, frozen=True, kw_only=True):
    """Where the shipper sends logs. Secrets stand in files that are named here, never in this one."""

    url: str
    environment: str
    user: str = ""
    password_file: str = ""
    api_key_file: str = ""
    ca_file: str = ""


class DatabaseAccess(msgspec.Struct, frozen=True, kw_only=True):
    """A database of a role that is not the embedded one. Its password stands in a file that is named here."""

    url: str
    password_file: str = ""


class KafkaAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster that keeps the journal, and the part of it that a role has (`exchange.adapters.kafka_topics`)."""

    bootstrap: str
    """Addresses of brokers, `host:port`, parted by commas."""
    topic: str = "exchange"
    partition: int = 0
    partitions: int = 1
    copies: int = 3
    needed: int = 2
    cluster_id: str = ""


def place_of(access: KafkaAccess) -> KafkaPlace:
    """Return the place in the cluster that a role has."""
    return KafkaPlace(**msgspec.structs.asdict(access))


class RabbitAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The broker of messages. Its password stands in a file that is named here."""

    url: str
    """Such as `amqp://tapewatch@127.0.0.1:5672/`, without the password."""
    password_file: str = ""


class EdgeAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The way to the gateways through the load balancer before them."""

    url: str
    """Such as `https://127.0.0.1:18443`."""
    ca_file: str
    """PEM file of the authority that vouches for it."""


class SagaTuning(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of settlement by sagas a process is."""

    part: Literal["coordinator", "cash", "securities", "fees", "clearing"]
    style: Literal["orchestrated", "choreographed"] = "orchestrated"
    keep_s: float = 0.0
    """Of the coordinator: how long a saga that ended is kept; 0: for ever."""
    least: int | None = None
    """Of a service: the least an account may have in its book, in millionths or lots; None: anything."""
    least_of: dict[str, int | None] = {}
    """Of a service: accounts with a bound of their own."""
    suspended: list[str] = []
    """Of clearing: accounts whose trades it does not take."""


class AnomalyTuning(msgspec.Struct, frozen=True, kw_only=True):
    """What judges series: which, how often, and how far back it looks when it begins anew."""

    watched: str = ""
    """File of the watched series; empty: the house's own."""
    step_s: int = 2
    scrape_s: int = 1
    """How often Prometheus scrapes; the windows of rates follow it."""
    history_s: int = 3600
    url: str = ""
    """Where the process answers; empty: there is none, and incidents do not tell what it found."""


class Tokens(StrEnum):
    """What opens a gateway's door."""

    SHARED = "shared"
    """The estate's secret `trade`: whoever knows it trades every account."""
    SIGNED = "signed"
    """Signed tokens (`exchange.adapters.tokens`), each for its own accounts."""
    BOTH = "both"
    """Either: for trials, and while participants move from one to the other."""


class GatewayTuning(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a gateway lets in, and how much of it one key and one account may use."""

    tokens: Tokens = Tokens.SHARED
    issuer: str = "tapewatch"
    audience: str = "order-entry"
    key_rate_per_s: float = 0.0
    """0: no bound."""
    account_rate_per_s: float = 0.0
    cancel_factor: float = 2.0
    engine_timeout_s: float = 5.0
    """How long an order's durable answer is waited for; after that its sender is told that the outcome is unknown."""


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans go, and of which orders."""

    url: str = ""
    """An OTLP receiver over HTTP, such as `http://127.0.0.1:4318`; empty: none."""
    zipkin_url: str = ""
    """A Zipkin, such as `http://127.0.0.1:9411`; empty: none."""
    share: float = 0.01
    slow_s: float = 0.25


class EngineAddress(msgspec.Struct, frozen=True):
    """Where the engine of a partition takes commands, and its events come from."""

    port: int
    """Of framed TCP."""
    host: str = LOOPBACK


class JournalTuning(msgspec.Struct, frozen=True, kw_only=True):
    """How much an engine keeps of a journal in files, although snapshots cover it."""

    compacts: bool = True
    keep_mib: int = 4096
    keep_hours: float = 24.0
    snapshots: int = 3


class RoleConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a role needs to know. Secrets are named by file, never carried here."""

    role: str
    replica: str
    """Such as `gateway-1`; equals the Prometheus label `replica`."""
    state: str
    """The estate's state directory; the layout below it is in `control.layout`."""
    port: int
    """HTTP: metrics, health and the role's own interface."""
    listen: str = LOOPBACK
    """The address of this machine that it takes connections on. Another than loopback lets in whoever reaches it: the
    engine's stream, metrics and everything that only reads ask for no token."""
    engine_host: str = LOOPBACK
    """Where the engine is; a name is resolved anew at every connection."""
    engines: tuple[EngineAddress, ...] = ()
    """Gateways and market data only: the engines of all partitions, in their order; empty: the one of `engine_host`."""
    market_data_host: str = LOOPBACK
    control_host: str = LOOPBACK
    """Where people find control, by the links of its alerts."""
    engine_http_port: int
    engine_stream_port: int
    """The engine's framed TCP port: commands from gateways, events to consumers."""
    market_data_port: int
    settlement_port: int
    estate_port: int
    control_port: int
    prometheus_url: str
    alertmanager_url: str
    instruments: tuple[Instrument, ...]
    venue: Venue = Venue()
    gateway_capacity_per_s: int = 400
    gateway: GatewayTuning = GatewayTuning()
    load_rate_per_s: float = 0.0
    load_by_phase: bool = False
    """Whether the load follows the phases of `tuning.calendar`."""
    phases_by_calendar: bool = False
    """Whether the engine turns the market's phases as `tuning.calendar` says."""
    journal: JournalTuning = JournalTuning()
    seed: int = 1
    tuning: ControlTuning = ControlTuning()
    bridge: str = ""
    """The bridge's file (`docs/receivers.md`); empty: there is no bridge."""
    log_rules: str = ""
    """The log rules; empty: the house's own."""
    log_kinds: bool = True
    """Whether kinds of log lines are judged beside the rules; false: no detector is loaded."""
    anomaly: AnomalyTuning = AnomalyTuning()
    kube: KubeAccess | None = None
    """None: the exchange is local processes."""
    shipping: LogShipping | None = None
    """None: no shipper runs, and log rules ask the local files."""
    ledger: DatabaseAccess | None = None
    """Of settlement, or of a part of settlement by sagas. None: it is SQLite in the state directory, a file each."""
    store: DatabaseAccess | None = None
    """None: signals, incidents and runs are kept in SQLite in the state directory."""
    tracing: Tracing | None = None
    """None: no spans are built."""
    kafka: KafkaAccess | None = None
    """None: the journal is files in the state directory, and what follows from it comes by the engine's stream."""
    follows: KafkaAccess | None = None
    """Of the role `mirror` only: the cluster of the region whose journal is copied into `kafka`."""
    rabbit: RabbitAccess | None = None
    """None: there is no broker of messages."""
    edge: EdgeAccess | None = None
    """Of the load only. None: it goes to the gateways themselves."""
    saga: SagaTuning | None = None
    """Of the role `saga` only."""
    faults_allowed: bool = False
    """Whether the role accepts faults from `tapewatch fault inject` and the drill."""


def load_config(path: Path) -> RoleConfig:
    """Read a role's configuration.

    Raises:
        msgspec.ValidationError: the file does not fit this version of the program.
        InputError: instruments or venue contradict themselves.
    """
    config = msgspec.json.decode(path.read_bytes(), type=RoleConfig)
    if config.instruments:  # a role that trades nothing, such as the bridge, is told of none
        refuse_contradictions(config.instruments, config.venue, str(path))
    return config


def save_config(config: RoleConfig, path: Path) -> None:
    """Write a role's configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
