"""The drill's own eyes: it looks at Alertmanager, the estate, control, the engine and Prometheus.

Every look is a call to a real interface. What was seen once stays seen: alerts and processes come and go within a
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
import psutil

from control.addresses import Addresses, load_addresses
from control.calls import call, fetch
from control.layout import Layout
from kernel.errors import TapewatchError, TemporaryError
from kernel.time import Instant
from runbooks.ports import WorkloadStatus

PACE_S: Final = 0.1
_TIMEOUT_S: Final = 1.5


class Witness:
    """What has been seen of an estate so far."""

    def __init__(self, layout: Layout) -> None:
        """Watch the estate of `layout`, which must be up."""
        self._layout = layout
        self._admin = layout.secret("admin").read_text().strip()
        self.alerts_seen: dict[str, Mapping[str, Any]] = {}
        """Every alert ever seen in Alertmanager, by fingerprint, as first seen."""
        self.alerts: Sequence[Mapping[str, Any]] = ()
        self.suppressed_most = 0
        self.workloads: dict[str, WorkloadStatus] = {}
        self.workloads_first: dict[str, WorkloadStatus] = {}
        self.incidents: Sequence[Mapping[str, Any]] = ()
        self.runs: Sequence[Mapping[str, Any]] = ()
        self.timelines: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.engine: Mapping[str, Any] = {}
        self.halted_first: dict[str, int] = {}
        self.pids_seen: dict[str, list[int]] = {}
        self.switch_thrown_at: Instant | None = None
        self.started_at: Instant | None = None
        """Since when everything is remembered: nothing was broken before."""

    @property
    def addresses(self) -> Addresses:
        """The estate's present addresses."""
        return load_addresses(self._layout.addresses)

    async def watch(self) -> None:
        """Look around until cancelled. Who does not answer is looked at again the next time."""
        looks = (self._look_at_alerts, self._look_at_workloads, self._look_at_control, self._look_at_engine)
        await asyncio.gather(*(self._keep_looking(look) for look in looks))

    async def _keep_looking(self, look: Any) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(TapewatchError):  # not answering is a fact too: nothing new is seen
                await asyncio.to_thread(look)
            await asyncio.sleep(max(PACE_S - (time.monotonic() - began), 0.02))

    def _look_at_alerts(self) -> None:
        self.alerts = self._get(self.addresses.alertmanager + "/api/v2/alerts")
        for alert in self.alerts:
            self.alerts_seen.setdefault(str(alert["fingerprint"]), {**alert, "seen_at": time.time_ns()})
        suppressed = sum(alert["status"]["state"] == "suppressed" for alert in self.alerts)
        self.suppressed_most = max(self.suppressed_most, suppressed)

    def _look_at_workloads(self) -> None:
        found = msgspec.convert(self._get(self.addresses.estate + "/v1/workloads"), list[WorkloadStatus])
        self.workloads = {status.name: status for status in found}
        for status in found:
            for replica in status.replicas:
                if replica.pid is not None and psutil.pid_exists(replica.pid):
                    pids = self.pids_seen.setdefault(replica.id, [])
                    pids += [replica.pid] if replica.pid not in pids else []

    def _look_at_control(self) -> None:
        base = self.addresses.control
        self.incidents = self._get(base + "/api/v1/incidents?all=true")
        self.runs = self._get(base + "/api/v1/runs")
        for incident in self.incidents:
            known = self.timelines.get(incident["id"], ())
            if len(known) != incident["entries"]:
                answer = self._get(f"{base}/api/v1/incidents/{quote(incident['id'])}/timeline")
                self.timelines[incident["id"]] = answer["entries"]

    def _look_at_engine(self) -> None:
        self.engine = self._get(self.addresses.engine + "/v1/status")
        for symbol in self.engine["halted_symbols"]:
            self.halted_first.setdefault(symbol, time.time_ns())
        if self.engine["market_halted"]:
            self.halted_first.setdefault("", time.time_ns())

    def read(self, query: str) -> tuple[float, float] | None:
        """Ask Prometheus directly: the value and its age in seconds; None without exactly one number."""
        try:
            answer = self._get(f"{self.addresses.prometheus}/api/v1/query?query={quote(query)}")
        except TapewatchError:
            return None
        result = answer.get("data", {}).get("result", []) if isinstance(answer, dict) else []
        if len(result) != 1:
            return None
        at, value = result[0]["value"]
        return float(value), time.time() - float(at)

    def postmortem(self, incident_id: str) -> str:
        """Return the report of an incident as it is now, as Markdown; empty when there is none."""
        url = f"{self.addresses.control}/api/v1/incidents/{quote(incident_id)}/postmortem?format=md"
        try:
            return fetch("GET", url, token=self._admin).decode(errors="replace")
        except TapewatchError:
            return ""

    def _get(self, url: str) -> Any:
        try:
            return call("GET", url, token=self._admin, timeout_s=_TIMEOUT_S)
        except OSError as error:
            raise TemporaryError(str(error)) from error

    def remember_start(self) -> None:
        """Take what is seen now as how things were before anything was broken."""
        self.started_at = Instant(time.time_ns())
        self.workloads_first = dict(self.workloads)
        self.alerts_seen.clear()
        self.halted_first.clear()

    def timings(self, opened: int | None) -> dict[str, float | None]:
        """Return further spans of the chain in seconds; `opened` is when the incident was."""
        del opened
        return {}

    def entries(self, kind: str) -> list[Mapping[str, Any]]:
        """Return every entry of a kind of every incident, in the order of their times."""
        found = [entry for timeline in self.timelines.values() for entry in timeline if entry["kind"] == kind]
        return sorted(found, key=lambda entry: int(entry["at"]))

    def actions(self, kind: str, workload: str, replica: str = "") -> list[Mapping[str, Any]]:
        """Return the entries of actions on a workload, or on one replica of it."""
        return [
            entry
            for entry in self.entries(kind)
            if entry["data"]["action"].get("workload") == workload
            and (not replica or entry["data"]["action"].get("replica") == replica)
        ]
