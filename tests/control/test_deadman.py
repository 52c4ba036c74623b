"""Silence of the monitoring: when it begins, when it ends, and that neither is ever forgotten."""

import pytest

from control.deadman import SILENT, WATCHDOG, DeadMan
from control.telemetry import ControlInstruments
from incidents.signals import Status, own_signal
from kernel.time import Instant, seconds
from tests.sim.world import METER

START = Instant(1_000_000 * seconds(1))
PATIENCE = seconds(15)


def at(offset_s: float) -> Instant:
    return Instant(START + seconds(offset_s))


@pytest.fixture
def deadman():
    return DeadMan(PATIENCE, START, ControlInstruments(METER))


def watchdog(when, status=Status.FIRING):
    ends = when if status is Status.RESOLVED else None
    labels = {"alertname": WATCHDOG}
    return own_signal(labels, {}, status=status, starts_at=START, received_at=when, ends_at=ends)


def test_a_start_has_twice_the_patience(deadman):
    assert deadman.due(at(30)) is None
    silent = deadman.due(at(30.1))
    assert silent.name == SILENT
    assert silent.status is Status.FIRING


def test_a_watchdog_now_and_then_is_no_silence(deadman):
    for second in range(0, 600, 10):
        deadman.heard([watchdog(at(second))])
        assert deadman.due(at(second + 9)) is None


def test_a_resolved_watchdog_is_no_sign_of_life(deadman):
    deadman.heard([watchdog(at(20), Status.RESOLVED)])
    assert deadman.due(at(30.1)) is not None


def test_silence_is_due_until_it_was_told(deadman):
    """A store that fails at that moment must not swallow the only alarm there is."""
    first = deadman.due(at(31))
    assert deadman.due(at(32)) is not None
    deadman.told(first)
    assert deadman.due(at(33)) is None


def test_silence_ends_with_the_same_beginning(deadman):
    silent = deadman.due(at(31))
    deadman.told(silent)
    deadman.heard([watchdog(at(60))])
    over = deadman.due(at(61))
    assert over.status is Status.RESOLVED
    assert (over.fingerprint, over.starts_at) == (silent.fingerprint, silent.starts_at)
    assert deadman.due(at(61.5)) is not None, "not told yet"
    deadman.told(over)
    assert deadman.due(at(62)) is None


def test_a_new_process_ends_the_silence_of_the_one_before_and_only_after_it_heard(deadman):
    deadman.resume(at(-40))
    assert deadman.due(at(1)) is None, "it was told already, and nothing was heard since"
    deadman.heard([watchdog(at(5))])
    over = deadman.due(at(6))
    assert over.status is Status.RESOLVED
    assert over.starts_at == at(-40)


def test_a_silence_that_was_kept_and_not_yet_decided_is_adopted(deadman):
    other = DeadMan(PATIENCE, at(-100), ControlInstruments(METER))
    kept = other.due(at(-1))
    assert not deadman.note(kept, at(0)), "it is still to be decided on"
    deadman.heard([watchdog(at(3))])
    assert deadman.due(at(4)).status is Status.RESOLVED


def test_only_watchdogs_need_no_decision(deadman):
    assert deadman.note(watchdog(at(1)), at(2))
    other = own_signal({"alertname": "X"}, {}, status=Status.FIRING, starts_at=START, received_at=START)
    assert not deadman.note(other, at(2))


def test_a_watchdog_found_long_after_it_arrived_is_no_sign_of_life(deadman):
    deadman.note(watchdog(at(20)), at(40))
    assert deadman.due(at(40)) is not None
