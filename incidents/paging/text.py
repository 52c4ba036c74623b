"""Texts of strangers made harmless and short: cleaned of control characters, cut between letters a person sees.

A limit holds for the text as it is sent, escapes counted. A cut never falls inside a letter with its accents, inside an
emoji that is built of several, or inside an escape.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

ELLIPSIS: Final = "…"
URL_LETTERS_MAX: Final = 500
_JOINER: Final = "\u200d"
_FLAGS: Final = range(0x1F1E6, 0x1F200)
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_TAGS: Final = range(0xE0020, 0xE0080)
_UNSEEN: Final = (
    frozenset("\u200b\u200e\u200f\u2060\ufeff\u061c")
    | {chr(c) for c in range(0x202A, 0x202F)}
    | {chr(c) for c in range(0x2066, 0x206A)}
)
"""Letters without width and those which turn the reading direction: they can make a text say another thing."""

Escape = Callable[[str], str]
Measure = Callable[[str], int]


def clean(text: str) -> str:
    """Return a text as it may be shown: no control characters, no hidden or turning ones, lines by newline."""
    kept = []
    for letter in text.replace("\r\n", "\n").replace("\r", "\n"):
        if letter == "\n":
            kept.append(letter)
        elif letter in "\t\x0b\x0c\x85\u2028\u2029":
            kept.append(" ")
        elif letter not in _UNSEEN and unicodedata.category(letter) not in {"Cc", "Cs", "Cn", "Co"}:
            kept.append(letter)
    return "".join(kept).strip()


def one_line(text: str) -> str:
    """Return a cleaned text on one line, with single spaces."""
    return " ".join(clean(text).split())


def same(text: str) -> str:
    """Escape nothing: for channels that take plain text."""
    return text


def utf8_bytes(text: str) -> int:
    """Return a text's length in bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def clusters(text: str) -> Iterator[str]:
    """Yield what a person sees as single letters: a base with its marks, emoji joined to one, pairs that make a flag.

    A close approximation of Unicode's extended grapheme clusters (UAX 29) without its tables: it may keep more together
    than the standard does, never less for what is met in alerts.
    """
    start = 0
    for index in range(1, len(text)):
        if not _sticks(text, start, index):
            yield text[start:index]
            start = index
    if text:
        yield text[start:]


def _sticks(text: str, start: int, index: int) -> bool:
    """Tell whether the letter at `index` belongs to the cluster that begins at `start`."""
    letter, before = text[index], text[index - 1]
    if _JOINER in {letter, before}:
        return True
    code = ord(letter)
    if code in _SKIN_TONES or code in _TAGS or unicodedata.category(letter).startswith("M"):
        return True
    if code in _FLAGS:
        flags = sum(ord(one) in _FLAGS for one in text[start:index])
        return flags == index - start and flags % 2 == 1
    return _hangul(ord(before), code)


def _hangul(before: int, code: int) -> bool:
    """Tell whether two Korean letters stand in one syllable: vowels and finals follow what came before."""
    vowel_or_final = 0x1160 <= code <= 0x11FF  # noqa: PLR2004 - Unicode's block of jamo
    leading = 0x1100 <= code <= 0x115F and 0x1100 <= before <= 0x115F  # noqa: PLR2004 - likewise
    korean = 0x1100 <= before <= 0x11FF or 0xAC00 <= before <= 0xD7A3  # noqa: PLR2004 - likewise
    return leading or (vowel_or_final and korean)


def cut(text: str, limit: int, *, escape: Escape = same, measure: Measure = len) -> str:
    """Return `text` escaped and, when it is longer than `limit` then, cut between letters and marked by an ellipsis.

    `escape` must treat letters one by one: the escape of a text is that of its parts, joined.
    """
    whole = escape(text)
    if measure(whole) <= limit:
        return whole
    room = limit - measure(escape(ELLIPSIS))
    if room < 0:
        return ""
    kept, used = [], 0
    for cluster in clusters(text):
        escaped = escape(cluster)
        used += measure(escaped)
        if used > room:
            break
        kept.append(escaped)
    return "".join(kept) + escape(ELLIPSIS)


def safe_url(text: str) -> str:
    """Return an address that may be shown as a link: http or https, no blanks, not long. Empty when it may not."""
    address = text.strip()
    if not address or len(address) > URL_LETTERS_MAX or not address.isascii() or not address.isprintable():
        return ""
    if any(letter in address for letter in " <>\"'`\\|^{}"):
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address if parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc else ""


def xml(text: str) -> str:
    """Escape a text for XML's content and attributes; what XML 1.0 cannot hold becomes a question mark."""
    legal = "".join(letter if _in_xml(ord(letter)) else "?" for letter in text)
    for raw, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;")):
        legal = legal.replace(raw, escaped)
    return legal


def _in_xml(code: int) -> bool:
    return code in {0x9, 0xA, 0xD} or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000  # noqa: PLR2004


def mrkdwn(text: str) -> str:
    """Escape a text for Slack: the three letters that begin its mentions and links."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
