# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Real brokers die, lie and come back: nothing that was acknowledged is lost, nothing is there twice."""

import threading
import time

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not exported by its annotations

from control.servers.kafka_cluster import Cluster
from exchange.adapters.file_log import FencedError, LogFailedError
from exchange.adapters.kafka_log import KafkaLog, TopicCorruptError, read_journal
from exchange.adapters.kafka_topics import check_cluster, prepare
from exchange.commands import Sequenced
from exchange.journal import Kind, encode_command
from exchange.messages import SCHEMA_VERSION, seal
from kernel.errors import PermanentError, TemporaryError
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

    def wait_for_more(self, records, within_s=90):
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
    leader = AdminClient(kafka_place.client()).list_topics(kafka_place.commands, timeout=60)
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
            assert time.monotonic() < killed_at + 60, "a failure should be told"
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
    place = msgspec.structs.replace(place, delivery_s=60.0)  # the brokers find together again in their own time
    again = opened(place)
    assert seqs(place) == list(range(1, again.last_seq + 1))
    assert load.acknowledged <= again.last_seq <= load.acknowledged + 50
    again.append(records(1, again.last_seq + 1))
    assert again.sync() == again.last_seq
    again.close()


def opened(place, within_s=90):
    """Open a log as an engine's supervisor would: again and again until the brokers are ready for it."""
    until = time.monotonic() + within_s
    while True:
        try:
            return KafkaLog(place)
        except TemporaryError:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_an_engine_that_comes_later_fences_the_older_one_off(kafka_place):
    old = KafkaLog(kafka_place)
    old.append(records(100))
    old.sync()
    new = KafkaLog(kafka_place)
    assert new.last_seq == 100
    began = sum(1 for _ in read_journal(kafka_place))
    # The older one is not told: it goes on, with the numbers that come next for the new one too.
    with pytest.raises(FencedError, match="another engine has opened this partition"):  # noqa: PT012 - which of the two
        old.append(records(50, 101))
        old.sync()
    assert old.failed
    new.append(records(3, 101))
    new.sync()
    with pytest.raises(FencedError):
        old.append(records(1, 101))
    old.close()
    new.append(records(1, 104))
    new.sync()
    new.close()
    assert began == 100
    assert [record.payload for record in read_journal(kafka_place)] == records(104)


def test_of_two_engines_under_load_the_older_writes_nothing_after_the_newer_began(kafka_place):
    old = KafkaLog(kafka_place)
    load = Load(old)
    load.wait_for_more(500)
    new = KafkaLog(kafka_place)
    began_at = new.last_seq
    mine = [encode_command(Sequenced(began_at + 1 + n, 7, order(f"new-{n}"))) for n in range(200)]
    for one in mine:
        new.append([one])
        new.sync()
    load.stop()
    assert isinstance(load.error, FencedError)
    new.close()
    old.close()
    assert load.acknowledged <= began_at
    found = list(read_journal(kafka_place))
    assert [record.seq for record in found] == list(range(1, began_at + 201))
    assert [record.payload for record in found[began_at:]] == mine


def test_a_transaction_that_is_held_too_long_is_ended_and_begun_anew_and_nobody_is_fenced(kafka_place):
    log = KafkaLog(kafka_place, held_s=0.2)
    for first in range(1, 200, 10):
        log.append(records(10, first))
        log.sync()
        time.sleep(0.05)
    until = time.monotonic() + 60
    while log._began_at is not None:
        assert time.monotonic() < until, "it is held for ever"
        time.sleep(0.05)
    log.append(records(1, 201))
    assert log.sync() == 201
    log.close()
    assert seqs(kafka_place) == list(range(1, 202))
    again = KafkaLog(kafka_place)
    assert again.last_seq == 201
    assert [record.seq for record in again.replay(150)] == list(range(150, 202))
    again.close()


def test_brokers_of_two_clusters_are_refused_whatever_they_call_themselves(kafka, kafka_home):
    with Cluster(kafka_home, cluster_id=kafka.cluster_id) as liar:
        both = new_place(kafka)
        both = msgspec.structs.replace(both, bootstrap=f"{kafka.bootstrap},{liar.bootstrap}")
        with pytest.raises(PermanentError, match="one of them is not what it says"):
            check_cluster(both)
    # The address that is gone says nothing; the others agree.
    assert check_cluster(both) == kafka.cluster_id
    with pytest.raises(PermanentError, match=r"not to AAAAAAAAAAAAAAAAAAAAAA: nothing was written"):
        prepare(msgspec.structs.replace(both, cluster_id="AAAAAAAAAAAAAAAAAAAAAA"))
    assert not [name for name in AdminClient(both.client()).list_topics(timeout=60).topics if both.topic in name]
    with pytest.raises(TemporaryError, match="no Kafka broker answers"):
        check_cluster(msgspec.structs.replace(both, bootstrap=liar.bootstrap))


@pytest.mark.parametrize(
    ("topic", "config", "why"),
    [
        ({"replication_factor": 1}, {}, "a partition has 1 copies, not 3"),
        ({"num_partitions": 2}, {}, "2 partitions, not 1: symbols would move"),
        ({}, {"min.insync.replicas": "1"}, "min.insync.replicas is 1, not 2"),
        ({}, {"retention.ms": "3600000"}, "retention.ms is 3600000, not -1"),
        ({}, {"cleanup.policy": "compact"}, "cleanup.policy is compact, not delete"),
        ({}, {"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable is true"),
    ],
)
def test_a_topic_that_could_lose_something_is_refused(kafka, topic, config, why):
    place = new_place(kafka)
    made = {"num_partitions": 1, "replication_factor": 3} | topic
    safe = {"retention.ms": "-1", "retention.bytes": "-1", "min.insync.replicas": "2"} | config
    admin = AdminClient(place.client())
    admin.create_topics([NewTopic(place.commands, config=safe, **made)])[place.commands].result()
    with pytest.raises(PermanentError, match=f"not safe for a journal: .*{why}"):
        prepare(place)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (seal(Kind.COMMANDS, 5, b"\x80"), "record 5 stands where 4 should"),
        (seal(Kind.COMMANDS, 3, b"\x80"), "record 3 stands where 4 should"),
        (seal(Kind.EVENTS, 4, b"\x80"), "of kind 2, where 1 was expected"),
        (b"{}", "2 bytes are too few"),
        (None, "0 bytes are too few"),
        (seal(Kind.COMMANDS, 4, b"\x80")[:-1] + b"\x81", "does not fit its checksum"),
    ],
)
def test_what_does_not_belong_into_a_journal_is_told_with_its_offset(kafka_place, value, why):
    with KafkaLog(kafka_place) as log:
        log.append(records(3))
        log.sync()
    stranger, places = Producer(kafka_place.client()), []
    stranger.produce(kafka_place.commands, value, partition=0, on_delivery=lambda _, sent: places.append(sent.offset()))
    assert stranger.flush(60) == 0
    with pytest.raises(TopicCorruptError, match=why) as caught:
        seqs(kafka_place)
    # Three records, and the end of their transaction takes an offset too: before the stranger's message or behind it.
    assert places in ([3], [4])
    assert (caught.value.partition, caught.value.offset) == (0, places[0])


def test_a_message_of_a_newer_program_stops_the_replay_and_says_so(kafka_place, monkeypatch):
    monkeypatch.setattr("exchange.messages.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    newer = seal(Kind.COMMANDS, 1, records(1)[0])
    monkeypatch.undo()
    stranger = Producer(kafka_place.client())
    stranger.produce(kafka_place.commands, newer, partition=0)
    assert stranger.flush(60) == 0
    with pytest.raises(PermanentError, match=r"offset 0: .*schema version 2; this program reads 1"):
        KafkaLog(kafka_place)
