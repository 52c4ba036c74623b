"""What a host tells of its Kafka broker is what that broker says now, and nothing once it says nothing."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import socket
import struct
import threading
import time
import uuid

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from control.plan import free_ports
from control.servers.hosted import ServerConfig
from control.servers.hosted_kafka import HostedKafka
from control.servers.kafka_observe import ASK_S, LOOK_S, KafkaObserver
from control.servers.kafka_wire import BrokerLine, BrokerSilentError
from exchange.adapters.kafka_topics import KafkaPlace, prepare
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role

WITHIN_S = 0.5


def text(word):
    return struct.pack(">h", len(word)) + word.encode()


def array(parts):
    return struct.pack(">i", len(parts)) + b"".join(parts)


def numbers(*each):
    return array([struct.pack(">i", one) for one in each])


def metadata(brokers, partitions):
    """Metadata, version 7, as the protocol's page has it."""
    told = [
        struct.pack(">i", number) + text("127.0.0.1") + struct.pack(">i", port) + b"\xff\xff"
        for number, port in brokers
    ]
    parts = [
        struct.pack(">hiii", 0, number, leader, 0) + numbers(*replicas) + numbers(*in_sync) + numbers()
        for number, leader, replicas, in_sync in partitions
    ]
    topic = struct.pack(">h", 0) + text("t") + b"\x00" + array(parts)
    return struct.pack(">i", 0) + array(told) + text("cluster") + struct.pack(">i", 1) + array([topic])


class FakeBroker:
    """Answers each request by its kind with what it was given, or in a way that no broker should."""

    def __init__(self, answers=None, how=None):
        self.answers, self.how, self.asked = dict(answers or {}), how, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open = []
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            one.close()

    def _accept(self):
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(line)
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line):
        try:
            while head := line.recv(4):
                request = line.recv(struct.unpack(">i", head)[0])
                key, _, number = struct.unpack(">hhi", request[:8])
                self.asked.append(key)
                if self.how is not None:
                    self.how(line, number)
                elif key in self.answers:
                    body = struct.pack(">i", number) + self.answers[key]
                    line.sendall(struct.pack(">i", len(body)) + body)
        except OSError:
            return


def hang_up(line, _):
    line.close()


def say_little(line, number):
    line.sendall(struct.pack(">ii", 8, number))


def say_another(line, number):
    line.sendall(struct.pack(">iii", 8, number + 1, 0))


def say_too_much(line, _):
    line.sendall(struct.pack(">i", 2**30))


def say_nonsense(line, number):
    body = struct.pack(">iii", number, 0, 2**30)
    line.sendall(struct.pack(">i", len(body)) + body)


def drip(line, number):
    body = struct.pack(">i", 4000) + struct.pack(">i", number)
    for byte in body + bytes(4000):
        line.sendall(bytes([byte]))
        time.sleep(0.05)


def be_silent(_, __):
    pass


@pytest.mark.parametrize("how", [hang_up, say_little, say_another, say_too_much, say_nonsense, drip, be_silent])
def test_a_broker_that_does_not_answer_like_one_is_silent_within_the_time_and_asked_anew_later(how):
    with FakeBroker(how=how) as broker:
        line = BrokerLine("127.0.0.1", broker.port, timeout_s=WITHIN_S)
        began = time.monotonic()
        with pytest.raises(BrokerSilentError, match=f"127.0.0.1:{broker.port}"):
            line.seen()
        assert time.monotonic() - began < 20 * WITHIN_S, "not the 200 s for which one of them drips"
        broker.how, broker.answers = None, {3: metadata([(1, broker.port)], [])}
        assert set(line.seen().brokers) == {1}
        line.close()


def told(exporter):
    return {
        (name, *(labels[key] for key in ("consumergroup", "topic", "partition") if key in labels)): value
        for name, labels, value in samples(exporter.render())
        if name.startswith("kafka_")
    }


def test_nothing_but_its_silence_and_its_disk_is_told_of_a_broker_that_stopped_answering(tmp_path):
    with FakeBroker() as broker:
        broker.answers = {3: metadata([(1, broker.port), (3, 1)], [(0, 1, (1, 2, 3), (1, 3)), (1, 2, (1, 2, 3), (3,))])}
        observer, exporter = KafkaObserver(1, "127.0.0.1", broker.port, tmp_path), Exporter(Role.KAFKA)
        assert observer.ready() == (True, "broker 1 serves, of 2 that it knows")
        observer.observe(exporter)
        seen = told(exporter)
        assert seen["kafka_broker_up",] == 1
        assert seen["kafka_brokers",] == 2
        assert seen["kafka_controller_known",] == 0, "nobody answered who leads"
        assert seen["kafka_offline_partitions",] == 1, "broker 2 leads one and is not registered"
        assert seen["kafka_topic_partition_in_sync_replica", "t", "0"] == 2
        assert seen["kafka_topic_partition_under_replicated_partition", "t", "1"] == 1
        broker.how = be_silent
        assert not observer.ready()[0]
        observer.observe(exporter)
        assert {name for name, *_ in told(exporter)} == {"kafka_broker_up", "kafka_log_dir_free_bytes"}
        assert told(exporter)["kafka_broker_up",] == 0
        observer.close()


def test_a_broker_that_its_cluster_does_not_count_is_not_ready(tmp_path):
    with FakeBroker() as broker:
        broker.answers = {3: metadata([(2, 1)], [])}
        observer = KafkaObserver(1, "127.0.0.1", broker.port, tmp_path)
        assert observer.ready() == (False, "broker 1 answers, and is not registered with the controllers yet")
        observer.close()


def test_a_look_at_a_broker_that_answers_only_half_of_it_waits_for_few_answers(tmp_path):
    with FakeBroker() as broker:
        broker.answers = {3: metadata([(1, broker.port)], [(0, 1, (1,), (1,))])}
        observer, exporter = KafkaObserver(1, "127.0.0.1", broker.port, tmp_path), Exporter(Role.KAFKA)
        observer.ready()
        observer.observe(exporter)
        unanswered = [key for key in broker.asked if key not in broker.answers]
        assert 0 < len(unanswered) * ASK_S <= LOOK_S + ASK_S, "a second and a half at most"
        observer.close()


# --- real brokers -----------------------------------------------------------------------------------------------------


def observers(cluster):
    return {one: KafkaObserver(one, "127.0.0.1", cluster.ports[one], cluster.directory) for one in cluster.ids}


def look(observer, exporter):
    observer.ready()
    observer.observe(exporter)
    return told(exporter)


def until(ask, within_s=90.0):
    """Ask until the answer is true; fails with the last one."""
    end = time.monotonic() + within_s
    while not (answer := ask()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)
    return answer


@pytest.mark.kafka
def test_a_group_is_told_of_by_its_coordinator_alone_with_lag_members_and_rebalances(kafka, kafka_place):
    watching, group = observers(kafka), f"g{uuid.uuid4().hex[:8]}"
    exporters = {one: Exporter(Role.KAFKA) for one in watching}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for _ in range(100):
        producer.produce(kafka_place.events, b"x", partition=0)
    assert producer.flush(60) == 0
    settings = {
        "bootstrap.servers": kafka.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0,
        "enable.auto.commit": False, "session.timeout.ms": 6000, "heartbeat.interval.ms": 300,
    }  # fmt: skip
    first, second = Consumer(settings), Consumer(settings)
    try:
        first.subscribe([kafka_place.events])
        message = until(lambda: (got := first.poll(0.2)) is not None and got.error() is None and got)
        first.commit(message=message, asynchronous=False)

        def of_group():
            seen = {one: look(observer, exporters[one]) for one, observer in watching.items()}
            # Who leads it tells all of it, unless the broker was too slow with one of the answers.
            return [one for one in seen.values() if one.keys() >= wanted]

        place = (group, kafka_place.events, "0")
        wanted = {
            ("kafka_consumergroup_members", group), ("kafka_consumergroup_rebalances_total", group),
            ("kafka_consumergroup_current_offset", *place), ("kafka_consumergroup_lag", *place),
        }  # fmt: skip
        (coordinator,) = until(of_group)
        assert coordinator["kafka_consumergroup_current_offset", *place] == 1
        assert coordinator["kafka_consumergroup_lag", *place] == 99
        assert coordinator["kafka_consumergroup_members", group] == 1
        assert coordinator["kafka_consumergroup_rebalances_total", group] == 0
        second.subscribe([kafka_place.events])
        wanted = {key for key in wanted if key[1:] == (group,)}  # where both stand is another matter

        def joined():
            first.poll(0.1)
            second.poll(0.1)
            return [
                now["kafka_consumergroup_rebalances_total", group]
                for now in of_group()  # nobody tells of it while the coordinator is slow to answer
                if now["kafka_consumergroup_members", group] == 2
            ]

        until(lambda: any(joined()))
    finally:
        first.close()
        second.close()
        for one in watching.values():
            one.close()


COUNTED = "kafka_consumergroup_rebalances_total"


def whole_of(told, place):
    """Return what a broker tells once it answered all that is asked of it in time."""
    names = ("kafka_topic_partition_in_sync_replica", "kafka_topic_partition_under_min_isr")
    return told if told.keys() >= {("kafka_controller_id",), *((name, *place) for name in names)} else None


@pytest.mark.kafka
def test_who_is_left_tells_of_copies_that_are_behind_and_of_an_end_without_a_leader(kafka, kafka_place):
    watching = observers(kafka)
    exporters = {one: Exporter(Role.KAFKA) for one in watching}
    place = (kafka_place.commands, "0")
    behind = ("kafka_topic_partition_under_replicated_partition", *place)
    try:
        whole = until(lambda: whole_of(look(watching[1], exporters[1]), place))
        assert whole["kafka_controller_known",] == 1
        assert whole["kafka_controller_id",] in {1, 2, 3}
        assert whole["kafka_topic_partition_in_sync_replica", *place] == 3
        assert whole["kafka_topic_partition_under_min_isr", *place] == 0

        def ends():
            told = [look(watching[one], exporters[one]) for one in watching]
            return [one for one in told if ("kafka_topic_partition_current_offset", *place) in one]

        assert len(until(ends)) == 1
        kafka.kill(2)
        told = {key for key in look(watching[2], exporters[2]) if key[0] != COUNTED}
        assert told == {("kafka_broker_up",), ("kafka_log_dir_free_bytes",)}, "counts of groups it led may stay"
        until(lambda: look(watching[1], exporters[1]).get(behind) == 1)
        until(lambda: look(watching[1], exporters[1]).get(("kafka_brokers",)) == 2)
        kafka.kill(3)
        until(lambda: look(watching[1], exporters[1]).get(("kafka_controller_known",)) == 0)
        assert ("kafka_controller_id",) not in look(watching[1], exporters[1])
        until(lambda: look(watching[1], exporters[1])["kafka_broker_up",] == 1)  # it believes its last list
    finally:
        for one in (2, 3):
            if one not in kafka.pids:
                kafka.start_one(one, wait=False)
        kafka.wait()
        until(lambda: look(watching[1], exporters[1]).get(behind) == 0)
        for observer in watching.values():
            observer.close()


@pytest.mark.kafka
def test_a_hosted_broker_tells_how_it_ended_and_is_ready_again_on_its_data(kafka_home, tmp_path):
    host, broker, controller = free_ports(3)
    config = ServerConfig(
        service="kafka", replica="kafka-1", state=str(tmp_path), directory=str(tmp_path / "data"),
        ports={"kafka-1": {"host": host, "broker": broker, "controller": controller}}, program=str(kafka_home),
    )  # fmt: skip
    hosted = HostedKafka(config)
    place = KafkaPlace(bootstrap=f"127.0.0.1:{broker}", topic="t", copies=1, needed=1)
    try:
        hosted.start()
        until(lambda: hosted.ready()[0], 60)
        assert hosted.ended() == ""
        cluster_id = prepare(place)
        (process,) = (one for one in psutil.Process().children() if str(tmp_path) in " ".join(one.cmdline()))
        process.kill()
        assert until(hosted.ended) == "Kafka broker 1 was killed by signal 9"
        hosted.stop()
        hosted.start()
        until(lambda: hosted.ready()[0], 60)
        assert prepare(place) == cluster_id
        exporter = Exporter(Role.KAFKA)
        until(lambda: look(hosted, exporter).get(("kafka_topic_partition_current_offset", "t.events", "0")) == 0.0)
    finally:
        hosted.stop()
