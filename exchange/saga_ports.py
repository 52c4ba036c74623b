"""What settlement by sagas asks of the world around it: somebody to tell of its steps and its ends.

As every port (`exchange.ports`): implementations neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from exchange.saga import End, Verdict


class SagaTelemetry(Protocol):
    """What a part of settlement by sagas tells. Ages and lengths of time in seconds."""

    def carried_out(self, verdicts: Mapping[Verdict, int], *, repeats: int, seconds: float) -> None:
        """A service committed a batch: new answers by verdict, and how many were given from memory."""
        ...

    def begun(self, count: int) -> None:
        """So many sagas were begun."""
        ...

    def stepped(self, seconds: float) -> None:
        """A step was answered so long after it was asked first."""
        ...

    def ended(self, end: End, *, seconds: float, since_trade: float) -> None:
        """A saga ended, so long after its beginning and after its trade."""
        ...

    def standing(self, open_: int, *, oldest: float, stuck: Mapping[tuple[str, str], int]) -> None:
        """So many sagas are open, the oldest so old; those that are stuck by the service waited for and the reason."""
        ...

    def forgot(self, count: int) -> None:
        """So many ended sagas were forgotten."""
        ...

    def drift(self, value: int) -> None:
        """The sum of a book over all assets, absolute."""
        ...

    def read(self, seq: int) -> None:
        """Trades were read up to this number of the journal."""
        ...

    def connected(self, *, source: bool) -> None:
        """Where trades come from stands, or broke."""
        ...
