"""Boards as they stand in their files: every question with the file and the line it is on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kernel.errors import InputError
from monitor.adapters.boards.json_lines import lines_of

WINDOW: Final = "15s"
"""What `$__rate_interval` stands for when questions are asked here: many scrapes of one second."""
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.+),\s*(?P<label>\w+)\)")


@dataclass(frozen=True)
class Query:
    """One question of a board."""

    where: str
    """File and line."""
    kind: str
    """`panel`, `variable` or `annotation`."""
    title: str
    expr: str
    unit: str = ""
    unit_at: str = ""
    shown_as: str = ""
    """The kind of panel, such as `stat`."""


@dataclass(frozen=True)
class Document:
    """One board's file."""

    path: Path
    value: dict[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    @property
    def uid(self) -> str:
        """What Grafana calls it."""
        return str(self.value.get("uid", ""))

    def at(self, *keys: str | int) -> str:
        """Return the file and line of a part, or of the nearest part that is there."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"

    @property
    def panels(self) -> list[tuple[int, dict[str, Any]]]:
        """Its panels but the rows, with their places."""
        return [
            (place, panel)
            for place, panel in enumerate(_list(self.value.get("panels")))
            if isinstance(panel, dict) and panel.get("type") != "row"
        ]

    def variables(self) -> list[tuple[int, dict[str, Any]]]:
        """Return its variables with their places."""
        found = _list(_dict(self.value.get("templating")).get("list"))
        return [(place, one) for place, one in enumerate(found) if isinstance(one, dict)]

    def queries(self) -> Iterator[Query]:
        """Yield every question of panels, variables and annotations."""
        for place, panel in self.panels:
            unit = str(_dict(_dict(panel.get("fieldConfig")).get("defaults")).get("unit", ""))
            unit_at = self.at("panels", place, "fieldConfig", "defaults", "unit")
            for number, target in enumerate(_list(panel.get("targets"))):
                where = self.at("panels", place, "targets", number, "expr")
                yield Query(
                    where,
                    "panel",
                    str(panel.get("title")),
                    str(_dict(target).get("expr")),
                    unit,
                    unit_at,
                    str(panel.get("type")),
                )
        for place, variable in self.variables():
            if variable.get("type") == "query":
                where = self.at("templating", "list", place, "query")
                yield Query(where, "variable", str(variable.get("name")), str(variable.get("query")))
        for place, event in enumerate(_list(_dict(self.value.get("annotations")).get("list"))):
            where = self.at("annotations", "list", place, "expr")
            yield Query(where, "annotation", str(_dict(event).get("name")), str(_dict(event).get("expr")))

    def filled(self, text: str) -> str:
        """Return a question with the board's variables at `All`."""
        for _, variable in self.variables():
            if variable.get("type") == "query":
                text = text.replace(f"${variable.get('name')}", str(variable.get("allValue") or ".*"))
        return text.replace("$__rate_interval", WINDOW)


def label_values(query: str) -> tuple[str, str] | None:
    """Return the series and the label of a variable's question."""
    found = _LABEL_VALUES.fullmatch(query)
    return (found["series"], found["label"]) if found else None


def read(directory: Path) -> list[Document]:
    """Return the boards of a directory.

    Raises:
        InputError: there is none, or a file is no JSON object; names file and line.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        raise InputError(str(directory), "no board is here", right="run `tapewatch dashboards generate`")
    return [read_one(path) for path in paths]


def read_one(path: Path) -> Document:
    """Return one board.

    Raises:
        InputError: see `read`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", right="name a board's file") from error
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        line = data[: _byte(str(error))].count(b"\n") + 1
        raise InputError(f"{path}:{line}", f"no JSON: {error}", right="generate it anew") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}:1", "no JSON object", right="generate it anew")
    return Document(path, value, lines_of(data.decode()))


def _byte(message: str) -> int:
    found = re.search(r"byte (\d+)", message)
    return int(found[1]) if found else 0


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []
