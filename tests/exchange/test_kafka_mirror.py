# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""A journal followed in another region: the copy is the source's beginning, byte for byte, and fencing ends it."""

import contextlib
import threading
import time

import pytest
from confluent_kafka import Producer

from exchange.adapters import kafka_mirror
from exchange.adapters.file_log import FencedError, LogHeldError
from exchange.adapters.kafka_engine import EngineLog
from exchange.adapters.kafka_listing import last, publish
from exchange.adapters.kafka_log import KafkaLog, TopicCorruptError, read_journal
from exchange.adapters.kafka_mirror import Mirror
from exchange.adapters.kafka_topics import prepare
from exchange.journal import Kind
from exchange.messages import seal
from exchange.recording import RecordingLog
from kernel.errors import PermanentError
from tests.exchange.test_kafka_faults import Load, records
from tests.kafka_brokers import new_place

pytestmark = pytest.mark.kafka


class Told:
    """A telemetry that remembers."""

    def __init__(self):
        self.seq, self.connected, self.lag, self.behind_s = 0, None, None, None

    def mirrored(self, seq, records):
        self.seq = seq

    def looked(self, *, connected, lag, behind_s):
        self.connected, self.lag, self.behind_s = connected, lag, behind_s


class Running:
    """A mirror on a thread of its own."""

    def __init__(self, source, target, **more):
        self.told, self.error, self._stop = Told(), None, threading.Event()
        self._mirror = Mirror(source, target, self.told, RecordingLog(), **more)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._mirror.run(self._stop)
        except PermanentError as error:
            self.error = error

    def wait(self, condition, within_s=90):
        until = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < until, f"not so in time; it stands at {self.told.seq}, {self.error}"
            time.sleep(0.02)

    def stop(self):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def regions(kafka):
    source, target = new_place(kafka), new_place(kafka)
    prepare(source)
    return source, target


def payloads(place):
    return [record.payload for record in read_journal(place)]


def test_what_is_durable_there_is_here_in_the_same_order_and_goes_on_after_a_stop(regions):
    source, target = regions
    with KafkaLog(source) as log:
        load = Load(log)
        load.wait_for_more(500)
        mirror = Running(source, target)
        mirror.wait(lambda: mirror.told.seq > 500)
        mirror.stop()
        load.wait_for_more(500)
        mirror = Running(source, target)
        load.stop()
        mirror.wait(lambda: mirror.told.seq >= load.acknowledged)
        # The end of a transaction takes a place there too, and is no record that is missing here.
        mirror.wait(lambda: mirror.told.connected and (mirror.told.lag, mirror.told.behind_s) == (0, 0.0))
    mirror.wait(lambda: mirror.told.lag == 0)
    mirror.stop()
    assert mirror.error is None
    assert payloads(target) == payloads(source)


def test_an_engine_that_takes_over_ends_the_mirror_and_nothing_of_the_old_region_follows(regions):
    source, target = regions
    with KafkaLog(source) as old:
        old.append(records(10))
        old.sync()
        mirror = Running(source, target)
        mirror.wait(lambda: mirror.told.seq == 10)
        with KafkaLog(target) as new:
            new.append(records(1, 11))
            new.sync()
            old.append(records(5, 11))
            old.sync()
            mirror.wait(lambda: mirror.error is not None)
            assert isinstance(mirror.error, FencedError)
            new.append(records(1, 12))
            new.sync()
    assert [record.seq for record in read_journal(target)] == list(range(1, 13))


def test_a_source_that_lacks_a_record_is_refused_and_one_that_is_another_journal(regions, kafka):
    source, target = regions
    producer = Producer(source.client({"acks": "all"}))
    for seq in (1, 2, 4):
        producer.produce(source.commands, seal(Kind.COMMANDS, seq, records(1, seq)[0]), partition=0)
    assert producer.flush(60) == 0
    mirror = Running(source, target)
    mirror.wait(lambda: mirror.error is not None)
    assert isinstance(mirror.error, TopicCorruptError)
    assert "record 4 stands where 3 should" in str(mirror.error)
    assert [record.seq for record in read_journal(target)] in ([1, 2], [])
    empty = new_place(kafka)
    prepare(empty)
    with KafkaLog(target) as log, contextlib.suppress(PermanentError):
        log.append(records(3, log.last_seq + 1))
        log.sync()
    mirror = Running(empty, target)
    mirror.wait(lambda: mirror.error is not None)
    assert "another journal" in str(mirror.error)


def test_a_region_of_several_engines_is_refused_because_most_of_it_would_not_come_over(regions, kafka):
    several = new_place(kafka, partitions=2)
    prepare(several)
    mirror = Running(several, regions[1])
    mirror.wait(lambda: mirror.error is not None)
    assert "has 2 partitions, one for each engine there" in str(mirror.error)


def test_a_source_that_does_not_answer_is_waited_for(regions):
    source, target = regions
    away = Running(new_place_at("127.0.0.1:1"), target)
    away.wait(lambda: away.told.connected is False)
    away.stop()
    assert away.error is None
    assert source


def test_brokers_here_that_do_not_answer_are_not_said_to_be_the_other_regions(regions):
    source, _ = regions
    with KafkaLog(source) as log:
        log.append(records(10))
        log.sync()
    mirror = Running(source, new_place_at("127.0.0.1:1"))
    mirror.wait(lambda: mirror.told.connected is True)
    assert (mirror.told.lag, mirror.told.behind_s) == (None, None)
    mirror.stop()
    assert mirror.error is None


def test_what_cannot_be_copied_on_is_looked_at_all_the_same(regions):
    source, target = regions
    told, stop = Told(), threading.Event()
    watching = threading.Thread(target=Mirror(source, target, told, RecordingLog()).watch, args=(stop,), daemon=True)
    watching.start()
    until = time.monotonic() + 60
    while told.connected is not True:
        assert time.monotonic() < until
        time.sleep(0.02)
    stop.set()
    watching.join(60)
    assert (told.seq, told.lag) == (0, None)


def new_place_at(bootstrap):
    from exchange.adapters.kafka_topics import KafkaPlace

    return KafkaPlace(bootstrap=bootstrap)


def test_what_is_traded_there_comes_over_when_it_is_said_and_when_it_changes_and_is_said_once(regions, monkeypatch):
    monkeypatch.setattr(kafka_mirror, "_LISTING_S", 0.1)
    (source, target), kept = regions, []
    assert last(source) is None

    def keep(data):
        kept.append(data)
        return len(kept) > 1  # the first time it could not be kept

    mirror = Running(source, target, listing=keep)
    mirror.wait(lambda: mirror.told.connected)
    assert publish(source, b"one")
    assert not publish(source, b"one"), "said already"
    mirror.wait(lambda: len(kept) == 2)
    large = bytes(range(256)) * 8_000  # two megabytes, which a broker takes compressed
    assert publish(source, large)
    mirror.wait(lambda: len(kept) == 3)
    mirror.stop()
    assert kept == [b"one", b"one", large]
    assert last(source) == large


def test_a_narrow_way_lets_so_many_over_and_the_rest_is_told_as_lag(regions):
    source, target = regions
    rate = [20.0]
    with KafkaLog(source) as log:
        log.append(records(200))
        log.sync()
        mirror = Running(source, target, records_per_s=lambda: rate[0])
        mirror.wait(lambda: mirror.told.seq >= 20 and mirror.told.lag)  # it looks after it copied
        assert mirror.told.seq < 200
        rate[0] = 0.0
        mirror.wait(lambda: mirror.told.lag == 0)
        assert mirror.told.seq == 200
        mirror.stop()


def test_an_engine_says_what_it_trades_before_its_first_command_and_one_started_twice_says_nothing(regions, tmp_path):
    source, _ = regions
    with EngineLog(source, tmp_path / "journal", listing=b"mine"):
        assert last(source) == b"mine"
        with pytest.raises(LogHeldError):
            EngineLog(source, tmp_path / "journal", listing=b"another")
        assert last(source) == b"mine"
