# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Real brokers die, lie and come back: nothing that was acknowledged is lost, nothing is there twice."""

import threading
import time

import pytest
from confluent_kafka.admin import AdminClient

from exchange.adapters.file_log import LogFailedError
from exchange.adapters.kafka_log import KafkaLog, read_journal
from exchange.adapters.kafka_topics import prepare
from exchange.commands import Sequenced
from exchange.journal import encode_command
from kernel.errors import TemporaryError
from tests.exchange.plant import order
from tests.kafka_brokers import new_place

pytestmark = pytest.mark.kafka


def records(count, first=1):
    return [encode_command(Sequenced(seq, seq * 1_000, order(f"c-{seq}"))) for seq in range(first, first + count)]


def seqs(place):
    return [record.seq for record in read_journal(place)]


class Load:
    """A writer on a thread of its own: groups of 50, as fast as they are acknowledged."""

    def __init__(self, log):
        self.log, self.acknowledged, self.error, self.longest_s = log, log.synced_seq, None, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.log.append(records(50, self.log.last_seq + 1))
                self.acknowledged = self.log.sync()
            except LogFailedError as error:
                self.error = error
                return
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def wait_for_more(self, records, within_s=30):
        until, from_seq = time.monotonic() + within_s, self.acknowledged
        while self.acknowledged < from_seq + records and self.error is None:
            assert time.monotonic() < until, "nothing is acknowledged any more"
            time.sleep(0.02)

    def stop(self):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_one_of_three_is_killed_under_load_and_nothing_acknowledged_is_lost_or_there_twice(kafka, kafka_place):
    log = KafkaLog(kafka_place)
    load = Load(log)
    load.wait_for_more(500)
    leader = AdminClient(kafka_place.client()).list_topics(kafka_place.commands, timeout=5)
    broker = leader.topics[kafka_place.commands].partitions[0].leader
    kafka.kill(broker)
    try:
        load.wait_for_more(500)
    finally:
        kafka.start_one(broker)
    load.wait_for_more(500)
    load.stop()
    assert load.error is None
    log.close()
    assert seqs(kafka_place) == list(range(1, load.acknowledged + 1))


def test_without_a_majority_nothing_is_acknowledged_and_nothing_is_lost_when_it_is_back(kafka):
    place = new_place(kafka, delivery_s=3.0)
    prepare(place)
    log = KafkaLog(place)
    load = Load(log)
    load.wait_for_more(200)
    # Two of three partitions' copies gone: the third must not say that it has a record.
    kafka.kill(1, 2)
    try:
        killed_at, before = time.monotonic(), load.acknowledged
        while load.error is None:
            assert time.monotonic() < killed_at + 20, "a failure should be told"
            time.sleep(0.05)
        # What was under way when they died may have been taken; after that nothing.
        assert load.acknowledged <= before + 50
        assert "the brokers did not take the records" in str(load.error)
        with pytest.raises(LogFailedError):
            log.append(records(1, log.last_seq + 1))
        load.stop()
        log.close()
    finally:
        kafka.start_one(1, wait=False)
        kafka.start_one(2)
    again = opened(place)
    assert seqs(place) == list(range(1, again.last_seq + 1))
    assert load.acknowledged <= again.last_seq <= load.acknowledged + 50
    again.append(records(1, again.last_seq + 1))
    assert again.sync() == again.last_seq
    again.close()


def opened(place, within_s=30):
    """Open a log as an engine's supervisor would: again and again until the brokers are ready for it."""
    until = time.monotonic() + within_s
    while True:
        try:
            return KafkaLog(place)
        except TemporaryError:
            assert time.monotonic() < until
            time.sleep(0.2)
