"""How many replicas: the scale subresource, or the lower bound of the autoscaler that owns the number.

Where an HPA owns the number, a scale would be reverted within seconds. Its `minReplicas` is the knob: raised it scales
out, lowered again it lets the HPA scale in. It never leaves its owner's bounds: up to `maxReplicas`, and back down to
what its owner had set, which an annotation remembers.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from runbooks.adapters.kubernetes.api import Api
from runbooks.adapters.kubernetes.edit import get, plan_of, refuse_other_generation
from runbooks.adapters.kubernetes.fields import Field, Json, ours_wrote, value_at
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import ORIGINAL_MIN, Hpa
from runbooks.adapters.kubernetes.reader import Observed, Reader
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

REPLICAS_MAX: Final = 100
"""More than this is a slip of the pen, whatever the runbook says."""
KNOB: Final = "hpa.minReplicas"
PLAIN: Final = "spec.replicas"
"""Named, so that a scale is taken back by `restore`, which sees whether somebody else has set the same number since."""
_MIN: Final = ("spec", "minReplicas")
_ORIGINAL: Final = ("metadata", "annotations", ORIGINAL_MIN)


class Scaler:
    """Plans the number of replicas."""

    def __init__(self, api: Api, reader: Reader) -> None:
        """Read through `api`."""
        self._api = api
        self._reader = reader

    async def plan(self, workload: str, replicas: int, generation: int | None) -> Plan:
        """Plan to give a workload so many replicas.

        Raises:
            RefusedError: a singleton, out of bounds, owned by somebody else, or changed since the plan.
        """
        seen = await self._reader.observe(workload)
        refuse_other_generation(str(seen.target), seen.workload.metadata.generation, generation)
        _refuse(seen, replicas)
        if seen.owners.hpa is not None:
            return await self._turn_knob(seen, seen.owners.hpa, replicas)
        thing = await get(self._api, seen.target.path, str(seen.target))
        refuse_other_generation(str(seen.target), thing["metadata"]["generation"], seen.workload.metadata.generation)
        now = int(thing["spec"]["replicas"])
        told = (f"would scale {seen.target} from {now} to {replicas} replicas",)
        field = Field(path=("spec", "replicas"), before=now, after=replicas)
        return plan_of(
            thing, seen.target.path, str(seen.target), (field,),
            before={"replicas": str(now), "knob": PLAIN}, after={"replicas": str(replicas), "knob": PLAIN}, told=told,
            mode="scale",
        )  # fmt: skip

    async def _turn_knob(self, seen: Observed, hpa: Hpa, replicas: int) -> Plan:
        what = f"{hpa.metadata.namespace}/HorizontalPodAutoscaler/{hpa.metadata.name}"
        path = f"/apis/autoscaling/v2/namespaces/{hpa.metadata.namespace}/horizontalpodautoscalers/{hpa.metadata.name}"
        thing = await get(self._api, path, what)
        low, high, original = _bounds(thing)
        now = seen.workload.spec.replicas
        if not original <= replicas <= high:
            words = f"{what} owns the replicas of {seen.target}: {original} to {high} by its owner, not {replicas}"
            raise RefusedError(RefusalReason.OWNED, words)
        if replicas < now and low == original:
            words = f"{what} owns the replicas of {seen.target} and has not been raised by us: it alone scales in"
            raise RefusedError(RefusalReason.OWNED, words)
        remembered = UNSET if replicas == original else str(original)
        fields = (
            Field(path=_MIN, before=low, after=replicas),
            Field(path=_ORIGINAL, before=value_at(thing, _ORIGINAL), after=remembered),
        )
        return plan_of(
            thing, path, what, fields,
            before={"replicas": str(now), "knob": KNOB, "min": str(low)},
            after={"replicas": str(replicas), "knob": KNOB, "min": str(replicas)},
            told=(f"would set minReplicas of {what} from {low} to {replicas} (its owner allows {original} to {high})",),
        )  # fmt: skip


def _refuse(seen: Observed, replicas: int) -> None:
    name = seen.target.name
    if seen.singleton:
        raise RefusedError(RefusalReason.SINGLETON, f"{name} is a single writer and is never scaled")
    if not 0 <= replicas <= REPLICAS_MAX:
        raise RefusedError(RefusalReason.NOT_ALLOWED, f"{name} may have 0 to {REPLICAS_MAX} replicas, not {replicas}")
    if owner := seen.owners.spec or seen.owners.replicas:
        raise RefusedError(RefusalReason.OWNED, f"the replicas of {seen.target} belong to {owner}")


def _bounds(hpa: Json) -> tuple[int, int, int]:
    """Return the lower bound as it is, the upper bound, and the lower bound its owner has set."""
    spec: dict[str, Any] = hpa["spec"]
    low = int(spec.get("minReplicas", 1))
    noted = value_at(hpa, _ORIGINAL)
    ours = ours_wrote(hpa, Field(path=_MIN))  # else its owner has set it anew, and our note of old counts no more
    original = int(noted) if ours and isinstance(noted, str) and noted.isdigit() else low
    return low, int(spec["maxReplicas"]), min(original, low)
