"""PromQL as a tree, as far as boards use it: enough to see units, counters and selectors. No evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

AGGREGATIONS: Final = frozenset(
    {"sum", "min", "max", "avg", "count", "stddev", "stdvar", "group", "topk", "bottomk", "quantile", "count_values"}
)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)
    |(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^(){},=<>@]))""",
    re.VERBOSE,
)
_LEVELS: Final = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"), ("^",))
_MATCHING: Final = frozenset({"on", "ignoring", "group_left", "group_right"})
_DEPTH_MAX: Final = 100


@dataclass(frozen=True)
class Number:
    """A literal."""


@dataclass(frozen=True)
class Select:
    """Series chosen by name and matchers (label, operator, value), over a window if it has one."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    window: str = ""


@dataclass(frozen=True)
class Call:
    """A function or an aggregation with its grouping labels."""

    name: str
    inner: tuple[Tree, ...]
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two expressions and what joins them."""

    sign: str
    left: Tree
    right: Tree
    labels: tuple[str, ...] = ()


Tree = Number | Select | Call | Pair


def parse(text: str) -> Tree:
    """Return the tree of an expression.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    reader = _Reader(text)
    found = reader.level(0, 0)
    if reader.peek():
        raise ValueError(f"{reader.peek()!r} is not understood here")
    return found


def walk(tree: Tree, above: tuple[Tree, ...] = ()) -> Iterator[tuple[Tree, tuple[Tree, ...]]]:
    """Yield every part of a tree with all that it stands in, the nearest last."""
    yield tree, above
    parts = tree.inner if isinstance(tree, Call) else (tree.left, tree.right) if isinstance(tree, Pair) else ()
    for part in parts:
        yield from walk(part, (*above, tree))


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"{text[at : at + 20].strip()!r} is no PromQL")
            self._tokens.append(found.group().strip())
            at = found.end()
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise ValueError(f"{wanted or 'more'} is missing" + (f" before {token!r}" if token else " at the end"))
        self._at += 1
        return token

    def level(self, level: int, depth: int) -> Tree:
        if depth > _DEPTH_MAX:
            raise ValueError("it is nested too deep")
        if level == len(_LEVELS):
            return self._unary(depth)
        left = self.level(level + 1, depth)
        while self.peek().lower() in _LEVELS[level]:
            sign = self.take().lower()
            if self.peek() == "bool":
                self.take()
            labels: tuple[str, ...] = ()
            while self.peek() in _MATCHING:
                self.take()
                if self.peek() == "(":
                    labels += self._words()
            left = Pair(sign, left, self.level(level + 1, depth), labels)
        return left

    def _unary(self, depth: int) -> Tree:
        if self.peek() in {"-", "+"}:
            self.take()
            return self._unary(depth + 1)
        return self._window(self._primary(depth + 1))

    def _window(self, tree: Tree) -> Tree:
        while True:
            if self.peek().startswith("["):
                window = self.take()[1:-1].strip()
                if isinstance(tree, Select):
                    tree = Select(tree.name, tree.matchers, window)
            elif self.peek() == "offset":
                self.take()
                self.take()
            else:
                return tree

    def _primary(self, depth: int) -> Tree:
        word = self.take()
        if word == "(":
            inner = self.level(0, depth)
            self.take(")")
            return inner
        if word == "{":
            self._at -= 1
            return Select("", self._matchers())
        if word[0].isdigit() or word[0] in "\"'.":
            return Number()
        if not re.fullmatch(r"[a-zA-Z_:][\w:]*", word):
            raise ValueError(f"{word!r} is not understood here")
        if word in AGGREGATIONS:
            by = self._by()
            given = self._arguments(depth)
            return Call(word, given, by or self._by())
        if self.peek() == "(":
            return Call(word, self._arguments(depth))
        return Select(word, self._matchers() if self.peek() == "{" else ())

    def _by(self) -> tuple[str, ...]:
        if self.peek() not in {"by", "without"}:
            return ()
        self.take()
        return self._words()

    def _words(self) -> tuple[str, ...]:
        self.take("(")
        words = []
        while self.peek() != ")":
            words.append(self.take())
            if self.peek() == ",":
                self.take()
        self.take(")")
        return tuple(words)

    def _arguments(self, depth: int) -> tuple[Tree, ...]:
        self.take("(")
        found = []
        while self.peek() != ")":
            found.append(self.level(0, depth))
            if self.peek() == ",":
                self.take()
        self.take(")")
        return tuple(found)

    def _matchers(self) -> tuple[tuple[str, str, str], ...]:
        self.take("{")
        found = []
        while self.peek() != "}":
            label, sign, value = self.take(), self.take(), self.take()
            if sign not in {"=", "!=", "=~", "!~"} or value[0] not in "\"'":
                raise ValueError(f"{label}{sign}{value} is no matcher")
            found.append((label, sign, value[1:-1]))
            if self.peek() == ",":
                self.take()
        self.take("}")
        return tuple(found)
