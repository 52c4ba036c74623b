"""`make mutate-alerts`: every rule of alerts/rules is spoilt in small ways, and promtool runs its own tests on each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from monitor.mutants import Mutant, Outcome, Rule, mutants, ratio_of, read_by, seconds, table

GOAL: Final = 0.9
"""The share of mutants that the tests must kill."""
LEFT_OUT: Final = frozenset({"anomalies", "slo", "slo_burn"})
"""Their tests play hours and months of data: all mutants of them take the better part of an hour, by name only."""
_AT_ONCE: Final = 2
_UNREADABLE: Final = re.compile(r"could not parse expression.*")


class WeakError(Exception):
    """A rule's tests fail although nothing is spoilt, or a mutant is not PromQL: the run means nothing."""


@dataclass(frozen=True)
class _Case:
    """One rule with what it takes to test it: the rules it reads, and its tests."""

    rule: Rule
    raw: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]
    suite: Mapping[str, Any]
    tests: tuple[Mapping[str, Any], ...]

    def files(self, spoilt: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the file of rules and the file of tests for one spoilt rule, names of files left out."""
        raw = dict(self.raw) | {"expr": spoilt.expr}
        if spoilt.labels:
            raw["labels"] = dict(spoilt.labels)
        for key, value in (("for", spoilt.for_s), ("keep_firing_for", spoilt.keep_s)):
            raw.pop(key, None)
            if value:
                raw[key] = f"{round(value * 1000)}ms"
        rules = [raw if one is self.raw else one for one in self.others]
        return {"groups": [{"name": "spoilt", "rules": rules}]}, dict(self.suite) | {"tests": list(self.tests)}


def cases(rules_dir: Path, tests_dir: Path, only: Sequence[str] = ()) -> Iterator[_Case]:
    """Yield every rule to be spoilt, in the order of the files.

    Args:
        rules_dir: Where the rules are, one file for each file of tests of the same name in `tests_dir`.
        tests_dir: Where the tests are; those of an alert have its name before a colon.
        only: Names of files (without `.yml`) or of rules; none: all but those left out.
    """
    for path in sorted(rules_dir.glob("*.yml")):
        if only and path.stem not in only and not set(only) & set(re.findall(r"(?:alert|record): (\S+)", _text(path))):
            continue
        if (not only and path.stem in LEFT_OUT) or not (tests_dir / path.name).exists():
            continue
        suite = yaml.safe_load(_text(tests_dir / path.name))
        raws = [raw for one in _files_of(suite, tests_dir) for raw in _rules(one)]
        own = list(_rules(path))
        for raw in own:
            name = raw.get("alert") or raw["record"]
            if not only or path.stem in only or name in only:
                yield from _case(raw, raws if raw in raws else own, suite)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _files_of(suite: Mapping[str, Any], tests_dir: Path) -> Iterator[Path]:
    return ((tests_dir / name).resolve() for name in suite["rule_files"])


def _rules(path: Path) -> Iterator[Mapping[str, Any]]:
    for group in yaml.safe_load(_text(path))["groups"]:
        yield from group["rules"]


def _case(raw: Mapping[str, Any], raws: Sequence[Mapping[str, Any]], suite: Mapping[str, Any]) -> Iterator[_Case]:
    recorded = {one["record"]: str(one["expr"]) for one in raws if "record" in one}
    rule = _rule(raw)
    alerts = [_rule(one) for one in raws if "alert" in one]
    if rule.is_alert:
        readers = {rule.name}
    else:
        readers = {alert.name for alert in alerts if rule.name in read_by(alert, recorded)}
    tests = tuple(test for test in suite["tests"] if str(test["name"]).split(":")[0] in readers)
    needed = readers.union(*(read_by(alert, recorded) for alert in alerts if alert.name in readers))
    others = tuple(one for one in raws if (one.get("alert") or one["record"]) in needed)
    if tests:
        raw_there = next(one for one in others if one == raw)
        yield _Case(rule, raw_there, others, suite, tests)


def _rule(raw: Mapping[str, Any]) -> Rule:
    return Rule(
        name=str(raw.get("alert") or raw["record"]),
        expr=str(raw["expr"]),
        labels={str(key): str(value) for key, value in raw.get("labels", {}).items()},
        is_alert="alert" in raw,
        for_s=seconds(str(raw.get("for", "0s"))),
        keep_s=seconds(str(raw.get("keep_firing_for", "0s"))),
    )


def outcome_of(case: _Case) -> Outcome:
    """Run the tests of one rule on the sound rule and on every mutant, in one process of promtool.

    Raises:
        WeakError: The tests fail on the sound rule, or a mutant is not PromQL.
    """
    made = list(mutants(case.rule, seconds(str(case.suite.get("evaluation_interval", "1m")))))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for place, spoilt in enumerate([case.rule, *(one.rule for one in made)]):
            rules, tests = case.files(spoilt)
            (Path(folder) / f"r{place}.yml").write_text(json.dumps(rules), encoding="utf-8")
            tests["rule_files"] = [f"r{place}.yml"]
            (Path(folder) / f"t{place}.yml").write_text(json.dumps(tests), encoding="utf-8")
        argv = ["nice", "promtool", "test", "rules", *(f"t{place}.yml" for place in range(len(made) + 1))]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
    unreadable = _UNREADABLE.search(done.stderr)
    if unreadable:
        raise WeakError(f"{case.rule.name}: a mutant is not PromQL: {unreadable.group()}")
    held = [
        "SUCCESS" in part
        for part in done.stdout.split("Unit Testing:")[1:]
    ]  # fmt: skip
    if len(held) != len(made) + 1 or not held[0]:
        raise WeakError(f"{case.rule.name}: its tests fail on the sound rule: {done.stderr[:400]}")
    return Outcome(case.rule.name, len(made), tuple(one for one, lives in zip(made, held[1:], strict=True) if lives))


def run(every: Sequence[_Case], say: Callable[[str], object]) -> list[Outcome]:
    """Run all cases, two processes at a time; `say` is told of each in the order of the files."""
    outcomes = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, outcome in enumerate(pool.map(outcome_of, every), 1):
            say(f"{number}/{len(every)} {outcome.name}: {outcome.killed} of {outcome.made}")
            outcomes.append(outcome)
    return outcomes


def _one(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Join what is recorded under one name by several rules."""
    joined: dict[str, Outcome] = {}
    for one in outcomes:
        had = joined.get(one.name, Outcome(one.name, 0, ()))
        joined[one.name] = Outcome(one.name, had.made + one.made, had.survivors + one.survivors)
    return list(joined.values())


def main(arguments: Sequence[str]) -> int:
    """Spoil the named files or rules, or all and write alerts/mutants.md; 0 when enough mutants are killed."""
    root = Path(__file__).parents[1] / "alerts"
    every = list(cases(root / "rules", root / "tests", arguments))
    if not every:
        sys.stderr.write(f"no rule and no file of rules is called {' or '.join(arguments)}\n")
        return 2
    terminal = sys.stderr.isatty() or bool(os.environ.get("MUTANTS_TELL"))
    try:
        outcomes = _one(run(every, _to_terminal if terminal else _nowhere))
    except WeakError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    if not arguments:
        (root / "mutants.md").write_text(table(outcomes), encoding="utf-8")
    for one in outcomes:
        for mutant in one.survivors:
            sys.stdout.write(_line(one.name, mutant))
    made = sum(one.made for one in outcomes)
    sys.stdout.write(f"killed {sum(one.killed for one in outcomes)} of {made}: {ratio_of(outcomes):.1%}\n")
    return 0 if ratio_of(outcomes) >= GOAL else 1


def _to_terminal(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _nowhere(line: str) -> None:
    """Take no notice of a line: nobody looks on."""


def _line(name: str, mutant: Mutant) -> str:
    return f"survived: {name}: {mutant.kind}: {mutant.change}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
