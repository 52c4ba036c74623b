"""Log rules at work: every few seconds a turn of each, and its alerts to Alertmanager for as long as they stand.

No answer is not an answer: a rule whose store is down decides nothing, counts as `unknown`, and its standing alerts go
on standing. The time of the last whole turn is a metric; an alert stands on its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from control.log_kinds_watch import KindWatch
from exchange.ports import Log
from kernel.errors import TapewatchError
from kernel.time import SECOND, Clock, Duration, Instant, to_seconds
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.instruments import Meter
from monitor.log_store import LogStore
from monitor.logrules.fold import VERSION
from monitor.logrules.model import Rule
from monitor.logrules.standing import postable
from monitor.logrules.turn import Kept, Memory, Outcome, start, take
from monitor.ports import Alerts, PostableAlert

TURN_S: Final = 5.0
"""Between two turns; the shortest step of a rule that makes sense of it."""
STANDS: Final = Duration(120 * SECOND)
"""How long Alertmanager keeps an alert that is not told again: what a stop leaves unresolved ends by itself."""
AGAIN: Final = Duration(30 * SECOND)
SAVE_EVERY: Final = Duration(30 * SECOND)
ALIVE_EVERY: Final = Duration(600 * SECOND)
"""A record of our own, so that silence in the store means that the way to it is broken (rule LogsSilent)."""
MAX_MEMORY_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class WatchParts:
    """What log-watch works with."""

    rules: Sequence[Rule]
    store: LogStore
    alerts: Alerts
    meter: Meter
    log: Log
    clock: Clock
    memory: Path
    """Where the rules' state is kept."""
    kinds: KindWatch | None = None
    """Watches kinds of lines beside the rules; None: nobody does."""


class LogWatch:
    """All rules over one store."""

    def __init__(self, parts: WatchParts) -> None:
        """Take up what is remembered of the rules; another version of it is left alone and begun anew."""
        self._p = parts
        self._kept: dict[str, Kept] = dict(self._load().rules)
        self._posted: dict[tuple[str, str], tuple[PostableAlert, Instant]] = {}
        self._saved_at = Instant(0)
        self._alive_at = Instant(0)
        self._told: dict[str, str] = {}
        self.why = ""
        """Why the last turn was not whole; empty when it was."""
        for rule in parts.rules:
            parts.meter.count("tapewatch_log_rules_matches_total", rule.name).add(0)
            parts.meter.count("tapewatch_log_rules_evaluations_total", rule.name, "unknown").add(0)

    async def run(self) -> None:
        """Take turns for ever."""
        while True:
            began = perf_counter()
            await self.turn()
            await asyncio.sleep(max(0.1, TURN_S - (perf_counter() - began)))

    async def turn(self) -> None:
        """Take one turn of every rule and tell Alertmanager."""
        now = Instant(self._p.clock.now())
        if now - self._alive_at >= ALIVE_EVERY:
            self._p.log.event("log-watch-alive")
            self._alive_at = now
        began = perf_counter()
        outcomes = await asyncio.to_thread(self._judge, now)
        for name, outcome in outcomes.items():
            self._count(name, outcome)
        self._p.meter.spread("tapewatch_log_rules_evaluation_seconds").observe(perf_counter() - began)
        unknown = {name: outcome.unknown for name, outcome in outcomes.items() if outcome.unknown}
        self.why = next(iter(unknown.values()), "")
        if not unknown:
            self._p.meter.level("tapewatch_log_rules_timestamp_seconds").set(to_seconds(now))
        await self._tell(now)
        if self._p.kinds is not None:
            await self._watch_kinds(self._p.kinds, now)
        if now - self._saved_at >= SAVE_EVERY:
            await asyncio.to_thread(self.save)
            self._saved_at = now

    async def _watch_kinds(self, kinds: KindWatch, now: Instant) -> None:
        """Let the kinds of lines have their turn; whatever fails there, the rules go on."""
        try:
            await asyncio.to_thread(kinds.turn, now)
        except Exception as error:  # noqa: BLE001 - a fault in what only shows must not stop what alarms
            self._p.log.event("log-kinds-fault", severity="error", message=repr(error))

    def learn(self, history: LogStore, now: Instant) -> None:
        """Let rules that start anew learn what was there before from a store that reaches further back."""
        for rule in self._p.rules:
            if not self._kept.get(rule.name, start(rule, now)).state.learned:
                self._kept[rule.name] = take(rule, self._kept.get(rule.name), history, now).kept

    @property
    def unlearned(self) -> list[Rule]:
        """The rules that have yet to learn what was there before them."""
        now = Instant(self._p.clock.now())
        return [rule for rule in self._p.rules if not self._kept.get(rule.name, start(rule, now)).state.learned]

    def save(self) -> None:
        """Keep what is known of the rules; a disk that is full costs the memory of a stop, not the work."""
        names = {rule.name for rule in self._p.rules}
        memory = Memory(rules={name: kept for name, kept in self._kept.items() if name in names})
        target = self._p.memory
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(memory))
            draft.replace(target)
        except OSError as error:
            self._p.log.event("log-rules-not-kept", severity="warning", message=str(error))

    def _judge(self, now: Instant) -> dict[str, Outcome]:
        store = self._p.store
        if isinstance(store, DuckdbLogStore):
            try:
                store.refresh(now)
            except TapewatchError as error:
                return {rule.name: Outcome(self._kept_of(rule, now), unknown=str(error)) for rule in self._p.rules}
        outcomes = {}
        for rule in self._p.rules:
            outcomes[rule.name] = outcome = take(rule, self._kept.get(rule.name), store, now)
            self._kept[rule.name] = outcome.kept
        return outcomes

    def _kept_of(self, rule: Rule, now: Instant) -> Kept:
        return self._kept.get(rule.name) or start(rule, now)

    def _count(self, name: str, outcome: Outcome) -> None:
        result = "unknown" if outcome.unknown else "matched" if outcome.matches else "quiet"
        self._p.meter.count("tapewatch_log_rules_evaluations_total", name, result).add()
        self._p.meter.count("tapewatch_log_rules_matches_total", name).add(len(outcome.matches))
        if outcome.unknown != self._told.get(name, ""):
            self._told[name] = outcome.unknown
            if outcome.unknown:
                self._p.log.event("log-rule-unknown", severity="warning", rule=name, message=outcome.unknown)
        for match in outcome.matches[:1]:
            self._p.log.event("log-rule-matched", rule=name, count=len(outcome.matches), message=match.why)

    async def _tell(self, now: Instant) -> None:
        """Post what stands and is new or was not told for a while, and the end of what stands no more."""
        standing = {
            (rule.name, text): postable(rule, text, alert, Instant(now + STANDS))
            for rule in self._p.rules if rule.name in self._kept
            for text, alert in self._kept[rule.name].alerts.items() if alert.standing
        }  # fmt: skip
        due = {key: one for key, one in standing.items() if self._is_due(key, one, now)}
        over = {
            key: ended(one, now) for key, (one, _) in self._posted.items() if key not in standing
        }  # fmt: skip
        if not due and not over:
            return
        try:
            await self._p.alerts.post([*due.values(), *over.values()])
        except TapewatchError as error:
            self.why = str(error)  # told again at the next turn, ends as well
            return
        for key, one in due.items():
            self._posted[key] = (one, now)
        for key in over:
            del self._posted[key]

    def _is_due(self, key: tuple[str, str], one: PostableAlert, now: Instant) -> bool:
        before = self._posted.get(key)
        return before is None or now - before[1] >= AGAIN or before[0].annotations != one.annotations

    def _load(self) -> Memory:
        try:
            with self._p.memory.open("rb") as file:
                data = file.read(MAX_MEMORY_BYTES)
            memory = msgspec.json.decode(data, type=Memory)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._p.log.event("log-rules-forgotten", severity="warning", message=str(error))
            return Memory()
        return memory if memory.version == VERSION else Memory()


def ended(alert: PostableAlert, now: Instant) -> PostableAlert:
    """Return the alert as ended now."""
    return PostableAlert(alert.labels, alert.annotations, alert.starts_at, now, alert.generator_url)
