"""Real Kafka brokers that a session's tests share, and clusters of their own for tests that kill.

Tests that ask for `kafka` or `kafka_home` bear the marker `kafka`. Topics have a name of the test's own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.servers import kafka as kafka_server
from control.servers.kafka_cluster import Cluster
from control.settings import load_settings
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare

REQUIRED = "SERVERS_REQUIRED"
"""Set where the tests must not pass by being skipped."""


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    found = kafka_server.find(load_settings().kafka_home)
    if found is None:
        why = "Kafka is not there; `make servers` fetches it"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def kafka(kafka_home: Path) -> Iterator[Cluster]:
    """The session's three brokers: start in nine seconds. Who kills one starts it again."""
    with Cluster(kafka_home, brokers=3) as cluster:
        yield cluster


@pytest.fixture
def kafka_place(kafka: Cluster) -> KafkaPlace:
    """Topics that no other test has, made."""
    place = new_place(kafka)
    prepare(place)
    return place


def new_place(cluster: Cluster, **more: object) -> KafkaPlace:
    return KafkaPlace(bootstrap=cluster.bootstrap, topic=f"t{uuid.uuid4().hex[:10]}", **more)  # type: ignore[arg-type]
