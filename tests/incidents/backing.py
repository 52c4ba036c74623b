"""An independent check that sentences say only what their entries hold. It knows nothing of how they were made.

Every word of a sentence must be a fact of a cited entry (as it stands there, or through a documented function of
`incidents.words`), or a word of the report's own prose: the string constants of its modules. Digits are never prose.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from incidents import lessons, plot, postmortem, story, tables, words
from incidents.plot import figure
from incidents.report import Sentence
from incidents.timeline import Entry
from incidents.words import action_words, changes, clean, clock, day, instant_of, label, number_of, shown, spell

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")  # noqa: RUF001 - the typographic sign is meant


def _prose() -> frozenset[str]:
    found: set[str] = set()
    for module in (lessons, plot, postmortem, story, tables, words):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(_WORD.findall(node.value))
    return frozenset(word.lower() for word in found if not any(letter.isdigit() for letter in word))


PROSE = _prose()
_GOALS = (spell(lessons.DETECTION_GOAL), "p99")


def unbacked(sentence: Sentence, entries: Sequence[Entry]) -> list[str]:
    """Return the words of a sentence that no cited entry backs; empty when all is well."""
    by_number = {entry.n: entry for entry in entries}
    missing = [f"t{n}" for n in sentence.backed_by if n not in by_number]
    if missing or not sentence.backed_by:
        return missing or ["no entry"]
    cited = [by_number[n] for n in sentence.backed_by]
    left = sentence.text
    for fact in sorted({*_facts(cited), *_GOALS} - {""}, key=len, reverse=True):
        left = re.sub(rf"(?<![\w.,])[+−-]?{re.escape(fact)}(?![\w])(?![.,]\d)", " ", left)  # noqa: RUF001 - the typographic sign is meant
    return [word for word in re.findall(r"[\w’'-]*\w", left) if word.lower() not in PROSE and not _prose_parts(word)]  # noqa: RUF001 - the typographic sign is meant


def _prose_parts(word: str) -> bool:
    parts = _WORD.findall(word)
    return bool(parts) and all(part.lower() in PROSE for part in parts)


def _facts(cited: Sequence[Entry]) -> Iterator[str]:
    instants: set[int] = set()
    for entry in cited:
        instants.add(entry.at)
        yield from (clean(entry.text), clean(entry.text, 140), clean(entry.source))
        yield from _facts_of(entry.data, instants)
        yield action_words(entry.data.get("action"))
        yield changes(entry.data.get("before"), entry.data.get("after"))
        points = entry.data.get("points")
        for point in points if isinstance(points, list) else ():
            yield clock(point[0])
            value = number_of(point[1])
            yield from () if value is None else (figure(value), figure(value * 1000))
        value = number_of(entry.data.get("expected"))
        yield from () if value is None else (figure(value), figure(value * 1000))
    if len(instants) <= 60:
        yield from (spell(later - earlier) for earlier, later in combinations(sorted(instants), 2))
    for instant in instants:
        yield from (clock(instant), day(instant))
    yield figure(len(cited))
    holding = [bool(entry.data["holds"]) for entry in cited if "holds" in entry.data]
    yield figure(sum(holding)) if holding else ""
    for key in ("kind", "alertname", "fingerprint", "holds", "name", "purpose"):
        counts = Counter(str(entry.kind if key == "kind" else entry.data.get(key)) for entry in cited)
        yield from (figure(count) for count in (*counts.values(), len(counts)))


def _facts_of(value: object, instants: set[int]) -> Iterator[str]:
    at = instant_of(value)
    if at is not None:
        instants.add(at)
    elif isinstance(value, Mapping):
        for key, held in value.items():
            if key != "points":
                yield label(str(key))
                yield from _facts_of(held, instants)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _facts_of(held, instants)
    elif value is not None and not isinstance(value, bool):
        text = clean(value, 500)
        yield from (
            text,
            text.rstrip("."),
            clean(value),
            clean(value, 80),
            clean(value, 120),
            clean(value, 140),
            label(str(value)),
        )
        yield shown(value)
        yield f"+{value}" if isinstance(value, int) else ""
