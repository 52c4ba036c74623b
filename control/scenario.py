"""A drill's scenario as data: what is broken, and the links of the chain that must be seen, by when."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec
import yaml

from kernel.errors import InputError

DRILLS: Final = Path(__file__).resolve().parent.parent / "drills"

LinkKind = Literal[
    "alert",
    "suppressed",
    "incident",
    "one_incident",
    "restarted",
    "untouched",
    "scaled",
    "halted",
    "open",
    "reading",
    "outcome",
    "state",
    "handed_over",
    "paged",
    "effects",
    "control_restarted",
    "no_action_after_switch",
    "undone",
    "asked",
    "audit",
    "no_more_writes",
    "resumed_or_asked",
    "deployed",
    "paused",
    "cordoned",
    "bound",
    "another_leads",
    "deposed_silent",
]


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link of the chain: what must be seen, where, and by when after the first fault."""

    name: str
    see: LinkKind
    within_s: float = 40.0
    after: str = ""
    """The name of a link that must be seen before this one counts."""
    alertname: str = ""
    action: str = ""
    workload: str = ""
    replica: str = ""
    runbook: str = ""
    outcome: str = ""
    reason: str = ""
    state: str = ""
    symbol: str = ""
    query: str = ""
    fresh: str = ""
    holds: str = ""
    """A relation such as `== 1` for a reading."""
    count: int = 1
    at_least: int = 0
    resource: str = ""
    """Kubernetes: of the writes only those to this, such as `pods/eviction`."""
    lasting: bool = False
    """It must still hold when everything else was seen."""


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the drill does, in order."""

    do: Literal["fault", "clear", "await", "kill_switch", "pause", "kill", "acknowledge", "resume_symbol", "symptoms"]
    name: str = ""
    """The fault, or the link that is awaited."""
    target: str = ""
    value: str = ""
    seconds: float = 0.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One drill."""

    name: str = ""
    title: str
    story: str
    settings: dict[str, int | float | str] = {}
    """Settings of the estate that differ from a drill's usual ones."""
    warm_up_s: float = 3.0
    on: Literal["local", "kubernetes"] = "local"
    prepare: tuple[Act, ...] = ()
    """What others have done to the plant before it is warmed up: nothing of it is a fault."""
    acts: tuple[Act, ...]
    links: tuple[Link, ...]
    outcome: str
    """What the right end is, in one line."""


def folder(on: str) -> Path:
    """Return where the scenarios for estates on a platform lie."""
    return DRILLS if on == "local" else DRILLS / on


def names(on: str = "local") -> list[str]:
    """Return the names of all scenarios for a platform, in the order they are run."""
    return [line for line in (folder(on) / "order.txt").read_text(encoding="utf-8").split("\n") if line]


def load_scenario(name: str, on: str = "local") -> Scenario:
    """Return a scenario by name.

    Raises:
        InputError: there is none of that name, or its file is wrong.
    """
    path = folder(on) / f"{name}.yaml"
    if not path.is_file():
        raise InputError("scenario", f"{name[:60]!r} is not known", right=f"there are {', '.join(names(on))} and all")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        scenario = msgspec.convert(data, Scenario)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise InputError(str(path), f"is no scenario: {error}") from error
    known = {link.name for link in scenario.links}
    for wanted in [link.after for link in scenario.links] + [a.name for a in scenario.acts if a.do == "await"]:
        if wanted and wanted not in known:
            raise InputError(
                str(path), f"awaits the link {wanted!r}", right=f"its links are {', '.join(sorted(known))}"
            )
    return msgspec.structs.replace(scenario, name=name, on=on)
