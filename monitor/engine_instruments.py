"""What the engine tells, as metric updates: `exchange.ports.EngineTelemetry` over a meter.

Commits are counted some together, and in any case before somebody reads: to count 64 commands costs as much for what
is done once as for what is done for each, and after a sync all of it is out of the processor's cache.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from exchange.commands import Command, Sequenced
from exchange.events import Accepted, Canceled, Happened, Rejected, Rested, Traded
from exchange.ports import Refusal
from exchange.types import Symbol
from kernel.time import Instant, to_seconds
from monitor.instruments import Count, Meter, tally

TOGETHER: Final = 1024
"""Commands whose commits are counted together at the latest."""


class _Aside:
    """What is still to be counted: names and numbers, none of the values they came from."""

    __slots__ = (
        "accepted", "apply_s", "canceled", "commands", "rejected", "seq", "sizes", "sync_s", "traded", "waited_s"
    )  # fmt: skip

    def __init__(self) -> None:
        self.seq = 0
        self.apply_s: list[float] = []
        self.waited_s: list[float] = []
        self.sync_s: list[float] = []
        self.sizes: list[float] = []
        self.commands: list[type[Command]] = []
        self.accepted: list[Symbol] = []
        self.rejected: list[str] = []
        self.canceled: list[str] = []
        self.traded: list[int] = []


class EngineInstruments:
    """`exchange.ports.EngineTelemetry` over a meter."""

    def __init__(self, meter: Meter, symbols: Collection[Symbol] = (), *, engine: str = "") -> None:
        """Count into `meter`, as `engine` of several. Each of `symbols` is said not to be halted: a guard reads 0."""
        self._engine = engine
        self._known: set[Symbol] = set()
        self._symbols: dict[Symbol, Count] = {}
        self._commands: dict[type[Command], Count] = {}
        self._halted: frozenset[Symbol] = frozenset()
        for symbol in symbols:
            self._know(meter, symbol)
        self._meter = meter
        self._aside = _Aside()
        meter.before_read(self._count)
        self._sequence = meter.level("exchange_engine_sequence")
        self._ready = meter.level("exchange_engine_ready")
        self._queue = meter.level("exchange_engine_queue_depth")
        self._subscribers = meter.level("exchange_engine_subscribers")
        self._resting = meter.level("exchange_resting_orders")
        self._notional = meter.level("exchange_open_notional_ticks")
        self._market_halted = meter.level("exchange_market_halted", engine)
        self._market_halted.set(0)
        self._recovery = meter.level("exchange_engine_recovery_seconds")
        self._recovered = meter.level("exchange_engine_recovered_commands")
        self._failed = meter.level("exchange_journal_failed")
        self._fenced = meter.level("exchange_journal_fenced")
        self._published = meter.level("exchange_events_published_sequence")
        self._unpublished = meter.level("exchange_events_unpublished_commands")
        self._published.unset()  # of an engine that publishes nothing there is nothing to say
        self._unpublished.unset()
        self._publish_failures = meter.count("exchange_events_publish_failures_total")
        self._apply = meter.spread("exchange_engine_apply_seconds")
        self._sync = meter.spread("exchange_journal_sync_seconds")
        self._batch = meter.spread("exchange_journal_batch_commands")
        self._waited = meter.spread("exchange_engine_queue_seconds")
        self._journal_bytes = meter.level("exchange_journal_bytes")
        self._disk_free = meter.level("exchange_journal_disk_free_bytes")
        self._snapshot = meter.level("exchange_snapshot_timestamp_seconds")
        self._first_seq = meter.level("exchange_journal_first_sequence")
        self._compacted_segments = meter.count("exchange_journal_compacted_segments_total")
        self._compacted_bytes = meter.count("exchange_journal_compacted_bytes_total")
        self._compactions_failed = meter.count("exchange_journal_compactions_failed_total")
        self._accepted = meter.count("exchange_orders_accepted_total")
        self._trades = meter.count("exchange_trades_total")
        self._lots = meter.count("exchange_traded_lots_total")

    def recovered(self, commands: int, seconds: float) -> None:
        """See `EngineTelemetry`."""
        self._recovered.set(commands)
        self._recovery.set(seconds)

    def ready(self, *, ready: bool) -> None:
        """See `EngineTelemetry`."""
        self._ready.set(ready)

    def committed(
        self,
        batch: Sequence[Sequenced],
        happened: Sequence[Happened],
        *,
        apply_s: Sequence[float],
        sync_s: float,
        waited_s: Sequence[float] = (),
    ) -> None:
        """See `EngineTelemetry`. What is to be counted is put aside; the values themselves are let go."""
        if not batch:
            return
        aside = self._aside
        aside.seq = batch[-1].seq
        aside.apply_s += apply_s
        aside.waited_s += waited_s
        aside.sync_s.append(sync_s)
        aside.sizes.append(len(batch))
        aside.commands += [type(entry.command) for entry in batch]
        accepted, traded = aside.accepted.append, aside.traded.append
        # Once for every event of the exchange: plain comparisons of the type cost a fraction of matching by pattern.
        for one in happened:
            for event in one.events:
                kind = type(event)
                if kind is Accepted:
                    accepted(event.symbol)  # type: ignore[union-attr, arg-type] # as its type says
                elif kind is Rested:
                    pass  # as frequent as those accepted: out of the way early
                elif kind is Traded:
                    traded(event.quantity)  # type: ignore[union-attr]
                elif kind is Canceled:
                    aside.canceled.append(event.reason)  # type: ignore[union-attr]
                elif kind is Rejected:
                    aside.rejected.append(event.reason)  # type: ignore[union-attr]
        if len(aside.commands) >= TOGETHER:
            self._count()

    def _count(self) -> None:
        """Count what was put aside."""
        aside = self._aside
        if not aside.commands:
            return
        self._aside = _Aside()
        self._sequence.set(aside.seq)
        self._apply.observe_many(aside.apply_s)
        self._waited.observe_many(aside.waited_s)
        self._sync.observe_many(aside.sync_s)
        self._batch.observe_many(aside.sizes)
        for command, times in tally(aside.commands).items():
            self._of_command(command).add(times)
        if aside.accepted:
            for symbol, times in tally(aside.accepted).items():
                self._of_symbol(symbol).add(times)
            self._accepted.add(len(aside.accepted))
        if aside.traded:
            self._trades.add(len(aside.traded))
            self._lots.add(sum(aside.traded))
        for name, reasons in (("exchange_rejects_total", aside.rejected), ("exchange_cancels_total", aside.canceled)):
            if reasons:
                for reason, times in tally(reasons).items():
                    self._meter.count(name, reason).add(times)

    def _of_command(self, command: type[Command]) -> Count:
        cell = self._commands.get(command)
        if cell is None:
            cell = self._meter.count("exchange_commands_total", str(command.__struct_config__.tag))
            self._commands[command] = cell
        return cell

    def _know(self, meter: Meter, symbol: Symbol) -> None:
        self._known.add(symbol)
        meter.count("exchange_symbol_commands_total", symbol)
        meter.level("exchange_symbol_halted", symbol, self._engine).set(symbol in self._halted)

    def _of_symbol(self, symbol: Symbol) -> Count:
        cell = self._symbols.get(symbol)
        if cell is None:
            if symbol not in self._known:
                self._know(self._meter, symbol)
            cell = self._symbols[symbol] = self._meter.count("exchange_symbol_commands_total", symbol)
        return cell

    def storage(self, *, journal_bytes: int, disk_free_bytes: int, snapshot_at: Instant | None) -> None:
        """See `EngineTelemetry`."""
        self._journal_bytes.set(journal_bytes)
        self._disk_free.set(disk_free_bytes)
        if snapshot_at is not None:
            self._snapshot.set(to_seconds(snapshot_at))

    def compacted(self, *, segments: int, size: int, first_seq: int) -> None:
        """See `EngineTelemetry`."""
        self._compacted_segments.add(segments)
        self._compacted_bytes.add(size)
        self._first_seq.set(first_seq)

    def compaction_failed(self) -> None:
        """See `EngineTelemetry`."""
        self._compactions_failed.add()

    def refused(self, reason: Refusal, count: int = 1) -> None:
        """See `EngineTelemetry`."""
        self._meter.count("exchange_refused_total", reason).add(count)

    def standing(
        self,
        *,
        queue_depth: int,
        subscribers: int,
        resting_orders: int,
        market_halted: bool,
        halted_symbols: Collection[Symbol],
    ) -> None:
        """See `EngineTelemetry`."""
        self._queue.set(queue_depth)
        self._subscribers.set(subscribers)
        self._resting.set(resting_orders)
        self._market_halted.set(market_halted)
        halted = frozenset(halted_symbols)
        if halted != self._halted:
            self._known |= halted
            for symbol in halted ^ self._halted:
                self._meter.level("exchange_symbol_halted", symbol, self._engine).set(symbol in halted)
            self._halted = halted

    def open_notional(self, ticks: int) -> None:
        """See `EngineTelemetry`."""
        self._notional.set(ticks)

    def journal_failed(self, *, fenced: bool = False) -> None:
        """See `EngineTelemetry`."""
        self._failed.set(1)
        self._fenced.set(fenced)
        self._ready.set(0)

    def publishing(self, *, seq: int, behind: int) -> None:
        """See `EngineTelemetry`."""
        self._published.set(seq)
        self._unpublished.set(behind)

    def publish_failed(self) -> None:
        """See `EngineTelemetry`."""
        self._publish_failures.add()
