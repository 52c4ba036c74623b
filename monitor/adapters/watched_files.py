"""The list of watched series from its YAML file: every entry checked, a wrong one named by file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from kernel.errors import InputError
from monitor.adapters.yaml_places import Lines, read
from monitor.catalog import BY_NAME, Role
from monitor.catalog_anomaly import WATCHED_MAX
from monitor.promql import metric_names
from monitor.rule_check import findings_of
from monitor.watched import BY_JOB, WINDOW, Harm, Renews, Watched, filled

HOUSE: Final = Path(__file__).resolve().parents[2] / "alerts" / "anomaly" / "watched.yaml"
"""The list that ships with the program."""
PARTS_MAX: Final = 200
"""Parts of one entry."""
_MUST: Final = ("id", "query", "service", "unit", "reason")
_MAY: Final = ("by", "most", "harm", "least", "session", "renews", "follows")
_ID: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SERVICE: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_SHARE: Final = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)%")
_LEAST_MAX: Final = 1e18
_TEXT_MAX: Final = 1_000


def load_watched(path: Path) -> tuple[Watched, ...]:
    """Return the list, in its order.

    Raises:
        InputError: something is wrong; names file and line and what would be right.
    """
    value, lines = read(path)
    if not isinstance(value, dict) or set(value) != {"series"} or not isinstance(value["series"], list):
        raise InputError(f"{path}:1", "this is no list of watched series", right="one key, series:, with a list")
    if not value["series"]:
        raise InputError(f"{path}:{lines.get(('series',), 1)}", "the list is empty", right="watch one series at least")
    found: dict[str, Watched] = {}
    for place, given in enumerate(value["series"]):
        one = _Entry(path, lines, place).read(given)
        if one.id in found:
            raise InputError(one.where, f"{one.id} is also in {found[one.id].where}", right="another id")
        found[one.id] = one
    for one in found.values():
        known = [
            other.id for other in found.values() if other.service == one.service and other.id != one.id and not other.by
        ]
        if one.follows and one.follows not in known:
            right = f"of {one.service} there are {', '.join(known) or 'no others'}"
            raise InputError(
                one.where,
                f"{one.id} follows {one.follows[:40]!r}, which is no other series of its service",
                right=right,
            )
    total = sum(one.most for one in found.values())
    if total > WATCHED_MAX:
        raise InputError(str(path), f"the entries may have {total:,} series", right=f"at most {WATCHED_MAX:,} in all")
    return tuple(found.values())


class _Entry:
    """One entry while it is read."""

    def __init__(self, path: Path, lines: Lines, place: int) -> None:
        self._path, self._lines, self._place = path, lines, place

    def read(self, given: Any) -> Watched:
        if not isinstance(given, dict):
            raise self._wrong((), "an entry is no text", f"it has {', '.join(_MUST)}")
        known = (*_MUST, *_MAY)
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                raise self._wrong((key,), f"{key} is no key of an entry", self._nearest(near, known))
        for key in _MUST:
            if key not in given:
                raise self._wrong((), f"the entry lacks {key}", f"it has {', '.join(_MUST)}")
        parts: dict[str, Any] = {key: self._text(key, given[key]) for key in (*_MUST, "by", "follows") if key in given}
        for key, pattern, right in (("id", _ID, "lower-case words joined by -"), ("by", _LABEL, "one label's name")):
            if key in parts and not pattern.fullmatch(parts[key]):
                raise self._wrong((key,), f"{parts[key][:40]!r} is no {key}", right)
        if parts["service"] != BY_JOB and not _SERVICE.fullmatch(parts["service"]):
            raise self._wrong(("service",), f"{parts['service'][:40]!r} is no service", f"such as gateway, or {BY_JOB}")
        self._query(parts["query"], parts.get("by", ""), parts["service"])
        least, least_share = self._least(given)
        return Watched(
            **parts,
            most=self._most(given),
            least=least,
            least_share=least_share,
            harm=Harm(self._choice("harm", given, Harm.BOTH, [*Harm])),
            session=self._flag(given),
            renews=Renews(self._choice("renews", given, Renews.BUILD, [*Renews])),
            where=self._where(()),
        )

    def _query(self, query: str, by: str, service: str) -> None:
        asked = filled(query, 10)
        if "$" in asked:
            raise self._wrong(("query",), "a variable that is not known stands in it", f"only {WINDOW} is filled in")
        for finding in findings_of(asked, {}):
            raise self._wrong(("query",), finding.what, finding.right)
        names = metric_names(asked)
        if not names:
            raise self._wrong(("query",), "it asks for no metric", "PromQL over a metric of docs/metrics.md")
        for name in sorted(names):
            if name in BY_NAME and BY_NAME[name].role is Role.ANOMALY:
                raise self._wrong(("query",), f"{name} is our own", "what detectors say is not watched by them")
        kept = set(re.findall(r"\bby\s*\(([^)]*)\)", asked))
        labels = {label.strip() for group in kept for label in group.split(",")}
        for label, why in ((by, "by"), ("job" if service == BY_JOB else "", "service")):
            if label and label not in labels:
                right = f"aggregate by ({label}), so that the result has it"
                raise self._wrong((why,), f"the query does not keep the label {label}", right)

    def _most(self, given: dict[str, Any]) -> int:
        most = given.get("most", 1)
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= PARTS_MAX:
            raise self._wrong(("most",), f"{str(most)[:40]!r} is no number of parts", f"1 to {PARTS_MAX}")
        if ("by" in given) != ("most" in given):
            raise self._wrong(("most" if "most" in given else "by",), "by and most go together", "write both or none")
        return most

    def _least(self, given: dict[str, Any]) -> tuple[float, float]:
        """Return the bound as a number of the unit, or as a share of what is usual."""
        least = given.get("least", 0)
        share = _SHARE.fullmatch(least) if isinstance(least, str) else None
        if share is not None:
            return 0.0, float(share.group(1)) / 100
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least < _LEAST_MAX:
            raise self._wrong(("least",), f"{str(least)[:40]!r} is no size", "a number of its unit, or such as 20%")
        return float(least), 0.0

    def _flag(self, given: dict[str, Any]) -> bool:
        flag = given.get("session", False)
        if not isinstance(flag, bool):
            raise self._wrong(("session",), f"{str(flag)[:40]!r} is neither true nor false", "true or false")
        return flag

    def _choice(self, key: str, given: dict[str, Any], default: str, known: Collection[str]) -> str:
        value = given.get(key, default)
        words = [str(one) for one in known]
        if value not in words:
            raise self._wrong((key,), f"{str(value)[:40]!r} is no {key}", f"one of {', '.join(words)}")
        return str(value)

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > _TEXT_MAX or not value.isprintable():
            raise self._wrong((key,), f"{key} is no text of one line", f"1 to {_TEXT_MAX:,} characters")
        return value.strip()

    def _wrong(self, below: tuple[str, ...], problem: str, right: str) -> InputError:
        return InputError(self._where(below), problem, right=right)

    def _where(self, below: tuple[str, ...]) -> str:
        above = ("series", self._place)
        return f"{self._path}:{self._lines.get((*above, *below)) or self._lines.get(above, 1)}"

    @staticmethod
    def _nearest(near: list[str], known: Collection[str]) -> str:
        return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
