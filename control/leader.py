"""Running for leader on a real clock: `control.election` driven over the port `Leases`.

Between being elected and acting stands the fence: whoever carries our writes makes sure that the old epoch is refused
by now. Renewals go on meanwhile. Nobody is asked whether we lead: `why_not` answers from our own clock, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from control.election import Create, Election, ElectionTuning, Look, Replace, Rest
from kernel.errors import TapewatchError, TemporaryError
from kernel.time import Clock, to_seconds
from runbooks.leases import LeaseRecord, Leases
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

T = TypeVar("T")

FENCING: Final = "elected, but it is not yet certain that the leader before is refused"
_STEP_S: Final = 0.001
"""Two looks at the clock are at least so far apart."""


def monotonic_ns() -> int:
    """Return a clock that never jumps and goes on while the machine sleeps; a lease does not sleep with it."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class LeaderParts:
    """What an election is run with."""

    leases: Leases
    tuning: ElectionTuning
    identity: str
    """Names this life of this process, such as `control-7d9f/3f2a`; never used again by another life."""
    fence: Callable[[int], Awaitable[None]]
    """Returns once writes of epochs before this one are refused; raises `TapewatchError` while that is not certain."""
    on_elected: Callable[[int], None]
    """Called with the epoch once we lead and the fence stands."""
    on_deposed: Callable[[], None]
    """Called once when that is over, whether or not anybody answers us."""
    clock: Clock
    """For the times people read in the record."""
    monotonic_ns: Callable[[], int] = monotonic_ns


class Leader:
    """A candidate that runs until it is stopped."""

    def __init__(self, parts: LeaderParts) -> None:
        """Stand for election with `parts` once `run` is awaited."""
        self._p = parts
        self._election = Election(parts.identity, parts.tuning)
        self._fenced = 0
        """The epoch whose fence stands."""
        self._told = 0
        """The epoch that `on_elected` was called with and `on_deposed` not yet."""
        self._fencing: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def epoch(self) -> int:
        """The epoch in which we lead or led last: what every write carries."""
        return self._election.epoch

    @property
    def identity(self) -> str:
        """What the record calls us."""
        return self._p.identity

    def why_not(self) -> str:
        """Say why we must not act at this very moment; empty when we lead and the fence stands."""
        why = self._election.why_not(self._p.monotonic_ns())
        return why or ("" if self._fenced == self._election.epoch else FENCING)

    async def run(self) -> None:
        """Stand for election, lead, be deposed, stand again, until cancelled; then let go of the lease."""
        try:
            while True:
                await self._round()
        finally:
            await self._leave()

    async def _round(self) -> None:
        ask = self._election.next_ask(self._p.monotonic_ns(), self._p.clock.now())
        match ask:
            case Rest(until_ns):
                await asyncio.sleep(max(to_seconds(until_ns - self._p.monotonic_ns()), _STEP_S))
            case Look():
                await self._look()
            case Create(record):
                await self._send(record, self._p.leases.create)
            case Replace(record):
                await self._send(record, self._p.leases.replace)
        self._note()

    async def _look(self) -> None:
        try:
            record = await self._timely(self._p.leases.read())
        except (TapewatchError, TimeoutError):
            self._election.unanswered(self._p.monotonic_ns())
        else:
            self._election.read(record, self._p.monotonic_ns())

    async def _send(self, record: LeaseRecord, write: Callable[[LeaseRecord], Awaitable[LeaseRecord]]) -> None:
        self._election.sending(record, self._p.monotonic_ns())
        try:
            kept = await self._timely(write(record))
        except RefusedError as error:
            now_ns = self._p.monotonic_ns()
            if error.reason is RefusalReason.CONFLICT:
                self._election.conflict(now_ns)
            else:
                self._election.unanswered(now_ns)
        except (TapewatchError, TimeoutError):
            self._election.unanswered(self._p.monotonic_ns())
        else:
            self._election.kept(kept, self._p.monotonic_ns())

    async def _timely(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(to_seconds(self._p.tuning.renew_ns)):
            return await answer

    # --- being told -----------------------------------------------------------------------------------------------

    def _note(self) -> None:
        """Hold what is so against what was told, and look again when the lease ends."""
        leads = self._election.may_act(self._p.monotonic_ns())
        if self._told and (not leads or self._told != self._election.epoch):
            self._told = 0
            self._p.on_deposed()
        if not leads:
            # Whoever leads again, even in the same epoch because nobody else came, is told so again.
            self._fenced = 0
            self._stop_fencing()
            return
        if self._fenced != self._election.epoch and (self._fencing is None or self._fencing.done()):
            self._fencing = asyncio.create_task(self._fence(self._election.epoch), name="fence")
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        left_s = to_seconds(self._election.good_until_ns - self._p.monotonic_ns())
        self._alarm = asyncio.get_running_loop().call_later(max(left_s, _STEP_S), self._note)

    async def _fence(self, epoch: int) -> None:
        """Wait until the old epoch is refused, then tell that we lead."""
        while True:
            try:
                await self._p.fence(epoch)
                break
            except TapewatchError:
                await asyncio.sleep(to_seconds(self._p.tuning.retry_ns))
        self._fenced = epoch
        if not self.why_not() and self._told != epoch:
            self._told = epoch
            self._p.on_elected(epoch)

    def _stop_fencing(self) -> None:
        if self._fencing is not None:
            self._fencing.cancel()
            self._fencing = None

    # --- leaving --------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Stop leading at once, say so to whoever acts for us, then let the next one in."""
        release = self._election.release(self._p.monotonic_ns(), self._p.clock.now())
        self._stop_fencing()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._told:
            self._told = 0
            self._p.on_deposed()
        if release is None:
            return
        # Nobody waits for this one; when it is lost, the lease runs out by itself.
        with contextlib.suppress(TemporaryError, RefusedError, TimeoutError):
            await self._timely(self._p.leases.replace(release.record))
