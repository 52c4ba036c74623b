"""Gather what a review is made from: incidents from control, firings, costs and objectives from Prometheus."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from control import render
from incidents.noise import Episode, RuleFacts, episodes, fates, worth
from incidents.review import Facts, MetricCost, ObjectiveState
from incidents.timeline import Entry
from kernel.errors import TapewatchError
from kernel.time import MINUTE, SECOND, Duration, Instant, to_seconds
from monitor.catalog import BY_NAME
from monitor.ports import Curve, Metrics
from monitor.promql import metric_names

RULES: Final = render.ALERTS / "rules"
BOARDS: Final = render.ALERTS.parent / "dashboards" / "grafana"
QUESTION_TIMEOUT_S: Final = 30.0
BYTES_PER_SAMPLE: Final = 2.0
"""The upper end of what Prometheus's documentation on storage gives; used until its own figures are there."""
_POINTS_MAX: Final = 10_000
"""Prometheus answers at most 11,000 points a series."""
_INSTANT_STEP: Final = SECOND
_FIRING: Final = 'ALERTS{alertstate="firing"}'
_DAY_S: Final = 86_400.0


def rule_facts(directory: Path = RULES) -> list[RuleFacts]:
    """Read what every alert rule says of itself.

    Raises:
        InputError: a file is broken.
    """
    return [
        RuleFacts(
            alert=str(rule["alert"]),
            where=f"{path.parent.name}/{path.name}",
            **{name: str(rule.get("labels", {}).get(name, "")) for name in ("severity", "level", "team", "service")},
        )
        for path, rule in _rules(directory)
        if "alert" in rule
    ]


def _rules(directory: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for path in sorted(directory.glob("*.yml")):
        for group in render.load_yaml(path).get("groups", []):
            for rule in group.get("rules", []):
                yield path, rule


def lookers(rules: Path = RULES, boards: Path = BOARDS) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return which alerts and which boards look at each metric, through recorded series too."""
    recorded: dict[str, set[str]] = {}
    asked: list[tuple[str, set[str]]] = []
    for _, rule in _rules(rules):
        names = set(metric_names(str(rule["expr"])))
        if "record" in rule:
            recorded.setdefault(str(rule["record"]), set()).update(names)
        else:
            asked.append((str(rule["alert"]), names))
    by_alert: dict[str, set[str]] = {}
    for alert, names in asked:
        for name in through(names, recorded):
            by_alert.setdefault(name, set()).add(alert)
    by_board: dict[str, set[str]] = {}
    for path in sorted(boards.glob("*.json")):
        board = msgspec.json.decode(path.read_bytes())
        if not isinstance(board, dict):
            continue
        names = {name for expression in _expressions(board) for name in metric_names(expression)}
        for name in through(names, recorded):
            by_board.setdefault(name, set()).add(str(board.get("uid", path.stem)))
    return by_alert, by_board


def recorded(rules: Path = RULES) -> dict[str, str]:
    """Return the recorded series and what each is made from; of several rules of one name, the last."""
    return {str(rule["record"]): str(rule["expr"]) for _, rule in _rules(rules) if "record" in rule}


def through(names: Collection[str], recorded: Mapping[str, Collection[str]]) -> set[str]:
    """Return the names and all that recorded series among them are made from."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(recorded.get(name, ()))
    return found


def _expressions(value: object) -> Iterator[str]:
    """Yield every PromQL expression of a board, wherever it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"expr", "query"} and isinstance(inner, str):
                yield inner
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


class Asker:
    """Questions to Prometheus whose failure becomes a note, once each."""

    def __init__(self, prometheus: Metrics, now: Instant) -> None:
        self._prometheus = prometheus
        self._now = now
        self.notes: list[str] = []

    async def curves(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        """Return a query's curves; none, and a note, when there is no answer."""
        try:
            return await self._prometheus.curve(query, start, end, step)
        except TapewatchError as error:
            self.notes.append(str(error)[:300])
            return ()

    async def table(self, query: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the series of a query and their values now."""
        found = await self.curves(query, self._now, self._now, _INSTANT_STEP)
        return [(one.labels, one.points[-1][1]) for one in found if one.points and math.isfinite(one.points[-1][1])]

    async def one(self, query: str) -> float | None:
        """Return the value of a query that gives one number; None when it does not."""
        found = await self.table(query)
        return found[0][1] if len(found) == 1 else None


async def gather(
    prometheus: Metrics,
    timelines: Mapping[str, Sequence[Entry]],
    *,
    start: Instant,
    end: Instant,
    notes: Sequence[str] = (),
    reports: Mapping[str, str] = MappingProxyType({}),
) -> Facts:
    """Ask everything that a review of a period needs. What has no answer is named in its notes."""
    asker = Asker(prometheus, end)
    found = await _episodes(asker, start, end)
    mine = {name: entries for name, entries in timelines.items() if entries and start <= entries[0].at <= end}
    before = {
        name: entries
        for name, entries in timelines.items()
        if entries and start - (end - start) <= entries[0].at < start
    }
    window = f"{round(to_seconds(end - start))}s"
    begins = await asker.one("min(prometheus_tsdb_lowest_timestamp_seconds)")
    return Facts(
        start=start,
        end=end,
        made=end,
        timelines=mine,
        before=before,
        rules=worth(rule_facts(), found, fates(found, timelines), start, end),
        metrics=await _costs(asker),
        objectives=await _objectives(asker),
        orders=await asker.one(f"sum(increase(exchange_gateway_requests_total[{window}]))"),
        data_begins=None if begins is None else Instant(round(begins * 1e9)),
        notes=(*notes, *asker.notes),
        reports=reports,
    )


async def _episodes(asker: Asker, start: Instant, end: Instant) -> list[Episode]:
    step = Duration(max(1, math.ceil(to_seconds(end - start) / _POINTS_MAX)) * SECOND)
    # A step that is longer than Prometheus's look-back would miss what fired between two of them.
    query = _FIRING if step <= 2 * SECOND else f"max_over_time({_FIRING}[{step // SECOND}s])"
    return episodes(await asker.curves(query, start, end, step), step, end)


async def _costs(asker: Asker) -> list[MetricCost]:
    counted = await asker.table('count by (__name__) ({__name__!=""})')
    per_sample = await asker.one(
        "sum(prometheus_tsdb_compaction_chunk_size_bytes_sum) / sum(prometheus_tsdb_compaction_chunk_samples_sum)"
    )
    per_minute = await asker.one("max(count_over_time(up[1m]))")
    if per_sample is None:
        per_sample = BYTES_PER_SAMPLE
        asker.notes.append(
            f"Prometheus has compacted no block: bytes a day are estimated with {BYTES_PER_SAMPLE:g} bytes a sample."
        )
    daily = per_sample * per_minute * _DAY_S / to_seconds(MINUTE) if per_minute else None
    by_alert, by_board = lookers()
    names = {labels.get("__name__", "") for labels, _ in counted}
    families: dict[str, int] = {}
    for labels, count in counted:
        name = _family(labels.get("__name__", ""), names)
        families[name] = families.get(name, 0) + round(count)
    return [
        MetricCost(
            name=name,
            series=series,
            bytes_per_day=None if daily is None else series * daily,
            owner=getattr(BY_NAME.get(name), "owner", "") or "",
            alerts=tuple(sorted(_of_family(name, by_alert))),
            boards=tuple(sorted(_of_family(name, by_board))),
        )
        for name, series in sorted(families.items())
    ]


def _family(name: str, names: Collection[str]) -> str:
    """Return the histogram that a series is a part of, or its own name."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and f"{base}_bucket" in names:
            return base
    return name


def _of_family(name: str, by: Mapping[str, set[str]]) -> set[str]:
    return set().union(*(by.get(name + suffix, set()) for suffix in ("", "_bucket", "_sum", "_count")))


async def _objectives(asker: Asker) -> list[ObjectiveState]:
    promised = await asker.table("slo:objective:ratio")
    left = {labels.get("slo"): value for labels, value in await asker.table("slo:error_budget_remaining:ratio")}
    errors = {labels.get("slo"): value for labels, value in await asker.table("slo:sli_error:ratio_rate30d")}
    return [
        ObjectiveState(
            name=labels.get("slo", "?"),
            objective=value,
            achieved=None if errors.get(labels.get("slo")) is None else 1 - errors[labels.get("slo")],
            budget_left=left.get(labels.get("slo")),
        )
        for labels, value in sorted(promised, key=lambda one: one[0].get("slo", ""))
    ]
