"""Files of Prometheus's rules, read with the line of each expression, and held to the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.adapters import yaml_places
from monitor.rule_check import Recorded, findings_of


@dataclass(frozen=True)
class Expression:
    """One rule's expression, where it stands, and what it is recorded as (empty for an alert)."""

    path: Path
    line: int
    """Where its first line stands."""
    name: str
    text: str
    record: str
    labels: frozenset[str]


def expressions(path: Path) -> Iterator[Expression]:
    """Yield the expressions of a file of rules.

    Raises:
        InputError: The file cannot be read; names file and line.
    """
    value, lines = yaml_places.read(path)
    written = path.read_text(encoding="utf-8").splitlines()
    for at, group in enumerate(value["groups"]):
        for place, rule in enumerate(group["rules"]):
            line = lines[("groups", at, "rules", place, "expr")]
            block = written[line - 1].rstrip().endswith(("|", "|-", ">", ">-"))
            record = str(rule.get("record", ""))
            labels = frozenset(map(str, rule.get("labels", {})))
            name = record or str(rule["alert"])
            yield Expression(path, line + block, name, str(rule["expr"]), record, labels)


def sentences(paths: Sequence[Path]) -> list[str]:
    """Return a sentence for each mistake in files of rules: file, line, rule, what is wrong, what would be right.

    Raises:
        InputError: A file cannot be read; names file and line.
    """
    every = [one for path in paths for one in expressions(path)]
    recorded = recorded_by(every)
    return [
        f"{one.path}:{one.line + one.text[: found.at].count(chr(10))}: {one.name}: {found.what}; {found.right}"
        for one in every
        for found in findings_of(one.text, recorded)
    ]


def recorded_by(every: Iterable[Expression]) -> dict[str, list[Recorded]]:
    """Return the recording rules by the name they record, as `findings_of` takes them."""
    found: dict[str, list[Recorded]] = {}
    for one in every:
        if one.record:
            found.setdefault(one.record, []).append(Recorded(one.text, one.labels))
    return found
