"""What the hosts of PostgreSQL tell of their servers, under the names of postgres_exporter, and of the pair.

What the server itself counts (commits, deadlocks) is a gauge here: those names do not end in `_total`, as a counter of
ours must, and the server may set them back. Rates of them are asked for all the same.
"""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, gauge, unknown_at_first

POSTGRES: Final[tuple[Metric, ...]] = (
    gauge(Role.POSTGRES, "pg_up", "1 while the server answers who watches it."),
    unknown_at_first(Role.POSTGRES, "pg_replication_is_replica", "1 for a stand-by, 0 for a server that takes writes."),
    unknown_at_first(
        Role.POSTGRES, "pg_replication_lag_seconds", "Age of the last transaction a stand-by replayed; 0: it has all."
    ),
    unknown_at_first(Role.POSTGRES, "pg_settings_max_connections", "Connections that the server takes at once."),
    unknown_at_first(Role.POSTGRES, "pg_postmaster_start_time_seconds", "When the server was started."),
    gauge(
        Role.POSTGRES,
        "pg_stat_replication_pg_wal_lsn_diff",
        "Bytes of log that a follower of this server has not replayed, by its name and state.",
        "application_name",
        "state",
    ),
    gauge(
        Role.POSTGRES, "pg_stat_activity_count", "Connections of clients, by database and state.", "datname", "state"
    ),
    gauge(
        Role.POSTGRES,
        "pg_stat_activity_max_tx_duration",
        "Seconds that the oldest open transaction has lasted, by database and state.",
        "datname",
        "state",
    ),
    gauge(Role.POSTGRES, "pg_stat_database_xact_commit", "Transactions committed, by database.", "datname"),
    gauge(Role.POSTGRES, "pg_stat_database_xact_rollback", "Transactions rolled back, by database.", "datname"),
    gauge(Role.POSTGRES, "pg_stat_database_deadlocks", "Deadlocks that the server found, by database.", "datname"),
    gauge(
        Role.POSTGRES,
        "pg_stat_database_conflicts",
        "Queries that a stand-by ended because they stood in the way of what it replays, by database.",
        "datname",
    ),
    gauge(Role.POSTGRES, "pg_database_size_bytes", "Size of a database on the disk.", "datname"),
    unknown_at_first(
        Role.POSTGRES, "tapewatch_postgres_following", "1 for a stand-by to which the primary streams its log."
    ),
    unknown_at_first(
        Role.POSTGRES,
        "tapewatch_postgres_synchronous",
        "1 while every acknowledged commit is known to be on the stand-by.",
    ),
    unknown_at_first(Role.POSTGRES, "tapewatch_postgres_term", "Grows with every fail-over."),
    gauge(Role.POSTGRES, "tapewatch_postgres_primary", "1 for the server that is named the primary.", "primary"),
)
