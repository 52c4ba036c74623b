"""Spans on their way to a trace store, sent from a thread: a slow or dead store costs spans, never orders.

Which store it is, a `Sender` knows: `otlp` for whatever takes OpenTelemetry's protocol, `zipkin` for Zipkin.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests

from exchange.tracing import Answered, Committed, Concluded, Handled, RestedTogether, Sent, Stepped
from kernel.errors import InputError
from kernel.time import Instant
from monitor.adapters.verdict_files import Verdicts
from monitor.hindsight import (
    ANSWERED,
    COMMITTED,
    CONCLUDED,
    PUBLISHED,
    RECEIVED,
    REMEMBERED,
    RESTED,
    SENT,
    SETTLED,
    STEPPED,
    Memory,
)
from monitor.traces import Kept, Policy, Span, Verdict, built

CAPACITY: Final = 8_192
"""Spans that may wait, about ten megabytes; what comes on top is counted as dropped."""
TIMEOUT_S: Final = 5.0
TURN_S: Final = 0.5
"""How often verdicts are said and heard."""
SAID_TOGETHER: Final = 512
"""Verdicts of one turn: when everything is slow, two thousand orders a second are kept whole and the rest in part."""
_TOGETHER: Final = 64
_BUILT_AT_ONCE: Final = 256
"""Orders that wait for their spans: when everything is slow, the loop builds them itself, as it would fall behind."""
_IN_ONE_GO: Final = 16
_BATCH: Final = 512
_IDLE_S: Final = 1.0
"""How long spans wait for more: a request costs as much as fifty spans in it."""
Told = Callable[[str, int], None]
"""Told what became of how many spans: exported, dropped, failed or late. Called from any thread."""


class Sender(Protocol):
    """Brings spans to one store."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Send finished spans once, within `TIMEOUT_S`; tell whether the store took them. Never raises."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


def address(setting: str, url: str, path: str, *, example: str) -> str:
    """Return where to post: `url` with `path` behind it, unless it ends so already.

    Raises:
        InputError: `url` is no address of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(setting, f"{url!r} is no address", right=f"give one such as {example}")
    return url.rstrip("/") + ("" if parts.path.endswith(path) else path)


def session() -> requests.Session:
    """Return a session that goes straight to its address; a proxy of the surroundings would be asked for loopback."""
    made = requests.Session()
    made.trust_env = False
    return made


class SpanQueue:
    """Spans on their way to one trace store."""

    def __init__(self, sender: Sender, told: Told, *, capacity: int = CAPACITY) -> None:
        self._sender = sender
        self._told = told
        self._capacity = capacity
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def offer(self, spans: Iterable[Span]) -> None:
        """Take finished spans. Never blocks; what finds no room is dropped and counted."""
        dropped = 0
        for span in spans:
            if len(self._waiting) >= self._capacity:
                dropped += 1
            else:
                self._waiting.append(span)
        if dropped:
            self._told("dropped", dropped)
        if len(self._waiting) >= _BATCH:
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._sender.close()

    def _run(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            while batch := [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]:
                self._told("exported" if self._sender.send(batch) else "failed", len(batch))
            if self._stop:
                return


class SpanTracer:
    """`exchange.tracing.Tracer` that builds the spans of the orders that are kept and sends them to every store.

    A thread tells the other processes of orders that are kept for what was seen here, and hears of theirs.
    """

    def __init__(
        self, queues: Sequence[SpanQueue], policy: Policy, verdicts: Verdicts, told: Told, *, capacity: int = REMEMBERED
    ) -> None:
        self._queues = tuple(queues)
        self._verdicts = verdicts
        self._told = told
        self._answered = Memory(ANSWERED, policy, capacity)
        self._rested = Memory(RESTED, policy, capacity)
        self._committed = Memory(COMMITTED, policy, capacity)
        self._published, self._settled = Memory(PUBLISHED, policy, capacity), Memory(SETTLED, policy, capacity)
        self._sent, self._received = Memory(SENT, policy, capacity), Memory(RECEIVED, policy, capacity)
        self._stepped = Memory(STEPPED, policy, capacity)
        self._concluded = Memory(CONCLUDED, policy, capacity)
        self._memories: tuple[Memory[Any], ...] = (
            self._answered, self._rested, self._committed, self._published, self._settled, self._sent, self._received,
            self._stepped, self._concluded,
        )  # fmt: skip
        self._fresh: list[Answered] = []
        """Requests are looked at some together, and small commits: one by one costs twice as much."""
        self._commits: list[Committed] = []
        self._commands = 0
        """How many `_commits` have, about: only for when to look at them."""
        self._kept: deque[Kept] = deque()
        self._taking = threading.Lock()
        self._unsaid: deque[Verdict] = deque()
        self._no_room = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Tell the others and hear them from now on, from a thread."""
        self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)
        self._thread.start()

    def answered(self, one: Answered) -> None:
        """See `Tracer`."""
        fresh = self._fresh
        fresh.append(one)
        if len(fresh) >= _TOGETHER:
            self._look_at_fresh()

    def rested(self, one: RestedTogether) -> None:
        """See `Tracer`."""
        self._note(self._rested.told(one))

    def committed(self, one: Committed) -> None:
        """See `Tracer`."""
        self._commits.append(one)
        self._commands += len(one.batch)
        if self._commands >= _TOGETHER:
            self._look_at_commits()

    def published(self, one: Handled) -> None:
        """See `Tracer`."""
        self._note(self._published.told(one))

    def sent(self, one: Sent) -> None:
        """See `Tracer`."""
        self._note(self._sent.told(one))

    def received(self, one: Handled) -> None:
        """See `Tracer`."""
        self._note(self._received.told(one))

    def stepped(self, some: Sequence[Stepped]) -> None:
        """See `Tracer`."""
        if some:
            self._note(self._stepped.told(some))

    def concluded(self, one: Concluded) -> None:
        """See `Tracer`."""
        self._note(self._concluded.told(one))

    def settled(self, one: Handled) -> None:
        """See `Tracer`."""
        self._note(self._settled.told(one))

    def close(self, timeout_s: float = 2.0) -> None:
        """Say and hear what is left; the queues are closed afterwards."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def judge(self) -> None:
        """Tell the others, hear them, and send what had been left out. One turn of the thread."""
        self._look_at_fresh()
        self._look_at_commits()
        self._build()
        mine = [self._unsaid.popleft() for _ in range(len(self._unsaid))]
        if self._no_room:
            lost, self._no_room = self._no_room, 0
            self._told("late", lost)
        self._verdicts.say(mine)
        heard = mine + self._verdicts.hear()
        now = Instant(time.time_ns())
        for memory in self._memories:
            spans, late = memory.judge(heard, now)
            if late:
                self._told("late", late)
            self._send(spans)

    def _look_at_fresh(self) -> None:
        # The loop and the thread may both come here. What the loop appends meanwhile stands behind what is taken.
        with self._taking:
            some = self._fresh[:]
            del self._fresh[: len(some)]
        if some:
            self._note(self._answered.told(some))

    def _look_at_commits(self) -> None:
        with self._taking:
            some = self._commits[:]
            del self._commits[: len(some)]
            self._commands = 0  # a commit that the loop appends right now waits a little longer for the next
        if some:
            self._note(self._committed.told(some))

    def _note(self, kept: Sequence[Kept]) -> None:
        """Build what is kept later: many together cost a fraction of one now and then, with all else in the cache."""
        if kept:
            self._kept.extend(kept)
            if len(self._kept) >= _BUILT_AT_ONCE:
                self._build()

    def _build(self) -> None:
        """Build what is kept up to now."""
        take = self._kept.popleft
        with self._taking:
            some = [take() for _ in range(len(self._kept))]
        for first in range(0, len(some), _IN_ONE_GO):
            self._offer(built(some[first : first + _IN_ONE_GO]))
            if threading.current_thread() is self._thread:
                time.sleep(0)  # orders go first

    def _run(self) -> None:
        while not self._stop.wait(TURN_S):
            self.judge()
        self.judge()

    def _offer(self, spans: Iterable[Span]) -> None:
        built = tuple(spans)
        if not built:
            return
        for span in built:
            if span.verdict is not None:
                if len(self._unsaid) < SAID_TOGETHER:
                    self._unsaid.append(span.verdict)
                else:
                    self._no_room += 1
        self._send(built)

    def _send(self, spans: Sequence[Span]) -> None:
        for queue in self._queues:
            queue.offer(spans)
