"""A small watched list, a clock and readings that are written by hand, for the tests of the detectors' process."""

from __future__ import annotations

from control.anomaly_gauges import Gauges
from control.anomaly_loop import AnomalyLoop, LoopParts
from control.anomaly_reading import Failure, ReadError
from control.anomaly_state import Life, digest_of, load_kept
from control.anomaly_watch import AnomalyWatch, Key, Read, Step
from kernel.time import SECOND, Duration, Instant, from_rfc3339
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role
from monitor.watched import Harm, Renews, Watched
from tests.control.plain_fleet import PLAIN

T0 = from_rfc3339("2026-03-02T09:30:00Z")
STEP = Duration(2 * SECOND)
HOLD = Duration(10 * SECOND)
LATENCY = Watched("latency", "q", "gateway", "ms", "why", by="replica", most=2, harm=Harm.UP)
FLOW = Watched("flow", "q", "market-data", "messages/s", "why", session=True)
MEMORY = Watched("memory", "q", "$job", "bytes", "why", by="replica", most=2, renews=Renews.PROCESS)
LIST = (LATENCY, FLOW, MEMORY)
GATEWAY = Key("latency", "gateway-1")
DIGEST = digest_of(LIST, 2, 10)


def at(row):
    return Instant(T0 + row * STEP)


def step(row, values, lives=None):
    """Return a step; `values` by entry id, or by entry id and item."""
    services = {"latency": "gateway", "flow": "market-data", "memory": "gateway"}
    keyed = {Key(*(name if isinstance(name, tuple) else (name, ""))): value for name, value in values.items()}
    return Step(at(row), {key: Read(value, services.get(key.series, "x")) for key, value in keyed.items()}, lives or {})


def calm(row, latency=5.0, flow=100.0, **more):
    return step(row, {("latency", "gateway-1"): latency, "flow": flow}, **more)


def life(build="1", since=1.0, job="gateway"):
    return {"gateway-1": Life(job, build, since)}


def watch_of(**how):
    return AnomalyWatch(LIST, PLAIN, hold=HOLD, **how)


class Clock:
    def __init__(self):
        self.at = T0

    def now(self):
        return Instant(self.at)


class Log:
    def __init__(self):
        self.events = []

    def event(self, name, /, *, severity="info", **fields):
        self.events.append((name, severity, fields))


class Scripted:
    """Readings by hand: a value a row and series, or a failure; every question is kept."""

    def __init__(self):
        self.rows, self.failure, self.asked, self.refused = {}, None, [], {}

    def write(self, row, latency=5.0, flow=100.0):
        self.rows[row] = calm(row, latency, flow)

    async def now(self, start, end):
        return self._answer("now", start, end)

    async def history(self, start, end):
        return self._answer("history", start, end)

    def _answer(self, kind, start, end):
        self.asked.append((kind, (start - T0) // STEP, (end - T0) // STEP))
        if self.failure is not None:
            raise ReadError(self.failure, "no answer")
        return [one for _, one in sorted(self.rows.items()) if start <= one.at <= end]

    async def close(self):
        pass


class Bed:
    """A loop over a directory, begun anew as often as the test likes."""

    def __init__(self, directory, history=0):
        self.directory, self.clock, self.log, self.readings = directory, Clock(), Log(), Scripted()
        self.history = history
        self.anew()

    def anew(self):
        """Begin as a new process would: from what is kept."""
        self.exporter = Exporter(Role.ANOMALY, process=False)
        kept = load_kept(self.directory / "state.bin", DIGEST)
        self.watch = watch_of(kept=kept)
        self.loop = AnomalyLoop(
            LoopParts(
                watch=self.watch, readings=self.readings, gauges=Gauges(self.exporter, self.clock.now()), log=self.log,
                clock=self.clock, step=STEP, window=Duration(10 * SECOND), history=Duration(self.history * SECOND),
                digest=DIGEST, state=self.directory / "state.bin", feedback=self.directory / "feedback.jsonl",
            )
        )  # fmt: skip

    async def to(self, row):
        """Let time come to a row and take its step."""
        self.clock.at = at(row) + SECOND
        await self.loop.step(at(row))

    async def through(self, first, last):
        for row in range(first, last + 1):
            self.readings.write(row) if row not in self.readings.rows else None
            await self.to(row)

    def shown(self, name, **labels):
        """Return a figure as it is scraped; None when it is not there."""
        found = [
            value
            for each, given, value in samples(self.exporter.render())
            if each == name and all(given.get(key) == wanted for key, wanted in labels.items())
        ]
        return found[0] if found else None

    def fail(self, failure=Failure.UNREACHABLE):
        self.readings.failure = failure
