"""ElastAlert 2's rule files as rules of ours. What has no equal is named by file and line, with what comes nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from kernel.errors import InputError
from monitor.adapters.elastalert_filters import field_of, query_of
from monitor.adapters.log_rule_files import rule_of
from monitor.adapters.yaml_places import Lines, read
from monitor.logrules.model import OPTIONS, Kind

_STEPS: Final = (5, 10, 15, 30, 60, 300, 600, 3600)
_MAX_STEPS: Final = 1_000
_UNITS: Final = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1, "milliseconds": 0.001}
_NUMBERS: Final = {
    "num_events": "at_least", "threshold": "below", "spike_height": "ratio", "threshold_ref": "min_reference",
    "threshold_cur": "min_current", "max_cardinality": "max", "min_cardinality": "min", "max_threshold": "max",
    "min_threshold": "min", "max_percentage": "max", "min_percentage": "min", "min_denominator": "min_total",
}  # fmt: skip
_NEEDLESS: Final = frozenset(
    [
        "index",
        "es_host",
        "es_port",
        "es_hosts",
        "es_username",
        "es_password",
        "es_bearer",
        "es_api_key",
        "es_url_prefix",
        "use_ssl",
        "verify_certs",
        "ssl_show_warn",
        "ca_certs",
        "client_cert",
        "client_key",
        "use_strftime_index",
        "use_count_query",
        "use_terms_query",
        "terms_size",
        "doc_type",
        "max_query_size",
        "max_scrolling",
        "max_threads",
        "misfire_grace_time",
        "include",
        "use_local_time",
        "buffer_time",
        "run_every",
        "window_step_size",
        "use_keyword_postfix",
        "use_run_every_query_size",
        "allow_buffer_time_overlap",
        "bucket_interval",
        "sync_bucket_interval",
        "metric_format_string",
        "percentage_format_string",
        "top_count_keys",
        "top_count_number",
        "raw_count_keys",
        "attach_related",
        "scan_entire_timeframe",
        "replace_dots_in_field_names",
        "custom_pretty_ts_format",
        "kibana_url",
        "kibana_username",
        "kibana_password",
        "kibana_verify_certs",
        "generate_kibana_discover_url",
        "kibana_discover_app_url",
        "kibana_discover_version",
        "kibana_discover_index_pattern_id",
        "kibana_discover_columns",
        "alert_text",
        "alert_text_args",
        "alert_text_kw",
        "alert_text_type",
        "alert_subject_args",
        "alert_missing_value",
        "summary_table_fields",
        "notify_email",
    ]
)
_LOST: Final = {
    "import": "copy what the file holds into this one",
    "match_enhancements": "a relabelling or a template of Alertmanager",
    "limit_execution": "time intervals of alerts/routing/hours.yaml",
    "field_value": "kind metric_aggregation with metric sum",
    "forget_keys": "none: a key that was ever seen is waited for",
    "alert_on_new_data": "a second rule of kind frequency",
    "alert_on_missing_field": "a second rule with NOT _exists_:field",
    "realert_key": "by: the key of the rule is also that of its alerts",
    "percentile_range": "metric max",
}
_READ: Final = frozenset(
    [
        "name",
        "type",
        "filter",
        "alert",
        "query_key",
        "timeframe",
        "realert",
        "exponential_realert",
        "aggregation",
        "query_delay",
        "timestamp_field",
        "compare_key",
        "blacklist",
        "whitelist",
        "ignore_null",
        "spike_type",
        "fields",
        "terms_window_size",
        "cardinality_field",
        "metric_agg_key",
        "metric_agg_type",
        "match_bucket_filter",
        "description",
        "owner",
        "priority",
        "is_enabled",
        "alert_subject",
    ]
)
_CHANNELS: Final = re.compile(
    r"^(slack|email|smtp|opsgenie|pagerduty|ms_teams|ms_power|telegram|discord|http_post2?|webhook|jira|victorops|twilio|sns|ses|"
    r"mattermost|rocket_chat|googlechat|alertmanager|alerta|gitter|zabbix|command|servicenow|stomp|thehive|hivealerter|from_addr|cc"
    r"|bcc|pagertree|dingtalk|lark|chatwork|exotel|datadog|line|iris|matrixhookshot|rasa|workwechat|yzj|gelf|tencent|webex)"
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """One thing that is not as it was."""

    text: str
    essential: bool
    """Whether the rule would find other things than before."""


@dataclass
class Converted:
    """A rule of ours, and what of the old one is not in it."""

    yaml: str = ""
    notes: list[Note] = field(default_factory=list)


def convert(path: Path) -> Converted:
    """Convert one rule file.

    Raises:
        InputError: it cannot be read as YAML.
    """
    given, lines = read(path)
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise InputError(f"{path}:1", "this is no rule of ElastAlert", right="a file with name, type, index and alert")
    return _Conversion(str(path), given, lines).result()


class _Conversion:
    """One file on its way."""

    def __init__(self, file: str, given: Mapping[str, Any], lines: Lines) -> None:
        self._file, self._given, self._lines = file, given, lines
        self._out = Converted()

    def result(self) -> Converted:
        kind_name = self._given["type"]
        if kind_name not in set(Kind) - {Kind.CORRELATION, Kind.NEW_TEMPLATE}:
            self._lost(
                ("type",), f"the type {kind_name} is not known", "one of ElastAlert's own twelve, or a correlation"
            )
            return self._out
        kind = Kind(kind_name)
        rule: dict[str, Any] = {"name": self._name(), "kind": kind_name}
        rule["query"] = query_of(self._given.get("filter"), ("filter",), self._lost)
        if self._given.get("filter") and not rule["query"]:
            self._lost(
                ("filter",), "nothing of the filter can be kept; the rule would match every record", "the rule anew"
            )
            self._rest()
            return self._out
        rule |= self._by() | self._numbers() | self._of_kind(kind) | self._times(kind)
        rule = {name: value for name, value in rule.items() if value is not None}
        rule |= self._words()
        self._rest()
        self._check(rule)
        return self._out

    def _check(self, rule: dict[str, Any]) -> None:
        try:
            rule_of(rule, self._file, {}, ())
        except InputError as error:
            self._lost((), f"no rule comes of it: {error.problem}", error.right or "a rule written anew")
            return
        text = yaml.safe_dump([rule], sort_keys=False, allow_unicode=True, width=110)
        self._out.yaml = "".join(f"  {line}\n" for line in text.splitlines())

    def _by(self) -> dict[str, Any]:
        keys = self._given.get("query_key")
        if not keys:
            return {}
        return {"by": [field_of(one) for one in (keys if isinstance(keys, list) else [keys])]}

    def _numbers(self) -> dict[str, Any]:
        return {ours: self._given[theirs] for theirs, ours in _NUMBERS.items() if theirs in self._given}

    def _of_kind(self, kind: Kind) -> dict[str, Any]:
        found: dict[str, Any] = {}
        given = self._given
        for name in ("compare_key", "fields") if kind is not Kind.NEW_TERM else ("fields",):
            if kind in {Kind.BLACKLIST, Kind.WHITELIST, Kind.CHANGE, Kind.NEW_TERM} and name in given:
                found["field"] = self._single(name)
        if kind in {Kind.BLACKLIST, Kind.WHITELIST}:
            found["values"] = self._list(str(kind))
        if kind is Kind.WHITELIST:
            found["ignore_missing"] = bool(given.get("ignore_null", False))
        if kind is Kind.CHANGE and not given.get("ignore_null", False):
            self._note(("ignore_null",), "a record without the field never counts as a change here")
        if kind in {Kind.SPIKE, Kind.SPIKE_AGGREGATION}:
            found["direction"] = given.get("spike_type", "both")
            self._note(("type",), "from no records at all nothing is a multiple: such a spike is not found")
        if kind is Kind.CARDINALITY:
            found["field"] = field_of(str(given.get("cardinality_field", "")))
        if kind in {Kind.METRIC_AGGREGATION, Kind.SPIKE_AGGREGATION}:
            found["field"] = field_of(str(given.get("metric_agg_key", "")))
            found["metric"] = self._metric()
        if kind is Kind.PERCENTAGE_MATCH:
            found["part"] = query_of(given.get("match_bucket_filter"), ("match_bucket_filter",), self._lost)
        return found

    def _single(self, name: str) -> str:
        value = self._given[name]
        many = value if isinstance(value, list) else [value]
        if len(many) > 1 or isinstance(many[0], list):
            self._lost((name,), f"{name} has several fields; only the first is converted", "a rule for each")
        first = many[0][0] if isinstance(many[0], list) else many[0]
        return field_of(str(first))

    def _list(self, name: str) -> list[Any]:
        values = []
        for place, one in enumerate(self._given.get(name) or ()):
            if isinstance(one, str) and one.startswith("!"):
                self._lost((name, place), f"the values of {one[:60]!r}", "the values written into the rule")
            else:
                values.append(one)
        return values

    def _metric(self) -> str:
        name = str(self._given.get("metric_agg_type", "avg"))
        if name in {"percentiles", "cardinality"}:
            nearest = "max" if name == "percentiles" else "kind cardinality"
            self._lost(("metric_agg_type",), f"the metric {name} is not known", nearest)
            return "max"
        return "count" if name == "value_count" else name

    def _times(self, kind: Kind) -> dict[str, Any]:
        found: dict[str, Any] = {}
        needs = OPTIONS[kind]
        every = 5
        if "timeframe" in (*needs.must, *needs.may):
            frame = self._seconds("timeframe") or self._seconds("buffer_time")
            if frame is None and "timeframe" in needs.must:
                frame = 900
                self._note(("type",), "neither timeframe nor buffer_time is given; 15m is taken")
            if frame is not None:
                whole = max(1, round(frame))
                every = next((one for one in _STEPS if whole % one == 0 and whole // one <= _MAX_STEPS), 1)
                found |= {"timeframe": f"{whole}s", "every": f"{every}s"}
        elif "timeframe" in self._given:
            self._note(("timeframe",), f"kind {kind} has no timeframe")
        if kind is Kind.NEW_TERM:
            found["known_for"] = f"{round(self._seconds('terms_window_size') or 30 * 86_400)}s"
        delay = self._seconds("query_delay")
        realert = 60.0 if (given := self._seconds("realert")) is None else given
        longest = self._seconds("exponential_realert")
        return found | {
            "lateness": None if delay is None else f"{round(delay)}s",
            "hold": f"{max(60, every)}s",
            "realert": f"{round(realert)}s",
            "realert_max": None if longest is None else f"{round(longest)}s",
        }

    def _seconds(self, name: str) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        total = 0.0
        for unit, amount in value.items() if isinstance(value, Mapping) else [("", value)]:
            if unit not in _UNITS or isinstance(amount, bool) or not isinstance(amount, int | float):
                self._lost((name, unit) if unit else (name,), f"{name} is no time", "minutes: 5, say")
                return None
            total += _UNITS[unit] * amount
        return total

    def _words(self) -> dict[str, Any]:
        given = self._given
        priority = given.get("priority")
        level = str(min(3, max(1, priority))) if isinstance(priority, int) else "3"
        team = re.sub(r"[^a-z0-9-]+", "-", str(given.get("owner", "observability")).lower()).strip("-")
        subject = str(given.get("alert_subject", given.get("name", self._name())))
        if "{" in subject:
            self._note(("alert_subject",), "its places for values are left out of the summary")
        summary = re.sub(r"\{[^}]*\}", "…", subject)
        severity = {"1": "critical", "2": "warning"}.get(level, "info")
        why = f"priority {priority}" if isinstance(priority, int) else "no priority is given"
        whose = "of owner" if "owner" in given else "no owner is given"
        self._note(
            ("priority",), f"level {level} and severity {severity} ({why}), team {team or 'observability'} ({whose}): "
                           "they say who is told; change them in the rule where they do not fit"
        )  # fmt: skip
        description = str(given.get("description") or f"Converted from {Path(self._file).name}.") + " {why}"
        return {
            "labels": {"severity": severity, "level": level, "team": team or "observability", "service": "log-watch"},
            "annotations": {"summary": summary, "description": description},
        }

    def _rest(self) -> None:
        given = self._given
        alerts = given.get("alert", [])
        for one in alerts if isinstance(alerts, list) else [alerts]:
            name = next(iter(one)) if isinstance(one, Mapping) and one else one
            self._note(("alert",), f"alert {name}: who is told follows from team and level; the channel belongs into "
                                   "alerts/routing (docs/routing.md)")  # fmt: skip
        if "aggregation" in given:
            self._note(("aggregation",), "alerts are grouped by Alertmanager; see group_wait in docs/routing.md")
        if given.get("timestamp_field", "@timestamp") != "@timestamp":
            self._lost(("timestamp_field",), "another field of time", "records with @timestamp")
        if given.get("is_enabled", True) is False:
            self._note(("is_enabled",), "the rule was switched off; the converted one is not")
        for name, value in given.items():
            if name in _LOST and value:
                self._lost((name,), f"{name} is not known", _LOST[name])
            elif name in _NEEDLESS:
                self._note((name,), f"{name} is not needed here")
            elif name not in {*_READ, *_NUMBERS, *_LOST} and not _CHANNELS.match(name):
                self._lost((name,), f"{name} is not known", "none; leave it away when it is only about the message")

    def _name(self) -> str:
        words = re.findall(r"[A-Za-z0-9]+", str(self._given.get("name") or Path(self._file).stem))
        name = "".join(word[:1].upper() + word[1:] for word in words)
        return (name if re.match(r"[A-Z]", name) else f"Log{name}")[:60].ljust(3, "X")

    def _place(self, path: tuple[str | int, ...]) -> str:
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self._file}:{self._lines.get(path, 1)}"

    def _lost(self, path: tuple[str | int, ...], what: str, nearest: str) -> None:
        self._out.notes.append(Note(f"{self._place(path)}: {what}; nearest: {nearest}", essential=True))

    def _note(self, path: tuple[str | int, ...], what: str) -> None:
        self._out.notes.append(Note(f"{self._place(path)}: {what}", essential=False))
