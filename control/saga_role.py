"""The role `saga`, wired: one part of settlement over RabbitMQ, with what it keeps in a database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path

from control.config import RabbitAccess, RoleConfig, SagaTuning, place_of
from control.databases import password_of, read_password
from control.layout import Layout
from control.process_facts import ProcessFacts
from control.saga_bounds import rules_of
from control.spans_out import traced_share, tracer_of
from exchange.adapters.http import Faults, HttpServer, listen, read_secret
from exchange.adapters.rabbit import RabbitConsumer, RabbitPublisher
from exchange.adapters.rabbit_link import RabbitLink, declare
from exchange.adapters.rabbit_topology import TOPOLOGY
from exchange.adapters.saga_coordinator_server import SagaCoordinator, SagaReader
from exchange.adapters.saga_journal import SagaJournal
from exchange.adapters.saga_part import SAGA_FAULTS, Around, SagaPart, saga_app
from exchange.adapters.saga_service import AskedService, ReactingService
from exchange.adapters.saga_store import SagaBook
from exchange.adapters.trade_source import EngineTrades, TradeSource
from exchange.ports import Log
from exchange.saga import Service
from exchange.saga_messages import COORDINATOR, READER, Style, queue
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from kernel.time import seconds
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.catalog import Role
from monitor.logs import EcsFormat
from monitor.saga_instruments import SagaInstruments, SagaSourceInstruments

_PAUSE_S = 0.5
BATCH = 256
"""Messages that are one transaction at most."""


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Do a part's work until `stop`; returns the exit code.

    Raises:
        TapewatchError: it cannot start, or database or broker refuse for good.
    """
    if config.saga is None or config.rabbit is None:
        raise PermanentError("a part of settlement by sagas is told which, and of a broker: `saga` and `rabbit`")
    layout, exporter = Layout(Path(config.state)), Exporter(Role.SAGA)
    admin = read_secret(layout.secret("admin"))
    faults = Faults(SAGA_FAULTS, allowed=config.faults_allowed)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        stack.callback(listener.close)
        log = _log(config, layout)
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        link = _link(config.rabbit, config.replica)
        await _unless_stopped(_declared(link, log), stop)
        if stop.is_set():
            return 0
        publisher = RabbitPublisher(link)
        stack.push_async_callback(publisher.close)
        inbox = RabbitConsumer(link, queue_of(config.saga), batch=BATCH)
        around = Around(inbox, publisher, SagaInstruments(exporter), log, SystemClock(), faults,
                        tracer=tracer_of(config, exporter, stack), traced=traced_share(config),
                        keep=seconds(config.saga.keep_s) if config.saga.keep_s else None)  # fmt: skip
        part = _part(config, config.saga, around, exporter, stack)
        server = HttpServer(saga_app(part, exporter, faults, admin), listener)
        await server.start()
        stack.push_async_callback(server.stop)
        log.event("saga-part-started", part=part.part, style=part.style)
        await _unless_stopped(part.run(), stop)
    return 0


def queue_of(tuning: SagaTuning) -> str:
    """Return the queue that a part reads."""
    style = Style(tuning.style)
    if tuning.part == "coordinator":
        return COORDINATOR if style is Style.ORCHESTRATED else READER
    return queue(Service(tuning.part), style)


def _part(
    config: RoleConfig, tuning: SagaTuning, around: Around, exporter: Exporter, stack: AsyncExitStack
) -> SagaPart:
    layout, led = Layout(Path(config.state)), Style(tuning.style) is Style.ORCHESTRATED
    place = config.ledger.url if config.ledger is not None else layout.saga(tuning.part)
    password = password_of(config.ledger)
    if tuning.part == "coordinator":
        journal = SagaJournal(place, password=password)
        stack.callback(journal.close)
        reader = SagaCoordinator if led else SagaReader
        return reader(journal, _trades(config, around, exporter), config.instruments, around)
    book = SagaBook(Service(tuning.part), place, rules_of(tuning), password=password)
    stack.callback(book.close)
    return AskedService(book, around) if led else ReactingService(book, around)


def _trades(config: RoleConfig, around: Around, exporter: Exporter) -> TradeSource:
    """Return where trades come from: Kafka, where the engines' journal is kept there; else the engine's stream."""
    if config.kafka is None:
        return EngineTrades(config.engine_stream_port, config.engine_host)
    from exchange.adapters.kafka_trades import KafkaTrades

    return KafkaTrades(place_of(config.kafka), telemetry=SagaSourceInstruments(exporter), log=around.log)


def _link(access: RabbitAccess, name: str) -> RabbitLink:
    password = read_password(Path(access.password_file)) if access.password_file else ""
    return RabbitLink(access.url, password=password, name=name)


async def _declared(link: RabbitLink, log: Log) -> None:
    """Have the queues there; a broker that is away is waited for."""
    told = False
    while True:
        try:
            await declare(link, TOPOLOGY)
        except TemporaryError as error:
            if not told:
                log.event("saga-broker-away", severity="warning", why=str(error))
            told = True
            await asyncio.sleep(_PAUSE_S)
        else:
            return


async def _unless_stopped(work: Coroutine[object, object, None], stop: asyncio.Event) -> None:
    """Work until it is done or told to stop; what it raises is raised."""
    task, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    for one in (task, told):
        one.cancel()
    result, _ = await asyncio.gather(task, told, return_exceptions=True)
    if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
        raise result


def _log(config: RoleConfig, layout: Layout) -> FileLog:
    secrets = [read_secret(layout.secret(name)) for name in ("admin", "trade") if layout.secret(name).exists()]
    path = layout.log(config.replica)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLog(path, EcsFormat(config.role, config.replica, secrets=secrets), SystemClock())
