"""The exchange's metrics: engine, gateways, market data, settlement, watchdog, and the client's view."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import (
    APPLY_BUCKETS,
    QUEUE_BUCKETS,
    SIZE_BUCKETS,
    Metric,
    Role,
    counter,
    gauge,
    histogram,
    unknown_at_first,
)

EXCHANGE: Final[tuple[Metric, ...]] = (
    # --- mirror: another region's journal, copied ------------------------------------------------------------------
    gauge(
        Role.MIRROR, "exchange_mirror_sequence", "Sequence number of the last command that is durable in this region."
    ),
    counter(Role.MIRROR, "exchange_mirror_commands_total", "Commands copied since the start."),
    gauge(Role.MIRROR, "exchange_mirror_source_connected", "1 while the other region's brokers answer."),
    gauge(Role.MIRROR, "exchange_mirror_lag_records", "Records of the other region that are not here yet."),
    gauge(
        Role.MIRROR,
        "exchange_mirror_lag_seconds",
        "For how long at most a record of the other region has waited to be here; no sample while nobody knows.",
    ),
    gauge(
        Role.MIRROR,
        "exchange_mirror_broken",
        "1 when the copy cannot go on: fenced by another writer, or the other region's journal does not match it.",
        "reason",
    ),
    # --- engine: the single writer ------------------------------------------------------------------------------------
    counter(Role.ENGINE, "exchange_commands_total", "Commands sequenced, by kind.", "command"),
    counter(Role.ENGINE, "exchange_orders_accepted_total", "Orders that passed every check."),
    counter(Role.ENGINE, "exchange_rejects_total", "Commands refused by a rule, by reason.", "reason"),
    counter(
        Role.ENGINE, "exchange_cancels_total", "Orders whose rest left the book without trading, by reason.", "reason"
    ),
    counter(Role.ENGINE, "exchange_trades_total", "Trades."),
    counter(Role.ENGINE, "exchange_traded_lots_total", "Lots traded (each trade counted once)."),
    counter(
        Role.ENGINE, "exchange_refused_total", "Requests answered without a place in the journal, by reason.", "reason"
    ),
    gauge(Role.ENGINE, "exchange_engine_sequence", "Sequence number of the last durable command."),
    gauge(Role.ENGINE, "exchange_engine_ready", "1 when the journal is replayed and commands are taken."),
    gauge(Role.ENGINE, "exchange_engine_queue_depth", "Commands that wait for the next group commit."),
    gauge(Role.ENGINE, "exchange_engine_subscribers", "Consumers of the event stream now connected."),
    gauge(Role.ENGINE, "exchange_engine_recovery_seconds", "How long the replay at the last start took."),
    gauge(Role.ENGINE, "exchange_engine_recovered_commands", "Commands replayed at the last start."),
    histogram(Role.ENGINE, "exchange_engine_apply_seconds", "Matching of one command.", APPLY_BUCKETS),
    histogram(Role.ENGINE, "exchange_journal_sync_seconds", "One append and fsync of the journal."),
    histogram(Role.ENGINE, "exchange_journal_batch_commands", "Commands made durable by one fsync.", SIZE_BUCKETS),
    gauge(Role.ENGINE, "exchange_journal_failed", "1 after an append or fsync failed; the engine takes nothing more."),
    gauge(Role.ENGINE, "exchange_journal_fenced", "1 when that was because another engine has opened the journal."),
    gauge(Role.ENGINE, "exchange_events_published_sequence", "The last command whose events are in the topic."),
    gauge(Role.ENGINE, "exchange_events_unpublished_commands", "Durable commands whose events are not yet there."),
    counter(Role.ENGINE, "exchange_events_publish_failures_total", "Failures of publishing, each tried again."),
    gauge(Role.ENGINE, "exchange_market_halted", "1 while the whole market stands still.", "engine"),
    gauge(Role.ENGINE, "exchange_symbol_halted", "1 while a symbol stands still on its own.", "symbol", "engine"),
    histogram(
        Role.ENGINE,
        "exchange_engine_queue_seconds",
        "Waiting of one command in the queue before it was taken; matching stands apart.",
        QUEUE_BUCKETS,
    ),
    gauge(Role.ENGINE, "exchange_journal_bytes", "Size of the journal's files."),
    unknown_at_first(Role.ENGINE, "exchange_journal_disk_free_bytes", "Room left on the disk that the journal is on."),
    gauge(Role.ENGINE, "exchange_journal_first_sequence", "The oldest record that the journal's files still hold."),
    counter(
        Role.ENGINE, "exchange_journal_compacted_segments_total", "Segments of the journal that compaction removed."
    ),
    counter(Role.ENGINE, "exchange_journal_compacted_bytes_total", "Bytes of the journal that compaction removed."),
    counter(
        Role.ENGINE,
        "exchange_journal_compactions_failed_total",
        "Compactions that the disk refused; none is tried again before the next start.",
    ),
    gauge(Role.ENGINE, "exchange_snapshot_timestamp_seconds", "When the newest snapshot was taken."),
    counter(Role.ENGINE, "exchange_symbol_commands_total", "Orders accepted of a symbol.", "symbol"),
    gauge(Role.ENGINE, "exchange_resting_orders", "Orders in all books."),
    gauge(Role.ENGINE, "exchange_open_notional_ticks", "Price times quantity of all that rests, in ticks times lots."),
    # --- gateway ------------------------------------------------------------------------------------------------------
    counter(Role.GATEWAY, "exchange_gateway_requests_total", "Order requests answered, by outcome.", "outcome"),
    histogram(Role.GATEWAY, "exchange_order_ack_seconds", "From a whole request read to its durable answer."),
    counter(
        Role.GATEWAY, "exchange_symbol_acks_total", "New orders of a symbol answered by the engine.", "symbol", "engine"
    ),
    counter(
        Role.GATEWAY,
        "exchange_symbol_ack_seconds_total",
        "Seconds that those answers took together; with their number, the mean.",
        "symbol",
        "engine",
    ),
    counter(Role.GATEWAY, "exchange_symbol_slow_acks_total", "Those that took 250 ms or longer.", "symbol", "engine"),
    gauge(Role.GATEWAY, "exchange_gateway_sessions", "Client connections now open."),
    gauge(Role.GATEWAY, "exchange_gateway_in_flight", "Order requests sent to the engine and not answered."),
    gauge(Role.GATEWAY, "exchange_gateway_capacity_per_second", "Order requests a second this gateway admits."),
    gauge(Role.GATEWAY, "exchange_gateway_engine_connected", "1 while the connection to the engine stands.", "engine"),
    counter(
        Role.GATEWAY, "exchange_gateway_token_refusals_total", "Requests whose token was not taken, by fault.", "fault"
    ),
    gauge(Role.GATEWAY, "exchange_gateway_order_sockets", "WebSockets of order entry now open."),
    counter(
        Role.GATEWAY,
        "exchange_gateway_order_sockets_ended_total",
        "WebSockets of order entry that ended, by end.",
        "end",
    ),
    counter(
        Role.GATEWAY,
        "exchange_gateway_disconnect_cancels_total",
        "Attempts to cancel the orders of a session that ended, by result.",
        "result",
    ),
    counter(
        Role.GATEWAY,
        "exchange_gateway_reference_requests_total",
        "Requests for reference data that no edge had, by what was answered.",
        "result",
    ),
    # --- market data --------------------------------------------------------------------------------------------------
    gauge(Role.MARKET_DATA, "exchange_feed_sequence", "Journal sequence number last published."),
    counter(Role.MARKET_DATA, "exchange_feed_messages_total", "Messages published, by kind.", "kind"),
    gauge(Role.MARKET_DATA, "exchange_feed_subscribers", "Feed subscribers now connected."),
    counter(
        Role.MARKET_DATA, "exchange_feed_slow_consumers_total", "Subscribers cut off because they did not keep up."
    ),
    gauge(
        Role.MARKET_DATA, "exchange_feed_engine_connected", "1 while the event stream from the engine stands.", "engine"
    ),
    gauge(Role.MARKET_DATA, "exchange_feed_published_timestamp_seconds", "When the feed last published anything."),
    gauge(
        Role.MARKET_DATA,
        "exchange_feed_symbol_timestamp_seconds",
        "When a symbol's book was last confirmed as current.",
        "symbol",
        "engine",
    ),
    histogram(
        Role.MARKET_DATA, "exchange_feed_delay_seconds", "From a command's place in the journal to its publication."
    ),
    gauge(
        Role.MARKET_DATA,
        "exchange_symbol_last_trade_timestamp_seconds",
        "When a symbol last traded, as far as this process has seen.",
        "symbol",
        "engine",
    ),
    gauge(
        Role.MARKET_DATA,
        "exchange_book_depth_lots",
        "Lots at the five best levels of a side.",
        "symbol",
        "side",
    ),
    gauge(Role.MARKET_DATA, "exchange_book_spread_ticks", "Best offer less best bid; absent without both.", "symbol"),
    # --- settlement ---------------------------------------------------------------------------------------------------
    gauge(
        Role.SETTLEMENT,
        "exchange_settlement_sequence",
        "Journal sequence number last settled; of several partitions the highest.",
    ),
    counter(Role.SETTLEMENT, "exchange_settlement_trades_total", "Trades posted to the ledger."),
    counter(Role.SETTLEMENT, "exchange_settlement_duplicates_total", "Trades met again and left alone."),
    histogram(Role.SETTLEMENT, "exchange_settlement_commit_seconds", "One commit to the ledger."),
    gauge(
        Role.SETTLEMENT,
        "exchange_settlement_lag_seconds",
        "Age of the oldest trade that was read and is not posted; 0 when there is none.",
    ),
    gauge(
        Role.SETTLEMENT,
        "exchange_reconciliation_difference",
        "Trades that the event stream told since the start less those posted or met again; must be 0 at rest.",
    ),
    gauge(
        Role.SETTLEMENT,
        "exchange_settlement_engine_connected",
        "1 while events come: the engine's stream stands, or Kafka's brokers answer.",
    ),
    gauge(
        Role.SETTLEMENT, "exchange_ledger_imbalance", "Sum of all ledger entries over all assets, absolute; must be 0."
    ),
    # --- a consumer of Kafka's events; nothing of it is set where events come from the engine's stream ----------------
    gauge(Role.SETTLEMENT, "exchange_consumer_connected", "1 while Kafka's brokers answer this consumer.", "topic"),
    gauge(Role.SETTLEMENT, "exchange_consumer_partitions", "Partitions that are this member's.", "topic"),
    counter(
        Role.SETTLEMENT,
        "exchange_consumer_rebalances_total",
        "How often the group's partitions were divided anew.",
        "topic",
    ),
    gauge(
        Role.SETTLEMENT,
        "exchange_consumer_lag_records",
        "Records of a partition that are there and not carried out.",
        "topic",
        "partition",
    ),
    gauge(
        Role.SETTLEMENT,
        "exchange_consumer_committed_lag_records",
        "Records of a partition behind what its group has committed.",
        "topic",
        "partition",
    ),
    gauge(
        Role.SETTLEMENT,
        "exchange_consumer_stopped",
        "1 while a partition stands still at a record that is missing or cannot be read.",
        "topic",
        "partition",
    ),
    counter(
        Role.SETTLEMENT,
        "exchange_dead_letters_total",
        "Messages that cannot be read, put aside; from 0 for each reason once events come from Kafka.",
        "topic",
        "reason",
    ),
    # --- watchdog: a subscriber like any participant's, which trusts nothing ------------------------------------------
    counter(Role.WATCHDOG, "exchange_watchdog_messages_total", "Feed messages checked."),
    gauge(Role.WATCHDOG, "exchange_watchdog_feed_connected", "1 while the watchdog is subscribed to the feed."),
    gauge(Role.WATCHDOG, "exchange_watchdog_sequence_gap", "1 while messages of a symbol are missing.", "symbol"),
    counter(Role.WATCHDOG, "exchange_watchdog_sequence_gaps_total", "Gaps seen in a symbol's feed.", "symbol"),
    gauge(
        Role.WATCHDOG, "exchange_watchdog_book_crossed", "1 while a symbol's best bid reaches its best offer.", "symbol"
    ),
    counter(
        Role.WATCHDOG,
        "exchange_watchdog_trade_throughs_total",
        "Trades at a price worse than the best quote published before them.",
        "symbol",
    ),
    counter(
        Role.WATCHDOG,
        "exchange_watchdog_alerts_posted_total",
        "Alerts posted straight to Alertmanager, by result.",
        "result",
    ),
    # --- load: the client's view --------------------------------------------------------------------------------------
    counter(Role.LOAD, "exchange_client_orders_total", "Requests of the load generator, by how they ended.", "outcome"),
    counter(
        Role.LOAD, "exchange_client_notional_ticks_total", "Notional of the priced orders sent, in ticks times lots."
    ),
    histogram(Role.LOAD, "exchange_client_latency_seconds", "From the intended send time to the answer."),
)
