"""Nothing is acknowledged before it is durable; what could not be kept comes back."""

import asyncio
import threading

import pytest

from control import intake as intake_module
from control.intake import Intake, StoreThread
from incidents.adapters.memory_store import MemoryStore
from incidents.signals import Status, own_signal
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant


def signal(n):
    labels = {"alertname": "A", "n": str(n)}
    return own_signal(labels, {}, status=Status.FIRING, starts_at=Instant(n), received_at=Instant(n))


class Gated(MemoryStore):
    """A store whose commits wait until they are let through, and fail when told to."""

    def __init__(self):
        super().__init__(b"0123456789abcdef")
        self.gate = threading.Event()
        self.gate.set()
        self.commits = 0
        self.error = None

    def take_in(self, signals):
        assert self.gate.wait(10)
        self.commits += 1
        if self.error is not None:
            raise self.error
        return super().take_in(signals)


@pytest.fixture
async def parts():
    store = Gated()
    thread = StoreThread(store)
    woken = []
    yield store, Intake(thread, lambda: woken.append(1)), woken
    store.gate.set()
    await thread.close()


async def test_what_is_acknowledged_is_kept(parts):
    store, intake, woken = parts
    await intake.take_in([signal(1), signal(2)])
    assert [one for _, one in store.pending()] == [signal(1), signal(2)]
    assert woken == [1]


async def test_nothing_is_acknowledged_while_the_commit_is_under_way(parts):
    store, intake, _ = parts
    store.gate.clear()
    waiting = asyncio.create_task(intake.take_in([signal(1)]))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    store.gate.set()
    await waiting
    assert store.backlog() == 1


async def test_many_deliveries_share_commits(parts):
    store, intake, _ = parts
    store.gate.clear()
    waiting = [asyncio.create_task(intake.take_in([signal(n)])) for n in range(500)]
    await asyncio.sleep(0.01)
    store.gate.set()
    await asyncio.gather(*waiting)
    assert store.backlog() == 500
    assert store.commits <= 3


@pytest.mark.parametrize("error", [TemporaryError("full"), PermanentError("read-only"), OSError(28, "no space")])
async def test_a_failing_commit_fails_everyone_who_waits_for_it_and_keeps_nothing(parts, error):
    store, intake, woken = parts
    store.error = error
    answers = await asyncio.gather(*(intake.take_in([signal(n)]) for n in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TemporaryError}
    assert store.backlog() == 0
    assert not woken
    store.error = None
    await intake.take_in([signal(1)])
    assert store.backlog() == 1


async def test_a_repeated_delivery_is_acknowledged_and_kept_once(parts):
    store, intake, _ = parts
    await intake.take_in([signal(1)])
    await intake.take_in([signal(1)])
    assert store.backlog() == 1


async def test_what_waits_is_bounded_and_the_rest_is_asked_to_come_back(parts, monkeypatch):
    store, intake, _ = parts
    monkeypatch.setattr(intake_module, "MAX_WAITING_SIGNALS", 10)
    store.gate.clear()
    first = asyncio.create_task(intake.take_in([signal(0)]))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(intake.take_in([signal(n) for n in range(1, 11)]))
    await asyncio.sleep(0)
    with pytest.raises(TemporaryError, match="come back later"):
        await intake.take_in([signal(99)])
    store.gate.set()
    await asyncio.gather(first, waiting)
    assert store.backlog() == 11
    await intake.take_in([signal(99)])


async def test_a_sender_that_goes_away_takes_nobody_with_it(parts):
    store, intake, _ = parts
    store.gate.clear()
    gone, stays = (asyncio.create_task(intake.take_in([signal(n)])) for n in (1, 2))
    await asyncio.sleep(0.01)
    gone.cancel()
    store.gate.set()
    await stays
    assert store.backlog() == 2


async def test_a_calm_intake_holds_nobody_up_and_a_flood_only_so_long(parts, monkeypatch):
    _, intake, _ = parts
    loop = asyncio.get_running_loop()
    began = loop.time()
    await intake.calm(5.0)
    assert loop.time() - began < 4.0, "nothing was ever delivered"
    monkeypatch.setattr(intake_module, "CALM_S", 600.0)  # however slow this machine is, the next one comes before that
    await intake.take_in([signal(1)])
    began = loop.time()
    await intake.calm(0.1)
    assert 0.09 <= loop.time() - began < 60.0, "a flood has its time, and no more"
