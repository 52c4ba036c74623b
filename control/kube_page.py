"""The role `kube-state`, wired: what the watches of a cluster tell becomes a page for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final

import msgspec

from control.config import RoleConfig
from control.process_facts import ProcessFacts
from exchange.adapters.http import HttpServer, common_routes, listen
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TapewatchError
from monitor import kube_objects as kinds
from monitor.adapters.kube_exporter import KubeExporter
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.watch import Watch

NAMESPACE: Final = "exchange"
HEARTBEAT_S: Final = 1.0
"""How often the API server is asked whether it is there: a watch of a quiet cluster says nothing for a minute."""
CERTIFICATES_S: Final = 600.0
_KINDS: Final[dict[str, type[Any]]] = {
    "/apis/apps/v1/namespaces/{}/deployments": kinds.Deployment,
    "/apis/apps/v1/namespaces/{}/statefulsets": kinds.StatefulSet,
    "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers": kinds.HorizontalPodAutoscaler,
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets": kinds.PodDisruptionBudget,
    "/api/v1/namespaces/{}/pods": kinds.Pod,
    "/api/v1/namespaces/{}/services": kinds.Service,
    "/api/v1/nodes": kinds.Node,
}


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Show the cluster's facts until `stop`; returns the exit code.

    Raises:
        TapewatchError: it cannot start.
    """
    from starlette.applications import Starlette

    if config.kube is None:
        raise PermanentError("kube-state is told of no cluster; its configuration needs `kube`")
    clock = SystemClock()
    page = KubeExporter(clock)
    kubeconfig = Path(config.kube.kubeconfig) if config.kube.kubeconfig else None
    async with Api(connect(kubeconfig, config.kube.context), threads=2) as api:
        watches = {
            kind.__name__: Watch(api, path.format(NAMESPACE), kind, clock, on_change=page.follow(kind.__name__))
            for path, kind in _KINDS.items()
        }
        for watch in watches.values():
            watch.start()

        def ready() -> tuple[bool, str]:
            missing = [name for name, watch in watches.items() if not watch.synced_at]
            return not missing, f"not listed yet: {', '.join(missing)}" if missing else "every kind is listed"

        server = HttpServer(Starlette(routes=common_routes(page, ready)), listen(config.port, config.listen))
        await server.start()
        hearing = asyncio.create_task(_hear(api, page, clock), name="heartbeat")
        looking = asyncio.create_task(_look_at_certificates(api, page), name="certificates")
        facts = asyncio.create_task(ProcessFacts(page).run(), name="process facts")
        await stop.wait()
        hearing.cancel()
        looking.cancel()
        facts.cancel()
        for watch in watches.values():
            watch.stop()
        await server.stop()
    return 0


async def _look_at_certificates(api: Api, page: KubeExporter) -> None:
    """Show when the API server's certificates end, looked at now and then: they change with its restarts only."""
    while True:
        pause_s = CERTIFICATES_S
        try:
            for name, expires_at in (await api.certificates()).items():
                page.certificate(name, expires_at)
        except TapewatchError:
            pause_s = HEARTBEAT_S  # it is down; the heartbeat tells that
        await asyncio.sleep(pause_s)


async def _hear(api: Api, page: KubeExporter, clock: SystemClock) -> None:
    """Note each time the API server answers. Who does not answer is asked again: silence is what the page shows."""
    while True:
        with contextlib.suppress(TapewatchError):
            await api.get("/api/v1/nodes", msgspec.Raw, limit="1")
            page.heard(clock.now())
        await asyncio.sleep(HEARTBEAT_S)
