"""Who begins sagas as a process: the coordinator, or where the services follow each other the reader of the trades.

Trades become sagas, once each, in the transaction that notes how far was read. Every entry is in the journal before it
counts, and every answer is acknowledged after its entry is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Final

import msgspec

from exchange.adapters.saga_desk import (
    DeedRefusedError,
    DeedTold,
    SagaView,
    UnknownSagaError,
    Wish,
    steps_of,
    told,
)
from exchange.adapters.saga_journal import History, Note, Place, SagaJournal, Trade
from exchange.adapters.saga_part import STUCK_SHOWN, Around, SagaPart, SagasStatus, StuckSaga, readable
from exchange.adapters.saga_service import NO_END, TICK_S, sayings_status, tell_sayings, with_saying
from exchange.adapters.saga_store import Said
from exchange.adapters.trade_source import Stretch, TradeSource, trades_of
from exchange.ledger import money_per_tick
from exchange.messaging import Delivery
from exchange.notices import cancelled, telling
from exchange.saga import AT, NEXT, Answer, Ask, Deed, End, Instruction, Service, Step, Verdict, is_behind
from exchange.saga_choreography import Saying, Sayings, follows
from exchange.saga_coordinator import GOES_ON, Begun, Coordinator, Entry, GaveUp, Told, why
from exchange.saga_messages import Forget, Style, asking, forgetting, read_answer, saying
from exchange.shards import partition_of_id
from exchange.tracing import Concluded
from exchange.types import Instrument, TradeId
from kernel.errors import TemporaryError
from kernel.time import Instant, to_seconds

OPEN_MAX: Final = 256
"""Sagas open at once; more trades are not read until some of them end.

So none waits behind more than these: at ten a second the last of them is through before it would be given up.
"""
TOGETHER: Final = 128
"""Sagas begun in one transaction."""
_FULL_S: Final = 0.01


class _Reader(SagaPart):
    """What both styles have: trades are read, and begun."""

    part = "coordinator"

    def __init__(
        self,
        journal: SagaJournal,
        source: TradeSource,
        instruments: Sequence[Instrument],
        around: Around,
        *,
        open_max: int = OPEN_MAX,
    ) -> None:
        super().__init__(around, "coordinator")
        self._journal: Final = journal
        self._source: Final = source
        self._money: Final = {one.symbol: money_per_tick(one) for one in instruments}
        self._open_max: Final = open_max
        self._keep: Final = around.keep
        self._turn: Final = asyncio.Lock()
        """Entries are made of what is applied, so one at a time makes, writes and applies them."""
        self._traded_at: dict[TradeId, Instant] = {}
        self._source_stands = False

    def ready(self) -> tuple[bool, str]:
        """Tell whether trades can be settled."""
        stands, why_not = self._source.ready()
        return super().ready() if stands else (False, why_not)

    def _works(self) -> Sequence[Coroutine[object, object, None]]:
        return [self._read_trades(), self._inbox.run(self._handle), self._tick_forever(), self._tidy_forever()]

    async def _read_trades(self) -> None:
        async with contextlib.aclosing(self._source.follow(self._journal.seq, self._told_of_source)) as stream:
            async for stretch in stream:
                await self._begin_all(stretch)

    def _told_of_source(self, stands: bool) -> None:  # noqa: FBT001 - a callback's one argument
        if stands != self._source_stands:
            self._log.event("trades-connected" if stands else "trades-lost", seq=self._journal.highest())
        self._source_stands = stands
        self._telemetry.connected(source=stands)

    async def _begin_all(self, stretch: Stretch) -> None:
        happened = [item for item in stretch.happened if item.seq > self._journal.seq(stretch.part)]
        if not happened:
            return
        trades = trades_of(Stretch(stretch.part, happened), self._money, self._traced)
        starts = range(0, len(trades), TOGETHER)
        if not trades and self._source.keeps_place:
            starts = range(1)  # nothing is begun, but noted how far it was read
        for start in starts:
            while self._open() >= self._open_max:  # noqa: ASYNC110 - it is asked seldom, and many things change it
                await asyncio.sleep(_FULL_S)
            part = trades[start : start + TOGETHER]
            # Until the last of them is begun the stretch is not behind us: after a crash all of it is read again.
            whole = start + TOGETHER >= len(trades)
            place = Place(stretch.part, happened[-1].seq if whole else self._journal.seq(stretch.part))
            await self._begin_some(part, place)
        self._telemetry.read(self._journal.highest())

    async def _history(self, trade_id: TradeId) -> History:
        """Return all that is kept of a saga.

        Raises:
            UnknownSagaError: it was not begun, or is forgotten.
        """
        history = await self._call(lambda: self._journal.history(trade_id))
        if history is not None:
            return history
        if is_behind(trade_id, await self._call(self._journal.horizons)):
            raise UnknownSagaError(f"the saga of trade {trade_id} ended and was forgotten")
        part = partition_of_id(trade_id)
        read = f"trades of part {part} are read up to record {self._journal.seq(part)}"
        raise UnknownSagaError(f"no saga of trade {trade_id} was begun; {read}")

    def _view(self, trade_id: TradeId, history: History) -> SagaView:
        return SagaView(
            trade_id=trade_id, part=self.part, style=self.style, state=history.state,
            traded=told(history.traded_at), begun=told(history.begun_at), ended=told(history.ended_at),
            deeds=[DeedTold(told(one.at), one.deed, one.who, one.why) for one in history.notes],
        )  # fmt: skip

    def _done(self, deed: Deed, trade_id: TradeId, wish: Wish) -> None:
        done = "saga-retried" if deed is Deed.RETRY else "saga-given-up-by-hand"
        self._log.event(done, severity="warning", trade_id=trade_id, by=wish.by, why=wish.why)

    async def _tidy(self) -> None:
        """Forget what ended long ago, and tell the services, until they must have heard it: again each time."""
        if self._keep is not None:
            before = Instant(self._clock.now() - self._keep)
            await self._forget_all(lambda: self._journal.forget(before))
        horizons = await self._call(self._journal.horizons)
        messages = [
            forgetting(Forget(TradeId(up_to)), service, Style(self.style))
            for up_to in horizons.values()
            for service in Service
        ]
        await self._publish(messages)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            with contextlib.suppress(TemporaryError):  # it was logged; what is open is asked again
                await self._tick()

    def _ended(self, it: Instruction, end: End, begun: Instant, now: Instant) -> None:
        trade_id = it.trade_id
        at = self._traded_at.pop(trade_id, begun)
        self._telemetry.ended(
            end, seconds=max(0.0, to_seconds(now - begun)), since_trade=max(0.0, to_seconds(now - at))
        )
        if end is End.CANCELLED:
            self._log.event("saga-cancelled", severity="warning", trade_id=trade_id)
        if self._tracer is not None:
            self._tracer.concluded(Concluded(trade_id, end, it.trace, begun, now))

    async def _tell_cancelled(self, answers: Sequence[Answer], now: Instant) -> None:
        """Tell both parties of each saga that ends cancelled, before its end is written: it may be twice, never not.

        Raises:
            TemporaryError: the broker is away; the answers come again.
        """
        ends = [one.instruction for one in answers if follows(one) is End.CANCELLED]
        await self._publish([telling(notice, one.trace) for one in ends for notice in cancelled(one, now)])

    @abstractmethod
    def _open(self) -> int:
        """Return how many are under way."""

    @abstractmethod
    async def _begin_some(self, trades: Sequence[Trade], place: Place) -> None:
        """Begin what some trades ask for, and note the place they were read at with it."""

    @abstractmethod
    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        """Carry out what came."""

    @abstractmethod
    async def _tick(self) -> None:
        """Do what is due by now."""


class SagaCoordinator(_Reader):
    """Leads every saga step by step."""

    style = Style.ORCHESTRATED.value

    def __init__(
        self,
        journal: SagaJournal,
        source: TradeSource,
        instruments: Sequence[Instrument],
        around: Around,
        *,
        open_max: int = OPEN_MAX,
    ) -> None:
        """Nothing is read yet; `open_max` sagas are open at once, more trades wait."""
        super().__init__(journal, source, instruments, around, open_max=open_max)
        self._lead = Coordinator(self._times)

    async def status(self) -> SagasStatus:
        """Return where the open sagas stand, and how the others ended."""
        states = await self._call(self._journal.states)
        stuck = self._lead.stuck(self._clock.now())
        now = self._clock.now()
        shown = [
            StuckSaga(
                int(one.trade_id), one.step.value, one.service.value, one.reason.value, to_seconds(now - one.since),
                one.refusal.value,
            )
            for one in stuck[:STUCK_SHOWN]
        ]  # fmt: skip
        standing = self._lead.standing
        steps = Counter(one.step.value for one in standing.values())
        return SagasStatus(self.part, self.style, len(standing), dict(steps), len(stuck), shown, states)

    async def view(self, trade_id: TradeId) -> SagaView:
        """Return a saga as the journal has it.

        Raises:
            UnknownSagaError: it was not begun, or is forgotten.
        """
        history = await self._history(trade_id)
        begun = history.entries[0]
        assert isinstance(begun, Begun), "a saga's first entry begins it"
        view = msgspec.structs.replace(
            self._view(trade_id, history), instruction=begun.instruction, steps=steps_of(history.entries)
        )
        standing, asked = self._lead.at(trade_id), self._lead.asked(trade_id)
        if standing is None:
            return view
        stands = self._clock.now() - standing.since >= self._times.stuck
        return msgspec.structs.replace(
            view, step=standing.step.value, waits_for=AT[standing.step].value, since=told(standing.since),
            asked=asked.times if asked is not None else 0, asked_last=told(asked.at if asked is not None else None),
            stuck=why(standing).value if stands or standing.refusal else "", refusal=standing.refusal.value,
        )  # fmt: skip

    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """Ask a saga's step once more, or give it up, because a person says so.

        Raises:
            UnknownSagaError: it was not begun, or is forgotten.
            DeedRefusedError: it ended, or is where it can only go on.
        """
        await self._history(trade_id)
        async with self._turn:
            now = self._clock.now()
            note, standing = Note(now, deed.value, wish.by, wish.why), self._lead.at(trade_id)
            if standing is None:
                raise DeedRefusedError(f"the saga of trade {trade_id} ended; nothing can be done to it any more")
            if deed is Deed.COMPENSATE:
                given_up = self._lead.give_up(trade_id, now)
                if given_up is None:
                    goes = "is cleared and goes on until it is settled" if standing.step in GOES_ON else "is taken back"
                    raise DeedRefusedError(
                        f"the saga of trade {trade_id} {goes}: it waits for {AT[standing.step]} to {standing.step}; "
                        "that can be retried"
                    )
                asks = await self._note([given_up], now, note)
            else:
                await self._call(lambda: self._journal.note(trade_id, note))
                self._lead.ask_again(trade_id)
                asks = self._lead.asks(now, [trade_id])
        self._done(deed, trade_id, wish)
        await self._ask(asks)
        return await self.view(trade_id)

    async def _begin(self) -> None:
        self._lead = Coordinator(self._times, await self._until_done(self._journal.entries))
        self._traded_at = await self._until_done(self._journal.traded_at)
        self._log.event("sagas-taken-over", open=self._open(), seq=self._journal.highest())

    async def _watch(self) -> None:
        now = self._clock.now()
        stuck = Counter((one.service.value, one.reason.value) for one in self._lead.stuck(now))
        begun = next(iter(self._lead.standing.values()), None)
        oldest = max(0.0, to_seconds(now - begun.begun)) if begun is not None else 0.0
        self._telemetry.standing(self._open(), oldest=oldest, stuck=stuck)

    def _open(self) -> int:
        return self._lead.open_count

    async def _begin_some(self, trades: Sequence[Trade], place: Place) -> None:
        async with self._turn:
            now = self._clock.now()
            entries = await self._until_done(lambda: self._journal.begin(trades, now, place))
            at = {trade.instruction.trade_id: trade.at for trade in trades}
            for entry in entries:
                self._lead.apply(entry)
                self._traded_at[entry.instruction.trade_id] = at[entry.instruction.trade_id]
            self._telemetry.begun(len(entries))
            asks = self._lead.asks(now, [entry.instruction.trade_id for entry in entries])
        await self._ask(asks)

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        answers, poison = readable(deliveries, read_answer)
        if answers:
            await self._dawdle()
            async with self._turn:
                now = self._clock.now()
                asks = await self._note(self._entries_of(answers, now), now)
            await self._ask(asks)
        if poison is not None:
            raise poison

    def _entries_of(self, answers: Sequence[Answer], now: Instant) -> list[Told]:
        """Return what answers lead to, one a saga: a second one of a batch is a repeat, or is asked for again."""
        entries: dict[TradeId, Told] = {}
        for answer in answers:
            if answer.instruction.trade_id not in entries and (entry := self._lead.told(answer, now)) is not None:
                entries[answer.instruction.trade_id] = entry
        return list(entries.values())

    async def _tick(self) -> None:
        async with self._turn:
            now = self._clock.now()
            late = self._lead.late(now)
            if late:
                self._log.event("sagas-given-up", severity="warning", count=len(late))
                await self._note(late, now)
            asks = self._lead.asks(now)
        await self._ask(asks)

    async def _note(
        self, entries: Sequence[Told] | Sequence[GaveUp], now: Instant, note: Note | None = None
    ) -> list[Ask]:
        """Write entries, with who wanted the first, then take them over; return what is to be asked next."""
        if not entries:
            return []
        ended: dict[TradeId, End] = {}
        for entry in entries:
            if isinstance(entry, Told) and isinstance(end := follows(entry.answer), End):
                ended[entry.answer.instruction.trade_id] = end
        await self._tell_cancelled([one.answer for one in entries if isinstance(one, Told)], now)
        written: Sequence[Entry] = entries
        await self._until_done(lambda: self._journal.append(written, ended, now, note))
        touched = []
        for entry in entries:
            trade_id = entry.answer.instruction.trade_id if isinstance(entry, Told) else entry.trade_id
            before = self._lead.at(trade_id)
            assert before is not None, "an entry is of an open saga"
            self._lead.apply(entry)
            touched.append(trade_id)
            if isinstance(entry, Told):
                self._telemetry.stepped(max(0.0, to_seconds(now - before.since)))
                if (entry.answer.step, entry.answer.verdict) not in NEXT:
                    self._log.event(
                        "saga-refused", severity="error", trade_id=trade_id, step=entry.answer.step.value,
                        reason=entry.answer.reason.value,
                    )  # fmt: skip
            if isinstance(entry, Told) and trade_id in ended:
                self._ended(entry.answer.instruction, ended[trade_id], before.begun, now)
                self._lead.forget(trade_id)
        return self._lead.asks(now, touched)

    async def _ask(self, asks: Sequence[Ask]) -> None:
        try:
            await self._publish([asking(ask) for ask in asks])
        except TemporaryError:
            return  # it was logged; the journal has them open, so they are asked again


class SagaReader(_Reader):
    """Says that sagas begin, and gives them up, where the services follow each other."""

    style = Style.CHOREOGRAPHED.value

    def __init__(
        self,
        journal: SagaJournal,
        source: TradeSource,
        instruments: Sequence[Instrument],
        around: Around,
        *,
        open_max: int = OPEN_MAX,
    ) -> None:
        """Nothing is read yet; the end of `open_max` sagas is awaited at once, more trades wait."""
        super().__init__(journal, source, instruments, around, open_max=open_max)
        self._sayings = Sayings(self._times)
        self._begun_at: dict[TradeId, Instant] = {}

    async def status(self) -> SagasStatus:
        """Return which sagas' end was not heard, and how the others ended."""
        states = await self._call(self._journal.states)
        blank = SagasStatus(self.part, self.style, 0, {}, 0, [], states)
        return sayings_status(blank, self._sayings, self._clock.now())

    async def view(self, trade_id: TradeId) -> SagaView:
        """Return what is known of a saga where nobody leads: its beginning, what is said here, the end that was heard.

        Raises:
            UnknownSagaError: it was not begun, or is forgotten.
        """
        history = await self._history(trade_id)
        view = self._view(trade_id, history)
        if history.end is not None:
            return msgspec.structs.replace(
                view, instruction=history.end.instruction, step=f"{history.end.step}.{history.end.verdict}"
            )
        if history.saying is None:
            return view
        late = self._clock.now() - history.saying.since >= self._times.stuck
        view = with_saying(view, history.saying, *self._sayings.said(trade_id))
        return msgspec.structs.replace(view, stuck=NO_END if late else "")

    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """Say once more how a saga begins, or that it is given up, because a person says so.

        Raises:
            UnknownSagaError: it was not begun, or is forgotten.
            DeedRefusedError: its end was heard, or it was given up before.
        """
        await self._history(trade_id)
        async with self._turn:
            now = self._clock.now()
            if not self._sayings.says(trade_id):
                raise DeedRefusedError(f"the end of the saga of trade {trade_id} was heard; nothing can be done to it")
            note = Note(now, deed.value, wish.by, wish.why)
            if deed is Deed.COMPENSATE:
                given_up = self._sayings.given_up(trade_id, now)
                if given_up is None:
                    raise DeedRefusedError(f"the saga of trade {trade_id} was given up before; the pivot decides")
                await self._until_done(lambda: self._journal.said(Said({trade_id: given_up}, {}), {}, now, note))
                self._sayings.keep(given_up.answer, now)
            else:
                await self._call(lambda: self._journal.note(trade_id, note))
                self._sayings.say_again(trade_id)
            due = self._sayings.due(now, [trade_id])
        self._done(deed, trade_id, wish)
        await self._say(due)
        return await self.view(trade_id)

    async def _begin(self) -> None:
        self._sayings = Sayings(self._times, await self._until_done(self._journal.sayings))
        self._traded_at = await self._until_done(self._journal.traded_at)
        self._begun_at = {trade_id: one.since for trade_id, one in self._sayings.kept.items()}
        self._log.event("sagas-taken-over", open=self._open(), seq=self._journal.highest())

    async def _watch(self) -> None:
        tell_sayings(self._telemetry, self._sayings, self._clock.now())

    def _open(self) -> int:
        return self._sayings.kept_count

    async def _begin_some(self, trades: Sequence[Trade], place: Place) -> None:
        async with self._turn:
            now = self._clock.now()
            begun: Mapping[TradeId, Saying] = {
                trade.instruction.trade_id: Saying(Answer(Step.BEGIN, trade.instruction, Verdict.DONE), now)
                for trade in trades
            }
            failures: list[int] = []
            new = await self._until_done(
                lambda: self._journal.begin_saying(trades, begun, now, place), lambda: failures.append(1)
            )
            at = {trade.instruction.trade_id: trade.at for trade in trades}
            if failures:
                await self._begin()  # whether the failed attempt was written is not known
            for trade_id in new:
                self._sayings.begin(begun[trade_id].answer.instruction, now)
                self._traded_at[trade_id] = at[trade_id]
                self._begun_at[trade_id] = now
            self._telemetry.begun(len(new))
            due = self._sayings.due(now, new)
        await self._say(due)

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        heard, poison = readable(deliveries, read_answer)
        async with self._turn:
            now = self._clock.now()
            ends: dict[TradeId, Answer] = {}
            for answer in heard:
                trade_id = answer.instruction.trade_id
                if isinstance(follows(answer), End) and self._sayings.says(trade_id):
                    ends.setdefault(trade_id, answer)
            if ends:
                ways = {trade_id: end for trade_id, one in ends.items() if isinstance(end := follows(one), End)}
                said = Said(dict.fromkeys(ends), ends)
                await self._tell_cancelled(list(ends.values()), now)
                await self._until_done(lambda: self._journal.said(said, ways, now))
                for trade_id, answer in ends.items():
                    self._sayings.hear(answer)
                    self._sayings.forget(trade_id)
                    self._ended(answer.instruction, ways[trade_id], self._begun_at.pop(trade_id, now), now)
        if poison is not None:
            raise poison

    async def _tick(self) -> None:
        async with self._turn:
            now = self._clock.now()
            late = self._sayings.late(now)
            if late:
                self._log.event("sagas-given-up", severity="warning", count=len(late))
                said = Said({one.answer.instruction.trade_id: one for one in late}, {})
                await self._until_done(lambda: self._journal.said(said, {}, now))
            due = self._sayings.due(now)
        await self._say(due)

    async def _say(self, due: Sequence[Answer]) -> None:
        try:
            await self._publish([saying(answer) for answer in due])
        except TemporaryError:
            return  # it was logged; what is kept is said again
