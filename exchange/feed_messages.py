"""What the public feed says: its messages, as `docs/market-data.md` describes them."""

from __future__ import annotations

from typing import Final

import msgspec

from exchange.types import Lots, Side, Symbol, Ticks, TradeId, TradingPhase
from kernel.time import Instant

MARKET: Final = Symbol("$market")
"""What a subscriber asks for, in a symbol's place, when it lost how the whole market stands. No symbol begins so."""


class LevelChange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The new total quantity at a price; 0 means the level is gone."""

    side: Side
    price: Ticks
    quantity: Lots


class Print(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A trade as the public sees it."""

    trade_id: TradeId
    price: Ticks
    quantity: Lots
    taker_side: Side
    quoted: bool = True
    """Whether it had to respect the quotes published before its update.

    Not so in a cross, of or against an all-or-none order, and after another order of the same command.
    """


class Indication(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a cross would do."""

    price: Ticks
    quantity: Lots
    surplus: int
    """What is left at the price; positive: more to buy."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a symbol stands, its levels aside; as the members of a snapshot."""

    phase: TradingPhase
    paused_until: Instant
    limited: bool
    lower: Ticks
    upper: Ticks


class Snapshot(msgspec.Struct, frozen=True, gc=False, tag="snapshot"):
    """A whole book: where a subscriber begins, or begins again."""

    symbol: Symbol
    seq: int
    bids: tuple[tuple[Ticks, Lots], ...]
    """Best first."""
    asks: tuple[tuple[Ticks, Lots], ...]
    halted: bool
    """Whether the symbol stands still on its own."""
    gathering: bool = False
    """Whether its orders wait for a cross: the book may be crossed."""
    phase: TradingPhase = TradingPhase.CONTINUOUS
    paused_until: Instant = Instant(0)
    """When the symbol's own pause ends; 0: none."""
    limited: bool = False
    """Whether its best price stands at the end of the moving band (rule B4)."""
    lower: Ticks = Ticks(0)
    """The moving band while it is limited, else 0; as it was when that was told, or when the engine gave this book."""
    upper: Ticks = Ticks(0)
    indicative: Indication | None = None
    """What a cross would do, as it was told last; None: nothing, or no cross is waited for."""


class Delta(msgspec.Struct, frozen=True, gc=False, tag="delta"):
    """What one command changed in one symbol."""

    symbol: Symbol
    seq: int
    previous: int
    at: Instant
    changes: tuple[LevelChange, ...] = ()
    trades: tuple[Print, ...] = ()
    halted: bool = False
    """Whether the symbol stands still on its own, afterwards."""
    gathering: bool = False
    """Whether its orders wait for a cross, afterwards."""
    standing: Standing | None = None
    """How the symbol stands afterwards, where the command changed that."""


class MarketStatus(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """How the whole market stands: told when it is turned, halted, resumed, or pauses."""

    halted: bool
    at: Instant
    gathering: tuple[Symbol, ...] = ()
    """The symbols whose orders wait for a cross, sorted."""
    seq: int = 0
    """The journal's number of the command that made it so; the one with the higher number holds."""
    phase: TradingPhase = TradingPhase.CONTINUOUS
    phases: dict[Symbol, TradingPhase] = {}
    """The symbols that are in another phase than the market."""
    paused_until: Instant = Instant(0)
    """When the pause of the whole market ends (a breaker); 0: none."""
    breaker_level: int = 0
    """The highest that was reached this session: 1, 2 or 3; 0: none."""
    halted_symbols: tuple[Symbol, ...] = ()
    """The symbols that stand still with their engine while others' trade, where there are several; sorted."""


class IndicativePrice(msgspec.Struct, frozen=True, gc=False, tag="indicative"):
    """What a cross of a symbol would do now, or, `final`, what it did. All 0: nothing trades."""

    symbol: Symbol
    seq: int
    """The symbol's last event that is contained."""
    at: Instant
    price: Ticks
    quantity: Lots
    surplus: int
    """What is left at the price; positive: more to buy."""
    final: bool = False
    """Whether the gathering ended with it."""


class Heartbeat(msgspec.Struct, frozen=True, gc=False, tag="heartbeat"):
    """The feed lives: how far the journal is published, and the last number of every symbol."""

    journal_seq: int
    at: Instant
    seqs: dict[Symbol, int]
    market_seq: int = 0
    """The number of the last `market`."""


FeedMessage = Snapshot | Delta | MarketStatus | IndicativePrice | Heartbeat
