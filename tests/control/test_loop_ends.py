"""Control's turns end when they are told to, also in the very moment in which something wakes them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from control.config import ControlTuning
from control.loop import Loop, LoopParts


class Turns(Loop):
    count = 0

    async def turn(self) -> None:
        self.count += 1


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancel_that_meets_a_wake_up_is_not_lost(steps):
    wake = asyncio.Event()
    loop = Turns(cast("LoopParts", SimpleNamespace(library={}, tuning=ControlTuning())), wake)
    turning = asyncio.create_task(loop.run())
    for _ in range(5):
        await asyncio.sleep(0)
    wake.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    turning.cancel()
    done, _ = await asyncio.wait({turning}, timeout=10)
    assert done
    assert turning.cancelled()
