"""Kinds of log lines out of a log store, and out of a file: where lines come from, and what of them is compared."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from control.series_stamps import UNREADABLE, stamp_of
from kernel.errors import InputError, PermanentError
from kernel.time import MILLISECOND, MINUTE, SECOND, Duration, Instant
from monitor.log_fields import TIME, Record, time_ms
from monitor.log_query import Everything, Query
from monitor.log_store import MAX_RECORDS, LogStore, Span

if TYPE_CHECKING:
    from anomaly.log_rates import Bucket, LogWatcher

FIELDS: Final = ("service.name", "event.action", "log.level", "message", "exchange.message")
"""Of a record, what tells its kind: who and what, which no two kinds share, how bad, and the words it came with."""
OWN: Final = frozenset({"log-kind-new", "log-rate-anomalous"})
"""What is said about kinds is no line of the log: it would be the next new kind."""
BUCKETS: Final = 300
"""Buckets that a look back is cut into, at least: a detector has to see about a hundred before it judges."""
_LINE_BYTES: Final = 1 << 20
_HEAD: Final = 300
"""Letters of a line in which its time is looked for."""
_KEYS: Final = (TIME, "timestamp", "time", "ts", "t", "date", "datetime")
_ISO: Final = re.compile(
    r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
)
_APACHE: Final = re.compile(r"(\d{1,2})/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d)(?: ([+-]\d{4}))?")
_SYSLOG: Final = re.compile(r"([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d)\b")
_EPOCH: Final = re.compile(r"\[?(\d{10,19}(?:\.\d{1,9})?)\b")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def words_of(record: Mapping[str, object]) -> str:
    """Return the words of a record that tell its kind."""
    found: list[str] = []
    for name in FIELDS:
        value = record.get(name)
        text = str(value[0] if isinstance(value, list) and value else value) if value is not None else ""
        if text and text.replace("-", " ") not in {one.replace("-", " ") for one in found}:
            found.append(text)
    return " ".join(found)


def records(store: LogStore, span: Span, query: Query = Everything()) -> Iterator[Record]:  # noqa: B008 - a frozen value
    """Yield the records of a range in order, however many: the range is halved until an answer holds each part.

    Raises:
        TapewatchError: as the store; more records within a millisecond than one answer holds are cut.
    """
    waiting = [span]
    while waiting:
        part = waiting.pop()
        found = store.search(query, part, fields=(TIME, *FIELDS), limit=MAX_RECORDS)
        half = Instant((part.start + part.end) // 2 // MILLISECOND * MILLISECOND)
        if len(found) < MAX_RECORDS or half <= part.start:
            yield from found
        else:
            waiting += [Span(half, part.end), Span(part.start, half)]


def feed(watcher: LogWatcher, store: LogStore, span: Span, query: Query = Everything()) -> list[Bucket]:  # noqa: B008
    """Give a watcher the records of a range; returns the buckets that ended."""
    done: list[Bucket] = []
    for record in records(store, span, query):
        moment = time_ms(record)
        if moment is not None and record.get("event.action") not in OWN:
            done += watcher.add(words_of(record), Instant(moment * MILLISECOND))
    return done


def bucket_for(span: Span) -> Duration:
    """Return the length of a bucket for a look back: a second to a minute, in whole seconds."""
    return Duration(min(MINUTE, max(SECOND, (span.end - span.start) // BUCKETS // SECOND * SECOND)))


@dataclass
class Reading:
    """What became of the lines of a file."""

    lines: int = 0
    without_time: int = 0
    """Lines before the first that names a time: they are left out."""
    continued: int = 0
    """Lines without a time of their own: they stand at that of the line before."""
    backward: int = 0
    """Lines that name an earlier time than the one before."""
    year: int = field(default_factory=lambda: time.gmtime().tm_year)


def file_lines(path: Path, reading: Reading) -> Iterator[tuple[str, Instant]]:
    """Yield the lines of a file, plain or gzip, each with its time.

    Raises:
        InputError: the file cannot be read.
    """
    last: Instant | None = None
    try:
        reading.year = time.gmtime(path.stat().st_mtime).tm_year
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while raw := file.readline(_LINE_BYTES):
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if not line.strip():
                    continue
                reading.lines += 1
                at = time_of(line, reading.year)
                if at is None and last is None:
                    reading.without_time += 1
                    continue
                reading.continued += at is None
                reading.backward += at is not None and last is not None and at < last
                last = at if at is not None else last
                assert last is not None, "a line without a time follows one with a time"
                yield line, last
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), f"cannot be read ({why})", right="a log file, plain or .gz") from error


def time_of(line: str, year: int) -> Instant | None:
    """Return the time that a line names: a field of a JSON object, or ISO, Apache, syslog or epoch near its start."""
    if line.startswith("{"):
        return _of_json(line)
    head = line[:_HEAD]
    for found in (_ISO.search(head), _EPOCH.match(head)):
        if found is not None:
            return _stamp(found[found.lastindex or 0])
    if (apache := _APACHE.search(head)) is not None:
        day, month, written, clock, zone = apache.groups()
        return _named(day, month, int(written), clock, zone or "")
    if (syslog := _SYSLOG.match(head)) is not None:
        month, day, clock = syslog.groups()
        return _named(day, month, year, clock, "")
    return None


def _of_json(line: str) -> Instant | None:
    try:
        held = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(held, dict):
        return None
    for key in _KEYS:
        value = held.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return _stamp(str(value))
    return None


def _named(day: str, month: str, year: int, clock: str, zone: str) -> Instant | None:
    if month not in _MONTHS:
        return None
    return _stamp(f"{year}-{_MONTHS.index(month) + 1:02d}-{int(day):02d}T{clock}{zone}")


def _stamp(text: str) -> Instant | None:
    at = stamp_of(text.encode("ascii", "replace"))
    return None if at == UNREADABLE else Instant(at)


def nothing_read(path: Path, reading: Reading) -> PermanentError:
    """Return what to say of a file without a line that can be scored."""
    if not reading.lines:
        return InputError(str(path), "it holds no line", right="a log file")
    return InputError(
        str(path), f"none of its {reading.lines:,} lines names a time",
        right="a time such as 2026-03-02T09:30:00Z, [02/Mar/2026:09:30:00 +0000] or a field @timestamp near its start",
    )  # fmt: skip
