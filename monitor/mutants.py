"""Small spoilings of a rule: each is one change that a sound test of the rule must notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from monitor.promql import metric_names
from monitor.promql_tokens import COMPARISONS, SET_OPERATORS, Token, tokens

KINDS: Final = ("operator", "bound", "threshold", "window", "offset", "aggregation", "matcher", "guard",
                "for", "keep_firing_for", "label")  # fmt: skip
"""What is changed, in the order of the table."""
_FLIPPED: Final = MappingProxyType({"==": "!=", "!=": "==", ">=": "<", "<=": ">", ">": "<", "<": ">"})
_BOUND: Final = MappingProxyType({">=": ">", "<=": "<", ">": ">=", "<": "<="})
_AGGREGATION: Final = MappingProxyType({"sum": "max", "max": "min", "min": "max", "avg": "max", "count": "max"})
_NEGATED: Final = MappingProxyType({"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"})
_LABELS: Final = MappingProxyType({"severity": "none", "level": "9", "team": "nobody"})
_UNITS_S: Final = MappingProxyType({"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000})
_OPENING: Final = "({"
_CLOSING: Final = ")}"


@dataclass(frozen=True)
class Rule:
    """What of an alert's or a recording rule's text is spoilt."""

    name: str
    expr: str
    labels: Mapping[str, str]
    is_alert: bool = True
    for_s: float = 0
    keep_s: float = 0


@dataclass(frozen=True)
class Mutant:
    """A spoilt rule, the kind of its one change, and the change in words."""

    kind: str
    change: str
    rule: Rule


def seconds(duration: str) -> float:
    """Return the seconds of a duration of Prometheus, such as `1m30s`."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def read_by(rule: Rule, recorded: Mapping[str, str]) -> frozenset[str]:
    """Return the recorded series that a rule reads, theirs included; `recorded` has expressions."""
    found: set[str] = set()
    waiting = [rule.expr]
    while waiting:
        for name in metric_names(waiting.pop()) & recorded.keys() - found:
            found.add(name)
            waiting.append(recorded[name])
    return frozenset(found)


def mutants(rule: Rule, step_s: float) -> Iterator[Mutant]:
    """Yield every spoiling of a rule, always in the same order.

    Args:
        rule: The sound one.
        step_s: How often its tests evaluate it, seconds; `for` is changed by one such step.
    """
    for kind, start, end, new in sorted(_changes(rule.expr), key=lambda one: (KINDS.index(one[0]), one[1])):
        old = " ".join(rule.expr[start:end].split())
        expr = rule.expr[:start] + new + rule.expr[end:]
        words = f"without `{old}`" if kind == "guard" else f"`{old}` → `{new}`" + _where(rule.expr, start, kind)
        yield Mutant(kind, words, replace(rule, expr=expr))
    if not rule.is_alert:
        return
    yield Mutant("for", f"{rule.for_s:g}s → {rule.for_s + step_s:g}s", replace(rule, for_s=rule.for_s + step_s))
    if rule.for_s:
        shorter = max(0.0, rule.for_s - step_s)
        yield Mutant("for", f"{rule.for_s:g}s → {shorter:g}s", replace(rule, for_s=shorter))
    if rule.keep_s:
        yield Mutant("keep_firing_for", f"{rule.keep_s:g}s → none", replace(rule, keep_s=0))
    for label, value in _LABELS.items():
        if label in rule.labels:
            yield Mutant("label", f"{label} → {value}", replace(rule, labels={**rule.labels, label: value}))


def _where(expr: str, start: int, kind: str) -> str:
    """Say what stands around a sign that an expression may have often."""
    if kind not in {"operator", "bound", "window", "aggregation", "matcher"}:
        return ""
    before = " ".join(expr[:start].split())[-28:]
    return f" after `{before}`" if before else ""


def _changes(expr: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield kind, start, end and new text of each change of an expression."""
    found = tokens(expr)
    depths = _depths(found)
    for place, token in enumerate(found):
        inside_braces = depths[place][1] > 0
        if inside_braces:
            if token.text in _NEGATED:
                yield "matcher", token.start, token.end, _NEGATED[token.text]
        elif token.text in COMPARISONS:
            yield "operator", token.start, token.end, _FLIPPED[token.text]
            if token.text in _BOUND:
                yield "bound", token.start, token.end, _BOUND[token.text]
            yield from _threshold(found, place)
        elif token.sort == "range":
            yield from ((*("window", token.start, token.end), new) for new in _windows(token.text))
        elif token.text == "offset" and place + 1 < len(found):
            after = found[place + 1]
            yield "offset", after.start, after.end, f"{2 * seconds(after.text):g}s"
        elif token.text in _AGGREGATION and _calls(found, place):
            yield "aggregation", token.start, token.end, _aggregation(found, depths, place)
        elif token.text in SET_OPERATORS and token.text != "or":
            yield "guard", token.start, _guard_end(found, depths, place), ""


def _depths(found: Sequence[Token]) -> list[tuple[int, int]]:
    """Return for each token how deep in parentheses and in braces it stands; a closing one as its opening one."""
    round_, curly, depths = 0, 0, []
    for token in found:
        closes = token.text in _CLOSING
        if closes:
            round_, curly = round_ - (token.text == ")"), curly - (token.text == "}")
        depths.append((round_, curly))
        if token.text in _OPENING and not closes:
            round_, curly = round_ + (token.text == "("), curly + (token.text == "{")
    return depths


def _threshold(found: Sequence[Token], place: int) -> Iterator[tuple[str, int, int, str]]:
    after = found[place + 1 :]
    if after and after[0].text == "bool":
        after = after[1:]
    if not after or after[0].sort != "number":
        return
    value = float(after[0].text)
    for new in (1.0,) if value == 0 else (value * 2, value / 2):
        yield "threshold", after[0].start, after[0].end, f"{new:.12g}"


def _windows(text: str) -> tuple[str, ...]:
    inner = text[1:-1].strip()
    window, colon, step = inner.partition(":")
    length = seconds(window)
    return tuple(f"[{int(new * 1000)}ms{colon}{step}]" if new % 1 else f"[{new:g}s{colon}{step}]"
                 for new in (length * 2, length / 2))  # fmt: skip


def _calls(found: Sequence[Token], place: int) -> bool:
    after = found[place + 1].text if place + 1 < len(found) else ""
    return after in {"(", "by", "without"}


def _aggregation(found: Sequence[Token], depths: Sequence[tuple[int, int]], place: int) -> str:
    """Return what a sum is made: its greatest part, or its least when only zero is asked for, where both are one."""
    outer = depths[place]
    rest = [token for token, depth in zip(found[place + 1 :], depths[place + 1 :], strict=True) if depth == outer]
    after = [token.text for token in rest if token.text not in "()" and token.sort != "name"]
    zero = len(after) > 1 and after[0] in COMPARISONS and after[1] == "0"
    return "min" if found[place].text == "sum" and zero else _AGGREGATION[found[place].text]


def _guard_end(found: Sequence[Token], depths: Sequence[tuple[int, int]], place: int) -> int:
    """Return where the right side of a set operator ends: at the next one as deep, or at what closes around it."""
    depth = depths[place][0]
    end = found[place].end
    for token, (deep, _) in zip(found[place + 1 :], depths[place + 1 :], strict=True):
        closes = deep < depth
        if closes or (deep == depth and (token.text in SET_OPERATORS or token.text == ",")):
            break
        end = token.end
    return end


@dataclass(frozen=True)
class Outcome:
    """What one rule's tests made of its mutants."""

    name: str
    made: int
    survivors: tuple[Mutant, ...]

    @property
    def killed(self) -> int:
        """How many the tests noticed."""
        return self.made - len(self.survivors)


def ratio_of(outcomes: Iterable[Outcome]) -> float:
    """Return the share of mutants that were killed, 1.0 when there were none."""
    every = list(outcomes)
    made = sum(one.made for one in every)
    return sum(one.killed for one in every) / made if made else 1.0


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the page of a run: the sum, a line for each rule, and every survivor."""
    every = sorted(outcomes, key=lambda one: one.name)
    made, killed = sum(one.made for one in every), sum(one.killed for one in every)
    lines = [
        "# Spoilt rules and the tests that notice",
        "",
        "Each alert is spoilt in small ways, one at a time, and its own promtool tests are run: a mutant is killed",
        "when one of them fails. A recorded series counts for the tests of every alert that reads it. Made by",
        "`make mutate-alerts`; do not edit it.",
        "",
        f"{killed} of {made} mutants are killed: {ratio_of(every):.1%}.",
        "",
        "| rule | mutants | killed | what survived |",
        "|---|---|---|---|",
    ]
    for one in every:
        said = "; ".join(f"{mutant.kind}: {_cell(mutant.change)}" for mutant in one.survivors)
        lines.append(f"| {one.name} | {one.made} | {one.killed} | {said} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
