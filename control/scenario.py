"""A drill's scenario as data: what is broken, and the links of the chain that must be seen, by when."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import msgspec

from exchange.calendar import PhaseName
from kernel.errors import InputError
from monitor.adapters import yaml_places

ROOT: Final = Path(__file__).resolve().parent.parent
DRILLS: Final = ROOT / "drills"
RULES: Final = ROOT / "alerts" / "rules"
REGION_LOSS: Final = "region-loss"
"""The drill of two estates (`control.region_drill`): it has no file, because a scenario is played on one."""
_RELATION: Final = re.compile(r"(==|!=|<=?|>=?) -?\d+(\.\d+)?")
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "alert": ("alertname",), "reading": ("query", "holds"), "before": ("alertname", "families"), "finding": ("text",),
    "cause": ("service",),
}  # fmt: skip
"""What a kind of link cannot be seen without."""

_Steps = tuple[str | int, ...]

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
    "no_page",
    "before",
    "finding",
    "cause",
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
    families: tuple[str, ...] = ()
    """Files of `alerts/rules`: for `no_page` those that must keep silent (none named: all), for `before` those that
    must not have fired first."""
    labels: dict[str, str] = {}
    """Labels that the alert must carry."""
    service: str = ""
    metric: str = ""
    """Of the cause that leads: the service, and the series or what its name begins with."""
    text: str = ""
    """A regular expression that the post-mortem must hold."""
    lasting: bool = False
    """It must still hold when everything else was seen."""


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the drill does, in order."""

    do: Literal[
        "fault", "clear", "await", "phase", "kill_switch", "pause", "kill", "acknowledge", "resume_symbol", "symptoms"
    ]
    name: str = ""
    """The fault, the link that is awaited, or the phase of the market that must begin by the calendar."""
    target: str = ""
    value: str = ""
    seconds: float = 0.0


class Warm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Prometheus must say before anything begins, such as that detectors have seen enough."""

    query: str
    holds: str
    """A relation such as `== 1`."""
    within_s: float = 240.0


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A phase of today's session begins so many seconds after the start of the estate; before it if negative."""

    phase: PhaseName
    at_s: int


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One drill."""

    name: str = ""
    title: str
    story: str
    settings: dict[str, bool | int | float | str] = {}
    """Settings of the estate that differ from a drill's usual ones."""
    warm_up_s: float = 3.0
    warm: Warm | None = None
    day: tuple[Turn, ...] = ()
    """Today's session by the calendar; none: there is no calendar, and trading is always continuous."""
    on: Literal["local", "kubernetes"] = "local"
    estate: Literal["embedded", "distributed"] = "embedded"
    prepare: tuple[Act, ...] = ()
    """What others have done to the plant before it is warmed up: nothing of it is a fault."""
    acts: tuple[Act, ...]
    links: tuple[Link, ...]
    outcome: str
    """What the right end is, in one line."""

    @property
    def place(self) -> str:
        """What kind of estate it is played on: local, distributed or kubernetes."""
        return self.on if self.estate == "embedded" else self.estate


def folder(place: str) -> Path:
    """Return where the scenarios for a kind of estate lie: local, distributed or kubernetes."""
    return DRILLS if place == "local" else DRILLS / place


def names(place: str = "local") -> list[str]:
    """Return the names of all scenarios for a kind of estate, in the order they are run."""
    return [line for line in (folder(place) / "order.txt").read_text(encoding="utf-8").split("\n") if line]


def known(place: str) -> list[str]:
    """Return what can be drilled on a kind of estate: its scenarios, and the one drill that takes two estates."""
    return [*names(place), *([REGION_LOSS] if place == "distributed" else [])]


def load_scenario(name: str, place: str = "local") -> Scenario:
    """Return a scenario by name.

    Raises:
        InputError: there is none of that name, or its file is wrong.
    """
    path = folder(place) / f"{name}.yaml"
    if not path.is_file():
        raise InputError("scenario", f"{name[:60]!r} is not known", right=_instead(name, place))
    data, lines = yaml_places.read(path)
    try:
        scenario = msgspec.convert(data, Scenario)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise InputError(f"{path}:{_line(lines, _steps(place))}", f"is no scenario: {problem}") from error
    for steps, problem, right in _mistakes(scenario):
        raise InputError(f"{path}:{_line(lines, steps)}", problem, right=right)
    on: Literal["local", "kubernetes"] = "kubernetes" if place == "kubernetes" else "local"
    estate: Literal["embedded", "distributed"] = "distributed" if place == "distributed" else "embedded"
    return msgspec.structs.replace(scenario, name=name, on=on, estate=estate)


def _instead(name: str, place: str) -> str:
    """Return what would be right: the option with which a name is known, else the names there are."""
    options = {
        "local": "without --on and --estate", "distributed": "with --estate distributed",
        "kubernetes": "with --on kubernetes",
    }  # fmt: skip
    elsewhere = [option for other, option in options.items() if other != place and name in known(other)]
    if elsewhere:
        return f"it is there {' or '.join(elsewhere)}"
    return f"there are {', '.join(known(place))} and all"


@functools.cache
def families() -> Mapping[str, frozenset[str]]:
    """Return the alerts of each file of rules, by its name without the ending."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted(RULES.glob("*.yml")):
        groups = yaml_places.read(path)[0]["groups"]
        found[path.stem] = frozenset(rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule)
    return found


def _mistakes(scenario: Scenario) -> Iterator[tuple[_Steps, str, str]]:
    """Yield where something is wrong that the types allow, what, and what would be right."""
    known = {link.name for link in scenario.links}
    links = f"its links are {', '.join(sorted(known))}"
    for at, link in enumerate(scenario.links):
        here: _Steps = ("links", at)
        if link.after and link.after not in known:
            yield (*here, "after"), f"awaits the link {link.after!r}", links
        for field in _NEEDS.get(link.see, ()):
            if not getattr(link, field):
                needed = f"{link.see} needs {' and '.join(_NEEDS[link.see])}"
                yield here, f"the link {link.name!r} says no {field}", needed
        for family in link.families:
            if family not in families():
                yield (*here, "families"), f"{family[:60]!r} is no file of rules", f"there are {', '.join(families())}"
        if link.text and (wrong := _wrong_pattern(link.text)):
            yield (*here, "text"), f"is no regular expression: {wrong}", "put a backslash before . ( ) [ ] * + ?"
        if link.holds and not _RELATION.fullmatch(link.holds):
            yield (*here, "holds"), f"{link.holds[:40]!r} is no relation", "write one such as == 1 or < 0.5"
    if scenario.warm is not None and not _RELATION.fullmatch(scenario.warm.holds):
        yield ("warm", "holds"), f"{scenario.warm.holds[:40]!r} is no relation", "write one such as == 1 or < 0.5"
    yield from _mistaken_acts(scenario, known, links)


def _mistaken_acts(scenario: Scenario, known: AbstractSet[str], links: str) -> Iterator[tuple[_Steps, str, str]]:
    for at, act in enumerate(scenario.acts):
        if act.do == "await" and act.name not in known:
            yield ("acts", at), f"awaits the link {act.name!r}", links
        turns = [str(turn.phase) for turn in scenario.day if turn.at_s > 0]
        if act.do == "phase" and act.name not in turns:
            yield ("acts", at), f"awaits the phase {act.name!r}", f"day turns to {', '.join(turns) or 'none'} later"
    for at, (one, other) in enumerate(pairwise(scenario.day), start=1):
        if other.at_s <= one.at_s:
            yield ("day", at), "a phase begins no later than the one before", "put them in the order of time"
    if scenario.day and scenario.day[-1].phase is not PhaseName.CLOSED:
        yield ("day", len(scenario.day) - 1), "the day does not close", "end it with phase: closed"


def _wrong_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        return str(error)
    return ""


def _steps(place: str) -> _Steps:
    """Return the path in msgspec's words, `.links[0].see`, as steps."""
    return tuple(int(one[1:-1]) if one.startswith("[") else one for one in re.findall(r"\[\d+\]|\w+", place))


def _line(lines: yaml_places.Lines, steps: _Steps) -> int:
    """Return the line of what stands there, or of what holds it."""
    while steps and steps not in lines:
        steps = steps[:-1]
    return lines.get(steps, 1)
