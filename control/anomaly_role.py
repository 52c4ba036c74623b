"""The role `anomaly`, wired: detectors over the estate's own series, read from its Prometheus."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.anomaly_gauges import Gauges
from control.anomaly_loop import AnomalyLoop, LoopParts
from control.anomaly_reading import Readings, window_of
from control.anomaly_state import digest_of, load_kept
from control.anomaly_view import View, view_of
from control.anomaly_watch import AnomalyWatch, Fleets
from control.config import RoleConfig
from control.layout import Layout
from control.market import load_calendar
from control.process_facts import ProcessFacts
from exchange.adapters.http import HttpServer, common_routes, json_response, listen, read_secret
from exchange.calendar import Calendar
from exchange.ports import Log
from kernel.adapters.clock import SystemClock
from kernel.errors import InputError
from kernel.time import MINUTE, SECOND, Duration
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.adapters.watched_files import HOUSE, load_watched
from monitor.catalog import Role
from monitor.logs import EcsFormat
from monitor.watched import Watched

HOLD_S: Final = 15
"""An alert stands so long at least, or six scrapes: a rule with `for` must see it on some of them."""
COMPILE: Final = (
    "import os; os.nice(5); import numpy as np; from anomaly.fleet import Fleet; "
    "Fleet(1).advance(np.ones(1, np.int64), np.ones(1))"
)
"""A program that compiles the detectors and leaves the machine code on disk."""
EXPLAINED: Final = Duration(5 * MINUTE)
"""For so long after a turn of the phase the calendar explains a change: what was before it is no measure so long."""
_LOG_SECRETS: Final = ("admin", "webhook", "trade")


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Watch until `stop`; returns the exit code.

    Raises:
        TapewatchError: it cannot start; a wrong entry of the list or of the calendar is named by file and line.
    """
    layout, clock, exporter = Layout(Path(config.state)), SystemClock(), Exporter(Role.ANOMALY)
    gauges, tuning = Gauges(exporter, clock.now()), config.anomaly  # before anybody scrapes: what is not known is not 0
    watched = load_watched(Path(tuning.watched) if tuning.watched else HOUSE)
    calendar = load_calendar(Path(config.tuning.calendar)) if config.tuning.calendar else None
    window_s = window_of(tuning.scrape_s)
    step = Duration(max(tuning.step_s, tuning.scrape_s) * SECOND)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        stack.callback(listener.close)
        secrets = [read_secret(layout.secret(name)) for name in _LOG_SECRETS if layout.secret(name).exists()]
        log = FileLog(layout.log(config.replica), EcsFormat(config.role, config.replica, secrets=secrets), clock)
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        room = _Room()
        server = HttpServer(Starlette(routes=[*common_routes(exporter, room.ready), Route("/v1/series", room.series)]),
                            listener)  # fmt: skip
        await server.start()
        stack.push_async_callback(server.stop)
        log.event("anomaly-started", count=len(watched))
        digest, state = digest_of(watched, step // SECOND, window_s), layout.anomaly / "state.bin"
        hold = Duration(max(HOLD_S, 6 * tuning.scrape_s) * SECOND)
        await compile_beside(stop, log)
        watch = await asyncio.to_thread(begin, watched, state, digest, hold, calendar, log)
        readings = Readings(config.prometheus_url, watched, step=step, window_s=window_s)
        stack.push_async_callback(readings.close)
        room.loop = loop = AnomalyLoop(
            LoopParts(
                watch=watch, readings=readings, gauges=gauges, log=log, clock=clock, step=step,
                window=Duration((window_s + tuning.scrape_s) * SECOND), history=Duration(tuning.history_s * SECOND),
                digest=digest, state=state, feedback=layout.anomaly / "feedback.jsonl",
            )
        )  # fmt: skip
        room.watch, room.readings = watch, readings
        work = asyncio.create_task(loop.run(), name="steps")
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, told):
            task.cancel()
        ended = await asyncio.gather(work, told, return_exceptions=True)
        await loop.save()
        if isinstance(ended[0], Exception):
            raise ended[0]
    return 0


async def compile_beside(stop: asyncio.Event, log: Log) -> None:
    """Have the detectors compiled by a process of its own, which leaves the machine code on disk.

    Compiling takes half a minute of a processor the first time and holds the interpreter: this process would answer no
    probe meanwhile, and be taken for one that hangs. It gives way to everything else on the machine. Where it was done
    before this costs a second.
    """
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", COMPILE, stderr=asyncio.subprocess.DEVNULL)
    done, told = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait([done, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not done.done():
        child.terminate()
    if await done and not stop.is_set():
        log.event(
            "anomaly-not-compiled", severity="warning", message="the detectors are compiled in the process itself"
        )


def begin(
    watched: tuple[Watched, ...], state: Path, digest: str, hold: Duration, calendar: Calendar | None, log: Log
) -> AnomalyWatch:  # fmt: skip
    """Go on from what is kept; anew, and told why, where that cannot be used."""
    fleets = fleets_of()
    try:
        kept = load_kept(state, digest)
        if kept is not None:
            watch = AnomalyWatch(
                watched, fleets, hold=hold, settle=EXPLAINED, calendar=calendar, kept=kept, lasting=True
            )
            log.event("anomaly-state-restored", count=len(kept.seats))
            return watch
    except (ValueError, InputError) as error:
        log.event("anomaly-state-forgotten", severity="warning", message=str(error))
    return AnomalyWatch(watched, fleets, hold=hold, settle=EXPLAINED, calendar=calendar, lasting=True)


def fleets_of() -> Fleets:
    """Return how fleets of the product's own detectors are made."""
    from anomaly.fleet import Fleet
    from anomaly.settings import Settings

    settings = Settings()
    return Fleets(
        make=lambda count: Fleet(count, settings), restore=Fleet.restore, budget_per_day=settings.budget_per_day
    )


class _Room:
    """What the process answers by HTTP, before and after its detectors are there."""

    def __init__(self) -> None:
        self.loop: AnomalyLoop | None = None
        self.watch: AnomalyWatch | None = None
        self.readings: Readings | None = None

    def ready(self) -> tuple[bool, str]:
        """Ready from the start: that there are no scores yet is told, and no reason to start the process anew."""
        if self.loop is None:
            return True, "the detectors are being made"
        return True, self.loop.why or "scores are of the present"

    async def series(self, _: Request) -> Response:
        """Answer what is known of each series, and how the process is doing."""
        return json_response(self._view())

    def _view(self) -> View:
        if self.watch is None or self.loop is None or self.readings is None:
            return View(at=None, fresh_s=None, trouble="the detectors are being made")
        return view_of(self.watch, SystemClock().now(), trouble=self.loop.why, refused=self.readings.refused)
