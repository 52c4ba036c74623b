"""Taking webhooks in: durable before the answer, many in one commit.

Alertmanager tries a webhook again after a 5xx or a broken connection and after nothing else, so whatever cannot be kept
now is answered 503, never 429 or 413: those would lose the alert for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, Final, ParamSpec, TypeVar

from incidents.ports import IncidentStore
from incidents.signals import AlertSignal
from kernel.errors import TapewatchError, TemporaryError

P = ParamSpec("P")
T = TypeVar("T")

CALM_S: Final = 0.01
"""Without a delivery for so long, the intake is calm: nobody who is being answered waits for what else is done."""
MAX_WAITING_SIGNALS: Final = 50_000
"""Beyond so many signals not yet durable, webhooks are shed with 503 and come back later."""


class StoreThread:
    """The incident store in a thread of its own: one writer, and the event loop never waits for a disk."""

    def __init__(self, store: IncidentStore) -> None:
        """Own `store`; nobody else may use it afterwards."""
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def call(self, method: Callable[Concatenate[IncidentStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `method(store, …)` in the store's thread, after everything asked before."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: method(self._store, *args, **kwargs))

    async def close(self) -> None:
        """Finish what was asked, then close the store."""
        await self.call(lambda store: store.close())
        self._thread.shutdown(wait=True)


class Intake:
    """Collects signals while a commit is under way and makes them durable together with the next one."""

    def __init__(self, store: StoreThread, on_new: Callable[[], None]) -> None:
        """Keep signals in `store`; call `on_new` after each commit that brought any."""
        self._store = store
        self._on_new = on_new
        self._waiting: list[tuple[Sequence[AlertSignal], asyncio.Future[int]]] = []
        self._waiting_signals = 0
        self._flushing: asyncio.Task[None] | None = None
        self._last_s = float("-inf")

    async def calm(self, at_most_s: float) -> None:
        """Return when the intake has been calm for a moment, or after `at_most_s` seconds.

        In a flood, keeping what arrives comes before deciding on the thousandth symptom.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + at_most_s
        while True:
            pause_s = min(until_s, self._last_s + CALM_S) - loop.time()
            if pause_s <= 0:
                return
            await asyncio.sleep(pause_s)

    async def take_in(self, signals: Sequence[AlertSignal]) -> None:
        """Return once every signal is durable.

        Raises:
            TemporaryError: they could not be kept; none of them may be taken for known.
        """
        if self._waiting_signals + len(signals) > MAX_WAITING_SIGNALS:
            raise TemporaryError(f"{self._waiting_signals} signals wait for the disk already; come back later")
        loop = asyncio.get_running_loop()
        self._last_s = loop.time()
        done: asyncio.Future[int] = loop.create_future()
        self._waiting.append((signals, done))
        self._waiting_signals += len(signals)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            together = [signal for signals, _ in batch for signal in signals]
            self._waiting_signals -= len(together)
            try:
                await self._store.call(_take_in, together)
            except TapewatchError as error:
                _fail(batch, TemporaryError(str(error)))
            except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing was kept: the sender must come back
                _fail(batch, TemporaryError(f"the store failed: {error}"))
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(0)
                self._on_new()


def _fail(batch: list[tuple[Sequence[AlertSignal], asyncio.Future[int]]], error: TemporaryError) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)


def _take_in(store: IncidentStore, signals: list[AlertSignal]) -> int:
    return store.take_in(signals)
