"""The verbs `exchange`: load it, look at a book, hold its journal against everything that was said."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table

from control import faults, ladder, load_desk, verbs_journal
from control.addresses import load_addresses
from control.calls import call
from control.databases import configured, password_of
from control.layout import Layout
from control.state_dir import is_held
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    AsJson,
    State,
    guarded,
    layout_of,
    out,
    print_json,
    settings_of,
    starting,
)
from exchange.accounting import Account, LoadLine
from exchange.adapters.kafka_place import KafkaPlace
from exchange.flow import OrderFlow
from exchange.flow_csv import CsvFlow, Row
from exchange.listing import Listing
from exchange.ports import ClientOutcome
from exchange.shards import whole_hash
from exchange.types import Instrument
from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError
from kernel.time import SECOND, parse_duration

RATE_MAX: Final = 1_000_000
FOR_MAX_S: Final = 24 * 3600.0
_ACCOUNT_TIMEOUT_S: Final = 120.0
"""The account replays the whole journal: about 50,000 commands a second."""


def complete_symbol(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the symbols of the estate."""
    try:
        return starting((str(one.symbol) for one in instruments_of(layout_of(ctx.params.get("state")))), incomplete)
    except (TapewatchError, typer.Exit):
        return []


app = typer.Typer(
    no_args_is_help=True,
    help="Load the exchange, see a book, halt and resume, turn its phase, fund or stop an account, verify.",
    epilog=EXIT_CODES,
)


def instruments_of(layout: Layout) -> tuple[Instrument, ...]:
    """Return what an estate trades; raises as `listing_of`."""
    return listing_of(layout).instruments


def listing_of(layout: Layout) -> Listing:
    """Return what an estate trades, and by which conventions.

    Raises:
        InputError: the state directory is no estate's, or its instruments cannot be used.
    """
    from exchange.adapters.listing_file import read_listing

    path = layout.root / "instruments.json"
    if not path.exists():
        raise InputError(
            str(layout.root), "no estate has run here", right="name a state directory with --state or TAPEWATCH_STATE"
        )
    return read_listing(path)


# --- book ----------------------------------------------------------------------------------------------------------


@app.command("book", epilog="Example: tapewatch exchange book SYMBOL --watch")
def book(
    symbol: Annotated[
        str,
        typer.Argument(
            help="What is traded; without it the symbols are listed.",
            autocompletion=complete_symbol,
            show_default=False,
        ),
    ] = "",
    levels: Annotated[int, typer.Option(min=1, max=1000, help="How many levels of each side.")] = 10,
    every: Annotated[float, typer.Option(min=0.05, max=60, help="Seconds between two frames of --watch.")] = 0.5,
    state: State = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="A ladder, redrawn until Ctrl-C; in a pipe one frame.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a symbol's book as market data tells it, in ticks and lots; without a symbol, list the symbols."""
    layout = layout_of(state)
    if watch and not symbol:
        guarded(lambda: _need_symbol(layout))
    if watch and not as_json:
        guarded(lambda: ladder.watch(lambda: dict(_book(layout, symbol)), out, levels, every))
        return
    if not symbol:
        known = [str(one.symbol) for one in guarded(lambda: instruments_of(layout))]
        if as_json:
            print_json(known)
        else:
            out.print(markup("\n".join(known)))
        return
    found = guarded(lambda: _book(layout, symbol))
    if as_json:
        print_json(found)
    else:
        _print_book(found, levels)


def _need_symbol(layout: Layout) -> None:
    known = ", ".join(str(one.symbol) for one in instruments_of(layout))
    raise InputError("symbol", "--watch needs one", right=f"there are {known}")


def _book(layout: Layout, symbol: str) -> Any:
    plant = faults.connect(layout.root)
    known = [str(one.symbol) for one in instruments_of(layout)]
    if symbol not in known:
        raise InputError("symbol", f"{symbol[:40]!r} is not traded", right=f"there are {', '.join(known)}")
    return call("GET", f"{plant.addresses.market_data}/v1/book/{quote(symbol, safe='')}")


def _print_book(found: dict[str, Any], levels: int) -> None:
    table = Table(title=ladder.title_of(found), title_justify="left")
    for column in ("bid lots", "bid", "offer", "offer lots"):
        table.add_column(column, justify="right")
    bids, asks = found["bids"][:levels], found["asks"][:levels]
    for row in range(max(len(bids), len(asks))):
        bid = bids[row] if row < len(bids) else ("", "")
        ask = asks[row] if row < len(asks) else ("", "")
        table.add_row(str(bid[1]), f"[green]{bid[0]}[/]", f"[red]{ask[0]}[/]", str(ask[1]))
    out.print(table)
    if not bids and not asks:
        out.print("nobody wants anything")


# --- verify --------------------------------------------------------------------------------------------------------


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `exchange verify` finds. Everything wrong is a sentence in `wrong`."""

    journal: str
    records: int
    last_seq: int
    state_hash: str
    torn_bytes: int
    live_seq: int | None = None
    live_hash: str | None = None
    live_equal: bool | None = None
    """None: no engine runs to compare with."""
    account: Account | None = None
    ledger_trades: int | None = None
    ledger_imbalance: int | None = None
    notes: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


@app.command("verify", epilog="Example: tapewatch exchange verify .tapewatch/up/exchange --json")
def verify(  # noqa: PLR0913 - the options of a verb
    directory: Annotated[
        Path | None,
        typer.Argument(help="A journal, or the directory around it; else the estate's.", show_default=False),
    ] = None,
    instruments: verbs_journal.Instruments = None,
    kafka: verbs_journal.Kafka = "",
    topic: verbs_journal.Topic = "exchange",
    partition: verbs_journal.Partition = 0,
    partitions: verbs_journal.Partitions = 1,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Verify an exchange. Changes nothing.

    With a directory: read every byte of its logs and snapshots, and tell the first that is not as it was written. With
    --kafka: read every message of a journal's partition likewise, and replay it. Without: replay the estate's journal,
    wherever it is, and hold it against the engine, the answers of the load and the ledger.
    """
    if kafka:
        place = KafkaPlace(bootstrap=kafka, topic=topic, partition=partition, partitions=partitions)
        verbs_journal.verify_kafka(directory, instruments, place, as_json=as_json)
    if directory is not None:
        verbs_journal.verify_files(directory, instruments, as_json=as_json)
    layout = layout_of(state)
    verdict = guarded(lambda: examine(layout))
    if as_json:
        print_json(verdict)
    else:
        _print_verdict(verdict)
    raise typer.Exit(FAILED if verdict.wrong else DONE)


def examine(layout: Layout) -> Verdict:
    """Hold everything an exchange said against its journal.

    Raises:
        TapewatchError: there is no journal, or it is damaged.
    """
    from control.journal_desk import compare_part
    from exchange.adapters.journal_place import name_of, parts_of
    from exchange.adapters.load_account import account as account_of

    listing = listing_of(layout)
    instruments, venue = listing.instruments, listing.venue
    parts = parts_of(layout.journal)
    live, notes, wrong = _live(layout, [part.name for part in parts] if len(parts) > 1 else [])
    found, equal = [], None
    for part in parts:
        said = None if live is None else live["engines"][part.name] if len(parts) > 1 else live
        replayed, why = compare_part(part, listing, said)
        found.append(replayed)
        wrong += [f"{part.name}: {why}" if len(parts) > 1 else why] if why else []
        equal = None if said is None else equal is not False and not why
    torn = sum(one.torn_bytes for one in found)
    if torn:
        notes.append(f"{torn} bytes at the journal's end are no whole record: being written, or cut short")
    account = account_of(layout.load, layout.journal, instruments, venue) if any(layout.load.glob("*.jsonl")) else None
    if account is not None and not account.clean:
        wrong.append(
            f"of the load's orders {account.lost} are lost, {account.duplicated} duplicated, "
            f"{account.mismatched} answered otherwise than the journal says"
        )
    trades, imbalance = _ledger(layout)
    if imbalance:
        wrong.append(f"the ledger does not sum to zero: it is off by {imbalance}")
    return Verdict(
        journal=name_of(layout.journal), records=sum(one.records for one in found),
        last_seq=sum(one.last_seq for one in found), state_hash=whole_hash([one.state_hash for one in found]),
        torn_bytes=torn, live_seq=live["seq"] if live else None,
        live_hash=live["state_hash"] if live else None, live_equal=equal, account=account,
        ledger_trades=trades, ledger_imbalance=imbalance,
        notes=tuple(notes), wrong=tuple(wrong),
    )  # fmt: skip


def _live(layout: Layout, engines: Sequence[str]) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """Return what a running engine holds, why there is none to compare with, and what is wrong with it.

    Of several `engines` what each holds stands under its name.
    """
    if not is_held(layout):
        return None, ["no engine runs here: the journal alone was verified"], []
    try:
        engine = load_addresses(layout.addresses).engine
        if call("GET", f"{engine}/v1/status", timeout_s=30.0)["journal_failed"]:
            return None, [], ["the engine's journal failed and it takes no orders: mend the disk and restart it"]
        held = dict(call("GET", f"{engine}/v1/hash", timeout_s=30.0))
        if engines and set(engines) != set(held.get("engines", ())):
            return None, ["the engine was not compared: others run here than have a journal here"], []
        return held, [], []
    except TapewatchError as error:
        return None, [f"the engine was not compared: {error}"], []


def _ledger(layout: Layout) -> tuple[int | None, int | None]:
    """Return how many trades are settled and by how much the ledger is off zero; None when there is no ledger.

    Raises:
        PermanentError: it cannot be read.
    """
    import sqlite3

    path, elsewhere = layout.ledger, configured(layout, "settlement-1")
    if elsewhere is not None and elsewhere.ledger is not None:
        from exchange.adapters.settlement_store import SettlementStore

        store = SettlementStore(elsewhere.ledger.url, (), password=password_of(elsewhere.ledger))
        with contextlib.closing(store):
            return store.trades(), store.imbalance()
    if not path.exists():
        return None, None
    try:
        # Read-only: a ledger that is being written is neither locked nor changed by looking.
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as ledger:
            trades = ledger.execute("SELECT count(*) FROM trades").fetchone()[0]
            rows = ledger.execute("SELECT sum(amount) FROM balances GROUP BY asset").fetchall()
    except sqlite3.Error as error:
        raise PermanentError(f"{path}: the ledger cannot be read: {error}") from error
    return int(trades), sum(abs(int(total)) for (total,) in rows)


def _print_verdict(verdict: Verdict) -> None:
    live = "not compared"
    if verdict.live_equal is not None:
        live = "[green]equal[/]" if verdict.live_equal else "[bold red]different[/]"
        live += f" at command {verdict.live_seq}"
    lines = [
        ("journal", markup(f"{verdict.journal}: {verdict.records} commands")),
        ("state", verdict.state_hash),
        ("engine", live),
        ("torn", f"{verdict.torn_bytes} bytes"),
    ]
    if verdict.ledger_trades is not None:
        lines.append(("ledger", f"{verdict.ledger_trades} trades settled, off zero by {verdict.ledger_imbalance}"))
    if verdict.account is not None:
        lines.append(("load", account_words(verdict.account)))
    for name, text in lines:
        out.print(f"{name:10}{text}", soft_wrap=True)
    for note in verdict.notes:
        out.print(f"{'note':10}{markup(note)}", soft_wrap=True)
    for example in verdict.account.examples if verdict.account is not None else ():
        out.print(f"{'':10}{markup(example)}", soft_wrap=True)
    for wrong in verdict.wrong:
        out.print(f"[bold red]{'wrong':10}[/]{markup(wrong)}", soft_wrap=True)
    if verdict.wrong:
        return
    if verdict.live_equal is None:
        out.print("[yellow]journal sound; the engine does not run, so its state was not compared[/]", soft_wrap=True)
    else:
        out.print("[green]nothing is wrong[/]")


def account_words(account: Account) -> str:
    """Tell an account in one line."""
    colour = "green" if account.clean else "bold red"
    return (
        f"{account.sent} sent, {account.acknowledged} acknowledged, {account.rejected} rejected by a rule, "
        f"{account.refused} refused, {account.unknown} unknown, "
        f"[{colour}]{account.lost} lost, {account.duplicated} duplicated, {account.mismatched} mismatched[/]"
    )


app.command("replay", epilog="Example: tapewatch exchange replay .tapewatch/up/exchange --until 1000 --print-hash")(
    verbs_journal.replay_journal
)
app.command("compact", epilog="Example: tapewatch exchange compact .tapewatch/up/exchange")(
    verbs_journal.compact_journal
)


# --- load ----------------------------------------------------------------------------------------------------------


@app.command("load", epilog="Example: tapewatch exchange load --offline --flow crash --seed 7 --out crash.csv")
def load(  # noqa: PLR0913, PLR0917 - the options of a verb
    rate: Annotated[float, typer.Option(help="Requests a second on average.")] = 100.0,
    duration: Annotated[
        str | None, typer.Option("--for", help="How long, such as 30s or 2m; not with --offline.", show_default="30s")
    ] = None,
    flow: Annotated[
        str,
        typer.Option(
            help="calm, open-rush, crash, news, or a .csv that --out wrote; else the estate's usual load.",
            autocompletion=load_desk.complete_flow,
            show_default=False,
        ),
    ] = "",
    seed: Annotated[
        int | None, typer.Option(help="The same seed, the same flow; else the setting.", show_default=False)
    ] = None,
    commands: verbs_journal.Commands = None,
    to_file: Annotated[
        Path | None, typer.Option("--out", help="Write the flow as CSV, with --offline.", show_default=False)
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Write a journal in this directory, with --offline.", show_default=False)
    ] = None,
    told: verbs_journal.Told = None,
    instruments: verbs_journal.Instruments = None,
    state: State = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Against a fresh engine in this process.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load the running exchange for a while, then account for every order. Ctrl-C ends it early, with the account.

    Meanwhile this rate replaces the estate's usual load; afterwards the usual one goes on. With --offline no estate is
    needed: a fresh engine takes the flow, and what was sent and what became of it is told.
    """
    chosen = settings_of(state).seed if seed is None else seed
    if offline:
        guarded(lambda: load_desk.refuse_for(duration))
        wish = load_desk.OfflineWish(
            flow or "calm", chosen, commands, rate, instruments, out=to_file, told=told, journal=journal
        )
        _load_offline(wish, as_json=as_json)
        return
    layout = layout_of(state)
    for_s = guarded(lambda: _checked(rate, duration or "30s"))
    before = _sizes(layout.load)
    only_offline = {"commands": commands, "out": to_file, "journal": journal, "told": told, "instruments": instruments}
    guarded(lambda: _only_offline([f"--{name}" for name, given in only_offline.items() if given is not None]))
    account = guarded(lambda: _load(layout, Sending(rate, for_s, chosen, flow), quiet=as_json))
    meanwhile = _answers_since(layout.load, before)
    if as_json:
        print_json({**msgspec.to_builtins(account), "interval": meanwhile})
    else:
        counts = ", ".join(f"{meanwhile[outcome]} {outcome}" for outcome in ClientOutcome)
        out.print(f"meanwhile  {meanwhile['sent']} sent, {counts}", soft_wrap=True)
        out.print(f"in all     {account_words(account)}", soft_wrap=True)
        for example in account.examples:
            out.print(markup(example), soft_wrap=True)
    raise typer.Exit(DONE if account.clean else FAILED)


class Sending(NamedTuple):
    """What is sent to a running exchange."""

    rate: float
    for_s: float
    seed: int
    flow: str
    """Empty: what the estate's load usually sends."""


def _only_offline(given: Sequence[str]) -> None:
    if given:
        raise InputError(given[0], "is for --offline", right="leave it out, or add --offline")


def _load_offline(wish: load_desk.OfflineWish, *, as_json: bool) -> None:
    began = time.monotonic()
    account = guarded(lambda: load_desk.run(wish))
    taken_s = time.monotonic() - began
    if as_json:
        print_json(msgspec.to_builtins(account))  # without what depends on the machine: the same seed, the same bytes
        return
    for name, text in load_desk.words_of(account):
        out.print(f"{name:10}{markup(text)}", soft_wrap=True)
    out.print(f"{'taken':10}{taken_s:.2f} s, {account.sent / max(taken_s, 1e-9):,.0f} requests a second")


def _sizes(directory: Path) -> dict[Path, int]:
    """Return how long each of the load's logs is."""
    return {path: path.stat().st_size for path in directory.glob("*.jsonl")}


def _answers_since(directory: Path, before: dict[Path, int]) -> dict[str, int]:
    """Count the requests that the load's logs have gained, by outcome and in all (`sent`)."""
    counts = dict.fromkeys(("sent", *ClientOutcome), 0)
    for path in directory.glob("*.jsonl"):
        with path.open("rb") as file:
            file.seek(before.get(path, 0))
            for text in file:
                if text.endswith(b"\n"):  # the last line may be half written
                    counts[msgspec.json.decode(text, type=LoadLine).outcome] += 1
                    counts["sent"] += 1
    return {str(name): count for name, count in counts.items()}


def _checked(rate: float, duration: str) -> float:
    if not 0 <= rate <= RATE_MAX:
        raise InputError("--rate", f"is {rate:g}", right=f"between 0 and {RATE_MAX} requests a second")
    try:
        for_s = parse_duration(duration) / SECOND
    except ValueError as error:
        raise InputError("--for", str(error), right="write a time such as 30s or 2m") from error
    if not 0 < for_s <= FOR_MAX_S:
        raise InputError("--for", f"is {duration}", right="more than nothing, at most a day")
    return for_s


def _load(layout: Layout, sending: Sending, *, quiet: bool) -> Account:
    rate, for_s = sending.rate, sending.for_s
    rows = load_desk.rows_of(sending.flow) if sending.flow else None
    plant = faults.connect(layout.root)
    say: Callable[[str], object] = (lambda _: None) if quiet else (lambda text: out.print(markup(text), soft_wrap=True))
    running = plant.addresses.workloads.get("load", ())
    if not running:
        say(f"no load runs in this estate: sending {rate:g} requests a second from here for {for_s:g} s")
        return asyncio.run(_load_from_here(layout, sending, rows))
    url = running[0].url
    usual = float(call("GET", f"{url}/v1/rate")["rate"])
    if sending.flow:
        say(f"the estate's load pauses: sending {sending.flow} from here, {rate:g} requests a second for {for_s:g} s")
        try:
            call("POST", f"{url}/admin/rate", token=plant.admin, body={"rate": 0})
            return asyncio.run(_load_from_here(layout, sending, rows))
        finally:
            call("POST", f"{url}/admin/rate", token=plant.admin, body={"rate": usual})
    say(f"the estate's load sends {rate:g} requests a second for {for_s:g} s, then {usual:g} again")
    with _interruptible() as interrupted:
        try:
            call("POST", f"{url}/admin/rate", token=plant.admin, body={"rate": rate})
            _wait(for_s, interrupted)
        finally:
            call("POST", f"{url}/admin/rate", token=plant.admin, body={"rate": usual})
    return msgspec.convert(call("GET", f"{url}/v1/account", timeout_s=_ACCOUNT_TIMEOUT_S), Account)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying of them, so that what was changed is put back."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda came_now, _: came.append(came_now)) for number in numbers]
    try:
        yield lambda: bool(came)
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)


def _wait(for_s: float, interrupted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + for_s
    while not interrupted() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(0.1, left))


async def _load_from_here(layout: Layout, sending: Sending, rows: Sequence[Row] | None) -> Account:
    """Be the load client oneself.

    Raises:
        TapewatchError: the log or the journal cannot be used, or no gateway is ready.
    """
    from exchange.adapters.http import read_secret
    from exchange.adapters.load_client import LoadClient, LoadParts
    from kernel.adapters.clock import SystemClock

    listing = listing_of(layout)
    seed, count = sending.seed, max(1, round(sending.rate * sending.for_s))

    def flow(prefix: str) -> OrderFlow | CsvFlow:
        start = SystemClock().now()
        return load_desk.flow_of(
            sending.flow or "calm", rows, seed, listing.instruments, count=count, prefix=prefix, start=start
        )

    client = LoadClient(
        LoadParts(
            directory=layout.load, journal=layout.journal,
            gateways=lambda: load_addresses(layout.addresses).urls("gateway"),
            instruments=listing.instruments, venue=listing.venue,
            trade_secret=read_secret(layout.secret("trade")), seed=seed,
            rate_per_s=0.0, telemetry=_Unheard(), log=_Unheard(), clock=SystemClock(), flow=flow,
        )
    )  # fmt: skip
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(client.run())
    try:
        await _until_ready(client, stop, running)
        client.set_rate(sending.rate)
        ended, exhausted = asyncio.create_task(stop.wait()), asyncio.create_task(client.exhausted.wait())
        await asyncio.wait((ended, exhausted, running), timeout=sending.for_s, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        exhausted.cancel()
        account = await client.finish()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    if account is None:
        raise PermanentError(f"{layout.journal}: the journal cannot be read, so nothing can be accounted for")
    return account


async def _until_ready(client: Any, stop: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Wait until a gateway takes requests, at most five seconds."""
    for _ in range(100):
        if client.ready()[0] or stop.is_set():
            return
        if running.done():
            await running
        await asyncio.sleep(0.05)
    raise TemporaryError("no gateway is ready to take requests")


class _Unheard:
    """Telemetry and log of a load that nobody scrapes."""

    def answered(self, outcome: object, seconds: float, notional: int = 0) -> None:
        """Leave it to the account."""

    def event(self, *_: object, **__: object) -> None:
        """Leave it to the account."""
