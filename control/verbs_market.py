"""The verbs `exchange halt` and `exchange resume`: a person's own hand on trading."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape as markup

from control import faults
from control.calls import call
from control.child import now
from control.errors import RefusedByRailError
from control.fault import Plant
from control.layout import Layout
from control.terminal import By, State, guarded, layout_of, out, who
from control.verbs_exchange import complete_symbol, examine, instruments_of
from exchange.types import HaltReason
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import to_rfc3339

SymbolName = Annotated[str, typer.Argument(help="What is traded.", autocompletion=complete_symbol, show_default=False)]
Market = Annotated[bool, typer.Option("--market", help="Every symbol at once.")]
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.]+")
_USER_LETTERS_MAX: Final = 32


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
    why: Annotated[str, typer.Option(help="Why; kept in logs/people.jsonl.")] = "no reason given",
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
) -> None:
    """Let a halted symbol, or the market, trade again.

    After an unclean stop of the engine the market is resumed only when `exchange verify` finds nothing wrong.
    """
    layout = layout_of(state)
    told = guarded(lambda: resume_now(_wish(layout, symbol, who(by), market=market)))
    out.print(markup(told), soft_wrap=True)


def halt_now(wish: Wish) -> str:
    """Halt; returns what is so now.

    Raises:
        TapewatchError: the engine does not answer, or refused.
    """
    plant = faults.connect(wish.layout.root)
    was = _halted(_status(plant), wish.symbol)
    _carry_out(plant, wish, "halt", {"reason": HaltReason.OPERATOR})
    again = f"tapewatch exchange resume {wish.symbol or '--market'}"
    already = f"{wish.what} was halted already and" if was else f"{wish.what}"
    return f"{already} is halted by {wish.by}: {wish.why}; `{again}` lets it trade again"


def resume_now(wish: Wish) -> str:
    """Resume; returns what is so now.

    Raises:
        RefusedByRailError: the engine's last stop was unclean and the journal was not proven to be what it holds.
        TapewatchError: the engine does not answer, or refused.
    """
    plant = faults.connect(wish.layout.root)
    status = _status(plant)
    if not _halted(status, wish.symbol):
        still = " (but the market is halted)" if wish.symbol and status["market_halted"] else ""
        return f"{wish.what} is not halted{still}: nothing was done"
    verified = ""
    if wish.symbol is None and not status["clean_start"]:
        verified = f"; {_verified(wish.layout)}"
    _carry_out(plant, wish, "resume", {})
    if wish.symbol is not None and status["market_halted"]:
        return f"{wish.symbol} is resumed by {wish.by}, and trades again once the market is resumed, too"
    left = [one for one in status["halted_symbols"] if one != wish.symbol]
    halted = f"; still halted: {', '.join(left)}" if left else ""
    return f"{wish.what} is resumed by {wish.by}{verified}{halted}"


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


def _status(plant: Plant) -> dict[str, Any]:
    """Return what the engine says of itself.

    Raises:
        PermanentError: its journal failed.
        TemporaryError: it does not answer, or is not ready.
    """
    status: dict[str, Any] = call("GET", f"{plant.addresses.engine}/v1/status")
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


def _carry_out(plant: Plant, wish: Wish, verb: str, more: dict[str, str]) -> None:
    """Tell the engine, and keep who said so and why."""
    body = {"key": wish.key, "symbol": wish.symbol, **more}
    call("POST", f"{plant.addresses.engine}/admin/{verb}", token=plant.admin, body=body)
    line = {
        "@timestamp": to_rfc3339(now()), "log.level": "warn", "ecs.version": "8.11.0", "service.name": "people",
        "event.action": f"{verb}-{wish.symbol or 'market'}", "event.id": body["key"], "user.name": wish.by,
        "message": f"{wish.by} asked to {verb} {wish.what}" + (f": {wish.why}" if wish.why else ""),
    }  # fmt: skip
    try:
        with wish.layout.log("people").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
    except OSError as error:  # it is done, and the engine's journal has the key: only the why is lost
        out.print(markup(f"who and why could not be kept: {wish.layout.log('people')}: {error.strerror}"))
