"""Finding out from the cluster whether a planned write was carried out, when nobody answered or nobody is left to ask.

Whatever can carry our key does: then the key tells. Otherwise the facts do, by these rules:

- ended pod: its uid is gone, or it is being ended (for a forced deletion: gone);
- number of replicas: it is the wanted one, owned by us, and the generation has grown.
"""

from __future__ import annotations

from runbooks.adapters.kubernetes.api import Api, GoneError
from runbooks.adapters.kubernetes.fields import Json, are_left, ours_wrote, value_at
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import KEY, Items, Pod


async def found(api: Api, plan: Plan, key: str) -> dict[str, str] | None:
    """Return the facts after a write that was carried out, None when it was not (yet).

    Raises:
        TapewatchError: the cluster cannot be read.
    """
    match plan.mode:
        case "evict":
            return await successor(api, plan) if await is_ended(api, plan.path, plan.uid) else None
        case "delete":
            return dict(plan.after) if await is_ended(api, plan.path, plan.uid, gone=True) else None
        case "drain":
            ended = [await is_ended(api, path, uid) for path, uid in plan.pods.items()]
            return drained(plan, list(plan.pods)) if all(ended) else None
        case _:
            thing = await read(api, plan.path)
            return dict(plan.after) if thing is not None and is_applied(plan, key, thing) else None


def is_applied(plan: Plan, key: str, thing: Json) -> bool:
    """Tell whether a write of fields, or a creation, was carried out, by the object as it is now."""
    if plan.mode == "create":
        return bool(value_at(thing, ("metadata", "annotations", KEY)) == key)
    if not plan.fields:
        return True  # nothing was to be written
    if plan.mode != "scale":
        return bool(value_at(thing, ("metadata", "annotations", KEY)) == key)
    grown = int(value_at(thing, ("metadata", "generation"))) > plan.generation
    return grown and are_left(thing, plan.fields) and all(ours_wrote(thing, field) for field in plan.fields)


async def read(api: Api, path: str) -> Json | None:
    """Return an object as it is, None when it is gone."""
    try:
        return await api.get(path, Json)
    except GoneError:
        return None


async def is_ended(api: Api, path: str, uid: str, *, gone: bool = False) -> bool:
    """Tell whether the pod with `uid` is being ended or gone (with `gone`: gone)."""
    try:
        pod = await api.get(path, Pod)
    except GoneError:
        return True
    return pod.metadata.uid != uid or (pod.metadata.ending and not gone)


async def successor(api: Api, plan: Plan) -> dict[str, str]:
    """Return the facts of the replica that came for an evicted one; without a name while none has come."""
    namespace = plan.path.split("/")[4]
    pods = await api.get(f"/api/v1/namespaces/{namespace}/pods", Items[Pod], labelSelector=plan.selector)
    known = set(plan.pods.values())
    come = [pod for pod in pods.items if pod.metadata.uid not in known and not pod.metadata.ending]
    if not come:
        return {**plan.after, "replica": "", "uid": "", "node": ""}
    newest = max(come, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
    facts = {"replica": newest.metadata.name, "uid": newest.metadata.uid, "node": newest.spec.node_name}
    return {**plan.after, **facts}


def drained(plan: Plan, paths: list[str]) -> dict[str, str]:
    """Return the facts of a drain that has ended the pods at `paths`."""
    names = [path.rpartition("/")[2] for path in paths]
    return {**plan.before, "moved": ", ".join(sorted(names)), "left": str(len(plan.pods) - len(paths))}
