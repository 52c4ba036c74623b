"""The verbs `exchange` status, halt, resume, phase, fund, disable and enable: a person's own hand on trading."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote

import msgspec
import typer
from rich.markup import escape as markup

from control import faults
from control.calls import call
from control.child import now
from control.errors import RefusedByRailError
from control.fault import Plant
from control.layout import Layout
from control.terminal import AsJson, By, State, guarded, layout_of, out, print_json, starting, who
from control.verbs_exchange import complete_symbol, examine, instruments_of
from exchange.checks import is_id
from exchange.ledger import CASH
from exchange.operators import MAX_FUND
from exchange.types import MAX_ID_LENGTH, HaltReason, TradingPhase
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import SECOND, Instant, to_rfc3339

SymbolName = Annotated[str, typer.Argument(help="What is traded.", autocompletion=complete_symbol, show_default=False)]
AccountName = Annotated[str, typer.Argument(help="Whose orders.", show_default=False)]
Why = Annotated[str, typer.Option(help="Why; kept in logs/people.jsonl.")]
NO_WHY: Final = "no reason given"
PEOPLE: Final = "people"
"""Under which name what people did is logged; the rule that looks for strangers knows it."""
Market = Annotated[bool, typer.Option("--market", help="Every symbol at once.")]
_SAID: Final = {"phase": "turn", "account": "set"}
"""What a person calls an engine's verb, where it is another word."""
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.]+")
_USER_LETTERS_MAX: Final = 32
_HOUR_S: Final = 3600


@dataclass(frozen=True)
class Wish:
    """What a person wants halted or resumed."""

    layout: Layout
    symbol: str | None
    """None: the market."""
    by: str
    why: str = ""

    @property
    def what(self) -> str:
        """Name it in a sentence."""
        return self.symbol or "the market"

    @property
    def key(self) -> str:
        """Make a fresh key; the journal keeps it, and with it who it was."""
        return f"person-{_UNFIT.sub('_', self.by)[:_USER_LETTERS_MAX]}-{time.time_ns()}"


def halt(
    symbol: SymbolName = "",
    why: Why = NO_WHY,
    by: By = "",
    state: State = None,
    *,
    market: Market = False,
) -> None:
    """Halt a symbol, or the market: orders are refused until a person resumes it."""
    layout = layout_of(state)
    told = guarded(lambda: halt_now(_wish(layout, symbol, who(by), why, market=market)))
    out.print(markup(told), soft_wrap=True)


def resume(
    symbol: SymbolName = "",
    by: By = "",
    state: State = None,
    *,
    market: Market = False,
    auction: Annotated[bool, typer.Option("--auction", help="Gather orders for one price first.")] = False,
) -> None:
    """Let a halted symbol, or the market, trade again; with --auction, after a cross.

    After an unclean stop of the engine the market is resumed only when `exchange verify` finds nothing wrong.
    """
    layout = layout_of(state)
    told = guarded(lambda: resume_now(_wish(layout, symbol, who(by), market=market), auction=auction))
    out.print(markup(told), soft_wrap=True)


def complete_phase(incomplete: str) -> list[str]:
    """Offer the phases."""
    return starting(TradingPhase, incomplete)


def phase(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(TradingPhase)}.", autocompletion=complete_phase)],
    symbol: SymbolName = "",
    why: Why = NO_WHY,
    by: By = "",
    state: State = None,
    *,
    market: Market = False,
) -> None:
    """Turn a symbol, or the market, to another phase. Leaving an auction crosses; closing expires day orders."""
    layout = layout_of(state)
    told = guarded(lambda: turn_now(_phase(name), _wish(layout, symbol, who(by), why, market=market)))
    out.print(markup(told), soft_wrap=True)


def status(state: State = None, *, as_json: AsJson = False) -> None:
    """Tell the market's phase, what stands still, and when the calendar turns it next."""
    layout = layout_of(state)
    found = guarded(lambda: _status(faults.connect(layout.root), partly=True))
    if as_json:
        print_json(found)
        return
    for name, text in status_words(found, now()):
        out.print(f"{name:10}{markup(text)}", soft_wrap=True)


def status_words(status: Mapping[str, Any], at: Instant) -> list[tuple[str, str]]:
    """Return what the engine says of the market as lines of name and text; `at` is now."""
    halted = "nothing"
    if status["market_halted"]:
        engines = status.get("engines") or {}
        parts = [name for name, one in engines.items() if one is not None and one["market_halted"]]
        what = "the market" if len(parts) == len(engines) else f"the symbols of {', '.join(parts)}"
        halted = f"{what} ({status['market_halt_reason']})"
    elif status["halted_symbols"]:
        halted = ", ".join(status["halted_symbols"])
    turn = "by a person (no calendar turns the phases: phases_by_calendar is false)"
    if status.get("next_phase_at"):
        in_s = max(0, (status["next_phase_at"] - at) // SECOND)
        until = f"{in_s // 3600} h {in_s % 3600 // 60} min" if in_s >= _HOUR_S else f"{in_s // 60} min {in_s % 60} s"
        turn = f"{status['next_phase']} at {to_rfc3339(status['next_phase_at'])}, in {until}"
    elif status.get("by_calendar"):
        turn = "none within the month that the calendar looks ahead"
    lines = [("phase", str(status["market_phase"])), ("halted", halted), ("next turn", turn)]
    if status.get("journal_failed") and not status.get("engines"):
        lines.append(("orders", f"none is taken: {status['detail']}"))
    if status.get("phase") == "partly":
        lines.append(("engines", status["detail"]))
    if status["disabled_accounts"]:
        lines.append(("disabled", ", ".join(status["disabled_accounts"])))
    lines.append(("journal", f"{status['seq']} commands are durable"))
    return lines


def fund(  # noqa: PLR0913 - the options of a verb
    account: AccountName,
    asset: Annotated[str, typer.Argument(help="'$cash' (in quotes), in millionths, or a symbol, in lots.")],
    amount: Annotated[int, typer.Argument(help="How much of it.")],
    why: Why = NO_WHY,
    by: By = "",
    state: State = None,
    *,
    take: Annotated[bool, typer.Option("--take", help="Take it away instead of giving it.")] = False,
    engine: Annotated[str, typer.Option(help="Of several engines whose cash it is, such as engine-2.")] = "",
) -> None:
    """Give an account cash or a position, or take what is free of it; each engine of several has its own cash."""
    wish = Wish(layout_of(state), None, who(by), why)
    if amount < 0:  # two signs would be two ways to say one thing
        guarded(lambda: _no_amount(amount))
    told = guarded(lambda: fund_now(wish, account, asset, -amount if take else amount, engine=engine))
    out.print(markup(told), soft_wrap=True)


def disable(account: AccountName, why: Why = NO_WHY, by: By = "", state: State = None) -> None:
    """Cancel all orders of an account and refuse new ones until a person enables it."""
    wish = Wish(layout_of(state), None, who(by), why)
    out.print(markup(guarded(lambda: switch_now(wish, account, on=False))), soft_wrap=True)


def enable(account: AccountName, why: Why = NO_WHY, by: By = "", state: State = None) -> None:
    """Let an account that was disabled send orders again."""
    wish = Wish(layout_of(state), None, who(by), why)
    out.print(markup(guarded(lambda: switch_now(wish, account, on=True))), soft_wrap=True)


def halt_now(wish: Wish) -> str:
    """Halt; returns what is so now.

    Raises:
        TapewatchError: the engine does not answer, or refused.
    """
    plant = faults.connect(wish.layout.root)
    was = _halted(_status(plant, wish.symbol, partly=True), wish.symbol)
    _carry_out(plant, wish, "halt", {"reason": HaltReason.OPERATOR})
    again = f"tapewatch exchange resume {wish.symbol or '--market'}"
    already = f"{wish.what} was halted already and" if was else f"{wish.what}"
    return f"{already} is halted by {wish.by}: {wish.why}; `{again}` lets it trade again"


def resume_now(wish: Wish, *, auction: bool = False) -> str:
    """Resume, after an auction where one is wanted; returns what is so now.

    Raises:
        RefusedByRailError: the engine's last stop was unclean and the journal was not proven to be what it holds.
        TapewatchError: the engine does not answer, or refused.
    """
    plant = faults.connect(wish.layout.root)
    status = _status(plant, wish.symbol)
    if not _halted(status, wish.symbol):
        still = " (but the market is halted)" if wish.symbol and status["market_halted"] else ""
        return f"{wish.what} is not halted{still}: nothing was done"
    verified = ""
    if wish.symbol is None and not status["clean_start"]:
        verified = f"; {_verified(wish.layout)}"
    _carry_out(plant, wish, "resume", {"auction": True} if auction else {})
    if wish.symbol is not None and status["market_halted"]:
        return f"{wish.symbol} is resumed by {wish.by}, and trades again once the market is resumed, too"
    left = [one for one in status["halted_symbols"] if one != wish.symbol]
    halted = f"; still halted: {', '.join(left)}" if left else ""
    crosses = ", with an auction first" if auction else ""
    return f"{wish.what} is resumed by {wish.by}{crosses}{verified}{halted}"


def turn_now(to: TradingPhase, wish: Wish) -> str:
    """Turn to a phase; returns what is so now.

    Raises:
        TapewatchError: the engine does not answer, or refused.
    """
    plant = faults.connect(wish.layout.root)
    status = _status(plant, wish.symbol, partly=True)
    _tell(plant, wish, "phase", {"symbol": wish.symbol, "phase": to}, f"{wish.what} to {to}")
    still = "; it is halted, and stays so until it is resumed" if _halted(status, wish.symbol) else ""
    if status.get("next_phase_at"):
        stays = wish.symbol is None and to is TradingPhase.CLOSED and status["next_phase"] != TradingPhase.CLOSED
        first = "a new session" if stays else status["next_phase"]
        still += f"; the calendar turns the market next to {first}"
        still += "" if stays else f" at {to_rfc3339(status['next_phase_at'])}"
    return f"{wish.what} is in phase {to} by {wish.by}: {wish.why}{still}"


def _no_amount(amount: int) -> NoReturn:
    raise InputError("amount", f"is {amount}", right=f"from 1 to {MAX_FUND}; --take takes it away")


def _no_asset(asset: str, layout: Layout) -> None:
    known = [str(one.symbol) for one in instruments_of(layout)]
    if asset not in {CASH, *known}:
        right = f"'{CASH}' (in quotes, for the shell) or one of {', '.join(known)}"
        raise InputError("asset", f"{asset[:40]!r} is none", right=right)


def fund_now(wish: Wish, account: str, asset: str, amount: int, *, engine: str = "") -> str:
    """Give an account an asset, or take it; returns what was done. `engine` is whose cash it is, of several.

    Raises:
        InputError: the account, the asset, or the amount is none that could be.
        TapewatchError: the engine does not answer, or refused.
    """
    _account(account, spaces=False)
    if not 0 < abs(amount) <= MAX_FUND:
        _no_amount(amount)
    plant = faults.connect(wish.layout.root)
    _no_asset(asset, wish.layout)
    body = {"account": account, "asset": asset, "amount": amount}
    _status(plant, None if asset == CASH else asset, partly=True)
    engines = [one.id for one in plant.addresses.workloads.get("engine", ())]
    if engine and engine not in engines:
        raise InputError("--engine", f"there is no {engine[:40]!r}", right=f"there are {', '.join(engines)}")
    which = engine if len(engines) > 1 else ""
    _tell(plant, wish, "fund", body, f"{account} {amount} {asset}", engine=which)
    verb = "given" if amount > 0 else "taken"
    unit = "millionths of $cash" if asset == CASH else f"lots of {asset}"
    return f"{account}: {abs(amount)} {unit} {verb} by {wish.by}: {wish.why}"


def switch_now(wish: Wish, account: str, *, on: bool) -> str:
    """Disable an account or enable it again; returns what is so now.

    Raises:
        InputError: the account is none that could be.
        TapewatchError: the engine does not answer, or refused.
    """
    _account(account, spaces=on)
    plant = faults.connect(wish.layout.root)
    was = account in _status(plant, partly=not on).get("disabled_accounts", ())
    if on and not was:
        return f"{account} is not disabled: nothing was done"
    _tell(
        plant, wish, "account", {"account": account, "enabled": on}, f"{account} to {'enabled' if on else 'disabled'}"
    )
    if on:
        return f"{account} may send orders again by {wish.by}: {wish.why}"
    already = "was disabled already and " if was else ""
    return f"{account} {already}is disabled by {wish.by}: {wish.why}; `tapewatch exchange enable {account}` ends it"


def _account(name: str, *, spaces: bool) -> None:
    """Check an account's name. No gateway takes one with `spaces`; what was once done to such a one is taken back only.

    Raises:
        InputError: it is none that could be.
    """
    if not is_id(name) or (" " in name and not spaces):
        right = f"1 to {MAX_ID_LENGTH} printable ASCII characters without spaces"
        raise InputError("account", f"{name[:40]!r} is none", right=right)


def _phase(name: str) -> TradingPhase:
    """Return a phase by its name.

    Raises:
        InputError: there is none of this name.
    """
    try:
        return TradingPhase(name)
    except ValueError:
        raise InputError("phase", f"{name[:40]!r} is none", right=f"there are {', '.join(TradingPhase)}") from None


def _wish(layout: Layout, symbol: str, by: str, why: str = "", *, market: bool) -> Wish:
    """Check what was typed.

    Raises:
        InputError: neither or both of symbol and market, or nothing of this name is traded.
        TemporaryError: no estate runs there.
    """
    if market == bool(symbol):
        raise InputError("symbol", "give one symbol, or --market", right="such as `tapewatch exchange halt --market`")
    if market:
        return Wish(layout, None, by, why)
    faults.connect(layout.root)
    known = [str(one.symbol) for one in instruments_of(layout)]
    if symbol not in known:
        raise InputError("symbol", f"{symbol[:40]!r} is not traded", right=f"there are {', '.join(known)}")
    return Wish(layout, symbol, by, why)


def _status(plant: Plant, symbol: str | None = None, *, partly: bool = False) -> dict[str, Any]:
    """Return what the engine says of itself; of several the one of `symbol`, or all together.

    Args:
        plant: the estate.
        symbol: whose engine is meant; None: every engine.
        partly: whether it is enough when some engine of several can be told.

    Raises:
        PermanentError: its journal failed.
        TemporaryError: it does not answer, or is not ready.
    """
    query = "" if symbol is None else f"?symbol={quote(symbol)}"
    status: dict[str, Any] = call("GET", f"{plant.addresses.engine}/v1/status{query}")
    if partly and any(one is not None and one["ready"] for one in (status.get("engines") or {}).values()):
        return status
    if status["journal_failed"]:
        raise PermanentError("the engine's journal failed and it takes nothing: mend the disk and restart it")
    if not status["ready"]:
        raise TemporaryError(f"the engine is not ready: it is {status['phase']} {status['detail']}".rstrip())
    return status


def _halted(status: dict[str, Any], symbol: str | None) -> bool:
    return bool(status["market_halted"] if symbol is None else symbol in status["halted_symbols"])


def _verified(layout: Layout) -> str:
    """Prove that the journal replays to what the engine holds.

    Raises:
        RefusedByRailError: it does not, or something else is wrong.
        TemporaryError: the engine does not say what it holds.
    """
    verdict = examine(layout)
    if verdict.wrong:
        raise RefusedByRailError(
            f"the engine's last stop was unclean and the market stays halted: {'; '.join(verdict.wrong)}; "
            "`tapewatch exchange verify` tells more"
        )
    if verdict.live_equal is None:
        raise TemporaryError(
            f"the engine's last stop was unclean and the replay was not verified, so the market stays halted: "
            f"{'; '.join(verdict.notes)}"
        )
    return f"its last stop was unclean: {verdict.live_seq} commands replayed to an equal state"


def _carry_out(plant: Plant, wish: Wish, verb: str, more: dict[str, Any]) -> None:
    """Tell the engine what becomes of a symbol or the market, and keep who said so and why."""
    _tell(plant, wish, verb, {"symbol": wish.symbol, **more}, wish.what)


def _tell(plant: Plant, wish: Wish, verb: str, body: dict[str, Any], what: str, *, engine: str = "") -> None:
    """Tell the engine, or of several those it concerns, and keep who said so and why."""
    key, named = wish.key, f"?engine={quote(engine)}" if engine else ""
    call("POST", f"{plant.addresses.engine}/admin/{verb}{named}", token=plant.admin, body={"key": key, **body})
    line = {
        "@timestamp": to_rfc3339(now()), "log.level": "warn", "ecs.version": "8.11.0", "service.name": PEOPLE,
        "event.action": f"{verb}-{body.get('symbol') or body.get('account') or 'market'}", "event.id": key,
        "user.name": wish.by,
        "message": f"{wish.by} asked to {_SAID.get(verb, verb)} {what}" + (f": {wish.why}" if wish.why else ""),
    }  # fmt: skip
    try:
        with wish.layout.log(PEOPLE).open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
    except OSError as error:  # it is done, and the engine's journal has the key: only the why is lost
        out.print(markup(f"who and why could not be kept: {wish.layout.log(PEOPLE)}: {error.strerror}"))
