"""The drill's own eyes on Kubernetes: what the API server says of pods, and its audit log of what was really sent.

It looks as the test bed's own account, not as our control plane: nothing that control says of itself is believed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import psutil

from control.child import now
from control.kube_bed import ACCOUNT, CONTROL, EXCHANGE, LEASE, Bed
from control.layout import Layout
from control.supervisor import RUNBOOK
from control.witness import Witness
from kernel.time import SECOND, Instant, from_rfc3339
from runbooks.ports import Replica, WorkloadStatus

EPOCH: Final = "tapewatch.example/epoch"
_KINDS: Final = ("deployments", "statefulsets")


class Write(msgspec.Struct, frozen=True):
    """A write of our control plane that the API server carried out."""

    at: Instant
    """When the API server received it."""
    verb: str
    resource: str
    """With its subresource, such as `pods/eviction`."""
    name: str
    epoch: str
    """Of the leader that decided on it; empty where the request cannot carry one."""


class KubeWitness(Witness):
    """What has been seen of an estate on Kubernetes so far."""

    def __init__(self, layout: Layout) -> None:
        """Watch the estate of `layout`, which must be up."""
        super().__init__(layout)
        self._bed = Bed(layout.kube)
        self._read_to = 0
        self.owners: dict[str, Mapping[str, Any]] = {}
        """Deployments and StatefulSets as they are, by name."""
        self.owners_first: dict[str, Mapping[str, Any]] = {}
        self.nodes: dict[str, Mapping[str, Any]] = {}
        self.autoscalers: dict[str, Mapping[str, Any]] = {}
        self.lease: Mapping[str, Any] = {}
        self.lease_first: Mapping[str, Any] = {}
        self.lease_changed_at: Instant | None = None
        """When the lease was first seen with another epoch than at the start."""
        self.uids_seen: dict[str, list[str]] = {}
        """Every pod ever seen of a workload, by uid."""
        self.writes: list[Write] = []
        """In the order in which they were carried out."""
        self.fenced = 0
        """Writes of our control plane that the API server refused for their epoch."""

    def _look_at_workloads(self) -> None:
        self._read_audit()
        pids = self._pids()
        pods = self._bed.pods()
        found = [one for kind in _KINDS for one in self._bed.items(f"/apis/apps/v1/namespaces/{EXCHANGE}/{kind}")]
        self.owners = {one["metadata"]["name"]: one for one in found}
        self.nodes = {one["metadata"]["name"]: one for one in self._bed.items("/api/v1/nodes")}
        scalers = self._bed.items(f"/apis/autoscaling/v2/namespaces/{EXCHANGE}/horizontalpodautoscalers")
        self.autoscalers = {one["metadata"]["name"]: one for one in scalers}
        self.lease = self._bed.request("GET", LEASE).get("spec", {})
        epochs = self.lease.get("leaseTransitions"), self.lease_first.get("leaseTransitions")
        if self.lease_first and self.lease_changed_at is None and epochs[0] != epochs[1]:
            self.lease_changed_at = now()
        self.workloads = {name: _status(name, one, pods, pids) for name, one in self.owners.items()}
        for name, status in self.workloads.items():
            seen = self.uids_seen.setdefault(name, [])
            seen += [replica.uid for replica in status.replicas if replica.uid not in seen]

    def _pids(self) -> dict[str, int]:
        """Return the processes that the pod host runs, by the pod's uid, and note those of the platform."""
        seen = self._get(self.addresses.estate + "/v1/workloads")
        pids: dict[str, int] = {}
        for status in msgspec.convert(seen, list[WorkloadStatus]):
            for replica in status.replicas:
                if replica.pid is not None and psutil.pid_exists(replica.pid):
                    pids[replica.uid] = replica.pid
                    known = self.pids_seen.setdefault(replica.id, [])
                    known += [replica.pid] if replica.pid not in known else []
        return pids

    def _read_audit(self) -> None:
        """Read on in the audit log."""
        with self._bed.audit_log.open("rb") as file:
            file.seek(self._read_to)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.split(b"\n"):
            if ACCOUNT.encode() in line:
                self._note(msgspec.json.decode(line))

    def _note(self, record: Mapping[str, Any]) -> None:
        of, status = record.get("objectRef", {}), record.get("responseStatus", {})
        if record["user"]["username"] != ACCOUNT or record["verb"] in {"get", "list", "watch"}:
            return
        resource = "/".join(filter(None, (of.get("resource", ""), of.get("subresource", ""))))
        if (
            _is_dry(record)
            or of.get("namespace") == CONTROL
            or resource == "events"
            or "authorization" in of.get("apiGroup", "")
        ):
            return
        if status.get("code", 0) >= 300:  # noqa: PLR2004 - HTTP's own number
            self.fenced += "fenced:" in str(status.get("message", ""))
            return
        at = from_rfc3339(str(record["requestReceivedTimestamp"]))
        self.writes.append(Write(at, record["verb"], resource, of.get("name", ""), _epoch(record)))

    def timings(self, opened: int | None) -> dict[str, float | None]:
        """Return the time from the incident to the first write, as the API server received it, in seconds."""
        first = self.writes[0].at if self.writes else None
        span = None if first is None or opened is None else round((first - opened) / SECOND, 3)
        return {"incident_to_first_write_s": span}

    def remember_start(self) -> None:
        """Take what is seen now as how things were before anything was broken."""
        super().remember_start()
        self.owners_first, self.lease_first = dict(self.owners), dict(self.lease)
        self.writes.clear()


def _status(name: str, owner: Mapping[str, Any], pods: list[dict[str, Any]], pids: Mapping[str, int]) -> WorkloadStatus:
    mine = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/name") == name]
    meta = owner["metadata"]
    replicas = tuple(
        Replica(
            pod["metadata"]["name"], pids.get(pod["metadata"]["uid"]), pod["metadata"]["uid"],
            pod["status"].get("phase") == "Running", is_ready(pod), "", None,
        )
        for pod in mine
    )  # fmt: skip
    return WorkloadStatus(
        name, int(owner["spec"].get("replicas", 1)), replicas, int(meta["generation"]),
        meta.get("annotations", {}).get("tapewatch.example/singleton") == "true", RUNBOOK, now(),
    )  # fmt: skip


def is_ready(thing: Mapping[str, Any]) -> bool:
    """Tell whether a pod or a node says that it is ready."""
    conditions = thing["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _is_dry(record: Mapping[str, Any]) -> bool:
    asked = record.get("requestObject") or {}
    return "dryRun=All" in record.get("requestURI", "") or bool(
        asked.get("dryRun") or asked.get("deleteOptions", {}).get("dryRun")
    )


def _epoch(record: Mapping[str, Any]) -> str:
    """Return the epoch a write carries: in its annotation, or in its field manager where annotations do not reach."""
    asked = record.get("requestObject") or {}
    epoch = asked.get("metadata", {}).get("annotations", {}).get(EPOCH) if isinstance(asked, dict) else None
    if epoch is not None:
        return str(epoch)
    _, _, manager = str(record.get("requestURI", "")).partition("fieldManager=tapewatch-")
    return manager.partition("&")[0]
