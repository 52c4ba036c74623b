"""Brokers of one's own, named by settings: who is told of them, and what is refused with one sentence."""

import pytest

from control import plan, preflight, server_plan
from control.config import KafkaAccess
from control.settings import load_settings
from exchange.adapters import kafka_topics
from kernel.errors import InputError, PermanentError

BROKERS = "k1.example:9092,k2.example:9092"


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_engine_is_told_of_the_brokers_that_the_settings_name_and_gateways_are_not():
    named = load_settings(
        journal="kafka", kafka_bootstrap=BROKERS, kafka_topic="plant", kafka_copies=5, kafka_needed=3, ports="auto"
    )
    ports = plan.choose_ports(named)
    told = KafkaAccess(bootstrap=BROKERS, topic="plant", copies=5, needed=3)
    assert server_plan.kafka_access(named, ports, "engine") == told
    assert server_plan.kafka_access(named, ports, "gateway") is None
    assert server_plan.kafka_access(load_settings(ports="auto"), ports, "engine") is None


def test_a_distributed_estate_starts_no_brokers_where_others_are_named():
    given = {"estate": "distributed", "services": ("kafka", "zipkin")}
    assert [one.name for one in server_plan.services(load_settings(**given))] == ["kafka", "zipkin"]
    named = load_settings(**given, journal="kafka", kafka_bootstrap=BROKERS)
    assert [one.name for one in server_plan.services(named)] == ["zipkin"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"journal": "kafka"}, "kafka_bootstrap names no broker"),
        ({"kafka_bootstrap": BROKERS}, "journal is files: set TAPEWATCH_JOURNAL=kafka"),
        ({"journal": "kafka", "kafka_bootstrap": BROKERS, "on": "kubernetes"}, "leave out --on kubernetes"),
        ({"kafka_needed": 4}, r"kafka_needed is 4, more than kafka_copies \(3\)"),
        ({"journal": "kafka", "kafka_bootstrap": "k1.example"}, "kafka_bootstrap"),
        ({"journal": "kafka", "kafka_bootstrap": BROKERS, "kafka_topic": "a b"}, "kafka_topic"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        load_settings(**given)


def test_brokers_that_do_not_answer_are_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(kafka_topics, "TIMEOUT_S", 1.0)
    (port,) = plan.free_ports(1)
    named = load_settings(journal="kafka", kafka_bootstrap=f"127.0.0.1:{port}")
    with pytest.raises(PermanentError) as caught:
        preflight.check_kafka(named)
    told = str(caught.value)
    assert told.startswith(f"setting kafka_bootstrap (127.0.0.1:{port}): no Kafka broker answers")
    assert told.endswith("start the brokers, or set TAPEWATCH_JOURNAL=files")
    assert "\n" not in told
