"""How each kind of link is seen: from a witness to a sentence of evidence, or None while it is not seen."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import psutil

from control import kube_links, learned_links
from control.kube_links import keys_of_actions
from control.kube_witness import KubeWitness
from control.scenario import Link
from control.witness import Witness
from kernel.time import SECOND

See = Callable[[Witness, Link], str | None]

ASKING: Final = frozenset({"reading", "finding"})
"""Kinds whose look is a question to somebody."""
THROUGHOUT: Final = frozenset({"no_page"})
"""Kinds that must hold at every look, from the first act until their time is over."""
_RELATIONS: Final = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def see(witness: Witness, link: Link) -> str | None:
    """Return the evidence that a link was seen, None while it was not."""
    if isinstance(witness, KubeWitness) and link.see in kube_links.KINDS:
        return kube_links.see(witness, link)
    return _SEE[link.see](witness, link)


def _nowhere(_: Witness, __: Link) -> str | None:
    """A local estate has nothing of the kind."""
    return None


def _alert(witness: Witness, link: Link) -> str | None:
    for alert in witness.alerts_seen.values():
        labels = alert["labels"]
        if labels.get("alertname") == link.alertname and (not link.symbol or labels.get("symbol") == link.symbol):
            item = labels.get("replica") or labels.get("symbol") or labels.get("service", "")
            return f"Alertmanager's API shows {link.alertname} ({item}) since {alert['startsAt']}"
    return None


def _suppressed(witness: Witness, link: Link) -> str | None:
    if witness.suppressed_most < link.at_least:
        return None
    return f"Alertmanager's API shows {witness.suppressed_most} symptoms suppressed by their cause"


def _incidents_of(witness: Witness, link: Link) -> list[Mapping[str, Any]]:
    return [
        one
        for one in witness.incidents
        if not link.alertname or any(alert["name"] == link.alertname for alert in one["alerts"].values())
    ]


def _incident(witness: Witness, link: Link) -> str | None:
    found = _incidents_of(witness, link)
    if not found:
        return None
    return f"{found[0]['id']}: {found[0]['title']}, {len(found[0]['alerts'])} alerts"


def _one_incident(witness: Witness, link: Link) -> str | None:
    """Every incident that is not merged into another is this one, it is resolved, and it had as many runs as told."""
    standing = [one for one in witness.incidents if not one["merged_into"]]
    if len(standing) != 1 or standing[0]["state"] != "resolved":
        return None
    acted = [run for run in witness.runs if run["outcome"] not in {None, "not_applicable", "refused"}]
    if len(acted) != link.count:
        return None
    return f"{standing[0]['id']} alone, with {len(standing[0]['alerts'])} alerts and {len(acted)} run that acted"


def _restarted(witness: Witness, link: Link) -> str | None:
    before = witness.workloads_first.get(link.workload)
    now = witness.workloads.get(link.workload)
    if before is None or now is None:
        return None
    old = {replica.id: replica.pid for replica in before.replicas}
    for replica in now.replicas:
        if link.replica and replica.id != link.replica:
            continue
        was = old.get(replica.id)
        if was is None or replica.pid is None or replica.pid == was or not replica.ready:
            continue
        if psutil.pid_exists(replica.pid):
            return f"{replica.id}: process {was} is gone, process {replica.pid} runs and is ready"
    return None


def _untouched(witness: Witness, link: Link) -> str | None:
    """Every workload of the exchange (or the one named) has just the processes it had before the fault."""
    for name, before in witness.workloads_first.items():
        if (link.workload and name != link.workload) or before.owned_by != "runbook":
            continue
        now = witness.workloads.get(name)
        if now is None or [(r.id, r.pid) for r in now.replicas] != [(r.id, r.pid) for r in before.replicas]:
            return None
    return f"the processes of {link.workload or 'the exchange'} are those from before the fault"


def _scaled(witness: Witness, link: Link) -> str | None:
    now = witness.workloads.get(link.workload)
    if now is None or now.desired != link.count or now.ready != link.count or len(now.replicas) != link.count:
        return None
    return f"{link.workload} has {now.ready} ready replicas ({', '.join(str(r.pid) for r in now.replicas)})"


def _undone(witness: Witness, link: Link) -> str | None:
    undone = [e for e in witness.entries("action_done") if e["data"].get("undo") and e["data"].get("ok")]
    if not undone:
        return None
    scaled = _scaled(witness, link)
    return f"{undone[0]['text']}; {scaled}" if scaled else None


def _halted(witness: Witness, link: Link) -> str | None:
    for symbol in witness.halted_first:
        if symbol == link.symbol or (link.symbol == "*" and symbol):
            return f"the engine says that {symbol or 'the market'} is halted"
    return None


def _open(witness: Witness, _: Link) -> str | None:
    status = witness.engine
    if not status or not status["ready"] or status["market_halted"] or status["halted_symbols"]:
        return None
    return f"the engine is ready and trades, {status['recovered_commands']} commands recovered at its start"


def _reading(witness: Witness, link: Link) -> str | None:
    reading = witness.read(link.query)
    if reading is None:
        return None
    if not holds(link.holds, reading[0]):
        return None
    return f"Prometheus reads {reading[0]:g} for {link.query}, asked {link.holds}"


def holds(relation: str, value: float) -> bool:
    """Tell whether a value is as a relation such as `< 0.5` says."""
    how, expected = relation.split()
    return bool(_RELATIONS[how](value, float(expected)))


def _outcome(witness: Witness, link: Link) -> str | None:
    for run in witness.runs:
        if run["outcome"] != link.outcome or (link.runbook and run["runbook"] != link.runbook):
            continue
        if link.reason and run["reason"] != link.reason:
            continue
        return f"{run['id']} of {run['runbook']} ended as {run['outcome']}: {run['detail']}"
    return None


def _state(witness: Witness, link: Link) -> str | None:
    for one in _incidents_of(witness, link):
        if one["state"] == link.state:
            return f"{one['id']} is {one['state']}"
    return None


def _handed_over(witness: Witness, link: Link) -> str | None:
    ids = {one["id"] for one in _incidents_of(witness, link)}
    for incident_id in sorted(ids):
        for entry in witness.timelines.get(incident_id, ()):
            if entry["kind"] == "handed_over" and link.runbook in str(entry["text"]):
                return f"{incident_id}: {entry['text']}"
    return None


def _asked(witness: Witness, _: Link) -> str | None:
    """The first action is on its way."""
    asked = witness.entries("action_asked")
    return str(asked[0]["text"]) if asked else None


def _paged(witness: Witness, _: Link) -> str | None:
    for alert in witness.alerts_seen.values():
        if alert["labels"].get("alertname") == "IncidentNeedsPerson":
            return f"Alertmanager's API shows IncidentNeedsPerson for {alert['labels'].get('incident')}"
    return None


def _effects(witness: Witness, link: Link) -> str | None:
    """As many processes of the workload's replica were ever seen as its restarts explain."""
    before = witness.workloads_first.get(link.workload)
    if before is None:
        return None
    replicas = [replica.id for replica in before.replicas if not link.replica or replica.id == link.replica]
    starts = sum(len(witness.pids_seen.get(replica, ())) - 1 for replica in replicas)
    asked, done = keys_of_actions(witness, link)
    if not starts == len(asked) == len(done) == link.count:
        return None
    return f"{starts} new process of {', '.join(replicas)}, {len(done)} action done for {len(asked)} asked"


def _control_restarted(witness: Witness, link: Link) -> str | None:
    pids = witness.pids_seen.get("control-1", [])
    if len(pids) <= link.count:
        return None
    return f"control ran as processes {', '.join(map(str, pids))}"


def _no_action_after_switch(witness: Witness, _: Link) -> str | None:
    thrown = witness.switch_thrown_at
    refused = [
        entry
        for entry in witness.entries("run_ended") + witness.entries("run_declined")
        if entry["data"].get("reason") == "kill_switch"
    ]
    if thrown is None or not refused:
        return None
    later = [entry for entry in witness.entries("action_done") if entry["data"]["ok"] and entry["at"] > thrown + SECOND]
    return None if later else f"no action after the switch was thrown; {refused[0]['text']}"


_SEE: Final[Mapping[str, See]] = {
    "alert": _alert,
    "suppressed": _suppressed,
    "incident": _incident,
    "one_incident": _one_incident,
    "restarted": _restarted,
    "untouched": _untouched,
    "scaled": _scaled,
    "halted": _halted,
    "open": _open,
    "reading": _reading,
    "outcome": _outcome,
    "state": _state,
    "handed_over": _handed_over,
    "paged": _paged,
    "effects": _effects,
    "control_restarted": _control_restarted,
    "no_action_after_switch": _no_action_after_switch,
    "no_page": learned_links.no_page,
    "before": learned_links.before,
    "finding": learned_links.finding,
    "cause": learned_links.cause,
    "undone": _undone,
    "asked": _asked,
    "audit": _nowhere,
    "no_more_writes": _nowhere,
    "resumed_or_asked": _nowhere,
    "deployed": _nowhere,
    "paused": _nowhere,
    "cordoned": _nowhere,
    "bound": _nowhere,
    "another_leads": _nowhere,
    "deposed_silent": _nowhere,
}
