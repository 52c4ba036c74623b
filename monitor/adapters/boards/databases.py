"""The board of the pair of PostgreSQL servers that a distributed exchange keeps its ledger and incidents in."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import BAD, CALM, GOOD, ONE, WARN, ZERO, Board, Row, above, ask, graph, stat

POSTGRES: Final = Board(
    name="postgres",
    title="PostgreSQL",
    about="The pair of database servers: who takes writes, whether the other one holds everything, and what is asked.",
    jobs=("postgres", "settlement"),
    rows=(
        Row("The pair", (
            stat("Servers that take writes", "None: nothing is settled. Two: stop one at once, call the owners.",
                 "short", "count(pg_replication_is_replica{$} == 0) or vector(0)", above(1.5, 1.6), width=6,
                 words=(("0", "none", BAD), ("1", "one", GOOD), ("2", "two", BAD))),
            stat("Stand-by holds everything", "1: each acknowledged commit is on both. 0: no fail-over.", "short",
                 "min(tapewatch_postgres_synchronous{$})", ONE, width=6,
                 words=(("0", "not known", WARN), ("1", "synchronous", GOOD))),
            stat("Term", "Grows with every fail-over. See the incident for why.", "short",
                 "max(tapewatch_postgres_term{$})", ((None, CALM),), width=6),
            stat("Servers down", "That do not answer their host. See the alert's run.", "short",
                 "count(pg_up{$}) - sum(pg_up{$})", ZERO, width=6),
        )),
        Row("Replication", (
            graph("Behind the primary", "Age of what the stand-by replayed last. Red: its disk, or a long query on it.",
                  "s", ask("max by (replica) (pg_replication_lag_seconds{$})", "{{replica}}"), steps=above(2, 10)),
            graph("Log not yet replayed", "Bytes, by follower. A ramp: the stand-by is too slow.", "short",
                  ask("max by (application_name, state) (pg_stat_replication_pg_wal_lsn_diff{$})",
                      "{{application_name}} {{state}}"), steps=above(16e6, 64e6)),
            graph("Follows", "1 for a stand-by to which the log is streamed. 0 while there is a primary: restart it.",
                  "short", ask("max by (replica) (tapewatch_postgres_following{$})", "{{replica}}")),
        )),
        Row("Work", (
            graph("Commits", "By database. No commits while trades happen: settlement, or the primary.", "ops",
                  ask("sum by (datname) (rate(pg_stat_database_xact_commit{$}[$r]))", "{{datname}}")),
            graph("Roll-backs", "By database. Many: conflicts of serializable transactions, or a broken client.", "ops",
                  ask("sum by (datname) (rate(pg_stat_database_xact_rollback{$}[$r]))", "{{datname}}")),
            graph("Deadlocks and conflicts", "Ended transactions. Deadlocks: two writers lock in different orders.",
                  "short",
                  ask("sum(increase(pg_stat_database_deadlocks{$}[$r]))", "failed: deadlocks"),
                  ask("sum(increase(pg_stat_database_conflicts{$}[$r]))", "dropped: conflicts with the replay")),
            graph("Connections", "By state. Near the limit: end what is idle, or find who opens them.", "short",
                  ask("sum by (state) (pg_stat_activity_count{$})", "{{state}}"),
                  ask("max(pg_settings_max_connections{$})", "limit"), width=8),
            graph("Oldest transaction", "Seconds, by state. Idle in a transaction: a client hangs and holds locks.",
                  "short", ask("max by (state) (pg_stat_activity_max_tx_duration{$})", "{{state}}"), width=8,
                  steps=above(10, 60)),
            graph("Size", "Of each database. A step: a bulk load; a ramp: old rows are never removed.", "bytes",
                  ask("max by (datname) (pg_database_size_bytes{$})", "{{datname}}"), width=8),
        )),
    ),
)  # fmt: skip
