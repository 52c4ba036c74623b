"""Which queues there are for messages between services, what reaches each, and where letters go that nobody can use.

One topic exchange takes every message. Each queue is bound to it by patterns of routing keys, is a quorum queue (what
it confirmed lies on disk and survives the broker's death), gives a message again a bounded number of times, and hands
what comes oftener, or is refused, to the exchange of dead letters with a confirmation. Each queue `x` has its dead
letters in `x.dead`, where they stay until a person decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from exchange.saga_messages import Style, bindings
from kernel.errors import InputError

REDELIVERIES: Final = 20
"""How often a message comes again, unless a queue says otherwise: more than a minute with the pauses of a consumer."""
LONGEST: Final = 1_000_000
"""Messages in a queue; more are not taken, and their publisher is told."""
DEAD: Final = ".dead"
"""What the name of a queue of dead letters ends with."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, and what reaches it."""

    name: str
    patterns: tuple[str, ...]
    """Of routing keys: words parted by dots, `*` for one word, `#` for any number of them."""
    redeliveries: int = REDELIVERIES
    """How often a message comes again before it is a dead letter."""
    longest: int = LONGEST
    drops_oldest: bool = False
    """What becomes of a full queue: it takes no more, or it loses its oldest. The latter for what nobody must read."""

    @property
    def dead(self) -> str:
        """The name of its queue of dead letters."""
        return self.name + DEAD

    def takes(self, routing_key: str) -> bool:
        """Tell whether a message with this key reaches it."""
        words = routing_key.split(".")
        return any(_fits(pattern.split("."), words) for pattern in self.patterns)


def _fits(pattern: Sequence[str], words: Sequence[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_fits(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _fits(pattern[1:], words[1:])


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """The queues of one estate."""

    exchange: str = "tapewatch"
    """The topic exchange that every message is published to."""
    dead: str = "tapewatch.dead"
    """The direct exchange of dead letters; the key is the name of the queue that they come from."""
    queues: tuple[Queue, ...]

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        if len(set(names)) < len(names):
            raise InputError("topology", f"a queue is named twice: {sorted(names)}")
        for name in names:
            if name.endswith(DEAD):
                raise InputError(f"topology: queue {name}", f"{DEAD} is the ending of dead letters")

    def queue(self, name: str) -> Queue:
        """Return a queue by its name; one of dead letters, too: nothing is bound to it, and it never ends a message.

        Raises:
            InputError: there is none of this name; says which there are.
        """
        for queue in self.queues:
            if queue.name == name:
                return queue
            if queue.dead == name:
                return Queue(name=name, patterns=(), redeliveries=0)
        raise InputError(
            f"queue {name}", "is not known", right=f"one of {', '.join(each.name for each in self.queues)}"
        )

    def taking(self, routing_key: str) -> list[Queue]:
        """Return the queues that a message with this key reaches."""
        return [queue for queue in self.queues if queue.takes(routing_key)]


TOPOLOGY: Final = Topology(
    queues=(
        *(Queue(name=name, patterns=patterns) for style in Style for name, patterns in bindings(style).items()),
        Queue(name="notices", patterns=("notice.#",), longest=10_000, drops_oldest=True),
    )
)
"""What the distributed exchange has: settlement in both styles, and notices for people."""
