"""PromQL cut into tokens with their places: what the reader of expressions and the spoiler of rules share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SET_OPERATORS: Final = frozenset({"and", "or", "unless"})
COMPARISONS: Final = frozenset({"==", "!=", ">=", "<=", ">", "<"})
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<duration>(?:\d+(?:ms|[smhdwy]))+(?!\w))
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf|nan)(?![\w:]))
    |(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^<>=(){},@])""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Token:
    """One token: what sort it is of, its text, and where it starts in the expression."""

    sort: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the next one may start."""
        return self.start + len(self.text)


class UnreadableError(ValueError):
    """An expression is not of the PromQL we read; says what stands where (`at` counts characters from 0)."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(problem)
        self.at = at


def tokens(expression: str) -> list[Token]:
    """Cut an expression into tokens, blanks and comments left out.

    Raises:
        UnreadableError: A character begins no token.
    """
    found: list[Token] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise UnreadableError(f"{expression[at]!r} begins nothing that PromQL has", at)
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return found
