"""What a process remembers of the orders it was told of, to build a span that it had left out at first.

Whether an order is slow, or fails, is known when it has gone its whole way; by then most processes have let it pass. So
each keeps the last orders it was told of as they are, without building anything, which costs an append. When a
`Verdict` comes, the order's spans are built from that; told of the order later, a process knows already. (The idea is
that of Zhang and others, "The Benefit of Hindsight", NSDI 2023.)

Memory is bounded by orders. A verdict on an order that may have been forgotten already is counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from kernel.time import Duration, Instant, seconds
from monitor.traces import Key, Look, Policy, Span, Verdict

REMEMBERED: Final = 32_768
"""Orders of each kind that a process remembers, some twenty megabytes: a minute and a half of an exchange with 350
orders a second, four seconds of one with 8,000."""
WANTED: Final = 8_192
"""Orders that are kept because somebody said so; the oldest goes first."""
WANTED_FOR: Final = seconds(120)
_SLACK: Final = seconds(1)
"""Clocks of processes on one machine agree better than this."""
_Told = TypeVar("_Told")
_Told_contra = TypeVar("_Told_contra", contravariant=True)


class Build(Protocol[_Told_contra]):
    """One of the functions of `monitor.traces` that yield spans."""

    def __call__(self, one: _Told_contra, look: Look, /) -> Iterator[Span]:
        """Yield the spans that are kept in this look."""
        ...


class Judged(NamedTuple):
    """What came of verdicts."""

    spans: list[Span]
    late: int
    """Verdicts on orders that may have been forgotten already."""


class Memory(Generic[_Told]):
    """The last orders of one kind; `told` and `judge` may come from two threads."""

    def __init__(
        self,
        build: Build[_Told],
        when: Callable[[_Told], Instant],
        size: Callable[[_Told], int],
        policy: Policy,
        capacity: int = REMEMBERED,
    ) -> None:
        """Remember what `build` makes spans of; `when` tells when it was told, `size` of how many orders it tells."""
        self._build = build
        self._when = when
        self._size = size
        self._capacity = capacity
        self._held = 0
        self._last: deque[_Told] = deque()
        self._forgotten: Instant | None = None
        """When the newest was told that is remembered no more."""
        self._look = Look(policy)
        self._wanted: dict[Key, Instant] = {}
        # Between the first look and the memory no verdict may fall: its order would be built twice, or never.
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many orders are remembered."""
        return self._held

    def told(self, one: _Told) -> Iterator[Span]:
        """Remember it; return the spans that are known to be kept now."""
        with self._lock:
            look = self._look
            self._last.append(one)
            self._held += self._size(one)
            while self._held > self._capacity:
                gone = self._last.popleft()
                self._held -= self._size(gone)
                self._forgotten = self._when(gone)
        return self._build(one, look)

    def judge(self, verdicts: Iterable[Verdict], now: Instant) -> Judged:
        """Return the spans that were left out of orders that are to be kept, and keep what comes of them from here."""
        fresh = {verdict.key: verdict for verdict in verdicts if verdict.key not in self._wanted}
        if not fresh:
            self._forget_wanted(now)
            return Judged([], 0)
        with self._lock:
            self._wanted |= dict.fromkeys(fresh, now)
            self._look = Look(self._look.policy, frozenset(self._wanted))
            last, forgotten = list(self._last), self._forgotten
        since = min(verdict.since for verdict in fresh.values()) - _SLACK
        look = Look(self._look.policy, frozenset(fresh), late=True)
        found: list[Span] = []
        for one in reversed(last):
            if self._when(one) < since:
                break
            found.extend(self._build(one, look))
        late = 0 if forgotten is None else sum(verdict.since <= forgotten for verdict in fresh.values())
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
                self._look = Look(self._look.policy, frozenset(stays))
