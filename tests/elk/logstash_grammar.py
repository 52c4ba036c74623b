"""Logstash's configuration language, parsed as its own grammar (LogStash::Config::Grammar, treetop) has it.

config: plugin_section+; section: (input|filter|output) { branch_or_plugin* }; plugin: name { attribute* }; attribute:
name => value; value: plugin | bareword | string | number | array | hash; branch: if condition {} else if {} else {};
condition: expression ((and|or|xor|nand) expression)*; expressions compare, match, look in, negate and group.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n]+|\#[^\r\n]*)|(?P<string>"(?:\\.|[^\\"])*"|'(?:\\.|[^\\'])*')
    |(?P<number>-?[0-9]+(?:\.[0-9]*)?(?![A-Za-z_]))|(?P<op>=>|==|!=|<=|>=|=~|!~|<|>|!|\{|\}|\[|\]|\(|\)|,)
    |(?P<word>[A-Za-z_][A-Za-z0-9_-]*)|(?P<at>@[A-Za-z0-9_]+)""",
    re.VERBOSE | re.DOTALL,
)
SECTIONS = ("input", "filter", "output")
BOOLEAN = ("and", "or", "xor", "nand")
COMPARE = ("==", "!=", "<=", ">=", "<", ">")


class GrammarError(ValueError):
    """The text is no configuration; says where."""


@dataclass
class Plugin:
    name: str
    options: dict[str, object] = field(default_factory=dict)


@dataclass
class Branch:
    """`if` and its alternatives: (condition, body), the last condition None for `else`."""

    arms: list[tuple[object, list[object]]]


class Parser:
    def __init__(self, text):
        self.text = text
        self.at = 0

    def fail(self, wanted):
        line = self.text.count("\n", 0, self.at) + 1
        found = self.text[self.at : self.at + 20].split("\n")[0]
        raise GrammarError(f"line {line}: expected {wanted}, found {found!r}")

    def peek(self):
        while True:
            match = TOKEN.match(self.text, self.at)
            if match is None or match.lastgroup != "skip":
                break
            self.at = match.end()
        if match is None:
            if self.at < len(self.text):
                self.fail("a token")
            return "end", ""
        return match.lastgroup, match.group()

    def take(self, *wanted):
        kind, text = self.peek()
        if text not in wanted or kind == "string":
            self.fail(" or ".join(wanted))
        self.at += len(text)
        return text

    def is_next(self, *wanted):
        kind, text = self.peek()
        return kind != "string" and text in wanted

    def config(self):
        sections = []
        while self.peek()[0] != "end":
            name = self.take(*SECTIONS)
            sections.append((name, self.body(name)))
        if not sections:
            self.fail("a section")
        return sections

    def body(self, section):
        self.take("{")
        found = []
        while not self.is_next("}"):
            found.append(self.branch(section) if self.is_next("if") else self.plugin())
        self.take("}")
        return found

    def name(self):
        kind, text = self.peek()
        if kind not in {"word", "string"}:
            self.fail("a name")
        self.at += len(text)
        return text[1:-1] if kind == "string" else text

    def plugin(self):
        if self.is_next("if", "else"):
            self.fail("a plugin")
        one = Plugin(self.name())
        self.take("{")
        while not self.is_next("}"):
            key = self.name()
            if key in one.options:
                self.fail(f"one {key}, not two")
            self.take("=>")
            one.options[key] = self.value()
        self.take("}")
        return one

    def value(self):  # noqa: PLR0911 - one for each kind
        kind, text = self.peek()
        if kind == "string":
            self.at += len(text)
            return text[1:-1]
        if kind == "number":
            self.at += len(text)
            return float(text) if "." in text else int(text)
        if text == "[":
            return self.array()
        if text == "{":
            return self.hash()
        if kind == "word":
            before = self.at
            self.at += len(text)
            if self.is_next("{"):
                self.at = before
                return self.plugin()
            return {"true": True, "false": False}.get(text, text)
        return self.fail("a value")

    def array(self):
        self.take("[")
        found = []
        while not self.is_next("]"):
            found.append(self.value())
            if not self.is_next("]"):
                self.take(",")
                if self.is_next("]"):
                    self.fail("a value after the comma")
        self.take("]")
        return found

    def hash(self):
        self.take("{")
        found = {}
        while not self.is_next("}"):
            kind, text = self.peek()
            if kind not in {"word", "string", "number"}:
                self.fail("a key")
            self.at += len(text)
            key = text[1:-1] if kind == "string" else text
            if key in found:
                self.fail(f"one {key}, not two")
            self.take("=>")
            found[key] = self.value()
        self.take("}")
        return found

    def branch(self, section):
        self.take("if")
        arms = [(self.condition(), self.body(section))]
        while self.is_next("else"):
            self.take("else")
            if self.is_next("if"):
                self.take("if")
                arms.append((self.condition(), self.body(section)))
            else:
                arms.append((None, self.body(section)))
                break
        return Branch(arms)

    def condition(self):
        left = self.expression()
        while self.is_next(*BOOLEAN):
            word = self.take(*BOOLEAN)
            left = (word, left, self.expression())
        return left

    def expression(self):  # noqa: PLR0911 - one for each kind
        if self.is_next("("):
            self.take("(")
            inner = self.condition()
            self.take(")")
            return inner
        if self.is_next("!"):
            self.take("!")
            if self.is_next("("):
                return ("not", self.expression())
            return ("not", self.rvalue())
        left = self.rvalue()
        if self.is_next("in"):
            self.take("in")
            return ("in", left, self.rvalue())
        if self.is_next("not"):
            self.take("not")
            self.take("in")
            return ("not in", left, self.rvalue())
        if self.is_next("=~", "!~"):
            sign = self.take("=~", "!~")
            return (sign, left, self.regexp())
        if self.is_next(*COMPARE):
            return (self.take(*COMPARE), left, self.rvalue())
        return left

    def rvalue(self):
        kind, text = self.peek()
        if kind in {"string", "number"}:
            return self.value()
        if text == "[":
            return self.selector()
        if kind == "word" and text not in BOOLEAN:
            self.at += len(text)
            return text
        return self.fail("a field, a string or a number")

    def selector(self):
        match = re.match(r"(?:\[[^\]\[,\"'\s]+\])+", self.text[self.at :])
        if match is None:
            return self.array()
        self.at += match.end()
        return ("field", tuple(match.group()[1:-1].split("][")))

    def regexp(self):
        self.at += len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
        if self.text[self.at : self.at + 1] in {'"', "'"}:
            return self.value()
        match = re.match(r"/(?:\\.|[^\\/])*/", self.text[self.at :], re.DOTALL)
        if match is None:
            self.fail("a regular expression")
        self.at += match.end()
        return ("regexp", match.group()[1:-1])


def parse(text):
    """Parse a configuration.

    Raises:
        GrammarError: it is none; says line, what was expected and what was found.
    """
    return Parser(text).config()
