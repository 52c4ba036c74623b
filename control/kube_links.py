"""How a link is seen on Kubernetes: pods by their uids, owners by the API server, writes by its audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import psutil

from control.kube_witness import KubeWitness, Write, is_ready
from control.scenario import Link
from control.witness import Witness

See = Callable[[KubeWitness, Link], str | None]


def see(witness: KubeWitness, link: Link) -> str | None:
    """Return the evidence that a link was seen, None while it was not. Raises KeyError for a kind that is not ours."""
    return KINDS[link.see](witness, link)


def _restarted(witness: KubeWitness, link: Link) -> str | None:
    """A pod is gone, and another one with a process that lives is ready in its place."""
    before, now = witness.workloads_first.get(link.workload), witness.workloads.get(link.workload)
    if before is None or now is None:
        return None
    old, new = {one.uid: one.id for one in before.replicas}, {one.uid: one for one in now.replicas}
    gone = [name for uid, name in old.items() if uid not in new]
    come = [one for uid, one in new.items() if uid not in old and one.ready and one.pid and psutil.pid_exists(one.pid)]
    if not gone or not come or len(now.replicas) != now.desired:
        return None
    return f"the API server shows no pod {gone[0]} any more; {come[0].id} (process {come[0].pid}) runs and is ready"


def _writes(witness: KubeWitness, link: Link) -> list[Write]:
    return [one for one in witness.writes if not link.resource or one.resource == link.resource]


def _audit(witness: KubeWitness, link: Link) -> str | None:
    """The audit log shows so many writes of our account, no more and no fewer."""
    found = _writes(witness, link)
    if len(found) != link.count:
        return None
    what = ", ".join(f"{one.verb} {one.resource} {one.name}" for one in found) or "no write"
    return f"the API server's audit log shows of our account {what}"


def _no_more_writes(witness: KubeWitness, link: Link) -> str | None:
    """The audit log shows at most so many writes of our account."""
    found = _writes(witness, link)
    if len(found) > link.count:
        return None
    return f"the API server's audit log shows {len(found)} {link.resource or 'writes'} of our account"


def _resumed_or_asked(witness: KubeWitness, link: Link) -> str | None:
    """The run went on and ended as mended with its pod replaced, or a person was asked; whatever it wrote, once."""
    ended = [run for run in witness.runs if run["runbook"] == link.runbook and run["outcome"] is not None]
    if any(run["outcome"] == "mended" for run in ended) and (seen := _restarted(witness, link)):
        return f"resumed and mended: {seen}"
    asked = [entry for entry in witness.entries("handed_over") if link.runbook in str(entry["text"])]
    return f"handed over: {asked[0]['text']}" if ended and asked else None


def keys_of_actions(witness: Witness, link: Link) -> tuple[set[str], list[str]]:
    """Return the keys of what was asked of a link's workload, and those of what was done, one for each time.

    A busy machine brings other incidents, whose runbooks act elsewhere: what they do is no second effect.
    """
    asked = {str(entry["data"]["key"]) for entry in witness.actions("action_asked", link.workload, link.replica)}
    told = witness.actions("action_done", link.workload, link.replica)
    return asked, [str(entry["data"]["key"]) for entry in told if entry["data"]["ok"]]


def _effects(witness: KubeWitness, link: Link) -> str | None:
    """As many pods came as actions were done, and the audit log has as many writes."""
    before = witness.workloads_first.get(link.workload)
    if before is None:
        return None
    come = len(witness.uids_seen[link.workload]) - len(before.replicas)
    asked, done = keys_of_actions(witness, link)
    wrote = _writes(witness, link)
    if not come == len(asked) == len(done) == len(wrote) == link.count:
        return None
    return f"{come} new pod of {link.workload}, {len(wrote)} {link.resource} in the audit log, {len(done)} action done"


def _deployed(witness: KubeWitness, link: Link) -> str | None:
    """The workload runs the image it ran before, and has settled."""
    before, now = witness.owners_first.get(link.workload), witness.owners.get(link.workload)
    status = witness.workloads.get(link.workload)
    if before is None or now is None or status is None or _image(now) != _image(before):
        return None
    if now["metadata"]["generation"] == before["metadata"]["generation"] or now["spec"].get("paused"):
        return None  # nothing was deployed in between, or nothing goes on
    if not status.is_settled or now["status"].get("updatedReplicas", 0) != status.desired:
        return None
    return f"the API server shows {link.workload} with {_image(now)} again, {status.ready} of {status.desired} ready"


def _paused(witness: KubeWitness, link: Link) -> str | None:
    now, status = witness.owners.get(link.workload), witness.workloads.get(link.workload)
    if now is None or status is None or not now["spec"].get("paused"):
        return None
    return f"the API server shows the rollout of {link.workload} paused, {status.ready} of {status.desired} ready"


def _image(owner: Mapping[str, Any]) -> str:
    return str(owner["spec"]["template"]["spec"]["containers"][0]["image"])


def _cordoned(witness: KubeWitness, link: Link) -> str | None:
    """So many nodes are cordoned, no more, and of the lost ones so many are emptied of the workload."""
    names = sorted(name for name, node in witness.nodes.items() if node["spec"].get("unschedulable"))
    if len(names) != link.count:
        return None
    lost = [name for name, node in witness.nodes.items() if not is_ready(node)]
    return f"the API server shows {', '.join(names)} cordoned; not ready: {', '.join(lost) or 'none'}"


def _bound(witness: KubeWitness, link: Link) -> str | None:
    """The autoscaler's lower bound is so much, and the number of replicas has followed it."""
    scaler, status = witness.autoscalers.get(link.workload), witness.workloads.get(link.workload)
    if scaler is None or status is None or scaler["spec"].get("minReplicas", 1) != link.count:
        return None
    if status.ready < link.count:
        return None
    owner = "the autoscaler's minReplicas"
    return f"the API server shows {owner} at {link.count}, {status.ready} of {status.desired} {link.workload} ready"


def _another_leads(witness: KubeWitness, _: Link) -> str | None:
    """The Lease has another holder, and whoever held it before wrote nothing afterwards."""
    first, now = witness.lease_first, witness.lease
    holder = now.get("holderIdentity")
    if not first or not holder or holder == first.get("holderIdentity"):
        return None
    return f"the Lease is held by {holder}, epoch {now.get('leaseTransitions')}; before by {first['holderIdentity']}"


def _deposed_silent(witness: KubeWitness, _: Link) -> str | None:
    """Another leads, whoever led has ended, and nothing of its epoch was carried out since."""
    since, old = witness.lease_changed_at, str(witness.lease_first.get("leaseTransitions"))
    ended = [name for name, pids in witness.pids_seen.items() if name.startswith("control-") and len(pids) > 1]
    if since is None or not ended or any(one.at > since and one.epoch == old for one in witness.writes):
        return None
    return (
        f"{ended[0]} ended and was started anew; the audit log shows no write of epoch {old} since epoch "
        f"{witness.lease.get('leaseTransitions')} began, {witness.fenced} refused by the fence"
    )


KINDS: Final[Mapping[str, See]] = {
    "restarted": _restarted,
    "effects": _effects,
    "audit": _audit,
    "no_more_writes": _no_more_writes,
    "resumed_or_asked": _resumed_or_asked,
    "deployed": _deployed,
    "paused": _paused,
    "cordoned": _cordoned,
    "bound": _bound,
    "another_leads": _another_leads,
    "deposed_silent": _deposed_silent,
}
"""Those that are seen otherwise than on a local estate, or there only."""
