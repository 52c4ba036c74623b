"""Every kind of rule decides as the evaluator that sees all records in memory, however late the records come."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kernel.time import MILLISECOND, SECOND, Instant, from_rfc3339, to_rfc3339
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.adapters.lucene import parse
from monitor.log_fields import FIELDS, flatten
from monitor.logrules.model import Direction, Kind, Metric, Rule
from monitor.logrules.turn import take
from tests.monitor.naive_log_rules import judge

T0 = from_rfc3339("2026-03-02T09:30:00Z")
S = SECOND
COMMON = {"every": 5 * S, "lateness": 5 * S, "hold": 10 * S}


def rule(kind, query="log.level:error", by=(), field="", **more):
    kind_of_field = {"field_kind": FIELDS[field]} if field else {}
    return Rule(name="Trial", kind=kind, query=parse(query), by=by, field=field, **kind_of_field, **(COMMON | more))


HOST = ("service.node.name",)
RULES = {
    "any": rule(Kind.ANY),
    "any by host": rule(Kind.ANY, by=HOST),
    "blacklist": rule(Kind.BLACKLIST, "", field="user.id", values=("u1", "u2")),
    "whitelist": rule(Kind.WHITELIST, "", HOST, field="user.id", values=("u1",)),
    "whitelist of the missing": rule(Kind.WHITELIST, "", field="user.id", values=("u1",), ignore_missing=False),
    "change": rule(Kind.CHANGE, "", HOST, field="user.id"),
    "change soon": rule(Kind.CHANGE, "", HOST, field="user.id", timeframe=10 * S),
    "frequency": rule(Kind.FREQUENCY, timeframe=15 * S, at_least=3),
    "frequency by host": rule(Kind.FREQUENCY, "", HOST, timeframe=10 * S, at_least=2),
    "spike": rule(Kind.SPIKE, "", timeframe=10 * S, ratio=2.0),
    "spike up by host": rule(
        Kind.SPIKE, "", HOST, timeframe=10 * S, ratio=1.5, direction=Direction.UP, min_reference=2, min_current=2
    ),
    "flatline": rule(Kind.FLATLINE, "", timeframe=10 * S, below=2),
    "cardinality": rule(Kind.CARDINALITY, "", field="user.id", timeframe=15 * S, max=1),
    "cardinality by host": rule(Kind.CARDINALITY, "", HOST, field="user.id", timeframe=10 * S, min=2),
    "average": rule(
        Kind.METRIC_AGGREGATION, "", field="event.duration", metric=Metric.AVG, timeframe=10 * S, max=5, min=2
    ),
    "sum by host": rule(
        Kind.METRIC_AGGREGATION, "", HOST, field="event.duration", metric=Metric.SUM, timeframe=15 * S, max=9
    ),
    "count": rule(Kind.METRIC_AGGREGATION, "", field="event.duration", metric=Metric.COUNT, timeframe=5 * S, max=1),
    "spike of the largest": rule(
        Kind.SPIKE_AGGREGATION, "", field="event.duration", metric=Metric.MAX, timeframe=10 * S, ratio=2.0
    ),
    "percentage": rule(
        Kind.PERCENTAGE_MATCH, "", part=parse("log.level:error"), timeframe=10 * S, max=40, min=10, min_total=2
    ),
    "percentage by host": rule(
        Kind.PERCENTAGE_MATCH, "", HOST, part=parse("log.level:error"), timeframe=15 * S, max=60
    ),
    "correlation": rule(Kind.CORRELATION, then=parse("log.level:info"), timeframe=7 * S),
    "correlation by host": rule(Kind.CORRELATION, by=HOST, then=parse("log.level:info"), timeframe=12 * S),
    "new term": rule(Kind.NEW_TERM, "", field="user.id", known_for=20 * S),
    "new term by host": rule(Kind.NEW_TERM, "", HOST, field="user.id", known_for=60 * S),
}


@st.composite
def record(draw):
    moment = T0 + draw(st.integers(-20, 60)) * S + draw(st.sampled_from([0, 0, 1, 999])) * MILLISECOND
    one = {"@timestamp": to_rfc3339(moment), "log.level": draw(st.sampled_from(["error", "error", "info"]))}
    for field, found in (
        ("service.node.name", st.sampled_from(["a", "b", ["a", "b"]])),
        ("user.id", st.sampled_from(["u1", "u2", "u3", ["u1", "u3"]])),
        ("event.duration", st.sampled_from([1, 2, 4, 8, 16, [1, 9]])),
    ):
        if draw(st.integers(0, 4)):
            one[field] = draw(found)
    late = draw(st.sampled_from([0, 0, 1, 4, 5, 6, 30]))
    return moment + late * S, one


TURNS = st.lists(st.integers(0, 95), min_size=2, max_size=8, unique=True).map(
    lambda some: [T0 + s * S for s in sorted(some)]
)
TRIES = int(os.environ.get("LOG_RULES_TRIES", "12"))


@pytest.mark.parametrize("name", RULES)
@settings(
    max_examples=TRIES, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
@given(arrivals=st.lists(record(), min_size=5, max_size=40), turns=TURNS)
def test_every_kind_decides_as_the_naive_evaluator(name, arrivals, turns):
    chosen = RULES[name]
    assert played(chosen, arrivals, turns) == judge(chosen, arrivals, turns)


def played(chosen, arrivals, turns):
    """Take turns over the local store, which gains records as they arrive."""
    store = DuckdbLogStore(None)
    kept, found, waiting = None, [], sorted(arrivals, key=lambda one: one[0])
    for turn in turns:
        store.add([flatten(one) for came, one in waiting if came <= turn])
        waiting = [one for one in waiting if one[0] > turn]
        outcome = take(chosen, kept, store, Instant(turn))
        assert not outcome.unknown
        kept = outcome.kept
        found += [(turn, match.at, match.key) for match in outcome.matches]
    store.close()
    return sorted(found)
