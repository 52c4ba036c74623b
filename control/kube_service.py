"""Control on Kubernetes: two processes, of which the one that holds the Lease acts and the other stands by.

Standing by, a process opens no store and answers for the leader: webhooks are passed on to it, and a 503 comes back
while there is none, so that Alertmanager tries again. Elected, and only once the API server refuses the epoch before,
it opens the store in its own epoch and becomes what control is anywhere else. Deposed, it ends at once and is started
anew to stand by: half a leader is worse than none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from control import killswitch
from control.addresses import url_of
from control.config import KubeAccess, RoleConfig
from control.election import ElectionTuning
from control.layout import Layout
from control.leader import Leader, LeaderParts
from control.service import Led, wire
from exchange.adapters.http import HttpServer, common_routes, json_response, listen
from kernel.adapters.clock import SystemClock
from kernel.errors import TapewatchError
from kernel.time import seconds
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.fence import Fence
from runbooks.adapters.kubernetes.lease import KubernetesLeases
from runbooks.adapters.kubernetes.ledger import Ledger
from runbooks.adapters.kubernetes.preflight import preflight
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.workloads import KubernetesWorkloads

T = TypeVar("T")

NAMESPACE: Final = "exchange"
DEPOSED: Final = 75
"""Exit code of a leader that is none any more: to be started anew."""
END_S: Final = 5.0
"""A deposed leader that has not ended in order by then ends at once."""
CANCEL_AGAIN_S: Final = 3.0
"""Longer than letting go of a lease takes."""
SWEEP_S: Final = 3600.0
LOOK_S: Final = 10.0
PASS_ON_S: Final = 2.0
"""How long the leader may take for a webhook that is passed on to it."""
MAX_BODY_BYTES: Final = 16 * 2**20


class Front:
    """The one application that is served: the stand-by's, then the leader's."""

    def __init__(self, app: ASGIApp) -> None:
        """Begin with `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let whichever it is now answer."""
        await self.app(scope, receive, send)


class StandBy:
    """What a process answers that does not lead."""

    def __init__(self, peers: tuple[str, ...], exporter: Exporter, why_not: Callable[[], str]) -> None:
        """Pass on to `peers`, other control processes; `why_not` says why this one does not lead."""
        self._peers = peers
        self._exporter = exporter
        self._why_not = why_not

    def app(self) -> Starlette:
        """Return the routes."""
        routes: list[BaseRoute] = [
            *common_routes(self._exporter, lambda: (False, f"standing by: {self._why_not() or 'taking over'}")),
            Route("/api/v1/alerts", self._pass_on, methods=["POST"]),
            Route("/{rest:path}", self._elsewhere, methods=["GET", "POST", "PUT", "DELETE"]),
        ]
        return Starlette(routes=routes)

    async def _pass_on(self, request: Request) -> Response:
        """Have the leader take a webhook, and answer as it does."""
        if request.headers.get("x-tapewatch-passed-on"):
            return self._unavailable()  # two that stand by must not send it round in circles
        data = await _body(request)
        if data is None:
            return json_response({"error": f"the body is longer than {MAX_BODY_BYTES} bytes"}, 413)
        headers = {
            "Authorization": request.headers.get("authorization", ""),
            "Content-Type": request.headers.get("content-type", "application/json"),
            "X-Tapewatch-Passed-On": "1",
        }
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PASS_ON_S)) as session:
            for peer in self._peers:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # 503 tells Alertmanager to come again
                    async with session.post(f"{peer}/api/v1/alerts", data=data, headers=headers) as answer:
                        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
                            continue  # this process itself by its other name, or one that stands by as well
                        return Response(await answer.read(), answer.status, media_type="application/json")
        return self._unavailable()

    async def _elsewhere(self, _: Request) -> Response:
        return self._unavailable()

    def _unavailable(self) -> Response:
        why = self._why_not() or "this process is taking over"
        return json_response({"error": f"standing by: {why}; ask the leader"}, 503, {"Retry-After": "1"})


async def _body(request: Request) -> bytes | None:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            return None
    return bytes(data)


async def serve_led(config: RoleConfig, layout: Layout, stop: asyncio.Event) -> int:
    """Stand by, lead when elected, end when deposed; returns the exit code.

    Raises:
        TapewatchError: it cannot start; the message is one sentence.
    """
    kube = config.kube
    assert kube is not None, "whoever calls has looked"
    elected: asyncio.Queue[int] = asyncio.Queue()
    deposed = asyncio.Event()

    def fall() -> None:
        deposed.set()
        asyncio.get_running_loop().call_later(END_S, os._exit, DEPOSED)

    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        kubeconfig = Path(kube.kubeconfig) if kube.kubeconfig else None
        # The lease has connections of its own: a busy plant must not keep the leader from renewing.
        lease_api = await stack.enter_async_context(Api(connect(kubeconfig, kube.context), read_s=2.0, threads=2))
        api = await stack.enter_async_context(Api(connect(kubeconfig, kube.context)))
        targets = Targets(kube.allowed)
        for warning in (await preflight(api, targets, cluster_id=kube.cluster_id)).warnings:
            _say(warning)

        def why_not() -> str:
            return leader.why_not()

        fence = Fence(api, namespace=NAMESPACE, why_not=why_not)
        leader = Leader(
            LeaderParts(
                leases=KubernetesLeases(lease_api),
                tuning=_tuning(kube),
                identity=f"{config.replica}/{uuid.uuid4().hex[:8]}",
                fence=fence.raise_,
                on_elected=elected.put_nowait,
                on_deposed=fall,
                clock=SystemClock(),
            )
        )
        exporter = Exporter(Role.CONTROL)
        peers = tuple(peer for peer in kube.peers if peer != url_of(config.port))
        front = Front(StandBy(peers, exporter, why_not).app())
        server = HttpServer(front, listener)
        await server.start()
        stack.push_async_callback(server.stop)
        running = asyncio.create_task(leader.run(), name="election")
        stack.push_async_callback(_cancelled, running)
        epoch = await _first(elected.get(), stop, running)
        if epoch is None:
            return 0
        forbidden = partial(_forbidden, layout.kill_switch)
        workloads = KubernetesWorkloads(api, targets, SystemClock(), fence, forbidden=forbidden)
        led = Led(workloads, epoch, why_not, exporter)
        return await _lead(config, layout, led, workloads, front, stop, deposed)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task; asked again when it did not hear, for a wait that was just over swallows a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)


async def _first(work: Coroutine[object, object, T], stop: asyncio.Event, running: asyncio.Task[None]) -> T | None:
    """Return what `work` gives, or None when it is time to stop before; what ends `running` is raised."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((doing, stopping, running), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        running.result()
    if doing.done():
        return doing.result()
    doing.cancel()
    return None


def _forbidden(kill_switch: Path) -> str:
    thrown = killswitch.read(kill_switch)
    return "" if thrown is None else f"the kill switch is {thrown}"


async def _keep_looking(workloads: KubernetesWorkloads) -> None:
    """Look at the plant now and then although nobody asks.

    So what a person scales by hand is seen soon after, and known for young when it matters; and the connections stay
    open, whose making costs more than a look.
    """
    while True:
        with contextlib.suppress(TapewatchError):  # whoever decides looks for itself, and hears why it fails
            await asyncio.gather(workloads.list(), workloads.nodes(), workloads.targets())
        await asyncio.sleep(LOOK_S)


async def _sweep(ledger: Ledger) -> None:
    """Clear the ledger of old entries now and then, while this process leads."""
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await ledger.sweep(SystemClock().now())
        except TapewatchError as error:
            _say(f"the ledger could not be swept: {error}")


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def _tuning(kube: KubeAccess) -> ElectionTuning:
    return ElectionTuning(
        duration_ns=seconds(kube.lease_s), renew_ns=seconds(kube.lease_s / 3), margin_ns=seconds(kube.lease_s / 6),
        retry_ns=seconds(min(1.0, kube.lease_s / 6)),
    )  # fmt: skip


async def _lead(
    config: RoleConfig,
    layout: Layout,
    led: Led,
    workloads: KubernetesWorkloads,
    front: Front,
    stop: asyncio.Event,
    deposed: asyncio.Event,
) -> int:
    """Be the leader until told to stop or deposed; returns the exit code."""
    standing_by = front.app
    async with AsyncExitStack() as stack:
        loop, app = await wire(config, layout, stack, led)
        front.app = app
        turning = asyncio.create_task(loop.run(), name="loop")
        stack.push_async_callback(loop.stop)
        stack.push_async_callback(_cancelled, turning)
        for beside in (_sweep(workloads.ledger), _keep_looking(workloads)):
            stack.push_async_callback(_cancelled, asyncio.create_task(beside))
        await _first(deposed.wait(), stop, turning)
        front.app = standing_by  # nobody is answered from a store that is being closed
    if deposed.is_set():
        _say(f"deposed: {led.why_not()}")
        return DEPOSED
    return 0
