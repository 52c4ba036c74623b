"""Rollouts: a rolling restart, back to the revision before, pause and resume."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from kernel.errors import TemporaryError
from kernel.time import SECOND, Clock, to_rfc3339
from runbooks.adapters.kubernetes.api import Api
from runbooks.adapters.kubernetes.edit import get, plan_of, refuse_other_generation
from runbooks.adapters.kubernetes.fields import Field, Json, fields_between, value_at
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import DOMAIN, KEY, RESTARTED_AT, REVISION, Items, ReplicaSet
from runbooks.adapters.kubernetes.reader import Observed, Reader
from runbooks.changes import PauseRollout, ResumeRollout, RollBack, RollingRestart
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

ROLLED_BACK_FROM: Final = DOMAIN + "rolled-back-from"
"""The ReplicaSet that a roll back has left: no second roll back leads to it again."""
HASH: Final = "pod-template-hash"
_TEMPLATE: Final = ("spec", "template")
_NOTES: Final = (*_TEMPLATE, "metadata", "annotations")

Rollout = RollingRestart | RollBack | PauseRollout | ResumeRollout


class Roller:
    """Plans rollouts."""

    def __init__(self, api: Api, reader: Reader, clock: Clock) -> None:
        """Read through `api`."""
        self._api = api
        self._reader = reader
        self._clock = clock

    async def plan(self, change: Rollout, key: str, generation: int | None) -> Plan:
        """Plan a change of a rollout.

        Raises:
            RefusedError: it may not be, is owned by somebody else, or would lead nowhere.
        """
        seen = await self._reader.observe(change.workload)
        refuse_other_generation(str(seen.target), seen.workload.metadata.generation, generation)
        _refuse(seen, change)
        thing = await get(self._api, seen.target.path, str(seen.target))
        refuse_other_generation(str(seen.target), thing["metadata"]["generation"], seen.workload.metadata.generation)
        match change:
            case RollingRestart():
                return self._restart(seen, thing, key)
            case RollBack():
                return await self._roll_back(seen, thing)
            case PauseRollout() | ResumeRollout():
                return _pause(seen, thing, paused=isinstance(change, PauseRollout))

    def _restart(self, seen: Observed, thing: Json, key: str) -> Plan:
        at, path = to_rfc3339(self._clock.now()), (*_NOTES, RESTARTED_AT)
        old = value_at(thing, path)
        fields = (
            Field(path=path, before=old, after=at),
            Field(path=(*_NOTES, KEY), before=value_at(thing, (*_NOTES, KEY)), after=key),
        )
        meta = {"name": seen.target.name, "namespace": seen.target.namespace}
        pods = ", ".join(pod.metadata.name for pod in seen.replicas) or "none"
        return plan_of(
            thing, seen.target.path, str(seen.target), fields, mode="apply",
            body={"apiVersion": "apps/v1", "kind": seen.target.kind, "metadata": meta},
            before={"restarted_at": "" if old is UNSET else str(old)}, after={"restarted_at": at},
            told=(f"would restart the pods of {seen.target} a few at a time: {pods}",),
        )  # fmt: skip

    async def _roll_back(self, seen: Observed, thing: Json) -> Plan:
        what = str(seen.target)
        state = thing.get("status", {})
        if state.get("observedGeneration", 0) < thing["metadata"]["generation"]:
            # The newest template may have no revision yet, and "the one before" would be one too far back.
            raise TemporaryError(
                f"{what}: its controller has not seen generation {thing['metadata']['generation']} yet"
            )
        present, previous = await self._revisions(seen, thing)
        if previous is None:
            raise RefusedError(RefusalReason.NO_TARGET, f"{what} has no revision before {_revision(present)}")
        if previous.metadata.name == value_at(thing, ("metadata", "annotations", ROLLED_BACK_FROM)):
            words = f"{what} was rolled back already, from revision {_revision(previous)}: it does not go back to it"
            raise RefusedError(RefusalReason.NO_TARGET, words)
        template = _without_hash(dict(previous.spec.template))
        changed = fields_between(thing["spec"]["template"], template, _TEMPLATE)
        if not changed:
            raise RefusedError(
                RefusalReason.NO_TARGET, f"{what}: revision {_revision(previous)} has the template it runs now"
            )
        note = ("metadata", "annotations", ROLLED_BACK_FROM)
        left = Field(path=note, before=value_at(thing, note), after=present.metadata.name)
        revisions = f"from revision {_revision(present)} to {_revision(previous)}"
        return plan_of(
            thing, seen.target.path, what, (*changed, left),
            before={"revision": _revision(present), "images": _images(thing["spec"]["template"])},
            after={"revision": _revision(previous), "images": _images(template)},
            told=(f"would roll {what} back {revisions}", *(f"would change {field}" for field in changed)),
        )  # fmt: skip

    async def _revisions(self, seen: Observed, thing: Json) -> tuple[ReplicaSet, ReplicaSet | None]:
        """Return the present revision and the one before."""
        query = seen.workload.spec.selector.query
        path = f"/apis/apps/v1/namespaces/{seen.target.namespace}/replicasets"
        listed = await self._api.get(path, Items[ReplicaSet], labelSelector=query)
        uid = thing["metadata"]["uid"]
        own = [one for one in listed.items if any(o.controller and o.uid == uid for o in one.metadata.owner_references)]
        own.sort(key=lambda one: int(_revision(one)))
        now = value_at(thing, ("metadata", "annotations", REVISION))
        present = next((one for one in own if _revision(one) == now), None)
        if present is None:
            raise TemporaryError(f"{seen.target} has no revision yet", retry_after=SECOND)
        older = [one for one in own if int(_revision(one)) < int(_revision(present))]
        return present, older[-1] if older else None


def _refuse(seen: Observed, change: Rollout) -> None:
    target = seen.target
    if seen.owners.spec:
        raise RefusedError(RefusalReason.OWNED, f"{target} belongs to {seen.owners.spec}")
    if target.kind != "Deployment" and not isinstance(change, RollingRestart):
        words = f"{target} is a {target.kind}: only a Deployment is rolled back, paused and resumed"
        raise RefusedError(RefusalReason.NOT_ALLOWED, words)
    if isinstance(change, PauseRollout | ResumeRollout):
        return
    if seen.stateful:
        raise RefusedError(RefusalReason.STATE_UNSAFE, f"{target} holds state: its template is left alone")
    if not seen.overlaps:
        words = f"{target} is a single writer, and its rollout would start a second one beside it"
        raise RefusedError(RefusalReason.STATE_UNSAFE, f"{words}; with the strategy Recreate it would not")
    if isinstance(change, RollingRestart) and seen.owners.pods:
        raise RefusedError(RefusalReason.OWNED, f"the pods of {target} belong to {seen.owners.pods}")
    if seen.workload.spec.paused:
        words = f"the rollout of {target} is paused: nothing would come of it until it is resumed"
        raise RefusedError(RefusalReason.CONFLICT, words)


def _pause(seen: Observed, thing: Json, *, paused: bool) -> Plan:
    path = ("spec", "paused")
    field = Field(path=path, before=value_at(thing, path), after=True if paused else UNSET)
    revision = str(value_at(thing, ("metadata", "annotations", REVISION)) or "")
    was, verb = field.before is not UNSET, "pause" if paused else "resume"
    return plan_of(
        thing, seen.target.path, str(seen.target), (field,),
        before={"paused": _bool(was), "revision": revision}, after={"paused": _bool(paused), "revision": revision},
        told=(f"would {verb} the rollout of {seen.target}",),
    )  # fmt: skip


def _bool(value: bool) -> str:  # noqa: FBT001 - it is written, not asked
    return "true" if value else "false"


def _revision(one: ReplicaSet) -> str:
    return one.metadata.annotations.get(REVISION, "0")


def _without_hash(template: Json) -> Json:
    meta = dict(template.get("metadata", {}))
    labels = {name: value for name, value in meta.get("labels", {}).items() if name != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def _images(template: dict[str, Any]) -> str:
    return " ".join(str(one.get("image", "")) for one in template.get("spec", {}).get("containers", ()))
