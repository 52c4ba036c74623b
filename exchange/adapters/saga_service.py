"""A service of settlement as a process: what it is asked, or what it hears, into its book and out again.

A batch is one transaction; answers go out after it, and only then the batch is acknowledged. Whatever dies in between,
the batch comes again and is answered from memory.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Final

import msgspec

from exchange.adapters.saga_desk import (
    DeedRefusedError,
    MoveTold,
    SagaView,
    StepTold,
    UnknownSagaError,
    Wish,
    told,
)
from exchange.adapters.saga_forgetting import OPEN
from exchange.adapters.saga_part import STUCK_SHOWN, Around, SagaPart, SagasStatus, StuckSaga, readable
from exchange.adapters.saga_store import Reacted, SagaBook
from exchange.messaging import Delivery
from exchange.saga import AT, Answer, Ask, Carried, Deed, End, Verdict
from exchange.saga_choreography import Saying, Sayings, follows
from exchange.saga_messages import Forget, Style, answering, read_asked, read_heard, saying
from exchange.saga_ports import SagaTelemetry
from exchange.shards import partition_of_id
from exchange.tracing import Stepped
from exchange.types import TradeId
from kernel.errors import TemporaryError
from kernel.time import SECOND, Instant, to_seconds

TICK_S: Final = 0.05
"""How often it is looked what is to be said again."""
NO_END: Final = "no_end"
"""Why a saga counts as stuck without a coordinator: its end is not heard."""
UNKNOWN: Final = "unknown"
"""Whom such a saga waits for: nobody knows all that was said."""


class _Service(SagaPart):
    """What both styles of a service have."""

    def __init__(self, book: SagaBook, around: Around) -> None:
        super().__init__(around, book.service)
        self.part = book.service.value
        self._book: Final = book

    def _works(self) -> Sequence[Coroutine[object, object, None]]:
        return [self._inbox.run(self._handle), self._tidy_forever()]

    async def view(self, trade_id: TradeId) -> SagaView:
        """Return what this service did, moved and says of a saga.

        Raises:
            UnknownSagaError: nothing, or it is forgotten.
        """
        known = await self._call(lambda: self._book.known(trade_id))
        if known.forgotten:
            raise UnknownSagaError(f"the saga of trade {trade_id} ended and was forgotten by {self.part}")
        if not known.steps and known.saying is None and known.end is None:
            raise UnknownSagaError(f"{self.part} was not asked for anything of trade {trade_id}")
        steps = [StepTold(one.step.value, self.part, verdict=one.verdict.value, reason=one.reason.value)
                 for one in known.steps]  # fmt: skip
        view = SagaView(
            trade_id=trade_id, part=self.part, style=self.style, state="",
            steps=steps, moves=[MoveTold(*one) for one in known.moves],
        )  # fmt: skip
        return view if known.saying is None else with_saying(view, known.saying, *self._said(trade_id))

    def _said(self, trade_id: TradeId) -> tuple[int, Instant | None]:
        del trade_id
        return 0, None

    @abstractmethod
    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        """Carry out what came."""

    async def _tidy(self) -> None:
        await self._forget_all(self._book.sweep)

    async def _raise_horizon(self, told: Sequence[Ask | Answer | Forget]) -> dict[int, int]:
        """Note up to which trades nothing is to be remembered any more; return them by part."""
        horizons: dict[int, int] = {}
        for one in told:
            if isinstance(one, Forget):
                part = partition_of_id(one.up_to)
                horizons[part] = max(one.up_to, horizons.get(part, 0))
        for up_to in horizons.values():
            await self._until_done(partial(self._book.forget, TradeId(up_to)))
        return horizons

    async def _watch(self) -> None:
        self._telemetry.drift(await self._call(self._book.drift))

    def _tell(self, carried: Sequence[Carried], started: float) -> None:
        new = [one for one in carried if one.remembered]
        verdicts: Counter[Verdict] = Counter(one.answer.verdict for one in new)
        seconds = time.perf_counter() - started
        self._telemetry.carried_out(verdicts, repeats=len(carried) - len(new), seconds=seconds)
        if self._tracer is not None and new:
            ended_at = Instant(time.time_ns())
            began_at = Instant(ended_at - round(seconds * SECOND))
            self._tracer.stepped([_stepped(one.answer, began_at, ended_at) for one in new])


class AskedService(_Service):
    """A service that does what a coordinator asks."""

    style = Style.ORCHESTRATED.value

    async def status(self) -> SagasStatus:
        """Return how it stands; where sagas stand only the coordinator knows."""
        return SagasStatus(self.part, self.style, 0, {}, 0, [], drift=await self._call(self._book.drift))

    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """Refuse: a coordinator leads.

        Raises:
            DeedRefusedError: always.
        """
        del wish
        raise DeedRefusedError(f"{deed} of trade {trade_id}: {self.part} does what the coordinator asks; ask that one")

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        told, poison = readable(deliveries, read_asked)
        await self._raise_horizon(told)
        asks = [one for one in told if isinstance(one, Ask) and AT[one.step] is self._book.service]
        if asks:
            await self._dawdle()
            started = time.perf_counter()
            carried = await self._until_done(lambda: self._book.carry_out(asks))
            self._tell(carried, started)
            for answer in (one.answer for one in carried if one.answer.verdict is Verdict.FORGOTTEN):
                it = answer.instruction
                self._log.event(
                    "forgotten-saga-asked", severity="warning", trade_id=it.trade_id, step=answer.step.value
                )
            await self._publish([answering(one.answer) for one in carried])
        if poison is not None:
            raise poison


class ReactingService(_Service):
    """A service that reacts to what the others say, and says what it did until the end of a saga is heard."""

    style = Style.CHOREOGRAPHED.value

    def __init__(self, book: SagaBook, around: Around) -> None:
        """Nothing is read yet."""
        super().__init__(book, around)
        self._sayings = Sayings(self._times)
        self._stale = False
        """Whether a transaction failed in a way that leaves open what is kept."""

    async def status(self) -> SagasStatus:
        """Return what this service still says, and what of it for too long."""
        return sayings_status(
            SagasStatus(self.part, self.style, 0, {}, 0, [], drift=await self._call(self._book.drift)),
            self._sayings,
            self._clock.now(),
        )

    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """Say again what is said of a saga. Who begins sagas writes down who wanted it.

        Raises:
            DeedRefusedError: nothing is said of it here, or it is to be given up, which is not a service's to say.
        """
        if deed is Deed.COMPENSATE:
            raise DeedRefusedError(f"{deed} of trade {trade_id}: who begins sagas gives them up, not {self.part}")
        if not self._sayings.says(trade_id):
            raise DeedRefusedError(f"{deed} of trade {trade_id}: {self.part} says nothing of it (any more)")
        self._log.event("saga-retried", severity="warning", trade_id=trade_id, by=wish.by, why=wish.why)
        self._sayings.say_again(trade_id)
        await self._publish([saying(one) for one in self._sayings.due(self._clock.now(), [trade_id])])
        return await self.view(trade_id)

    def _said(self, trade_id: TradeId) -> tuple[int, Instant | None]:
        return self._sayings.said(trade_id)

    async def _begin(self) -> None:
        self._sayings = Sayings(self._times, await self._until_done(self._book.kept))

    def _works(self) -> Sequence[Coroutine[object, object, None]]:
        return [*super()._works(), self._say_again()]

    async def _watch(self) -> None:
        await super()._watch()
        tell_sayings(self._telemetry, self._sayings, self._clock.now())

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        told, poison = readable(deliveries, read_heard)
        self._sayings.drop(await self._raise_horizon(told))
        heard = [one for one in told if isinstance(one, Answer)]
        if heard:
            await self._dawdle()
            started, now = time.perf_counter(), self._clock.now()
            reacted = await self._until_done(lambda: self._book.react(heard, now), self._doubt)
            self._tell([one.carried for one in reacted if one.carried is not None], started)
            if self._stale:
                self._stale = False
                await self._begin()
            await self._publish([saying(answer) for answer in self._take_over(reacted, now)])
        if poison is not None:
            raise poison

    def _doubt(self) -> None:
        self._stale = True

    def _take_over(self, reacted: Sequence[Reacted], now: Instant) -> list[Answer]:
        """Follow what is durable; return what is to be said at once."""
        said, touched = [], []
        for one in reacted:
            answer = one.heard if one.carried is None else one.carried.answer
            trade_id = answer.instruction.trade_id
            if isinstance(follows(answer), End):
                self._sayings.hear(answer)
                self._sayings.forget(trade_id)
                if one.carried is not None:
                    said.append(one.end or answer)
            elif one.carried is not None and one.carried.remembered:
                self._sayings.keep(answer, now)
                touched.append(trade_id)
            elif one.carried is not None and one.end is not None:
                said.append(one.end)
        return said + self._sayings.due(now, touched)

    async def _say_again(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            due = self._sayings.due(self._clock.now())
            try:
                await self._publish([saying(answer) for answer in due])
            except TemporaryError:
                continue  # it was logged, and what is kept is said again


def _stepped(answer: Answer, began_at: Instant, ended_at: Instant) -> Stepped:
    it = answer.instruction
    return Stepped(it.trade_id, answer.step, answer.verdict, it.trace, began_at, ended_at)


def awaited(said: Saying) -> str:
    """Return the service that what is said waits for, as far as who says it knows."""
    after = follows(said.answer)
    return AT[after.step].value if isinstance(after, Ask) else ""


def with_saying(view: SagaView, kept: Saying, times: int, at: Instant | None) -> SagaView:
    """Return a view with what its part says of the saga, how often, and when last."""
    answer = kept.answer
    return msgspec.structs.replace(
        view, state=OPEN, step=f"{answer.step}.{answer.verdict}", waits_for=awaited(kept), since=told(kept.since),
        asked=times, asked_last=told(at), instruction=answer.instruction,
    )  # fmt: skip


def sayings_status(blank: SagasStatus, sayings: Sayings, now: Instant) -> SagasStatus:
    """Return how a party without a coordinator stands."""
    kept = sayings.kept
    stuck = sayings.stuck(now)
    steps = Counter(f"{one.answer.step}.{one.answer.verdict}" for one in kept.values())
    shown = [
        StuckSaga(int(trade_id), step.value, awaited(kept[trade_id]), NO_END, to_seconds(ago))
        for trade_id, step, ago in stuck[:STUCK_SHOWN]
    ]
    return SagasStatus(blank.part, blank.style, len(kept), dict(steps), len(stuck), shown, blank.states, blank.drift)


def tell_sayings(telemetry: SagaTelemetry, sayings: Sayings, now: Instant) -> None:
    """Tell how many sagas a party speaks of, how old the oldest is, and of how many no end is heard for too long."""
    since = [one.since for one in sayings.kept.values()]
    stuck = len(sayings.stuck(now))
    oldest = max(0.0, to_seconds(now - min(since))) if since else 0.0
    telemetry.standing(len(since), oldest=oldest, stuck={(UNKNOWN, NO_END): stuck} if stuck else {})
