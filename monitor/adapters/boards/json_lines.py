"""The line of every part of a JSON text, by its path; one pass over the tokens of text already known to be JSON."""

from __future__ import annotations

import json
import re
from typing import Final

Path = tuple[str | int, ...]
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+')


def lines_of(text: str) -> dict[Path, int]:  # noqa: C901 - one arm a kind of word
    """Return the line on which each key and each element of a list begins."""
    lines: dict[Path, int] = {(): 1}
    path: list[str | int] = []
    key: str | None = None
    line, opens = 1, True
    for word in _TOKEN.findall(text):
        if word == "\n":
            line += 1
            continue
        if opens and word not in "]}":
            _begin(path, word, lines, line)
        opens = False
        if word == "{":
            path.append("")
            key = ""
        elif word == "[":
            path.append(0)
            opens = True
        elif word in "]}":
            path.pop()
            key = None
        elif word == ",":
            if path and isinstance(path[-1], int):
                path[-1] += 1
                opens = True
            else:
                key = ""
        elif word == ":":
            key = None
        elif key == "" and path and isinstance(path[-1], str):
            path[-1] = key = str(json.loads(word))
            lines[tuple(path)] = line
    return lines


def _begin(path: list[str | int], word: str, lines: dict[Path, int], line: int) -> None:
    """Note where an element of a list begins."""
    if path and isinstance(path[-1], int) and word != ",":
        lines[tuple(path)] = line
