"""Boards of the services on an order's way: gateway, engine, settlement."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import (
    BAD,
    CALM,
    FRACTION,
    GOOD,
    ONE,
    ZERO,
    Board,
    Row,
    above,
    ask,
    below,
    gauge,
    graph,
    of_kind,
    quantile,
    spread,
    stat,
)

_JOINED: Final = (("1", "connected", GOOD), ("0", "lost", BAD))

GATEWAY: Final = Board(
    name="gateway",
    title="Gateway",
    about="Order entry: outcomes, answer times, capacity, and each replica beside the others.",
    jobs=("gateway",),
    rows=(
        Row("Order entry", (
            gauge("How full", "Requests against what the gateways admit. Red: orders are shed soon; the runbook adds "
                  "a gateway.", "percentunit", "sum(rate(exchange_gateway_requests_total{$}[$r])) / "
                  "sum(exchange_gateway_capacity_per_second{$})", above(0.7, 0.9), low=0.0, high=1.0, width=5),
            stat("Connected to the engine", "Lowest of all gateways. Red: engine down, or the gateway must start "
                 "again.", "short", "min(exchange_gateway_engine_connected{$})", ONE, words=_JOINED, width=5, height=6),
            stat("Clients connected", "Open client connections. A fall to none: the network in front.", "short",
                 "sum(exchange_gateway_sessions{$})", ((None, CALM),), width=5, height=6),
            stat("In flight", "Requests sent to the engine and not answered. Red: the engine does not answer.", "short",
                 "sum(exchange_gateway_in_flight{$})", above(100, 1000), width=4, height=6),
            stat("Slow answers", "Share of new orders answered after 250 ms or more. Red: see the board Engine.",
                 "percentunit", "sum(rate(exchange_symbol_slow_acks_total{$}[$r])) / "
                 "(sum(rate(exchange_symbol_acks_total{$}[$r])) > 0)", FRACTION, width=5, height=6),
            graph("Requests by outcome", "Answered a second. Shed: too little capacity; unavailable: the engine; "
                  "bad_request: a member's program.", "reqps",
                  ask("sum by (outcome) (rate(exchange_gateway_requests_total{$}[$r]))", "{{outcome}}"), stacked=True,
                  width=12, height=8),
            graph("Answer time", "From a whole request to its durable answer. Follow an example to its trace.", "s",
                  *spread("exchange_order_ack_seconds"), width=12, height=8, steps=above(0.1, 0.25)),
            of_kind("heatmap", "Answer time, all orders", "Where the mass of the answers lies. A second band is a "
                    "replica or a disk that stalls.", "s",
                    ask("sum by (le) (increase(exchange_order_ack_seconds_bucket{$}[$r]))", "{{le}}"), width=12,
                    height=8),
            graph("Mean answer time by symbol", "Seconds a new order of each symbol waits. One apart: its book.", "s",
                  ask("sum by (symbol) (rate(exchange_symbol_ack_seconds_total{$}[$r])) / "
                      "(sum by (symbol) (rate(exchange_symbol_acks_total{$}[$r])) > 0)", "{{symbol}}"), width=12,
                  height=8, steps=above(0.1, 0.25)),
        )),
        Row("The door", (
            graph("Tokens refused", "A second, by fault. bad_signature, wrong_algorithm, unknown_key: somebody tries, "
                  "or a key was dropped too early.", "reqps",
                  ask("sum by (fault) (rate(exchange_gateway_token_refusals_total{$}[$r]))", "{{fault}}"),
                  stacked=True),
            graph("Turned away", "A second: a budget is used up, the gateway is full, or the engine was not reached.",
                  "reqps",
                  ask('sum(rate(exchange_gateway_requests_total{$,outcome="limited"}[$r]))', "budget"),
                  ask('sum(rate(exchange_gateway_requests_total{$,outcome="shed"}[$r]))', "shed"),
                  ask('sum(rate(exchange_gateway_requests_total{$,outcome="unavailable"}[$r]))',
                      "failed: unavailable")),
            graph("Reference data", "Requests a second that no edge had, by what was answered. Many: see the board "
                  "Edge.", "reqps", ask("sum by (result) (rate(exchange_gateway_reference_requests_total{$}[$r]))",
                               "{{result}}"), stacked=True),
            stat("Order sockets", "WebSockets of order entry now open.", "short",
                 "sum(exchange_gateway_order_sockets{$})", ((None, CALM),), width=4, height=7),
            graph("Order sockets ended", "In each minute, by why. too_slow, heartbeat_missed: clients that do not keep "
                  "up.", "short",
                  ask("sum by (end) (increase(exchange_gateway_order_sockets_ended_total{$}[$r]))", "{{end}}"),
                  width=10),
            graph("Cancels on disconnect", "Attempts, by result. refused: orders rest that nobody holds; retried for "
                  "long: the engine is not reached.", "short",
                  ask("sum by (result) (increase(exchange_gateway_disconnect_cancels_total{$}[$r]))", "{{result}}"),
                  width=10),
        )),
        Row("Each replica", (
            graph("Requests", "By replica. One apart from the others is sick or left out.", "reqps",
                  ask("sum by (job, replica) (rate(exchange_gateway_requests_total{$}[$r]))", "{{replica}}")),
            graph("99th percentile", "By replica. One apart: restart it, its runbook does.", "s",
                  ask(quantile(0.99, "exchange_order_ack_seconds", "job, replica"), "{{replica}}", exemplar=True),
                  steps=above(0.1, 0.25)),
            graph("In flight", "By replica. One that only climbs hangs.", "short",
                  ask("sum by (job, replica) (exchange_gateway_in_flight{$})", "{{replica}}"), steps=above(100, 1000)),
        )),
    ),
)  # fmt: skip

ENGINE: Final = Board(
    name="engine",
    title="Matching engine",
    about="Sequencing, matching and the journal: the one process that must never stop.",
    jobs=("engine",),
    rows=(
        Row("State", (
            stat("Ready", "1 when the journal is replayed and commands are taken. Red: read the engine's log.",
                 "short", "min(exchange_engine_ready{$})", ONE, words=(("1", "ready", GOOD), ("0", "not ready", BAD))),
            stat("Journal failed", "Red: it takes nothing more; look at the disk, then restart it.", "short",
                 "max(exchange_journal_failed{$})", ZERO, words=(("0", "sound", GOOD), ("1", "failed", BAD))),
            stat("Waiting commands", "Commands that wait for the next group commit. Red: disk or overload.", "short",
                 "max(exchange_engine_queue_depth{$})", above(500, 5000)),
            stat("Consumers of events", "Feed, settlement and others connected. Fewer than two: see their boards.",
                 "short", "sum(exchange_engine_subscribers{$})", below(1, 2)),
            stat("Disk free", "Room on the journal's disk. Red: make room now.", "bytes",
                 "min(exchange_journal_disk_free_bytes{$})", below(1e9, 5e9)),
            stat("Last recovery", "How long the replay at the last start took. Red: take snapshots more often.", "s",
                 "max(exchange_engine_recovery_seconds{$})", above(10, 60)),
        )),
        Row("Work", (
            graph("Commands by kind", "Sequenced a second. No place while gateways are busy: not ready, or halted.",
                  "ops", ask("sum by (command) (rate(exchange_commands_total{$}[$r]))", "{{command}}"), stacked=True),
            graph("Refusals by reason", "Requests without a place in the journal. Overloaded: fewer clients; "
                  "journal_failed: the disk.", "ops",
                  ask("sum by (reason) (rate(exchange_refused_total{$}[$r]))", "{{reason}}")),
            graph("Queue", "Commands that wait. A ramp: arrivals exceed the journal.", "short",
                  ask("max(exchange_engine_queue_depth{$})", "waiting"), steps=above(500, 5000)),
            graph("Waiting in the queue", "Of one command, before it is taken. Red: the journal is slow or work is "
                  "too much.", "s", *spread("exchange_engine_queue_seconds"), steps=above(0.05, 0.25)),
            graph("Matching", "Of one command. Red: a book of pathological size, or a busy processor.", "s",
                  *spread("exchange_engine_apply_seconds"), steps=above(0.001, 0.01)),
            graph("Journal sync", "One append and fsync. Red: the disk; see the board USE.", "s",
                  *spread("exchange_journal_sync_seconds"), steps=above(0.05, 0.25)),
        )),
        Row("Journal", (
            of_kind("heatmap", "Journal sync, all batches", "Where the mass lies. A second band is a disk that stalls.",
                    "s", ask("sum by (le) (increase(exchange_journal_sync_seconds_bucket{$}[$r]))", "{{le}}")),
            graph("Commands per sync", "How many commands one fsync makes durable, mean. High under load is good.",
                  "short", ask("sum(rate(exchange_journal_batch_commands_sum{$}[$r])) / "
                               "(sum(rate(exchange_journal_batch_commands_count{$}[$r])) > 0)", "mean")),
            graph("Journal size", "Of its files. Near the free room: move or shorten it.", "bytes",
                  ask("sum(exchange_journal_bytes{$})", "journal"),
                  ask("min(exchange_journal_disk_free_bytes{$})", "capacity: free")),
            stat("Commands replayed at start", "At the last start. Many: take snapshots more often.", "short",
                 "max(exchange_engine_recovered_commands{$})", above(1e6, 1e7), width=8),
            stat("Age of the newest snapshot", "Red: none for long; the next start will be slow. Empty before the "
                 "first.", "s", "time() - max(exchange_snapshot_timestamp_seconds{$})", above(3600, 86400), width=8),
            stat("Durable commands", "Sequence number of the last one. It may only grow.", "short",
                 "max(exchange_engine_sequence{$})", ((None, CALM),), width=8),
        )),
    ),
)  # fmt: skip

SETTLEMENT: Final = Board(
    name="settlement",
    title="Settlement",
    about="Trades on their way into the ledger, and the sums that must be zero.",
    jobs=("engine", "settlement"),
    rows=(
        Row("Sums that must be zero", (
            stat("Ledger imbalance", "Sum of all entries, absolute. Red: stop settlement and call the owners at once.",
                 "short", "max(exchange_ledger_imbalance{$})", ZERO, width=6),
            stat("Reconciliation difference", "Trades told less trades posted. Red at rest: a trade is lost; compare "
                 "journal and ledger.", "short", "sum(exchange_reconciliation_difference{$})", above(50, 500), width=6),
            stat("Oldest unsettled trade", "Its age, 0 when there is none. Red: the ledger's disk or the stream.", "s",
                 "max(exchange_settlement_lag_seconds{$})", above(5, 30), width=6),
            stat("Stream from the engine", "Red: the engine is down or not reached.", "short",
                 "min(exchange_settlement_engine_connected{$})", ONE, words=_JOINED, width=6),
        )),
        Row("Work", (
            graph("Trades posted", "To the ledger, a second, and those met again after a restart.", "ops",
                  ask("sum(rate(exchange_settlement_trades_total{$}[$r]))", "accepted: posted"),
                  ask("sum(rate(exchange_settlement_duplicates_total{$}[$r]))", "met again")),
            graph("Commit to the ledger", "Of one batch. Red: the ledger's disk.", "s",
                  *spread("exchange_settlement_commit_seconds"), steps=above(0.25, 1)),
            graph("Behind the engine", "Commands durable and not settled. A ramp: settlement is too slow.", "short",
                  ask("clamp_min(max(exchange_engine_sequence{$}) - min(exchange_settlement_sequence{$}), 0)",
                      "commands"),
                  steps=above(500, 5000)),
            graph("Age of the oldest unsettled trade", "Red: members' positions are old; see the commit beside.", "s",
                  ask("max(exchange_settlement_lag_seconds{$})", "age"), width=12, steps=above(5, 30)),
            graph("Difference to the journal", "Trades told less trades posted. It returns to 0 at rest.", "short",
                  ask("sum(exchange_reconciliation_difference{$})", "trades"), width=12),
        )),
    ),
)  # fmt: skip
