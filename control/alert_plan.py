"""Which alerts a drill of the alerts fires, and which of them may fire together. Reads only our own files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control import render
from kernel.errors import InputError
from kernel.time import parse_duration, to_seconds
from monitor.signals import AlertScript, alert_scripts

LIVE_MAX_S: Final = 90.0
"""An alert that takes longer to fire is left to promtool: nobody waits an hour for a drill."""
BATCH_MAX: Final = 12
STANDING: Final = frozenset({"Watchdog"})
"""Fires without being made to."""
_WINDOW: Final = re.compile(r"\[((?:\d+(?:ms|s|m|h|d))+)\]")
_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*', re.DOTALL)


@dataclass(frozen=True)
class Planned:
    """One alert to be fired."""

    family: str
    """The rule group it belongs to, as `file/group`."""
    script: AlertScript
    rule: Mapping[str, Any]

    @property
    def lingers_s(self) -> float:
        """How long it goes on after its cause ended: its longest window, and `keep_firing_for`."""
        windows = [to_seconds(parse_duration(one)) for one in _WINDOW.findall(str(self.rule.get("expr", "")))]
        return max(windows, default=0.0) + to_seconds(parse_duration(str(self.rule.get("keep_firing_for", "0s"))))

    @property
    def whole_s(self) -> float:
        """How long it takes to see it come and go."""
        return self.script.fires_after_s + self.lingers_s


def planned(*, every: bool, alerts: Path = render.ALERTS, only: Sequence[str] = ()) -> tuple[list[Planned], list[str]]:
    """Return what is fired, and the alerts that no drill can fire in time.

    Without `every`, one alert of each family: the quickest. `only` names alerts or families instead.

    Raises:
        InputError: a file is broken, an alert has no test that fires it, or `only` names something unknown.
    """
    scripts = _scripts(alerts / "tests")
    found: list[Planned] = []
    slow: list[tuple[str, str]] = []
    for family, rule in _rules(alerts / "rules"):
        script_of = scripts.get(rule["alert"])
        if script_of is None:
            raise InputError(
                str(rule["alert"]), "no promtool test fires it", right=f"write one titled `{rule['alert']}: fires`"
            )
        if script_of.fires_after_s <= LIVE_MAX_S:
            found.append(Planned(family, script_of, rule))
        else:
            slow.append((family, str(rule["alert"])))
    if only:
        return _named(found, {name for _, name in slow}, only), []
    if every:
        return found, [name for _, name in slow]
    quickest = _quickest(found)
    return list(quickest.values()), [name for family, name in slow if family not in quickest]


def _scripts(directory: Path) -> dict[str, AlertScript]:
    """Return the quickest way to fire each alert."""
    scripts: dict[str, AlertScript] = {}
    for path in sorted(directory.glob("*.yml")):
        for script in alert_scripts(render.load_yaml(path), path.name):
            known = scripts.get(script.alert)
            if known is None or script.fires_after_s < known.fires_after_s:
                scripts[script.alert] = script
    return scripts


def _quickest(found: Iterable[Planned]) -> dict[str, Planned]:
    """Return one alert of each family."""
    quickest: dict[str, Planned] = {}
    for one in found:
        best = quickest.get(one.family)
        if one.script.alert not in STANDING and (best is None or one.whole_s < best.whole_s):
            quickest[one.family] = one
    return quickest


def _named(found: Sequence[Planned], slow: Collection[str], only: Sequence[str]) -> list[Planned]:
    chosen = [one for one in found if {one.script.alert, one.family, one.family.partition("/")[0]} & set(only)]
    known = {name for one in found for name in (one.script.alert, one.family, one.family.partition("/")[0])}
    for name in only:
        if name in slow:
            raise InputError(name, f"takes longer than {LIVE_MAX_S:g} s to fire", right="its promtool test fires it")
        if name not in known:
            right = f"there are the families {', '.join(sorted({one.family for one in found}))}, and every alert's name"
            raise InputError("alert", f"{name[:60]!r} is not known", right=right)
    return chosen


def _rules(directory: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(directory.glob("*.yml")):
        for group in render.load_yaml(path).get("groups", []):
            for rule in group.get("rules", []):
                if "alert" in rule:
                    yield f"{path.stem}/{group['name']}", rule


def batches(
    chosen: Iterable[Planned], inhibit_rules: Sequence[Mapping[str, Any]], metrics_of: Mapping[str, frozenset[str]]
) -> list[list[Planned]]:
    """Return the alerts in groups that may fire together: none holds back another, and no two share a metric.

    `metrics_of` tells the scraped metrics that each alert's rule looks at.
    """
    made: list[list[Planned]] = []
    for one in chosen:
        for batch in made:
            if len(batch) < BATCH_MAX and not any(_quarrel(one, other, inhibit_rules, metrics_of) for other in batch):
                batch.append(one)
                break
        else:
            made.append([one])
    return made


def _quarrel(
    one: Planned, other: Planned, inhibit_rules: Sequence[Mapping[str, Any]], metrics_of: Mapping[str, frozenset[str]]
) -> bool:
    looked_at = metrics_of.get(one.script.alert, frozenset()) | one.script.metrics
    if looked_at & (metrics_of.get(other.script.alert, frozenset()) | other.script.metrics):
        return True
    return any(
        _inhibits(rule, source, target)
        for rule in inhibit_rules
        for source, target in ((_labels(one), _labels(other)), (_labels(other), _labels(one)))
    )


def _labels(one: Planned) -> dict[str, str]:
    return {**one.script.labels, "alertname": one.script.alert}


def _inhibits(rule: Mapping[str, Any], source: Mapping[str, str], target: Mapping[str, str]) -> bool:
    """Tell whether a rule holds back `target` while `source` fires; equal labels are not looked at, to be safe."""
    return all(fits(str(one), source) for one in rule.get("source_matchers", [])) and all(
        fits(str(one), target) for one in rule.get("target_matchers", [])
    )


def fits(matcher: str, labels: Mapping[str, str]) -> bool:
    """Tell whether labels fit a matcher of Alertmanager.

    Raises:
        InputError: it is none.
    """
    found = _MATCHER.fullmatch(matcher)
    if found is None:
        raise InputError("matcher", f"{matcher[:60]!r} is none", right='write such as severity="critical"')
    name, relation, wanted = found.groups()
    wanted = wanted.replace('\\"', '"').replace("\\\\", "\\")
    value = labels.get(name, "")
    same = value == wanted if relation in {"=", "!="} else re.fullmatch(wanted, value) is not None
    return same == (relation in {"=", "=~"})
