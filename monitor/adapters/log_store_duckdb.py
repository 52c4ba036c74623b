# ruff: noqa: S608 - statements are put together from the names of known fields; every value is a parameter
"""The log store of an estate without Elasticsearch: its own JSON lines, through DuckDB.

Lines are read once, as they come, and kept as rows in memory: the time, the values in the form they are compared in,
and the record. So a broken line costs a count and not the query, and asking again costs no reading.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from kernel.errors import PermanentError, TemporaryError
from kernel.time import MILLISECOND, Duration, Instant, to_rfc3339
from monitor.adapters.log_lines import LogLines, Losses, record_of
from monitor.log_fields import FIELDS, FieldKind, Record, canonical, compared, ip_shown, time_ms
from monitor.log_query import All, Between, Everything, Exists, Joker, Like, Not, OneOf, Query, Some
from monitor.log_store import MAX_RECORDS, MAX_ROWS, Row, Span, key_kind, measure_kind, rounded

_BATCH: Final = 1_000
_OWN: Final = b'{"@timestamp":"'
_MEMORY: Final = "256MB"
_CASTS: Final = {FieldKind.LONG: "BIGINT[]", FieldKind.DOUBLE: "DOUBLE[]"}
_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$-&~# \t\n\r\v\f/")

_EPOCH: Final = Instant(0)
_Piece = tuple[str, list[object]]


class DuckdbLogStore:
    """`monitor.log_store.LogStore` over a directory of JSON lines, or over records given by hand."""

    def __init__(
        self,
        source: Path | None,
        *,
        fields: Mapping[str, FieldKind] = FIELDS,
        since: Instant = _EPOCH,
        keep: Duration | None = None,
        memory: str = _MEMORY,
        max_rows: int | None = None,
    ) -> None:
        """Read `source`; records before `since` are passed over, those older than `keep` are let go of.

        `max_rows` bounds what is held; the oldest records go first, and a question that reaches back past them has no
        answer.
        """
        self.losses = Losses()
        self.complete_from = Instant(0)
        """Records before this were let go of because there were too many."""
        self._lines = LogLines(source, self.losses) if source is not None else None
        self._fields = fields
        self._since_ms = since // MILLISECOND
        self._keep = keep
        self._max_rows = max_rows
        self._rows = 0
        self._spill = Path(tempfile.gettempdir()) / f"tapewatch-logs-{uuid.uuid4().hex}"  # made by DuckDB when needed
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1, "memory_limit": memory, "temp_directory": str(self._spill),
        }  # fmt: skip
        self._db = duckdb.connect(":memory:", config=config)
        self._db.execute("CREATE TABLE logs (ts BIGINT, vals VARCHAR, doc VARCHAR)")
        self._seconds: dict[int, int] = {}

    def close(self) -> None:
        """Let go of the records."""
        self._db.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def add(self, records: Iterator[Record] | Sequence[Record]) -> int:
        """Take in flat records; returns how many were records with a time."""
        taken = 0
        rows: list[tuple[int, str, str]] = []
        for record in records:
            moment = time_ms(record)
            if moment is None:
                self.losses.broken += 1
            elif moment >= self._since_ms:
                vals = _ENCODER.encode(compared(record, self._fields)).decode()
                rows.append((moment, vals, canonical(record)))
                self._seconds[moment // 1000] = self._seconds.get(moment // 1000, 0) + 1
                taken += 1
                if len(rows) >= _BATCH:
                    self._insert(rows)
                    rows = []
        self._insert(rows)
        return taken

    def refresh(self, now: Instant | None = None) -> int:
        """Read what the files gained; returns the number of records."""
        if self._lines is None:
            return 0
        if now is not None and self._keep is not None:
            self._since_ms = max(self._since_ms, (now - self._keep) // MILLISECOND)
        taken = self.add(self._read())
        self._trim()
        return taken

    def _read(self) -> Iterator[Record]:
        assert self._lines is not None, "only a store with files reads"
        since = to_rfc3339(self._since_ms * MILLISECOND)[:19].encode()
        for line in self._lines.new(since_s=self._since_ms / 1000):
            # Our own lines begin with their time, in UTC: what is too old need not be read.
            if line.startswith(_OWN) and line[15:34] < since and line[41:43] == b'Z"':
                continue
            record = record_of(line)
            if record is None:
                self.losses.broken += 1
            else:
                yield record

    def _insert(self, rows: list[tuple[int, str, str]]) -> None:
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            with _answering():
                self._db.execute("INSERT INTO logs SELECT unnest(?), unnest(?), unnest(?)", columns)
            self._rows += len(rows)

    def _trim(self) -> None:
        """Let go of what is too old or too much; seldom, since the rest is copied."""
        oldest = self._since_ms
        many = self._max_rows is not None and self._rows > self._max_rows
        if many and self._max_rows is not None:
            with _answering():
                found = self._db.execute(
                    "SELECT ts FROM logs ORDER BY ts DESC LIMIT 1 OFFSET ?", [self._max_rows * 3 // 4]
                ).fetchone()
            oldest = max(oldest, found[0] + 1 if found else 0)
            self.complete_from = Instant(max(self.complete_from, oldest * MILLISECOND))
        old = sum(count for second, count in self._seconds.items() if second < oldest // 1000)
        if not many and old * 2 < self._rows + 2 * _BATCH:
            return
        with _answering():
            self._db.execute("CREATE TABLE kept AS SELECT * FROM logs WHERE ts >= ?", [oldest])
            self._db.execute("DROP TABLE logs")
            self._db.execute("ALTER TABLE kept RENAME TO logs")
            self._rows = _one(self._db.execute("SELECT count(*) FROM logs").fetchone())
        self._seconds = {second: count for second, count in self._seconds.items() if second >= oldest // 1000}

    # --- the port -------------------------------------------------------------------------------------------------

    def search(
        self, query: Query, span: Span, *, fields: Sequence[str] = (), limit: int = 100, newest: bool = False
    ) -> Sequence[Record]:
        """See `LogStore`."""
        if self._silent(span):
            return []
        where, values = self._where(query, span)
        order = "ts DESC, doc DESC" if newest else "ts, doc"
        rows = self._run(
            f"SELECT doc FROM logs WHERE {where} ORDER BY {order} LIMIT ?", [*values, min(limit, MAX_RECORDS)]
        )
        records = [_DECODER.decode(row[0]) for row in rows]
        return [{name: one[name] for name in fields if name in one} for one in records] if fields else records

    def count(self, query: Query, span: Span) -> int:
        """See `LogStore`."""
        if self._silent(span):
            return 0
        where, values = self._where(query, span)
        return int(self._run(f"SELECT count(*) FROM logs WHERE {where}", values)[0][0])

    def terms(self, query: Query, span: Span, field: str, *, limit: int = 10) -> Sequence[tuple[str, int]]:
        """See `LogStore`."""
        rows = self._by_key(query, span, field)
        return sorted(rows, key=lambda row: (-row[1], row[0]))[:limit]

    def cardinality(self, query: Query, span: Span, field: str) -> int:
        """See `LogStore`."""
        return len(self._by_key(query, span, field))

    def _by_key(self, query: Query, span: Span, field: str) -> list[tuple[str, int]]:
        width = max(1, (span.end - span.start) // MILLISECOND)
        return [(row.keys[0], row.count) for row in self.tally(query, span, width, keys=[field])]

    def tally(
        self, query: Query, span: Span, step_ms: int, *, keys: Sequence[str] = (), measure: str = ""
    ) -> Sequence[Row]:
        """See `LogStore`."""
        kinds = [key_kind(key, self._fields) for key in keys]
        number = measure_kind(measure, self._fields) if measure else None
        if self._silent(span):
            return []
        where, values = self._where(query, span)
        start = span.start // MILLISECOND
        inner = f"SELECT (ts - {start}) // {int(step_ms)} AS bucket, vals FROM logs WHERE {where}"
        for place, (key, kind) in enumerate(zip(keys, kinds, strict=True)):
            inner = f"SELECT *, unnest(list_distinct({_values(key, kind)})) AS k{place} FROM ({inner})"
        names = ["bucket", *(f"k{place}" for place in range(len(keys)))]
        measured = ""
        if number is not None:
            numbers = _values(measure, number)
            measured = (
                f", coalesce(sum(len({numbers})), 0), sum(list_sum({numbers})::DOUBLE),"
                f" min(list_min({numbers})), max(list_max({numbers}))"
            )
        sql = f"SELECT {', '.join(names)}, count(*){measured} FROM ({inner}) GROUP BY ALL LIMIT {MAX_ROWS + 1}"
        rows = self._run(sql, values)
        if len(rows) > MAX_ROWS:
            raise PermanentError(f"log store: more than {MAX_ROWS:,} combinations of keys; group by fewer")
        found = [_row(row, kinds, span, step_ms, measured=bool(measure)) for row in rows]
        return sorted(found, key=lambda row: (row.start, row.keys))

    # --- SQL ------------------------------------------------------------------------------------------------------

    def _silent(self, span: Span) -> bool:
        """Return whether no record at all lies in the span; most turns on a quiet estate end here.

        Raises:
            TemporaryError: records of the span were let go of.
        """
        if span.start < self.complete_from and span.end > span.start:
            raise TemporaryError("log store: there were too many records to keep all of this range of time")
        first, last = span.start // MILLISECOND // 1000, (span.end // MILLISECOND - 1) // 1000
        if last - first < len(self._seconds):
            return not any(second in self._seconds for second in range(first, last + 1))
        return not any(first <= second <= last for second in self._seconds)

    def _where(self, query: Query, span: Span) -> _Piece:
        condition, values = _condition(query)
        return f"ts >= ? AND ts < ? AND ({condition})", [
            span.start // MILLISECOND,
            span.end // MILLISECOND,
            *values,
        ]

    def _run(self, sql: str, values: list[object]) -> list[tuple[Any, ...]]:
        with _answering():
            return self._db.execute(sql, values).fetchall()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise TemporaryError(f"log store: no room for this: {str(error)[:200]}") from error
    except duckdb.Error as error:
        raise PermanentError(f"log store: {str(error)[:300]}") from error


def _one(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0


def _row(row: tuple[Any, ...], kinds: Sequence[FieldKind], span: Span, step_ms: int, *, measured: bool) -> Row:
    keys = tuple(ip_shown(key) if kind is FieldKind.IP else str(key) for key, kind in zip(row[1:], kinds, strict=False))
    start = Instant(span.start + row[0] * step_ms * MILLISECOND)
    rest = row[1 + len(kinds) :]
    if not measured or not rest[1]:
        return Row(start, keys, rest[0])
    return Row(start, keys, rest[0], int(rest[1]), rounded(rest[2]), float(rest[3]), float(rest[4]))


def _values(field: str, kind: FieldKind) -> str:
    """Return the expression of a field's values; fields are those of the list, never a user's text."""
    assert not {'"', "'"} & set(field), "a field's name is one of the list"
    found = f"json_extract_string(vals, '$.\"{field}\"[*]')"
    return f"CAST({found} AS {_CASTS[kind]})" if kind in _CASTS else found


def _condition(query: Query) -> _Piece:  # noqa: PLR0911 - one return a form
    match query:
        case Everything():
            return "true", []
        case Exists(field, kind):
            return f"len({_values(field, kind)}) > 0", []
        case OneOf(field, kind, values):
            cast = f"::{_CASTS[kind]}" if kind in _CASTS else "::VARCHAR[]"
            return f"list_has_any({_values(field, kind)}, ?{cast})", [list(values)]
        case Like(field, kind, parts, fold):
            return _any(field, kind, "regexp_full_match(x, ?, 's')"), [_pattern(parts, fold=fold)]
        case Between():
            return _between(query)
        case Not(part):
            inner, given = _condition(part)
            return f"NOT coalesce({inner}, false)", given
        case All(parts):
            return _joined(parts, " AND ", "true")
        case Some(parts):
            return _joined(parts, " OR ", "false")


def _joined(parts: Sequence[Query], word: str, none: str) -> _Piece:
    pieces = [_condition(part) for part in parts]
    text = word.join(f"coalesce({piece}, false)" for piece, _ in pieces) or none
    return f"({text})", [value for _, values in pieces for value in values]


def _any(field: str, kind: FieldKind, test: str) -> str:
    return f"len(list_filter({_values(field, kind)}, lambda x: {test})) > 0"


def _between(query: Between) -> _Piece:
    cast = {FieldKind.LONG: "::BIGINT", FieldKind.DOUBLE: "::DOUBLE"}.get(query.kind, "")
    tests, values = [], []
    for bound, sign in ((query.low, ">=" if query.with_low else ">"), (query.high, "<=" if query.with_high else "<")):
        if bound is not None:
            tests.append(f"x {sign} ?{cast}")
            values.append(bound)
    return _any(query.field, query.kind, " AND ".join(tests) or "true"), list(values)


def _pattern(parts: Sequence[str | Joker], *, fold: bool) -> str:
    """Return the shape as an expression of RE2, which takes time linear in the value whatever stands in it."""
    jokers: dict[Joker, str] = {Joker.ANY: ".*", Joker.ONE: "."}
    escape: Callable[[str], str] = _folded if fold else _literal
    return "".join(jokers[part] if isinstance(part, Joker) else "".join(map(escape, part)) for part in parts)


def _literal(letter: str) -> str:
    return f"\\x{{{ord(letter):x}}}" if letter in _SPECIAL else letter


def _folded(letter: str) -> str:
    ascii_letter = letter.isascii() and letter.isalpha()
    return f"[{letter.lower()}{letter.upper()}]" if ascii_letter else _literal(letter)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(dict[str, object])
