"""A distributed estate: the exchange on the services that it stands on, started and stopped in their order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import psutil

from control.estate import Estate
from control.server_plan import DATABASES, database_url, own_pages

START_ORDER: Final = (
    ("kafka", "postgres", "rabbitmq", "zipkin"),
    ("engine",),
    ("gateway", "market-data", "settlement", "watchdog"),
    ("saga",),
    ("edge",),
    ("prometheus", "alertmanager", "control"),
    ("load",),
)
STOP_ORDER: Final = (
    ("load",),
    ("edge",),
    ("gateway",),
    ("watchdog", "market-data", "settlement"),
    ("saga",),
    ("engine",),
    ("control",),
    ("alertmanager", "prometheus"),
    ("rabbitmq", "zipkin"),
    ("kafka",),
    ("postgres",),
)
"""No new orders, then what follows from them, then whoever keeps something for them."""


@dataclass
class DistributedEstate(Estate):
    """A running estate with the services it stands on."""

    async def start(self) -> None:
        """Start every workload, group by group; then say what all of it takes.

        Raises:
            PermanentError: one of them does not come up; says which and what it last wrote.
        """
        there = self.jobs()
        for group in START_ORDER:
            await self._start_group(tuple(name for name in group if name in there))
            if "postgres" in group and "postgres" in there:
                await self._unless_stopped(asyncio.ensure_future(asyncio.to_thread(self._lay_databases)))
            if group == ("engine",):
                await self._reopen()
        self.phase = "up"
        self.publish()
        self.say(f"{_memory_mb()} MB in all processes")

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
