"""What must hold of every simulated day, whatever happened in it. Each returns sentences about what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from incidents.incident import UNRESOLVED
from incidents.timeline import EntryKind
from kernel.time import SECOND, Instant, to_seconds
from runbooks.model import HaltSymbol, Outcome
from tests.sim.library import LIBRARY
from tests.sim.world import World

BLIND_MAX_NS = 8 * SECOND
"""A guard's data may be 5 s old; asking, journalling and acting take a moment more."""


def broken_promises(world: World) -> list[str]:
    """Return everything that is wrong, nothing when all is well."""
    return [
        *world.found,
        *_nothing_lost(world),
        *_one_effect_a_key(world),
        *_hands_off(world),
        *_no_action_without_evidence(world),
        *_handed_over_stays(world),
        *_one_run_at_a_time(world),
        *_timelines(world),
    ]


def stuck(world: World) -> list[str]:
    """Return the incidents that neither ended nor wait for a person although everything is quiet (P3)."""
    open_runs = [f"run {run.id} never ended" for run in world.store.open_runs()]
    backlog = [f"{world.store.backlog()} signals were never decided on"] if world.store.backlog() else []
    standing = [
        f"{one.id} is {one.state} and nobody is told"
        for one in world.store.incidents(UNRESOLVED)
        if not one.needs_person
    ]
    return [*open_runs, *backlog, *standing]


def _nothing_lost(world: World) -> Iterator[str]:
    kept = {signal.key for signal in world.store._signals.values()}
    for key, signal in world.acknowledged.items():
        if key not in kept:
            yield f"{signal.name} was acknowledged and lost"


def _one_effect_a_key(world: World) -> Iterator[str]:
    asked = world.questions()
    for key, times in Counter(done.key for done in world.done).items():
        if times > 1:
            yield f"{key} was carried out {times} times"
        if key not in asked:
            yield f"{key} was carried out and never asked for"


def _hands_off(world: World) -> Iterator[str]:
    for done in world.done:
        for thrown, released in world.thrown:
            if thrown < done.began and (released is None or done.began < released):
                yield f"{done.key} started {to_seconds(done.began - thrown):.3f} s after the kill switch was thrown"


def _no_action_without_evidence(world: World) -> Iterator[str]:
    for done in world.done:
        if done.key.endswith("/0") and done.blind_ns > BLIND_MAX_NS and not isinstance(done.action, HaltSymbol):
            yield f"{done.key} was done on evidence {to_seconds(done.blind_ns):.1f} s old"


def _handed_over_stays(world: World) -> Iterator[str]:
    """A run that did not help is a person's matter: it begins again only after an alert has fired anew."""
    for incident in world.store.incidents():
        vain: set[tuple[object, object]] = set()
        target: dict[object, tuple[object, object]] = {}
        for entry in world.store.timeline(incident.id):
            data = entry.data
            if entry.kind is EntryKind.ALERT_FIRING:
                vain.clear()  # a new episode, though not for a run that is still under way
            elif entry.kind is EntryKind.RUN_STARTED:
                target[data["run"]] = (data["runbook"], data["target"])
                if target[data["run"]] in vain:
                    yield f"{incident.id}: {data['run']} began although the last one of its kind was handed over"
            elif entry.kind is EntryKind.RUN_ENDED and data["outcome"] not in {Outcome.MENDED, Outcome.NOT_APPLICABLE}:
                vain.add(target.get(data["run"], (None, None)))


def _one_run_at_a_time(world: World) -> Iterator[str]:
    runs = world.store.runs_since(Instant(0))
    for n, one in enumerate(runs):
        limits = next(book.limits for book in (*world.library.values(), *LIBRARY.values()) if book.name == one.runbook)
        for later in runs[n + 1 :]:
            if later.target != one.target:
                continue
            if one.ended_at is None or later.started_at < one.ended_at:
                yield f"{one.id} and {later.id} act on {one.target} at once"
            elif one.outcome in {Outcome.MENDED, Outcome.NOT_PROVEN, Outcome.UNDONE, Outcome.FAILED}:
                pause = later.started_at - one.ended_at
                if one.runbook == later.runbook and pause < limits.cool_down_ns:
                    yield f"{later.id} began {to_seconds(pause):.1f} s after {one.id}, within its cool-down"


def _timelines(world: World) -> Iterator[str]:
    for incident in world.store.incidents():
        tamper = world.store.verify(incident.id)
        if tamper is not None:
            yield f"{incident.id}: {tamper.text}"
        entries = world.store.timeline(incident.id)
        for kind in (EntryKind.ACTION_ASKED, EntryKind.ACTION_DONE, EntryKind.RUN_STARTED, EntryKind.RUN_ENDED):
            name = "key" if kind in {EntryKind.ACTION_ASKED, EntryKind.ACTION_DONE} else "run"
            for key, times in Counter(entry.data[name] for entry in entries if entry.kind is kind).items():
                if times > 1:
                    yield f"{key} has {times} entries {kind}"
        asked = {entry.data["key"] for entry in entries if entry.kind is EntryKind.ACTION_ASKED}
        done = {entry.data["key"] for entry in entries if entry.kind is EntryKind.ACTION_DONE}
        if not done <= asked:
            yield f"{incident.id}: {done - asked} done and not told before"
