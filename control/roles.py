"""Every process of the estate, wired: `python -m control.roles CONFIG.json`.

Imports stand inside the functions on purpose: a watchdog that loads FastAPI pays for it in memory and in every restart.

Exit codes: 0 stopped when asked, 1 cannot start or cannot go on (one sentence on standard error), 2 wrong usage,
74 the engine was stopped after its journal had failed.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from control.config import JournalTuning, RoleConfig, Tokens, load_config, place_of
from control.layout import Layout
from control.spans_out import traced_share, tracer_of
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TapewatchError
from kernel.time import HOUR, Instant
from monitor.catalog import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from exchange.adapters.compaction import Retention
    from exchange.adapters.http import HttpServer
    from exchange.adapters.market_data_server import FeedPart
    from exchange.adapters.recovery import EnginePaths, OpenJournal
    from exchange.adapters.settlement_source import EventSource
    from exchange.adapters.tokens import SignedTokens
    from exchange.calendar import Calendar
    from exchange.ports import EventTopic, Log
    from monitor.adapters.exporter import Exporter
    from monitor.instruments import GatewayInstruments

_USAGE: Final = "usage: python -m control.roles CONFIG.json"
TRACE_SHARE: Final = 0.01
"""Share of the orders that are shown as examples where no spans are built."""
_GARBAGE_THRESHOLD: Final = 50_000
"""Allocations between two young collections: orders make no cycles, so looking for them often only costs latency."""

Serve = Callable[[RoleConfig, asyncio.Event], Awaitable[int]]


async def _engine(config: RoleConfig, stop: asyncio.Event) -> int:
    from exchange.adapters.engine_http import engine_app
    from exchange.adapters.engine_server import ENGINE_FAULTS, EngineParts, EngineServer
    from exchange.adapters.http import Faults, listen
    from monitor.engine_instruments import EngineInstruments

    layout, exporter = Layout(Path(config.state)), _exporter(Role.ENGINE)
    faults = Faults(ENGINE_FAULTS, allowed=config.faults_allowed)
    paths = _engine_paths(config, layout)
    open_journal, topic = _kafka(config, paths.journal, traced_share(config))
    async with AsyncExitStack() as stack:
        parts = EngineParts(
            paths=paths,
            instruments=config.instruments,
            venue=config.venue,
            clock=SystemClock(),
            telemetry=EngineInstruments(
                exporter, [one.symbol for one in config.instruments], engine=_one_of_several(config)
            ),
            log=_log(config, stack, exporter),
            faults=faults,
            tracer=tracer_of(config, exporter, stack),
            calendar=_calendar(config) if config.phases_by_calendar else None,
            open_journal=open_journal,
            topic=topic,
            retention=_retention(config.journal),
        )
        server = EngineServer(parts)
        # Both ports are taken before anything is read: a port in use is told at once, not after a long replay.
        stream = listen(config.engine_stream_port, config.listen)
        stack.callback(stream.close)
        app = engine_app(server, exporter, faults, _secret(layout, "admin"))
        await stack.enter_async_context(_http(app, config))
        starting = asyncio.create_task(server.start(stream))
        await _either(starting, stop)
        if starting.done():
            await starting
            gc.freeze()
            await stop.wait()
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        return await server.stop()


def _retention(tuning: JournalTuning) -> Retention:
    from exchange.adapters.compaction import MIB, Retention
    from exchange.manifest import Keep

    keep = Keep(size=tuning.keep_mib * MIB, age=round(tuning.keep_hours * HOUR)) if tuning.compacts else None
    return Retention(keep, tuning.snapshots)


def _engine_paths(config: RoleConfig, layout: Layout) -> EnginePaths:
    """Return where an engine keeps its files: one of several below the others' directories, by its partition."""
    from exchange.adapters.journal_place import part_directory
    from exchange.adapters.recovery import EnginePaths

    every = (layout.journal, layout.events, layout.snapshots)
    if config.kafka is None or config.kafka.partitions == 1:
        return EnginePaths(*every)
    return EnginePaths(*(part_directory(path, config.kafka.partition) for path in every))


def _one_of_several(config: RoleConfig) -> str:
    """Return the name of an engine among several; nothing where it is the only one."""
    from exchange.shards import engine_of

    return "" if config.kafka is None or config.kafka.partitions == 1 else engine_of(config.kafka.partition)


def _kafka(config: RoleConfig, journal: Path, traced: float) -> tuple[OpenJournal | None, EventTopic | None]:
    """Return how an engine's journal is opened in Kafka and where its events go; nothing where it is in files."""
    if config.kafka is None:
        return None, None
    from exchange.adapters.kafka_engine import EngineLog
    from exchange.adapters.kafka_events import KafkaEvents
    from exchange.adapters.listing_file import write_listing
    from exchange.listing import Listing

    place, listing = place_of(config.kafka), b""
    if place.partitions == 1:  # several engines trade a part each, and no region follows them
        listing = write_listing(Listing(config.instruments, config.venue))
    opened = partial(EngineLog, place, journal, traced=traced, listing=listing)
    return opened, KafkaEvents(place, traced=traced)


async def _gateway(config: RoleConfig, stop: asyncio.Event) -> int:
    from exchange.adapters.engine_client import EngineClient, Engines
    from exchange.adapters.engine_router import EngineRouter
    from exchange.adapters.gateway import Gateway
    from exchange.adapters.http import PING_S
    from exchange.calendar_page import always_open, told
    from exchange.limits import Rates
    from exchange.listing import Listing
    from monitor.instruments import GatewayInstruments

    layout, exporter = Layout(Path(config.state)), _exporter(Role.GATEWAY)
    share = config.tracing.share if config.tracing is not None else TRACE_SHARE
    count = len(config.engines) or 1
    telemetry = GatewayInstruments(exporter, [one.symbol for one in config.instruments], share, engines=count)
    async with AsyncExitStack() as stack:
        log = _log(config, stack, exporter)

        def connection_of(place: int, there: bool) -> None:  # noqa: FBT001 - a callback's last argument
            telemetry.engine_connected(connected=there, partition=place)
            log.event("engine-connected" if there else "engine-lost", severity="info" if there else "warning")

        engine: Engines
        if config.engines:
            engine = EngineRouter(
                [EngineClient(one.port, partial(connection_of, place), host=one.host)
                 for place, one in enumerate(config.engines)]
            )  # fmt: skip
        else:
            engine = EngineClient(config.engine_stream_port, partial(connection_of, 0), host=config.engine_host)
        calendar, clock = _calendar(config), SystemClock()
        tuning = config.gateway
        app = Gateway(
            engine,
            telemetry,
            exporter,
            replica=config.replica,
            trade_secret="" if tuning.tokens is Tokens.SIGNED else _secret(layout, "trade"),
            tokens=_signed(config, layout, log),
            capacity_per_s=config.gateway_capacity_per_s,
            rates=Rates(tuning.key_rate_per_s, tuning.account_rate_per_s, tuning.cancel_factor),
            engine_timeout_s=tuning.engine_timeout_s,
            sessions=layout.sessions,
            listing=Listing(config.instruments, config.venue),
            calendar=always_open if calendar is None else lambda: told(calendar, clock.now()),
            tracer=tracer_of(config, exporter, stack),
            log=log,
        )
        server = await stack.enter_async_context(_http(app, config, sockets=True, ping_s=PING_S))
        await stack.enter_async_context(_running(engine.run()))
        await stack.enter_async_context(_running(_tell_sessions(server, telemetry)))
        app.start()
        gc.freeze()
        await stop.wait()
        await app.stop()
    return 0


def _signed(config: RoleConfig, layout: Layout, log: Log) -> SignedTokens | None:
    """Return who looks at signed tokens; nobody where only the shared secret is taken."""
    from exchange.adapters.tokens import SignedTokens

    tuning = config.gateway
    if tuning.tokens is Tokens.SHARED:
        return None
    return SignedTokens(layout.token_keys, issuer=tuning.issuer, audience=tuning.audience, log=log)


async def _tell_sessions(server: HttpServer, telemetry: GatewayInstruments) -> None:
    while True:
        telemetry.sessions(server.connections)
        await asyncio.sleep(1.0)


async def _market_data(config: RoleConfig, stop: asyncio.Event) -> int:
    from exchange.adapters.http import Faults
    from exchange.adapters.market_data_server import FEED_FAULTS, MarketDataServer, market_data_app
    from monitor.instruments import FeedInstruments

    layout, exporter = Layout(Path(config.state)), _exporter(Role.MARKET_DATA)
    faults = Faults(FEED_FAULTS, allowed=config.faults_allowed)
    async with AsyncExitStack() as stack:
        server = MarketDataServer(
            [instrument.symbol for instrument in config.instruments],
            config.engine_stream_port,
            engine_host=config.engine_host,
            clock=SystemClock(),
            telemetry=FeedInstruments(exporter, engines=len(config.engines) or 1),
            log=_log(config, stack, exporter),
            faults=faults,
            tracer=tracer_of(config, exporter, stack),
            parts=_feed_parts(config),
        )
        app = market_data_app(server, exporter, faults, _secret(layout, "admin"))
        await stack.enter_async_context(_http(app, config, sockets=True))
        await stack.enter_async_context(_running(server.run()))
        await stop.wait()
    return 0


def _feed_parts(config: RoleConfig) -> list[FeedPart]:
    """Return the engines that the books come from, where there are several."""
    from exchange.adapters.market_data_server import FeedPart
    from exchange.shards import instruments_of

    count = len(config.engines)
    symbols = [tuple(one.symbol for one in instruments_of(config.instruments, n, count)) for n in range(count)]
    return [FeedPart(mine, one.port, one.host) for mine, one in zip(symbols, config.engines, strict=True)]


async def _settlement(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.databases import password_of
    from exchange.adapters.http import Faults
    from exchange.adapters.settlement_server import SETTLEMENT_FAULTS, SettlementServer, settlement_app
    from exchange.adapters.settlement_store import SettlementStore
    from monitor.instruments import SettlementInstruments

    layout, exporter = Layout(Path(config.state)), _exporter(Role.SETTLEMENT)
    faults = Faults(SETTLEMENT_FAULTS, allowed=config.faults_allowed)
    async with AsyncExitStack() as stack:
        place = config.ledger.url if config.ledger is not None else layout.ledger
        store = SettlementStore(place, config.instruments, password=password_of(config.ledger))
        stack.callback(store.close)
        log = _log(config, stack, exporter)
        server = SettlementServer(
            store,
            _events(config, exporter, log),
            telemetry=SettlementInstruments(exporter),
            log=log,
            faults=faults,
            tracer=tracer_of(config, exporter, stack),
        )
        admin, more = _secret(layout, "admin"), list["BaseRoute"]()
        if config.rabbit is not None:
            from control.notice_role import open_notices
            from exchange.adapters.notice_server import notice_routes

            # Before anything is settled: what is settled now is behind the notices, the first time.
            notices = await open_notices(config, stack, server, store.seqs(), (exporter, log))
            more = notice_routes(notices, admin)
        await stack.enter_async_context(_http(settlement_app(server, exporter, faults, admin, more), config))
        await stack.enter_async_context(_running(server.run()))
        if config.rabbit is not None:
            await stack.enter_async_context(_running(notices.run()))
        await stop.wait()
    return 0


def _events(config: RoleConfig, exporter: Exporter, log: Log) -> EventSource:
    """Return where settlement has its events from: Kafka, where the engine's journal is kept there; else its stream."""
    if config.kafka is None:
        from exchange.adapters.settlement_source import EngineSource

        return EngineSource(config.engine_stream_port, host=config.engine_host)
    from exchange.adapters.kafka_consumer import KafkaConsumer
    from monitor.instruments import ConsumerInstruments

    place = place_of(config.kafka)
    return KafkaConsumer(place, Role.SETTLEMENT, telemetry=ConsumerInstruments(exporter, place.events), log=log)


async def _watchdog(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.alarms import DirectAlarms
    from exchange.adapters.watchdog import Watchdog, watchdog_app
    from monitor.adapters.alertmanager_api import AlertmanagerApi
    from monitor.instruments import WatchdogInstruments

    exporter = _exporter(Role.WATCHDOG)
    telemetry = WatchdogInstruments(exporter)
    async with AsyncExitStack() as stack:
        watchdog = Watchdog(
            [instrument.symbol for instrument in config.instruments],
            market_data=(config.market_data_host, config.market_data_port),
            engine=(config.engine_host, config.engine_http_port),
            alarms=DirectAlarms(await stack.enter_async_context(AlertmanagerApi(config.alertmanager_url))),
            clock=SystemClock(),
            telemetry=telemetry,
            log=_log(config, stack, exporter),
        )
        await stack.enter_async_context(_http(watchdog_app(watchdog, exporter), config))
        await stack.enter_async_context(_running(watchdog.run()))
        await stop.wait()
    return 0


async def _load(config: RoleConfig, stop: asyncio.Event) -> int:
    from exchange.adapters.load_client import LoadClient, LoadParts, load_app
    from monitor.instruments import LoadInstruments

    layout, exporter = Layout(Path(config.state)), _exporter(Role.LOAD)
    async with AsyncExitStack() as stack:
        client = LoadClient(
            LoadParts(
                directory=layout.load,
                journal=layout.journal,
                gateways=(lambda: (edge.url,)) if (edge := config.edge) is not None else partial(_gateways, layout),
                ca_file=Path(edge.ca_file) if edge is not None else None,
                instruments=config.instruments,
                venue=config.venue,
                trade_secret=_secret(layout, "trade"),
                seed=config.seed,
                rate_per_s=config.load_rate_per_s,
                telemetry=LoadInstruments(exporter),
                log=_log(config, stack, exporter),
                clock=SystemClock(),
                pace=_pace(config),
            )
        )
        await stack.enter_async_context(_http(load_app(client, exporter, _secret(layout, "admin")), config))
        await stack.enter_async_context(_running(client.run()))
        await stop.wait()
        await client.finish()
    return 0


async def _kube_state(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.kube_page import serve

    return await serve(config, stop)


async def _bridge(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.bridge_role import serve

    return await serve(config, stop)


async def _saga(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.saga_role import serve

    return await serve(config, stop)


async def _shipper(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.shipper_role import serve

    return await serve(config, stop)


async def _log_watch(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.logwatch_role import serve

    return await serve(config, stop)


async def _anomaly(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.anomaly_role import serve

    return await serve(config, stop)


async def _mirror(config: RoleConfig, stop: asyncio.Event) -> int:
    from control.mirror_role import serve

    return await serve(config, stop)


_SERVE: Final[dict[Role, Serve]] = {
    Role.ENGINE: _engine,
    Role.GATEWAY: _gateway,
    Role.MARKET_DATA: _market_data,
    Role.SETTLEMENT: _settlement,
    Role.WATCHDOG: _watchdog,
    Role.LOAD: _load,
    Role.KUBE_STATE: _kube_state,
    Role.BRIDGE: _bridge,
    Role.SAGA: _saga,
    Role.SHIPPER: _shipper,
    Role.LOG_WATCH: _log_watch,
    Role.ANOMALY: _anomaly,
    Role.MIRROR: _mirror,
}


CONFIG_REFUSED: Final = 78
"""EX_CONFIG of sysexits.h: a configuration that is refused, told from a process that fails (alert ConfigPoisoned)."""


def main(arguments: Sequence[str]) -> int:
    """Run the role that a configuration names until it is told to stop; return the exit code."""
    if len(arguments) != 1:
        return _say(_USAGE, 2)
    try:
        config = _read_config(Path(arguments[0]))
    except TapewatchError as error:
        return _say(str(error), CONFIG_REFUSED)
    try:
        gc.set_threshold(_GARBAGE_THRESHOLD, 20, 50)
        if config.role == Role.CONTROL:
            return _run_control(config)
        serve = _SERVE.get(Role(config.role)) if config.role in set(Role) else None
        if serve is None:
            raise PermanentError(f"{arguments[0]}: role {config.role!r} is none of {', '.join(_SERVE)}, control")
        import uvloop

        return uvloop.run(_until_told(serve, config))
    except (TapewatchError, OSError) as error:
        return _say(str(error), 1)


def _run_control(config: RoleConfig) -> int:
    """Run the control plane: wired in its own file, imported only in its own process, with its own signal handling."""
    from control.service import serve

    gc.collect()
    gc.freeze()  # what the imports made stays; looking through it again would delay actions by tens of milliseconds
    sys.setswitchinterval(0.001)  # the loop and the store's thread take turns a dozen times before an action
    result: object = serve(config)
    if isinstance(result, Coroutine):
        import uvloop

        result = uvloop.run(result)
    return result if isinstance(result, int) else 0


def _read_config(path: Path) -> RoleConfig:
    try:
        return load_config(path)
    except OSError as error:
        raise PermanentError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise PermanentError(f"{path}: no configuration of this version ({error}); start the estate anew") from error


async def _until_told(serve: Serve, config: RoleConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await serve(config, stop)


@asynccontextmanager
async def _http(
    app: ASGIApp, config: RoleConfig, *, sockets: bool = False, ping_s: float | None = None
) -> AsyncIterator[HttpServer]:
    from exchange.adapters.http import HttpServer, listen

    server = HttpServer(app, listen(config.port, config.listen), sockets=sockets, ping_s=ping_s)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def _running(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run `work` beside the role. When it fails the process ends: half a role is worse than none."""
    parent = asyncio.current_task()
    assert parent is not None, "a role runs in a task"
    task = asyncio.create_task(work)
    failed: list[BaseException] = []

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            failed.append(error)
            parent.cancel()

    task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _either(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def _pace(config: RoleConfig) -> Callable[[Instant], float]:
    """Return how busy it is: as the calendar's phases are, where the load follows them."""
    from exchange.pace import SessionPace, always

    calendar = _calendar(config) if config.load_by_phase else None
    return always if calendar is None else SessionPace(calendar)


def _calendar(config: RoleConfig) -> Calendar | None:
    """Return the market's calendar; None where none is kept."""
    if not config.tuning.calendar:
        return None
    from control.market import load_calendar

    return load_calendar(Path(config.tuning.calendar))


def _gateways(layout: Layout) -> Sequence[str]:
    """Return where gateways should be now; nowhere while the estate has not said."""
    from control.addresses import Addresses

    try:
        return msgspec.json.decode(layout.addresses.read_bytes(), type=Addresses).urls("gateway")
    except (OSError, msgspec.DecodeError):
        return ()


def _exporter(role: Role) -> Exporter:
    from monitor.adapters.exporter import Exporter

    return Exporter(role)


def _log(config: RoleConfig, stack: AsyncExitStack, exporter: Exporter) -> Log:
    """Return the log of a process; from here on the process tells of itself through `exporter`."""
    from control.process_facts import ProcessFacts
    from monitor.adapters.log_files import FileLog
    from monitor.logs import EcsFormat

    layout = Layout(Path(config.state))
    secrets = [_secret(layout, name) for name in ("admin", "trade") if layout.secret(name).exists()]
    path = layout.log(config.replica)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = FileLog(path, EcsFormat(config.role, config.replica, secrets=secrets), SystemClock())
    stack.callback(log.close)
    facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
    stack.callback(facts.cancel)
    return log


def _secret(layout: Layout, name: str) -> str:
    from exchange.adapters.http import read_secret

    return read_secret(layout.secret(name))


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(sentence + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
