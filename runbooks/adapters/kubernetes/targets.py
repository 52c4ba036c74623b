"""The allow-list: which objects of a cluster may be touched, and the short names runbooks use for them.

An entry names one object: `exchange/Deployment/gateway`. There are no wildcards but `Node/*`, because nodes come and
go by themselves: a list that could match everything is no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kernel.errors import InputError
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""A DNS-1123 subdomain: the name of an object."""
NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PREFIXES: Final[Mapping[str, str]] = {
    "Deployment": "",
    "StatefulSet": "",
    "ConfigMap": "config:",
    "Service": "service:",
    "CronJob": "job:",
    "Node": "node:",
}
"""Kinds that may be touched, and what their targets begin with."""
PATHS: Final[Mapping[str, str]] = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{namespace}/statefulsets",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "CronJob": "/apis/batch/v1/namespaces/{namespace}/cronjobs",
    "Node": "/api/v1/nodes",
}
WORKLOADS: Final = ("Deployment", "StatefulSet")
ANY_NODE: Final = "Node/*"


class Target(msgspec.Struct, frozen=True):
    """One object that may be touched."""

    namespace: str
    kind: str
    name: str

    @property
    def short(self) -> str:
        """What runbooks call it: `gateway`, `config:exchange-flags`, `node:n1`."""
        return PREFIXES[self.kind] + self.name

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return f"{PATHS[self.kind].format(namespace=self.namespace)}/{self.name}"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.namespace, self.kind, self.name)))


class Targets:
    """The allow-list, by short name."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Read the entries.

        Raises:
            InputError: one is not `namespace/Kind/name` (or `Node/name`), its kind is unknown, it would match more than
                one object, or two have the same short name.
        """
        self._by_name: dict[str, Target] = {}
        self.any_node = False
        for entry in entries:
            if entry == ANY_NODE:
                self.any_node = True
                continue
            target = parse_target(entry)
            taken = self._by_name.get(target.short)
            if taken is not None:
                right = "give one of them another name, or leave it out"
                raise InputError("allow-list", f"{taken} and {target} are both called {target.short}", right=right)
            self._by_name[target.short] = target

    @property
    def workloads(self) -> list[Target]:
        """The Deployments and StatefulSets."""
        return [target for target in self._by_name.values() if target.kind in WORKLOADS]

    @property
    def others(self) -> list[Target]:
        """Everything else that is named."""
        return [target for target in self._by_name.values() if target.kind not in WORKLOADS]

    @property
    def namespaces(self) -> list[str]:
        """Every namespace with something that may be touched."""
        return sorted({target.namespace for target in self._by_name.values() if target.namespace})

    def find(self, short: str) -> Target:
        """Return what a short name stands for.

        Raises:
            RefusedError: `NO_TARGET`; what is not on the list is no target, an empty name never is.
        """
        target = self._by_name.get(short)
        name = short.removeprefix("node:")
        if target is None and self.any_node and short.startswith("node:") and NAME.fullmatch(name):
            return Target("", "Node", name)
        if target is None:
            known = ", ".join(sorted(self._by_name)) or "nothing"
            words = f"{short!r} is not on the allow-list" if short else "an empty name is no target"
            raise RefusedError(RefusalReason.NO_TARGET, f"{words}; allowed is {known}")
        return target

    def workload(self, short: str) -> Target:
        """Return the workload a short name stands for.

        Raises:
            RefusedError: `NO_TARGET`, also for what is no workload.
        """
        target = self.find(short)
        if target.kind not in WORKLOADS:
            raise RefusedError(RefusalReason.NO_TARGET, f"{target} is no workload")
        return target


def parse_target(entry: str) -> Target:
    """Read one entry of the allow-list.

    Raises:
        InputError: it does not name exactly one object of a kind that may be touched.
    """
    right = "write namespace/Kind/name, such as exchange/Deployment/gateway"
    parts = entry.split("/")
    if "*" in entry:
        raise InputError(
            "allow-list", f"{entry[:80]!r} would match more than one object", right=f"{right}, or {ANY_NODE}"
        )
    if len(parts) == 2 and parts[0] == "Node":  # noqa: PLR2004 - a kind and a name
        parts = ["", *parts]
    if len(parts) != 3:  # noqa: PLR2004 - namespace, kind, name
        raise InputError("allow-list", f"{entry[:80]!r} is no entry", right=right)
    namespace, kind, name = parts
    if kind not in PREFIXES:
        raise InputError(
            f"allow-list: {entry[:80]}", f"no {kind!r} may be touched", right=f"kinds: {', '.join(PREFIXES)}"
        )
    if not NAME.fullmatch(name) or (kind != "Node" and not NAMESPACE.fullmatch(namespace)):
        raise InputError("allow-list", f"{entry[:80]!r} has a name no object can have", right=right)
    return Target(namespace, kind, name)
