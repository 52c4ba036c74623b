# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Dead letters on real brokers: seen as they were put, put back only where that harms nobody, gone when settled."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition

from exchange.adapters.dead_letters import DeadLetters
from exchange.adapters.kafka_events import KafkaEvents, last_event
from exchange.adapters.kafka_letters import KafkaLetters
from exchange.adapters.kafka_log import reader, values
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare
from exchange.consuming import Poison
from exchange.events import Happened
from exchange.journal import Kind, encode_events
from exchange.letters import Deed
from exchange.messages import seal
from exchange.ports import DeadReason
from kernel.errors import InputError, PermanentError, TemporaryError
from tests.kafka_brokers import new_place

pytestmark = [pytest.mark.kafka, pytest.mark.long]


def message(seq: int) -> bytes:
    return seal(Kind.EVENTS, seq, encode_events(Happened(seq, seq * 1_000, ())))


@pytest.fixture
def place(kafka):
    made = new_place(kafka, partitions=2)
    prepare(made)
    events = KafkaEvents(made)
    events.begin()
    events.publish(1, [encode_events(Happened(seq, seq * 1_000, ())) for seq in (1, 2, 3)])
    events.close()
    return made


def put(place, offset, value, *, partition=0, group="settlement", key=b"2"):
    poison = Poison(offset, DeadReason.SCHEMA, "schema version 9", key, value)
    DeadLetters(place, group).put(partition, poison)


def events_of(place, partition=0):
    consumer = reader(place)
    try:
        where = TopicPartition(place.events, partition)
        _, high = consumer.get_watermark_offsets(where, timeout=10, cached=False)
        return [value for _, value in values(consumer, TopicPartition(place.events, partition, 0), high)]
    finally:
        consumer.close()


async def test_a_letter_is_put_back_once_dropped_once_and_lies_there_again_when_it_is_put_there_again(place):
    desk = KafkaLetters(place)
    assert await desk.look(10) == []
    put(place, 1, message(2))
    put(place, 1, message(2))
    put(place, 7, b"\x00 nobody's", partition=1, key=None)
    first, second = await desk.look(10)
    assert (first.id, first.copies, first.key, first.body) == ("kafka-0-1", 2, "2", message(2))
    assert (first.lies_in, first.came_from) == (f"{place.dead}/0", f"{place.events}/0")
    assert first.why == "schema: schema version 9 (group settlement)"
    assert first.at is not None
    assert (second.id, second.key, second.body) == ("kafka-1-7", "", b"\x00 nobody's")

    told = []
    assert await desk.settle(["kafka-0-1"], Deed.REQUEUED, told.append) == told == [first]
    assert events_of(place) == [message(seq) for seq in (1, 2, 3, 2)]
    assert last_event(place) == 3
    assert await desk.look(10) == [second]
    assert await desk.settle(["kafka-1-7"], Deed.DROPPED, told.append) == [second]
    assert events_of(place, 1) == []
    assert await desk.look(10) == []
    with pytest.raises(InputError, match="dead letter kafka-0-1: is not there"):
        await desk.settle(["kafka-0-1"], Deed.REQUEUED, pytest.fail)

    put(place, 1, message(2))
    (again,) = await desk.look(10)
    assert (again.id, again.copies) == ("kafka-0-1", 1)


async def test_what_would_be_a_dead_letter_again_or_mislead_the_engine_is_not_put_back(place):
    desk = KafkaLetters(place)
    put(place, 4, message(2)[:-1] + b"\xff")
    put(place, 5, message(4))
    put(place, 6, message(1))
    for name, why in (("kafka-0-4", "would be a dead letter again"), ("kafka-0-5", "ends with 3")):
        with pytest.raises(PermanentError, match=why):
            await desk.settle(["kafka-0-6", name], Deed.REQUEUED, pytest.fail)
    assert len(await desk.look(10)) == 3
    assert [each.id for each in await desk.look(2)] == ["kafka-0-4", "kafka-0-5"]
    assert len(events_of(place)) == 3


async def test_a_letter_whose_witness_fails_stays(place):
    desk = KafkaLetters(place)
    put(place, 4, message(2))

    def stumble(_):
        raise PermanentError("no room")

    with pytest.raises(PermanentError, match="no room"):
        await desk.settle(["kafka-0-4"], Deed.DROPPED, stumble)
    assert len(await desk.look(10)) == 1


async def test_brokers_that_are_away_and_a_topic_that_is_not_there_are_told(kafka, monkeypatch):
    monkeypatch.setattr("exchange.adapters.kafka_letters.TIMEOUT_S", 1.0)
    with pytest.raises(TemporaryError, match="cannot be read"):
        await KafkaLetters(KafkaPlace(bootstrap="127.0.0.1:1")).look(1)
    nowhere = new_place(kafka)
    with pytest.raises(PermanentError, match=f"topic {nowhere.dead}"):
        await KafkaLetters(nowhere).look(1)
