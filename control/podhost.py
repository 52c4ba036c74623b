"""The pod host (`python -m control.podhost CONFIG`): the container runtime of a cluster whose pods are simulated.

For every pod of the exchange that a node is to run it runs the real process of the pod's role, and says in the pod
whether that process is ready. So a hung process is an unready pod, and an evicted pod ends a process.

Rule 1: a pod is hosted while it is annotated `testbed/host: "true"`, runs, is not being deleted, its image is neither
        broken nor crashing, and its node lives. Nothing else is looked at, and nothing else is ever started.
Rule 2: two processes never have the same port at the same time. A role with a port of its own (the engine) waits until
        the process before has ended, however long that takes: there is one writer of the journal.
Rule 3: a process that ends by itself is started anew, later each time, and counted as a restart of the pod's container.
        One that hangs is not: here liveness probes are left to whoever watches the pod.
Rule 4: processes live without the API server. What could not be said of a pod is said when it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette

from control.addresses import HOST, url_of
from control.calls import call
from control.child import PYTHON, Child, Slot, now, probe
from control.config import RoleConfig, load_config, save_config
from control.layout import Layout
from exchange.adapters.http import HttpServer, common_routes, listen, read_secret
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TapewatchError
from kernel.time import Instant, to_rfc3339
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from runbooks.adapters.kubernetes.api import MERGE, Api, GoneError, connect
from runbooks.adapters.kubernetes.watch import Watch

NAMESPACE: Final = "exchange"
HOSTED: Final = "testbed/host"
ROLE: Final = "tapewatch.example/role"
UNREADY: Final = "testbed-unready"
"""The label by which a simulated kubelet is told whether a pod is ready."""
LOST: Final = "testbed-notready"
"""The label of a node whose kubelet is gone."""
ROLES: Final = ("engine", "market-data", "settlement", "watchdog", "gateway")
"""In the order of a start; the other way round in that of a stop."""
DRAIN_S: Final = 6.0
"""How long a deleted gateway goes on: Prometheus learns of it within five seconds, and must not see a death."""
GRACE_S: Final = 3.0
BACK_OFF_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
PROBE_STARTING_S: Final = 0.2
PROBE_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 0.9
FAILURES: Final = 2
"""So many probes in a row must fail before a ready pod is not: the manifests' own `failureThreshold`."""
AGAIN_S: Final = 0.5
LAST_WORD_S: Final = 1.0
"""How long the pod of a process that ends may take to be told."""
_PORTS: Final = (20_000, 32_000)
"""Below the kernel's range for outgoing connections."""
_NEVER_RUNS: Final = re.compile("broken|crash")
"""Images that the simulated kubelets let fail."""


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Of an object's metadata, what is read here."""

    name: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str = ""


class Container(msgspec.Struct, frozen=True):
    """Of a container, what is read here."""

    name: str = ""
    image: str = ""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Of a pod's specification, what is read here."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class PodStatus(msgspec.Struct, frozen=True):
    """Of a pod's status, what is read here."""

    phase: str = ""


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def role(self) -> str:
        """What of the exchange it runs."""
        return self.metadata.annotations.get(ROLE, "")

    @property
    def workload(self) -> str:
        """Whose pod it is."""
        return self.metadata.labels.get("app.kubernetes.io/name", self.role)

    def is_to_run(self, lost: frozenset[str]) -> bool:
        """Tell whether its process should run now; `lost` are the nodes that are gone."""
        meta, spec = self.metadata, self.spec
        return (
            meta.annotations.get(HOSTED) == "true"
            and self.role in ROLES
            and not meta.deletion_timestamp
            and self.status.phase == "Running"
            and bool(spec.node_name)
            and spec.node_name not in lost
            and not any(_NEVER_RUNS.search(container.image) for container in spec.containers)
        )


class Node(msgspec.Struct, frozen=True):
    """A node."""

    metadata: Meta = Meta()


class _Wanted(msgspec.Struct, frozen=True):
    replicas: int = 1


class Owner(msgspec.Struct, frozen=True):
    """A Deployment or StatefulSet: how many pods it wants."""

    metadata: Meta = Meta()
    spec: _Wanted = _Wanted()


class HostedPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod and its process, as the estate is told."""

    workload: str
    role: str
    id: str
    uid: str
    port: int
    pid: int | None
    ready: bool
    node: str
    restarts: int
    started_at: Instant | None
    leaving: bool = False
    """Deleted, and given time to finish: nobody is sent there any more."""


class HostReport(msgspec.Struct, frozen=True):
    """Everything that is hosted, and how many replicas each workload is to have."""

    pods: tuple[HostedPod, ...]
    wanted: dict[str, int]


class Ports:
    """Which port is whose. A role's own port is given to one pod at a time."""

    def __init__(self, fixed: dict[str, int]) -> None:
        self._fixed = fixed
        self._taken: dict[int, asyncio.Lock] = {port: asyncio.Lock() for port in fixed.values()}

    @contextlib.asynccontextmanager
    async def held(self, role: str) -> Any:
        """Hold a port for a pod of `role`; waits until the one before has let go of it."""
        port = self._fixed.get(role)
        if port is None:
            yield _free_port()
            return
        async with self._taken[port]:
            yield port


def _free_port() -> int:
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(*_PORTS)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((HOST, port))
            return port


class Host:
    """Runs the processes of the pods of one cluster."""

    def __init__(self, config: RoleConfig, api: Api, token: str) -> None:
        """Host for the estate of `config`, speaking to the API server through `api` as the kubelets would."""
        self._config = config
        self._api = api
        self._token = token
        self.layout = Layout(Path(config.state))
        fixed = {"engine": config.engine_http_port, "market-data": config.market_data_port}
        self._ports = Ports({**fixed, "settlement": config.settlement_port})
        clock = SystemClock()
        base = f"/apis/apps/v1/namespaces/{NAMESPACE}"
        self._pods = Watch(api, f"/api/v1/namespaces/{NAMESPACE}/pods", Pod, clock, on_change=self._changed)
        self._nodes = Watch(api, "/api/v1/nodes", Node, clock, on_change=self._changed)
        self._owners = [
            Watch(api, f"{base}/{kind}", Owner, clock, on_change=self._changed)
            for kind in ("deployments", "statefulsets")
        ]
        self._hosted: dict[str, tuple[_Hosted, asyncio.Task[None]]] = {}
        self._stirred = asyncio.Event()
        self._tell = asyncio.Event()
        self.ending = False
        """The whole host is stopping: the cluster goes as well."""

    async def run(self, stop: asyncio.Event) -> None:
        """Host until `stop`; then end the processes in order and return when all are gone."""
        watches: list[Watch[Any]] = [self._pods, self._nodes, *self._owners]
        for watch in watches:
            watch.start()
        telling = asyncio.create_task(self._report())
        stopping = asyncio.create_task(stop.wait())
        for watch in watches:
            await asyncio.wait({stopping, ready := asyncio.create_task(watch.ready())}, return_when="FIRST_COMPLETED")
            ready.cancel()
        while not stop.is_set():
            self._stirred.clear()
            self._reconcile()
            stirred = asyncio.create_task(self._stirred.wait())
            await asyncio.wait({stopping, stirred}, return_when="FIRST_COMPLETED")
            stirred.cancel()
        for watch in watches:
            watch.stop()
        await self._end_all()
        telling.cancel()

    def _changed(self, _: str, __: object) -> None:
        self._stirred.set()
        self._tell.set()

    def _reconcile(self) -> None:
        """Start what is to run and does not, end what is not to run and does."""
        lost = frozenset(
            node.metadata.name for node in self._nodes.objects.values() if node.metadata.labels.get(LOST) == "true"
        )
        there = {pod.metadata.uid: pod for pod in self._pods.objects.values()}
        wanted = {uid: pod for uid, pod in there.items() if pod.is_to_run(lost)}
        for uid in [uid for uid, (_, task) in self._hosted.items() if task.done()]:
            del self._hosted[uid]
        for uid, pod in wanted.items():
            if uid not in self._hosted:
                hosted = _Hosted(pod, self)
                self._hosted[uid] = (hosted, asyncio.create_task(hosted.run(), name=f"pod {pod.metadata.name}"))
        for uid, (hosted, _) in self._hosted.items():
            if uid not in wanted:
                died_with_node = uid in there and there[uid].spec.node_name in lost
                hosted.end(at_once=died_with_node)

    async def _end_all(self) -> None:
        self.ending = True
        for role in reversed(ROLES):
            ending = [(hosted, task) for hosted, task in self._hosted.values() if hosted.pod.role == role]
            for hosted, _ in ending:
                hosted.end(drain=False)
            await asyncio.gather(*(task for _, task in ending), return_exceptions=True)

    # --- what a pod needs of its host -------------------------------------------------------------------------------

    def port_for(self, role: str) -> Any:
        """Return a held port."""
        return self._ports.held(role)

    def slot_for(self, pod: Pod, port: int) -> Slot:
        """Write the configuration of a pod's process and return how it is started."""
        name = pod.metadata.name
        save_config(
            msgspec.structs.replace(self._config, role=pod.role, replica=name, port=port), self.layout.config(name)
        )
        argv = (sys.executable, "-m", "control.roles", str(self.layout.config(name)))
        return Slot(name, port, argv, self.layout.output(name), PYTHON)

    def stirred(self) -> None:
        """Take note that something is to be told, or a pod's task has ended."""
        self._tell.set()
        self._stirred.set()

    async def show_ready(self, pod: Pod, *, ready: bool) -> bool:
        """Have a pod's kubelet show whether it is ready; False when the pod is gone.

        Raises:
            TapewatchError: the API server does not answer or refuses.
        """
        label = {"metadata": {"labels": {UNREADY: "false" if ready else "true"}}}
        try:
            await self._api.send("PATCH", _path(pod), label, msgspec.Raw, content_type=MERGE)
        except GoneError:
            return False
        return True

    async def show_restarts(self, pod: Pod, restarts: int, exit_code: int) -> bool:
        """Note in a pod how often its container was started anew, and how it ended last; False when the pod is gone.

        Raises:
            TapewatchError: the API server does not answer or refuses, or the kubelet wrote in between.
        """
        try:
            now_there: dict[str, Any] = await self._api.get(_path(pod), dict)
            statuses = now_there["status"].get("containerStatuses", [])
            if statuses:  # the list is replaced as a whole: what the kubelet says of a container must be kept
                ended = {"exitCode": exit_code, "reason": "Error", "finishedAt": to_rfc3339(now())}
                statuses[0] |= {"restartCount": restarts, "lastState": {"terminated": ended}}
            version = {"resourceVersion": now_there["metadata"]["resourceVersion"]}
            body = {"metadata": version, "status": {"containerStatuses": statuses}}
            await self._api.send("PATCH", _path(pod) + "/status", body, msgspec.Raw, content_type=MERGE)
        except GoneError:
            return False
        return True

    async def _report(self) -> None:
        """Tell the estate what is hosted, whenever that has changed."""
        while True:
            await self._tell.wait()
            self._tell.clear()
            url = url_of(self._config.estate_port) + "/v1/pods"
            try:
                await asyncio.to_thread(call, "POST", url, token=self._token, body=self._everything(), timeout_s=2)
            except TapewatchError as error:
                sys.stderr.write(f"{to_rfc3339(now())} the estate was not told: {error}\n")
                await asyncio.sleep(AGAIN_S)
                self._tell.set()
            await asyncio.sleep(0.02)  # changes come in swarms

    def _everything(self) -> HostReport:
        pods = sorted((hosted.described() for hosted, task in self._hosted.values() if not task.done()), key=_by_name)
        owners = [owner for watch in self._owners for owner in watch.objects.values()]
        return HostReport(tuple(pods), {owner.metadata.name: owner.spec.replicas for owner in owners})


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.metadata.name}"


def _by_name(pod: HostedPod) -> str:
    return pod.id


class _Hosted:
    """One pod's process, from the first start until the pod is not to run any more."""

    def __init__(self, pod: Pod, host: Host) -> None:
        self.pod = pod
        self._host = host
        self._child: Child | None = None
        self._ended = asyncio.Event()
        self._drain_s = 0.0
        self._exited = asyncio.Event()
        self._restarts = 0
        self._counted = 0
        self._exit_code = 0
        self._said: bool | None = None
        """The readiness the pod was last told to show."""
        self._ready = False
        self._to_say = asyncio.Event()

    def end(self, *, at_once: bool = False, drain: bool = True) -> None:
        """Run it no longer: after a while in which nobody new is sent there, or at once."""
        if self._ended.is_set():
            return
        drains = drain and not at_once and self.pod.role == "gateway"
        self._drain_s = DRAIN_S if drains else 0.0
        self._ended.set()
        if at_once and self._child is not None:
            self._child.stopping = True
            self._child.signal(signal.SIGKILL)
        self._host.stirred()

    def described(self) -> HostedPod:
        """Return what the estate is told."""
        child, meta = self._child, self.pod.metadata
        return HostedPod(
            workload=self.pod.workload, role=self.pod.role, id=meta.name, uid=meta.uid,
            port=0 if child is None else child.slot.port, pid=None if child is None else child.pid, ready=self._ready,
            node=self.pod.spec.node_name, restarts=self._restarts,
            started_at=None if child is None else child.started_at, leaving=self._ended.is_set(),
        )  # fmt: skip

    async def run(self) -> None:
        """Live."""
        saying = asyncio.create_task(self._say())
        try:
            async with self._host.port_for(self.pod.role) as port:
                slot = self._host.slot_for(self.pod, port)
                while not self._ended.is_set():
                    await self._live_once(slot)
        finally:
            self._show(ready=False)
            if not self._host.ending:
                await asyncio.wait({saying}, timeout=LAST_WORD_S)  # a pod that is gone ends it at once
            saying.cancel()
            self._host.stirred()

    async def _live_once(self, slot: Slot) -> None:
        """Start the process and stay with it until it ends; wait before the next start."""
        child = self._child = Child(slot, self._has_exited)
        self._exited.clear()
        child.start()
        self._host.stirred()
        await self._watch(child)
        self._show(ready=False)
        if self._ended.is_set():
            if self._drain_s and child.running and child.was_ready and not child.suspended():
                await asyncio.sleep(self._drain_s)
            await child.stop(GRACE_S)
            return
        self._restarts += 1
        code = child.exit_code or 0
        self._exit_code = code if code >= 0 else 128 - code  # as a shell tells of a signal
        self._to_say.set()
        sys.stderr.write(f"{to_rfc3339(now())} {slot.id} ended with {child.exit_code}: {child.last_words()}\n")
        pause_s = BACK_OFF_S[min(self._restarts, len(BACK_OFF_S)) - 1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s or 0.01):
                await self._ended.wait()

    async def _watch(self, child: Child) -> None:
        """Probe until the process ends or is to end."""
        failed = 0
        while child.running and not self._ended.is_set():
            ok = await probe(child.slot.port, "/health/ready", timeout_s=PROBE_TIMEOUT_S) == 200  # noqa: PLR2004 - HTTP's own number
            failed = 0 if ok else failed + 1
            child.was_ready |= ok
            if ok or failed >= FAILURES:
                self._show(ready=ok and child.running)
            pause_s = PROBE_S if self._ready and not failed else PROBE_STARTING_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stirred()

    async def _stirred(self) -> None:
        waits = [asyncio.create_task(self._ended.wait()), asyncio.create_task(self._exited.wait())]
        try:
            await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        finally:
            for each in waits:
                each.cancel()

    def _has_exited(self, _: Child, __: int) -> None:
        self._exited.set()

    # --- what the pod is told to show -------------------------------------------------------------------------------

    def _show(self, *, ready: bool) -> None:
        if ready != self._ready or self._said is None:
            self._ready = ready
            self._to_say.set()
            self._host.stirred()

    async def _say(self) -> None:
        """Bring the pod to what is so; tried again until it is said, or the pod is gone."""
        while True:
            await self._to_say.wait()
            self._to_say.clear()
            ready, restarts = self._ready, self._restarts
            try:
                if ready is not self._said:
                    if not await self._host.show_ready(self.pod, ready=ready):
                        return
                    self._said = ready
                if restarts != self._counted:
                    if not await self._host.show_restarts(self.pod, restarts, self._exit_code):
                        return
                    self._counted = restarts
            except TapewatchError as error:
                sys.stderr.write(f"{to_rfc3339(now())} {self.pod.metadata.name} was not told: {error}\n")
                await asyncio.sleep(AGAIN_S)
                self._to_say.set()


async def serve(config: RoleConfig) -> int:
    """Host until SIGTERM or SIGINT; returns the exit code.

    Raises:
        TapewatchError: the cluster cannot be reached at all.
    """
    if config.kube is None:
        raise PermanentError("the pod host is told of no cluster; start it through `tapewatch up --on kubernetes`")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    token = read_secret(Layout(Path(config.state)).secret("admin"))
    async with Api(connect(Path(config.kube.kubeconfig)), threads=6) as api:
        host = Host(config, api, token)
        app = Starlette(routes=common_routes(Exporter(Role.ESTATE), lambda: (True, "hosting")))
        server = HttpServer(app, listen(config.port))
        await server.start()
        await host.run(stop)
        await server.stop()
    return 0


def main(arguments: list[str]) -> int:
    """Run the pod host of a configuration; return the exit code."""
    try:
        return asyncio.run(serve(load_config(Path(arguments[0]))))
    except (TapewatchError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
