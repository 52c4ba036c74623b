"""Every setting of a local estate: its meaning, unit, default and the default's reason.

Settings come from the environment (`TAPEWATCH_<KEY>`) before `tapewatch.toml` in the working directory before the
defaults. A wrong one, and a key that does not exist, is refused with one sentence.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from control.saga_bounds import Account, Bound, OneAccount
from kernel.errors import InputError
from runbooks.model import Consent

PREFIX: Final = "TAPEWATCH_"
FILE: Final = "tapewatch.toml"
READ_BEFORE: Final = frozenset({"TAPEWATCH_COMPILED", "TAPEWATCH_COMPILE"})
"""Not settings of an estate: which build of the matching runs is settled before anything of it is imported."""
MAX_GATEWAYS: Final = 10


class Settings(BaseSettings):
    """The settings of one estate. Durations are in seconds, rates per second."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, toml_file=FILE, extra="forbid", frozen=True, env_ignore_empty=True
    )

    state: Path = Path(".tapewatch/up")
    """State directory; below the working directory, so that `git clean` and a second clone do not meet."""
    on: Literal["local", "kubernetes"] = "local"
    """What runs the exchange: `local` processes, or the pods of a Kubernetes test bed, started with the estate."""
    estate: Literal["embedded", "distributed"] = "embedded"
    """What keeps it: files and SQLite in the state, or Kafka, PostgreSQL, RabbitMQ and the other `services`."""
    services: tuple[Literal["kafka", "postgres", "rabbitmq", "zipkin", "edge"], ...] = (
        "kafka", "postgres", "rabbitmq", "zipkin", "edge",
    )  # fmt: skip
    """When distributed: the services that the estate starts itself. One that is left out is left out of the exchange,
    unless its address is named (`ledger_url`, `store_url`, `zipkin_url`)."""
    follows: str = Field("", pattern=r"^$|^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$")
    """When distributed: brokers of another region, such as `a:9092,b:9092`. Its journal is copied here, and nothing is
    traded until `tapewatch region take-over`; the listing comes over with it."""
    edge: Literal["haproxy", "nginx"] = "haproxy"
    """When distributed: what stands before the gateways."""
    edge_renew_share: float = Field(1 / 3, gt=0, le=0.9)
    """With less than this share of its life left, the edge's own certificate is made anew; a third, as is custom."""
    ports: Literal["fixed", "auto"] = "fixed"
    """`fixed`: the ports below, so that addresses can be remembered. `auto`: free ones, for drills and tests."""
    port_control: int = Field(18700, ge=1024, le=65_535)
    """Webhook intake and API of control. All fixed ports lie below the kernel's range for outgoing connections."""
    port_estate: int = Field(18701, ge=1024, le=65_535)
    """The supervisor's own interface."""
    port_prometheus: int = Field(19090, ge=1024, le=65_535)
    """Prometheus; ten thousand above its usual port, which a machine may have taken."""
    port_alertmanager: int = Field(19093, ge=1024, le=65_535)
    """Alertmanager; likewise."""
    port_engine: int = Field(18710, ge=1024, le=65_535)
    """The engine's HTTP."""
    port_engine_stream: int = Field(18711, ge=1024, le=65_535)
    """The engine's framed TCP."""
    port_market_data: int = Field(18720, ge=1024, le=65_535)
    """The feed."""
    port_settlement: int = Field(18730, ge=1024, le=65_535)
    """Settlement's health and metrics."""
    port_watchdog: int = Field(18740, ge=1024, le=65_535)
    """The watchdog's health and metrics."""
    port_podhost: int = Field(18702, ge=1024, le=65_535)
    """The pod host's health, on Kubernetes."""
    port_control_2: int = Field(18703, ge=1024, le=65_535)
    """The second control process, on Kubernetes: one leads, one stands by."""
    port_kube_state: int = Field(18760, ge=1024, le=65_535)
    """The cluster's facts as metrics, on Kubernetes."""
    port_load: int = Field(18750, ge=1024, le=65_535)
    """The load generator's health, metrics and rate."""
    port_bridge: int = Field(18770, ge=1024, le=65_535)
    """The bridge to people's pagers, where one is told of."""
    port_shipper: int = Field(18780, ge=1024, le=65_535)
    """The shipper's health and metrics, where logs are shipped."""
    port_log_watch: int = Field(18785, ge=1024, le=65_535)
    """Log rules: health and metrics of what runs them."""
    port_anomaly: int = Field(18795, ge=1024, le=65_535)
    """Detectors: health, metrics, and what they see of each series."""
    port_node: int = Field(18790, ge=1024, le=65_535)
    """The machine's figures, by node_exporter."""
    port_gateways: int = Field(18800, ge=1024, le=65_500)
    """The first gateway's; the others follow without gaps."""
    port_servers: int = Field(18900, ge=1024, le=65_400)
    """When distributed: the first of the services' ports; the others follow without gaps."""
    symbols: int = Field(8, ge=1, le=1000)
    """Generated instruments; eight books keep a small machine's engine as busy as a real one's group."""
    gateways: int = Field(2, ge=1, le=MAX_GATEWAYS)
    """Gateways at the start; two, so that one may die."""
    gateways_max: int = Field(4, ge=1, le=MAX_GATEWAYS)
    """What scaling out may reach; more than four share two cores badly."""
    gateway_capacity_per_s: int = Field(400, ge=1, le=100_000)
    """Order requests a second one gateway admits before it sheds; low enough for a surge to be felt on a laptop."""
    gateway_tokens: Literal["shared", "signed", "both"] = "shared"
    """Whom gateways let in: `shared` (the estate's secret, every account; a local estate's load brings it), `signed`
    (tokens of `tapewatch exchange token`, each for its accounts; the estate's own load is then turned away: let it send
    nothing) or `both`."""
    token_issuer: str = Field("tapewatch", min_length=1, max_length=200)
    """`iss` that signed tokens must have."""
    token_audience: str = Field("order-entry", min_length=1, max_length=200)
    """`aud` that signed tokens must have."""
    gateway_key_rate_per_s: float = Field(0.0, ge=0, le=1_000_000)
    """Orders a second of one key (a token's subject) that one gateway takes; 0: no bound. The shared secret is one."""
    gateway_account_rate_per_s: float = Field(0.0, ge=0, le=1_000_000)
    """Orders a second of one account that one gateway takes; 0: no bound."""
    gateway_cancel_factor: float = Field(2.0, ge=1, le=100)
    """The budget of cancels is so many times that of orders, and apart from it; two, because they take risk away."""
    load_rate_per_s: float = Field(50.0, ge=0, le=100_000)
    """Orders a second the load generator sends; 0: it sends none. Fifty show on every graph and cost little."""
    load_by_phase: bool = False
    """Whether the load follows the phases of `calendar`: a rush at the open, nothing after the close."""
    scrape_interval_s: int = Field(1, ge=1, le=300)
    """How often Prometheus scrapes and evaluates, in whole seconds; one, because detection time follows it directly."""
    group_wait_s: float | None = Field(None, ge=0, le=60)
    """How long Alertmanager waits before it first tells of a group; None: as in `alerts/alertmanager.yml`."""
    retention: str = Field("6h", pattern=r"^[1-9]\d*(m|h|d|w)$")
    """How long Prometheus keeps samples (`30m`, `6h`, `2d`); six hours hold a long drill."""
    otlp_url: str = ""
    """Where spans go by OTLP over HTTP, such as `http://127.0.0.1:4318`; empty: none go there.

    Without this address and the next no spans are built.
    """
    zipkin_url: str = ""
    """Where spans go in Zipkin's own JSON, such as `http://127.0.0.1:9411`; empty: none go there."""
    trace_share: float = Field(0.01, ge=0, le=1)
    """Share of the orders whose spans are kept; every error, reject and slow order is kept besides."""
    trace_slow_s: float = Field(0.25, gt=0, le=60)
    """From how many seconds on an order counts as slow."""
    prometheus: str = "prometheus"
    """The Prometheus program: a name found on PATH, or a path."""
    alertmanager: str = "prometheus-alertmanager"
    """The Alertmanager program, named as Debian does."""
    node_exporter: str = "prometheus-node-exporter"
    """The program that tells of the machine, named as Debian does; without it an estate runs all the same."""
    testbed: str = ""
    """The binary of the Kubernetes test bed; empty: the one in the user's cache, built when it is not there."""
    elasticsearch_home: str = ""
    """Directory of an unpacked Elasticsearch 8; empty: the one on PATH, else one in the user's cache."""
    zipkin: str = ""
    """Zipkin's jar; empty: the one in the user's cache."""
    journal: Literal["files", "kafka"] = "files"
    """Where the engine's journal is: files in the state, or `kafka`: the cluster of your own that `kafka_bootstrap`
    names.

    A distributed estate that starts Kafka itself keeps it there and needs no word of it.
    """
    journal_compacts: bool = True
    """Whether the engine removes old segments of a journal in files by itself, once snapshots cover them and the next
    three settings let them go. A journal in Kafka is never shortened."""
    journal_keep_mib: int = Field(4096, ge=0, le=1_000_000_000)
    """The newest so many MiB stay; four thousand are some 25 million commands, and little beside what a disk holds."""
    journal_keep_hours: float = Field(24.0, ge=0, le=1_000_000)
    """What was written within so many hours stays; a day, so that a day's load can be accounted for from its first."""
    snapshots_kept: int = Field(3, ge=1, le=1000)
    """The newest so many stay, with the journal since the oldest of them: one that is relied on, one before it, one in
    case both are damaged."""
    kafka_bootstrap: str = Field("", pattern=r"^([^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*)?$")
    """Addresses of its brokers, such as `k1.example:9092,k2.example:9092`."""
    kafka_topic: str = Field("exchange", pattern=r"^[a-zA-Z0-9._-]{1,200}$")
    """What the topics' names begin with: `exchange` has `exchange.commands` and `exchange.events`."""
    kafka_copies: int = Field(3, ge=1, le=9)
    """On how many brokers each record lies; three, so that any one may be lost and any other be mended."""
    kafka_needed: int = Field(2, ge=1, le=9)
    """How many of them must have a record before it is acknowledged."""
    kafka_cluster_id: str = ""
    """Which cluster it must be; empty: whichever answers there, and the state directory remembers it."""
    engines: int = Field(1, ge=1, le=16)
    """How many engines share the symbols of a distributed estate, each with a partition of the journal of its own; it
    cannot be changed for a state directory that was begun.
    """
    jaeger: str = ""
    """The Jaeger program; empty: the one in the user's cache."""
    kafka_home: str = ""
    """Directory of an unpacked Kafka 4; empty: the one on PATH, else one in the user's cache."""
    filebeat: str = ""
    """The Filebeat program; empty: the one on PATH, else one in the user's cache."""
    ledger_url: str = ""
    """Database of the ledger, such as `postgresql+psycopg://tapewatch@db:5432/ledger`; empty: SQLite in the state."""
    ledger_password_file: Path | None = None
    """File whose first line is its password; one inside the URL works, but is seen by more."""
    saga_url: str = ""
    """Database of settlement by sagas, likewise; empty: SQLite files in the state, one a part."""
    saga_password_file: Path | None = None
    """File whose first line is its password."""
    saga_style: Literal["orchestrated", "choreographed"] = "orchestrated"
    """Whether a coordinator leads settlement by sagas, or its services follow each other."""
    saga_keep_days: float = Field(7.0, ge=0.0, le=3650.0)
    """Days a saga that ended is kept: a week, so that people can look back; 0 keeps all of them for ever."""
    saga_bounds: dict[Account, Bound] = Field(default_factory=dict)
    """The least an account may have in settlement by sagas, such as `{"*": {"cash": -1000000}, "p7": {"lots": 0}}`:
    money in units of the currency, lots of each symbol; `*` is every other account. Empty: nothing is refused."""
    saga_suspended: tuple[OneAccount, ...] = ()
    """Accounts whose trades clearing does not take: their sagas are taken back."""
    store_url: str = ""
    """Database of signals, incidents and runs, likewise; empty: SQLite in the state."""
    store_password_file: Path | None = None
    """File whose first line is its password."""
    postgres: str = ""
    """Directory of PostgreSQL's programs; empty: that of `postgres` on PATH, else Debian's newest."""
    rabbitmq: str = ""
    """Directory of RabbitMQ's scripts (sbin); empty: those on PATH, else Debian's newest."""
    elastic_url: str = ""
    """Elasticsearch that keeps the logs, such as `https://logs.example:9200`; empty: the local files alone."""
    environment: str = Field("dev", pattern=r"^[a-z0-9_.]{1,40}$")
    """Last part of the data streams' names: dev, staging, prod, ..."""
    ship_logs: bool = True
    """With `elastic_url`: whether the estate's own shipper runs; false where Filebeat or another one does it."""
    log_watch: bool = True
    """Whether the log rules run: over the local files, or over `elastic_url` where it is named."""
    log_rules: Path | None = None
    """A file or directory of log rules (`docs/log-alerts.md`); None: the house's own, `alerts/logs`."""
    log_kinds: bool = True
    """Whether log-watch also sorts lines by their kind and judges the rates; false saves it 140 MB of compiled code."""
    anomaly: bool = True
    """Whether detectors watch the series of `anomaly_watched`; what they find are metrics that rules decide on."""
    anomaly_watched: Path | None = None
    """YAML file of the watched series (`docs/anomaly.md`); None: the house's own, `alerts/anomaly/watched.yaml`."""
    anomaly_step_s: int = Field(2, ge=1, le=300)
    """Whole seconds between two readings; two, because a question costs Prometheus some ten milliseconds."""
    anomaly_history_s: int = Field(3600, ge=0, le=604_800)
    """How far back detectors look in Prometheus when they begin anew; an hour is known to them after a second."""
    elastic_user: str = ""
    """Its user, together with `elastic_password_file`; empty: no such login."""
    elastic_password_file: Path | None = None
    """File whose first line is the user's password; a file, because the environment is seen by too many."""
    elastic_api_key_file: Path | None = None
    """File whose first line is an API key (the encoded form), instead of user and password."""
    elastic_ca_file: Path | None = None
    """PEM file of the authority that signed its certificate; None: those the system trusts."""
    faults_allowed: bool = True
    """Whether `tapewatch fault inject` works; a local estate exists to be broken. Set it to false for anything else."""
    allowed_targets: tuple[str, ...] = (
        "gateway", "market-data", "settlement", "watchdog", "engine",
        "kafka", "postgres", "rabbitmq", "zipkin", "edge", "saga", "mirror",
    )  # fmt: skip
    """Workloads that runbooks may touch; the exchange's, never the platform they stand on."""
    library: str = ""
    """Directory of the runbooks; empty: the ones that ship with the program."""
    kube_allowed: tuple[str, ...] = (
        "exchange/Deployment/gateway", "exchange/Deployment/market-data", "exchange/Deployment/settlement",
        "exchange/Deployment/watchdog", "exchange/StatefulSet/engine", "exchange/Service/gateway",
        "exchange/ConfigMap/exchange-flags", "exchange/ConfigMap/exchange-config", "Node/*",
    )  # fmt: skip
    """What runbooks may touch of a cluster, as namespace/Kind/name; the exchange's workloads, never the platform."""
    cluster_id: str = ""
    """The cluster's id (`tapewatch kube status`) that must be met; empty: the estate's own test bed."""
    lease_s: float = Field(6.0, ge=1, le=300)
    """How long a leader that is silent goes on leading; short, because a stopped leader means that nobody acts."""
    quiet_s: float = Field(3.0, ge=0, le=86_400)
    """All alerts of an incident must stay resolved for so long before it is closed; three scrapes."""
    deadman_s: float = Field(15.0, ge=1, le=86_400)
    """Without the Watchdog alert for so long, the monitoring counts as down; several of its repeats."""
    consent_s: float = Field(300.0, ge=1, le=86_400)
    """How long a question for consent stands before silence counts as no; five minutes let a person wake."""
    consent_floor: dict[str, Consent] = Field(default_factory=dict)
    """Who must agree at least, by runbook or `*`, such as `{"*": "one_approver"}`; none: runbooks say it themselves."""
    bridge: Path | None = None
    """YAML file of the pagers that Alertmanager cannot speak to (`docs/receivers.md`); None: no bridge runs."""
    routing: Path | None = None
    """Directory of the organisation's files (`docs/routing.md`); None: the house's own, `alerts/routing`."""
    credentials: Path | None = None
    """Directory of the channels' secrets, one file each, open to nobody else; None: nobody but control is told."""
    calendar: Path | None = None
    """YAML file of the market's sessions (`docs/consent.md`); None: trading is always continuous."""
    phases_by_calendar: bool = False
    """Whether the engine turns the market's phases as `calendar` says; false: people alone do, and it trades 24/7."""
    auction_quiet_s: float = Field(300.0, ge=0, le=86_400)
    """For so long before an auction nothing disruptive begins; five minutes let a restart end before orders gather."""
    seed: int = Field(1, ge=0)
    """Chance of the generated instruments and of the load: the same seed gives the same run."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment before the file; there are no other sources."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def place(self) -> str:
        """What kind of estate it is, of those that faults and drills tell apart: local, distributed or kubernetes."""
        return self.on if self.estate == "embedded" else self.estate

    @pydantic.model_validator(mode="after")
    def _together(self) -> Settings:
        if self.gateways > self.gateways_max:
            raise ValueError(f"gateways is {self.gateways}, which is more than gateways_max ({self.gateways_max})")
        if self.estate == "distributed" and self.on == "kubernetes":
            raise ValueError("estate is distributed, which runs on this machine: leave out --on kubernetes")
        if self.follows and (self.estate != "distributed" or "kafka" not in self.services):
            raise ValueError("follows names another region's brokers, but this estate has none: set estate=distributed")
        if self.load_by_phase and self.calendar is None:
            raise ValueError("load_by_phase is true, but there is no calendar whose phases the load could follow")
        if self.phases_by_calendar and self.calendar is None:
            raise ValueError("phases_by_calendar is true, but there is no calendar to turn the phases by")
        self._kafka_together()
        ports = [getattr(self, name) for name in type(self).model_fields if name.startswith("port_")]
        ports += range(self.port_gateways + 1, self.port_gateways + self.gateways_max)
        twice = sorted({port for port in ports if ports.count(port) > 1})
        if self.ports == "fixed" and twice:
            raise ValueError(f"port {twice[0]} is given twice; every port setting needs one of its own")
        return self

    def _kafka_together(self) -> None:
        if self.journal == "kafka" and not self.kafka_bootstrap:
            raise ValueError("journal is kafka, but kafka_bootstrap names no broker (TAPEWATCH_KAFKA_BOOTSTRAP)")
        if self.journal == "files" and self.kafka_bootstrap:
            raise ValueError("kafka_bootstrap names brokers, but journal is files: set TAPEWATCH_JOURNAL=kafka")
        if self.journal == "kafka" and self.on == "kubernetes":
            raise ValueError("journal is kafka, which the pods of the test bed do not reach: leave out --on kubernetes")
        if self.engines > 1:
            self._engines_together()
        if self.kafka_needed > self.kafka_copies:
            raise ValueError(f"kafka_needed is {self.kafka_needed}, more than kafka_copies ({self.kafka_copies})")

    def _engines_together(self) -> None:
        """Refuse several engines where something could follow one of them alone."""
        several = f"engines is {self.engines}"
        if self.estate != "distributed" or (self.journal != "kafka" and "kafka" not in self.services):
            raise ValueError(
                f"{several}, which takes a journal on Kafka in a distributed estate: set estate=distributed (with the "
                "service kafka, or journal=kafka), or engines=1"
            )
        if self.follows:
            raise ValueError(f"{several}, but follows names another region, of which one partition is copied")


def load_settings(**given: Any) -> Settings:
    """Read the settings; `given` (from the command line) comes first, and None there means not given.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        raise _told(error.errors()[0]) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(FILE, f"is not TOML: {error}", right="write lines such as `gateways = 2`") from error
    except UnicodeDecodeError as error:
        raise InputError(FILE, f"is not UTF-8: byte {error.start} is wrong", right="write it as UTF-8 text") from error
    except ValueError as error:  # pydantic-settings: a list in the environment that is no JSON
        raise InputError(
            "settings", str(error).split("\n", maxsplit=1)[0], right='write lists as JSON, such as ["gateway"]'
        ) from error


def harmless(text: str) -> str:
    """Return a value without the password of a URL in it."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def _refuse_unknown_variables() -> None:
    for name in sorted(os.environ.keys() - READ_BEFORE):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            raise InputError(
                f"{name}={harmless(os.environ[name])[:60]}",
                "is not a setting",
                right=_nearest(name.removeprefix(PREFIX)),
            )


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), Settings.model_fields, n=1)
    if near:
        return f"did you mean {near[0]} ({PREFIX}{near[0].upper()})?"
    return f"allowed are {', '.join(Settings.model_fields)}"


def _told(error: Any) -> InputError:
    if not error["loc"]:
        return InputError("settings", str(error["msg"]).removeprefix("Value error, "))
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return InputError(f"{FILE}: {key}", "is not a setting", right=_nearest(key))
    value = error["input"]
    value = harmless(value) if isinstance(value, str) else value
    problem = str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    problem = problem.replace("String should match pattern", "a text that matches")
    return InputError(f"setting {key} ({PREFIX}{key.upper()})", f"{value!r} is wrong", right=f"it should be {problem}")
