"""A process that follows what kube-state follows and nothing else; prints one line when it has it all."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from kernel.adapters.clock import SystemClock
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.objects import Hpa, Node, Pdb, Pod, Workload
from runbooks.adapters.kubernetes.watch import Watch

KINDS: dict[str, type[Any]] = {
    "/apis/apps/v1/deployments": Workload,
    "/apis/apps/v1/statefulsets": Workload,
    "/api/v1/pods": Pod,
    "/api/v1/nodes": Node,
    "/apis/autoscaling/v2/horizontalpodautoscalers": Hpa,
    "/apis/policy/v1/poddisruptionbudgets": Pdb,
}


async def follow(kubeconfig: Path) -> None:
    async with Api(connect(kubeconfig)) as api:
        watches = [Watch(api, path, kind, SystemClock()) for path, kind in KINDS.items()]
        for watch in watches:
            watch.start()
        for watch in watches:
            await watch.ready()
        print(*(len(watch.objects) for watch in watches), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(follow(Path(sys.argv[1])))
