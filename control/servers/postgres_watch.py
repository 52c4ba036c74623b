"""What a PostgreSQL server of a pair tells of itself each second, under the names of postgres_exporter."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg

from control.servers.postgres_pair import Pair, PostgresPlace, connect
from kernel.errors import TapewatchError

if TYPE_CHECKING:
    from monitor.adapters.exporter import Exporter

_SELF: Final = """
SELECT pg_is_in_recovery(),
  CASE WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0) END::float8,
  current_setting('max_connections')::float8,
  EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  extract(epoch FROM pg_postmaster_start_time())::float8
"""
_ACTIVITY: Final = """
SELECT coalesce(datname, ''), coalesce(state, 'unknown'), count(*)::float8,
  coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'tapewatch-pair' GROUP BY 1, 2
"""
_DATABASES: Final = """
SELECT datname, xact_commit::float8, xact_rollback::float8, deadlocks::float8, conflicts::float8,
  pg_database_size(datid)::float8
FROM pg_stat_database WHERE datname IS NOT NULL AND datname NOT LIKE 'template%'
"""
_FOLLOWERS: Final = """
SELECT application_name, state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8
FROM pg_stat_replication WHERE NOT pg_is_in_recovery() AND replay_lsn IS NOT NULL
"""
_PLAIN: Final = (
    "pg_replication_is_replica", "pg_replication_lag_seconds", "pg_settings_max_connections",
    "pg_postmaster_start_time_seconds", "tapewatch_postgres_following",
)  # fmt: skip
_COUNTS: Final = (
    "pg_stat_database_xact_commit", "pg_stat_database_xact_rollback", "pg_stat_database_deadlocks",
    "pg_stat_database_conflicts",
)  # fmt: skip
UNKNOWN: Final = "unknown"


class Watch:
    """Looks at one server over a connection of its own."""

    def __init__(self, place: PostgresPlace, pair: Pair, password: str) -> None:
        self._place = place
        self._pair = pair
        self._password = password
        self._link: psycopg.Connection[tuple[Any, ...]] | None = None
        self._shown: set[tuple[str, ...]] = set()
        """Labelled gauges that the last look set."""

    def close(self) -> None:
        """Let the connection go."""
        if self._link is not None:
            with contextlib.suppress(psycopg.Error):
                self._link.close()
        self._link = None

    def observe(self, exporter: Exporter) -> None:
        """Look once and set everything; what is not known is left out, and `pg_up` says whether the server answers."""
        shown: set[tuple[str, ...]] = set()
        self._tell_record(exporter, shown)
        try:
            if self._link is None or self._link.closed:
                self._link = connect(self._place.port, self._password)
            with self._link.transaction():
                rows = [self._link.execute(text).fetchall() for text in (_SELF, _ACTIVITY, _DATABASES, _FOLLOWERS)]
        except psycopg.Error:
            self.close()
            exporter.level("pg_up").set(0)
            for name in _PLAIN:
                exporter.level(name).unset()
        else:
            self._tell(exporter, shown, *rows)
            exporter.level("pg_up").set(1)  # last: whoever is counted as up has told what it is
        for name, *labels in self._shown - shown:
            exporter.drop(name, *labels)
        self._shown = shown

    def _tell_record(self, exporter: Exporter, shown: set[tuple[str, ...]]) -> None:
        try:
            record = self._pair.read()
        except TapewatchError:
            exporter.level("tapewatch_postgres_synchronous").unset()
            return
        exporter.level("tapewatch_postgres_term").set(record.term)
        exporter.level("tapewatch_postgres_synchronous").set(record.synchronous)
        _show(exporter, shown, 1, "tapewatch_postgres_primary", record.primary)

    @staticmethod
    def _tell(
        exporter: Exporter,
        shown: set[tuple[str, ...]],
        of_itself: Sequence[tuple[Any, ...]],
        activity: Sequence[tuple[Any, ...]],
        databases: Sequence[tuple[Any, ...]],
        followers: Sequence[tuple[Any, ...]],
    ) -> None:
        recovering, lag, most, following, started = of_itself[0]
        for name, value in zip(_PLAIN, (recovering, lag, most, started, following), strict=True):
            exporter.level(name).set(float(value))
        for database, state, count, longest in activity:
            _show(exporter, shown, count, "pg_stat_activity_count", database, state)
            _show(exporter, shown, longest, "pg_stat_activity_max_tx_duration", database, state)
        for database, *counts, size in databases:
            for name, value in zip(_COUNTS, counts, strict=True):
                _show(exporter, shown, value, name, database)
            _show(exporter, shown, size, "pg_database_size_bytes", database)
        for name, state, behind in followers:
            _show(exporter, shown, behind, "pg_stat_replication_pg_wal_lsn_diff", name, state)


def _show(exporter: Exporter, shown: set[tuple[str, ...]], value: float, name: str, *labels: str) -> None:
    exporter.level(name, *labels).set(value)
    shown.add((name, *labels))
