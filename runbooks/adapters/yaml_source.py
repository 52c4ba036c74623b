"""YAML as we allow it: one plain document, every value with the line and column it stands at.

Anchors, aliases, tags, directives, duplicate keys, deep nesting and big files are refused before anything is built from
them, because none of them is needed and each has been used to surprise a reader.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from kernel.errors import InputError

SIZE_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 12

Path = tuple[str | int, ...]
"""Where a value stands: keys and positions from the root."""

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_OPENS: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_FORBIDDEN: Final[dict[type[yaml.Token], tuple[str, str]]] = {
    yaml.AnchorToken: ("an anchor is not allowed", "write the value out"),
    yaml.AliasToken: ("an alias is not allowed", "write the value out"),
    yaml.TagToken: ("a tag is not allowed", "leave it out; the schema knows the type"),
    yaml.DirectiveToken: ("a directive is not allowed", "leave it out"),
}


class Source:
    """A parsed file: `data` as plain values, and where each of them stands."""

    def __init__(self, name: str, content: bytes) -> None:
        """Parse a file's content.

        Raises:
            InputError: it is no YAML, or more than we allow; says where.
        """
        self.name = name
        self._values: dict[Path, yaml.Mark] = {}
        self._keys: dict[Path, yaml.Mark] = {}
        node = self._compose(self._text(content))
        self.data: Any = self._build(node, ())

    def error(self, path: Path, problem: str, right: str | None = None, *, key: bool = False) -> InputError:
        """Make an error that points at the value (or at its key) that stands at `path`, or at what holds it."""
        mark = self._keys.get(path) if key else None
        while mark is None:
            mark = self._values.get(path)
            if mark is None and not path:
                return InputError(f"{self.name}:1:1", problem, right=right)
            path = path[:-1]
        return self._at(mark, problem, right)

    def _at(self, mark: yaml.Mark | None, problem: str, right: str | None) -> InputError:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return InputError(f"{self.name}:{line}:{column}", problem, right=right)

    def _text(self, content: bytes) -> str:
        if len(content) > SIZE_MAX:
            raise InputError(
                f"{self.name}:1:1", f"the file has {len(content)} bytes", right=f"at most {SIZE_MAX} are allowed"
            )
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            before = content[: error.start]
            line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
            raise InputError(
                f"{self.name}:{line}:{column}", "the text is not UTF-8", right="save it as UTF-8"
            ) from error

    def _compose(self, text: str) -> yaml.Node:
        try:
            self._scan(text)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            words = (error.problem or "no YAML").strip()
            raise self._at(error.problem_mark or error.context_mark, words, "write plain YAML") from error
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise InputError(
                f"{self.name}:{line}:{column}", "a control character is not allowed", right="remove it"
            ) from error
        if node is None:
            raise InputError(f"{self.name}:1:1", "the file is empty", right="write a runbook")
        return node

    def _scan(self, text: str) -> None:
        depth = 0
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if (words := _FORBIDDEN.get(type(token))) is not None:
                raise self._at(token.start_mark, *words)
            depth += isinstance(token, _OPENS)
            depth -= isinstance(token, _CLOSES)
            if depth > DEPTH_MAX:
                raise self._at(token.start_mark, "the nesting is too deep", f"at most {DEPTH_MAX} levels are allowed")

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = node.start_mark
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*path, position)) for position, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise self._at(key.start_mark, "this key is no plain word", "keys are words such as title")
            if key.value in built:
                raise self._at(key.start_mark, f"the key {key.value!r} stands here twice", "keep one of them")
            self._keys[*path, key.value] = key.start_mark
            built[key.value] = self._build(value, (*path, key.value))
        return built

    def _scalar(self, node: yaml.Node) -> str | int | float | bool:
        kind, value = node.tag.rpartition(":")[2], str(node.value)
        if kind == "str":
            return value
        if kind == "bool" and value in {"true", "false"}:
            return value == "true"
        if kind == "int" and _INTEGER.fullmatch(value):
            return int(value)
        if kind == "float" and _FLOAT.fullmatch(value):
            return float(value)
        right = "write true, false, a plain number such as 2 or 0.5, or put the text in quotes"
        raise self._at(node.start_mark, f"{value[:40]!r} is ambiguous", right)
