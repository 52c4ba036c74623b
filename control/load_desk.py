"""What `exchange load` sends: a kind of flow or a file, to an engine of its own; with a journal and a record of it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import msgspec

from control.journal_desk import INSTRUMENTS
from control.progress import Progress
from control.state_dir import generate_instruments
from exchange.adapters.file_log import FileLog
from exchange.adapters.listing_file import read_listing, write_listing
from exchange.adapters.load_client import ACCOUNTS, SHAPE
from exchange.commands import CancelOrder, MassCancel, PlaceOrder, ReplaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Event, Happened
from exchange.flow import OrderFlow, arrivals
from exchange.flow_csv import BEGINNING, CsvFlow, CsvWriter, Row, read_flow
from exchange.flow_kinds import FlowKind, made_flow
from exchange.journal import encode_command
from exchange.listing import Listing
from exchange.offline_load import LoadAccount, run_offline
from exchange.types import Instrument, OrderId
from kernel.errors import InputError, PermanentError
from kernel.time import Duration, Instant

COMMANDS: Final = 10_000
COMMANDS_MAX: Final = 100_000_000
OFFLINE_RATE_MIN: Final = 0.1
"""Then also the most requests are over before there are no more instants: these are nanoseconds in 64 bits."""
OFFLINE_RATE_MAX: Final = 1e9
FILE_BYTES_MAX: Final = 2**30
_JOURNAL_BATCH: Final = 1024


@dataclass(frozen=True)
class OfflineWish:
    """What a person wants sent to an engine of its own."""

    flow: str
    seed: int
    count: int | None
    """How many requests; None: as many as `COMMANDS` of a kind of flow, and the whole of a file."""
    rate: float
    instruments: Path | None = None
    """With the venue, if the file tells one."""
    symbols: int = 4
    out: Path | None = None
    """Where the flow is written as CSV."""
    told: Path | None = None
    """Where it is written what each request caused, and how everything stands at the end."""
    journal: Path | None = None
    """Where a journal and its instruments are written."""


def complete_flow(incomplete: str) -> list[str]:
    """Offer the kinds of flow."""
    return sorted(kind.value for kind in FlowKind if kind.value.startswith(incomplete))


def rows_of(flow: str) -> list[Row] | None:
    """Return the requests of a file; None for a kind of flow.

    Raises:
        InputError: it is neither a kind nor a file that can be read.
    """
    if flow in set(FlowKind):
        return None
    path = Path(flow)
    if path.suffix != ".csv":
        kinds = ", ".join(kind.value for kind in FlowKind)
        raise InputError("--flow", f"{flow[:80]!r} is no kind of flow", right=f"one of {kinds}, or a .csv file")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InputError(flow, "is larger than 1 GiB", right="split it")
        return read_flow(flow, path.read_text(encoding="utf-8-sig"))  # as spreadsheets write it
    except OSError as error:
        raise InputError(flow, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(flow, f"is not UTF-8 at byte {error.start}") from error


def flow_of(
    flow: str,
    rows: Sequence[Row] | None,
    seed: int,
    instruments: Sequence[Instrument],
    *,
    count: int,
    prefix: str,
    start: Instant = BEGINNING,
) -> OrderFlow | CsvFlow:
    """Return the flow that is meant; `rows` are those of its file, `start` is the instant their times count from.

    Raises:
        InputError: the file trades what is not there.
    """
    if rows is None:
        return made_flow(FlowKind(flow), seed, instruments, ACCOUNTS, count=count, prefix=prefix)
    found = CsvFlow(rows, start)
    unknown = sorted(found.symbols - {one.symbol for one in instruments})
    if unknown:
        there = ", ".join(sorted(one.symbol for one in instruments))
        raise InputError(
            flow, f"trades {', '.join(unknown[:5])}", right=f"there are {there}; --instruments names others"
        )
    return found


def refuse_for(duration: str | None) -> None:
    """Refuse a length of time for what is sent offline.

    Raises:
        InputError: one is given.
    """
    if duration is not None:
        raise InputError("--for", "is for a running estate", right="leave it out; --commands says how many offline")


def run(wish: OfflineWish) -> LoadAccount:
    """Send a flow to a fresh engine in this process.

    Raises:
        InputError: what is wished for is wrong.
        PermanentError: a file cannot be written.
    """
    if wish.count is not None and not 1 <= wish.count <= COMMANDS_MAX:
        raise InputError("--commands", f"is {wish.count}", right=f"between 1 and {COMMANDS_MAX:,}")
    if not OFFLINE_RATE_MIN <= wish.rate <= OFFLINE_RATE_MAX:
        raise InputError(
            "--rate", f"is {wish.rate:g}", right="offline it gives the times of the requests: 0.1 to a thousand million"
        )
    listing = (
        Listing(generate_instruments(wish.symbols, 1)) if wish.instruments is None else read_listing(wish.instruments)
    )
    rows = rows_of(wish.flow)
    count = (COMMANDS if rows is None else len(rows)) if wish.count is None else wish.count
    count = count if rows is None else min(count, len(rows))
    flow = flow_of(wish.flow, rows, wish.seed, listing.instruments, count=count, prefix="f")
    engine = Engine(listing.instruments, listing.venue)
    # Whole microseconds, as a file keeps them: what is read from it again is the same flow.
    times = (
        (Duration(at // 1000 * 1000) for at in arrivals(wish.rate, SHAPE, wish.seed))
        if rows is None
        else (row.at for row in rows)
    )
    with contextlib.ExitStack() as files:
        kept: list[Callable[[Sequenced, Sequence[Event]], None]] = []
        # A journal that is there already is refused before another file is written over, and none is begun before the
        # others could be: the next try would be refused for it.
        if wish.journal is not None:
            _refuse_taken(wish.journal)
        if wish.out is not None:
            kept.append(_to_csv(files.enter_context(_created(wish.out))))
        if wish.told is not None:
            kept.append(files.enter_context(_to_lines(wish.told, engine)))
        if wish.journal is not None:
            kept.append(files.enter_context(_to_journal(wish.journal, listing)))

        def keep(item: Sequenced, events: Sequence[Event]) -> None:
            for each in kept:
                each(item, events)

        return run_offline(engine, flow, iter(times), count, keep=keep, progress=Progress("sent", count))


@contextlib.contextmanager
def _to_lines(path: Path, engine: Engine) -> Iterator[Callable[[Sequenced, Sequence[Event]], None]]:
    """Write JSON lines: what each request caused, and at the end each book, order and balance."""
    encode = msgspec.json.Encoder().encode
    with _created(path) as file:

        def write(line: object) -> None:
            file.write(encode(line).decode() + "\n")

        yield lambda item, events: write(Happened(item.seq, item.at, tuple(events)))
        for symbol in sorted(engine.instruments):
            write({"book": engine.book(symbol)})
        for order_id in range(1, engine.orders_made + 1):
            write({"order": engine.order(OrderId(order_id)), "average_price": _mean(engine, OrderId(order_id))})
        for (account, asset), amount in sorted(engine.balances().items()):
            write({"balance": {"account": account, "asset": asset, "amount": amount}})


def _mean(engine: Engine, order_id: OrderId) -> float | None:
    mean = engine.average_price(order_id)
    return None if mean is None else float(mean)


def _to_csv(file: TextIO) -> Callable[[Sequenced, Sequence[Event]], None]:
    writer = CsvWriter(file)

    def keep(item: Sequenced, events: Sequence[Event]) -> None:
        if isinstance(item.command, PlaceOrder | CancelOrder | ReplaceOrder | MassCancel):
            writer.write(Duration(item.at), item.command, events)

    return keep


@contextlib.contextmanager
def _created(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise PermanentError(f"{path}: cannot be written: {error.strerror}") from error


def _refuse_taken(directory: Path) -> None:
    journal = directory / "journal"
    if journal.exists():
        raise InputError(str(journal), "is there already", right="name a directory without a journal")


@contextlib.contextmanager
def _to_journal(directory: Path, listing: Listing) -> Iterator[Callable[[Sequenced, object], None]]:
    """Write a journal beside its instruments; it must not be there yet (`_refuse_taken`)."""
    batch: list[bytes] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / INSTRUMENTS).write_bytes(write_listing(listing))
    except OSError as error:
        raise PermanentError(f"{directory}: cannot be written: {error.strerror}") from error
    with FileLog(directory / "journal") as log:

        def keep(item: Sequenced, _: object) -> None:
            batch.append(encode_command(item))
            if len(batch) >= _JOURNAL_BATCH:
                log.append(batch)
                batch.clear()

        yield keep
        if batch:
            log.append(batch)
        log.sync()


def words_of(account: LoadAccount) -> Iterator[tuple[str, str]]:
    """Tell an account in lines."""
    actions = ", ".join(f"{count:,} {action}" for action, count in account.sent_by_action.items())
    yield (
        "sent",
        f"{account.sent:,} requests over {account.seconds_of_flow:,.1f} s of the flow's time: {actions or '-'}",
    )
    yield (
        "answered",
        (
            f"{account.accepted:,} accepted, {account.canceled:,} cancelled, {account.replaced:,} replaced, "
            f"{account.rejected:,} rejected"
        ),
    )
    for reason, count in itertools.islice(account.rejected_by_reason.items(), 20):
        yield "", f"{count:,} {reason}"
    yield "traded", f"{account.trades:,} trades of {account.traded_lots:,} lots, {account.notional:,} ticks x lots"
    yield "resting", f"{account.resting_orders:,} orders"
    yield "state", account.state_hash
