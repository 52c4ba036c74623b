"""What of a line changes from one to the next is masked before anything is compared: numbers, ids, addresses, times.

What stands in quotes goes first, as a whole. Then the line is taken word by word: words of letters alone stay, the many
that are a number with something around it take a short way, and only the rest meets the expressions of addresses,
times, ids. What stays is what the program's author wrote. A method and a status of HTTP come first, as one word:
another status is another matter.

Cost: about 10 microseconds for a line of 100 letters, less than a millisecond for the worst one of `LINE_MAX`.

>>> mask('2026-03-02T09:30:00.125Z order ord-8812 of client C17 rejected: price 101.25 outside "99.0 to 101.0"')
'<time> order ord-<n> of client C<n> rejected: price <n> outside <str>'
>>> mask('10.1.2.3 - - [02/Mar/2026:09:30:00 +0000] "GET /orders/8812?x=1 HTTP/1.1" 500 17')
'GET:500 <ip> - - [<time> <n>] <str> <n>'
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

LINE_MAX: Final = 1_000
"""Letters of a line that are looked at."""
TOKENS_MAX: Final = 60
"""Words of a line that are compared."""
_WORD_MAX: Final = 200
"""Letters of a word that are looked at."""

_REQUEST: Final = re.compile(r'"(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS) [^"]*" ([1-5]\d\d)(?!\S)')
_QUOTED: Final = re.compile(r'"[^"]*"|(?<!\w)\'[^\']*\'(?!\w)|“[^”]*”')
_SYSLOG: Final = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ")
_CHANGES: Final = re.compile(r"[\d@/]")
_KEPT: Final = re.compile(r"[A-Z]+:[1-5]\d\d")
"""Words with digits that tell kinds of lines apart."""
_NUMBER: Final = re.compile(r"([A-Za-z_=(\[#:<-]{0,11})[+-]?\d{1,11}(?:[.,]\d{1,11})?([A-Za-zµ%]{0,3}[\]),.;:>]*)")
_OTHERS: Final = (
    ("<time>", r"\d{4}-\d\d-\d\d(?:[T_]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"),
    ("<time>", r"\d{1,2}/[A-Z][a-z]{2}/\d{4}(?::\d\d:\d\d:\d\d)?"),
    ("<time>", r"(?<!\d)\d\d:\d\d:\d\d(?:[.,]\d+)?Z?"),
    ("<uuid>", r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    ("<url>", r"https?://[^\s\"'<>]+"),
    ("<mail>", r"(?<![\w.+-])[\w.+-]{1,64}@[\w.-]{1,100}"),
    ("<mac>", r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])"),
    ("<ip>", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.]\d)"),
    ("<ip>", r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{0,4}(?![\w:])"),
    ("<hex>", r"0[xX][0-9a-fA-F]+|(?<![0-9a-zA-Z])(?=[a-fA-F]*\d)[0-9a-fA-F]{12,}(?![0-9a-zA-Z])"),
    ("<path>", r"(?<![\w.])(?:/[\w.@%+-]+){2,}/?"),
    ("<id>", r"(?<![0-9a-zA-Z])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}(?![0-9a-zA-Z])"),
    ("<n>", r"(?:(?<!\w)[+-])?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?"),
)
_OTHER: Final = re.compile("|".join(f"({pattern})" for _, pattern in _OTHERS))
_NAMES: Final = tuple(name for name, _ in _OTHERS)
_FIRST: Final = ("level", "severity", "logger", "service", "component", "event", "action", "status", "code")
_TEXTS: Final = ("message", "msg", "log", "text", "error")


def mask(line: str) -> str:
    """Return a line with everything that changes masked, its words parted by single blanks."""
    text = line[:LINE_MAX]
    if '"' in text or "'" in text or "“" in text:
        request = _REQUEST.search(text)
        if request is not None:
            text = f"{request[1]}:{request[2]} {text[: request.start()]}<str>{text[request.end() :]}"
        text = _QUOTED.sub("<str>", text)
    if _SYSLOG.match(text):
        text = "<time> " + text[16:]
    return " ".join([word if word.isalpha() else _masked(word) for word in text.split()[:TOKENS_MAX]])


def text_of(line: str) -> str:
    """Return what a line says: itself, or of a JSON object the words that stand for its event.

    >>> text_of('{"ts": 1, "level": "warn", "msg": "slow answer", "took": 3.2}')
    'warn slow answer'
    """
    if not line.startswith("{"):
        return line
    try:
        held = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return said(held) if isinstance(held, dict) else line


def said(record: Mapping[str, object]) -> str:
    """Return the words of a flat record: its level and event, then its message; of one without them, all its pairs."""
    found = [str(record[key]) for key in _FIRST if isinstance(record.get(key), str | int)]
    texts = [str(record[key]) for key in _TEXTS if isinstance(record.get(key), str)]
    if texts or len(found) > 1:
        return " ".join((*found, *texts))
    return " ".join(f"{key}={value}" for key, value in sorted(record.items()) if isinstance(value, str | int | float))


def _masked(word: str) -> str:
    if not _CHANGES.search(word) or _KEPT.fullmatch(word):
        return word
    plain = _NUMBER.fullmatch(word)
    if plain is not None:
        return f"{plain[1]}<n>{plain[2]}"
    return _OTHER.sub(_named, word[:_WORD_MAX])


def _named(found: re.Match[str]) -> str:
    assert found.lastindex is not None, "every alternative is a group"
    return _NAMES[found.lastindex - 1]
