"""What a test asks of a test bed beside its API: what was sent to it, and a namespace to work in."""

from __future__ import annotations

import json
import uuid
from typing import Any

from control.testbed.cluster import Cluster


class Audit:
    """What the API server was asked since this was made, or since the last `mark`."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.audit_log
        self._from = 0
        self.mark()

    def mark(self) -> None:
        """Forget what was asked before."""
        self._from = self._path.stat().st_size

    def records(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the records, oldest first; `verb="patch"`, `resource=`, `subresource=`, `namespace=`, `name=`,
        `user=` narrow them. A record may come a moment after its answer."""
        with self._path.open("rb") as file:
            file.seek(self._from)
            lines = file.read().split(b"\n")[:-1]
        found = [json.loads(line) for line in lines]
        return [one for one in found if all(_field(one, name) == value for name, value in wanted.items())]

    def writes(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the records of what changes something, dry runs included."""
        return [one for one in self.records(**wanted) if one["verb"] not in {"get", "list", "watch"}]


def _field(record: dict[str, Any], name: str) -> Any:
    if name == "verb":
        return record["verb"]
    if name == "user":
        return record.get("user", {}).get("username", "")
    return record.get("objectRef", {}).get(name, "")


def new_namespace(cluster: Cluster, name: str = "") -> str:
    """Make a namespace and wait until pods can be made in it."""
    name = name or f"t-{uuid.uuid4().hex[:8]}"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    cluster.wait("the default service account", lambda: cluster.request("GET", account))
    return name
