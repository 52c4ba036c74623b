"""Log records and matches as lines for a terminal: one record one line, whatever it holds."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final

import msgspec
from rich.text import Text

from kernel.time import to_rfc3339
from monitor.log_fields import TIME, Record
from monitor.logrules.fold import Match

MAX_VALUE: Final = 400
_COLOURS: Final = {"critical": "bold red", "error": "red", "warning": "yellow", "debug": "dim"}
_HEAD: Final = (TIME, "log.level", "service.node.name", "service.name", "event.action", "message")
_NOISE: Final = frozenset({*_HEAD, "ecs.version", "event.dataset"})
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def plain(value: object) -> str:
    """Return a value as text that can do nothing to a terminal: controls and marks of direction are written out."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    cut = text[:MAX_VALUE] + ("…" if len(text) > MAX_VALUE else "")
    return "".join(_shown(letter) for letter in cut)


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _UNSEEN:
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004 - widths of escapes


def record_line(record: Record, *, only: bool = False) -> Text:
    """Return a record as one line; with `only`, nothing but the fields it has."""
    level = str(record.get("log.level", ""))
    line = Text(no_wrap=True, overflow="ignore")
    if TIME in record:
        line.append(plain(record[TIME]), "dim")
    if level:
        line.append(f" {plain(level):8}", _COLOURS.get(level, ""))
    who = record.get("service.node.name") or record.get("service.name")
    for name, value, style in (("", who, "cyan"), ("", record.get("event.action"), "bold")):
        if value is not None:
            line.append(f" {name}{plain(value)}", style)
    message, action = record.get("message"), record.get("event.action")
    if message is not None and plain(message) != str(action).replace("-", " "):
        line.append(f" {plain(message)}")
    for name, value in record.items():
        if name not in (_HEAD if only else _NOISE):
            line.append(f" {plain(name)}=", "dim")
            line.append(plain(value))
    return line


def match_line(match: Match) -> Text:
    """Return a match as one line: when, of what, why."""
    line = Text(no_wrap=True, overflow="ignore")
    line.append(to_rfc3339(match.at), "dim")
    for value in match.key:
        line.append(f" {plain(value)}", "cyan")
    line.append(f" {plain(match.why)}", "yellow")
    return line


def match_json(match: Match) -> Mapping[str, object]:
    """Return a match as JSON shows it."""
    return {
        "at": to_rfc3339(match.at), "key": list(match.key), "why": match.why, "value": match.value,
        "records": list(match.records),
    }  # fmt: skip
