"""A post-mortem as Markdown (GitHub's): foreign texts are escaped, every fact links to its row of the timeline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from incidents.plot import sparkline
from incidents.report import Fold, Report, Row, Sentence
from incidents.words import clock

REFERENCES_SHOWN: Final = 6
"""Ranges of entries after a sentence; a storm's sentence rests on hundreds."""
_SPECIAL: Final = re.compile(r"([\\`*_\[\]|#~$@])")
_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_STARTS_BLOCK: Final = re.compile(r"^(\d{0,9})([-+.)](?=\s|$))")
_ADDRESS: Final = re.compile(r"(?i)\b(https?|ftp)://|\bwww\.|\b(mailto|xmpp|javascript|data|vbscript):")


def escape(text: str) -> str:
    """Make a text inert: no markup, no table cell, no block, no automatic link can come of it."""
    safe = _SPECIAL.sub(r"\\\1", text.translate(_HTML).replace("\n", " ").replace("\r", " "))
    safe = _ADDRESS.sub(lambda match: match[0].replace(":", "&#58;").replace(".", "&#46;"), safe)
    return _STARTS_BLOCK.sub(r"\1\\\2", safe)


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Put entry numbers together: 3, 4, 5, 9 gives (3, 5), (9, 9)."""
    found: list[tuple[int, int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][1] + 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return found


def to_markdown(report: Report) -> str:
    """Render a report as Markdown."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    if report.tamper is not None:
        yield "> [!CAUTION]"
        yield f"> **The timeline was tampered with: this report is not to be trusted.** {escape(report.tamper)}"
        yield ""
    yield f"# {escape(report.title)}"
    yield ""
    yield (
        f"**{escape(report.id)}** · **{escape(report.status)}** · level {escape(report.level)} · "
        f"service {escape(report.service)} · team {escape(report.team)} · opened {report.opened}"
    )
    yield ""
    yield " ".join(_said(sentence) for sentence in report.summary)
    yield from _figures(report)
    yield from _section("Trigger and contributing factors", report.causes)
    yield from _moved(report)
    yield from _tried(report)
    yield from _section("What was refused or declined", report.refused)
    yield from _section("What was undone", report.undone)
    yield from _plots(report)
    yield from _section("What went well", report.went_well)
    yield from _section("What did not go well", report.went_poorly)
    if report.follow_ups:
        yield from ("", "## Follow-ups", "")
        for item in report.follow_ups:
            yield f"- [ ] {_said(item.sentence)} — owner: {escape(item.owner)}"
    yield from _timeline(report)
    if report.links:
        yield from ("", "## Links", "")
        for name, url in report.links:
            yield f"- [{escape(name)}](<{url}>)"
    yield ""
    yield f"Made {report.made} from {report.entries} entries. A reference such as [t1](#t1) leads to the entry that backs a sentence."  # noqa: E501 - a sentence or a table row stays whole


def _references(numbers: Sequence[int]) -> str:
    told = ranges(numbers)
    links = [
        f"[t{first}](#t{first})" if first == last else f"[t{first}](#t{first})–[t{last}](#t{last})"  # noqa: RUF001 - the typographic sign is meant
        for first, last in told[:REFERENCES_SHOWN]
    ]
    more = len(told) - REFERENCES_SHOWN
    return " ".join(links) + (f" and {more} more" if more > 0 else "")


def _said(sentence: Sentence) -> str:
    return f"{escape(sentence.text)} {_references(sentence.backed_by)}"


def _section(title: str, sentences: Sequence[Sentence]) -> Iterator[str]:
    if sentences:
        yield from ("", f"## {title}", "")
        for sentence in sentences:
            yield f"- {_said(sentence)}"


def _moved(report: Report) -> Iterator[str]:
    yield from _section("What moved first", report.moved)
    for place, one in enumerate(report.suspicions, start=1):
        yield from ("", f"### Hypothesis {place}: {escape(one.name)} ({escape(one.points)})", "", _said(one.sentence))
        for word, sentences in (("For", one.speaks_for), ("Against", one.speaks_against)):
            if sentences:
                yield ""
            for sentence in sentences:
                yield f"- {word}: {_said(sentence)}"


def _figures(report: Report) -> Iterator[str]:
    for title, figures in (("Impact", report.impact), ("Timings", report.timings)):
        notes = report.impact_notes if title == "Impact" else ()
        if not figures and not notes:
            continue
        yield from ("", f"## {title}")
        if figures:
            yield from ("", "| What | Figure | Entries |", "|---|---:|---|")
            for item in figures:
                yield f"| {escape(item.name)} | {escape(item.value)} | {_references(item.backed_by)} |"
        if notes:
            yield ""
            yield " ".join(_said(note) for note in notes)


def _tried(report: Report) -> Iterator[str]:
    if not report.tried:
        return
    yield from ("", "## What was tried")
    for attempt in report.tried:
        title = f": {escape(attempt.title)}" if attempt.title else ""
        yield from ("", f"### {escape(attempt.runbook)}{title} ({escape(attempt.outcome)})", "")
        for sentence in attempt.sentences:
            yield f"- {_said(sentence)}"
        if attempt.checks:
            yield from ("", "| Purpose | Evidence | Asked | Read | Held | Entries |", "|---|---|---|---|---|---|")
            for check in attempt.checks:
                cells = (check.purpose, check.name, check.asked, check.said, "yes" if check.held else "no")
                yield f"| {' | '.join(escape(cell) for cell in cells)} | {_references(check.backed_by)} |"


def _plots(report: Report) -> Iterator[str]:
    for drawn in report.plots:
        plot = drawn.plot
        yield from ("", f"## {escape(plot.title)}", "", "```text", sparkline(plot), "```", "")
        marks = ", ".join(f"{escape(mark.name)} {clock(mark.at)}" for mark in plot.marks)
        yield f"{escape(plot.description)} {_references(drawn.backed_by)}"
        if marks:
            yield f"Marks (UTC): {marks}."


def _timeline(report: Report) -> Iterator[str]:
    yield from ("", "## Timeline", "", "| Entry | UTC | Since | Kind | Source | What |", "|---|---|---:|---|---|---|")
    for item in report.timeline:
        match item:
            case Row():
                cells = (item.at, item.since, item.kind, item.source, item.text)
                yield f'| <a id="t{item.n}"></a>t{item.n} | {" | ".join(escape(cell) for cell in cells)} |'
            case Fold():
                anchors = "".join(f'<a id="t{n}"></a>' for n in item.numbers)
                counts = ", ".join(f"{escape(name)} {count}" for name, count in item.counts)
                spans = ", ".join(f"t{a}" if a == b else f"t{a}–t{b}" for a, b in ranges(item.numbers))  # noqa: RUF001 - the typographic sign is meant
                yield f"| {anchors}{spans} | {item.at} to {item.until} | | folded | | {len(item.numbers)} more: {counts} |"  # noqa: E501 - a sentence or a table row stays whole
