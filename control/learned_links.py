"""Links about what detectors find: who was asked, before whom, in which words, and what was named as the cause."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from control.kube_links import keys_of_actions
from control.scenario import Link, families
from control.witness import Witness
from kernel.time import from_rfc3339

DEADMAN: Final = "Watchdog"
"""It fires always: while it does, the way from a rule to Alertmanager works."""
RANKED: Final = "causes_ranked"
_QUOTED: Final = 200


def no_page(witness: Witness, link: Link) -> str | None:
    """Nobody was asked for anything since the start, and the way on which they would have been stands."""
    if why_not(witness, link):
        return None
    rules = sum(len(families()[family]) for family in link.families or families())
    return f"no incident, and of {rules} alerts none fired ({', '.join(link.families) or 'every family'})"


def before(witness: Witness, link: Link) -> str | None:
    """The alert fired, and no rule of the families had fired until then."""
    mine = _fired(witness, link)
    if not mine or why_not(witness, link):
        return None
    labels = mine[0]["labels"]
    item = labels.get("item") or labels.get("replica") or labels.get("service", "")
    rules = sum(len(families()[family]) for family in link.families)
    told = " of ".join(part for part in (labels.get("series", ""), item) if part)
    return f"{link.alertname} ({told}) since {mine[0]['startsAt']}, and of {rules} static rules none had fired"


def finding(witness: Witness, link: Link) -> str | None:
    """The post-mortem of an incident of the alert says it."""
    wanted = re.compile(link.text)
    for one in witness.incidents:
        if not link.alertname or any(alert["name"] == link.alertname for alert in one["alerts"].values()):
            for line in witness.postmortem(str(one["id"])).replace("\\", "").splitlines():
                if wanted.search(line):
                    return f"{one['id']}: {line.strip(' -#')[:_QUOTED]}"
    return None


def cause(witness: Witness, link: Link) -> str | None:
    """The last ranking of causes of an incident puts that service, and that series of it, first."""
    for incident_id, leader in _leaders(witness):
        if leader.get("service") == link.service and str(leader.get("metric", "")).startswith(link.metric):
            return f"{incident_id}: first of all {leader['service']} ({leader['score']:g}): {leader['sentence']}"
    return None


def why_not(witness: Witness, link: Link) -> str:
    """Return what stands against a link, such as an alert that fired too early; empty where nothing does."""
    match link.see:
        case "no_page":
            return next(_asked(witness, link), "")
        case "before":
            return next(_earlier(witness, link), "")
        case "cause":
            named = [f"{one['service'] or 'outside'} ({one.get('metric', '')})" for _, one in _leaders(witness)]
            return f"first was {', '.join(named)}" if named else ""
        case "effects":
            asked, done = keys_of_actions(witness, link)
            return f"{len(done)} done of {len(asked)} asked; processes seen {witness.pids_seen.get(link.replica, [])}"
        case _:
            return ""


def _asked(witness: Witness, link: Link) -> Iterator[str]:
    since = witness.started_at or 0
    for one in witness.incidents:
        if one["opened_at"] >= since:
            yield f"{one['id']} was opened: {one['title']}"
    for alert in witness.alerts_seen.values():
        labels = alert["labels"]
        name = labels.get("alertname", "")
        if name != DEADMAN and (not link.families or any(name in families()[family] for family in link.families)):
            yield f"{name} fired for {_whom(labels)}"
    if not any(alert["labels"].get("alertname") == DEADMAN for alert in witness.alerts):
        yield "nothing shows that an alert would have come: the dead man's switch does not fire"


def _earlier(witness: Witness, link: Link) -> Iterator[str]:
    mine = _fired(witness, link)
    static = frozenset[str]().union(*(families()[family] for family in link.families)) - {DEADMAN, link.alertname}
    for alert in sorted(witness.alerts_seen.values(), key=lambda one: int(one["seen_at"])):
        if _since(alert) < (witness.started_at or 0):
            continue  # it fired before anything was broken, so it speaks of something else
        if alert["labels"].get("alertname") in static and (not mine or alert["seen_at"] <= mine[0]["seen_at"]):
            yield f"{alert['labels']['alertname']} had fired before for {_whom(alert['labels'])}"


def _since(alert: Mapping[str, Any]) -> int:
    """Return when an alert began to fire, as Alertmanager says; when it was seen, where that says nothing."""
    try:
        return int(from_rfc3339(str(alert["startsAt"])))
    except ValueError:
        return int(alert["seen_at"])


def _fired(witness: Witness, link: Link) -> list[Mapping[str, Any]]:
    """Return the alerts that the link speaks of, in the order in which they were seen."""
    found = [
        alert
        for alert in witness.alerts_seen.values()
        if alert["labels"].get("alertname") == link.alertname and link.labels.items() <= alert["labels"].items()
    ]
    return sorted(found, key=lambda one: int(one["seen_at"]))


def _leaders(witness: Witness) -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for incident_id, timeline in sorted(witness.timelines.items()):
        ranked = [entry for entry in timeline if entry["kind"] == RANKED and entry["data"].get("hypotheses")]
        if ranked:
            found.append((incident_id, ranked[-1]["data"]["hypotheses"][0]))
    return found


def _whom(labels: Mapping[str, str]) -> str:
    names = ("series", "item", "replica", "symbol", "service")
    return " ".join(labels[name] for name in names if labels.get(name)) or "the plant"
