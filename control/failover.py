"""A fail-over of the ledger's PostgreSQL, carried out on two real servers of its own and measured.

A writer settles made-up trades one after another. The first server is killed with all its processes, fenced, and the
stand-by promoted; the writer finds the other one by its address. What was acknowledged before the kill and is missing
on the stand-by is the recovery point (RPO), the time from the kill to the next acknowledgement the recovery time (RTO).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import psycopg

from control.databases import opened, revisions
from control.servers.postgres import Server
from exchange.adapters.settlement_store import SettlementStore
from exchange.events import Happened, Traded
from exchange.types import AccountId, Instrument, Lots, OrderId, Side, Symbol, Ticks, TradeId
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant

DATABASE: Final = "ledger"
STEP_S: Final = 0.02
"""How long the writer waits before it tries again."""
WITHIN_S: Final = 60.0
"""When nothing was acknowledged for so long after the kill, the fail-over has failed."""
AFTER: Final = 100
"""Trades that must be settled after the fail-over."""
_DRILL: Final = Instrument(symbol=Symbol("DRILL"), reference=Ticks(100), band=Ticks(50))


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a fail-over cost."""

    synchronous: bool
    cut_off_s: float
    """For how long the stand-by received nothing before the kill; done on purpose."""
    acknowledged: int
    """Trades that were told settled before the kill."""
    lost: int
    """Those of them that the stand-by lacked when it took over: RPO in rows."""
    lost_s: float
    """How long before the kill the oldest of them was acknowledged: RPO in seconds."""
    recovery_s: float
    """From the kill to the next acknowledgement: RTO."""
    promote_s: float
    """Of that, the stand-by's turn."""
    settled_again: int
    """Lost trades that settlement brought back from the event log by itself."""
    missing: int
    """Trades that are missing in the end; must be 0."""
    twice: int
    """Trades that are there twice; must be 0."""
    imbalance: int
    """By how much the money is off zero; must be 0."""
    fenced: bool
    """Whether the old server, started again, took no write."""

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        found = []
        if self.synchronous and self.lost:
            found.append(f"{self.lost} acknowledged trades were lost although the stand-by was synchronous")
        if self.missing or self.twice:
            found.append(f"{self.missing} trades are missing in the end, {self.twice} are there twice")
        if self.imbalance:
            found.append(f"the money is off zero by {self.imbalance}")
        if not self.fenced:
            found.append("the old server took a write after the fail-over")
        return found


class Writer(threading.Thread):
    """Settlement as it is: one writer that tries again, and begins again where the ledger says it is."""

    def __init__(self, url: str) -> None:
        super().__init__(name="failover writer", daemon=True)
        self._url = url
        self._stopped = threading.Event()
        self.acknowledged: list[float] = []
        """When trade n + 1 was first told settled, by the monotonic clock."""
        self.settled_again = 0
        self.error: BaseException | None = None
        self.told = threading.Condition()
        self.gate = threading.Lock()
        """Held while a trade is being settled: who holds it looks at a ledger that stands still."""
        self.broken = threading.Event()
        """Set when a settlement failed: what comes after was acknowledged by another server, or a server anew."""

    def run(self) -> None:
        """Settle until stopped."""
        try:
            while not self._stopped.is_set():
                with contextlib.suppress(TemporaryError), contextlib.closing(self._open()) as store:
                    self._settle_from(store)
                time.sleep(STEP_S)
        except BaseException as error:  # noqa: BLE001 - whoever waits for this thread is told
            self.error = error
            with self.told:
                self.told.notify_all()

    def stop(self) -> None:
        """Come to an end."""
        self._stopped.set()
        self.join(WITHIN_S)

    def wait_for(self, count: int, within_s: float = WITHIN_S) -> None:
        """Return when so many trades were told settled.

        Raises:
            PermanentError: they were not in time, or the writer failed.
        """
        with self.told:
            done = self.told.wait_for(lambda: self.error or len(self.acknowledged) >= count, within_s)
        if self.error is not None:
            raise PermanentError(f"the writer failed: {self.error}") from self.error
        if not done:
            raise PermanentError(f"{len(self.acknowledged)} trades were settled within {within_s:g} s, not {count}")

    def _open(self) -> SettlementStore:
        return SettlementStore(self._url, [_DRILL])

    def _settle_from(self, store: SettlementStore) -> None:
        number = store.seq + 1
        while not self._stopped.is_set():
            try:
                with self.gate:
                    settled = store.settle([made_up(number)])
            except TemporaryError:
                self.broken.set()
                time.sleep(STEP_S)
                continue
            except PermanentError as error:
                if "went back" in str(
                    error
                ):  # as the role does: it ends, is started again, and reads the log from there
                    return
                raise
            with self.told:
                if number > len(self.acknowledged):
                    self.acknowledged.append(time.monotonic())
                else:
                    self.settled_again += settled.trades
                self.told.notify_all()
            number += 1


def made_up(number: int) -> Happened:
    """Return command `number` of an event log in which each command is a trade."""
    buyer, seller = AccountId(f"buyer-{number % 11}"), AccountId(f"seller-{number % 13}")
    trade = Traded(
        TradeId(number), _DRILL.symbol, number, Ticks(100 + number % 7), Lots(1 + number % 5), OrderId(2 * number),
        OrderId(2 * number + 1), Side.BUY, buyer, seller, Lots(0),
    )  # fmt: skip
    return Happened(number, Instant(number * SECOND), (trade,))


@contextlib.contextmanager
def pair(programs: Path, *, synchronous: bool) -> Iterator[tuple[Server, Server]]:
    """Start a server with an empty ledger and a stand-by that follows it."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Server(programs))
        url = first.create_database(DATABASE)
        with opened(url, "ledger") as (connection, _):
            revisions("ledger").upgrade(connection)
        second = stack.enter_context(first.stand_by())
        first.wait_for(synchronous=synchronous)
        yield first, second


def fail_over(programs: Path, *, synchronous: bool = True, before: int = 500, cut_off_s: float = 0.0) -> Report:
    """Carry out one fail-over under load and measure it.

    Args:
        programs: PostgreSQL's.
        synchronous: whether commits wait for the stand-by.
        before: trades to settle before the kill.
        cut_off_s: for how long before the kill the stand-by receives nothing.

    Raises:
        PermanentError: the servers cannot be had, or no trade was settled within a minute of the kill.
    """
    with pair(programs, synchronous=synchronous) as (first, second):
        writer = Writer(first.url(DATABASE, others=[second]))
        writer.start()
        try:
            writer.wait_for(before)
            if cut_off_s:
                second.cut_off()
                time.sleep(cut_off_s)
            writer.broken.clear()
            killed = time.monotonic()
            first.kill()
            first.fence()
            if not writer.broken.wait(WITHIN_S):
                raise PermanentError("the writer did not notice that the first server is gone")
            told = list(writer.acknowledged)  # no more can come before the other takes writes
            with writer.gate:  # or what is settled again at once would not be seen to be lost
                began = time.monotonic()
                second.promote()
                promoted = time.monotonic()
                kept = {number for (number,) in second.ask("SELECT trade_id FROM trades", DATABASE)}
            writer.wait_for(len(told) + AFTER)
            recovered = writer.acknowledged[len(told)]
            fenced = _is_fenced(first)
        finally:
            writer.stop()
        lost = [min(at, killed) for number, at in enumerate(told, 1) if number not in kept]
        return Report(
            synchronous=synchronous, cut_off_s=cut_off_s, acknowledged=len(told), lost=len(lost),
            lost_s=killed - min(lost) if lost else 0.0, recovery_s=recovered - killed, promote_s=promoted - began,
            settled_again=writer.settled_again, fenced=fenced, **_end(second, len(writer.acknowledged)),
        )  # fmt: skip


def _end(server: Server, settled: int) -> dict[str, int]:
    found = [number for (number,) in server.ask("SELECT trade_id FROM trades", DATABASE)]
    off = server.ask("SELECT coalesce(sum(abs(total)), 0) FROM (SELECT sum(amount) AS total FROM balances "
                     "GROUP BY asset) AS sums", DATABASE)  # fmt: skip
    return {
        "missing": len(set(range(1, settled + 1)) - set(found)), "twice": len(found) - len(set(found)),
        "imbalance": int(off[0][0]),
    }  # fmt: skip


def _is_fenced(server: Server) -> bool:
    """Tell whether the old server takes no write when somebody starts it again."""
    server.start()
    try:
        server.ask("UPDATE progress SET seq = seq + 1", DATABASE)
    except psycopg.errors.ReadOnlySqlTransaction:
        return True
    else:
        return False
    finally:
        server.kill()
