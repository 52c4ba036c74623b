"""What can be said about PromQL without evaluating it: selectors, quoting, the metrics an expression names."""

from __future__ import annotations

import re
from typing import Final

_STRING: Final = r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\''
_MATCHER: Final = rf"\s*[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*(?:{_STRING})\s*"
_RAW_SELECTOR: Final = re.compile(rf"\s*[a-zA-Z_]\w*\s*(?:\{{(?:{_MATCHER}(?:,{_MATCHER})*,?)?\s*\}})?\s*", re.ASCII)
_NOISE: Final = re.compile(
    rf"{_STRING}|\{{[^}}]*\}}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
)
_NAME: Final = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", re.ASCII)
_WORDS: Final = frozenset({"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "inf", "nan"})


def is_raw_selector(text: str) -> bool:
    """Tell whether `text` selects series as they were scraped: a metric's name and perhaps matchers, nothing else.

    Only such a selector has samples with the time of the scrape. The result of an expression carries the time of the
    question, a recorded series (a name with a colon) the time of its rule: either would make old data look young.
    """
    return _RAW_SELECTOR.fullmatch(text) is not None


def quoted(value: str) -> str:
    """Return a label value as a PromQL string, so that whatever it holds stays a value."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def metric_names(expression: str) -> frozenset[str]:
    """Return the metrics and recorded series an expression names."""
    bare = _NOISE.sub(lambda found: " " if not found.group().startswith("{") else "", expression)
    return frozenset(name for name in _NAME.findall(bare) if name.lower() not in _WORDS)
