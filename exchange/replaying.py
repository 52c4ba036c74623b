"""Going through a journal's commands again: one loop, compiled where the engine is.

Each step from one command to the next is a call between compiled code and itself then; a loop in a module that is not
compiled pays for taking the call's arguments apart and putting them together.
"""

from __future__ import annotations

from collections.abc import Callable

from exchange.commands import Sequenced
from exchange.engine import Engine


def apply_each(engine: Engine, payloads: list[bytes], decode: Callable[[bytes], Sequenced]) -> None:
    """Apply the commands of consecutive records; what they cause is remembered by the engine and told to nobody.

    Raises whatever `decode` raises for the record after `engine.sequence`, and `PermanentError` as `Engine.apply` does.
    """
    for payload in payloads:
        engine.apply(decode(payload))
