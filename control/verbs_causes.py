"""The verb `incident causes`: which service and which series of it moved first, with what speaks for and against."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer
from rich.markup import escape as markup

from control.terminal import AsJson, State, guarded, layout_of, out, print_json
from incidents.found import found_of
from incidents.ranked import Ranked, ranked_of
from incidents.timeline import Entry, EntryKind
from incidents.words import clean

EXAMPLE: Final = "Example: tapewatch incident causes INC-20260302-0001"
OUTSIDE: Final = "outside of what is watched"


def causes(
    id: Annotated[str, typer.Argument(help="Such as INC-20260302-0001.")],  # noqa: A002 - the word of the interface
    state: State = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Rank anew, with what has been seen since.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what moved first: hypotheses about the cause, each with what speaks for it and against it."""
    from control.verbs_incident import Desk, path_of

    desk = Desk(layout_of(state))
    query = "causes?again=true" if again else "causes"
    found = guarded(lambda: desk.say(f"{path_of(id)}/{query}", {}))
    if as_json:
        print_json(found)
        return
    print_ranked(msgspec.convert(found, Ranked))


def print_ranked(ranked: Ranked) -> None:
    """Print a ranking whole."""
    if ranked.trouble:
        told = markup(clean(ranked.trouble, 500))
        out.print(f"[yellow]what moved first could not be told:[/] {told}", soft_wrap=True)
        return
    colour = "bold green" if ranked.stands_out else "bold yellow"
    out.print(f"[{colour}]{markup(clean(ranked.sentence, 500))}[/]", soft_wrap=True)
    out.print(markup(clean(ranked.basis, 500)), style="dim", soft_wrap=True)
    for place, one in enumerate(ranked.hypotheses, start=1):
        name = clean(one.service, 80) or OUTSIDE
        said = markup(clean(one.sentence, 500))
        out.print(f"\n[bold]{place}. {markup(name)}[/]  {one.score:.2f}  {said}", soft_wrap=True)
        for mark, colour, texts in (("+", "green", one.speaks_for), ("-", "red", one.speaks_against)):
            for text in texts:
                out.print(f"   [{colour}]{mark}[/] {markup(clean(text, 500))}", soft_wrap=True)


def print_found(entries: tuple[Entry, ...]) -> None:
    """Print what the detectors found, the latest of each series; nothing when no detector's alert is among them."""
    made = {
        found.name: found for entry in entries if entry.kind is EntryKind.ANOMALY_FOUND for found in (found_of(entry),)
    }
    for place, found in enumerate(made.values()):
        text = f"could not be read: {found.trouble}" if found.trouble else found.sentence
        said = markup(clean(f"{found.name}: {text}", 500))
        out.print(f"{'' if place else 'found':10}{said}", soft_wrap=True)
        if found.page:
            ask = f"page {found.page}; right or not: tapewatch anomaly feedback {found.page} --true|--false"
            out.print(f"{'':10}{markup(ask)}", soft_wrap=True)


def print_in_short(entries: tuple[Entry, ...]) -> None:
    """Print the last ranking of a timeline in a few lines; nothing when there is none."""
    made = [ranked_of(entry) for entry in entries if entry.kind is EntryKind.CAUSES_RANKED]
    told = [ranked for ranked in made if not ranked.trouble] or made
    if not told:
        return
    ranked = told[-1]
    text = ranked.sentence or f"could not be told: {ranked.trouble}"
    out.print(f"{'moved':10}{markup(clean(text, 500))}", soft_wrap=True)
    for one in ranked.hypotheses[:2]:
        name = clean(one.service, 80) or OUTSIDE
        said = f"{len(one.speaks_for)} for, {len(one.speaks_against)} against"
        out.print(f"{'':10}{markup(f'{name} {one.score:.2f}: {clean(one.sentence, 240)} ({said})')}", soft_wrap=True)
