"""Order flow for load: what participants send, and when. Seeded: the same seed and answers give the same flow.

The mix is that of a calm market: six of ten requests are passive orders, three are cancels (some of them replaces), one
meets the other side. A `Mood` for every request makes it another market (`exchange.flow_kinds`). Arrivals are open
loop: a schedule of intended times that does not wait for answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from exchange.commands import CancelOrder, Limit, Market, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.events import Accepted, Canceled, Event, Expired, Replaced, Rested, Traded
from exchange.types import AccountId, ClientId, Instrument, Lots, OrderId, Side, Symbol, Ticks, TimeInForce
from kernel.chance import stream
from kernel.time import SECOND, Duration

PASSIVE: Final = 0.60
CANCEL: Final = 0.30
REPLACE_OF_CANCELS: Final = 0.20
MARKET_OF_CROSSING: Final = 0.15
IOC_OF_CROSSING: Final = 0.35
MAX_LIVE: Final = 20_000
"""How many own live orders the flow keeps in mind; older ones are forgotten."""


class Mood(NamedTuple):
    """How participants behave at one moment. Shares are of all requests; what is neither is crossing."""

    cancel: float = CANCEL
    passive: float = PASSIVE
    buy: float = 0.5
    """How much of the new orders buys."""
    step: float = 0.05
    """How far the middle moves with an order, in ticks (one standard deviation)."""
    aim: float = 0.0
    """Where the middle is drawn to, as a part of the band above (or below) the last close."""
    pull: float = 0.0005
    """How much of the way there with each order."""
    reach: float = 0.5
    """How far from the last close the middle can get, as a part of the band."""
    size: float = 1.0
    """A factor on quantities."""


CALM: Final = Mood()


class _Live(NamedTuple):
    account: AccountId
    symbol: Symbol
    side: Side
    price: Ticks


class OrderFlow:
    """What the participants send next. Tell it the answers (`observe`), or it has nothing to cancel."""

    def __init__(
        self,
        seed: int,
        instruments: Sequence[Instrument],
        accounts: Sequence[AccountId],
        *,
        prefix: str = "f",
        mood: Callable[[int], Mood] = lambda _: CALM,
    ) -> None:
        """Make a flow. Its client ids are `prefix`, a dash and a number; flows at one exchange need different ones.

        `mood` tells how the participants behave at a request, given how many went before.
        """
        assert instruments, "a flow needs an instrument"
        assert accounts, "a flow needs an account"
        self._rng = stream(seed, "order-flow")
        self._instruments = {instrument.symbol: instrument for instrument in instruments}
        self._symbols = tuple(self._instruments)
        self._accounts = tuple(accounts)
        self._prefix = prefix
        self._moods = mood
        self._mood = CALM
        self._made = 0
        self._middle = {symbol: float(instrument.reference) for symbol, instrument in self._instruments.items()}
        self._live: list[OrderId] = []
        self._facts: dict[OrderId, _Live] = {}

    @property
    def live(self) -> int:
        """How many orders the flow believes to rest."""
        return len(self._facts)

    def __iter__(self) -> Iterator[ParticipantCommand]:
        return self

    def __next__(self) -> ParticipantCommand:
        """Return the next request; the flow never ends."""
        self._mood = mood = self._moods(self._made)
        choice = self._rng.random()
        if choice < mood.cancel:
            command = self._change()
            if command is not None:
                return command
        return self._crossing() if choice >= mood.cancel + mood.passive else self._passive()

    def placed(self, account: AccountId, client_id: ClientId, order_id: OrderId) -> None:
        """Learn under which number an order was accepted. This flow names orders by their number only."""

    def observe(self, events: Sequence[Event]) -> None:
        """Take in what the exchange answered to one request."""
        account: AccountId | None = None
        for event in events:
            match event:
                case Accepted():
                    account = event.account
                case Replaced():
                    account = event.account
                    if event.kept_priority:
                        continue
                    # Out of the book until a `Rested` says otherwise: all of it may trade now.
                    self.gone(event.order_id)
                case Rested() if account is not None:
                    self.rested(event.order_id, account, event.symbol, event.side, event.price)
                case Traded() if not event.maker_left:
                    self.gone(event.maker_order_id)
                case Canceled() | Expired():
                    self.gone(event.order_id)
                case _:
                    pass

    def rested(self, order_id: OrderId, account: AccountId, symbol: Symbol, side: Side, price: Ticks) -> None:
        """Learn that an order rests."""
        if order_id not in self._facts:
            self._live.append(order_id)
        self._facts[order_id] = _Live(account, symbol, side, price)
        if len(self._facts) > MAX_LIVE:
            self.gone(self._live[self._rng.randrange(len(self._live))])

    def gone(self, order_id: OrderId) -> None:
        """Learn that an order rests no longer."""
        self._facts.pop(order_id, None)

    def _pick(self) -> OrderId | None:
        """Return a live order by chance. Those gone are dropped from the list when they are met."""
        live = self._live
        while live:
            index = self._rng.randrange(len(live))
            live[index], live[-1] = live[-1], live[index]
            if live[-1] in self._facts:
                return live[-1]
            live.pop()
        return None

    def _change(self) -> ParticipantCommand | None:
        order_id = self._pick()
        if order_id is None:
            return None
        facts = self._facts[order_id]
        if self._rng.random() < REPLACE_OF_CANCELS:
            quantity, price = self._quantity(), facts.price
            if self._rng.random() < 0.5:  # noqa: PLR2004 - every other replace moves the price
                price = self._clamp(facts.symbol, facts.price + self._rng.choice((-2, -1, 1, 2)))
            return ReplaceOrder(facts.account, self._id(), order_id, quantity, price)
        self.gone(order_id)
        return CancelOrder(facts.account, self._id(), order_id)

    def _passive(self) -> PlaceOrder:
        symbol, side = self._symbol(), self._side()
        away = 1 + min(int(self._rng.expovariate(0.25)), 40)
        middle = self._walk(symbol)
        price = self._clamp(symbol, math.floor(middle) - away if side is Side.BUY else math.ceil(middle) + away)
        return PlaceOrder(self._account(), self._id(), symbol, side, self._quantity(), Limit(price))

    def _crossing(self) -> PlaceOrder:
        symbol, side = self._symbol(), self._side()
        middle = self._walk(symbol)
        account, client_id, quantity = self._account(), self._id(), Lots(self._quantity() * 2)
        kind = self._rng.random()
        if kind < MARKET_OF_CROSSING:
            return PlaceOrder(account, client_id, symbol, side, quantity, Market(), TimeInForce.IOC)
        through = 3 + self._rng.randrange(6)
        price = self._clamp(symbol, math.ceil(middle) + through if side is Side.BUY else math.floor(middle) - through)
        lasts = TimeInForce.IOC if kind < MARKET_OF_CROSSING + IOC_OF_CROSSING else TimeInForce.DAY
        return PlaceOrder(account, client_id, symbol, side, quantity, Limit(price), lasts)

    def _walk(self, symbol: Symbol) -> float:
        """Move a symbol's middle by a small step, drawn back to the last close."""
        instrument, mood = self._instruments[symbol], self._mood
        middle = self._middle[symbol]
        aim = instrument.reference + instrument.band * mood.aim
        middle += self._rng.gauss(0.0, mood.step) + (aim - middle) * mood.pull
        reach = instrument.band * mood.reach
        self._middle[symbol] = middle = min(max(middle, instrument.reference - reach), instrument.reference + reach)
        return middle

    def _clamp(self, symbol: Symbol, price: int) -> Ticks:
        instrument = self._instruments[symbol]
        lowest = max(1, instrument.reference - instrument.band)
        return Ticks(min(max(price, lowest), instrument.reference + instrument.band))

    def _symbol(self) -> Symbol:
        return self._symbols[self._rng.randrange(len(self._symbols))]

    def _side(self) -> Side:
        return Side.BUY if self._rng.random() < self._mood.buy else Side.SELL

    def _account(self) -> AccountId:
        return self._accounts[self._rng.randrange(len(self._accounts))]

    def _quantity(self) -> Lots:
        return Lots(1 + min(int(self._rng.expovariate(0.05) * self._mood.size), 500))

    def _id(self) -> ClientId:
        self._made += 1
        return ClientId(f"{self._prefix}-{self._made}")


@dataclass(frozen=True)
class DayShape:
    """How busy the day is: a U, busy at the open and the close. The mean over a day is 1."""

    day: Duration
    depth: float = 1.5
    """0: flat. 1.5: half the mean at noon, twice the mean at the ends."""

    def __post_init__(self) -> None:
        assert self.day > 0, "a day lasts some time"
        assert 0.0 <= self.depth < 3.0, "more than 3 would need a negative rate at noon"  # noqa: PLR2004 - 3 is 1 / mean

    def at(self, offset: int) -> float:
        """Return the factor on the mean rate, `offset` nanoseconds after the first open; days follow each other."""
        place = 2.0 * ((offset % self.day) / self.day) - 1.0
        return 1.0 + self.depth * (place * place - 1.0 / 3.0)

    @property
    def highest(self) -> float:
        """The factor at the open."""
        return 1.0 + self.depth * 2.0 / 3.0


def arrivals(rate: float, shape: DayShape, seed: int) -> Iterator[Duration]:
    """Yield intended send times as offsets from the start, without end: Poisson, `rate` a second on average.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate > 0.0 or math.isinf(rate):
        raise ValueError(f"a rate of {rate} requests a second gives no arrivals; it must be positive")
    rng = stream(seed, "arrivals")
    highest = rate * shape.highest
    now = 0.0
    # Thinning: draw at the highest rate, keep each in proportion to the rate of its moment.
    while True:
        now += rng.expovariate(highest) * SECOND
        if rng.random() * shape.highest <= shape.at(int(now)):
            yield Duration(int(now))
