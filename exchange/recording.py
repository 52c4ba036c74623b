"""Telemetry and log that keep what they were told: the fake that ships, for tests and for runs nobody watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from exchange.bearer import TokenFault
from exchange.commands import Sequenced
from exchange.events import Happened
from exchange.ports import (
    AnsweredOrder,
    BookShape,
    ClientOutcome,
    DeadReason,
    DisconnectCancel,
    PostResult,
    Raised,
    ReferenceAnswer,
    Refusal,
    RequestOutcome,
    Resting,
    SocketEnd,
)
from exchange.saga import End, Verdict
from exchange.types import Symbol
from kernel.time import Instant


@dataclass
class RecordingLog:
    """Keeps each event as (name, severity, fields)."""

    events: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def event(self, name: str, /, *, severity: str = "info", **fields: object) -> None:
        """Keep one event."""
        self.events.append((name, severity, fields))

    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [name for name, _, _ in self.events]


class NullLog:
    """Keeps nothing: for a process that nobody reads."""

    def event(self, name: str, /, *, severity: str = "info", **fields: object) -> None:
        """Forget one event."""


@dataclass
class RecordingExposition:
    """A metrics page with nothing on it."""

    content_type: str = "text/plain; version=0.0.4; charset=utf-8"

    def render(self) -> bytes:
        """Return an empty page."""
        return b""

    def page(self, accept: str) -> tuple[bytes, str]:  # noqa: ARG002 - the port's signature
        """Return an empty page."""
        return b"", self.content_type


@dataclass
class RecordingEngine:
    """An `EngineTelemetry` that keeps the last standing and counts the rest."""

    recovered_commands: int = -1
    is_ready: bool = False
    commands: int = 0
    batches: int = 0
    refusals: Counter[Refusal] = field(default_factory=Counter)
    halted: bool = False
    halted_symbols: frozenset[Symbol] = frozenset()
    queue_depth: int = 0
    notional: int = 0
    subscribers: int = 0
    failed: bool = False
    fenced: bool = False
    published_seq: int = -1
    behind: int = 0
    publish_failures: int = 0
    disk: tuple[int, int, Instant | None] | None = None
    first_seq: int = 0
    removed: tuple[int, int] = (0, 0)
    """Segments and bytes."""
    compactions_failed: int = 0

    def recovered(self, commands: int, seconds: float) -> None:
        """Keep how many commands a start replayed."""
        assert seconds >= 0
        self.recovered_commands = commands

    def ready(self, *, ready: bool) -> None:
        """Keep readiness."""
        self.is_ready = ready

    def committed(
        self,
        batch: Sequence[Sequenced],
        happened: Sequence[Happened],
        *,
        apply_s: Sequence[float],
        sync_s: float,
        waited_s: Sequence[float] = (),
    ) -> None:
        """Count a batch."""
        assert len(batch) == len(happened) == len(apply_s) == len(waited_s or batch)
        assert all(waited >= 0 for waited in waited_s)
        assert sync_s >= 0
        self.commands += len(batch)
        self.batches += 1

    def refused(self, reason: Refusal, count: int = 1) -> None:
        """Count refusals."""
        self.refusals[reason] += count

    def standing(
        self,
        *,
        queue_depth: int,
        subscribers: int,
        resting_orders: int,
        market_halted: bool,
        halted_symbols: Collection[Symbol],
    ) -> None:
        """Keep the last standing."""
        assert resting_orders >= 0
        self.queue_depth, self.subscribers = queue_depth, subscribers
        self.halted, self.halted_symbols = market_halted, frozenset(halted_symbols)

    def open_notional(self, ticks: int) -> None:
        """Keep the last figure."""
        assert ticks >= 0
        self.notional = ticks

    def storage(self, *, journal_bytes: int, disk_free_bytes: int, snapshot_at: Instant | None) -> None:
        """Keep how the disk stands."""
        self.disk = (journal_bytes, disk_free_bytes, snapshot_at)

    def compacted(self, *, segments: int, size: int, first_seq: int) -> None:
        """Add what went, and keep where the journal begins."""
        self.removed, self.first_seq = (self.removed[0] + segments, self.removed[1] + size), first_seq

    def compaction_failed(self) -> None:
        """Count failures of compactions."""
        self.compactions_failed += 1

    def journal_failed(self, *, fenced: bool = False) -> None:
        """Keep that the journal failed, and why."""
        self.failed, self.fenced = True, fenced

    def publishing(self, *, seq: int, behind: int) -> None:
        """Keep how far publishing is."""
        assert seq >= 0
        self.published_seq, self.behind = seq, behind

    def publish_failed(self) -> None:
        """Count failures of publishing."""
        self.publish_failures += 1


@dataclass
class RecordingGateway:
    """A `GatewayTelemetry` that counts answers by outcome."""

    outcomes: Counter[RequestOutcome] = field(default_factory=Counter)
    orders: list[AnsweredOrder] = field(default_factory=list)
    connections: int = 0
    waiting: int = 0
    per_second: float = 0.0
    engines: dict[int, bool] = field(default_factory=dict)
    """Whether each is connected, by partition."""
    faults: Counter[TokenFault] = field(default_factory=Counter)
    open_sockets: int = 0
    ends: Counter[SocketEnd] = field(default_factory=Counter)
    cancels: Counter[DisconnectCancel] = field(default_factory=Counter)
    reference: Counter[ReferenceAnswer] = field(default_factory=Counter)

    def token_refused(self, fault: TokenFault) -> None:
        """Count a refused token."""
        self.faults[fault] += 1

    def sockets(self, connections: int) -> None:
        """Keep how many are open."""
        self.open_sockets = connections

    def socket_ended(self, end: SocketEnd) -> None:
        """Count an end."""
        self.ends[end] += 1

    def disconnect_cancel(self, result: DisconnectCancel) -> None:
        """Count an attempt."""
        self.cancels[result] += 1

    def reference_told(self, result: ReferenceAnswer) -> None:
        """Count an answer."""
        self.reference[result] += 1

    def answered(self, outcome: RequestOutcome, seconds: float, order: AnsweredOrder | None = None) -> None:
        """Count an answer."""
        assert seconds >= 0
        self.outcomes[outcome] += 1
        if order is not None:
            self.orders.append(order)

    def resting(self, seconds: float, orders: Resting) -> None:
        """Count each as answered."""
        for command, seq, trace, _ in orders:
            order = AnsweredOrder(command.account, command.client_id, command.symbol, trace, seq)
            self.answered(RequestOutcome.ACCEPTED, seconds, order)

    def in_flight(self, requests: int) -> None:
        """Keep how many wait."""
        self.waiting = requests

    def sessions(self, connections: int) -> None:
        """Keep how many are open."""
        self.connections = connections

    def capacity(self, per_second: float) -> None:
        """Keep the capacity."""
        self.per_second = per_second

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """Keep the connection's state."""
        self.engines[partition] = connected


@dataclass
class RecordingFeed:
    """A `FeedTelemetry` that keeps the last of everything and counts kinds."""

    seq: int = 0
    published_at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    shapes: dict[Symbol, BookShape] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    last_trades: dict[Symbol, Instant] = field(default_factory=dict)
    connected_subscribers: int = 0
    slow: int = 0
    engines: dict[int, bool] = field(default_factory=dict)
    """Whether each is connected, by partition."""

    def published(self, seq: int, at: Instant, kinds: Mapping[str, int]) -> None:
        """Count messages by kind."""
        self.seq, self.published_at = seq, at
        self.kinds.update(kinds)

    @property
    def spreads(self) -> dict[Symbol, int | None]:
        """The spread of each symbol."""
        return {symbol: shape.spread for symbol, shape in self.shapes.items()}

    def books(self, at: Instant, books: Mapping[Symbol, BookShape]) -> None:
        """Keep the shapes."""
        assert at > 0
        self.shapes.update(books)

    def delayed(self, seconds: Sequence[float]) -> None:
        """Keep the delays."""
        assert all(delay >= 0 for delay in seconds)
        self.delays.extend(seconds)

    def traded(self, symbols: Mapping[Symbol, Instant]) -> None:
        """Keep when each symbol last traded."""
        self.last_trades.update(symbols)

    def subscribers(self, connected: int) -> None:
        """Keep how many are connected."""
        self.connected_subscribers = connected

    def slow_consumer(self) -> None:
        """Count a cut."""
        self.slow += 1

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """Keep the connection's state."""
        self.engines[partition] = connected


@dataclass
class RecordingSaga:
    """A `SagaTelemetry` that adds up."""

    verdicts: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    begun_sagas: int = 0
    steps: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """From beginning to end of each saga that ended."""
    open: int = 0
    stuck: dict[tuple[str, str], int] = field(default_factory=dict)
    last_drift: int | None = None
    seq: int = 0
    is_connected: bool = False
    forgotten: int = 0

    def carried_out(self, verdicts: Mapping[Verdict, int], *, repeats: int, seconds: float) -> None:
        """Add a batch."""
        assert seconds >= 0
        self.verdicts.update({verdict.value: count for verdict, count in verdicts.items()})
        self.repeats += repeats

    def begun(self, count: int) -> None:
        """Add what was begun."""
        self.begun_sagas += count

    def stepped(self, seconds: float) -> None:
        """Count a step."""
        assert seconds >= 0
        self.steps += 1

    def ended(self, end: End, *, seconds: float, since_trade: float) -> None:
        """Count an end."""
        assert seconds >= 0
        assert since_trade >= 0
        self.ends[end.value] += 1
        self.seconds.append(seconds)

    def standing(self, open_: int, *, oldest: float, stuck: Mapping[tuple[str, str], int]) -> None:
        """Keep how it stands."""
        assert oldest >= 0
        self.open, self.stuck = open_, dict(stuck)

    def forgot(self, count: int) -> None:
        """Add what was forgotten."""
        self.forgotten += count

    def drift(self, value: int) -> None:
        """Keep the sum."""
        self.last_drift = value

    def read(self, seq: int) -> None:
        """Keep how far it is."""
        self.seq = seq

    def connected(self, *, source: bool) -> None:
        """Keep the connection's state."""
        self.is_connected = source


@dataclass
class RecordingSettlement:
    """A `SettlementTelemetry` that adds up."""

    seq: int = 0
    trades: int = 0
    duplicates: int = 0
    commits: int = 0
    last_imbalance: int | None = None
    lag_s: float = -1.0
    differences: list[int] = field(default_factory=list)
    connected: bool = False

    def committed(self, seq: int, *, trades: int, duplicates: int, seconds: float) -> None:
        """Add one commit."""
        assert seconds >= 0
        self.seq = seq
        self.trades += trades
        self.duplicates += duplicates
        self.commits += 1

    def caught_up(self, seq: int) -> None:
        """Keep how far it is."""
        self.seq = seq

    def imbalance(self, value: int) -> None:
        """Keep the imbalance."""
        self.last_imbalance = value

    def lag(self, seconds: float) -> None:
        """Keep the lag."""
        assert seconds >= 0
        self.lag_s = seconds

    def reconciled(self, difference: int) -> None:
        """Keep the difference."""
        self.differences.append(difference)

    def engine_connected(self, *, connected: bool) -> None:
        """Keep the connection's state."""
        self.connected = connected


@dataclass
class RecordingConsumer:
    """A `ConsumerTelemetry` that keeps the last of everything and counts dead letters."""

    is_connected: bool | None = None
    partitions: frozenset[int] = frozenset()
    rebalances: int = 0
    lags: dict[int, tuple[int, int]] = field(default_factory=dict)
    standing: set[int] = field(default_factory=set)
    dead: Counter[DeadReason] = field(default_factory=Counter)

    def connected(self, *, connected: bool) -> None:
        """Keep whether brokers answer."""
        self.is_connected = connected

    def assigned(self, partitions: Collection[int]) -> None:
        """Keep the partitions."""
        self.partitions = frozenset(partitions)
        self.rebalances += 1

    def lag(self, partition: int, *, records: int, committed: int) -> None:
        """Keep the lag."""
        self.lags[partition] = records, committed

    def stopped(self, partition: int, *, stopped: bool) -> None:
        """Keep which stand still."""
        (self.standing.add if stopped else self.standing.discard)(partition)

    def dead_letter(self, reason: DeadReason) -> None:
        """Count one."""
        self.dead[reason] += 1


@dataclass
class RecordingWatchdog:
    """A `WatchdogTelemetry` that keeps the state of each symbol."""

    messages: int = 0
    connected: bool = False
    gaps: dict[Symbol, bool] = field(default_factory=dict)
    gaps_seen: Counter[Symbol] = field(default_factory=Counter)
    crossings: dict[Symbol, bool] = field(default_factory=dict)
    throughs: Counter[Symbol] = field(default_factory=Counter)
    posts: Counter[PostResult] = field(default_factory=Counter)

    def checked(self, messages: int) -> None:
        """Count messages."""
        self.messages += messages

    def feed_connected(self, *, connected: bool) -> None:
        """Keep the connection's state."""
        self.connected = connected

    def trade_through(self, symbol: Symbol, times: int) -> None:
        """Count trades past a better quote."""
        self.throughs[symbol] += times

    def gap_seen(self, symbol: Symbol) -> None:
        """Count a gap."""
        self.gaps_seen[symbol] += 1

    def gap(self, symbol: Symbol, *, standing: bool) -> None:
        """Keep whether a gap stands."""
        self.gaps[symbol] = standing

    def crossed(self, symbol: Symbol, *, standing: bool) -> None:
        """Keep whether a book is crossed."""
        self.crossings[symbol] = standing

    def posted(self, result: PostResult) -> None:
        """Count a post."""
        self.posts[result] += 1


@dataclass
class RecordingLoad:
    """A `LoadTelemetry` that keeps outcomes and latencies in seconds."""

    outcomes: Counter[ClientOutcome] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    notional: int = 0

    def answered(self, outcome: ClientOutcome, seconds: float, notional: int = 0) -> None:
        """Keep one answer."""
        self.outcomes[outcome] += 1
        self.latencies_s.append(seconds)
        self.notional += notional


@dataclass
class RecordingAlarms:
    """An `Alarms` that keeps what it was handed and answers `result`."""

    result: PostResult = PostResult.ACCEPTED
    posts: list[Raised] = field(default_factory=list)

    async def post(self, raised: Sequence[Raised]) -> PostResult:
        """Keep alarms, unless it is told not to accept them."""
        if self.result is PostResult.ACCEPTED:
            self.posts.extend(raised)
        return self.result
