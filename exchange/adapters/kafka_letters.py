"""The topic of dead letters in Kafka, for a person: `exchange.letters.Letters`.

Nothing can be taken out of a topic. What was done with a letter is written behind it, in the same partition: a record
without a value whose header `done` says what, and whose headers `partition` and `offset` say with which letter. A
letter that is put there again behind that record lies there again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from exchange.adapters.dead_letters import WITHIN_S
from exchange.adapters.kafka_events import last_event
from exchange.adapters.kafka_log import reader, stretch
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import TIMEOUT_S
from exchange.journal import Kind, decode_events
from exchange.letters import Deed, Letter, Witness, refuse_missing
from exchange.messages import MessageError, unseal
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant

DONE: Final = "done"
"""Header of the record that says what was done with a letter."""
_MILLISECOND: Final = 1_000_000


class _Lying(msgspec.Struct):
    """A letter in the topic."""

    letter: Letter
    partition: int
    offset: int
    """Of the message among the events."""
    key: bytes | None
    value: bytes | None


class KafkaLetters:
    """All partitions of the topic of dead letters."""

    def __init__(self, place: KafkaPlace) -> None:
        """Nothing is opened yet."""
        self._place: Final = place

    async def look(self, most: int) -> list[Letter]:
        """See `Letters`."""
        lying = await asyncio.to_thread(self._lying)
        shown: dict[int, int] = {}
        found = []
        for each in lying.values():
            shown[each.partition] = shown.get(each.partition, 0) + 1
            if shown[each.partition] <= most:
                found.append(each.letter)
        return found

    async def settle(self, ids: Collection[str], deed: Deed, witness: Witness) -> list[Letter]:
        """See `Letters`. What nobody can read is not put back: it would be a dead letter again."""
        return await asyncio.to_thread(self._settle, ids, deed, witness)

    def _settle(self, ids: Collection[str], deed: Deed, witness: Witness) -> list[Letter]:
        lying = self._lying()
        refuse_missing(ids, lying.keys())
        wanted = [each for name, each in lying.items() if name in ids]
        if deed is Deed.REQUEUED:
            for each in wanted:
                self._refuse_unfit(each)
        producer = Producer(
            self._place.client(
                {"acks": "all", "enable.idempotence": True, "delivery.timeout.ms": round(WITHIN_S * 1_000)}
            )
        )
        for each in wanted:
            if deed is Deed.REQUEUED:
                _write(producer, self._place.events, each.partition, each.key, each.value, {})
            witness(each.letter)
            said = {DONE: deed.value, "partition": str(each.partition), "offset": str(each.offset)}
            _write(producer, self._place.dead, each.partition, None, None, said)
        return [each.letter for each in wanted]

    def _refuse_unfit(self, lying: _Lying) -> None:
        """Refuse what readers could not read, and what would mislead the engine, which goes on behind the last number.

        Raises:
            PermanentError: it must not be put back.
        """
        try:
            seq = unseal(lying.value, Kind.EVENTS).seq
            if decode_events(unseal(lying.value, Kind.EVENTS).payload).seq != seq:
                raise PermanentError(f"{lying.letter.id}: its message and what it holds differ in their number")
        except MessageError as error:
            raise PermanentError(f"{lying.letter.id} would be a dead letter again: {error.what}") from error
        except msgspec.MsgspecError as error:
            raise PermanentError(f"{lying.letter.id} would be a dead letter again: {error}") from error
        last = last_event(msgspec.structs.replace(self._place, partition=lying.partition))
        if seq > last:
            raise PermanentError(
                f"{lying.letter.id} is of record {seq}, and {self._place.events} ends with {last}: put back, "
                "the engine would go on behind it and leave out what is between"
            )

    # --- reading ------------------------------------------------------------------------------------------------------

    def _lying(self) -> dict[str, _Lying]:
        """Read the whole topic."""
        consumer = reader(self._place)
        try:
            return {name: each for number in self._partitions(consumer) for name, each in self._of(consumer, number)}
        except KafkaException as error:
            raise TemporaryError(f"{self._place.dead}: cannot be read: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer) -> list[int]:
        told = consumer.list_topics(self._place.dead, timeout=TIMEOUT_S).topics[self._place.dead]
        if told.error is not None:
            raise PermanentError(f"topic {self._place.dead}: {told.error.str()}")
        return sorted(told.partitions)

    def _of(self, consumer: Consumer, partition: int) -> Iterator[tuple[str, _Lying]]:
        where = TopicPartition(self._place.dead, partition)
        where.offset, high = consumer.get_watermark_offsets(where, timeout=TIMEOUT_S, cached=False)
        lying: dict[str, _Lying] = {}
        for message in stretch(consumer, where, high, patience_s=TIMEOUT_S):
            said = _said(message)
            number, offset = said.get("partition", str(partition)), said.get("offset", "")
            name = f"kafka-{number}-{offset}"
            if DONE in said:
                lying.pop(name, None)
                continue
            if not (number.isdecimal() and offset.isdecimal()):
                continue  # nobody's letter: it says not where it came from
            before = lying.get(name)
            copies = before.letter.copies + 1 if before else 1
            lying[name] = self._read(message, said, name, copies)
        yield from lying.items()

    def _read(self, message: Message, said: Mapping[str, str], name: str, copies: int) -> _Lying:
        number, key = int(said["partition"]), message.key()
        kind, at = message.timestamp()
        why = f"{said.get('reason', '')}: {said.get('why', '')} (group {said.get('group', '')})"
        letter = Letter(
            id=name, lies_in=f"{self._place.dead}/{number}", came_from=f"{self._place.events}/{number}",
            key=_text(key), why=why, body=_bytes(message.value()), at=Instant(at * _MILLISECOND) if kind else None,
            copies=copies,
        )  # fmt: skip
        return _Lying(letter, number, int(said["offset"]), _maybe(key), _maybe(message.value()))


def _write(
    producer: Producer, topic: str, partition: int, key: bytes | None, value: bytes | None, said: Mapping[str, str]
) -> None:
    """Write a record; returns when the brokers have it.

    Raises:
        TemporaryError: they did not take it.
    """
    failed: list[str] = []

    def told(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error.str())

    try:
        producer.produce(
            topic, value, key, partition, headers=[(name, text.encode()) for name, text in said.items()],
            on_delivery=told,
        )  # fmt: skip
        left = producer.flush(WITHIN_S + 1.0)
    except (KafkaException, BufferError) as error:
        raise TemporaryError(f"{topic}, partition {partition}: not written: {error}") from error
    if left or failed:
        producer.purge()
        raise TemporaryError(f"{topic}, partition {partition}: not taken: {'; '.join(failed) or 'no answer'}")


def _said(message: Message) -> dict[str, str]:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {name: _text(value) for name, value in pairs}


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _maybe(value: str | bytes | None) -> bytes | None:
    return None if value is None else _bytes(value)


def _text(value: str | bytes | None) -> str:
    return _bytes(value).decode(errors="backslashreplace")
