"""From what the exchange tells to metric updates: the telemetry ports of `exchange.ports` over a meter.

No I/O and no metrics library here: a `Meter` hands out cells that are bound once, so that a hot path pays for one
addition.
Cells belong to one event loop; nothing here locks.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from exchange.bearer import TokenFault
from exchange.ports import (
    AnsweredOrder,
    BookShape,
    ClientOutcome,
    DeadReason,
    DisconnectCancel,
    PostResult,
    ReferenceAnswer,
    RequestOutcome,
    Resting,
    SocketEnd,
)
from exchange.shards import engine_label
from exchange.types import Side, Symbol
from kernel.time import Instant, to_seconds
from kernel.trace import order_trace_id
from monitor.symbol_acks import SymbolAcks, apart
from monitor.traces import Policy, is_picked

_Value = TypeVar("_Value", bound=Hashable)


def tally(values: Sequence[_Value]) -> Mapping[_Value, int]:
    """Count equal values. Setting up a `Counter` costs as much as counting a dozen, and most commits are small."""
    return {values[0]: 1} if len(values) == 1 else Tally(values)


class Count(Protocol):
    """A number that only grows."""

    def add(self, amount: float = 1) -> None:
        """Add `amount`, which is not negative."""
        ...


class Level(Protocol):
    """A number that goes up and down."""

    def set(self, value: float) -> None:
        """Let the number be `value`."""
        ...

    def unset(self) -> None:
        """Leave the number out until it is set again: there is nothing true to say."""
        ...


class Spread(Protocol):
    """A distribution."""

    def observe(self, value: float, exemplar: Callable[[], str] | None = None) -> None:
        """Count one value; `exemplar` tells the trace id of an example of it, and is asked only when it is shown."""
        ...

    def observe_same(self, value: float, times: int, exemplar: Callable[[], str] | None = None) -> None:
        """Count one value several times."""
        ...

    def wants_exemplar(self, value: float) -> bool:
        """Tell whether an example of a value is worth looking for: the last of its bucket is old."""
        ...

    def observe_many(self, values: Sequence[float]) -> None:
        """Count a batch of values; cheaper than one by one."""
        ...


class Meter(Protocol):
    """Hands out the cells of the catalogue's metrics. The same name and label values give the same cell."""

    def count(self, name: str, *labels: str) -> Count:
        """Return a counter's cell; `labels` are the values in the catalogue's order."""
        ...

    def level(self, name: str, *labels: str) -> Level:
        """Return a gauge's cell."""
        ...

    def spread(self, name: str) -> Spread:
        """Return a histogram's cell."""
        ...

    def before_read(self, count: Callable[[], None]) -> None:
        """Call `count` each time before the cells are read: it counts what was only gathered up to then."""
        ...


class GatewayInstruments:
    """`exchange.ports.GatewayTelemetry` over a meter."""

    def __init__(
        self, meter: Meter, symbols: Collection[Symbol] = (), share: float = Policy().share, *, engines: int = 1
    ) -> None:
        """Count into `meter`. Of the orders whose spans are kept (`share`, and slow ones) exemplars are shown."""
        self._share = share
        self._symbols = {symbol: SymbolAcks(meter, symbol, engine_label(symbol, engines)) for symbol in symbols}
        self._sessions = meter.level("exchange_gateway_sessions")
        self._answers = {outcome: meter.count("exchange_gateway_requests_total", outcome) for outcome in RequestOutcome}
        self._ack = meter.spread("exchange_order_ack_seconds")
        self._in_flight = meter.level("exchange_gateway_in_flight")
        self._capacity = meter.level("exchange_gateway_capacity_per_second")
        self._connected = apart(meter, "exchange_gateway_engine_connected", engines)
        self._faults = {fault: meter.count("exchange_gateway_token_refusals_total", fault) for fault in TokenFault}
        self._sockets = meter.level("exchange_gateway_order_sockets")
        self._ends = {end: meter.count("exchange_gateway_order_sockets_ended_total", end) for end in SocketEnd}
        self._cancels = {one: meter.count("exchange_gateway_disconnect_cancels_total", one) for one in DisconnectCancel}
        asked = "exchange_gateway_reference_requests_total"
        self._reference = {one: meter.count(asked, one) for one in ReferenceAnswer}

    def answered(self, outcome: RequestOutcome, seconds: float, order: AnsweredOrder | None = None) -> None:
        """See `GatewayTelemetry`. Only answers of the engine are timed: a shed request is fast and would flatter."""
        self._answers[outcome].add()
        if outcome not in _TIMED:
            return
        if order is None:
            self._ack.observe(seconds)
            return
        slow = seconds >= SLOW_S
        kept = slow or is_picked(self._share, order.seq, order.client_id, order.trace)
        # A place in a trace costs a digest: it is worked out when somebody scrapes, of the few that are shown.
        name = partial(order_trace_id, order.account, order.client_id, order.trace) if kept else None
        self._ack.observe(seconds, name)
        acks = None if order.symbol is None else self._symbols.get(order.symbol)
        if acks is not None:
            acks.add(seconds, slow=slow)

    def resting(self, seconds: float, orders: Resting) -> None:
        """See `GatewayTelemetry`."""
        slow = seconds >= SLOW_S
        self._answers[RequestOutcome.ACCEPTED].add(len(orders))
        # One of them is an exemplar, and none while the bucket has a fresh one: nobody scrapes that often.
        kept = self._kept_of(orders, slow=slow) if self._ack.wants_exemplar(seconds) else None
        self._ack.observe_same(seconds, len(orders), kept)
        for symbol, times in tally([order[0].symbol for order in orders]).items():
            acks = self._symbols.get(symbol)
            if acks is not None:
                acks.add(seconds, slow=slow, times=times)

    def _kept_of(self, orders: Resting, *, slow: bool) -> Callable[[], str] | None:
        for command, seq, trace, _ in orders:
            if slow or is_picked(self._share, seq, command.client_id, trace):
                return partial(order_trace_id, command.account, command.client_id, trace)
        return None

    def sessions(self, connections: int) -> None:
        """See `GatewayTelemetry`."""
        self._sessions.set(connections)

    def in_flight(self, requests: int) -> None:
        """See `GatewayTelemetry`."""
        self._in_flight.set(requests)

    def capacity(self, per_second: float) -> None:
        """See `GatewayTelemetry`."""
        self._capacity.set(per_second)

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """See `GatewayTelemetry`."""
        self._connected[partition].set(connected)

    def token_refused(self, fault: TokenFault) -> None:
        """See `GatewayTelemetry`."""
        self._faults[fault].add()

    def sockets(self, connections: int) -> None:
        """See `GatewayTelemetry`."""
        self._sockets.set(connections)

    def socket_ended(self, end: SocketEnd) -> None:
        """See `GatewayTelemetry`."""
        self._ends[end].add()

    def disconnect_cancel(self, result: DisconnectCancel) -> None:
        """See `GatewayTelemetry`."""
        self._cancels[result].add()

    def reference_told(self, result: ReferenceAnswer) -> None:
        """See `GatewayTelemetry`."""
        self._reference[result].add()


SLOW_S = 0.25
"""An order that waits so long for its answer is slow; traces and the log say the same."""
_TIMED = frozenset({RequestOutcome.ACCEPTED, RequestOutcome.REJECTED, RequestOutcome.UNKNOWN})


class FeedInstruments:
    """`exchange.ports.FeedTelemetry` over a meter."""

    def __init__(self, meter: Meter, *, engines: int = 1) -> None:
        self._meter = meter
        self._sequence = meter.level("exchange_feed_sequence")
        self._published = meter.level("exchange_feed_published_timestamp_seconds")
        self._delay = meter.spread("exchange_feed_delay_seconds")
        self._subscribers = meter.level("exchange_feed_subscribers")
        self._slow = meter.count("exchange_feed_slow_consumers_total")
        self._engines = engines
        self._connected = apart(meter, "exchange_feed_engine_connected", engines)

    def published(self, seq: int, at: Instant, kinds: Mapping[str, int]) -> None:
        """See `FeedTelemetry`."""
        self._sequence.set(seq)
        self._published.set(to_seconds(at))
        for kind, times in kinds.items():
            self._meter.count("exchange_feed_messages_total", kind).add(times)

    def books(self, at: Instant, books: Mapping[Symbol, BookShape]) -> None:
        """See `FeedTelemetry`."""
        confirmed = to_seconds(at)
        for symbol, shape in books.items():
            engine = engine_label(symbol, self._engines)
            self._meter.level("exchange_feed_symbol_timestamp_seconds", symbol, engine).set(confirmed)
            self._meter.level("exchange_book_depth_lots", symbol, Side.BUY).set(shape.bid_lots)
            self._meter.level("exchange_book_depth_lots", symbol, Side.SELL).set(shape.ask_lots)
            cell = self._meter.level("exchange_book_spread_ticks", symbol)
            if shape.spread is None:
                cell.unset()
            else:
                cell.set(shape.spread)

    def delayed(self, seconds: Sequence[float]) -> None:
        """See `FeedTelemetry`."""
        self._delay.observe_many(seconds)

    def traded(self, symbols: Mapping[Symbol, Instant]) -> None:
        """See `FeedTelemetry`."""
        for symbol, at in symbols.items():
            engine = engine_label(symbol, self._engines)
            self._meter.level("exchange_symbol_last_trade_timestamp_seconds", symbol, engine).set(to_seconds(at))

    def subscribers(self, connected: int) -> None:
        """See `FeedTelemetry`."""
        self._subscribers.set(connected)

    def slow_consumer(self) -> None:
        """See `FeedTelemetry`."""
        self._slow.add()

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """See `FeedTelemetry`."""
        self._connected[partition].set(connected)


class SettlementInstruments:
    """`exchange.ports.SettlementTelemetry` over a meter."""

    def __init__(self, meter: Meter) -> None:
        self._sequence = meter.level("exchange_settlement_sequence")
        self._trades = meter.count("exchange_settlement_trades_total")
        self._duplicates = meter.count("exchange_settlement_duplicates_total")
        self._commit = meter.spread("exchange_settlement_commit_seconds")
        self._connected = meter.level("exchange_settlement_engine_connected")
        self._imbalance = meter.level("exchange_ledger_imbalance")
        self._lag = meter.level("exchange_settlement_lag_seconds")
        self._difference = meter.level("exchange_reconciliation_difference")

    def committed(self, seq: int, *, trades: int, duplicates: int, seconds: float) -> None:
        """See `SettlementTelemetry`."""
        self._sequence.set(seq)
        self._trades.add(trades)
        self._duplicates.add(duplicates)
        self._commit.observe(seconds)

    def caught_up(self, seq: int) -> None:
        """See `SettlementTelemetry`."""
        self._sequence.set(seq)

    def imbalance(self, value: int) -> None:
        """See `SettlementTelemetry`."""
        self._imbalance.set(value)

    def lag(self, seconds: float) -> None:
        """See `SettlementTelemetry`."""
        self._lag.set(seconds)

    def reconciled(self, difference: int) -> None:
        """See `SettlementTelemetry`."""
        self._difference.set(difference)

    def engine_connected(self, *, connected: bool) -> None:
        """See `SettlementTelemetry`."""
        self._connected.set(connected)


class ConsumerInstruments:
    """`exchange.ports.ConsumerTelemetry` over a meter, of one topic."""

    def __init__(self, meter: Meter, topic: str) -> None:
        self._meter = meter
        self._topic = topic
        self._connected = meter.level("exchange_consumer_connected", topic)
        self._partitions = meter.level("exchange_consumer_partitions", topic)
        self._rebalances = meter.count("exchange_consumer_rebalances_total", topic)
        self._dead = {reason: meter.count("exchange_dead_letters_total", topic, reason) for reason in DeadReason}
        self._mine: frozenset[int] = frozenset()

    def connected(self, *, connected: bool) -> None:
        """See `ConsumerTelemetry`."""
        self._connected.set(connected)

    def assigned(self, partitions: Collection[int]) -> None:
        """See `ConsumerTelemetry`."""
        self._rebalances.add()
        self._partitions.set(len(partitions))
        for partition in self._mine - frozenset(partitions):  # another member tells of them from now on
            for name in ("lag_records", "committed_lag_records", "stopped"):
                self._of(name, partition).unset()
        for partition in frozenset(partitions) - self._mine:
            self.stopped(partition, stopped=False)
        self._mine = frozenset(partitions)

    def lag(self, partition: int, *, records: int, committed: int) -> None:
        """See `ConsumerTelemetry`."""
        self._of("lag_records", partition).set(records)
        self._of("committed_lag_records", partition).set(committed)

    def stopped(self, partition: int, *, stopped: bool) -> None:
        """See `ConsumerTelemetry`."""
        self._of("stopped", partition).set(stopped)

    def dead_letter(self, reason: DeadReason) -> None:
        """See `ConsumerTelemetry`."""
        self._dead[reason].add()

    def _of(self, name: str, partition: int) -> Level:
        return self._meter.level(f"exchange_consumer_{name}", self._topic, str(partition))


class WatchdogInstruments:
    """`exchange.ports.WatchdogTelemetry` over a meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._messages = meter.count("exchange_watchdog_messages_total")
        self._connected = meter.level("exchange_watchdog_feed_connected")

    def checked(self, messages: int) -> None:
        """See `WatchdogTelemetry`."""
        self._messages.add(messages)

    def feed_connected(self, *, connected: bool) -> None:
        """See `WatchdogTelemetry`."""
        self._connected.set(connected)

    def trade_through(self, symbol: Symbol, times: int) -> None:
        """See `WatchdogTelemetry`."""
        self._meter.count("exchange_watchdog_trade_throughs_total", symbol).add(times)

    def gap_seen(self, symbol: Symbol) -> None:
        """See `WatchdogTelemetry`."""
        self._meter.count("exchange_watchdog_sequence_gaps_total", symbol).add()

    def gap(self, symbol: Symbol, *, standing: bool) -> None:
        """See `WatchdogTelemetry`."""
        self._meter.count("exchange_watchdog_trade_throughs_total", symbol)  # from the start: a first one is a rise
        self._meter.level("exchange_watchdog_sequence_gap", symbol).set(standing)

    def crossed(self, symbol: Symbol, *, standing: bool) -> None:
        """See `WatchdogTelemetry`."""
        self._meter.level("exchange_watchdog_book_crossed", symbol).set(standing)

    def posted(self, result: PostResult) -> None:
        """See `WatchdogTelemetry`."""
        self._meter.count("exchange_watchdog_alerts_posted_total", result).add()


class LoadInstruments:
    """`exchange.ports.LoadTelemetry` over a meter."""

    def __init__(self, meter: Meter) -> None:
        self._answers = {outcome: meter.count("exchange_client_orders_total", outcome) for outcome in ClientOutcome}
        self._latency = meter.spread("exchange_client_latency_seconds")
        self._notional = meter.count("exchange_client_notional_ticks_total")

    def answered(self, outcome: ClientOutcome, seconds: float, notional: int = 0) -> None:
        """See `LoadTelemetry`."""
        self._answers[outcome].add()
        self._latency.observe(seconds)
        self._notional.add(notional)
