"""YAML whose every value knows its line, for files that people write: no anchors, no tags, no duplicate keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from kernel.errors import InputError

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 30
Lines = dict[tuple[str | int, ...], int]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> tuple[Any, Lines]:
    """Return a file's value and the line of each of its parts, by path.

    Raises:
        InputError: it cannot be read, is no YAML, or uses what is refused; names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", right="name a file that exists") from error
    if len(data) > MAX_BYTES:
        raise InputError(str(path), f"{len(data):,} bytes", right=f"at most {MAX_BYTES:,} are read")
    return parse(data, str(path))


def parse(data: bytes, where: str) -> tuple[Any, Lines]:
    """Return the value of YAML text and the line of each part; see `read`."""
    try:
        text = data.decode()
        for token in yaml.scan(text, Loader=_Loader):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
                place = f"{where}:{token.start_mark.line + 1}"
                raise InputError(place, "anchors, aliases and tags are not read", right="write the value out")
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise InputError(where, f"no UTF-8 at byte {error.start}", right="save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(where + line, f"no YAML: {error.problem}", right="mind the indentation and quotes") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(where, f"no YAML: {str(error)[:200]}", right="mind the indentation and quotes") from error
    lines: Lines = {}
    return (None if node is None else _value(node, (), lines, where)), lines


def _value(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, where: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if len(path) > MAX_DEPTH:
        raise InputError(f"{where}:{lines[path]}", "nested too deep", right=f"at most {MAX_DEPTH} levels")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            line = key_node.start_mark.line + 1
            if not key or key in found:
                problem = f"the key {key!r} stands here twice" if key else "a key that is no word"
                raise InputError(f"{where}:{line}", problem, right="each key once")
            found[key] = _value(value_node, (*path, key), lines, where)
            lines[(*path, key)] = line
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, (*path, place), lines, where) for place, one in enumerate(node.value)]
    return _scalar(node, where)


def _scalar(node: yaml.Node, where: str) -> Any:
    """Read a scalar as YAML's own rules say; what would be a date stays text."""
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    try:
        return _SCALARS.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            f"{where}:{node.start_mark.line + 1}", f"{str(error)[:100]}", right="put it in quotes"
        ) from error


_SCALARS: Final = yaml.SafeLoader("")
