"""What a gateway counts of each symbol and each engine. Where there is one engine, no series has its label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.shards import engine_labels
from exchange.types import Symbol

if TYPE_CHECKING:
    from monitor.instruments import Level, Meter


def apart(meter: Meter, name: str, engines: int) -> list[Level]:
    """Return the cells of a connection to each engine, none of which stands at first."""
    cells = [meter.level(name, label) for label in engine_labels(engines)]
    for cell in cells:
        cell.set(0)
    return cells


class SymbolAcks:
    """The answers of one symbol."""

    def __init__(self, meter: Meter, symbol: Symbol, engine: str) -> None:
        """Count into `meter`, under the label of the symbol's engine."""
        self._acks = meter.count("exchange_symbol_acks_total", symbol, engine)
        self._seconds = meter.count("exchange_symbol_ack_seconds_total", symbol, engine)
        self._slow = meter.count("exchange_symbol_slow_acks_total", symbol, engine)

    def add(self, seconds: float, *, slow: bool, times: int = 1) -> None:
        """Count so many answers that took `seconds` each."""
        self._acks.add(times)
        self._seconds.add(seconds * times)
        if slow:
            self._slow.add(times)
