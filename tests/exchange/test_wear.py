"""Faults that grow: what leaks is really kept and really given back; a delay creeps up and ends at its bound."""

from __future__ import annotations

import psutil
import pytest

from exchange.adapters.http import Faults
from exchange.adapters.wear import CREEP, CREEP_S_MAX, LEAK, LEAK_BYTES_MAX, Creep, Leak

MIB = 2**20


def faults(**active: float) -> Faults:
    made = Faults(frozenset({LEAK, CREEP}), allowed=True)
    made._active = {name.replace("_", "-"): value for name, value in active.items()}
    return made


def test_a_leak_grows_the_resident_memory_as_told_and_gives_it_back_when_cleared():
    resident = psutil.Process().memory_info
    suffers = faults(memory_leak=600.0)
    leak, before = Leak(suffers), resident().rss
    for _ in range(16):
        leak.grow(0.25)
    assert leak.bytes == pytest.approx(40 * MIB, rel=0.01)
    assert resident().rss - before == pytest.approx(40 * MIB, abs=8 * MIB)
    suffers._active = {}
    leak.grow(0.25)
    assert leak.bytes == 0
    assert resident().rss - before < 8 * MIB


def test_a_slow_leak_loses_nothing_to_rounding():
    leak = Leak(faults(memory_leak=0.5))
    for _ in range(240):
        leak.grow(0.25)
    assert leak.bytes == pytest.approx(0.5 * MIB, abs=8192)


def test_a_leak_ends_at_its_bound():
    leak = Leak(faults(memory_leak=10_000.0))
    leak.grow(1e6)
    leak.grow(1e6)
    assert leak.bytes == LEAK_BYTES_MAX
    leak._give_back()


def test_nothing_leaks_and_nothing_creeps_without_the_fault():
    leak, creep = Leak(faults()), Creep(faults())
    leak.grow(60.0)
    assert (leak.bytes, creep()) == (0, 0.0)


def test_a_delay_creeps_from_nothing_to_its_bound_and_begins_anew_after_it_was_cleared():
    now = [100.0]
    suffers = faults(engine_sync_creep=2.0)
    creep = Creep(suffers, lambda: now[0])
    seen = []
    for _ in range(4):
        seen.append(creep())
        now[0] += 10.0
    assert seen == pytest.approx([0.0, 0.02, 0.04, 0.06])
    now[0] += 1e6
    assert creep() == CREEP_S_MAX
    suffers._active = {}
    assert creep() == 0.0
    suffers._active = {CREEP: 2.0}
    assert creep() == 0.0
