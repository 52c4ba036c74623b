"""What may never be seen of a write of ours at the very moment it takes effect (P2, P4, P5, P13)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kernel.time import HOUR, SECOND, to_seconds
from runbooks.changes import Cordon, DeleteReplica, Drain
from runbooks.model import HaltSymbol, RestartReplica, Scale
from runbooks.policy import FACTS_MAX_AGE
from tests.sim.cluster_library import UNHEALTHY
from tests.sim.cluster_plant import SHAPES, US, Landing

if TYPE_CHECKING:
    from tests.sim.cluster_world import ClusterWorld

RUN: Final = re.compile(r".+?/run-\d+")
PER_HOUR: Final = 6
"""Replicas of one workload that all runs together may end within an hour."""
BLIND_MAX_S: Final = 20.0
"""A guard's data may be 5 s old; a permission, a first try without an answer and a second one take the rest."""
SLACK_S: Final = 30.0
"""A permission is followed by its effect within so long: tries, throttling, budgets that are waited for."""


def run_of(key: str) -> str:
    found = RUN.match(key)
    return found.group() if found else key


def judged(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    """Return what is wrong with a write that has just taken effect."""
    yield from _twice(world, landing)
    yield from _deposed(world, landing)
    yield from _owners(world, landing)
    yield from _radius(world, landing)
    yield from _state(world, landing)
    if not landing.writer.key.endswith("/undo"):
        yield from _moment(world, landing)


def _twice(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    key, pods = landing.writer.key, {pod.uid for pod in landing.pods}
    for other in world.cluster.landings:
        if other is not landing and other.writer.key == key and (not pods or pods & {pod.uid for pod in other.pods}):
            yield f"{key} took effect twice"
    action = world.actions.get(key)
    if isinstance(action, RestartReplica | DeleteReplica) and world.ended_by(key) > 1:
        yield f"{key} ended {world.ended_by(key)} replicas"


def _deposed(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    if landing.writer.epoch < world.acted_epoch:
        yield f"{landing.writer.key} was written in epoch {landing.writer.epoch} after {world.acted_epoch} had begun"


def _owners(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    key, target = landing.writer.key, landing.target
    if landing.fields and target in world.cluster.reverted:
        yield f"{key} wrote {target} against its GitOps owner"
    if "replicas" in landing.fields:
        if target in world.cluster.scaled_object or (target == "gateway" and world.cluster.bounds is not None):
            yield f"{key} scaled {target} against its autoscaler"
        by = int(landing.fields["replicas"]) - int(landing.before["replicas"])
        action = world.actions.get(key)
        if isinstance(action, Scale) and (abs(by) > abs(action.by) or by * action.by <= 0):
            yield f"{key} was to scale by {action.by} and scaled by {by}: the plan was old"
    if key.endswith("/undo"):
        of = key.removesuffix("/undo")
        ours = {
            field: value
            for one in world.cluster.landings
            if one.writer.key == of
            for field, value in one.fields.items()
        }
        for field, (manager, written) in landing.before_writers.items():
            # Counts are compared by value: who set the very number that we had left is not seen.
            same = field == "replicas" and landing.before[field] == ours.get(field)
            if (manager, written) != (US, of) and not same:
                yield f"{key} took back {field} of {target}, which {manager or 'nobody'} had written since"


def _radius(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    key, run = landing.writer.key, run_of(landing.writer.key)
    if world.at_hand(landing) not in world.allowed and not isinstance(world.actions.get(key), Drain):
        yield f"{key} touched {landing.target}, which is not on the allow-list"
    record = world.store.run(run)
    if record is not None:
        book = next(one for one in world.library.values() if one.name == record.runbook)
        ended = sum(len(one.pods) for one in world.cluster.landings if run_of(one.writer.key) == run)
        if ended > book.blast_radius.replicas:
            yield f"{run} ended {ended} replicas, {book.blast_radius.replicas} are allowed"
    recent = [one for one in world.cluster.landings if landing.at - one.at < HOUR and one.pods]
    drained = isinstance(world.actions.get(key), Drain)
    ended = sum(len(one.pods) for one in recent if one.target == landing.target)
    if landing.pods and not drained and ended > PER_HOUR:
        yield f"{ended} replicas of {landing.target} were ended within an hour"
    if isinstance(world.actions.get(key), Cordon) and landing.fields.get("cordoned"):
        node = landing.target.removeprefix("node:")
        since = world.cluster.now_s - SLACK_S
        others = [name for name in world.cluster.out() - {node} if world.out_since.get(name, 1e18) < since]
        if others:
            yield f"{key} took out {node} while {others} were out"


def _state(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    key, shape = landing.writer.key, SHAPES.get(landing.target)
    if shape is not None and shape.singleton and "replicas" in landing.fields:
        yield f"{key} scaled the single writer {landing.target}"
    for pod in landing.pods:
        record = world.store.run(run_of(key))
        if pod.workload == "engine" and landing.forced:
            yield f"{key} ended the engine by force"
        if pod.workload != "engine" or not world.cluster.is_ready(pod):
            continue
        # A person who reopens between a permission and its effect is not seen; see `docs/simulation.md`.
        if None not in world.halted and world.elapsed_s() - world.reopened_s > SLACK_S:
            yield f"{key} ended the engine while it was trading"
        if record is not None and run_of(key) not in world.four_eyes:
            yield f"{key} ended the engine although it was ready, and no two people had agreed"


def _moment(world: ClusterWorld, landing: Landing) -> Iterator[str]:
    key, now = landing.writer.key, landing.at
    age_s = world.elapsed_s() - world.facts_seen.get(run_of(key), world.elapsed_s())
    if age_s > to_seconds(FACTS_MAX_AGE) + SLACK_S:
        yield f"{key} stands on facts of the plant {age_s:.0f} s old"
    felt = any(world.cluster.is_ready(pod) for pod in landing.pods)
    if felt and world.auction_since is not None and to_seconds(now - world.auction_since) > SLACK_S:
        yield f"{key} ended replicas in an auction"
    images_mixed_s = world.cluster.now_s - world.cluster.mixed_since.get(landing.target, now / SECOND)
    if isinstance(world.actions.get(key), Scale) and "replicas" in landing.fields and images_mixed_s > SLACK_S:
        yield f"{key} scaled {landing.target} while it ran mixed images"
    sick_since = world.cluster.sick_since
    if sick_since is not None and world.cluster.now_s - sick_since > SLACK_S:
        yield f"{key} acted although more than {UNHEALTHY:.0%} of the exchange seemed broken"
    if isinstance(world.actions.get(key), HaltSymbol):
        return
    first = key.rsplit("/", 1)[-1] == "0"
    blind_s = world.elapsed_s() - world.sampled_s
    if first and blind_s > BLIND_MAX_S:
        yield f"{key} was done on evidence {blind_s:.0f} s old"
