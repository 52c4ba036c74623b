"""The market's facts: its phase by the calendar, and what of it goes through each replica, measured.

The phase costs nothing and is always there. What goes through a replica is asked of Prometheus, so it is asked only for
a runbook that bounds it, and kept for a second. A replica of which nothing young enough is known has no share: the
rails then refuse, for no data is not an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from exchange.calendar import ALWAYS, Calendar, CalendarError, Phase, calendar_of
from kernel.errors import InputError
from kernel.time import SECOND, Clock, Duration, Instant
from monitor.ports import Metrics, Reading
from monitor.promql import quoted
from runbooks.adapters.yaml_source import Source
from runbooks.facts import MarketFacts, PlantFacts, Share
from runbooks.model import Runbook
from runbooks.ports import WorkloadStatus

GATEWAYS: Final = ("gateway", "gateway-canary")
"""The workloads that orders come in through."""
REQUESTS: Final = "exchange_gateway_requests_total"
NOTIONAL: Final = "exchange_open_notional_ticks"
WINDOW: Final = "1m"
"""Over which the order volume is measured; long enough for a scrape every 15 s."""
DATA_AGE_MAX: Final = Duration(30 * SECOND)
"""Older samples tell nothing of the market; two scrapes at the usual pace."""
KEPT: Final = Duration(1 * SECOND)
_ROLES: Final = ("engine", "gateway", "market-data", "settlement", "watchdog")
QUIET: Final = Duration(300 * SECOND)


def load_calendar(path: Path) -> Calendar:
    """Read a calendar from its YAML file.

    Raises:
        InputError: it cannot be read, or something in it is wrong; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"calendar {path}", f"cannot be read: {error.strerror}", right="name a file") from error
    if not content.strip():
        raise InputError(f"{path}:1:1", "the file is empty", right="a calendar has zone, sessions and week")
    source = Source(str(path), content)
    try:
        return calendar_of(source.data)
    except CalendarError as error:
        raise source.error(error.path, error.problem, error.right, key="not known here" in error.problem) from error


def bounds_market(runbook: Runbook) -> bool:
    """Tell whether a runbook bounds what of the market it may touch."""
    radius = runbook.blast_radius
    return (radius.volume_share, radius.symbols_served, radius.notional) != (None, None, None)


class Market:
    """What is known of the market now."""

    def __init__(
        self, metrics: Metrics, clock: Clock, *, symbols: int, calendar: Calendar | None = None, quiet: Duration = QUIET
    ) -> None:
        """Serve `symbols` instruments; before an auction of `calendar` nothing disruptive begins for `quiet`."""
        self._metrics = metrics
        self._clock = clock
        self._symbols = symbols
        self._calendar = calendar
        self._quiet = quiet
        self._phase: tuple[Instant, Phase] | None = None
        self._kept: tuple[Instant, frozenset[str], Mapping[str, Share]] | None = None

    def now(self) -> MarketFacts | None:
        """Return the phase, without any share; None where no calendar is kept."""
        return None if self._calendar is None else self._facts({})

    def phase_name(self) -> str:
        """Return the phase that the calendar says it is; continuous where there is none."""
        return str(self._phase_now().name)

    async def with_shares(self, facts: PlantFacts) -> PlantFacts:
        """Add to the plant's facts what of the market goes through each replica that is known."""
        replicas = frozenset(replica.id for workload in facts.workloads for replica in workload.replicas)
        kept, now = self._kept, self._clock.now()
        if kept is None or now - kept[0] > KEPT or kept[1] != replicas:
            kept = self._kept = now, replicas, await self._shares(facts.workloads)
        return msgspec.structs.replace(facts, market=self._facts(kept[2]))

    def _facts(self, shares: Mapping[str, Share]) -> MarketFacts:
        phase = self._phase_now()
        return MarketFacts(
            phase=phase.name,
            auction=phase.auction,
            next_auction_at=phase.next_auction_at,
            quiet_ns=self._quiet,
            shares=shares,
        )

    def _phase_now(self) -> Phase:
        now = self._clock.now()
        if self._calendar is None:
            return ALWAYS
        if self._phase is None or not self._phase[0] <= now < (self._phase[1].until or now):
            self._phase = now, self._calendar.phase_at(now)
        return self._phase[1]

    async def _shares(self, workloads: Iterable[WorkloadStatus]) -> dict[str, Share]:
        """Ask for every replica at once."""
        roles = {replica.id: _role(workload.name) for workload in workloads for replica in workload.replicas}
        figures = await asyncio.gather(*(self._figure(role, replica) for replica, role in roles.items()))
        known = dict(zip(roles, figures, strict=True))
        volume = sum(figure or 0.0 for replica, figure in known.items() if roles[replica] == "gateway")
        return {
            replica: self._share(roles[replica], figure, volume)
            for replica, figure in known.items()
            if figure is not None
        }

    async def _figure(self, role: str, replica: str) -> float | None:
        """Return the figure that a replica's share stands on, 0 where none is needed, None when it is not known."""
        match role:
            case "gateway":
                # One that has just fallen silent has no present value, but what went through it lately is known as
                # long as Prometheus looks there at all.
                return await self._read("rate({}[" + WINDOW + "])", REQUESTS, replica, fresh="up")
            case "engine":
                return await self._read("{}", NOTIONAL, replica, fresh=NOTIONAL)
            case "":
                return None  # what it is to the market is not known
            case _:
                return 0.0

    def _share(self, role: str, figure: float, volume: float) -> Share:
        """Return a replica's share; `volume` is the order rate of all gateways that are known."""
        match role:
            case "gateway":
                return Share(self._symbols, figure / volume if volume else 0.0, notional=0)
            case "engine":  # the single writer: every order goes through it and rests there
                return Share(self._symbols, volume=1.0, notional=round(figure))
            case "market-data":
                return Share(self._symbols, volume=0.0, notional=0)
            case _:
                return Share(symbols=0, volume=0.0, notional=0)

    async def _read(self, query: str, metric: str, replica: str, *, fresh: str) -> float | None:
        of_it = f"{{replica={quoted(replica)}}}"
        asked = f"sum({query.replace('{}', metric + of_it)})"
        reading = await self._metrics.read(asked, fresh=fresh + of_it, max_age=DATA_AGE_MAX)
        return reading.value if isinstance(reading, Reading) and reading.value >= 0 else None


def _role(workload: str) -> str:
    """Return what a workload is to the market, by its name: `gateway-canary` is a gateway, too. Empty: not known."""
    return next((role for role in _ROLES if workload == role or workload.startswith(f"{role}-")), "")
