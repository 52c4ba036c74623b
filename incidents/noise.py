"""What each alert rule was worth: how often it fired, what came of it, and what to do about it. Pure.

An **episode** is one stretch in which one alert (a rule and its labels) fired. It was
  - *acted on* when its incident saw an action carried out, or a person who acknowledged, consented or noted something;
  - *noise* when its incident went by without any of that;
  - *open* when its incident goes on and nobody has acted yet: that is not decided;
  - *not followed* when no incident holds it: people were told directly, and nobody recorded what they did.
Noise is counted against what was followed only: of the rest nothing is known, and nothing is not noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from incidents.timeline import Entry, EntryKind
from kernel.time import MINUTE, SECOND, Duration, Instant, to_seconds
from monitor.ports import Curve

ALWAYS_SHARE: Final = 0.95
"""A rule that fires for more of the window tells nothing that is not known already."""
NOISY_SHARE: Final = 0.5
NOISY_EPISODES_MIN: Final = 3
"""Fewer episodes are an anecdote."""
FLAP_WITHIN: Final = Duration(5 * MINUTE)
FLAPS_MIN: Final = 3
BRIEF: Final = Duration(10 * SECOND)
_SLACK: Final = MINUTE
"""An alert reaches its incident so much before or after Prometheus shows it at most."""
EXPECTED_ALWAYS: Final = frozenset({"Watchdog"})
"""The dead man's switch fires while all is well."""


class RuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says of itself."""

    alert: str
    severity: str = ""
    level: str = ""
    team: str = ""
    service: str = ""
    where: str = ""
    """File and line."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch in which one alert fired."""

    alert: str
    labels: Mapping[str, str]
    start: Instant
    end: Instant
    """When it was last seen firing."""
    open: bool = False
    """It fired to the end of the window."""


class Fate(StrEnum):
    """What came of an episode."""

    ACTED = "acted"
    NOISE = "noise"
    OPEN = "open"
    NOT_FOLLOWED = "not_followed"


class Advice(StrEnum):
    """What is wrong with a rule; a rule may earn several."""

    UNOWNED = "unowned"
    ALWAYS = "always_firing"
    NOISY = "noisy"
    FLAPPING = "flapping"
    BRIEF = "brief"
    NEVER = "never_fired"


class RuleWorth(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's row of the report."""

    rule: RuleFacts
    episodes: int
    acted: int
    noise: int
    open: int
    not_followed: int
    firing_s: float
    """Seconds in which at least one of its alerts fired."""
    median_s: float | None
    """Median length of an episode."""
    last: Instant | None
    advice: tuple[Advice, ...]
    words: tuple[str, ...]
    """A sentence for each piece of advice."""

    @property
    def noise_share(self) -> float | None:
        """Share of what was followed that was noise; None when nothing was followed."""
        followed = self.acted + self.noise
        return self.noise / followed if followed else None


def episodes(curves: Iterable[Curve], step: Duration, end: Instant) -> list[Episode]:
    """Cut the curves of `ALERTS{alertstate="firing"}`, sampled each `step` up to `end`, into episodes."""
    found: list[Episode] = []
    for curve in curves:
        labels = {name: value for name, value in curve.labels.items() if name not in {"__name__", "alertstate"}}
        alert = labels.pop("alertname", "")
        start: Instant | None = None
        last: Instant | None = None
        for at, _ in curve.points:
            if last is not None and start is not None and at - last > step * 3 // 2:
                found.append(Episode(alert=alert, labels=labels, start=start, end=last))
                start = None
            start, last = (at if start is None else start), at
        if start is not None and last is not None:
            found.append(Episode(alert=alert, labels=labels, start=start, end=last, open=end - last < step))
    return sorted(found, key=lambda one: (one.start, one.alert, sorted(one.labels.items())))


def fates(found: Sequence[Episode], timelines: Mapping[str, Sequence[Entry]]) -> list[Fate]:
    """Tell what came of each episode, by the timelines of the incidents of that time."""
    seen = [
        (entry, incident)
        for incident, entries in timelines.items()
        for entry in entries
        if entry.kind is EntryKind.ALERT_FIRING
    ]
    by_alert: dict[str, list[tuple[Entry, str]]] = {}
    for entry, incident in seen:
        by_alert.setdefault(str(entry.data.get("alertname")), []).append((entry, incident))
    acted = {incident: _was_acted_on(entries) for incident, entries in timelines.items()}
    over = {incident for incident, entries in timelines.items() if _is_over(entries)}
    return [_fate(episode, by_alert.get(episode.alert, ()), acted, over) for episode in found]


def _fate(
    episode: Episode, candidates: Sequence[tuple[Entry, str]], acted: Mapping[str, bool], over: Collection[str]
) -> Fate:
    mine = {incident for entry, incident in candidates if _is_same(episode, entry)}
    if not mine:
        return Fate.NOT_FOLLOWED
    if any(acted[incident] for incident in mine):
        return Fate.ACTED
    return Fate.NOISE if mine <= set(over) else Fate.OPEN


def _is_same(episode: Episode, entry: Entry) -> bool:
    labels = entry.data.get("labels")
    if not isinstance(labels, Mapping):
        return False
    known = {str(name): str(value) for name, value in labels.items() if name != "alertname"}
    return known == dict(episode.labels) and episode.start - _SLACK <= entry.at <= episode.end + _SLACK


def _is_over(entries: Sequence[Entry]) -> bool:
    changes = [entry for entry in entries if entry.kind is EntryKind.STATE_CHANGED]
    return bool(changes) and changes[-1].data.get("to") == "resolved"


def _was_acted_on(entries: Sequence[Entry]) -> bool:
    return any(
        (entry.kind is EntryKind.ACTION_DONE and bool(entry.data.get("ok")) and not entry.data.get("undo"))
        or (entry.kind is EntryKind.CONSENT and bool(entry.data.get("granted")))
        or entry.source.startswith("person:")
        for entry in entries
    )


def worth(
    rules: Iterable[RuleFacts], found: Sequence[Episode], came_of: Sequence[Fate], start: Instant, end: Instant
) -> list[RuleWorth]:
    """Judge every rule over a window; the ones most worth a look come first.

    Alerts that fired and have no rule (posted directly, or of a rule that is gone) get a row of their own.
    """
    told = list(zip(found, came_of, strict=True))
    known = {rule.alert: rule for rule in rules}
    for episode in found:
        known.setdefault(episode.alert, _unknown(episode))
    rows = [
        _judge(rule, [(one, fate) for one, fate in told if one.alert == rule.alert], start, end)
        for rule in known.values()
    ]
    urgency = {advice: place for place, advice in enumerate(Advice)}
    return sorted(
        rows,
        key=lambda row: (min((urgency[one] for one in row.advice), default=len(urgency)), -row.noise, -row.episodes,
                         row.rule.alert),
    )  # fmt: skip


def _unknown(episode: Episode) -> RuleFacts:
    said = {name: episode.labels.get(name, "") for name in ("severity", "level", "team", "service")}
    return RuleFacts(alert=episode.alert, where="no rule of this name", **said)


def _judge(rule: RuleFacts, told: Sequence[tuple[Episode, Fate]], start: Instant, end: Instant) -> RuleWorth:
    mine = [one for one, _ in told]
    counts = {fate: sum(one is fate for _, one in told) for fate in Fate}
    firing_s = to_seconds(sum(stop - begin for begin, stop in _union(mine)))
    lengths = [to_seconds(one.end - one.start) for one in mine]
    row = RuleWorth(
        rule=rule,
        episodes=len(mine),
        acted=counts[Fate.ACTED],
        noise=counts[Fate.NOISE],
        open=counts[Fate.OPEN],
        not_followed=counts[Fate.NOT_FOLLOWED],
        firing_s=firing_s,
        median_s=statistics.median(lengths) if lengths else None,
        last=max((one.end for one in mine), default=None),
        advice=(),
        words=(),
    )
    advice = dict(_advise(row, mine, to_seconds(end - start)))
    return msgspec.structs.replace(row, advice=tuple(advice), words=tuple(advice.values()))


def _union(mine: Sequence[Episode]) -> Iterator[tuple[Instant, Instant]]:
    """Yield the stretches in which at least one episode stands."""
    begin: Instant | None = None
    stop = Instant(0)
    for one in sorted(mine, key=lambda one: one.start):
        if begin is None or one.start > stop:
            if begin is not None:
                yield begin, stop
            begin, stop = one.start, one.end
        else:
            stop = max(stop, one.end)
    if begin is not None:
        yield begin, stop


def _advise(row: RuleWorth, mine: Sequence[Episode], window_s: float) -> Iterator[tuple[Advice, str]]:
    share = row.noise_share
    if not row.rule.team:
        yield Advice.UNOWNED, "Nobody owns it: give it a team, or delete it."
    if row.rule.alert not in EXPECTED_ALWAYS and window_s > 0 and row.firing_s >= ALWAYS_SHARE * window_s:
        words = "what always fires says nothing; mend its cause, raise its threshold, or make it a panel."
        yield Advice.ALWAYS, f"It fired for {row.firing_s / window_s:.0%} of the time: {words}"
    if share is not None and share >= NOISY_SHARE and row.noise >= NOISY_EPISODES_MIN:
        words = "lengthen its `for`, raise its threshold, or lower its level to a ticket."
        yield Advice.NOISY, f"{row.noise} of {row.noise + row.acted} episodes passed without anybody acting: {words}"
    flaps = _flaps(mine)
    if flaps >= FLAPS_MIN:
        minutes = to_seconds(FLAP_WITHIN) / 60
        yield Advice.FLAPPING, f"It came back within {minutes:.0f} minutes {flaps} times: give it a `keep_firing_for`."
    brief = row.median_s is not None and row.median_s < to_seconds(BRIEF) and len(mine) >= NOISY_EPISODES_MIN
    if brief and (share is None or share >= NOISY_SHARE):
        yield Advice.BRIEF, f"Half of its episodes lasted at most {row.median_s:.0f} s: nobody can act on them."
    if not mine:
        yield Advice.NEVER, "It never fired: inject its fault once (`tapewatch drill alerts`) to know that it can."


def _flaps(mine: Sequence[Episode]) -> int:
    last: dict[tuple[tuple[str, str], ...], Instant] = {}
    count = 0
    for one in sorted(mine, key=lambda one: one.start):
        key = tuple(sorted(one.labels.items()))
        if key in last and one.start - last[key] <= FLAP_WITHIN:
            count += 1
        last[key] = one.end
    return count
