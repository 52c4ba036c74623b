"""Where an exchange's messages lie in Kafka: cluster, topics, and the settings without which nothing is durable.

A topic is made when it is not there, and refused when it could lose what was acknowledged: fewer copies or fewer needed
of them than asked for, an unclean election of leaders, or records that end by age, size or compaction.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its own annotations do not export them
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from exchange.adapters.kafka_place import KafkaPlace
from kernel.errors import PermanentError, TemporaryError

__all__ = ["TIMEOUT_S", "KafkaPlace", "check_cluster", "prepare", "prepare_listing"]

TIMEOUT_S: Final = 10.0
_LASTING: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "message.timestamp.type": "CreateTime",
}
_MUST: Final = ("cleanup.policy", "retention.ms", "retention.bytes", "unclean.leader.election.enable")


def prepare(place: KafkaPlace) -> str:
    """Check the cluster, make the topics that are missing, check those that are there; return the cluster's id.

    Raises:
        TemporaryError: no broker answers, or too few to hold the copies.
        PermanentError: the brokers are not one cluster, or another than was asked for; or a topic is not safe.
    """
    cluster_id = check_cluster(place)
    admin = AdminClient(place.client())
    for topic in (place.commands, place.events, place.dead):
        _make(admin, place, topic)
        _check_topic(admin, place, topic)
    return cluster_id


def prepare_listing(place: KafkaPlace) -> None:
    """Make the topic of what is traded, of one partition, or check it.

    Raises:
        TemporaryError: no broker answers, or too few to hold the copies.
        PermanentError: it is not safe.
    """
    admin, single = AdminClient(place.client()), msgspec.structs.replace(place, partitions=1)
    _make(admin, single, place.listing)
    _check_topic(admin, single, place.listing)


def check_cluster(place: KafkaPlace) -> str:
    """Ask every address on its own who it is; return the cluster's id.

    A client asks one address and believes it. If the others belong elsewhere, a journal would go on in another cluster
    the first time a broker is lost.

    Raises:
        TemporaryError: none answers.
        PermanentError: they contradict one another, or it is another cluster than was asked for.
    """
    said: dict[str, tuple[str, dict[int, str]]] = {}
    silent = ""
    for address in place.bootstrap.split(","):
        try:
            told = AdminClient(place.client({"bootstrap.servers": address})).list_topics(timeout=TIMEOUT_S / 4)
        except KafkaException as error:
            silent = f"{address}: {error.args[0].str()}"
            continue
        brokers = {number: f"{one.host}:{one.port}" for number, one in told.brokers.items()}
        said[address] = (str(told.cluster_id), brokers)
    if not said:
        raise TemporaryError(f"no Kafka broker answers ({silent})")
    first, (cluster_id, brokers) = next(iter(said.items()))
    for address, (other_id, other_brokers) in said.items():
        if other_id != cluster_id:
            raise PermanentError(
                f"{first} says it belongs to cluster {cluster_id}, {address} to {other_id}: name one cluster's brokers"
            )
        for number, place_of in other_brokers.items():
            if brokers.get(number, place_of) != place_of:
                raise PermanentError(
                    f"{first} says broker {number} is at {brokers[number]}, {address} says at {place_of}: one of them "
                    "is not what it says"
                )
    if place.cluster_id and place.cluster_id != cluster_id:
        raise PermanentError(f"{first} belongs to cluster {cluster_id}, not to {place.cluster_id}: nothing was written")
    return cluster_id


def _make(admin: AdminClient, place: KafkaPlace, topic: str) -> None:
    wanted = NewTopic(
        topic, num_partitions=place.partitions, replication_factor=place.copies,
        config={**_LASTING, "min.insync.replicas": str(place.needed)},
    )  # fmt: skip
    try:
        admin.create_topics([wanted], operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S)[topic].result()
    except KafkaException as error:
        told = error.args[0]
        if told.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TemporaryError(f"topic {topic} cannot be made: {told.str()}") from error


def _check_topic(admin: AdminClient, place: KafkaPlace, topic: str) -> None:
    found, config = _look_at(admin, topic)
    wrong = [f"{name} is {config[name]}, not {_LASTING[name]}" for name in _MUST if config[name] != _LASTING[name]]
    if len(found.partitions) != place.partitions:
        wrong.append(f"it has {len(found.partitions)} partitions, not {place.partitions}: symbols would move")
    fewest = min(len(one.replicas) for one in found.partitions.values())
    if fewest < place.copies:
        wrong.append(f"a partition has {fewest} copies, not {place.copies}")
    if int(config["min.insync.replicas"]) < place.needed:
        wrong.append(f"min.insync.replicas is {config['min.insync.replicas']}, not {place.needed}")
    if wrong:
        raise PermanentError(f"topic {topic} is not safe for a journal: {'; '.join(wrong)}")


def _look_at(admin: AdminClient, topic: str) -> tuple[TopicMetadata, dict[str, str]]:
    """Return a topic and its settings; one that was just made is known to every broker only a moment later."""
    until, resource = time.monotonic() + TIMEOUT_S, ConfigResource(ResourceType.TOPIC, topic)
    while True:
        try:
            found = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)  # noqa: TRY301 - one place tells of both
            config = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result().values()
            return found, {one.name: one.value for one in config}
        except KafkaException as error:
            told = error.args[0]
            if told.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > until:
                raise TemporaryError(f"topic {topic} cannot be looked at: {told.str()}") from error
        time.sleep(0.05)
