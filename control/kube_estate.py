"""An estate whose exchange runs as the pods of a Kubernetes test bed of its own.

The order of a start: the test bed, the manifests, the pod host, the exchange's pods; then the platform's processes as
in a local estate. What the pod host says of its pods stands in the estate's interface, address book and Prometheus
targets as if the estate ran them itself, so that everybody finds them as usual.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from control import plan
from control.addresses import ReplicaAddress, url_of
from control.child import Child, Slot, now, probe
from control.estate import Estate
from control.kube_bed import ROOT, Bed, keeper_argv
from control.podhost import HostReport
from control.supervisor import FAULT_SIGNALS, RUNBOOK, Supervisor
from control.testbed import background
from kernel.errors import InputError, PermanentError
from runbooks.ports import Replica, WorkloadStatus

BED_WITHIN_S: Final = 90.0
PODS_WITHIN_S: Final = 90.0
LEADER_WITHIN_S: Final = 30.0
LOOK_S: Final = 0.25
SINGLETONS: Final = frozenset({"engine"})


class KubeSupervisor(Supervisor):
    """The platform's processes, and what the pod host says of the exchange's pods."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Lay out as `Supervisor` does; no pods are known yet."""
        super().__init__(*arguments, **named)
        self.hosted = HostReport((), {})

    def take(self, report: HostReport) -> None:
        """Take note of what the pod host says."""
        self.hosted = report
        self._on_change()

    def all(self) -> list[WorkloadStatus]:
        """Return every workload, pods first."""
        return [*(self._pods_of(name) for name in sorted(self.hosted.wanted)), *super().all()]

    def status(self, workload: str) -> WorkloadStatus:
        """Return one workload."""
        return self._pods_of(workload) if workload in self.hosted.wanted else super().status(workload)

    def _pods_of(self, workload: str) -> WorkloadStatus:
        there = [pod for pod in self.hosted.pods if pod.workload == workload and not pod.leaving]
        replicas = tuple(
            Replica(pod.id, pod.pid, pod.uid, pod.pid is not None, pod.ready, url_of(pod.port), pod.started_at)
            for pod in there
        )
        return WorkloadStatus(
            workload, self.hosted.wanted[workload], replicas, 0, workload in SINGLETONS, RUNBOOK, now(),
            restarts=sum(pod.restarts for pod in there),
        )  # fmt: skip

    def targets(self) -> dict[str, list[tuple[str, int]]]:
        """Return Prometheus's targets: for each job its replicas and their ports."""
        jobs = {status.name: self._targets_of(status.name) for status in Supervisor.all(self)}
        for role in {pod.role for pod in self.hosted.pods}:
            jobs[role] = [
                (pod.id, pod.port) for pod in self.hosted.pods if pod.role == role and pod.port and not pod.leaving
            ]
        return jobs

    def _targets_of(self, name: str) -> list[tuple[str, int]]:
        return [(slot.id, slot.port) for slot in self.slots(name)]

    def signal(self, replica: str, name: str) -> None:
        """Send a signal to a replica, or to the process of a pod, as a fault would.

        Raises:
            InputError: the signal is not one of those.
            PermanentError: no such replica or pod, or it does not run.
        """
        pod = next((pod for pod in self.hosted.pods if pod.id == replica), None)
        if pod is None:
            super().signal(replica, name)
            return
        number = FAULT_SIGNALS.get(name.upper().removeprefix("SIG"))
        if number is None:
            raise InputError("signal", f"{name!r} is not known", right=f"allowed are {', '.join(FAULT_SIGNALS)}")
        if pod.pid is None:
            raise PermanentError(f"{replica} does not run, so it cannot be signalled")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pod.pid, number)
        self._log("warn", f"{replica} was sent SIG{name.upper().removeprefix('SIG')}", replica=replica)


@dataclass
class KubeEstate(Estate):
    """A running estate on Kubernetes."""

    leader: int = 0
    """The port of the control process that leads."""
    _keeper: Child | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def supervisor(self) -> KubeSupervisor:
        """The processes."""
        assert isinstance(self._supervisor, KubeSupervisor), "the estate has not begun"
        return self._supervisor

    def supervisor_kind(self) -> type[Supervisor]:
        """Return who keeps the processes."""
        return KubeSupervisor

    def pods_told(self) -> Callable[[bytes], None]:
        """Return what takes the pod host's words."""
        decode = msgspec.json.Decoder(HostReport).decode
        return lambda body: self.supervisor.take(decode(body))

    def jobs(self) -> dict[str, list[tuple[str, int]]]:
        """Return Prometheus's targets."""
        return self.supervisor.targets()

    def address_of(self, replica: Replica) -> ReplicaAddress:
        """Return a replica's entry in the address book: of a pod, with its readiness."""
        is_pod = any(pod.id == replica.id for pod in self.supervisor.hosted.pods)
        return ReplicaAddress(replica.id, replica.url, replica.pid, replica.ready or not is_pod)

    def control_port(self) -> int:
        """Return where the leader listens; the first process's port while nobody leads."""
        return self.leader or self.ports.control

    async def start(self) -> None:
        """Start the cluster, the exchange's pods, then the platform.

        Raises:
            PermanentError: something does not come up; says which and what it last said.
        """
        await self._unless_stopped(asyncio.ensure_future(self._start_cluster()))
        await self._unless_stopped(asyncio.ensure_future(self._start_pods()))
        await self._reopen()
        for group in plan.KUBE_START_ORDER:
            await self._start_group(group)
            if "control" in group:
                self._tasks.append(asyncio.create_task(self._follow_leader(), name="who leads"))
                await self._unless_stopped(asyncio.ensure_future(self._await_leader()))
        self.phase = "up"
        self.publish()

    async def _start_cluster(self) -> None:
        began_s = time.monotonic()
        directory = self.layout.kube
        argv = keeper_argv(directory)
        slot = Slot("testbed-1", 0, argv, self.layout.output("testbed-1"), self._environment())
        self._keeper = keeper = Child(slot, self._keeper_ended)
        keeper.start()
        while background.running(directory) is None:
            if not keeper.running:
                raise PermanentError(f"the test bed ended with code {keeper.exit_code}: {keeper.last_words()}")
            if time.monotonic() - began_s > BED_WITHIN_S:
                raise PermanentError(f"the test bed was not ready within {BED_WITHIN_S:g} s: {keeper.last_words()}")
            await asyncio.sleep(0.05)
        bed = Bed(directory)
        self.say(f"Kubernetes {bed.kept.version}: ready after {time.monotonic() - began_s:.1f} s")
        self.say(f"kubectl is `{bed.kept.binary} kubectl --kubeconfig {bed.kept.kubeconfig} -n exchange`")
        await asyncio.to_thread(self._refuse_another, bed)
        began_s = time.monotonic()
        await asyncio.to_thread(bed.install)
        for account in ("tapewatch", "tapewatch-kube-state"):
            await asyncio.to_thread(bed.kubeconfig_of, account)
        self.say(f"exchange and control plane applied after {time.monotonic() - began_s:.1f} s")

    def _refuse_another(self, bed: Bed) -> None:
        """Refuse a pinned cluster before anything is put into this one, which is new each time."""
        found, wanted = bed.cluster_id(), self.settings.cluster_id
        if wanted and wanted != found:
            right = "leave it out for a test bed; it pins a cluster of your own"
            raise InputError(f"setting cluster_id is {wanted[:60]}", f"this is the cluster {found}", right=right)

    def _environment(self) -> dict[str, str]:
        binary = {"TAPEWATCH_TESTBED": self.settings.testbed} if self.settings.testbed else {}
        return {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **binary}

    def _keeper_ended(self, child: Child, code: int) -> None:
        if not child.stopping:
            self.log("error", f"the test bed ended with code {code}: {child.last_words()}", code=code)
            self.say(f"the test bed ended with code {code}: the cluster is gone")

    async def _start_pods(self) -> None:
        began_s = time.monotonic()
        await self.supervisor.start("podhost")
        while not self._pods_ready():
            if time.monotonic() - began_s > PODS_WITHIN_S:
                seen = ", ".join(f"{one.name} {one.ready} of {one.desired}" for one in self._exchange())
                raise PermanentError(f"the exchange's pods were not ready within {PODS_WITHIN_S:g} s: {seen or 'none'}")
            await asyncio.sleep(0.05)
        count = sum(one.ready for one in self._exchange())
        self.say(f"the exchange: {count} pods ready after {time.monotonic() - began_s:.1f} s")

    def _exchange(self) -> list[WorkloadStatus]:
        return [self.supervisor.status(name) for name in self.supervisor.hosted.wanted]

    def _pods_ready(self) -> bool:
        found = self._exchange()
        return bool(found) and all(one.is_settled for one in found)

    async def _await_leader(self) -> None:
        deadline_s = time.monotonic() + LEADER_WITHIN_S
        while not self.leader:
            if time.monotonic() > deadline_s:
                words = "; ".join(f"{name}: {told}" for name, told in self.supervisor.last_words("control").items())
                raise PermanentError(f"no control process leads after {LEADER_WITHIN_S:g} s; last words: {words}")
            await asyncio.sleep(0.05)

    async def _follow_leader(self) -> None:
        """Keep the address book on the control process that leads."""
        while True:
            for slot in self.supervisor.slots("control"):
                leads = await probe(slot.port, "/health/ready", timeout_s=0.9) == 200  # noqa: PLR2004 - HTTP's own number
                if leads and slot.port != self.leader:
                    self.leader = slot.port
                    self.log("info", f"{slot.id} leads")
                    self.publish()
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Stop the platform, the exchange's processes and the cluster, in order."""
        await super().stop()
        await self.end_own()

    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups in which the processes are stopped."""
        return plan.KUBE_STOP_ORDER

    async def end_own(self) -> None:
        """End the test bed; nothing happens when it does not run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            await self._keeper.stop(10.0)
