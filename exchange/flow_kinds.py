"""Four kinds of load: a calm market, the rush at the open, a crash, and news. Seeded: the same seed, the same requests.

Each is a mood as a function of how far the flow is (0 at its first request, 1 at its last), so that it has the same
shape with a thousand requests and with ten million.

  calm       six of ten requests are passive, three cancel, one crosses; the middle hardly moves
  open-rush  a fifth of the flow: large orders from both sides that cross, few cancels; then it calms down
  crash      calm, then sellers only: bids are withdrawn, the middle falls by most of the band and half recovers
  news       calm, then half of all quotes are withdrawn, and orders cross towards a price far away, up or down by seed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from exchange.flow import CALM, Mood, OrderFlow
from exchange.types import AccountId, Instrument
from kernel.chance import stream


class FlowKind(StrEnum):
    """What participants are about."""

    CALM = "calm"
    OPEN_RUSH = "open-rush"
    CRASH = "crash"
    NEWS = "news"


_RUSH: Final = Mood(cancel=0.15, passive=0.45, step=0.4, size=3.0)
_SETTLING: Final = Mood(cancel=0.25, passive=0.55, step=0.15, size=1.5)
_SELL_OFF: Final = Mood(cancel=0.40, passive=0.25, buy=0.15, step=0.3, aim=-0.9, pull=0.03, reach=0.95, size=2.0)
_REBOUND: Final = Mood(cancel=0.30, passive=0.50, buy=0.55, step=0.3, aim=-0.45, pull=0.01, reach=0.95, size=1.5)
_WITHDRAWN: Final = Mood(cancel=0.70, passive=0.20, step=0.2)


def mood_of(kind: FlowKind, seed: int) -> Callable[[float], Mood]:
    """Return the mood of a kind at every part (0 to 1) of the flow."""
    match kind:
        case FlowKind.CALM:
            return lambda _: CALM
        case FlowKind.OPEN_RUSH:
            return lambda part: _RUSH if part < 0.2 else _SETTLING if part < 0.4 else CALM  # noqa: PLR2004 - the shape
        case FlowKind.CRASH:
            return _crash
        case FlowKind.NEWS:
            return _news(1.0 if stream(seed, "news").random() < 0.5 else -1.0)  # noqa: PLR2004 - a fair coin


def made_flow(
    kind: FlowKind,
    seed: int,
    instruments: Sequence[Instrument],
    accounts: Sequence[AccountId],
    *,
    count: int,
    prefix: str = "f",
) -> OrderFlow:
    """Return a flow of a kind whose shape is spread over `count` requests; what comes after is like the end."""
    mood, length = mood_of(kind, seed), max(1, count)
    return OrderFlow(seed, instruments, accounts, prefix=prefix, mood=lambda made: mood(min(1.0, made / length)))


def _crash(part: float) -> Mood:
    if part < 0.3:  # noqa: PLR2004 - the shape
        return CALM
    return _SELL_OFF if part < 0.6 else _REBOUND  # noqa: PLR2004 - the shape


def _news(direction: float) -> Callable[[float], Mood]:
    buy = 0.5 + 0.4 * direction
    chase = Mood(cancel=0.15, passive=0.40, buy=buy, step=0.3, aim=0.6 * direction, pull=0.05, reach=0.7, size=2.0)
    after = CALM._replace(aim=0.6 * direction, pull=0.005, reach=0.7, step=0.1)

    def at(part: float) -> Mood:
        if part < 0.4:  # noqa: PLR2004 - the shape
            return CALM
        if part < 0.45:  # noqa: PLR2004 - the shape
            return _WITHDRAWN
        return chase if part < 0.6 else after  # noqa: PLR2004 - the shape

    return at
