"""The board of Kafka: who answers, which copies follow, who reads and how far behind."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import BAD, GOOD, ONE, ZERO, Board, Row, above, ask, below, graph, of_kind, stat

_LAG: Final = "sum by (consumergroup) (max by (consumergroup, topic, partition) (kafka_consumergroup_lag{$}))"

KAFKA: Final = Board(
    name="kafka",
    title="Kafka",
    about="The brokers that keep the journal: who answers, which copies follow, who reads and how far behind.",
    jobs=("kafka",),
    rows=(
        Row("State", (
            stat("Brokers that answer", "By their own protocol. One missing: its runbook starts it; two of three: "
                 "nothing is acknowledged.", "short", "sum(kafka_broker_up{$})", below(2, 3)),
            stat("Controller", "Red: the controllers have no leader; no partition can get another one.", "short",
                 "max(kafka_controller_known{$})", ONE, words=(("1", "known", GOOD), ("0", "none", BAD))),
            stat("Partitions without leader", "Red: bring back a broker that had them in step.", "short",
                 "max(kafka_offline_partitions{$})", ZERO),
            stat("Partitions that take nothing", "Fewer copies in step than a record needs. Red: nothing is "
                 "acknowledged.", "short",
                 "sum(max by (topic, partition) (kafka_topic_partition_under_min_isr{$}))", ZERO),
            stat("Partitions with a copy behind", "Amber while a broker is down or catches up; if it stays, look at "
                 "its disk.", "short",
                 "sum(max by (topic, partition) (kafka_topic_partition_under_replicated_partition{$}))", above(1, 1e9)),
            stat("Least free on a disk", "Red: a broker whose disk is full ends. Make room.", "bytes",
                 "min(kafka_log_dir_free_bytes{$})", below(2e9, 1e10)),
        )),
        Row("Brokers", (
            of_kind("state-timeline", "Each broker", "Green: it answers its host. Red: it hangs. A hole: it is gone.",
                    "short", ask("max by (replica) (kafka_broker_up{$})", "{{replica}}"), steps=ONE,
                    words=(("1", "answers", GOOD), ("0", "silent", BAD)), width=12),
            graph("Brokers that each knows", "By the last word of a controller. One that lost the others goes on "
                  "believing it.", "short", ask("max by (replica) (kafka_brokers{$})", "{{replica}}"), width=6),
            graph("Elections of a controller", "Their number so far. Steps: controllers do not hear one another.",
                  "short", ask("max(kafka_controller_epoch{$})", "elections"), width=6),
        )),
        Row("Partitions", (
            graph("Copies in step", "The least of each topic. Below two nothing is acknowledged.", "short",
                  ask("min by (topic) (kafka_topic_partition_in_sync_replica{$})", "{{topic}}"), steps=below(2, 3)),
            graph("Records written", "A second, by topic. Commands without events: the engine publishes none.", "ops",
                  ask("sum by (topic) (deriv(kafka_topic_partition_current_offset{$}[$r]))", "{{topic}}")),
            graph("Changes of leaders", "Partitions that got another leader. A broker that was away moves some.",
                  "short", ask("sum by (topic) (max by (topic, partition) "
                               "(changes(kafka_topic_partition_leader{$}[$r])))", "{{topic}}")),
        )),
        Row("Who reads", (
            graph("Behind", "Records that a group has not said to be done. A ramp: the consumer is too slow.", "short",
                  ask(_LAG, "{{consumergroup}}"), steps=above(500, 2000)),
            graph("Members", "Consumers in each group. None, with records waiting: nobody reads.", "short",
                  ask("max by (consumergroup) (kafka_consumergroup_members{$})", "{{consumergroup}}")),
            graph("Rebalances", "In a minute. More than four: consumers come and go, and nothing is read meanwhile.",
                  "short", ask("max by (consumergroup) (increase(kafka_consumergroup_rebalances_total{$}[$r]))",
                               "{{consumergroup}}"), steps=above(1, 4)),
        )),
    ),
)  # fmt: skip
