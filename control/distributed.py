"""A distributed estate: the exchange on the services that it stands on, started and stopped in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import psutil

from control import plan
from control.addresses import url_of, write_atomically
from control.calls import call
from control.child import now
from control.estate import Estate
from control.server_plan import DATABASES, database_url, engine_ports, own_pages
from control.state_dir import generate_instruments
from control.supervisor import WorkloadSpec
from exchange.adapters.engines_http import EnginesDesk, EngineSite
from exchange.adapters.http import HttpServer, listen
from exchange.adapters.listing_file import read_listing, write_listing
from exchange.listing import Listing
from kernel.errors import PermanentError
from kernel.time import Instant
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

START_ORDER: Final = (
    ("kafka", "postgres", "rabbitmq", "zipkin"),
    ("engine",),
    ("gateway", "market-data", "settlement", "watchdog"),
    ("saga",),
    ("edge",),
    ("prometheus", "alertmanager", "control"),
    ("load",),
)
FOLLOW_ORDER: Final = (
    ("kafka", "postgres", "rabbitmq", "zipkin"),
    ("mirror",),
    ("prometheus", "alertmanager", "control"),
)
"""Of an estate that follows another region, until it takes over."""
FOLLOWING: Final = "following"
STOP_ORDER: Final = (
    ("load",),
    ("edge",),
    ("gateway",),
    ("watchdog", "market-data", "settlement"),
    ("saga",),
    ("engine",),
    ("mirror",),
    ("control",),
    ("alertmanager", "prometheus"),
    ("rabbitmq", "zipkin"),
    ("kafka",),
    ("postgres",),
)
"""No new orders, then what follows from them, then whoever keeps something for them."""


PATIENCE_S: Final = 90.0
"""How long a process of ours may take to be ready beside a dozen that start too."""


class TakenOver(msgspec.Struct, frozen=True):
    """That this region has taken over, kept for good."""

    by: str
    at: Instant
    sequence: int
    """The last command of the other region that is here."""


@dataclass
class DistributedEstate(Estate):
    """A running estate with the services it stands on."""

    _taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _engines: tuple[EnginesDesk, HttpServer] | None = None

    async def start(self) -> None:
        """Start every workload, group by group; then say what all of it takes.

        An estate that follows another region starts the mirror and nobody who trades, until it takes over.

        Raises:
            PermanentError: one of them does not come up; says which and what it last wrote.
        """
        if self.settings.follows and not self.layout.taken_over.exists():
            await self._start_groups(FOLLOW_ORDER)
            self.phase = FOLLOWING
        else:
            await self._start_groups(START_ORDER)
            self.phase = "up"
        self.publish()
        self.say(f"{_memory_mb()} MB in all processes")

    def specs(self) -> list[WorkloadSpec]:
        """Return the workloads, each with the patience that so many starts at once ask for."""
        return [replace(one, start_timeout_s=max(PATIENCE_S, one.start_timeout_s)) for one in super().specs()]

    def taking_over(self) -> Callable[[str, bool], Awaitable[object]] | None:
        """Return what takes over from another region; None where none is followed."""
        if not self.settings.follows:
            return None
        return lambda by, even_so: self.take_over(by, even_so=even_so)

    async def take_over(self, by: str, *, even_so: bool) -> TakenOver:
        """Trade here from now on: end the mirror, start everybody else. Asked again, the same is answered.

        Raises:
            RefusedError: the other region answers, and two would trade the same books; or this estate follows nobody.
            PermanentError: a workload does not come up.
        """
        async with self._taking:
            if self.layout.taken_over.exists():
                if self.phase != "up":
                    raise PermanentError(
                        "this region has taken over, and not all of it came up: stop it (`tapewatch down`) and start "
                        "it again, it follows nobody any more"
                    )
                return msgspec.json.decode(self.layout.taken_over.read_bytes(), type=TakenOver)
            if self.phase != FOLLOWING:
                raise RefusedError(
                    RefusalReason.NOT_ALLOWED, f"this estate follows no other region: it is {self.phase}"
                )
            seen = await asyncio.to_thread(call, "GET", f"{url_of(self.ports.servers['mirror-1/host'])}/v1/mirror")
            if seen["connected"] and not even_so:
                raise RefusedError(
                    RefusalReason.CONFLICT,
                    f"the other region's brokers answer ({self.settings.follows}): stop it first, or two regions trade "
                    "the same books; --even-so takes over all the same",
                )
            listing = await asyncio.to_thread(self._followed_listing)
            await self.supervisor.retire("mirror")
            changed = await asyncio.to_thread(self._adopt, listing)
            taken = TakenOver(by=by, at=now(), sequence=int(seen["sequence"]))
            write_atomically(self.layout.taken_over, msgspec.json.encode(taken))
            self.log("warn", f"{by} has this region take over after command {taken.sequence}", sequence=taken.sequence)
            await self._start_groups(tuple(group for group in START_ORDER if group not in FOLLOW_ORDER))
            if changed:  # it runs since before, and knows the symbols that it was started with
                await self.supervisor.stop("control")
                await self.supervisor.start("control")
            self.phase = "up"
            self.publish()
            return taken

    def _followed_listing(self) -> Listing:
        """Return what is traded in the region that is followed: as its engine said it, or as a person put it here.

        Raises:
            RefusedError: nobody said it; or a person put another one here than its engine has.
        """
        brought, own = self.layout.followed_listing, self.layout.root / "instruments.json"
        ours = read_listing(own)
        invented = generate_instruments(self.settings.symbols, self.settings.seed)
        is_invented = ours == Listing(invented)
        if not brought.exists():
            if is_invented:
                raise RefusedError(
                    RefusalReason.CONFLICT,
                    f"what the other region trades is not here: its engine did not say it. Put its instruments.json in "
                    f"the place of {own}, start this estate anew, and take over then",
                )
            return ours
        theirs = read_listing(brought)
        if not is_invented and ours != theirs:
            raise RefusedError(
                RefusalReason.CONFLICT,
                f"{own} is another listing than the other region's ({brought}), and its journal would not be carried "
                "out alike: put that one in its place, start this estate anew, and take over then",
            )
        return theirs

    def _adopt(self, listing: Listing) -> bool:
        """Have every role started from now on trade that listing; False when it is ours already."""
        own = self.layout.root / "instruments.json"
        if read_listing(own) == listing:
            return False
        write_atomically(own, write_listing(listing))
        self.instruments = listing.instruments
        plan.write_configs(self.settings, self.layout, self.ports, listing.instruments, listing.venue)
        self.log("warn", f"{len(listing.instruments)} instruments of the other region are traded here from now on")
        return True

    async def _start_groups(self, groups: tuple[tuple[str, ...], ...]) -> None:
        there = self.jobs()
        for group in groups:
            await self._start_group(tuple(name for name in group if name in there))
            if "postgres" in group and "postgres" in there:
                await self._unless_stopped(asyncio.ensure_future(asyncio.to_thread(self._lay_databases)))
            if group == ("engine",):
                await self._ask_at_one_address()
                await self._reopen()

    async def _ask_at_one_address(self) -> None:
        """Where there are several engines, answer for all of them at the address of the only one."""
        if self.settings.engines == 1 or self._engines is not None:
            return
        sites = [EngineSite(name, url_of(port)) for name, port in engine_ports(self.settings, self.ports)]
        desk = EnginesDesk(sites)
        self._engines = desk, HttpServer(desk.app(self.admin), listen(self.ports.engine))
        await self._engines[1].start()

    async def end_own(self) -> None:
        """Answer for the engines no longer."""
        if self._engines is not None:
            desk, server = self._engines
            await server.stop()
            await desk.close()

    def jobs(self) -> dict[str, list[tuple[str, int]]]:
        """Return Prometheus's targets, with the pages that services have of their own."""
        return {**super().jobs(), **own_pages(self.settings, self.ports)}

    def _lay_databases(self) -> None:
        """Make the databases and bring them to the newest revision.

        Raises:
            PermanentError: the server refuses.
        """
        from control.databases import lay

        for kind in DATABASES:
            lay(database_url(kind, self.layout, self.ports), kind)

    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups in which the processes are stopped."""
        there = self.jobs()
        return tuple(tuple(name for name in group if name in there) for group in STOP_ORDER)


def _memory_mb() -> int:
    """Return what this process and all that descend from it keep in memory, shared pages counted once for each."""
    total = 0
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return round(total / 1e6)
