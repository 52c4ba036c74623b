"""The role `mirror`, wired: another region's journal into the brokers here, until an engine takes over."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.addresses import write_atomically
from control.config import RoleConfig, place_of
from control.layout import Layout
from control.process_facts import ProcessFacts
from exchange.adapters.file_log import FencedError
from exchange.adapters.http import Faults, HttpServer, common_routes, json_response, listen, read_secret
from exchange.adapters.kafka_mirror import Mirror
from exchange.adapters.listing_file import listing_of
from exchange.ports import CopyEnd, Log
from kernel.adapters.clock import SystemClock
from kernel.errors import InputError, PermanentError
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.catalog import Role
from monitor.logs import EcsFormat

if TYPE_CHECKING:
    from collections.abc import Sequence


NARROW: Final = "mirror-narrow"
"""A fault that lasts: so many records a second come over at most, as by a narrow way between the regions."""
MIRROR_FAULTS: Final = frozenset({NARROW})


class MirrorStatus(msgspec.Struct, frozen=True):
    """What `/v1/mirror` answers."""

    sequence: int
    """The last command that is durable here."""
    connected: bool
    """Whether the other region's brokers answer."""
    lag: int | None
    """How many of its records are not here yet; None while that cannot be known."""
    behind_s: float | None
    """For how long at most one of these has waited, in seconds; None while that cannot be known."""
    broken: str | None
    """Why the copy cannot go on; None while it can."""


class MirrorInstruments:
    """`MirrorTelemetry` over an exporter. One thread writes, and what is read is one value each."""

    def __init__(self, exporter: Exporter) -> None:
        self._sequence = exporter.level("exchange_mirror_sequence")
        self._commands = exporter.count("exchange_mirror_commands_total")
        self._connected = exporter.level("exchange_mirror_source_connected")
        self._lag = exporter.level("exchange_mirror_lag_records")
        self._behind = exporter.level("exchange_mirror_lag_seconds")
        self._broken = {why: exporter.level("exchange_mirror_broken", why) for why in CopyEnd}
        self.status = MirrorStatus(0, connected=False, lag=None, behind_s=None, broken=None)
        self._connected.set(0)
        for level in self._broken.values():
            level.set(0)

    def mirrored(self, seq: int, records: int) -> None:
        """See `MirrorTelemetry`."""
        self._sequence.set(seq)
        self._commands.add(records)
        self.status = msgspec.structs.replace(self.status, sequence=seq)

    def looked(self, *, connected: bool, lag: int | None, behind_s: float | None) -> None:
        """See `MirrorTelemetry`. Of a source that does not answer the lag is not known, and no number is told."""
        self._connected.set(connected)
        for level, value in ((self._lag, lag), (self._behind, behind_s)):
            if value is None:
                level.unset()
            else:
                level.set(value)
        self.status = msgspec.structs.replace(self.status, connected=connected, lag=lag, behind_s=behind_s)

    def broke(self, error: PermanentError) -> None:
        """The copy cannot go on, for good."""
        self._broken[CopyEnd.FENCED if isinstance(error, FencedError) else CopyEnd.MISMATCH].set(1)
        self.status = msgspec.structs.replace(self.status, broken=str(error))


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Follow until `stop`; returns the exit code. Brokers that are away are waited for.

    Raises:
        PermanentError: it follows nobody.
    """
    if config.follows is None or config.kafka is None:
        raise PermanentError("a mirror needs the brokers of the other region and those here (setting follows)")
    layout, exporter = Layout(Path(config.state)), Exporter(Role.MIRROR)
    faults, admin = Faults(MIRROR_FAULTS, allowed=config.faults_allowed), read_secret(layout.secret("admin"))
    async with AsyncExitStack() as stack:
        secrets: Sequence[str] = [admin]
        log = FileLog(
            layout.log(config.replica), EcsFormat(config.role, config.replica, secrets=secrets), SystemClock()
        )
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        told = MirrorInstruments(exporter)

        async def status(_: Request) -> Response:
            return json_response(told.status)

        def ready() -> tuple[bool, str]:
            seen = told.status
            where = f"{seen.sequence} commands are here"
            if seen.broken is not None:
                return False, f"{where}, and the copy cannot go on: {seen.broken}"
            return True, f"{where}, the other region {'answers' if seen.connected else 'does not answer'}"

        routes = [
            *common_routes(exporter, ready), *faults.routes(admin), Route("/v1/mirror", status, methods=["GET"]),
        ]  # fmt: skip
        server = HttpServer(Starlette(routes=routes), listen(config.port, config.listen))
        await server.start()
        stack.push_async_callback(server.stop)
        mirror = Mirror(
            place_of(config.follows), place_of(config.kafka), told, log, lambda: faults.number(NARROW),
            lambda data: keep_listing(data, layout.followed_listing, log),
        )  # fmt: skip
        await follow(mirror, told, log, stop)
    return 0


def keep_listing(data: bytes, path: Path, log: Log) -> bool:
    """Keep what is traded in the other region for a take-over; one that cannot be read is told and not kept."""
    try:
        listing = listing_of(data, f"what {path.name} should hold")
        write_atomically(path, data)
    except (InputError, OSError) as error:
        log.event("mirror-listing-refused", severity="error", why=str(error))
        return False
    log.event("mirror-listing", instruments=len(listing.instruments))
    return True


class Follower(Protocol):
    """What the role runs: `exchange.adapters.kafka_mirror.Mirror`."""

    def run(self, stopped: threading.Event) -> None:
        """Copy until told to stop."""
        ...

    def watch(self, stopped: threading.Event) -> None:
        """Look at the source until told to stop, and copy nothing."""
        ...


async def follow(mirror: Follower, told: MirrorInstruments, log: Log, stop: asyncio.Event) -> None:
    """Let the mirror work in a thread until told to stop.

    One whose copy cannot go on stays and says so. It must not end and be started again: opening the copy would fence
    the engine that fenced it.
    """
    ending = threading.Event()

    def copy() -> None:
        try:
            mirror.run(ending)
        except PermanentError as error:
            told.broke(error)
            log.event("mirror-broken", severity="error", why=str(error))
            mirror.watch(ending)

    work = asyncio.create_task(asyncio.to_thread(copy))
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([waiting, work], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.set()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await work
