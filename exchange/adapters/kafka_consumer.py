"""A member of a consumer group over the events: read in order, carried out once, committed only afterwards.

Kafka's committed offset is where a new member begins, and what tools show as the group's lag. It is not what keeps an
effect from coming twice: that is the number which the effect holds itself (`exchange.consuming.Effect`). A member that
dies between both leaves repeats, which are left alone; one whose ledger went back finds the record that is due again.

Everything that waits for the library runs on one thread, one call after the other, and nothing is carried out while it
waits. The library tells of a rebalance only within such a call: at that moment nothing is half done, so that a
partition that is taken away is committed as far as it was carried out and let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Received

from exchange.adapters.dead_letters import DeadLetters
from exchange.adapters.kafka_topics import KafkaPlace, prepare
from exchange.consuming import Broken, Effect, Missing, PartitionReader, Poison, Raw, Stretch
from exchange.ports import ConsumerTelemetry, Log
from kernel.errors import PermanentError, TemporaryError

TOGETHER_MAX: Final = 2048
"""Messages carried out in one go."""
RETRY_S: Final = 0.25
LOOK_S: Final = 1.0
"""How often the lag is looked at, and brokers that are silent are asked whether they are there."""
SILENT_S: Final = 4.0
"""Without a message and without an answer for so long: no brokers."""
_WAIT_S: Final = 0.1
_ANSWER_S: Final = 1.0
_COMMITTED_S: Final = 5.0
_SESSION_MS: Final = 10_000
_HEARTBEAT_MS: Final = 500
"""A member hears with a heartbeat that the group is divided anew: so long do the others wait for it."""
_POLL_MS: Final = 300_000
_T = TypeVar("_T")


@dataclass
class _Part:
    """A partition that is this member's, and how far it is."""

    number: int
    reader: PartitionReader | None = None
    """None: it has not been asked yet how far the effect is."""
    inbox: list[Raw] = field(default_factory=list)
    stretch: Stretch | None = None
    """What was read and could not be carried out so far."""
    put: set[int] = field(default_factory=set)
    """Offsets of the messages that are in the dead letters already and not done with."""
    retry_at: float = 0.0
    done: int = -1
    """Everything before this offset is carried out; -1: not known yet."""
    committed: int = -1
    """What the group has committed, as far as the brokers have said."""
    sent: int = -1
    """What they were last asked to commit."""
    stopped: Broken | None = None
    behind: bool = False
    """Whether the events end before what was carried out already."""


class With(NamedTuple):
    """What a consumer is made of."""

    client: Callable[[dict[str, Any]], Any] = Consumer
    """Makes the library's consumer."""
    letters: Callable[[KafkaPlace, str], DeadLetters] = DeadLetters
    """Makes the place for dead letters."""
    check: Callable[[KafkaPlace], object] = prepare
    """Is asked before the first message whether cluster and topics are what they should be."""


class KafkaConsumer:
    """One member of a group over the events of an exchange: a source of events (`exchange.adapters.settlement_source`).

    One that begins anew starts where the group is, or with the first event when the group is new.
    """

    keeps_place: Final = True

    def __init__(
        self,
        place: KafkaPlace,
        group: str,
        *,
        telemetry: ConsumerTelemetry,
        log: Log,
        missing: Missing = Missing.STOPS,
        eager: bool = False,
        with_: With | None = None,
    ) -> None:
        """Prepare; nothing is sent before `run`.

        Args:
            place: cluster and topics.
            group: whose members divide the partitions among themselves.
            telemetry: who is told.
            log: what is to be kept of it.
            missing: what becomes of a partition where a message that cannot be read took a number with it.
            eager: whether every partition is given back at each rebalance, as old members of a group do.
            with_: what it is made of; tests give it others.
        """
        self._place: Final = place
        self._group: Final = group
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._missing: Final = missing
        self._eager: Final = eager
        self._with: Final = with_ or With()
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="kafka")
        self._parts: Final[dict[int, _Part]] = {}
        self._heard: Callable[[bool], None] = lambda _: None
        self._consumer: Any = None
        self._dead: DeadLetters | None = None
        self._divided = False
        """Whether the partitions were divided since they were told of last."""
        self._joined = False
        self._connected: bool | None = None
        self._heard_at = 0.0
        self._looked_at = 0.0

    @property
    def partitions(self) -> dict[int, int]:
        """This member's partitions, and the offset up to which each is carried out (-1: not known yet)."""
        return {one.number: one.done for one in self._parts.values()}

    def ready(self) -> tuple[bool, str]:
        """Tell whether events are read."""
        if not self._connected:
            return False, "no Kafka broker answers"
        if not self._joined:
            return False, f"not a member of group {self._group} yet"
        stopped = [one for one in self._parts.values() if one.stopped is not None]
        if stopped:
            return False, "; ".join(self._told(one) for one in stopped)
        behind = [one.number for one in self._parts.values() if one.behind]
        if behind:
            return False, f"the events of partitions {behind} end before what was carried out: another exchange's?"
        return True, f"{len(self._parts)} of {self._place.partitions} partitions are read here"

    async def run(self, effect: Effect, told: Callable[[bool], None] = lambda _: None) -> None:
        """Read and have it carried out until cancelled; brokers that are away are waited for.

        `told` hears when brokers answer, and when none does.

        Raises:
            PermanentError: the brokers, or the effect, refuse for good.
        """
        self._heard = told
        self._telemetry.connected(connected=False)
        try:
            await self._checked()
            await self._call(self._begin)
            while True:
                await self._turn(effect)
        finally:
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._end)))
            self._thread.shutdown(wait=False)

    # --- on the thread ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._consumer = self._with.client(
            self._place.client({
                "group.id": self._group,
                "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "range" if self._eager else "cooperative-sticky",
                "session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": _HEARTBEAT_MS,
                "max.poll.interval.ms": _POLL_MS,
                # Events are published without a transaction (`docs/decisions/0026`); none is hidden from us either.
                "isolation.level": "read_uncommitted", "check.crcs": True, "on_commit": self._on_commit,
                "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 65_536,
            })
        )  # fmt: skip
        try:
            self._consumer.subscribe(
                [self._place.events], on_assign=self._given, on_revoke=self._taken, on_lost=self._lost
            )
        except KafkaException as error:
            raise PermanentError(f"{self._place.events}: cannot be subscribed: {error.args[0].str()}") from error

    def _end(self) -> None:
        if self._consumer is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._consumer.close()  # the partitions are taken away first, and committed

    def _given(self, _: object, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            self._parts[one.partition] = _Part(one.partition)
        self._joined = self._divided = True

    def _taken(self, _: object, partitions: Sequence[TopicPartition]) -> None:
        taken = [self._parts.pop(one.partition) for one in partitions if one.partition in self._parts]
        owed = [self._at(one, one.done) for one in taken if one.done > one.committed]
        self._divided = True
        if owed and self._connected:
            # What it does not take comes again for whoever has the partition next, and is left alone there.
            with contextlib.suppress(KafkaException):
                self._consumer.commit(offsets=owed, asynchronous=False)

    def _lost(self, _: object, partitions: Sequence[TopicPartition]) -> None:
        """Let go at once: somebody else has had them for a while, and commits for them."""
        for one in partitions:
            self._parts.pop(one.partition, None)
        self._divided = True

    def _fetch(self, within_s: float) -> list[Received]:
        try:
            first = self._consumer.poll(within_s)
            # Asking for many at once would wait for all of them: the rest is taken as far as it is there.
            return [] if first is None else [first, *self._consumer.consume(TOGETHER_MAX - 1, 0.0)]
        except KafkaException as error:
            raise PermanentError(f"{self._place.events}: cannot be read: {error.args[0].str()}") from error

    def _standing(self, ask: bool) -> dict[int, int]:  # noqa: FBT001 - called in one place
        """Return each partition's end. The brokers are asked where nothing is fetched, and the library's word is old.

        Raises:
            KafkaException: no broker answers.
        """
        if ask:
            self._consumer.list_topics(self._place.events, timeout=_ANSWER_S)
        unknown = [self._at(one) for one in self._parts.values() if one.done < 0]
        if unknown:
            for told in self._consumer.committed(unknown, timeout=_COMMITTED_S):
                part = self._parts.get(told.partition)
                if part is not None and part.done < 0:
                    low, _ = self._consumer.get_watermark_offsets(self._at(part), timeout=_ANSWER_S, cached=False)
                    part.done = part.committed = told.offset if told.offset >= 0 else low
                    # Of a new group the beginning is committed, so that its lag shows from outside, too.
                    part.sent = told.offset
        return {
            one.number: self._consumer.get_watermark_offsets(
                self._at(one), timeout=_ANSWER_S, cached=one.stopped is None and one.stretch is None
            )[1]
            for one in list(self._parts.values())
        }

    def _commit(self, parts: Sequence[_Part]) -> None:
        offsets = [self._at(one, one.done) for one in parts]
        for one in parts:
            one.sent = one.done
        with contextlib.suppress(KafkaException):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        if error is not None:
            return
        for one in partitions:
            part = self._parts.get(one.partition)
            if part is not None and one.error is None:
                part.committed = max(part.committed, one.offset)

    def _let_flow(self, part: _Part, *, flow: bool) -> None:
        """Fetch a partition's messages, or no more; the member stays in its group meanwhile."""
        # One that was taken away a moment ago needs neither.
        with contextlib.suppress(KafkaException):
            (self._consumer.resume if flow else self._consumer.pause)([self._at(part)])

    def _put_aside(self, partition: int, poison: Poison) -> None:
        if self._dead is None:  # most never need one
            self._dead = self._with.letters(self._place, self._group)
        self._dead.put(partition, poison)

    def _go_to(self, part: _Part, offset: int) -> int:
        """Read on from `offset`, or from the first message when that lies behind it; return which."""
        low, _ = self._consumer.get_watermark_offsets(self._at(part), timeout=_ANSWER_S, cached=False)
        target = max(int(low), offset)
        self._consumer.seek(self._at(part, target))
        return target

    # --- on the loop -----------------------------------------------------------------------------------------------

    async def _checked(self) -> None:
        while True:
            try:
                await self._call(lambda: self._with.check(self._place))
            except TemporaryError as error:
                if self._connected is None:
                    self._tell_connected(connected=False, why=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            return

    async def _turn(self, effect: Effect) -> None:
        waiting = any(one.stretch is not None for one in self._parts.values())
        messages = await self._call(lambda: self._fetch(min(_WAIT_S, RETRY_S) if waiting else _WAIT_S))
        if self._divided:
            self._divided = False
            self._telemetry.assigned(sorted(self._parts))
            self._log.event("partitions-assigned", group=self._group, partitions=sorted(self._parts))
        self._sort(messages)
        for part in list(self._parts.values()):
            if self._parts.get(part.number) is part:
                await self._advance(part, effect)
        owed = [one for one in self._parts.values() if one.done > one.sent and one.done >= 0]
        if owed:
            await self._call(lambda: self._commit(owed))
        if time.monotonic() - self._looked_at >= LOOK_S:
            await self._look()

    def _sort(self, messages: Sequence[Received]) -> None:
        for message in messages:
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise PermanentError(f"{self._place.events}: {error.str()}")
                self._log.event("kafka-trouble", severity="warning", why=error.str())
                continue
            self._heard_at = time.monotonic()
            number, offset = message.partition(), message.offset()
            part = None if number is None else self._parts.get(number)
            if part is not None and offset is not None and part.stopped is None:
                part.inbox.append(Raw(offset, message.key(), message.value()))
        if messages and not self._connected:
            self._tell_connected(connected=True)

    async def _advance(self, part: _Part, effect: Effect) -> None:
        """Carry out what was read of a partition, as far as it goes."""
        if part.stretch is None:
            if not part.inbox:
                return
            try:
                if part.reader is None:
                    part.reader = PartitionReader(await effect.reached(part.number), self._missing)
            except TemporaryError as error:
                self._log.event("effect-failed", severity="error", partition=part.number, why=str(error))
                await asyncio.sleep(RETRY_S)
                return
            messages, part.inbox = part.inbox, []
            part.stretch = part.reader.read(messages, part.done if part.done >= 0 else messages[0].offset)
            effect.read(part.number, part.stretch.happened)
        elif time.monotonic() < part.retry_at:
            return
        try:
            await self._carry_out(part, part.stretch, effect)
        except TemporaryError as error:
            self._log.event("effect-failed", severity="error", partition=part.number, why=str(error))
            part.retry_at = time.monotonic() + RETRY_S
            await self._call(lambda: self._let_flow(part, flow=False))
            return
        part.stretch = None
        if part.retry_at and part.stopped is None:
            await self._call(lambda: self._let_flow(part, flow=True))
        part.retry_at = 0.0

    async def _carry_out(self, part: _Part, stretch: Stretch, effect: Effect) -> None:
        for poison in stretch.poison:
            if poison.offset in part.put:
                continue
            await self._call(partial(self._put_aside, part.number, poison))
            part.put.add(poison.offset)
            self._telemetry.dead_letter(poison.reason)
            self._log.event(
                "dead-letter", severity="error", topic=self._place.events, partition=part.number, offset=poison.offset,
                reason=poison.reason.value, why=poison.why, dead_topic=self._place.dead,
            )  # fmt: skip
        if stretch.happened:
            await effect.apply(part.number, stretch.happened)
        part.done = max(part.done, stretch.end)
        part.put = {offset for offset in part.put if offset >= part.done}
        if stretch.broken is not None:
            await self._doubt(part, stretch.broken)

    async def _doubt(self, part: _Part, broken: Broken) -> None:
        """A number is missing: look again, where it may be, and stop the partition when it is not."""
        assert part.reader is not None, "it read"
        part.inbox.clear()
        where = None
        if broken.look_from is not None:
            try:
                where = await self._call(lambda: self._go_to(part, broken.look_from or 0))
            except KafkaException as error:
                raise TemporaryError(f"{self._place.events}: cannot be read again: {error.args[0].str()}") from error
        if where is not None and where < broken.look_below:
            part.reader.moved()
            part.done = min(part.done, where)
            self._log.event(
                "looking-again", severity="warning", partition=part.number, offset=broken.offset, why=broken.why,
                from_offset=where,
            )  # fmt: skip
            return
        part.stopped = broken
        await self._call(lambda: self._let_flow(part, flow=False))
        self._telemetry.stopped(part.number, stopped=True)
        self._log.event(
            "partition-stopped", severity="critical", topic=self._place.events, partition=part.number,
            offset=broken.offset, next_seq=part.reader.next_seq, why=broken.why,
        )  # fmt: skip

    async def _look(self) -> None:
        self._looked_at = now = time.monotonic()
        silent = now - self._heard_at >= LOOK_S
        try:
            ends = await self._call(lambda: self._standing(silent))
        except KafkaException as error:
            if time.monotonic() - self._heard_at >= SILENT_S and self._connected is not False:
                self._tell_connected(connected=False, why=error.args[0].str())
            return
        if silent:
            self._heard_at = time.monotonic()
        if not self._connected:
            self._tell_connected(connected=True)
        for number, end in ends.items():
            part = self._parts.get(number)
            if part is None or part.done < 0 or end < 0:
                continue
            lag = max(0, end - part.done)
            self._telemetry.lag(
                number, records=lag, committed=max(0, end - part.committed) if part.committed >= 0 else lag
            )
            self._compare(part, at_end=not lag)

    def _compare(self, part: _Part, *, at_end: bool) -> None:
        """Notice events that end before what was carried out already: another exchange's, or published late."""
        behind = at_end and part.reader is not None and part.reader.behind
        if behind and not part.behind:
            assert part.reader is not None, "it read"
            self._log.event(
                "events-behind", severity="error", partition=part.number, last_event=part.reader.last_seen,
                reached=part.reader.next_seq - 1,
            )  # fmt: skip
        part.behind = behind

    def _tell_connected(self, *, connected: bool, why: str = "") -> None:
        self._connected = connected
        self._telemetry.connected(connected=connected)
        self._heard(connected)
        if connected:
            self._log.event("kafka-connected", group=self._group)
        else:
            self._log.event("kafka-lost", severity="error", group=self._group, why=why)

    def _told(self, part: _Part) -> str:
        assert part.stopped is not None, "it stopped"
        where = f"{self._place.events}, partition {part.number}, offset {part.stopped.offset}"
        return f"{where}: {part.stopped.why}; nothing behind it is carried out until a person has decided"

    def _at(self, part: _Part, offset: int | None = None) -> TopicPartition:
        if offset is None:
            return TopicPartition(self._place.events, part.number)
        return TopicPartition(self._place.events, part.number, offset)

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
