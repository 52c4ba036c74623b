"""Keeping the processes of a local estate: start by readiness, probe, restart, scale, and never act twice for one key.

Rule 1: a replica has a fixed identity and port; what changes is the process behind it.
Rule 2: a workload owned by runbooks is never started again by us when it dies: the alert and the runbook do that, and
        prove that it helped. A workload owned by the estate (the platform itself) is mended here, with back-off.
Rule 3: every write is journalled by its key before and after (`control.effects`), under a lock of its workload.
Rule 4: the kill switch is read after the last wait before an effect, so that nothing starts once it is durable.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from control import killswitch
from control.addresses import url_of
from control.child import Child, Slot, now, probe
from control.effects import Begin, EffectLog
from control.leave import Balance, Leaves
from kernel.errors import InputError, PermanentError, TapewatchError
from runbooks.model import RefusalReason
from runbooks.ports import Effect, RefusedError, Replica, WorkloadStatus

PERSON: Final = "person"
"""`by` of a write that a person asked for: the kill switch and the allow-list are for automatic ones."""
RUNBOOK: Final = "runbook"
ESTATE: Final = "estate"

POLL_STARTING_S: Final = 0.1
POLL_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 0.9
LIVENESS_S: Final = 3.0
"""Platform processes that answer nothing for so long are killed and started anew."""
BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Delay before the n-th start within `CRASH_WINDOW_S`."""
CRASH_WINDOW_S: Final = 60.0
FAULT_SIGNALS: Final = {"STOP": signal.SIGSTOP, "CONT": signal.SIGCONT, "KILL": signal.SIGKILL, "TERM": signal.SIGTERM}


class Turnover(Protocol):
    """How one of a pair takes over from the other. Every method blocks; repeated, it goes on where it was cut short."""

    def check(self, old: str, key: str = "") -> Mapping[str, str]:
        """Return the facts before a turn away from `old`; raises `RefusedError` when there may be none."""
        ...

    def depose(self, old: str, key: str) -> Mapping[str, str]:
        """Make sure, durably, that `old` never takes a write again; raises `RefusedError`, with nothing touched."""
        ...

    def complete(self, old: str) -> Mapping[str, str]:
        """End what is left of `old` and return once the other one serves; the facts after."""
        ...


@dataclass(frozen=True)
class WorkloadSpec:
    """What a workload consists of. The first `replicas` of `slots` run at the start."""

    name: str
    slots: tuple[Slot, ...]
    replicas: int
    owned_by: str = RUNBOOK
    singleton: bool = False
    ready_path: str = "/health/ready"
    grace_s: float = 2.0
    start_timeout_s: float = 20.0
    drain_s: float = 0.0
    """How long a replica goes on after it was taken out of the address books, before it is stopped."""
    patience_s: float = LIVENESS_S
    """A platform process that has been ready and answers nothing for so long is killed and started anew."""
    balance: Balance | None = None
    """What sends requests to the replicas, and is told before one is replaced that serves; None: nobody is told."""
    turnover: Turnover | None = None
    """Of a pair of which one replica serves; None: there is nothing to fail over."""


class _Unit:
    """A workload's present condition."""

    def __init__(self, spec: WorkloadSpec, generation: int, on_exit: Callable[[Child, int], None]) -> None:
        self.spec = spec
        self.generation = generation
        self.desired = 0
        self.children = [Child(slot, on_exit) for slot in spec.slots]
        self.lock = asyncio.Lock()
        self.held = False
        self.starting = False
        self.crashes_s: deque[float] = deque(maxlen=len(BACK_OFF_S))

    @property
    def active(self) -> list[Child]:
        """The replicas that should run now."""
        return self.children[: self.desired]

    def child(self, replica: str) -> Child:
        """Return a replica that should run now."""
        for child in self.active:
            if child.slot.id == replica:
                return child
        known = ", ".join(child.slot.id for child in self.active) or "none"
        raise RefusedError(
            RefusalReason.NO_TARGET, f"workload {self.spec.name} has no replica {replica!r}; it has {known}"
        )


class Supervisor:
    """The processes of one estate."""

    def __init__(
        self,
        specs: Sequence[WorkloadSpec],
        effects: EffectLog,
        *,
        kill_switch: Path,
        allowed: frozenset[str],
        log: Callable[..., None],
        on_change: Callable[[], None],
    ) -> None:
        """Lay everything out; nothing is started yet.

        Args:
            specs: the workloads, in the order in which they are listed.
            effects: the journal of writes.
            kill_switch: the file that forbids automatic writes.
            allowed: workloads that automatic writes may touch.
            log: called with a level, a sentence and fields.
            on_change: called whenever the set of replicas or a process id has changed.
        """
        self._effects = effects
        self._kill_switch = kill_switch
        self._allowed = allowed
        self._log = log
        self._on_change = on_change
        self._ending = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owners: dict[str, _Unit] = {}
        self.starts: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.mends: Counter[str] = Counter()
        self._leaves = Leaves(log)
        self._units: dict[str, _Unit] = {}
        for spec in specs:
            unit = _Unit(spec, effects.generation(spec.name), self._exited)
            self._units[spec.name] = unit
            self._owners.update({slot.id: unit for slot in spec.slots})

    # --- seeing ---------------------------------------------------------------------------------------------------

    def all(self) -> list[WorkloadStatus]:
        """Return every workload."""
        return [self.status(name) for name in self._units]

    def status(self, workload: str) -> WorkloadStatus:
        """Return one workload.

        Raises:
            PermanentError: there is none of that name.
        """
        unit = self._unit(workload)
        replicas = tuple(
            Replica(
                child.slot.id,
                child.pid,
                child.uid,
                child.running,
                child.ready,
                url_of(child.slot.port),
                child.started_at,
                child.slot.revision,
            )
            for child in unit.active
        )
        spec = unit.spec
        return WorkloadStatus(spec.name, unit.desired, replicas, unit.generation, spec.singleton, spec.owned_by, now())

    def slots(self, workload: str) -> list[Slot]:
        """Return the slots of a workload that should run now."""
        return [child.slot for child in self._unit(workload).active]

    def is_away(self, replica: str) -> bool:
        """Tell whether a replica is being replaced on purpose, and nobody should take that for its death."""
        return replica in self._leaves

    def last_words(self, workload: str) -> dict[str, str]:
        """Return the last line that each replica of a workload wrote."""
        return {child.slot.id: child.last_words() for child in self._unit(workload).active}

    def effect(self, key: str) -> Effect | None:
        """Return what was done for a key."""
        return self._effects.find(key)

    # --- the life of the estate -----------------------------------------------------------------------------------

    async def start(self, workload: str) -> None:
        """Start a workload and return when every replica is ready.

        Raises:
            PermanentError: a replica ended, or did not become ready in time; says what it last wrote.
        """
        unit = self._unit(workload)
        unit.desired = unit.spec.replicas
        unit.starting = True
        try:
            await asyncio.gather(*(self._start_and_wait(unit, child) for child in unit.active))
        finally:
            unit.starting = False

    async def _start_and_wait(self, unit: _Unit, child: Child) -> None:
        self._launch(unit, child)
        deadline_s = time.monotonic() + unit.spec.start_timeout_s
        while not child.ready:
            if not child.running:
                raise PermanentError(
                    f"{child.slot.id} ended with code {child.exit_code} before it was ready: {child.last_words()}"
                )
            if time.monotonic() > deadline_s:
                raise PermanentError(
                    f"{child.slot.id} was not ready within {unit.spec.start_timeout_s:g} s; "
                    f"its last words: {child.last_words()}"
                )
            await asyncio.sleep(0.05)

    async def stop(self, workload: str, *, at_once: bool = False) -> None:
        """End a workload's processes, all at the same time."""
        unit = self._unit(workload)
        grace_s = 0.0 if at_once else unit.spec.grace_s
        await asyncio.gather(*(child.stop(grace_s) for child in unit.children))

    async def retire(self, workload: str) -> None:
        """End a workload's processes for good: it should have none from now on."""
        unit = self._unit(workload)
        unit.desired = 0
        self._on_change()
        await self.stop(workload)

    def end(self) -> None:
        """Mend nothing from now on: the estate is being stopped."""
        self._ending = True

    async def close(self) -> None:
        """End every process and every task that is still there."""
        self.end()
        await asyncio.gather(*(self.stop(name, at_once=True) for name in self._units))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- writes ---------------------------------------------------------------------------------------------------

    async def restart(
        self, workload: str, replica: str, *, key: str, generation: int | None = None, by: str = ""
    ) -> Effect:
        """End one replica and start it anew on its port; returns once the new process runs.

        Raises:
            RefusedError: a rail forbids it; nothing was touched.
            PermanentError: no such workload or replica, or the new process could not be started.
        """
        unit = self._unit(workload)
        request = f"restart {workload} {replica}"
        async with unit.lock:
            if (before := self._repeated(key, request)) is not None:
                return before
            child = unit.child(replica)
            self._check(unit, generation, by)
            facts = {"replica": replica, "pid": str(child.pid or "none"), "uid": child.uid}
            self._begin(unit, key, request, by, facts)
            await self._start_anew(unit, child, child.slot, key, by)
            self._log("info", f"{replica} restarted for {by or 'a runbook'}", replica=replica, key=key, pid=child.pid)
            after = {"replica": replica, "pid": str(child.pid or ""), "uid": child.uid}
            return self._effects.done(key, after, now())

    async def deploy(self, workload: str, slot: Slot, *, key: str, by: str = "") -> Effect:
        """Give one replica a revision of its own, `slot`, until it is rolled back; the others keep theirs.

        Raises:
            RefusedError: a rail forbids it, or another canary of this workload is out; nothing was touched.
            PermanentError: no such workload or replica, or the new process could not be started.
        """
        unit = self._unit(workload)
        request = f"deploy {slot.revision} to {slot.id} of {workload}"
        async with unit.lock:
            if (before := self._repeated(key, request)) is not None:
                return before
            child = unit.child(slot.id)
            if out := [one.slot.id for one in unit.children if one.slot.revision]:
                words = f"{', '.join(out)} is a canary already; roll it back first"
                raise RefusedError(RefusalReason.CONFLICT, words)
            self._check(unit, None, by)
            self._begin(unit, key, request, by, {"replica": slot.id, "uid": child.uid, "revision": ""})
            return await self._revise(unit, child, slot, key, by)

    async def roll_back(self, workload: str, *, key: str, generation: int | None = None, by: str = "") -> Effect:
        """Give a workload's canary the revision of the replicas beside it; returns once its new process runs.

        Raises:
            RefusedError: there is no canary, or a rail forbids it; nothing was touched.
            PermanentError: no such workload, or the process could not be started.
        """
        unit = self._unit(workload)
        request = f"roll back {workload}"
        async with unit.lock:
            if (before := self._repeated(key, request)) is not None:
                return before
            child = next((one for one in unit.active if one.slot.revision), None)
            if child is None:
                words = f"every replica of {workload} runs the same revision: there is no canary to roll back"
                raise RefusedError(RefusalReason.NO_TARGET, words)
            self._check(unit, generation, by)
            facts = {"replica": child.slot.id, "uid": child.uid, "revision": child.slot.revision}
            self._begin(unit, key, request, by, facts)
            return await self._revise(unit, child, child.usual, key, by)

    async def _revise(self, unit: _Unit, child: Child, slot: Slot, key: str, by: str) -> Effect:
        """Start a replica anew with what `slot` says."""
        await self._start_anew(unit, child, slot, key, by)
        told = slot.revision or f"the revision of {unit.spec.name}"
        self._log("info", f"{slot.id} runs {told}", replica=slot.id, key=key, pid=child.pid)
        return self._effects.done(key, {"replica": slot.id, "uid": child.uid, "revision": slot.revision}, now())

    async def _start_anew(self, unit: _Unit, child: Child, slot: Slot, key: str, by: str) -> None:
        """End a replica and start it with what `slot` says; the effect is dropped when it cannot be started.

        One that serves beside others is taken out of the balance first, and put in again once it is ready. That takes
        seconds: the switch may be thrown meanwhile, or the estate stopped, and then it is left as it is.
        """
        spec = unit.spec
        balance = spec.balance if any(one.ready for one in unit.active if one is not child) else None
        serves = child.ready and not spec.singleton
        leave = await self._leaves.begin(slot.id, balance) if serves else None
        try:
            if leave is not None:
                self._check_still(by)
            child.slot = slot
            await child.stop(spec.grace_s)
            self._launch(unit, child)
        except PermanentError as error:
            self._effects.drop(key, str(error), now())
            raise
        finally:
            if leave is not None:
                self._spawn(self._leaves.end(leave, child, spec.start_timeout_s), f"return of {slot.id}")

    async def may_fail_over(self, workload: str, replica: str, key: str = "") -> Mapping[str, str]:
        """Return the facts before a fail-over; nothing is touched.

        Raises:
            RefusedError: there is no pair, or it could lose something.
        """
        turnover = self._turnover(self._unit(workload))
        return await asyncio.to_thread(turnover.check, replica, key)

    async def fail_over(
        self, workload: str, replica: str, *, key: str, generation: int | None = None, by: str = ""
    ) -> Effect:
        """Let the other of a pair take over from `replica`, which is ended; returns once the other one serves.

        Raises:
            RefusedError: a rail forbids it, or it could lose something; nothing was touched.
            PermanentError: it was begun and is not at its end; asked again with the same key, it goes on.
        """
        unit = self._unit(workload)
        request = f"fail {workload} over from {replica}"
        async with unit.lock:
            if (before := self._repeated(key, request)) is not None:
                return before
            turnover, child = self._turnover(unit), unit.child(replica)
            facts = dict(await asyncio.to_thread(turnover.check, replica, key))
            self._check(unit, generation, by)
            self._begin(unit, key, request, by, {"replica": replica, **facts})
            try:
                await asyncio.to_thread(turnover.depose, replica, key)
                await child.stop(0.0)
                self._on_change()
                after = dict(await asyncio.to_thread(turnover.complete, replica))
            except TapewatchError as error:
                self._effects.drop(key, str(error), now())
                raise
            self._log("warn", f"{workload} failed over from {replica} for {by or 'a runbook'}", key=key, **after)
            return self._effects.done(key, after, now())

    async def scale(
        self, workload: str, replicas: int, *, key: str, generation: int | None = None, by: str = ""
    ) -> Effect:
        """Set how many replicas run: new ones take the next slots, the newest go first.

        Raises:
            RefusedError: a singleton, out of bounds, or a rail forbids it; nothing was touched.
            PermanentError: no such workload, or a new process could not be started.
        """
        unit = self._unit(workload)
        request = f"scale {workload} to {replicas}"
        async with unit.lock:
            if (before := self._repeated(key, request)) is not None:
                return before
            if unit.spec.singleton:
                raise RefusedError(RefusalReason.SINGLETON, f"{workload} is a single writer and is never scaled")
            if not 1 <= replicas <= len(unit.children):
                raise RefusedError(
                    RefusalReason.NOT_ALLOWED, f"{workload} may have 1 to {len(unit.children)} replicas, not {replicas}"
                )
            self._check(unit, generation, by)
            was = unit.desired
            self._begin(unit, key, request, by, {"workload": workload, "replicas": str(was)})
            try:
                await self._resize(unit, replicas)
            except PermanentError as error:
                self._effects.drop(key, str(error), now())
                raise
            self._log("info", f"{workload} scaled from {was} to {replicas} for {by or 'a runbook'}", key=key)
            return self._effects.done(key, {"replicas": str(replicas)}, now())

    async def _resize(self, unit: _Unit, replicas: int) -> None:
        was, unit.desired = unit.desired, replicas
        leaving = unit.children[replicas:was]
        self._on_change()  # nobody is sent to a replica that is about to leave
        try:
            for child in unit.children[was:replicas]:
                self._launch(unit, child)
        except PermanentError:
            unit.desired = was
            await asyncio.gather(*(child.stop(unit.spec.grace_s) for child in unit.children[was:replicas]))
            self._on_change()
            raise
        if leaving and unit.spec.drain_s:
            await asyncio.sleep(unit.spec.drain_s)
        for child in reversed(leaving):
            await child.stop(unit.spec.grace_s)

    def signal(self, replica: str, name: str) -> None:
        """Send a signal to a replica, as a fault would.

        Raises:
            InputError: the signal is not one of those.
            PermanentError: no such replica, or it does not run.
        """
        number = FAULT_SIGNALS.get(name.upper().removeprefix("SIG"))
        if number is None:
            raise InputError("signal", f"{name!r} is not known", right=f"allowed are {', '.join(FAULT_SIGNALS)}")
        unit = self._owners.get(replica)
        if unit is None:
            raise PermanentError(f"there is no replica {replica!r}")
        if not unit.child(replica).signal(number):
            raise PermanentError(f"{replica} does not run, so it cannot be signalled")
        self._log("warn", f"{replica} was sent SIG{name.upper().removeprefix('SIG')}", replica=replica)

    async def hold(self, workload: str, *, hold: bool) -> None:
        """Keep a platform workload down (`hold`), or let it come up again."""
        unit = self._unit(workload)
        unit.held = hold
        self._log("warn", f"{workload} is {'held down' if hold else 'released'}", workload=workload)
        async with unit.lock:
            for child in unit.active:
                if hold:
                    child.signal(signal.SIGKILL)
                elif not child.running:
                    self._launch(unit, child)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _unit(self, workload: str) -> _Unit:
        unit = self._units.get(workload)
        if unit is None:
            known = ", ".join(self._units)
            raise RefusedError(RefusalReason.NO_TARGET, f"there is no workload {workload!r}; there are {known}")
        return unit

    @staticmethod
    def _turnover(unit: _Unit) -> Turnover:
        if unit.spec.turnover is None:
            words = f"{unit.spec.name} is no pair of which one could take over from the other"
            raise RefusedError(RefusalReason.NOT_ALLOWED, words)
        return unit.spec.turnover

    def _repeated(self, key: str, request: str) -> Effect | None:
        self._effects.check(key, request)
        return self._effects.find(key)

    def _check(self, unit: _Unit, generation: int | None, by: str) -> None:
        name = unit.spec.name
        self._check_ending()
        if unit.held:
            raise RefusedError(RefusalReason.CONFLICT, f"{name} is held down; release it first")
        if by != PERSON and name not in self._allowed:
            raise RefusedError(
                RefusalReason.NOT_ALLOWED,
                f"{name} is not among the allowed targets ({', '.join(sorted(self._allowed)) or 'none'})",
            )
        if generation is not None and generation != unit.generation:
            raise RefusedError(
                RefusalReason.CONFLICT, f"{name} is at generation {unit.generation}, the plan was made on {generation}"
            )
        self._check_switch(by)

    def _check_still(self, by: str) -> None:
        """Refuse what was allowed before it had to wait, when it no longer is."""
        self._check_ending()
        self._check_switch(by)

    def _check_ending(self) -> None:
        if self._ending:
            raise RefusedError(RefusalReason.NOT_ALLOWED, "the estate is being stopped")

    def _check_switch(self, by: str) -> None:
        if by == PERSON:
            return
        thrown = killswitch.read(self._kill_switch)
        if thrown is not None:
            raise RefusedError(RefusalReason.KILL_SWITCH, f"the kill switch is {thrown}")

    def _begin(self, unit: _Unit, key: str, request: str, by: str, before: dict[str, str]) -> None:
        self._effects.begin(Begin(key, unit.spec.name, request, by, now(), before))
        try:
            self._check_switch(by)  # once more: the disk may have taken its time
        except RefusedError as error:
            self._effects.drop(key, str(error), now())
            raise
        unit.generation = self._effects.generation(unit.spec.name)

    def _launch(self, unit: _Unit, child: Child) -> None:
        child.start()
        self.starts[unit.spec.name] += 1
        self._spawn(self._watch(unit, child, child.uid), f"probe of {child.slot.id}")
        self._on_change()

    async def _watch(self, unit: _Unit, child: Child, uid: str) -> None:
        """Probe one process until it ends; kill a platform process that answers nothing."""
        while not self._replaced(child, uid):
            code = await probe(child.slot.port, unit.spec.ready_path, timeout_s=PROBE_TIMEOUT_S)
            if self._replaced(child, uid):
                return
            child.ready = code == 200  # noqa: PLR2004 - HTTP's own number
            child.was_ready |= child.ready
            if code is not None:
                child.answered_s = time.monotonic()
            patience_s = unit.spec.patience_s if child.was_ready else unit.spec.start_timeout_s
            if unit.spec.owned_by == ESTATE and time.monotonic() - child.answered_s > patience_s:
                self._log(
                    "error",
                    f"{child.slot.id} has not answered for {patience_s:g} s and is killed",
                    replica=child.slot.id,
                )
                child.signal(signal.SIGKILL)
                return
            await asyncio.sleep(POLL_S if child.was_ready else POLL_STARTING_S)

    @staticmethod
    def _replaced(child: Child, uid: str) -> bool:
        return not child.running or child.uid != uid or child.stopping

    def _exited(self, child: Child, code: int) -> None:
        unit = self._owners[child.slot.id]
        if child.stopping or self._ending:
            return
        self.exits[unit.spec.name] += 1
        self._log(
            "error", f"{child.slot.id} ended with code {code}: {child.last_words()}", replica=child.slot.id, code=code
        )
        self._on_change()
        if unit.spec.owned_by == ESTATE and not unit.held and not unit.starting:
            self._spawn(self._mend(unit, child), f"mending {child.slot.id}")

    async def _mend(self, unit: _Unit, child: Child) -> None:
        """Start a platform process again, later and later when it keeps ending."""
        while True:
            moment_s = time.monotonic()
            while unit.crashes_s and moment_s - unit.crashes_s[0] > CRASH_WINDOW_S:
                unit.crashes_s.popleft()
            delay_s = BACK_OFF_S[min(len(unit.crashes_s), len(BACK_OFF_S) - 1)]
            unit.crashes_s.append(moment_s)
            self._log(
                "warn", f"{child.slot.id} is started again in {delay_s:g} s", replica=child.slot.id, delay_s=delay_s
            )
            await asyncio.sleep(delay_s)
            async with unit.lock:
                if self._ending or unit.held or child.running or child not in unit.active:
                    return
                try:
                    self._launch(unit, child)
                except PermanentError as error:
                    self._log("error", str(error), replica=child.slot.id)
                    continue
                self.mends[unit.spec.name] += 1
                return

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
