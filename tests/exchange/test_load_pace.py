"""A load's rate is the one that was set times how busy the moment is."""

from __future__ import annotations

import asyncio

import pytest

from exchange.adapters.load_client import LoadClient, LoadParts
from exchange.recording import RecordingLog
from exchange.types import Instrument, Symbol, Ticks
from kernel.adapters.clock import SystemClock


class Unheard:
    def answered(self, outcome: object, seconds: float, notional: int = 0) -> None:
        pass


def client(tmp_path, pace):
    return LoadClient(
        LoadParts(
            directory=tmp_path, journal=tmp_path, gateways=lambda: (), trade_secret="", seed=1, rate_per_s=40.0,
            instruments=(Instrument(Symbol("AAA"), Ticks(1_000), Ticks(200)),), telemetry=Unheard(),
            log=RecordingLog(), clock=SystemClock(), pace=pace,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("pace", "rate"), [(0.25, 10.0), (2.5, 100.0), (0.0, 0.0), (1.0, 40.0), (1.02, 40.0)])
async def test_the_rate_follows_the_pace_unless_nobody_would_notice(tmp_path, pace, rate):
    load = client(tmp_path, lambda _: pace)
    following = asyncio.create_task(load._follow_pace())
    await asyncio.sleep(0)
    assert load.rate == pytest.approx(rate)
    load.set_rate(80.0)
    assert load.rate == pytest.approx(2 * rate), "a surge is a multiple of the phase's rate"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
