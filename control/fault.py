"""A fault: one thing that can be broken, and the running estate it is broken in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control.addresses import Addresses
from control.calls import call
from control.layout import Layout
from kernel.errors import InputError


@dataclass(frozen=True)
class Plant:
    """A running estate, as faults see it."""

    layout: Layout
    addresses: Addresses
    admin: str

    def estate(self, path: str, body: object) -> Any:
        """Ask the estate."""
        return call("POST", self.addresses.estate + path, token=self.admin, body=body)

    def role(self, method: str, replica: str, path: str, body: object = None) -> Any:
        """Ask a replica."""
        return call(method, self._url(replica) + path, token=self.admin, body=body)

    def _url(self, replica: str) -> str:
        workload, _, number = replica.rpartition("-")
        there = self.addresses.workloads.get(workload, ())
        if self.addresses.on == "kubernetes" and number.isdigit() and 0 < int(number) <= len(there):
            return there[int(number) - 1].url  # pods have names of chance: `settlement-1` is the first
        for replicas in self.addresses.workloads.values():
            for each in replicas:
                if each.id == replica:
                    return each.url
        known = ", ".join(each.id for replicas in self.addresses.workloads.values() for each in replicas)
        raise InputError("target", f"there is no replica {replica!r}", right=f"there are {known}")


Change = Callable[[Plant, str, str], None]
"""Takes the plant, the target and the value."""


@dataclass(frozen=True)
class Fault:
    """One thing that can be broken."""

    name: str
    what: str
    cleared_by: str
    target: str
    """The replica or workload it strikes when none is named."""
    value: str
    """Its size when none is given; empty: it has none."""
    inject: Change
    clear: Change
    suffered: Callable[[Plant, str], bool] | None = None
    """Whether a target suffers it now; None: nobody could tell."""
    strikes: str = ""
    """What the name of its target begins with; empty: whoever is struck says itself whether it knows the fault."""
