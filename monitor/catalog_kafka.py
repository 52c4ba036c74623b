"""The metrics of Kafka: a broker as its host sees it, and the cluster as that broker sees it.

Names, labels and meanings are kafka_exporter's where it has them. Three brokers tell of one cluster, so rules take the
`max` over replicas.
"""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge

_OF: Final = ("topic", "partition")

KAFKA: Final[tuple[Metric, ...]] = (
    gauge(Role.KAFKA, "kafka_broker_up", "1 while the host's own broker answers by its own protocol."),
    gauge(Role.KAFKA, "kafka_brokers", "Brokers of the cluster by what a controller last told this one."),
    gauge(Role.KAFKA, "kafka_controller_known", "1 while the controllers have a leader that this broker reaches."),
    gauge(Role.KAFKA, "kafka_controller_id", "Which broker leads the controllers."),
    gauge(Role.KAFKA, "kafka_controller_epoch", "How often a leader of the controllers was elected."),
    gauge(Role.KAFKA, "kafka_offline_partitions", "Partitions without a leader that lives."),
    gauge(Role.KAFKA, "kafka_topic_partition_leader", "Which broker leads a partition, -1 when none does.", *_OF),
    gauge(Role.KAFKA, "kafka_topic_partition_replicas", "Copies that a partition should have.", *_OF),
    gauge(Role.KAFKA, "kafka_topic_partition_in_sync_replica", "Copies in step, the leader's own among them.", *_OF),
    gauge(
        Role.KAFKA,
        "kafka_topic_partition_under_replicated_partition",
        "1 while fewer copies follow than a partition should have.",
        *_OF,
    ),
    gauge(
        Role.KAFKA,
        "kafka_topic_partition_under_min_isr",
        "1 while fewer copies follow than must have a record before it counts: nothing is acknowledged.",
        *_OF,
    ),
    gauge(
        Role.KAFKA,
        "kafka_topic_partition_current_offset",
        "The number that the next record will have, by the broker that leads the partition.",
        *_OF,
    ),
    gauge(
        Role.KAFKA,
        "kafka_consumergroup_current_offset",
        "Up to where a group has said that it is done, by the broker that coordinates it.",
        "consumergroup",
        *_OF,
    ),
    gauge(
        Role.KAFKA, "kafka_consumergroup_lag", "Records that a group has not said to be done.", "consumergroup", *_OF
    ),
    gauge(Role.KAFKA, "kafka_consumergroup_members", "Consumers in a group.", "consumergroup"),
    counter(
        Role.KAFKA,
        "kafka_consumergroup_rebalances_total",
        "Times a group settled on other members or another assignment, by looks a second apart.",
        "consumergroup",
    ),
    gauge(Role.KAFKA, "kafka_log_dir_free_bytes", "Free on the disk on which the broker keeps its data."),
)
