"""The template of a log line: what stays when numbers, ids, addresses and paths are masked, and alike lines are joined.

Masking comes first: without it a miner makes a template of every id. What is left is compared word by word: lines with
as many words and the same first word, of which at least six in ten are equal, are one template, whose other words
become `<*>`. The same lines in the same order always give the same templates.
"""

from __future__ import annotations

import re
from typing import Final

MAX_TEMPLATES: Final = 1_000
MAX_WORDS: Final = 60
MAX_CHARACTERS: Final = 2_000
ALIKE: Final = 0.6
_MASKS: Final = (
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"), "<ip>"),
    (re.compile(r"\b[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])"), "<ip>"),
    (re.compile(r"(?<![\w<])(?:/[\w.@+-]{1,100}){1,20}"), "<path>"),
    (re.compile(r"\b(?:0x[0-9a-fA-F]{1,64}|(?=[0-9a-fA-F]{0,64}\d)[0-9a-fA-F]{8,64})\b"), "<hex>"),
    (re.compile(r"\b(?=[\w-]{0,64}\d)[A-Za-z]{1,32}(?:-[A-Za-z0-9]{1,32}){1,6}\b"), "<id>"),
    (re.compile(r"(?<![A-Za-z_<])[+-]?\d{1,40}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?"), "<n>"),
)
"""In this order; each is bounded, so that a hostile line costs no more than a long one."""


def masked(text: str) -> str:
    """Return a line with its variables masked."""
    text = text[:MAX_CHARACTERS]
    for expression, mask in _MASKS:
        text = expression.sub(mask, text)
    return " ".join(text.split()[:MAX_WORDS])


def template(text: str, known: dict[str, object] | list[str]) -> tuple[str, str | None]:
    """Return the template of a line, and the one of `known` that it takes the place of; the same, when it fits.

    None as the second: no known template is like it.
    """
    words = masked(text).split()
    line = " ".join(words)
    if line in known:
        return line, line
    best, alike = None, 0.0
    for one in known:
        others = one.split()
        if len(others) != len(words) or not words or others[0] != words[0]:
            continue
        equal = sum(other in (mine, "<*>") for mine, other in zip(words, others, strict=True)) / len(words)
        if equal > alike:
            best, alike = one, equal
    if best is None or alike < ALIKE:
        return line, None
    joined = [mine if mine == other else "<*>" for mine, other in zip(words, best.split(), strict=True)]
    return " ".join(joined), best
