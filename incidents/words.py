"""The words of a post-mortem: how instants, durations, actions, reasons and hostile texts read. Pure functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from incidents.plot import figure
from kernel.time import MICROSECOND, MILLISECOND, MINUTE, SECOND, from_rfc3339

LONGEST: Final = 240
"""Letters of a foreign text that a report shows; labels may be of any length."""
_LONGEST_URL: Final = 2000
_EARLIEST: Final = 10**15
"""A whole number of at least this size is an instant (11 days after 1970 in nanoseconds), a smaller one a count."""

STATES: Final[Mapping[str, str]] = {
    "open": "Open",
    "acknowledged": "Acknowledged",
    "mitigated": "Mitigated",
    "resolved": "Resolved",
}
OUTCOMES: Final[Mapping[str, str]] = {
    "mended": "it helped, and a reading proves it",
    "not_applicable": "it did not apply, so nothing was touched",
    "refused": "it was refused by a guard",
    "failed": "an action failed",
    "not_proven": "no reading proved that it helped",
    "undone": "no reading proved that it helped, so it was undone",
}
REASONS: Final[Mapping[str, str]] = {
    "kill_switch": "automatic actions were switched off",
    "guard_not_met": "a guard did not hold",
    "no_evidence": "monitoring gave no data that may be acted on",
    "cool_down": "it had run for this target a short time before",
    "too_many_runs": "it had run too often within the hour",
    "ineffective": "it had run before without helping",
    "blast_radius": "it would have touched more than it may",
    "unhealthy_share": "too much of the plant looked unhealthy, so the observer was suspected first",
    "not_allowed": "the action is not allowed here",
    "singleton": "a single writer is never scaled",
    "no_target": "there was no target",
    "no_consent": "nobody agreed to it",
    "conflict": "the target had changed since the plan was made",
    "run_in_progress": "another run was at work",
    "owned": "another controller or person owns what it would have changed",
    "state_unsafe": "state could have been lost",
    "four_eyes": "two people have to agree to it, and it asks for fewer",
    "market_phase": "it does not act in that phase of the market",
    "mixed_versions": "several versions ran at once",
    "disruption_budget": "a disruption budget allowed nothing to be ended",
    "not_leader": "another controller led",
    "wrong_cluster": "it was another cluster than the one it is meant for",
    "plan_changed": "the facts had changed since people agreed to the plan",
    "person_only": "no automatic action is right there",
    "anomaly_alone": "nothing but a detector asked for it",
}
UNKNOWNS: Final[Mapping[str, str]] = {
    "unreachable": "monitoring could not be reached",
    "refused": "monitoring refused the question",
    "missing": "there was no such data",
    "stale": "the data was too old",
    "not_a_number": "the data was not a number",
    "partial": "the data was incomplete",
    "ambiguous": "there was more than one answer",
}
_ACTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "restart_replica": ("restart {}", ("replica",)),
    "scale": ("scale {} by {}", ("workload", "by")),
    "set_replicas": ("set {} to {} replicas", ("workload", "replicas")),
    "halt_symbol": ("halt {}", ("symbol",)),
    "resume_symbol": ("resume {}", ("symbol",)),
    "halt_market": ("halt the market", ()),
    "resume_market": ("resume the market", ()),
    "verify_replay": ("verify the replay of {}", ("workload",)),
    "keep_snapshot": ("keep a snapshot of {}", ("workload",)),
    "rolling_restart": ("restart {} a few replicas at a time", ("workload",)),
    "roll_back": ("roll {} back to its previous revision", ("workload",)),
    "pause_rollout": ("pause the rollout of {}", ("workload",)),
    "resume_rollout": ("resume the rollout of {}", ("workload",)),
    "delete_replica": ("delete {}, which does not end", ("replica",)),
    "cordon": ("cordon the node {}", ("node",)),
    "fail_over": ("fail {} over from {}", ("workload", "replica")),
    "drain": ("drain the node {}", ("node",)),
    "run_job": ("run the job {}", ("job",)),
    "set_flag": ("set {} of {} to {}", ("flag", "config", "value")),
    "restore_config": ("restore {} to its last good contents", ("config",)),
    "switch_service": ("switch the service {} to {}", ("service", "colour")),
    "take_back": ("take back what was changed on {}", ("target",)),
}


def clean(value: object, longest: int = LONGEST) -> str:
    """Make a foreign text fit for one line of a report.

    White space of every kind (also U+2028 and U+0085) becomes one blank; controls, direction changes and other letters
    nobody can see become U+FFFD, so that they show; what is longer than `longest` letters is cut and ends in "…".
    """
    text = str(value)[: 4 * longest + 16]
    line = " ".join("".join(_visible(letter) for letter in text).split())
    return line if len(line) <= longest and len(text) == len(str(value)) else line[: longest - 1] + "…"


def _visible(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else "\ufffd"


def label(name: str) -> str:
    """Write an identifier of ours for people: underscores become blanks."""
    return clean(name, 80).replace("_", " ")


def clock(instant: int) -> str:
    """Write the time of day in UTC with milliseconds: `09:30:00.125`."""
    moment = dt.datetime.fromtimestamp(instant // SECOND, tz=dt.UTC)
    return f"{moment:%H:%M:%S}.{instant % SECOND // MILLISECOND:03d}"


def day(instant: int) -> str:
    """Write the date in UTC: `2026-03-02`."""
    return f"{dt.datetime.fromtimestamp(instant // SECOND, tz=dt.UTC):%Y-%m-%d}"


def spell(duration: int) -> str:
    """Write a length of time, cut to what people read: `850 ms`, `4.2 s`, `2 min 5 s`, `1 h 3 min`. The sign is dropped."""  # noqa: E501 - a sentence or a table row stays whole
    duration = abs(duration)
    if duration == 0:
        return "0 s"
    if duration < MILLISECOND:
        return f"{duration // MICROSECOND} µs"
    if duration < SECOND:
        return f"{duration // MILLISECOND} ms"
    tenths = duration // (SECOND // 10)
    if duration < MINUTE:
        return f"{tenths // 10}.{tenths % 10} s"
    minutes, left = divmod(duration, MINUTE)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {left // SECOND} s"
    return f"{minutes // 60} h {minutes % 60} min"


def instant_of(value: object) -> int | None:
    """Read an instant from an entry's data: nanoseconds, or RFC 3339; None when it is neither."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= _EARLIEST:
        return value
    if isinstance(value, str):
        try:
            return from_rfc3339(value)
        except ValueError:
            return None
    return None


def number_of(value: object) -> float | None:
    """Read a number from an entry's data; None when it is none. A flag is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def shown(value: object) -> str:
    """Write any scalar of an entry's data."""
    number = number_of(value)
    return clean(value) if number is None else figure(number)


def action_words(action: object) -> str:
    """Say what an action does: from its tagged form (`{"type": "scale", …}`), or the text itself."""
    if not isinstance(action, Mapping):
        return clean(action)
    template, fields = _ACTIONS.get(str(action.get("type")), ("", ()))
    if not template:
        return clean(", ".join(f"{key} {shown(value)}" for key, value in action.items()))
    return template.format(*(_signed(action, name) for name in fields))


def _signed(action: Mapping[object, object], name: str) -> str:
    value = action.get(name, "?")
    return f"{value:+d}" if name == "by" and isinstance(value, int) else clean(value, 80)


def changes(before: object, after: object) -> str:
    """Say what became of a target's facts: `pid 123 → 456, ready yes`. Facts that stayed the same are left out."""
    old = before if isinstance(before, Mapping) else {}
    new = after if isinstance(after, Mapping) else {}
    told = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key in old and key in new:
            if old[key] != new[key]:
                told.append(f"{clean(key, 40)} {clean(old[key], 80)} → {clean(new[key], 80)}")
        elif key in new:
            told.append(f"{clean(key, 40)} {clean(new[key], 80)}")
    return ", ".join(told)


def names(values: Iterable[object]) -> str:
    """Join names as people do: `a`, `a and b`, `a, b and c`."""
    items = [clean(value, 80) for value in values]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else ""


def web_link(value: object) -> str | None:
    """Return an http(s) address as it may stand in a link, or None for everything else."""
    if not isinstance(value, str) or len(value) > _LONGEST_URL or not value.isascii() or not value.isprintable():
        return None
    if any(letter in value for letter in ' "<>[]\\^`{|}'):
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return value if parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc else None
