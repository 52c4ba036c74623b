# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The port `Journal`: files and a Kafka partition keep the same promises."""

import pytest
from confluent_kafka import KafkaError, Producer

from exchange.adapters.file_log import FileLog, LogFailedError
from exchange.adapters.kafka_log import KafkaLog
from exchange.adapters.kafka_topics import prepare
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.flow import OrderFlow
from exchange.journal import decode_command, encode_command
from exchange.ports import Journal
from exchange.types import Instrument
from kernel.errors import PermanentError
from tests.exchange.plant import FailingDisk, order
from tests.kafka_brokers import new_place

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))


class Files:
    """Journals in files."""

    def __init__(self, tmp_path):
        self.directory = tmp_path / "journal"
        self.disk = FailingDisk()

    def open(self) -> Journal:
        return FileLog(self.directory, disk=self.disk)

    def break_under(self, log):
        self.disk.broken = True

    def mend(self):
        self.disk.broken = False

    def foreign(self, log):
        (segment,) = [path for path in self.directory.iterdir() if path.suffix == ".log"]
        with segment.open("ab") as file:
            file.write(b"somebody else's line, long enough for a head\n")


class Brokers:
    """Journals on real brokers."""

    def __init__(self, cluster):
        self.place = new_place(cluster, delivery_s=60.0)
        prepare(self.place)

    def open(self) -> Journal:
        return KafkaLog(self.place)

    def break_under(self, log):
        """As the client tells it when the brokers did not take a record in time; `test_kafka_faults` has them do it."""
        log._delivered(KafkaError(KafkaError._MSG_TIMED_OUT), None)

    def mend(self):
        pass

    def foreign(self, log):
        producer = Producer(self.place.client())
        producer.produce(self.place.commands, b"somebody else's line", partition=0)
        assert producer.flush(60) == 0


@pytest.fixture(params=["files", pytest.param("kafka", marks=pytest.mark.kafka)])
def made(request, tmp_path):
    if request.param == "files":
        return Files(tmp_path)
    return Brokers(request.getfixturevalue("kafka"))


def records(count, first=1):
    return [encode_command(Sequenced(seq, seq * 1_000, order(f"c-{seq}"))) for seq in range(first, first + count)]


def test_an_empty_journal_begins_with_record_one(made):
    log = made.open()
    assert (log.first_seq, log.last_seq, log.synced_seq, log.failed) == (1, 0, 0, False)
    assert list(log.replay()) == []
    log.close()


def test_what_was_synced_is_read_again_in_order_and_goes_on_where_it_ended(made):
    log = made.open()
    assert log.append(records(3)) == 3
    assert log.sync() == 3 == log.synced_seq
    assert log.append(records(2, 4)) == 5
    assert log.synced_seq == 3
    assert log.sync() == 5
    log.close()
    log = made.open()
    assert (log.first_seq, log.last_seq, log.synced_seq) == (1, 5, 5)
    assert [(record.seq, record.payload) for record in log.replay()] == list(enumerate(records(5), 1))
    assert log.append(records(1, 6)) == 6
    log.sync()
    log.close()
    again = made.open()
    assert [record.seq for record in again.replay(4)] == [4, 5, 6]
    assert [record.seq for record in again.replay(6)] == [6]
    assert list(again.replay(7)) == []
    again.close()


def test_a_replay_from_the_beginning_gives_the_engines_hash(made):
    engine, flow, log = Engine(INSTRUMENTS), OrderFlow(7, INSTRUMENTS, ("p", "q", "r")), made.open()
    for first in range(1, 2_000, 100):
        batch = [Sequenced(seq, seq * 1_000, next(flow)) for seq in range(first, first + 100)]
        log.append([encode_command(item) for item in batch])
        for item in batch:
            flow.observe(engine.apply(item))
        log.sync()
    log.close()
    back, log = Engine(INSTRUMENTS), made.open()
    for record in log.replay():
        back.apply(decode_command(record.payload))
    log.close()
    assert back.sequence == 2_000
    assert back.state_hash() == engine.state_hash()


def test_after_a_close_nothing_is_taken(made):
    log = made.open()
    log.close()
    log.close()
    assert log.failed
    with pytest.raises(LogFailedError, match="takes nothing more"):
        log.append(records(1))


def test_after_a_failure_nothing_is_taken_until_it_is_opened_again(made):
    log = made.open()
    log.append(records(2))
    log.sync()
    made.break_under(log)
    log.append(records(1, 3))
    with pytest.raises(LogFailedError, match="takes nothing more"):
        log.sync()
    made.mend()
    assert log.failed
    assert log.synced_seq == 2
    for attempt in (lambda: log.append(records(1, 4)), log.sync):
        with pytest.raises(LogFailedError):
            attempt()
    log.close()


def test_what_somebody_else_wrote_is_told_with_its_place_and_nothing_is_changed(made):
    log = made.open()
    log.append(records(2))
    log.sync()
    made.foreign(log)
    log.close()
    for _ in range(2):
        with pytest.raises(PermanentError, match=r"nothing was changed"):
            made.open()


def test_ten_thousand_records_at_once_are_taken_whole(made):
    log = made.open()
    assert log.append(records(10_000)) == 10_000
    assert log.sync() == 10_000
    assert sum(1 for _ in log.replay(9_001)) == 1_000
    log.close()
