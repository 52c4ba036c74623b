"""The control process, wired."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from starlette.types import ASGIApp

from control.addresses import url_of
from control.anomaly_found import Finder
from control.api import ApiParts, make_app
from control.bindings import LivePlant
from control.causes import Investigator, patient
from control.config import RoleConfig
from control.consent import Consents, check_floor
from control.databases import password_of
from control.deadman import DeadMan
from control.desk import Desk
from control.driver import Driver, Parts
from control.evidence import Archivist
from control.failpoints import Failpoints
from control.intake import Intake, StoreThread
from control.layout import Layout
from control.loop import Loop, LoopParts, history, sizes_of
from control.market import Market, bounds_market, load_calendar
from control.paging import Pager
from control.process_facts import ProcessFacts
from control.telemetry import ControlInstruments
from exchange.adapters.http import HttpServer, listen, read_secret
from exchange.adapters.listing_file import write_listing
from exchange.listing import Listing
from incidents.adapters.sql_store import SqlStore
from kernel.adapters.clock import SystemClock
from kernel.errors import InputError, PermanentError
from kernel.time import Clock, seconds
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.adapters.prometheus_api import PrometheusApi
from monitor.adapters.watched_files import HOUSE, load_watched
from monitor.catalog import Role
from monitor.logs import EcsFormat
from runbooks.adapters.exchange_admin import ExchangeAdmin
from runbooks.adapters.local import LocalWorkloads
from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.facts import PlantFacts
from runbooks.model import Runbook
from runbooks.ports import Workloads

_FACTS_FRESH_S: Final = 0.05
"""Facts of the plant are asked for anew when older: two permits in one breath may share one look."""


async def serve(config: RoleConfig) -> int:
    """Run the control plane until SIGTERM or SIGINT; returns the exit code.

    Raises:
        TapewatchError: it cannot start; the message is one sentence.
    """
    layout = Layout(Path(config.state))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if config.kube is not None:
        from control.kube_service import serve_led  # the client of Kubernetes takes half a second to import

        return await serve_led(config, layout, stop)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        loop, app = await wire(config, layout, stack)
        server = HttpServer(app, listener)
        await server.start()
        turning = asyncio.create_task(loop.run(), name="loop")
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait((turning, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await server.stop()
        turning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await turning
        await loop.stop()
    return 0


@dataclass(frozen=True)
class Led:
    """What is another where control acts on Kubernetes, as the leader of an epoch."""

    workloads: Workloads
    epoch: int
    why_not: Callable[[], str]
    """Says why this process must not act at this moment; empty: it leads."""
    exporter: Exporter


async def wire(
    config: RoleConfig, layout: Layout, stack: AsyncExitStack, led: Led | None = None
) -> tuple[Loop, ASGIApp]:
    """Put the parts together; what needs closing is closed by `stack`."""
    base = await _base(config, layout, stack, led)
    library, broken = _library(config, base.log)
    base.telemetry.begin(library)
    wake = asyncio.Event()
    intake = Intake(base.store, wake.set)
    deadman = DeadMan(seconds(config.tuning.deadman_s), base.clock.now(), base.telemetry)
    consents = Consents(config.tuning.consent_s)
    driver = Driver(await _driver_parts(config, layout, base, consents, sizes_of(library), stack, led))
    alerts = await stack.enter_async_context(AlertmanagerApi(config.alertmanager_url))
    repage = seconds(config.tuning.repage_s)
    archivist = Archivist(base.store, base.metrics, layout.reports, layout.faults, base.clock, base.log)
    causes = await _causes(config, layout, base, stack)
    loop = Loop(
        LoopParts(
            store=base.store,
            intake=intake,
            driver=driver,
            pager=Pager(alerts, url_of(config.port, config.control_host), repage, base.telemetry, base.log, base.clock),
            archivist=archivist,
            deadman=deadman,
            library={alert: runbook for runbook in library for alert in runbook.answers},
            tuning=config.tuning,
            kill_switch=layout.kill_switch,
            telemetry=base.telemetry,
            log=base.log,
            clock=base.clock,
            causes=causes,
            found=Finder(
                base.store, url=config.anomaly.url, kept=layout.anomaly / "state.bin", clock=base.clock, log=base.log
            ),
        ),
        wake,
    )
    app = make_app(
        ApiParts(
            intake=intake,
            desk=Desk(base.store, loop, library, base.clock, archivist.report, causes),
            consents=consents,
            deadman=deadman,
            library=library,
            library_errors=broken,
            kill_switch=layout.kill_switch,
            telemetry=base.telemetry,
            exposition=base.exporter,
            clock=base.clock,
            webhook_secret=read_secret(layout.secret("webhook")),
            admin_secret=base.admin,
        )
    )
    return loop, app


@dataclass(frozen=True)
class _Base:
    """What nearly every part needs."""

    clock: Clock
    exporter: Exporter
    telemetry: ControlInstruments
    log: FileLog
    admin: str
    store: StoreThread
    metrics: PrometheusApi
    market: Market


def open_store(config: RoleConfig, layout: Layout, key: bytes, epoch: int | None) -> SqlStore:
    """Open the incident store that a configuration names: the embedded one, or a database by URL."""
    if config.store is None:
        return SqlStore.at(layout.incidents, key, epoch=epoch)
    return SqlStore(config.store.url, key, epoch=epoch, password=password_of(config.store))


async def _base(config: RoleConfig, layout: Layout, stack: AsyncExitStack, led: Led | None) -> _Base:
    clock = SystemClock()
    exporter = led.exporter if led is not None else Exporter(Role.CONTROL)
    log = _log(config, layout, clock)
    stack.callback(log.close)
    facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
    stack.callback(facts.cancel)
    key, epoch = read_secret(layout.secret("timeline")).encode(), led.epoch if led is not None else None
    store = StoreThread(open_store(config, layout, key, epoch))
    stack.push_async_callback(store.close)
    metrics = await stack.enter_async_context(PrometheusApi(config.prometheus_url))
    admin = read_secret(layout.secret("admin"))
    market = Market(
        metrics,
        clock,
        symbols=len(config.instruments),
        calendar=load_calendar(Path(config.tuning.calendar)) if config.tuning.calendar else None,
        quiet=seconds(config.tuning.auction_quiet_s),
    )
    return _Base(clock, exporter, ControlInstruments(exporter, market.phase_name), log, admin, store, metrics, market)


async def _causes(config: RoleConfig, layout: Layout, base: _Base, stack: AsyncExitStack) -> Investigator | None:
    """Return what ranks causes; a list of watched series that is wrong is told, and costs nothing but the ranking."""
    try:
        watched = load_watched(Path(config.anomaly.watched) if config.anomaly.watched else HOUSE)
    except InputError as error:
        base.log.event("causes-not-ranked", severity="error", message=str(error))
        return None
    metrics = await stack.enter_async_context(patient(config.prometheus_url))
    return Investigator(
        base.store, metrics, watched,
        scrape_s=config.anomaly.scrape_s, faults=layout.faults, clock=base.clock, log=base.log,
    )  # fmt: skip


def _library(config: RoleConfig, log: FileLog) -> tuple[list[Runbook], list[InputError]]:
    """Read the runbooks; a broken one is told and left out.

    Raises:
        PermanentError: not one can be read.
        InputError: the floor of consent names a runbook that does not exist.
    """
    folder = Path(config.tuning.library) if config.tuning.library else LIBRARY
    check_floor(config.tuning.consent_floor, folder)
    platform = "local" if config.kube is None else "kubernetes"
    library, broken = load_library(folder, platform)
    for error in broken:
        log.event("runbook-refused", severity="error", message=str(error))
    if not library:
        raise PermanentError(f"no runbook can be read: {'; '.join(map(str, broken)) or 'the library is empty'}")
    return library, broken


async def _driver_parts(
    config: RoleConfig,
    layout: Layout,
    base: _Base,
    consents: Consents,
    sizes: Mapping[str, int],
    stack: AsyncExitStack,
    led: Led | None,
) -> Parts:
    workloads: Workloads
    if led is not None:
        workloads = led.workloads
    else:
        workloads = await stack.enter_async_context(LocalWorkloads(url_of(config.estate_port), base.admin))
    instruments = layout.incidents.parent / "instruments.json"
    instruments.write_bytes(write_listing(Listing(config.instruments, config.venue)))
    exchange = await stack.enter_async_context(
        ExchangeAdmin(url_of(config.engine_http_port, config.engine_host), base.admin)
    )
    facts = _Facts(workloads, config, led, base.market)
    return Parts(
        store=base.store,
        metrics=base.metrics,
        plant=LivePlant(workloads, exchange, base.clock, layout.journal, instruments),
        facts=facts.look,
        market=base.market.with_shares,
        ahead=facts.ahead,
        history=lambda now: history(base.store, now, sizes),
        kill_switch=layout.kill_switch,
        consents=consents,
        failpoints=Failpoints(layout.root / "control" / "failpoints.json", allowed=config.faults_allowed),
        telemetry=base.telemetry,
        clock=base.clock,
    )


class _Facts:
    """The plant as it is now, looked at once per breath."""

    def __init__(self, workloads: Workloads, config: RoleConfig, led: Led | None, market: Market) -> None:
        self._workloads = workloads
        self._market = market
        self._allowed = frozenset(config.tuning.allowed)
        self._symbols = frozenset(str(instrument.symbol) for instrument in config.instruments)
        self._led = led
        self._seen: tuple[float, PlantFacts] | None = None

    async def ahead(self, runbook: Runbook) -> PlantFacts:
        """Look for a run that begins; where it bounds the market that is looked at too, and kept there for a second."""
        facts = await self.look()
        if bounds_market(runbook):
            await self._market.with_shares(facts)
        return facts

    async def look(self) -> PlantFacts:
        """Return the facts; raises `TapewatchError` when the plant cannot be seen."""
        if self._seen is None or time.monotonic() - self._seen[0] > _FACTS_FRESH_S:
            self._seen = (time.monotonic(), await self._look())
        why_not = self._led.why_not() if self._led is not None else ""
        return msgspec.structs.replace(self._seen[1], leader=why_not, market=self._market.now())

    async def _look(self) -> PlantFacts:
        workloads, nodes, targets = await asyncio.gather(
            self._workloads.list(), self._workloads.nodes(), self._workloads.targets()
        )
        return PlantFacts(
            workloads=tuple(workloads), allowed=self._allowed, symbols=self._symbols, nodes=tuple(nodes),
            targets=targets,
        )  # fmt: skip


def _log(config: RoleConfig, layout: Layout, clock: Clock) -> FileLog:
    secrets = [read_secret(layout.secret(name)) for name in ("admin", "webhook", "timeline")]
    path = layout.log(config.replica)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLog(path, EcsFormat(config.role, config.replica, secrets=secrets), clock)
