"""A book as a ladder: prices from the highest to the lowest, bids left, offers right, redrawn while it moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape as markup
from rich.table import Table
from rich.text import Text

from kernel.errors import TapewatchError
from kernel.time import to_rfc3339

_BAR_COLUMNS: Final = 12
Level = Sequence[int]
"""Price in ticks and quantity in lots."""


def ladder(book: dict[str, Any], levels: int, before: dict[str, Any] | None = None) -> Table:
    """Return a book as a table. Quantities that changed since `before` stand out."""
    bids, asks = book["bids"][:levels], book["asks"][:levels]
    longest = max((level[1] for level in (*bids, *asks)), default=1)
    table = Table(title=title_of(book), title_justify="left")
    for column in ("bid lots", "", "price", " ", "offer lots"):
        width = None if column.strip() else _BAR_COLUMNS
        table.add_column(column, justify="left" if column == " " else "right", min_width=width, no_wrap=True)
    was = _quantities(before)
    for price, lots in reversed(asks):
        changed = before is not None and was.get(("ask", price)) != lots
        table.add_row("", "", f"[red]{price}[/]", Text(_bar(lots, longest), "red"), _lots(lots, changed=changed))
    if bids and asks:
        table.add_row("", "", f"[dim]{asks[0][0] - bids[0][0]} wide[/]", "", "")
    for price, lots in bids:
        changed = before is not None and was.get(("bid", price)) != lots
        table.add_row(_lots(lots, changed=changed), Text(_bar(lots, longest), "green"), f"[green]{price}[/]", "", "")
    if not bids and not asks:
        table.add_row("", "", "nobody wants anything", "", "")
    return table


def title_of(book: dict[str, Any]) -> str:
    """Return what stands above a book: its symbol, how that stands, and what a cross would do."""
    standing = [] if book.get("phase", "continuous") == "continuous" else [str(book["phase"])]
    if book.get("limited"):
        standing.append(f"[bold yellow]limit state, band {book['lower']} to {book['upper']}[/]")
    if book.get("paused_until"):
        standing.append(f"[bold yellow]paused until {to_rfc3339(book['paused_until'])}[/]")
    if book.get("halted"):
        standing.append("[bold red]halted[/]")
    title = "  ".join((f"{markup(str(book['symbol']))} after event {book['seq']}", *standing))
    return f"{title}\n{_cross(book.get('indicative'))}" if book.get("gathering") else title


def _cross(indicative: Sequence[int] | None) -> str:
    if not indicative:
        return "a cross would trade nothing"
    price, lots, surplus = indicative
    left = f"{abs(surplus)} left to {'buy' if surplus > 0 else 'sell'}" if surplus else "nothing left"
    return f"a cross would trade {lots} at {price}, {left}"


def _quantities(book: dict[str, Any] | None) -> dict[tuple[str, int], int]:
    if book is None:
        return {}
    return {(side, price): lots for side in ("bid", "ask") for price, lots in book[f"{side}s"]}


def _bar(lots: int, longest: int) -> str:
    return "█" * max(1, round(_BAR_COLUMNS * lots / longest))


def _lots(lots: int, *, changed: bool) -> str:
    return f"[bold yellow]{lots}[/]" if changed else str(lots)


def watch(
    fetch: Callable[[], dict[str, Any]],
    console: Console,
    levels: int,
    every_s: float,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Redraw a book until interrupted; return how many frames were drawn. Where nobody looks (a pipe), draw one.

    An error after the first frame is shown below the book, which then is as it was last seen.

    Raises:
        TapewatchError: there is no first frame.
    """
    book = fetch()
    if not console.is_terminal:
        console.print(ladder(book, levels))
        return 1
    frames, before = 1, None
    with Live(ladder(book, levels), console=console, auto_refresh=False, transient=False) as live:
        live.refresh()
        try:
            while True:
                pause(every_s)
                trouble = ""
                try:
                    before, book = book, fetch()
                except TapewatchError as error:
                    before, trouble = None, str(error)
                live.update(_frame(book, levels, before, trouble), refresh=True)
                frames += 1
        except KeyboardInterrupt:
            return frames


def _frame(book: dict[str, Any], levels: int, before: dict[str, Any] | None, trouble: str) -> RenderableType:
    table = ladder(book, levels, before)
    if not trouble:
        return table
    return Group(table, Text(f"not current: {trouble}", "bold red"))
