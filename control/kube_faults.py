"""What can be broken on an estate on Kubernetes on purpose: pods, deploys, nodes, owners, budgets, the control plane.

What people and other controllers do to a cluster (deploy, annotate, set a budget) is done here with full rights, as
they would, and never with our own account: so the audit log keeps apart who did what.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from control.addresses import write_atomically
from control.fault import Fault, Plant
from control.kube_bed import EXCHANGE, ROOT, STRATEGIC, Bed, deployment_path
from control.testbed import background
from kernel.errors import InputError, TemporaryError

AUTOSCALER: Final = ROOT / "deploy" / "kubernetes" / "components" / "autoscaling" / "gateway.yaml"
HPA: Final = f"/apis/autoscaling/v2/namespaces/{EXCHANGE}/horizontalpodautoscalers"
TRACKING: Final = "argocd.argoproj.io/tracking-id"
LOST: Final = "testbed-notready"


def _bed(plant: Plant) -> Bed:
    return Bed(plant.layout.kube)


# --- pods -----------------------------------------------------------------------------------------------------------


def _pod_signal(name: str) -> Callable[[Plant, str, str], None]:
    def send(plant: Plant, target: str, _: str) -> None:
        plant.estate("/v1/signal", {"replica": _pod(plant, target), "signal": name})

    return send


def _pod(plant: Plant, target: str) -> str:
    """Return the pod that is meant: the one named, or a workload's oldest."""
    replicas = plant.addresses.workloads.get(target)
    return replicas[0].id if replicas else target


# --- deploys --------------------------------------------------------------------------------------------------------


def _deploy(plant: Plant, target: str, value: str) -> None:
    """Deploy a revision whose image does what `value` says: `broken` cannot be pulled, `crash` ends at each start."""
    bed = _bed(plant)
    container = bed.deployment(target)["spec"]["template"]["spec"]["containers"][0]
    image = f"{container['image'].partition(':')[0]}:2-{value}"
    patch = {"spec": {"template": {"spec": {"containers": [{"name": container["name"], "image": image}]}}}}
    bed.request("PATCH", deployment_path(target), patch, content_type=STRATEGIC)


def _deploy_back(plant: Plant, target: str, _: str) -> None:
    _bed(plant).kubectl("-n", EXCHANGE, "rollout", "undo", f"deployment/{target}")


# --- nodes ----------------------------------------------------------------------------------------------------------


def _lose_node(plant: Plant, target: str, value: str) -> None:
    """Lose the node named, or one that runs `target` and not the engine."""
    bed = _bed(plant)
    node = value or _node_of(bed, target)
    bed.request("PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": {LOST: "true"}}})


def _node_of(bed: Bed, workload: str) -> str:
    """Return a node of the exchange without the engine, not lost yet; if there is one, with a pod of `workload`."""
    engine = {pod["spec"].get("nodeName") for pod in bed.pods("engine")}
    spared = engine | {node["metadata"]["name"] for node in bed.items("/api/v1/nodes") if _is_lost(node)} | {None, ""}
    for pods in (bed.pods(workload), bed.pods()):
        found = sorted({str(pod["spec"].get("nodeName")) for pod in pods if pod["spec"].get("nodeName") not in spared})
        if found:
            return found[0]
    raise TemporaryError("the exchange runs on no node but the engine's")


def _is_lost(node: dict[str, Any]) -> bool:
    return bool(node["metadata"].get("labels", {}).get(LOST) == "true")


def _bring_nodes_back(plant: Plant, _: str, __: str) -> None:
    bed = _bed(plant)
    for node in bed.items("/api/v1/nodes"):
        if _is_lost(node):
            path = f"/api/v1/nodes/{node['metadata']['name']}"
            bed.request("PATCH", path, {"metadata": {"labels": {LOST: "false"}}})


# --- owners and budgets ---------------------------------------------------------------------------------------------


def _autoscale(plant: Plant, _: str, __: str) -> None:
    _bed(plant).kubectl("apply", "-f", str(AUTOSCALER))


def _no_autoscaler(plant: Plant, target: str, _: str) -> None:
    _bed(plant).request("DELETE", f"{HPA}/{target}")


def _gitops(plant: Plant, target: str, _: str) -> None:
    note = f"exchange:apps/Deployment:{EXCHANGE}/{target}"
    _bed(plant).request("PATCH", deployment_path(target), {"metadata": {"annotations": {TRACKING: note}}})


def _no_gitops(plant: Plant, target: str, _: str) -> None:
    _bed(plant).request("PATCH", deployment_path(target), {"metadata": {"annotations": {TRACKING: None}}})


def _budget(plant: Plant, target: str, value: str) -> None:
    path = f"/apis/policy/v1/namespaces/{EXCHANGE}/poddisruptionbudgets/{target}"
    _bed(plant).request("PATCH", path, {"spec": {"minAvailable": int(value)}})


def _usual_budget(plant: Plant, target: str, _: str) -> None:
    _budget(plant, target, "1")


# --- the control plane ----------------------------------------------------------------------------------------------


def _note(plant: Plant) -> Path:
    return plant.layout.root / "control" / "stopped-leader.json"


def _stop_leader(plant: Plant, _: str, __: str) -> None:
    """Stop the control process that leads; it is noted, because another one leads when it is to go on."""
    control = plant.addresses.workloads["control"]
    leader = next((one for one in control if one.url == plant.addresses.control), control[0])
    plant.estate("/v1/signal", {"replica": leader.id, "signal": "STOP"})
    write_atomically(_note(plant), msgspec.json.encode(leader.pid))


def _continue_leader(plant: Plant, _: str, __: str) -> None:
    pid = msgspec.json.decode(_note(plant).read_bytes(), type=int)
    os.kill(pid, signal.SIGCONT)


def _kill_component(plant: Plant, target: str, _: str) -> None:
    pid = _bed(plant).kept.components.get(target)
    if pid is None:
        raise InputError("target", f"{target!r} is no component", right="such as kube-apiserver, etcd or kwok")
    os.kill(pid, signal.SIGKILL)


def _heal(plant: Plant, _: str, __: str) -> None:
    background.heal(plant.layout.kube)


_RUNBOOK: Final = "its alert's runbook"
_CATALOG: Final = (
    Fault("pod-hang", "A pod's process is stopped by SIGSTOP: it answers nothing.", f"{_RUNBOOK} evicts it",
          "gateway", "", _pod_signal("STOP"), _pod_signal("CONT")),
    Fault("pod-kill", "A pod's process is killed by SIGKILL.", "the node starts it again", "gateway", "",
          _pod_signal("KILL"), lambda *_: None),
    Fault("bad-deploy", "A revision is deployed whose image ends at each start (crash) or cannot be pulled (broken).",
          f"{_RUNBOOK} rolls it back, or clearing", "gateway", "crash", _deploy, _deploy_back),
    Fault("node-lost", "A node that runs the target, and not the engine, is lost with its processes.",
          f"{_RUNBOOK} drains it; clearing brings it back", "gateway", "", _lose_node, _bring_nodes_back),
    Fault("autoscaled", "An autoscaler is put over the gateways: it owns their number.", "clearing", "gateway", "",
          _autoscale, _no_autoscaler),
    Fault("gitops", "Argo CD is said to own the target.", "clearing", "gateway", "", _gitops, _no_gitops),
    Fault("tight-budget", "The target's disruption budget wants so many available.", "clearing", "gateway", "2",
          _budget, _usual_budget),
    Fault("leader-stop", "The control process that leads is stopped by SIGSTOP.", "clearing continues it", "control",
          "", _stop_leader, _continue_leader),
    Fault("apiserver-down", "A component of the cluster is killed by SIGKILL.", "clearing starts it anew",
          "kube-apiserver", "", _kill_component, _heal),
)  # fmt: skip
FAULTS: Final = {fault.name: fault for fault in _CATALOG}
