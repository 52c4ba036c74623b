"""What a process remembers of the orders it was told of, to build a span that it had left out at first.

Whether an order is slow, or fails, is known when it has gone its whole way; by then most processes have let it pass. So
each remembers the last orders it was told of without building anything. When a `Verdict` comes, the order's spans are
built from that; told of the order later, a process knows already. (The idea is that of Zhang and others, "The Benefit
of Hindsight", NSDI 2023.)

What is remembered is what there is anyway: the records of the journal and of the event log as they are, and of orders
that were answered together the values they were answered from. Only what has neither is made into bytes, some orders in
one piece: a third of the memory of its objects, and nothing for the collector to follow. Memory is bounded by orders; a
verdict on an order that may have been forgotten already is counted.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from exchange.journal import decode_command, decode_events
from exchange.tracing import Answered, Committed, Concluded, Handled, RestedTogether, Sent, Stepped
from kernel.time import Duration, Instant, seconds
from monitor.traces import (
    Key,
    Look,
    Policy,
    Span,
    Verdict,
    commit_spans,
    publish_spans,
    received_spans,
    request_spans,
    resting_spans,
    saga_spans,
    sent_spans,
    settle_spans,
    step_spans,
)

REMEMBERED: Final = 32_768
"""Orders of each kind that a process remembers, some twenty megabytes at most: a minute and a half of an exchange with
350 orders a second, four seconds of one with 8,000."""
WANTED: Final = 8_192
"""Orders that are kept because somebody said so; the oldest goes first."""
WANTED_FOR: Final = seconds(120)
_SLACK: Final = seconds(1)
"""Clocks of processes on one machine agree better than this."""
_Told = TypeVar("_Told")


class Kind(NamedTuple, Generic[_Told]):
    """What a memory has to know of one kind of telling."""

    spans: Callable[[_Told, Look], Iterator[Span]]
    """One of the functions of `monitor.traces`."""
    when: Callable[[_Told], int]
    """At which instant it was told."""
    size: Callable[[_Told], int]
    """Of how many orders it tells."""
    pack: Callable[[_Told], object]
    unpack: Callable[[Any], _Told]


class _PackedCommit(NamedTuple):
    """A commit without its objects. Its records stay as they are: made for the disk, they cost nothing here."""

    records: tuple[bytes, ...]
    told: tuple[bytes, ...]
    waited_s: array[float]
    apply_s: array[float]
    sync_s: float
    durable_at: Instant


def _pack_commit(one: Committed) -> _PackedCommit:
    return _PackedCommit(
        tuple(one.records), tuple(one.told), array("d", one.waited_s), array("d", one.apply_s), one.sync_s,
        one.durable_at,
    )  # fmt: skip


def _unpack_commit(kept: _PackedCommit) -> Committed:
    return Committed(
        [decode_command(record) for record in kept.records], [decode_events(one) for one in kept.told],
        kept.waited_s, kept.apply_s, kept.sync_s, kept.durable_at, kept.records, kept.told,
    )  # fmt: skip


def _as_it_is(one: RestedTogether) -> RestedTogether:
    return one


_PACK: Final = msgspec.msgpack.Encoder().encode
ANSWERED: Final[Kind[Sequence[Answered]]] = Kind(
    request_spans, lambda some: some[-1].answered_at, len, _PACK, msgspec.msgpack.Decoder(list[Answered]).decode
)
RESTED: Final[Kind[RestedTogether]] = Kind(
    resting_spans, lambda one: one.answered_at, lambda one: len(one.orders), _as_it_is, _as_it_is
)
COMMITTED: Final[Kind[Committed]] = Kind(
    commit_spans, lambda one: one.durable_at, lambda one: len(one.batch), _pack_commit, _unpack_commit
)
_UNPACK_HANDLED: Final = msgspec.msgpack.Decoder(Handled).decode
PUBLISHED, RECEIVED, SETTLED = (
    Kind[Handled](spans, lambda one: one.ended_at, lambda one: len(one.happened), _PACK, _UNPACK_HANDLED)
    for spans in (publish_spans, received_spans, settle_spans)
)
SENT: Final[Kind[Sent]] = Kind(
    sent_spans, lambda one: one.ended_at, lambda one: len(one.records), _PACK, msgspec.msgpack.Decoder(Sent).decode
)
STEPPED: Final[Kind[Sequence[Stepped]]] = Kind(
    step_spans, lambda some: some[-1].ended_at, len, _PACK, msgspec.msgpack.Decoder(list[Stepped]).decode
)
CONCLUDED: Final[Kind[Concluded]] = Kind(
    saga_spans, lambda one: one.ended_at, lambda _: 1, _PACK, msgspec.msgpack.Decoder(Concluded).decode
)


class Judged(NamedTuple):
    """What came of verdicts."""

    spans: list[Span]
    late: int
    """Verdicts on orders that may have been forgotten already."""


class _Packed(NamedTuple):
    told_at: int
    size: int
    data: object


class Memory(Generic[_Told]):
    """The last orders of one kind; `told` and `judge` may come from two threads."""

    def __init__(self, kind: Kind[_Told], policy: Policy, capacity: int = REMEMBERED) -> None:
        self._kind = kind
        self._capacity = capacity
        self._held = 0
        self._last: deque[_Packed] = deque()
        self._forgotten: int | None = None
        """When the newest was told that is remembered no more."""
        self._look = Look(policy)
        self._wanted: dict[Key, Instant] = {}
        self._whole: dict[str, Instant] = {}
        # Between the first look and the memory no verdict may fall: its order would be built twice, or never.
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many orders are remembered."""
        return self._held

    def told(self, one: _Told) -> Iterator[Span]:
        """Remember it; return the spans that are known to be kept now."""
        kind = self._kind
        packed = _Packed(kind.when(one), kind.size(one), kind.pack(one))
        with self._lock:
            look = self._look
            self._last.append(packed)
            self._held += packed.size
            while self._held > self._capacity:
                gone = self._last.popleft()
                self._held -= gone.size
                self._forgotten = gone.told_at
        return kind.spans(one, look)

    def judge(self, verdicts: Iterable[Verdict], now: Instant) -> Judged:
        """Return the spans that were left out of orders that are to be kept, and keep what comes of them from here."""
        fresh = [
            verdict
            for verdict in {verdict.key: verdict for verdict in verdicts}.values()
            if verdict.key not in self._wanted and verdict.trace_id not in self._whole
        ]
        if not fresh:
            self._forget_wanted(now)
            return Judged([], 0)
        keys = {key for verdict in fresh for key in (verdict.key, ("", verdict.trace_id))}
        whole = {verdict.trace_id for verdict in fresh if not verdict.client_id}
        look = Look(self._look.policy, keys, late=True, done=self._look.wanted, whole=whole)
        with self._lock:
            self._wanted |= dict.fromkeys(keys, now)
            self._whole |= dict.fromkeys(whole, now)
            self._look = Look(self._look.policy, frozenset(self._wanted), whole=frozenset(self._whole))
            last, forgotten = list(self._last), self._forgotten
        since = min(verdict.since for verdict in fresh) - _SLACK
        found: list[Span] = []
        for one in reversed(last):
            if one.told_at < since:
                break
            found.extend(self._kind.spans(self._kind.unpack(one.data), look))
        late = 0 if forgotten is None else sum(verdict.since <= forgotten for verdict in fresh)
        return Judged(found, late)

    def _forget_wanted(self, now: Instant) -> None:
        """Let go of verdicts that nobody will ask for: while there is one, each order is looked up."""
        old: Duration = WANTED_FOR
        stays = {key: at for key, at in self._wanted.items() if now - at < old}
        if len(stays) > WANTED:
            stays = dict(list(stays.items())[-WANTED:])
        if len(stays) < len(self._wanted):
            with self._lock:
                self._wanted = stays
                self._whole = {trace: at for trace, at in self._whole.items() if ("", trace) in stays}
                self._look = Look(self._look.policy, frozenset(stays), whole=frozenset(self._whole))
