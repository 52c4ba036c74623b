"""PromQL read into a tree, without evaluating it: what the checks of rules and boards ask of an expression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from monitor.promql_tokens import COMPARISONS, Token, UnreadableError, tokens

AGGREGATIONS: Final = frozenset(
    {"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values"}
)
_LEVELS: Final = (frozenset({"or"}), frozenset({"and", "unless"}), COMPARISONS, frozenset("+-"),
                  frozenset({"*", "/", "%", "atan2"}))  # fmt: skip
"""Binary operators from the loosest to the tightest; `^` binds tighter still, to the right."""
_MAX_DEPTH: Final = 60


@dataclass(frozen=True)
class Number:
    """A number that stands in the expression."""

    value: float
    at: int


@dataclass(frozen=True)
class Text:
    """A string, such as an argument of label_replace; quotes taken off."""

    value: str
    at: int


@dataclass(frozen=True)
class Matcher:
    """One condition on a label; `at` is where the label's name stands."""

    label: str
    op: str
    value: str
    at: int


@dataclass(frozen=True)
class Selector:
    """Series by name and conditions; `range` is what stands in brackets, None without them."""

    name: str
    matchers: tuple[Matcher, ...]
    range: str | None
    at: int


@dataclass(frozen=True)
class Over:
    """A subquery: an expression over a range."""

    inner: Node
    at: int


@dataclass(frozen=True)
class Call:
    """A function or an aggregation; `by` is None when it does not group, `without` turns the meaning of `by` round."""

    name: str
    arguments: tuple[Node, ...]
    at: int
    by: tuple[Token, ...] | None = None
    without: bool = False


@dataclass(frozen=True)
class Binary:
    """Two sides and how their series are matched; `on` is None when all labels count."""

    op: str
    left: Node
    right: Node
    at: int
    boolean: bool = False
    on: tuple[Token, ...] | None = None
    ignoring: bool = False
    group: str = ""
    include: tuple[Token, ...] = ()


Node = Number | Text | Selector | Over | Call | Binary


def tree(expression: str) -> Node:
    """Read an expression.

    Raises:
        UnreadableError: It is not of the PromQL we read; says what stands where.
    """
    reader = _Reader(tokens(expression), len(expression))
    node = reader.binary(0)
    if reader.here is not None:
        raise UnreadableError(f"`{reader.here.text}` stands after the end of the expression", reader.here.start)
    return node


@dataclass
class _Reader:
    found: list[Token]
    length: int
    place: int = 0
    depth: int = field(default=0)

    @property
    def here(self) -> Token | None:
        return self.found[self.place] if self.place < len(self.found) else None

    def is_(self, *texts: str) -> bool:
        return self.here is not None and self.here.text in texts and self.here.sort != "string"

    def take(self, *texts: str) -> Token:
        token = self.here
        if token is None:
            raise UnreadableError(
                f"the expression ends where {' or '.join(texts) or 'a value'} should stand", self.length
            )
        if texts and not self.is_(*texts):
            raise UnreadableError(f"`{token.text}` stands where {' or '.join(texts)} should", token.start)
        self.place += 1
        return token

    def binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.is_(*_LEVELS[level]):
            operator = self.take()
            made = self.matching(operator)
            right = self.binary(level + 1)
            left = Binary(operator.text, left, right, operator.start, *made)
        return left

    def matching(self, operator: Token) -> tuple[bool, tuple[Token, ...] | None, bool, str, tuple[Token, ...]]:
        boolean = operator.text in COMPARISONS and self.is_("bool") and bool(self.take())
        on: tuple[Token, ...] | None = None
        include: tuple[Token, ...] = ()
        ignoring, group = False, ""
        if self.is_("on", "ignoring"):
            ignoring = self.take().text == "ignoring"
            on = self.labels()
            if self.is_("group_left", "group_right"):
                group = self.take().text
                include = self.labels() if self.is_("(") else ()
        return boolean, on, ignoring, group, include

    def unary(self) -> Node:
        if self.is_("-", "+"):
            sign = self.take()
            inner = self.unary()
            if isinstance(inner, Number):
                return Number(-inner.value if sign.text == "-" else inner.value, sign.start)
            return inner
        base = self.postfix(self.value())
        if self.is_("^"):
            operator = self.take()
            return Binary("^", base, self.unary(), operator.start)
        return base

    def postfix(self, node: Node) -> Node:
        while self.here is not None and (self.here.sort == "range" or self.is_("offset", "@")):
            token = self.take()
            if token.text == "offset":
                if self.is_("-"):
                    self.take()
                self.take()
            elif token.text == "@":
                self.take()
            elif isinstance(node, Selector) and node.range is None and ":" not in token.text:
                node = Selector(node.name, node.matchers, token.text[1:-1], node.at)
            else:
                node = Over(node, token.start)
        return node

    def value(self) -> Node:
        token = self.here
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise UnreadableError("nested too deep", token.start if token else self.length)
        try:
            if token is not None and token.text == "{":
                return Selector("", self.matchers(), None, token.start)
            token = self.take()
            if token.sort in {"number", "duration"}:
                return Number(_number(token.text), token.start)
            if token.sort == "string":
                return Text(token.text[1:-1], token.start)
            if token.text == "(":
                inner = self.binary(0)
                self.take(")")
                return inner
            if token.sort == "name":
                return self.named(token)
        finally:
            self.depth -= 1
        raise UnreadableError(f"`{token.text}` stands where a value should", token.start)

    def named(self, token: Token) -> Node:
        if self.is_("by", "without") and token.text in AGGREGATIONS:
            without = self.take().text == "without"
            by = self.labels()
            return Call(token.text, self.arguments(), token.start, by, without)
        if self.is_("("):
            arguments = self.arguments()
            if self.is_("by", "without") and token.text in AGGREGATIONS:
                without = self.take().text == "without"
                return Call(token.text, arguments, token.start, self.labels(), without)
            return Call(token.text, arguments, token.start)
        return Selector(token.text, self.matchers() if self.is_("{") else (), None, token.start)

    def arguments(self) -> tuple[Node, ...]:
        self.take("(")
        found: list[Node] = []
        while not self.is_(")"):
            found.append(self.binary(0))
            if not self.is_(")"):
                self.take(",")
        self.take(")")
        return tuple(found)

    def labels(self) -> tuple[Token, ...]:
        self.take("(")
        found: list[Token] = []
        while not self.is_(")"):
            found.append(self.name())
            if not self.is_(")"):
                self.take(",")
        self.take(")")
        return tuple(found)

    def name(self) -> Token:
        token = self.take()
        if token.sort != "name":
            raise UnreadableError(f"`{token.text}` stands where a label's name should", token.start)
        return token

    def matchers(self) -> tuple[Matcher, ...]:
        self.take("{")
        found: list[Matcher] = []
        while not self.is_("}"):
            label = self.name()
            operator = self.take("=", "!=", "=~", "!~")
            value = self.take()
            if value.sort != "string":
                raise UnreadableError(f"`{value.text}` stands where a text in quotes should", value.start)
            found.append(Matcher(label.text, operator.text, value.text[1:-1], label.start))
            if not self.is_("}"):
                self.take(",")
        self.take("}")
        return tuple(found)


def _number(text: str) -> float:
    try:
        return float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    except ValueError:
        return 1.0  # a duration where only its being a number counts
