"""The bridge at work: takes pages in durably, sends what is due, follows receipts, hands on what does not land.

Rule 1: a webhook is answered well only when its pages are on disk.
Rule 2: a try is on disk before anything leaves; without a written answer it is doubtful: looked for, or repeated.
Rule 3: what ends badly is handed on in the same commit, so that no crash falls between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

from control.bridge_config import BridgeConfig
from control.bridge_telemetry import BridgeInstruments
from exchange.ports import Log
from incidents.adapters.page_outbox import PageOutbox
from incidents.adapters.pager_http import DoubtfulError, NotSentError, PagerHttp
from incidents.paging.answers import Answer, AnswerKind, HttpRequest, Receipt, busy, doubtful, refused
from incidents.paging.channel import Channel, Found, Order, ReceiptBy
from incidents.paging.channels import CHANNELS
from incidents.paging.outbox import (
    Answered,
    Delivery,
    Do,
    Ended,
    Escalated,
    Note,
    Phase,
    Taken,
    Told,
    Tried,
    apply,
    due,
    escalates,
)
from incidents.paging.page import Page
from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import HOUR, Clock, Duration, Instant

P = ParamSpec("P")
T = TypeVar("T")

TICK_S: Final = 0.1
"""While anything is unfinished, so often is it looked at."""
LOOK_SHARE: Final = 5.0
"""A pause is so many times as long as the look before it, at least."""
IDLE_S: Final = 5.0
AT_ONCE_MAX: Final = 4
"""Requests under way on one channel: fewer than any provider's limit of requests a second."""
KEPT: Final = Duration(30 * 24 * HOUR)
"""What is over is forgotten after a month."""
STOP_S: Final = 3.0
STORE_AGAIN_S: Final = 1.0


class OutboxThread:
    """The outbox in a thread of its own: one writer, and the event loop never waits for a disk."""

    def __init__(self, outbox: PageOutbox) -> None:
        """Own `outbox`; nobody else may use it afterwards."""
        self._outbox = outbox
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")

    async def call(self, method: Callable[Concatenate[PageOutbox, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `method(outbox, …)` in the outbox's thread, after everything asked before."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: method(self._outbox, *args, **kwargs)
        )

    async def close(self) -> None:
        """Finish what was asked, then close the outbox."""
        await self.call(PageOutbox.close)
        self._thread.shutdown(wait=True)


@dataclass(frozen=True)
class BridgeParts:
    """What the bridge works with."""

    config: BridgeConfig
    outbox: OutboxThread
    http: PagerHttp
    telemetry: BridgeInstruments
    log: Log
    clock: Clock
    lost: Callable[[Delivery], None]
    """Called when a page ended badly for good."""


class Bridge:
    """Every unfinished delivery, and the work on it."""

    def __init__(self, parts: BridgeParts) -> None:
        """Work with `parts`; call `load` before anything else."""
        self._parts = parts
        self._open: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._polls: dict[str, int] = {}
        self._paused: dict[str, Instant] = {}
        self._wake = asyncio.Event()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the outbox has been read."""
        return self._ready

    async def load(self) -> None:
        """Take up what an earlier process left unfinished."""
        for one in await self._parts.outbox.call(PageOutbox.unfinished):
            self._open[one.id] = one
        await self._parts.outbox.call(PageOutbox.forget, Instant(self._parts.clock.now() - KEPT))
        self._ready = True

    async def take(self, page: Page, channel: str, to: str = "") -> list[str]:
        """Return the ids of the new deliveries once they are durable; none when they were known.

        Raises:
            TemporaryError: nothing was kept; the sender must come back.
        """
        people = [to] if to else list(self._parts.config.recipients(channel, page.team))
        wanted = [Taken(page.received_at, "", channel, person, page) for person in people]
        new = await self._parts.outbox.call(PageOutbox.take, wanted)
        self._adopt(new)
        return [one.id for one in new]

    def _adopt(self, new: Sequence[Delivery]) -> None:
        for one in new:
            self._open[one.id] = one
            self._parts.log.event(
                "page-taken", delivery=one.id, channel=one.channel, alert=one.page.shown[0].name, parent=one.parent
            )
        self._wake.set()

    async def told(self, delivery: str, receipt: Receipt) -> None:
        """Note what a provider's callback told of a delivery.

        Raises:
            TemporaryError: it was not kept; the provider may come back.
        """
        known = self._open.get(delivery) or await self._parts.outbox.call(PageOutbox.get, delivery)
        if known is not None:
            await self._note(known, [Told(self._parts.clock.now(), receipt)])

    async def run(self) -> None:
        """Do what is due, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            self._turn()
            # Thousands of waiting pages make a turn long: looking at them shall not fill the processor.
            pause_s = max(TICK_S, LOOK_SHARE * (loop.time() - began_s)) if self._open else IDLE_S
            with contextlib.suppress(TimeoutError):  # not wait_for: Python 3.11's may swallow the end of this task
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()

    async def stop(self) -> None:
        """Let the requests under way end, for a moment; those that do not are doubtful at the next start."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=STOP_S)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _turn(self) -> None:
        now = self._parts.clock.now()
        under_way = Counter(self._open[each].channel for each in self._tasks)
        lanes: set[tuple[str, str, str]] = set()
        for one in list(self._open.values()):
            if one.over and one.id not in self._tasks:  # by a callback
                self._done(one.id)
                continue
            unsent = one.phase in {Phase.WAITING, Phase.TRYING}
            behind = unsent and one.lane in lanes
            if unsent:
                lanes.add(one.lane)
            if one.id in self._tasks:
                continue
            do = self._due(one, now)
            held = behind or under_way[one.channel] >= AT_ONCE_MAX or now < self._paused.get(one.channel, now)
            if do in {Do.SEND, Do.LOOK_THEN_SEND} and held:
                do = Do.NOTHING
            if do is not Do.NOTHING or self._next_channel(one, now):
                under_way[one.channel] += 1
                self._begin(one, do)
        receipt_s = {name: bound.receipt_s for name, bound in self._parts.config.channels.items()}
        self._parts.telemetry.standing(self._open.values(), receipt_s, now)

    def _due(self, one: Delivery, now: Instant) -> Do:
        if one.channel not in self._parts.config.channels:
            return Do.GIVE_UP if one.phase in {Phase.WAITING, Phase.TRYING} else Do.LEAVE_UNCONFIRMED
        channel = CHANNELS[one.channel]
        polls = channel.receipt_by is not ReceiptBy.NOTHING and bool(one.ref)
        polled = self._polls.get(one.id, 0)
        return due(one, self._parts.config.policy, now, looks=channel.looks, polls=polls, polled=polled)

    def _begin(self, one: Delivery, do: Do) -> None:
        task = asyncio.create_task(self._work(one, do), name=f"page-{one.id}")
        self._tasks[one.id] = task
        task.add_done_callback(lambda _: self._done(one.id))

    def _done(self, delivery: str) -> None:
        self._tasks.pop(delivery, None)
        if delivery in self._open and self._open[delivery].over:
            del self._open[delivery]
            self._polls.pop(delivery, None)
        self._wake.set()

    async def _work(self, one: Delivery, do: Do) -> None:
        """Do what is due for one delivery; an error of the disk leaves everything as it was."""
        try:
            await self._carry_out(one, do)
        except TapewatchError as error:
            self._parts.log.event("page-not-noted", severity="error", delivery=one.id, message=str(error))
            await asyncio.sleep(STORE_AGAIN_S)
        except Exception as error:  # noqa: BLE001 - a page that a fault of ours cannot send is lost, and must be told of
            reason = f"the bridge itself failed: {type(error).__name__}"
            self._parts.log.event("bridge-fault", severity="critical", delivery=one.id, message=f"{reason}: {error}")
            with contextlib.suppress(TapewatchError):
                await self._note(one, [Ended(self._parts.clock.now(), Phase.FAILED, reason)])
            await asyncio.sleep(STORE_AGAIN_S)

    async def _carry_out(self, one: Delivery, do: Do) -> None:
        now = self._parts.clock.now()
        match do:
            case Do.SEND | Do.LOOK_THEN_SEND:
                await self._send(one, look=do is Do.LOOK_THEN_SEND)
            case Do.POLL:
                await self._poll(one)
            case Do.GIVE_UP:
                reason = f"given up after {one.tries} tries: {one.reason or 'no answer'}"
                await self._note(one, [Ended(now, Phase.FAILED, reason)])
            case Do.LEAVE_UNCONFIRMED:
                await self._note(one, [Ended(now, Phase.UNCONFIRMED, "accepted, and no receipt came")])
            case Do.NOTHING:
                await self._note(one, [])

    async def _send(self, one: Delivery, *, look: bool) -> None:
        channel, clock = CHANNELS[one.channel], self._parts.clock
        if look:
            found = await self._look(one, channel)
            if isinstance(found, Answer):
                await self._answered(one, found)
                return
            if found is not None and found.there:
                await self._answered(one, Answer(AnswerKind.ACCEPTED, "found there after a doubtful try", found.ref))
                return
        one = await self._note(one, [Tried(clock.now())])
        answer = await self._try(one, channel)
        self._parts.telemetry.attempt(one.channel, answer.kind)
        await self._answered(one, answer)

    async def _look(self, one: Delivery, channel: Channel) -> Found | Answer | None:
        """Look whether a doubtful page has arrived; an answer when even that could not be asked now."""
        order = self._order(one)
        request = channel.look(order, self._parts.config.channels[one.channel].target)
        if request is None:
            return None
        try:
            answer = await self._parts.http.call(request, channel.hosts)
        except TemporaryError as error:
            return busy(f"could not look: {error}")
        except PermanentError:
            return None
        if answer.status == 429 or answer.status >= 500:  # noqa: PLR2004 - HTTP's own numbers
            return busy(f"could not look: {answer.status}")
        return channel.found(order, answer)

    async def _try(self, one: Delivery, channel: Channel) -> Answer:
        bound = self._parts.config.channels[one.channel]
        request: HttpRequest = channel.send(self._order(one), bound.target)
        try:
            answer = await self._parts.http.call(request, channel.hosts)
        except NotSentError as error:
            return busy(self._redacted(str(error)))
        except DoubtfulError as error:
            return doubtful(self._redacted(str(error)))
        except PermanentError as error:
            return refused(self._redacted(str(error)))
        meaning = channel.read(answer, self._parts.clock.now())
        return Answer(meaning.kind, self._redacted(meaning.reason), meaning.ref, meaning.wait_s)

    def _order(self, one: Delivery) -> Order:
        public = self._parts.config.public_url
        callback = f"{public}/v1/receipts/twilio/{one.id}" if public else ""
        return Order(one.id, one.page, one.to, callback, one.first_try_at or self._parts.clock.now())

    async def _answered(self, one: Delivery, answer: Answer) -> None:
        now = self._parts.clock.now()
        receipt_due = CHANNELS[one.channel].receipt_by is not ReceiptBy.NOTHING
        retry_at = None
        if answer.kind in {AnswerKind.BUSY, AnswerKind.DOUBTFUL}:
            retry_at = Instant(now + self._parts.config.policy.wait(one.id, max(1, one.tries), answer.wait_s))
        if answer.wait_s is not None and retry_at is not None:
            self._paused[one.channel] = retry_at
        # What came in meanwhile (a receipt before the answer) is kept: the newest state is noted on.
        one = self._open.get(one.id, one)
        while True:
            try:
                await self._note(one, [Answered(now, answer, receipt_due, retry_at)])
                return
            except TemporaryError as error:  # the answer is known only here: losing it would send the page again
                self._parts.log.event("page-not-noted", severity="error", delivery=one.id, message=str(error))
                await asyncio.sleep(STORE_AGAIN_S)

    async def _poll(self, one: Delivery) -> None:
        channel = CHANNELS[one.channel]
        self._polls[one.id] = self._polls.get(one.id, 0) + 1
        request = channel.poll(one.ref, self._parts.config.channels[one.channel].target)
        if request is None:
            return
        try:
            answer = await self._parts.http.call(request, channel.hosts)
        except TapewatchError as error:
            self._parts.log.event("receipt-not-asked", severity="warning", delivery=one.id, message=str(error))
            return
        receipt = channel.receipt(answer)
        one = self._open.get(one.id, one)
        await self._note(one, [Told(self._parts.clock.now(), receipt)])

    async def _note(self, one: Delivery, notes: Sequence[Note]) -> Delivery:
        """Keep notes, and hand the page on in the same commit when it has to go to the next channel."""
        now, was_over = self._parts.clock.now(), one.over
        after = one
        for note in notes:
            after = apply(after, note)
        following: list[Taken] = []
        onward = self._next_channel(after, now)
        if onward:
            notes = [*notes, Escalated(now, onward)]
            people = self._parts.config.recipients(onward, after.page.team)
            following = [Taken(now, "", onward, person, after.page, after.id) for person in people]
        if not notes or (after == one and not onward):
            return one
        noted, new = await self._parts.outbox.call(PageOutbox.note, one, notes, following)
        if one.id in self._open:
            self._open[one.id] = noted
        self._say(noted, now, was_over=was_over, onward=onward)
        self._adopt(new)
        return noted

    def _next_channel(self, one: Delivery, now: Instant) -> str:
        """Return the channel that a page has to go to as well; empty: none."""
        onward = self._parts.config.escalation.get(one.channel, "")
        return onward if onward and escalates(one, self._parts.config.policy, now) else ""

    def _say(self, one: Delivery, now: Instant, *, was_over: bool, onward: str) -> None:
        if onward:
            self._parts.telemetry.escalated(one.channel)
            self._parts.log.event(
                "page-escalated", severity="warning", delivery=one.id, channel=one.channel, to_channel=onward
            )
        if not one.over or was_over:
            return
        self._parts.telemetry.ended(one, now)
        lost = one.phase in {Phase.FAILED, Phase.UNCONFIRMED}
        self._parts.log.event(
            f"page-{one.phase}", severity="error" if lost else "info", delivery=one.id, channel=one.channel,
            tries=one.tries, message=one.reason,
        )  # fmt: skip
        if lost and not one.page.test:
            self._parts.lost(one)

    def _redacted(self, text: str) -> str:
        for secret in self._parts.config.secrets:
            text = text.replace(secret, "(secret)")
        return text
