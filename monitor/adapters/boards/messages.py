"""The board of RabbitMQ: whether it answers, what waits in its queues, who reads, and what nobody could use."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import BAD, GOOD, ONE, ZERO, Board, Row, above, ask, below, graph, of_kind, stat

_LIVE: Final = '$,queue!~".+[.]dead"'
_DEAD: Final = '$,queue=~".+[.]dead"'

RABBITMQ: Final = Board(
    name="rabbitmq",
    title="RabbitMQ",
    about="The broker between the services of settlement: whether it answers, what waits, who reads, what is dead.",
    jobs=("rabbitmq", "rabbitmq-server", "settlement"),
    rows=(
        Row("State", (
            stat("Broker", "By its own protocol. Red: its runbook starts it again on its data.", "short",
                 "min(rabbitmq_up{$})", ONE, words=(("1", "answers", GOOD), ("0", "silent", BAD))),
            stat("Messages waiting", "In all queues but those of dead letters. Growing: a service is slow or down.",
                 "short", f"sum(rabbitmq_queue_messages_ready{{{_LIVE}}})", above(1000, 5000)),
            stat("Dead letters", "Red: somebody must read why, and decide.", "short",
                 f"sum(rabbitmq_queue_messages_ready{{{_DEAD}}})", ZERO),
            stat("Connections", "Of publishers and readers.", "short", "sum(rabbitmq_connections{$})",
                 above(200, 1000)),
            stat("Memory left", "Until it blocks whoever publishes.", "bytes",
                 "min(rabbitmq_resident_memory_limit_bytes{$} - rabbitmq_process_resident_memory_bytes{$})",
                 below(5e7, 1.5e8)),
            stat("Disk left", "Until it blocks whoever publishes.", "bytes",
                 "min(rabbitmq_disk_space_available_bytes{$} - rabbitmq_disk_space_available_limit_bytes{$})",
                 below(1e9, 5e9)),
        )),
        Row("Queues", (
            graph("Waiting", "A ramp: what reads this queue is too slow, or hangs.", "short",
                  ask(f"max by (queue) (rabbitmq_queue_messages_ready{{{_LIVE}}})", "{{queue}}"),
                  steps=above(1000, 5000)),
            graph("Handed out, not acknowledged", "A reader holds 128 at most. Flat at that, and more waiting: it is "
                  "stuck.", "short", ask(f"max by (queue) (rabbitmq_queue_messages_unacked{{{_LIVE}}})", "{{queue}}"),
                  steps=above(100, 1000)),
            graph("Readers", "None, and messages waiting: the service is away.", "short",
                  ask(f"max by (queue) (rabbitmq_queue_consumers{{{_LIVE}}})", "{{queue}}")),
        )),
        Row("Flow", (
            graph("Messages", "A second: taken, handed out, acknowledged. Acknowledged below handed out: work fails.",
                  "ops", ask("sum(rate(rabbitmq_global_messages_received_total{$}[$r]))", "taken"),
                  ask("sum(rate(rabbitmq_global_messages_delivered_total{$}[$r]))", "handed out"),
                  ask("sum(rate(rabbitmq_global_messages_acknowledged_total{$}[$r]))", "acknowledged")),
            graph("Handed out again, and unroutable", "A second. Again and again: a service fails at what it reads.",
                  "ops", ask("sum(rate(rabbitmq_global_messages_redelivered_total{$}[$r]))", "again"),
                  ask("sum(rate(rabbitmq_global_messages_unroutable_returned_total{$}[$r]))", "refused")),
            graph("Dead letters", "By queue. They stay until a person decides.", "short",
                  ask(f"max by (queue) (rabbitmq_queue_messages_ready{{{_DEAD}}})", "{{queue}}"), steps=ZERO),
            of_kind("state-timeline", "Alarms", "Red: it blocks whoever publishes, for want of memory or disk.",
                    "short", ask("max(rabbitmq_alarms_memory_used_watermark{$})", "memory"),
                    ask("max(rabbitmq_alarms_free_disk_space_watermark{$})", "disk"), steps=ZERO,
                    words=(("0", "none", GOOD), ("1", "alarm", BAD)), width=12),
            graph("Answer to a connection", "How long the host's log-in takes. Rising: the broker or its machine is "
                  "busy.", "s", ask("max(rabbitmq_handshake_seconds{$})", "log-in"), width=12),
        )),
        Row("Notices", (
            graph("Published", "A second, by kind. None while the market trades: participants are not told.", "ops",
                  ask("sum by (kind) (rate(exchange_notices_published_total{$}[$r]))", "{{kind}}")),
            graph("Not published", "Read from the events, not confirmed by the broker. A ramp: it takes nothing, or "
                  "the ledger is behind.", "short", ask("sum(exchange_notices_unpublished{$})", "waiting")),
            graph("Oldest that waits", "Since its event. Beyond 30 s NoticesUnpublished tells people.", "s",
                  ask("max(exchange_notices_oldest_seconds{$})", "oldest"), steps=above(10, 30)),
            graph("Kept", "A second: for the first time, and again. Again and again: a publisher does not get ahead.",
                  "ops", ask("sum(rate(exchange_notices_kept_total{$}[$r]))", "kept"),
                  ask("sum(rate(exchange_notices_repeats_total{$}[$r]))", "again"), width=12),
            of_kind("state-timeline", "Connected", "Red: no events come, or nobody reads the queue of notices.",
                    "short", ask("min(exchange_notices_source_connected{$})", "events"),
                    ask("min(exchange_notices_keeper_connected{$})", "queue"), steps=ONE,
                    words=(("1", "stands", GOOD), ("0", "away", BAD)), width=12),
        )),
    ),
)  # fmt: skip
