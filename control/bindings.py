"""Action -> calls on the plant. The one place where a runbook's words meet real processes and the real exchange.

Every call carries the action's key; whoever carries it out answers a repeated key with the first answer. So when an
answer is lost, or the controller dies between the effect and its record, asking again is harmless.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import SECOND, Clock, Duration, to_seconds
from runbooks.adapters.exchange_admin import ExchangeAdmin
from runbooks.changes import TakeBack
from runbooks.model import (
    Action,
    DoAnswer,
    HaltMarket,
    HaltSymbol,
    KeepSnapshot,
    LookAnswer,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Scale,
    SetReplicas,
    VerifyReplay,
)
from runbooks.ports import BudgetError, Effect, RefusedError, Workloads
from runbooks.words import describe, duration

ATTEMPTS: Final = 4
"""How often a temporary failure is tried again before the action counts as failed."""
PAUSE_S: Final = 0.5
BUDGET_PATIENCE: Final = Duration(20 * SECOND)
"""How long a disruption budget that forbids an action is waited for."""


class Verification(msgspec.Struct, frozen=True):
    """What an independent replay of the journal came to."""

    last_seq: int
    state_hash: str


class Plant(Protocol):
    """What can carry an action out."""

    async def carry_out(self, action: Action, key: str, *, forbidden: Callable[[], bool]) -> DoAnswer:
        """Carry `action` out at most once for `key`. Trouble is an answer with `ok=False`, never an exception.

        `forbidden` is asked before each further try, so that nothing starts once the kill switch is on.
        """
        ...

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Say what `action` would do, having asked the platform and changed nothing.

        Raises:
            RefusedError: the platform would refuse it.
            TapewatchError: it does not answer, or knows no such target.
        """
        ...

    async def done(self, action: Action, key: str) -> bool:
        """Tell whether it is known that `action` was carried out for `key`. Trouble is a no, never an exception."""
        ...

    async def look(self, target: str) -> LookAnswer:
        """Ask whether a workload (or `node:NAME`) has settled. Trouble is an answer without one, never an exception."""
        ...


class LivePlant:
    """Actions on the workloads and on the exchange of one estate."""

    def __init__(
        self, workloads: Workloads, exchange: ExchangeAdmin, clock: Clock, journal: Path, instruments: Path
    ) -> None:
        """Act through `workloads` and `exchange`; `journal` and `instruments` are what an independent replay reads."""
        self._workloads = workloads
        self._exchange = exchange
        self._clock = clock
        self._journal = journal
        self._instruments = instruments

    async def carry_out(self, action: Action, key: str, *, forbidden: Callable[[], bool]) -> DoAnswer:
        """Carry `action` out at most once for `key`, trying again after temporary failures."""
        problem, attempt, pause_s, touched = "", 0, 0.0, False
        blocked_until = self._clock.now() + BUDGET_PATIENCE
        while attempt < ATTEMPTS:
            if pause_s:
                await asyncio.sleep(pause_s)
                if forbidden():
                    # Not a refusal: the try before may have been carried out and only its answer lost.
                    words = f"automatic actions were forbidden before it was known whether it was done: {problem}"
                    return DoAnswer(at=self._clock.now(), ok=False, error=words)
            try:
                before, after = await self._act(action, key)
            except RefusedError as error:
                return DoAnswer(at=self._clock.now(), ok=False, refused=error.reason, error=str(error))
            except PermanentError as error:
                return DoAnswer(at=self._clock.now(), ok=False, error=str(error))
            except BudgetError as error:
                # Others need the budget now. It is waited for, then a person is asked.
                touched = touched or error.touched
                if self._clock.now() >= blocked_until:
                    blocked, words = RefusalReason.DISRUPTION_BUDGET, f"waited {duration(BUDGET_PATIENCE)}: {error}"
                    # A refusal says that nothing was touched; a part, or a try without an answer, is another matter.
                    refused = "" if touched or attempt else blocked
                    return DoAnswer(at=self._clock.now(), ok=False, refused=refused, error=words)
                problem, pause_s = str(error), to_seconds(error.retry_after or SECOND)
            except TemporaryError as error:
                attempt += 1
                problem, pause_s = str(error), max(PAUSE_S * attempt, to_seconds(error.retry_after or 0))
            else:
                return DoAnswer(at=self._clock.now(), ok=True, before=before, after=after)
        return DoAnswer(at=self._clock.now(), ok=False, error=f"gave up after {ATTEMPTS} tries: {problem}")

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Ask the platform about what is its own; the exchange's own actions are told in words alone."""
        if isinstance(action, HaltSymbol | ResumeSymbol | HaltMarket | ResumeMarket | VerifyReplay | KeepSnapshot):
            return [f"would {describe(action)}"]
        return await self._workloads.rehearse(action)

    async def done(self, action: Action, key: str) -> bool:
        """Ask the platform about what is its own; of the exchange's own actions it is not known."""
        if isinstance(action, HaltSymbol | ResumeSymbol | HaltMarket | ResumeMarket | VerifyReplay | KeepSnapshot):
            return False
        try:
            return await self._workloads.effect(key) is not None
        except TapewatchError:
            return False

    async def look(self, target: str) -> LookAnswer:
        """Ask the platform whether a workload or node has settled."""
        try:
            if target.startswith("node:"):
                return await self._look_at_node(target.removeprefix("node:"))
            status = await self._workloads.status(target)
        except TapewatchError as error:
            return LookAnswer(self._clock.now(), settled=None, detail=str(error))
        detail = status.detail or f"{status.ready} of {status.desired} ready"
        return LookAnswer(
            self._clock.now(),
            settled=status.is_settled,
            seen_at=status.seen_at,
            restarts=status.restarts,
            detail=detail,
        )

    async def _look_at_node(self, name: str) -> LookAnswer:
        """A node has settled when it is cordoned and nothing of ours runs there any more."""
        node = next((one for one in await self._workloads.nodes() if one.name == name), None)
        if node is None:
            return LookAnswer(self._clock.now(), settled=None, detail=f"there is no node {name}")
        detail = f"{'cordoned' if node.cordoned else 'open'}, {node.replicas} replicas"
        empty = node.cordoned and not node.replicas
        return LookAnswer(self._clock.now(), settled=empty, seen_at=node.seen_at, detail=detail)

    async def _act(self, action: Action, key: str) -> tuple[Mapping[str, str], Mapping[str, str]]:  # noqa: C901, PLR0911 - one arm an action
        match action:
            case RestartReplica():
                return _facts(await self._workloads.restart(action.workload, action.replica, key=key))
            case Scale():
                return _facts(await self._scale(action, key))
            case SetReplicas():
                return _facts(await self._set_replicas(action, key))
            case HaltSymbol():
                await self._exchange.halt(key, action.symbol, action.reason)
                return {"symbol": action.symbol, "trading": "open"}, {"symbol": action.symbol, "trading": "halted"}
            case ResumeSymbol():
                await self._exchange.resume(key, action.symbol)
                return {"symbol": action.symbol, "trading": "halted"}, {"symbol": action.symbol, "trading": "open"}
            case HaltMarket():
                await self._exchange.halt(key, None, action.reason)
                return {"market": "open"}, {"market": "halted"}
            case ResumeMarket():
                await self._exchange.resume(key, None, action.replica)
                return {"market": "halted"}, {"market": "open"}
            case VerifyReplay():
                return await self._verify(action.replica)
            case KeepSnapshot():
                return {}, {"snapshot": str(await self._exchange.snapshot(key))}
            case TakeBack():
                return _facts(await self._workloads.restore(action.of, key=key))
            case _:
                return _facts(await self._workloads.change(action, key=key))

    async def _scale(self, action: Scale, key: str) -> Effect:
        done = await self._workloads.effect(key)
        if done is not None:
            return done
        status = await self._workloads.status(action.workload)
        most = min(action.maximum, status.partitions or action.maximum)
        wanted = min(max(status.desired + action.by, action.minimum), max(most, action.minimum))
        if wanted == status.desired:
            bound = most if action.by > 0 else action.minimum
            raise RefusedError(
                RefusalReason.BLAST_RADIUS,
                f"{action.workload} has {status.desired} replicas already; the runbook's bound is {bound}",
            )
        return await self._workloads.scale(action.workload, wanted, key=key, generation=status.generation)

    async def _set_replicas(self, action: SetReplicas, key: str) -> Effect:
        done = await self._workloads.effect(key)
        if done is not None:
            return done
        status = await self._workloads.status(action.workload)
        if status.desired != action.only_if:
            raise RefusedError(
                RefusalReason.CONFLICT,
                f"{action.workload} has {status.desired} replicas, not the {action.only_if} this run left: "
                "someone else changed it, so it stays as it is",
            )
        return await self._workloads.scale(action.workload, action.replicas, key=key, generation=status.generation)

    async def _verify(self, replica: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Replay a journal in a process of its own and hold the digest against the running engine's; or each, in turn.

        Raises:
            PermanentError: they differ, or there is no engine of that name.
        """
        from exchange.adapters.journal_place import parts_of  # what it loads, control needs for nothing else

        parts = parts_of(self._journal)
        if len(parts) == 1:
            return await self._verify_part(parts[0].directory, "")
        meant = [one for one in parts if replica in {"", one.name}]
        if not meant:
            raise PermanentError(f"there is no engine {replica}; there are {', '.join(one.name for one in parts)}")
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        for one in meant:
            held, facts = await self._verify_part(one.directory, one.name)
            named = "" if len(meant) == 1 else f"{one.name}_"
            before |= {named + name: value for name, value in held.items()}
            after |= {named + name: value for name, value in facts.items()}
        return before, after

    async def _verify_part(self, journal: Path, engine: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        live = await self._exchange.state_hash(engine)
        replayed = await replay(journal, self._instruments, live.seq)
        if replayed.state_hash != live.state_hash or replayed.last_seq != live.seq:
            raise PermanentError(
                f"the journal replays to {replayed.state_hash[:16]} at {replayed.last_seq}, "
                f"the engine says {live.state_hash[:16]} at {live.seq}: the market must not reopen"
            )
        facts = {"seq": str(live.seq), "state_hash": live.state_hash}
        return {"engine_" + name: value for name, value in facts.items()}, facts


def _facts(effect: Effect) -> tuple[Mapping[str, str], Mapping[str, str]]:
    return effect.before, effect.after


async def replay(journal: Path, instruments: Path, until: int) -> Verification:
    """Replay a journal up to the command `until` in a process of its own.

    Raises:
        PermanentError: the journal cannot be replayed; the message is the replaying process's own.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "exchange.adapters.verify",
        str(journal),
        "--until",
        str(until),
        "--instruments",
        str(instruments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        raise PermanentError(f"the journal cannot be replayed: {err.decode(errors='replace').strip()[-400:]}")
    return msgspec.json.decode(out, type=Verification)
