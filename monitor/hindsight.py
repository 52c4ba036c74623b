"""What a process remembers of the orders it was told of, to build a span that it had left out at first.

Whether an order is slow, or fails, is known when it has gone its whole way; by then most processes have let it pass. So
each remembers the last orders it was told of without building anything. When a `Verdict` comes, the order's spans are
built from that; told of the order later, a process knows already. (The idea is that of Zhang and others, "The Benefit
of Hindsight", NSDI 2023.)

What is remembered is what there is anyway: the records of the journal and of the event log, and of orders that were
answered together the values they were answered from. Only what has neither is made into bytes, some orders in one
piece: a third of the memory of its objects, and nothing for the collector to follow. Memory is bounded by orders; a
verdict on an order that may have been forgotten already is counted.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from exchange.commands import Sequenced
from exchange.journal import decode_events
from exchange.tracing import Answered, Committed, Concluded, Handled, RestedTogether, Sent, Stepped
from kernel.time import Duration, Instant, seconds
from monitor.traces import (
    Kept,
    Key,
    Look,
    Policy,
    Span,
    Verdict,
    built,
    kept_of_commits,
    kept_requests,
    kept_resting,
    publish_spans,
    received_spans,
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

    kept: Callable[[_Told, Look], Sequence[Kept]]
    """What of it is kept in a look."""
    when: Callable[[_Told], int]
    """At which instant it was told."""
    size: Callable[[_Told], int]
    """Of how many orders it tells."""
    pack: Callable[[_Told], object]
    unpack: Callable[[Any], _Told]


class _PackedCommits(NamedTuple):
    """Commits without their objects: those of some together, laid one behind the other.

    The records of the journal become one piece. Those of the event log stay as they are, for whoever reads the engine's
    stream has them, too.
    """

    commands: bytes
    """Their records behind each other, as a list in MessagePack."""
    told: tuple[bytes, ...]
    waited_s: array[float]
    apply_s: array[float]
    each: tuple[tuple[int, float, Instant], ...]
    """Of each commit: how many commands, the seconds of its sync, when it was durable."""


_ARRAY32: Final = struct.Struct(">BI")
_UNPACK_COMMANDS: Final = msgspec.msgpack.Decoder(list[Sequenced]).decode


def _pack_commits(some: Sequence[Committed]) -> _PackedCommits:
    records: list[bytes] = [b""]
    told: list[bytes] = []
    waited_s: list[float] = []
    apply_s: list[float] = []
    for one in some:
        records += one.records
        told += one.told
        waited_s += one.waited_s
        apply_s += one.apply_s
    records[0] = _ARRAY32.pack(0xDD, len(records) - 1)
    return _PackedCommits(
        b"".join(records), tuple(told), array("d", waited_s), array("d", apply_s),
        tuple([(len(one.batch), one.sync_s, one.durable_at) for one in some]),
    )  # fmt: skip


def _unpack_commits(kept: _PackedCommits) -> list[Committed]:
    batch, some, end = _UNPACK_COMMANDS(kept.commands), [], 0
    for size, sync_s, durable_at in kept.each:
        begin, end = end, end + size
        told = kept.told[begin:end]
        some.append(
            Committed(
                batch[begin:end], [decode_events(one) for one in told], kept.waited_s[begin:end],
                kept.apply_s[begin:end], sync_s, durable_at, (), told,
            )
        )  # fmt: skip
    return some


def _as_it_is(one: RestedTogether) -> RestedTogether:
    return one


def _at_once(spans: Callable[[_Told, Look], Iterator[Span]]) -> Callable[[_Told, Look], Sequence[Kept]]:
    """Return what builds the spans while it decides: where few pass, that costs nobody anything."""

    def kept(one: _Told, look: Look) -> Sequence[Kept]:
        found = tuple(spans(one, look))
        return (lambda: found,) if found else ()

    return kept


_PACK: Final = msgspec.msgpack.Encoder().encode
ANSWERED: Final[Kind[Sequence[Answered]]] = Kind(
    kept_requests, lambda some: some[-1].answered_at, len, _PACK, msgspec.msgpack.Decoder(list[Answered]).decode
)
RESTED: Final[Kind[RestedTogether]] = Kind(
    kept_resting, lambda one: one.answered_at, lambda one: len(one.orders), _as_it_is, _as_it_is
)
COMMITTED: Final[Kind[Sequence[Committed]]] = Kind(
    kept_of_commits, lambda some: some[-1].durable_at, lambda some: sum([len(one.batch) for one in some]),
    _pack_commits, _unpack_commits,
)  # fmt: skip
_UNPACK_HANDLED: Final = msgspec.msgpack.Decoder(Handled).decode
PUBLISHED, RECEIVED, SETTLED = (
    Kind[Handled](
        _at_once(spans), lambda one: one.ended_at, lambda one: len(one.happened), _PACK, _UNPACK_HANDLED
    )
    for spans in (publish_spans, received_spans, settle_spans)
)  # fmt: skip
SENT: Final[Kind[Sent]] = Kind(
    _at_once(sent_spans), lambda one: one.ended_at, lambda one: len(one.records), _PACK,
    msgspec.msgpack.Decoder(Sent).decode,
)  # fmt: skip
STEPPED: Final[Kind[Sequence[Stepped]]] = Kind(
    _at_once(step_spans), lambda some: some[-1].ended_at, len, _PACK, msgspec.msgpack.Decoder(list[Stepped]).decode
)
CONCLUDED: Final[Kind[Concluded]] = Kind(
    _at_once(saga_spans), lambda one: one.ended_at, lambda _: 1, _PACK, msgspec.msgpack.Decoder(Concluded).decode
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

    def told(self, one: _Told) -> Sequence[Kept]:
        """Remember it; return what is known to be kept now."""
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
        return kind.kept(one, look)

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
            found.extend(built(self._kind.kept(self._kind.unpack(one.data), look)))
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
