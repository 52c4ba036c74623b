"""What the exchange's processes ask of the world around them: telemetry, logs, alerts.

The core and its adapters hold no metrics library and no logger. They tell these ports what happened, in batches where
the path is hot; `monitor/` turns it into metrics and log records, and tests keep it in plain lists
(`exchange.recording`). Implementations must neither block nor raise: an exchange does not stop because nobody measures
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from exchange.bearer import TokenFault
from exchange.commands import PlaceOrder, Sequenced
from exchange.events import Happened
from exchange.journal import Record
from exchange.types import AccountId, ClientId, Symbol
from kernel.time import Instant


class Refusal(StrEnum):
    """Why the engine answered a request without giving it a place in the journal."""

    REPLAYED = "replayed"
    """The same request was answered before; it gets the same answer again."""
    IN_FLIGHT = "in_flight"
    """The same request waits for its sync right now."""
    MISMATCH = "mismatch"
    """The client id belongs to another request."""
    OVERLOADED = "overloaded"
    NOT_READY = "not_ready"
    HALTED = "halted"
    """The whole market stands still: an order would only be rejected."""
    JOURNAL_FAILED = "journal_failed"
    UNDECIDED = "undecided"
    """It was being written when the journal failed: nobody knows, until the journal is read again."""
    BAD_MESSAGE = "bad_message"


class DeadReason(StrEnum):
    """Why a message was put aside."""

    DAMAGED = "damaged"
    """It is none of ours, or its checksum does not fit."""
    SCHEMA = "schema"
    """It is whole, and of a version that this program does not read."""
    UNREADABLE = "unreadable"
    """It is whole, and what it holds is not what it should."""


class RequestOutcome(StrEnum):
    """How a gateway answered an order request."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REPLAYED = "replayed"
    MISMATCH = "mismatch"
    IN_FLIGHT = "in_flight"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    """The token is good, and not for this."""
    LIMITED = "limited"
    """The budget of its key or its account is used up."""
    SHED = "shed"
    HALTED = "halted"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    """Sent to the engine, no answer in time: look it up by client id."""


class SocketEnd(StrEnum):
    """Why a WebSocket of order entry ended."""

    CLOSED = "closed"
    """The client closed it, or its connection broke."""
    HEARTBEAT_MISSED = "heartbeat_missed"
    TOO_SLOW = "too_slow"
    """The client did not read what it was answered."""
    TOKEN_ENDED = "token_ended"  # noqa: S105 - no secret
    """Its token expired, or the token's key was taken out."""
    TAKEN_OVER = "taken_over"
    """The same bearer opened the session anew."""
    STOPPING = "stopping"
    """The gateway stops."""


class CopyEnd(StrEnum):
    """Why a copy of another region's journal cannot go on."""

    FENCED = "fenced"
    """An engine, or another mirror, writes to it."""
    MISMATCH = "mismatch"
    """What the other region has is damaged, lacks a record, or is another journal."""


class DisconnectCancel(StrEnum):
    """What became of an attempt to cancel the orders of a session that ended."""

    DONE = "done"
    RETRIED = "retried"
    """No answer, or not now: the same request is sent again."""
    REFUSED = "refused"
    """A rule forbids it, for good."""


class ReferenceAnswer(StrEnum):
    """What became of a request for reference data."""

    SENT = "sent"
    NOT_MODIFIED = "not_modified"
    """The asker named the tag of what there is (`If-None-Match`), and was sent nothing."""


class ClientOutcome(StrEnum):
    """How a request of the load generator ended, from the client's side."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    REFUSED = "refused"
    """Answered 503: never sequenced."""
    UNKNOWN = "unknown"
    """No answer, and none found by looking it up."""


class PostResult(StrEnum):
    """What became of an alert posted straight to Alertmanager."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class Alarm(StrEnum):
    """Conditions so grave that the watchdog does not wait for a rule; each has a rule with the same labels."""

    SEQUENCE_GAP = "SequenceGap"
    BOOK_CROSSED = "BookCrossed"
    JOURNAL_FAILED = "JournalFailed"


class Raised(NamedTuple):
    """An alarm as it is posted now."""

    alarm: Alarm
    symbol: Symbol | None
    """None when it concerns the whole exchange."""
    starts_at: Instant
    ends_at: Instant
    """Until when it stands unless it is posted again; not after now: it is over."""


class Alarms(Protocol):
    """Where alarms are posted: Alertmanager, in the end."""

    async def post(self, raised: Sequence[Raised]) -> PostResult:
        """Hand alarms over, and tell what became of it. Never raises for trouble on the other side."""
        ...


class Log(Protocol):
    """Structured log: one record for one unit of work."""

    def event(self, name: str, /, *, severity: str = "info", **fields: object) -> None:
        """Record that `name` happened, such as `engine-recovered`.

        `severity` is one of debug, info, warning, error, critical. Fields are JSON values in snake_case; instants are
        nanoseconds since the epoch.
        """
        ...


class Exposition(Protocol):
    """What a process answers on `/metrics`."""

    @property
    def content_type(self) -> str:
        """The media type of `render`."""
        ...

    def render(self) -> bytes:
        """Return every metric of this process as text."""
        ...

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return every metric and the media type, in the format that fits the `Accept` header best."""
        ...


class AnsweredOrder(NamedTuple):
    """Whose request a gateway answered."""

    account: AccountId
    client_id: ClientId
    symbol: Symbol | None
    """None for a cancel or a replacement, which name an order only."""
    trace: str = ""
    """The client's `traceparent`, when it sent one."""
    seq: int = 0
    """Its place in the journal; 0: none is known."""


RestingOrder = tuple[PlaceOrder, int, str, int | str | None]
"""A new order that rests as a whole: the command, its place in the journal, its `traceparent`, its correlation id."""
Resting = Sequence[RestingOrder]


class BookShape(NamedTuple):
    """A book as figures."""

    spread: int | None
    """Ticks; None without a bid and an offer."""
    bid_lots: int
    """At the five best levels."""
    ask_lots: int


class Journal(Protocol):
    """One writer's log of consecutive records: files (`FileLog`) or a Kafka partition (`KafkaLog`).

    `append` and `sync` may be called from two threads; several appends at once may not. After either failed nothing
    more is taken: what became of the last records is known only when the log is opened again.
    """

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def first_seq(self) -> int:
        """The oldest record that is still here, or the first there will be."""
        ...

    @property
    def last_seq(self) -> int:
        """The last record appended, durable or not; one less than the first when there is none."""
        ...

    @property
    def synced_seq(self) -> int:
        """The last record known to be durable."""
        ...

    @property
    def failed(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def append(self, payloads: Sequence[bytes]) -> int:
        """Write records without waiting until they are durable; return the number of the last.

        Raises:
            LogFailedError: it failed, now or before. Some of the records may be there when it is opened again.
        """
        ...

    def sync(self) -> int:
        """Wait until everything appended before this call is durable; return the last such number.

        Raises:
            LogFailedError: it failed, now or before.
        """
        ...

    def replay(self, from_seq: int = 1) -> Iterator[Record]:
        """Yield the records from `from_seq` on, in order and without a gap.

        Raises:
            PermanentError: a record is damaged, missing, or not ours; names the place.
        """
        ...

    def payloads(self, from_seq: int = 1) -> Iterator[list[bytes]]:
        """Yield what the records from `from_seq` on hold, many at a time, as a recovery reads them.

        Raises:
            PermanentError: as `replay`.
        """
        ...

    def close(self) -> None:
        """Give everything back. Does not sync."""
        ...


class EventTopic(Protocol):
    """Where an engine's events are published for others, one record a command, in the journal's order.

    One at a time calls it, on any thread but the engine's. A record may come there twice, and never too late: whoever
    reads leaves out numbers that it has had.
    """

    def begin(self) -> int:
        """Begin, now or anew after a failure; return the number of the last record that is there, 0 for none.

        Raises:
            TemporaryError: it does not answer.
        """
        ...

    def publish(self, first_seq: int, payloads: Sequence[bytes]) -> None:
        """Return when all of these records (`Kind.EVENTS`) are durable; they are numbered from `first_seq` on.

        Raises:
            TemporaryError: some are perhaps not; `begin` tells which.
        """
        ...

    def close(self) -> None:
        """Give everything back, also while another thread publishes: what it has not been told of is left."""
        ...


class EngineTelemetry(Protocol):
    """What the engine's process tells about itself."""

    def recovered(self, commands: int, seconds: float) -> None:
        """A start replayed `commands` commands in `seconds`."""
        ...

    def ready(self, *, ready: bool) -> None:
        """Commands are taken, or no longer taken."""
        ...

    def committed(
        self,
        batch: Sequence[Sequenced],
        happened: Sequence[Happened],
        *,
        apply_s: Sequence[float],
        sync_s: float,
        waited_s: Sequence[float] = (),
    ) -> None:
        """One group commit became durable.

        Its commands, all they caused, the seconds of matching each one, the seconds of the one sync, and how long each
        waited in the queue. The sequences are of one length and in the journal's order.
        """
        ...

    def refused(self, reason: Refusal, count: int = 1) -> None:
        """Requests were answered without a place in the journal."""
        ...

    def standing(
        self,
        *,
        queue_depth: int,
        subscribers: int,
        resting_orders: int,
        market_halted: bool,
        halted_symbols: Collection[Symbol],
    ) -> None:
        """How things stand after a commit, and once a second without one. Symbols not named are not halted."""
        ...

    def open_notional(self, ticks: int) -> None:
        """Once a second: price times quantity of all that rests in the books, in ticks times lots."""
        ...

    def storage(self, *, journal_bytes: int, disk_free_bytes: int, snapshot_at: Instant | None) -> None:
        """How the disk stands, every few seconds; `snapshot_at` is when the newest snapshot was taken, if one was."""
        ...

    def compacted(self, *, segments: int, size: int, first_seq: int) -> None:
        """So many segments with so many bytes left the journal; it now begins with record `first_seq`."""
        ...

    def compaction_failed(self) -> None:
        """The disk refused a compaction; it is not tried again before the next start."""
        ...

    def journal_failed(self, *, fenced: bool = False) -> None:
        """An append or a sync failed: the engine takes nothing more until it is started anew.

        `fenced`: because another engine has its partition, and started anew it would take it back.
        """
        ...

    def publishing(self, *, seq: int, behind: int) -> None:
        """Once a second: events are published up to command `seq`, and those of so many durable ones are not."""
        ...

    def publish_failed(self) -> None:
        """Publishing failed and is tried again."""
        ...


class GatewayTelemetry(Protocol):
    """What a gateway tells."""

    def answered(self, outcome: RequestOutcome, seconds: float, order: AnsweredOrder | None = None) -> None:
        """One order request was answered, `seconds` after it was read whole; `order` names it if it was understood."""
        ...

    def resting(self, seconds: float, orders: Resting) -> None:
        """New orders were answered together that rest as a whole: as `answered` of each, after the same time."""
        ...

    def in_flight(self, requests: int) -> None:
        """So many requests wait for the engine."""
        ...

    def capacity(self, per_second: float) -> None:
        """So many requests a second are admitted."""
        ...

    def sessions(self, connections: int) -> None:
        """So many client connections are open."""
        ...

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """The connection to the engine of a partition stands, or broke."""
        ...

    def token_refused(self, fault: TokenFault) -> None:
        """A request came with no token, or with one that is not taken."""
        ...

    def sockets(self, connections: int) -> None:
        """So many WebSockets of order entry are open."""
        ...

    def socket_ended(self, end: SocketEnd) -> None:
        """A WebSocket of order entry ended."""
        ...

    def disconnect_cancel(self, result: DisconnectCancel) -> None:
        """The cancels of a session that ended: one attempt for one account."""
        ...

    def reference_told(self, result: ReferenceAnswer) -> None:
        """Reference data was asked for: it was sent, or the asker has it as it is."""
        ...


class FeedTelemetry(Protocol):
    """What market data tells."""

    def published(self, seq: int, at: Instant, kinds: Mapping[str, int]) -> None:
        """Messages were published at `at`, counted by kind; the feed now stands at journal number `seq`."""
        ...

    def books(self, at: Instant, books: Mapping[Symbol, BookShape]) -> None:
        """Each symbol's book was confirmed as current at `at`."""
        ...

    def delayed(self, seconds: Sequence[float]) -> None:
        """What was published just now had its place in the journal so many seconds ago, command by command."""
        ...

    def traded(self, symbols: Mapping[Symbol, Instant]) -> None:
        """These symbols traded, each last at that instant."""
        ...

    def subscribers(self, connected: int) -> None:
        """So many feed subscribers are connected."""
        ...

    def slow_consumer(self) -> None:
        """A subscriber did not keep up and was cut off."""
        ...

    def engine_connected(self, *, connected: bool, partition: int = 0) -> None:
        """The event stream of a partition's engine stands, or broke."""
        ...


class SettlementTelemetry(Protocol):
    """What settlement tells."""

    def committed(self, seq: int, *, trades: int, duplicates: int, seconds: float) -> None:
        """One commit took the ledger to journal number `seq`."""
        ...

    def caught_up(self, seq: int) -> None:
        """Nothing up to `seq` is left to settle (its commands may have traded nothing)."""
        ...

    def imbalance(self, value: int) -> None:
        """The sum of all entries over all assets, absolute."""
        ...

    def lag(self, seconds: float) -> None:
        """The oldest trade that was read and is not posted is so old; 0 when there is none."""
        ...

    def reconciled(self, difference: int) -> None:
        """Trades read up to the sequence now posted, less those posted or met again, since the start."""
        ...

    def engine_connected(self, *, connected: bool) -> None:
        """The event stream stands, or broke."""
        ...


class ConsumerTelemetry(Protocol):
    """What a consumer of Kafka tells."""

    def connected(self, *, connected: bool) -> None:
        """Brokers answer, or none does."""
        ...

    def assigned(self, partitions: Collection[int]) -> None:
        """The group was divided anew, and these are this member's."""
        ...

    def lag(self, partition: int, *, records: int, committed: int) -> None:
        """So many records lie behind what was carried out, and so many behind what the group has committed."""
        ...

    def stopped(self, partition: int, *, stopped: bool) -> None:
        """A partition stands still until a person has decided, or no longer."""
        ...

    def dead_letter(self, reason: DeadReason) -> None:
        """A message was put aside."""
        ...


class WatchdogTelemetry(Protocol):
    """What the watchdog tells."""

    def checked(self, messages: int) -> None:
        """So many feed messages were checked."""
        ...

    def feed_connected(self, *, connected: bool) -> None:
        """The subscription to the feed stands, or broke."""
        ...

    def trade_through(self, symbol: Symbol, times: int) -> None:
        """So many trades of `symbol` were worse than the best quote published before them."""
        ...

    def gap_seen(self, symbol: Symbol) -> None:
        """A message of `symbol` is missing (counted once a gap)."""
        ...

    def gap(self, symbol: Symbol, *, standing: bool) -> None:
        """A gap of `symbol` stands, or is over. Told for each symbol at the start, so that 0 is there to be read."""
        ...

    def crossed(self, symbol: Symbol, *, standing: bool) -> None:
        """The book of `symbol` is crossed, or no longer. Told once for each symbol at the start."""
        ...

    def posted(self, result: PostResult) -> None:
        """An alert was posted straight to Alertmanager."""
        ...


class LoadTelemetry(Protocol):
    """What the load generator tells."""

    def answered(self, outcome: ClientOutcome, seconds: float, notional: int = 0) -> None:
        """One request ended, `seconds` after its intended send time.

        `notional` is in ticks times lots, 0 for others than priced orders.
        """
        ...
