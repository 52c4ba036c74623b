"""A local estate from its start to its end: one process that holds the state directory and every other process.

The order of a start: take the directory, ports, secrets, configurations; the supervisor's interface; then the workloads
group by group (`control.plan.START_ORDER`). Between engine and gateways the market is reopened when the last stop was
unclean and the journal replays to what the engine holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from control import plan, preflight, render, server_plan
from control.addresses import Addresses, ReplicaAddress, save_addresses, url_of
from control.calls import call
from control.child import now
from control.effects import EffectLog
from control.estate_api import EstateApi, serve
from control.layout import STATE_VERSION, Layout
from control.made_signals import MadeSignals
from control.process_facts import ProcessFacts
from control.settings import Settings
from control.state_dir import StateDir, unwritable
from control.supervisor import Supervisor, WorkloadSpec
from control.token_desk import make_first_key
from exchange.adapters.journal_place import JournalPart, parts_of
from exchange.types import Instrument
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from runbooks.ports import Replica

Say = Callable[[str], None]


@dataclass
class Estate:
    """A running estate. Made by `running`."""

    settings: Settings
    layout: Layout
    ports: plan.Ports
    instruments: tuple[Instrument, ...]
    say: Say
    phase: str = "starting"
    started_at: Instant = field(default_factory=now)
    stop_asked: asyncio.Event = field(default_factory=asyncio.Event)
    signals: MadeSignals = field(default_factory=MadeSignals)
    _supervisor: Supervisor | None = None

    @property
    def supervisor(self) -> Supervisor:
        """The processes."""
        assert self._supervisor is not None, "the estate has not begun"
        return self._supervisor

    def supervisor_kind(self) -> type[Supervisor]:
        """Return who keeps the processes."""
        return Supervisor

    def specs(self) -> list[WorkloadSpec]:
        """Return the workloads that the estate starts itself."""
        return plan.workloads(self.settings, self.layout, self.ports)

    def pods_told(self) -> Callable[[bytes], None] | None:
        """Return what takes the pod host's words; None where there is none."""
        return None

    def taking_over(self) -> Callable[[str, bool], Awaitable[object]] | None:
        """Return what takes over from another region; None where none is followed."""
        return None

    @property
    def admin(self) -> str:
        """The admin secret."""
        return self.layout.secret("admin").read_text().strip()

    def log(self, level: str, text: str, **fields: Any) -> None:
        """Write one line of the estate's log (ECS)."""
        record = {
            "@timestamp": to_rfc3339(now()), "log.level": level, "message": text, "ecs.version": "9.4.0",
            "service.name": "estate", "process.pid": os.getpid(),
            **{f"exchange.{key}": value for key, value in fields.items()},
        }  # fmt: skip
        with contextlib.suppress(OSError), self.layout.log("estate").open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def publish(self) -> None:
        """Write the address book and Prometheus's targets as things are now."""
        ports, statuses = self.ports, self.supervisor.all()
        made = [("signals-1", ports.estate)] if self.signals.names else []
        edge = server_plan.edge_access(self.settings, self.layout, ports, "load")
        jobs = {**self.jobs(), "estate": [("estate-1", ports.estate)], "signals": made}
        try:
            render.write_targets(plan.targets_directory(self.layout), jobs)
            save_addresses(
                Addresses(
                    version=STATE_VERSION, phase=self.phase, pid=os.getpid(), started_at=self.started_at,
                    state=str(self.layout.root), estate=url_of(ports.estate), control=url_of(self.control_port()),
                    prometheus=url_of(ports.prometheus), alertmanager=url_of(ports.alertmanager),
                    market_data=url_of(ports.market_data), settlement=url_of(ports.settlement),
                    engine=url_of(ports.engine), load=url_of(ports.load), engine_stream_port=ports.engine_stream,
                    faults_allowed=self.settings.faults_allowed, on=self.settings.on, kept=self.settings.estate,
                    edge="" if edge is None else edge.url,
                    workloads={
                        status.name: tuple(self.address_of(each) for each in status.replicas) for status in statuses
                    },
                ),
                self.layout.addresses,
            )  # fmt: skip
        except OSError as error:
            self.log("error", f"the address book cannot be written: {error.strerror}")

    def jobs(self) -> dict[str, list[tuple[str, int]]]:
        """Return Prometheus's targets: for each job its replicas and their ports."""
        supervisor = self.supervisor
        return {one.name: [(slot.id, slot.port) for slot in supervisor.slots(one.name)] for one in supervisor.all()}

    def address_of(self, replica: Replica) -> ReplicaAddress:
        """Return a replica's entry in the address book."""
        return ReplicaAddress(replica.id, replica.url, replica.pid)

    def control_port(self) -> int:
        """Return where control listens."""
        return self.ports.control

    async def start(self) -> None:
        """Start every workload, group by group.

        Raises:
            PermanentError: one of them does not come up; says which and what it last wrote.
        """
        for group in plan.START_ORDER:
            await self._start_group(group)
            if group == ("engine",):
                await self._reopen()
        self.phase = "up"
        self.publish()

    async def _start_group(self, group: tuple[str, ...]) -> None:
        began_s = time.monotonic()
        group = plan.group_of(group, self.jobs())
        await self._unless_stopped(asyncio.gather(*(self.supervisor.start(name) for name in group)))
        count = sum(self.supervisor.status(name).ready for name in group)
        if count:
            self.say(f"{', '.join(group)}: {count} ready after {time.monotonic() - began_s:.1f} s")

    async def _unless_stopped(self, work: asyncio.Future[Any]) -> None:
        stop = asyncio.ensure_future(self.stop_asked.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise PermanentError("stopped while starting")
            await work
        finally:
            stop.cancel()
            work.cancel()
            await asyncio.gather(stop, work, return_exceptions=True)

    async def _reopen(self) -> None:
        """Reopen each engine's market after its unclean stop, when its journal replays to what it holds."""
        parts = parts_of(self.layout.journal)
        for part, (_, port) in zip(parts, server_plan.engine_ports(self.settings, self.ports), strict=True):
            await self._reopen_part(part, url_of(port), named=f"{part.name}: " if len(parts) > 1 else "")

    async def _reopen_part(self, part: JournalPart, engine: str, *, named: str) -> None:
        status = await asyncio.to_thread(call, "GET", f"{engine}/v1/status")
        if not status.get("market_halted") or status.get("clean_start"):
            return
        held = await asyncio.to_thread(call, "GET", f"{engine}/v1/hash")
        from exchange.adapters.listing_file import read_listing
        from exchange.adapters.verify import verify

        venue = read_listing(self.layout.root / "instruments.json").venue
        replayed = await asyncio.to_thread(verify, part.directory, self.instruments, held["seq"], venue)
        if replayed.state_hash != held["state_hash"]:
            self.say(
                f"{named}the last stop was unclean and the journal replays to {replayed.state_hash[:12]}, not to the "
                f"engine's {held['state_hash'][:12]}: the market stays halted"
            )
            self.log("error", f"{named}replay differs from the engine's state; the market stays halted")
            return
        body = {"key": f"up-{uuid.uuid4().hex}", "symbol": None}
        await asyncio.to_thread(call, "POST", f"{engine}/admin/resume", token=self.admin, body=body)
        words = f"{held['seq']} commands replayed to an equal state hash, market reopened"
        self.say(f"{named}the last stop was unclean: {words}")
        self.log("warn", f"{named}market reopened after an unclean stop", sequence=held["seq"])

    async def stop(self) -> None:
        """Stop every workload in order."""
        self.phase = "stopping"
        self.supervisor.end()
        self.publish()
        for group in self.stop_order():
            await asyncio.gather(*(self.supervisor.stop(name) for name in plan.group_of(group, self.jobs())))

    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups in which the processes are stopped."""
        return plan.STOP_ORDER

    async def end_own(self) -> None:
        """End what an estate of its kind has besides its processes: here nothing."""


@contextlib.asynccontextmanager
async def running(settings: Settings, say: Say, stop: asyncio.Event | None = None) -> AsyncIterator[Estate]:
    """Run an estate; whatever happens, no process is left behind. Setting `stop` meanwhile gives a start up.

    Raises:
        PermanentError: it cannot be started; one sentence says why.
    """
    state = StateDir(settings.state)
    try:
        layout = state.layout
        listing = state.fill(symbols=settings.symbols, seed=settings.seed, engines=settings.engines)
        server_plan.check_engines(settings, listing)
        state.share(settings.engines)
        if settings.gateway_tokens != "shared":
            make_first_key(state.layout)
        ports = plan.choose_ports(settings)
        try:
            settings = server_plan.completed(settings, layout, ports)
            plan.write_configs(settings, layout, ports, listing.instruments, listing.venue)
        except OSError as error:
            raise unwritable(layout.root, error) from error
        for warning in await asyncio.to_thread(preflight.check, settings, layout):
            say(warning)
        effects = EffectLog.open(layout.effects, at=now())
        try:
            kind = _kind(settings)
            made = kind(settings, layout, ports, listing.instruments, say, stop_asked=stop or asyncio.Event())
            async with _begun(made, effects) as estate:
                yield estate
        finally:
            effects.close()
            layout.addresses.unlink(missing_ok=True)
    finally:
        state.release()


def _kind(settings: Settings) -> type[Estate]:
    if settings.estate == "distributed":
        from control.distributed import DistributedEstate

        return DistributedEstate
    if settings.on == "local":
        return Estate
    from control.kube_estate import KubeEstate  # what it needs takes time that a local estate need not spend

    return KubeEstate


@contextlib.asynccontextmanager
async def _begun(estate: Estate, effects: EffectLog) -> AsyncIterator[Estate]:
    supervisor = estate.supervisor_kind()(
        estate.specs(), effects,
        kill_switch=estate.layout.kill_switch, allowed=frozenset(estate.settings.allowed_targets),
        log=estate.log, on_change=estate.publish,
    )  # fmt: skip
    estate._supervisor = supervisor  # noqa: SLF001 - the two know each other from here on
    exporter = Exporter(Role.ESTATE)
    api = EstateApi(
        supervisor, exporter, estate.admin, estate.settings.faults_allowed, estate.stop_asked.set,
        estate.pods_told(), estate.signals, estate.publish, estate.taking_over(),
    )  # fmt: skip
    server, task = await serve(api.app(), estate.ports.estate)
    facts = asyncio.create_task(ProcessFacts(exporter).run(), name="process facts")
    try:
        await estate.start()
        yield estate
        await _stop_or_kill(estate)
    finally:
        await supervisor.close()
        await estate.end_own()
        facts.cancel()
        server.should_exit = True
        await task


async def _stop_or_kill(estate: Estate) -> None:
    """Stop in order; asked once more meanwhile, kill what is left."""
    estate.stop_asked.clear()
    stopping = asyncio.create_task(estate.stop())
    hurry = asyncio.create_task(estate.stop_asked.wait())
    await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        estate.say("killing what is left")
    for task in (stopping, hurry):
        task.cancel()
    for result in await asyncio.gather(stopping, hurry, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def run(settings: Settings, say: Say, on_up: Callable[[Estate], None]) -> None:
    """Run an estate until SIGINT, SIGTERM, a request to stop, or until its terminal goes away (SIGHUP).

    Started by `nohup`, it outlives its terminal.

    Raises:
        TapewatchError: it cannot be started.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

        def hung_up() -> None:
            # Kernel and shell may both tell of it: the second time is no wish to kill.
            loop.add_signal_handler(signal.SIGHUP, lambda: None)
            stop.set()

        loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        async with running(settings, say, stop) as estate:
            # It asks over HTTP, also this very process, which answers for several engines.
            await asyncio.to_thread(on_up, estate)
            await stop.wait()
            say("stopping in order; once more kills at once")
        say("stopped")
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
