"""The record that says which controller leads, as a Lease of the cluster: the port `Leases`.

A Lease's times have microseconds and its duration whole seconds. What is exact is kept beside them in an annotation,
because whoever reads a record back must be able to tell that it is the very one that was sent.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kernel.time import MICROSECOND, SECOND, Duration, Instant, from_rfc3339, to_rfc3339
from runbooks.adapters.kubernetes.api import MERGE, Api, ConflictError, GoneError
from runbooks.adapters.kubernetes.ledger import NAMESPACE
from runbooks.adapters.kubernetes.objects import DOMAIN, Meta
from runbooks.leases import LeaseRecord
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

NAME: Final = "tapewatch-leader"
EXACT: Final = DOMAIN + "exact"
"""When it was renewed and for how long that is good, in nanoseconds: `1780000000000000001 15000000000`."""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_transitions: int | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: _Spec = _Spec()


class KubernetesLeases:
    """One Lease of one cluster."""

    def __init__(self, api: Api, *, namespace: str = NAMESPACE, name: str = NAME) -> None:
        """Keep the record in `namespace`/`name`."""
        self._api = api
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def read(self) -> LeaseRecord | None:
        """Return the record, or None when there is no Lease; one without a holder yet is of epoch 0."""
        try:
            return _record(await self._api.get(f"{self._path}/{self._name}", _Lease))
        except GoneError:
            return None

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Make the Lease."""
        body = _body(record)
        body["metadata"]["name"] = self._name
        try:
            return _record(await self._api.send("POST", self._path, body, _Lease))
        except ConflictError as error:
            raise RefusedError(RefusalReason.CONFLICT, f"there is a Lease {self._name} already") from error

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        """Change the Lease that has `record.resource_version`; labels and annotations of others stay."""
        if not record.resource_version:
            raise RefusedError(RefusalReason.CONFLICT, "a record that was never read replaces none")
        body = _body(record)
        body["metadata"]["resourceVersion"] = record.resource_version
        try:
            return _record(
                await self._api.send("PATCH", f"{self._path}/{self._name}", body, _Lease, content_type=MERGE)
            )
        except (ConflictError, GoneError) as error:
            words = f"the Lease {self._name} has been changed since it was read, or is gone"
            raise RefusedError(RefusalReason.CONFLICT, words) from error


def _body(record: LeaseRecord) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"annotations": {EXACT: f"{record.renewed_at} {record.duration_ns}"}},
        "spec": {
            "holderIdentity": record.holder,
            "leaseTransitions": record.epoch,
            "leaseDurationSeconds": max(1, -(-record.duration_ns // SECOND)),  # whole seconds, at least one
            "renewTime": to_rfc3339(record.renewed_at),
        },
    }


def _record(lease: _Lease) -> LeaseRecord:
    spec, meta = lease.spec, lease.metadata
    renewed_at = from_rfc3339(spec.renew_time) if spec.renew_time else Instant(0)
    duration_ns = Duration((spec.lease_duration_seconds or 0) * SECOND)
    exact = meta.annotations.get(EXACT, "").split(" ")
    if len(exact) == 2 and all(part.isdigit() and len(part) < 20 for part in exact):  # noqa: PLR2004
        at, length = int(exact[0]), int(exact[1])
        # Somebody who wrote the Lease by other means left the annotation as it was: then the Lease's own fields count.
        if at // MICROSECOND == renewed_at // MICROSECOND and max(1, -(-length // SECOND)) == duration_ns // SECOND:
            renewed_at, duration_ns = Instant(at), Duration(length)
    return LeaseRecord(
        holder=spec.holder_identity or "",
        epoch=spec.lease_transitions or 0,
        renewed_at=renewed_at,
        duration_ns=duration_ns,
        resource_version=meta.resource_version,
    )
