"""The kinds of lines that a log is made of: templates, found as lines come, and the ones never seen before.

Lines are masked first (`anomaly.masking`); what is left is sorted by Drain, a tree over the number of words and the
first of them (He, Zhu, Zheng, Lyu, "Drain: an online log parsing approach with fixed depth tree", ICWS 2017), in the
library drain3. Equal masked lines go by a table and never reach the tree, which is nearly all of them.

A template keeps one id for ever: a digest of the first masked line that made it, whatever it grows to later. There are
`Limits.templates` at most; those that were used least go first, and are still known when they come back. A template is
told as new only after the warm-up, and only while the log is settled: one that brings a new kind with every fiftieth
line tells nothing by the next.

The state is JSON of our own, with a version: nothing in it is ever executed. Restored, it goes on bit for bit.

Cost: 10 to 20 microseconds a line. State: about 1 kB a template.

>>> log = Templates(Limits(warm_lines=2))
>>> for second, line in enumerate(["order 1 accepted", "order 2 accepted", "disk is failing"]):
...     seen = log.add(line, Instant(second * 10**9))
>>> seen.new, seen.template.text, [one.count for one in log.all()]
(True, 'disk is failing', [2, 1])
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from drain3.drain import Drain, LogCluster, Node  # type: ignore[import-untyped]  # drain3 carries no types

from anomaly.masking import mask
from kernel.errors import PermanentError
from kernel.time import Instant

VERSION: Final = 1
EXAMPLE_MAX: Final = 300
"""Letters of an example line."""
_DEPTH: Final = 5
"""Lines of one kind have their first two words in common, which are often a time or a name, and a level."""
_SIMILAR: Final = 0.7
_CHILDREN: Final = 60
_CACHE: Final = 4
"""Masked lines in the table, for each template that there may be."""
_SHARE_LEFT: Final = 0.9
"""When there are too many templates, this share is kept: leaving one by one would cost a search each time."""
_HALF: Final = 20
"""Lines, for each template that there may be, in which what was used once counts for half."""
_SETTLED: Final = 0.02
"""New kinds a line, as it stands lately, above which a log is not settled."""
_FORGET: Final = 0.995
"""How fast "lately" goes by, a line: 200 lines."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How many templates there may be, and how long the log is only listened to."""

    templates: int = 500
    known: int = 20_000
    """Ids of templates that were let go of and are not told as new again."""
    warm_lines: int = 1_000
    warm_for_ns: int = 0


@dataclasses.dataclass(slots=True)
class Template:
    """One kind of line. `text` shows `<*>` where the lines of one kind differ, and `<n>`, `<ip>` … where masked."""

    id: str
    first_at: Instant
    last_at: Instant
    example: str
    """The first line that made it, cut to `EXAMPLE_MAX`."""
    count: int
    use: float
    """How much it is used: its count, where what was long ago counts for less."""
    cluster: LogCluster

    @property
    def text(self) -> str:
        """The template as it is now."""
        return str(self.cluster.get_template())


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a line was: its template, and whether the first of its kind after the warm-up."""

    template: Template
    new: bool


class Templates:
    """The templates of one log."""

    def __init__(self, limits: Limits = Limits()) -> None:
        """Know nothing yet."""
        assert limits.templates > 1, "a log has more than one kind of line"
        self.limits = limits
        self.lines = 0
        self.evicted = 0
        """Templates let go of."""
        self.fresh = 0
        """Templates told as new."""
        self._began = Instant(0)
        self._novelty = 0.0
        self._drain = _tree()
        self._by_cluster: dict[int, Template] = {}
        self._table: dict[str, Template] = {}
        self._known: dict[str, None] = {}
        self._stale = 0
        self._aged = 0

    def __len__(self) -> int:
        """Return how many templates there are."""
        return len(self._by_cluster)

    def all(self) -> Iterator[Template]:
        """Yield the templates in the order in which they came."""
        yield from self._by_cluster.values()

    @property
    def warming(self) -> bool:
        """Whether the log is only listened to."""
        return self.lines < self.limits.warm_lines

    @property
    def settled(self) -> bool:
        """Whether new kinds of lines are rare lately."""
        return self._novelty < _SETTLED

    def add(self, line: str, at: Instant) -> Seen:
        """Take one line in."""
        masked = mask(line)
        if not self.lines:
            self._began = at
        warming = self.lines < self.limits.warm_lines or at - self._began < self.limits.warm_for_ns
        self.lines += 1
        settled = self._novelty < _SETTLED
        self._novelty *= _FORGET
        template = self._table.get(masked)
        if template is not None:
            template.count += 1
            template.use += 1.0
            template.last_at = at
            return Seen(template, new=False)
        return self._placed(masked, line, at, told=settled and not warming)

    def _placed(self, masked: str, line: str, at: Instant, *, told: bool) -> Seen:
        """Find or make the template of a masked line that is not in the table."""
        cluster, _ = self._drain.add_log_message(masked)
        template = self._by_cluster.get(cluster.cluster_id)
        new = False
        if template is None:
            name = hashlib.sha256(masked.encode("utf-8", "replace")).hexdigest()[:12]
            template = Template(name, at, at, line[:EXAMPLE_MAX], 0, 0.0, cluster)
            self._by_cluster[cluster.cluster_id] = template
            self._novelty += 1 - _FORGET
            new = told and name not in self._known
            self.fresh += new
            self._remember(name)
            if len(self._by_cluster) > self.limits.templates:
                self._evict(keep=cluster.cluster_id)
        template.count += 1
        template.use += 1.0
        template.last_at = at
        if len(self._table) >= _CACHE * self.limits.templates:
            self._table.clear()
        self._table[masked] = template
        return Seen(template, new)

    def _remember(self, name: str) -> None:
        self._known.pop(name, None)
        self._known[name] = None
        if len(self._known) > self.limits.known:
            del self._known[next(iter(self._known))]

    def _evict(self, keep: int) -> None:
        """Let go of the templates that were used least; the tree is made anew when it is full of what is gone."""
        left = max(1, int(self.limits.templates * _SHARE_LEFT))
        ranked = sorted(
            (one for one in self._by_cluster if one != keep),
            key=lambda one: (self._by_cluster[one].use, self._by_cluster[one].last_at, one),
        )
        for one in ranked[: len(self._by_cluster) - left]:
            del self._by_cluster[one], self._drain.id_to_cluster[one]
            self.evicted += 1
            self._stale += 1
        self._table.clear()
        left_of_use = 0.5 ** ((self.lines - self._aged) / (_HALF * self.limits.templates))
        self._aged = self.lines
        for template in self._by_cluster.values():
            template.use *= left_of_use
        if self._stale > self.limits.templates:
            fresh = _tree()
            fresh.clusters_counter = self._drain.clusters_counter
            for template in self._by_cluster.values():
                fresh.id_to_cluster[template.cluster.cluster_id] = template.cluster
                fresh.add_seq_to_prefix_tree(fresh.root_node, template.cluster)
            self._drain, self._stale = fresh, 0

    # --- keeping ----------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Return the whole state as JSON."""
        state = {
            "version": VERSION,
            "limits": dataclasses.asdict(self.limits),
            "lines": self.lines,
            "evicted": self.evicted,
            "fresh": self.fresh,
            "began": self._began,
            "novelty": self._novelty,
            "stale": self._stale,
            "aged": self._aged,
            "counter": self._drain.clusters_counter,
            "known": list(self._known),
            "templates": [
                {
                    "id": one.id, "first_at": one.first_at, "last_at": one.last_at, "example": one.example,
                    "count": one.count, "use": one.use, "cluster": number, "size": one.cluster.size,
                    "tokens": list(one.cluster.log_template_tokens),
                }
                for number, one in self._by_cluster.items()
            ],
            "table": {masked: one.cluster.cluster_id for masked, one in self._table.items()},
            "tree": _saved(self._drain.root_node),
        }  # fmt: skip
        return json.dumps(state, ensure_ascii=True, separators=(",", ":")).encode()

    @classmethod
    def restore(cls, state: bytes) -> Templates:
        """Return what `save` kept.

        Raises:
            PermanentError: it is no such state, or one of another version.
        """
        try:
            held = json.loads(state)
            if held["version"] != VERSION:
                raise PermanentError(f"templates: the state is of version {held['version']!r}, {VERSION} is understood")
            return cls._restored(held)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PermanentError(f"templates: the state cannot be read ({error!r})") from error

    @classmethod
    def _restored(cls, held: Mapping[str, Any]) -> Templates:
        made = cls(Limits(**{str(name): int(value) for name, value in held["limits"].items()}))
        made.lines, made.evicted, made.fresh = int(held["lines"]), int(held["evicted"]), int(held["fresh"])
        made._began, made._novelty = Instant(int(held["began"])), float(held["novelty"])
        made._stale, made._drain.clusters_counter = int(held["stale"]), int(held["counter"])
        made._aged = int(held["aged"])
        made._known = dict.fromkeys(map(str, held["known"]))
        for one in held["templates"]:
            cluster = LogCluster([str(token) for token in one["tokens"]], int(one["cluster"]))
            cluster.size = int(one["size"])
            made._drain.id_to_cluster[cluster.cluster_id] = cluster
            made._by_cluster[cluster.cluster_id] = Template(
                str(one["id"]), Instant(int(one["first_at"])), Instant(int(one["last_at"])), str(one["example"]),
                int(one["count"]), float(one["use"]), cluster,
            )  # fmt: skip
        made._table = {str(masked): made._by_cluster[int(number)] for masked, number in held["table"].items()}
        made._drain.root_node = _node(held["tree"])
        return made


def _tree() -> Drain:
    return Drain(depth=_DEPTH, sim_th=_SIMILAR, max_children=_CHILDREN, parametrize_numeric_tokens=False)


def _saved(node: Node) -> list[object]:
    return [{key: _saved(child) for key, child in node.key_to_child_node.items()}, list(node.cluster_ids)]


def _node(held: Any) -> Node:
    node = Node()
    children, ids = held
    node.key_to_child_node = {str(key): _node(child) for key, child in children.items()}
    node.cluster_ids = [int(one) for one in ids]
    return node
