# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""`traceparent` on real brokers: on the messages of orders that are kept, in their order among those without."""

import pytest
from confluent_kafka import TopicPartition

from exchange.adapters.kafka_events import KafkaEvents
from exchange.adapters.kafka_log import KafkaLog, reader
from exchange.commands import Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.journal import Kind, encode_command, encode_events
from exchange.messages import unseal
from exchange.order_trace import context_of
from exchange.types import Instrument, Side
from kernel.trace import is_place_kept, order_trace_id

pytestmark = pytest.mark.kafka
COUNT = 300
SHARE = 0.1


def messages(place, topic):
    consumer = reader(place)
    try:
        consumer.assign([TopicPartition(topic, place.partition, 0)])
        found = []
        while len(found) < COUNT:
            found += [one for one in consumer.consume(COUNT, 5.0) if one.error() is None]
        return found
    finally:
        consumer.close()


def placed(seq):
    return Sequenced(seq, seq, PlaceOrder("ann", f"c{seq}", "AAA", Side.BUY, 1, Limit(1_000)))


def test_commands_and_events_of_kept_orders_carry_their_trace_and_stand_in_order(kafka_place):
    engine = Engine((Instrument("AAA", 1_000, 200),))
    items = [placed(seq) for seq in range(1, COUNT + 1)]
    happened = [Happened(item.seq, item.at, engine.apply(item)) for item in items]
    with KafkaLog(kafka_place, traced=SHARE) as log:
        log.append([encode_command(item) for item in items])
        log.sync()
    events = KafkaEvents(kafka_place, traced=SHARE)
    events.begin()
    events.publish(1, [encode_events(one) for one in happened])
    events.close()
    for topic, kind in ((kafka_place.commands, Kind.COMMANDS), (kafka_place.events, Kind.EVENTS)):
        found = messages(kafka_place, topic)
        assert [unseal(one.value(), kind).seq for one in found] == list(range(1, COUNT + 1))
        for seq, one in enumerate(found, 1):
            context = context_of(one.headers())
            assert (context is not None) == is_place_kept(seq, SHARE)
            assert context is None or (context.trace_id, context.sampled) == (order_trace_id("ann", f"c{seq}"), True)
    assert 20 <= sum(is_place_kept(seq, SHARE) for seq in range(1, COUNT + 1)) <= 40
