"""Log rules as files, their templates, and the alerts that matches become."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import InputError, TemporaryError
from kernel.time import HOUR, MINUTE, SECOND, Instant, from_rfc3339, to_rfc3339
from monitor.adapters.log_rule_files import SCHEMA, load
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.adapters.lucene import parse
from monitor.catalog import Role
from monitor.logrules.fold import Match, horizon
from monitor.logrules.model import Flapping, Kind, Rule
from monitor.logrules.standing import advance, postable
from monitor.logrules.templates import masked, template
from monitor.logrules.turn import Kept, Memory, take

T0 = from_rfc3339("2026-03-02T09:30:00Z")
RULES = Path("alerts/logs")
GOOD = """rules:
  - name: Trial
    kind: frequency
    query: log.level:error
    at_least: 3
    timeframe: 1m
    labels: {severity: warning, level: "2", team: observability, service: engine}
    annotations: {summary: s, description: d}
"""


def record(at, **fields):
    return {"@timestamp": to_rfc3339(at), **fields}


# --- files --------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_the_one_that_is_checked():
    assert json.loads((RULES / "schema.json").read_text()) == SCHEMA
    checker = jsonschema.Draft202012Validator(SCHEMA)
    for path in RULES.glob("*.yaml"):
        assert list(checker.iter_errors(yaml.safe_load(path.read_text()))) == []


def test_the_rules_of_the_house_cover_every_kind_and_name_a_place_in_the_docs():
    rules = load(RULES)
    assert {rule.kind for rule in rules} == set(Kind)
    page = Path("docs/log-alerts.md").read_text()
    assert [rule.name for rule in rules if f"### {rule.name}\n" not in page] == []


def test_no_process_of_the_estate_is_unknown_to_the_rule_that_looks_for_strangers():
    (rule,) = (one for one in load(RULES) if one.name == "UnknownProcessLogs")
    assert {str(role) for role in Role} <= set(rule.values)


def test_the_rules_of_the_house_are_quiet_on_an_hour_of_ordinary_records():
    """Starts, snapshots, the odd slow order, warnings: what a healthy estate writes."""
    store = DuckdbLogStore(None)
    for minute in range(60):
        at = T0 + minute * MINUTE
        who = {"service.name": "gateway", "service.node.name": "gateway-1", "log.level": "warning"}
        slow = {"event.action": "order-slow", "user.id": f"m{minute % 9}", "event.duration": 300_000_000}
        store.add([record(at, **who, **slow, message="order slow")] * (minute % 4))
        if minute % 20 == 5:
            lost = {"service.name": "gateway", "service.node.name": "gateway-1"}
            store.add([record(at, **lost, **{"event.action": "engine-lost"})])
            store.add([record(at + 20 * SECOND, **lost, **{"event.action": "engine-connected"})])
        if minute % 10 == 0:
            alive = {"service.name": "log-watch", "event.action": "log-watch-alive", "log.level": "info"}
            kept = {"service.name": "engine", "event.action": "snapshot-kept", "exchange.seq": minute}
            store.add([record(at, **alive), record(at, **kept)])
    for rule in load(RULES):
        kept, found = None, []
        for second in range(0, 3_600, 60):
            outcome = take(rule, kept, store, Instant(T0 + second * SECOND))
            assert not outcome.unknown
            kept = outcome.kept
            found += outcome.matches
        assert found == [], rule.name
    store.close()


def test_each_rule_of_the_house_can_fire():
    """One story in which everything goes wrong once."""
    from tests.monitor.log_troubles import troubles

    store = DuckdbLogStore(None)
    store.add(troubles(T0))
    silent = []
    for rule in load(RULES):
        kept, found = None, []
        for second in range(0, 5 * 3_600, 300):
            outcome = take(rule, kept, store, Instant(T0 + second * SECOND))
            kept = outcome.kept
            found += outcome.matches
        silent += [] if found else [rule.name]
    assert silent == []
    store.close()


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("kind: frequency", "kind: frequenzy", 3, "frequenzy"),
        ("at_least: 3", "at_last: 3", 5, "at_last"),
        ("at_least: 3", "at_least: 0", 5, "at_least"),
        ("    at_least: 3\n", "", 3, "lacks at_least"),
        ("log.level:error", "log.levl:error", 4, "did you mean log.level"),
        ("log.level:error", "'log.level:error oops'", 4, "position 17"),
        ("timeframe: 1m", "timeframe: 1 minute", 6, "no duration"),
        ("timeframe: 1m", "timeframe: 7s", 6, "no multiple"),
        ("timeframe: 1m", "timeframe: 1m\n    by: [message]", 7, "text"),
        ("severity: warning", "severity: loud", 7, "loud"),
        ('level: "2", ', "", 7, "lacks level"),
        ("name: Trial", "name: trial rule", 2, "name"),
        ("name: Trial", "name: &a Trial", 2, "anchors"),
        ("kind: frequency", "kind: frequency\n    kind: any", 4, "twice"),
    ],
)
def test_a_wrong_rule_is_named_by_file_and_line_and_what_would_be_right(tmp_path, old, new, line, what):
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD)
    assert load(path)[0].at_least == 3
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        load(path)
    assert f"{path}:{line}" in str(error.value)
    assert what in str(error.value)
    assert error.value.right


# --- alerts -------------------------------------------------------------------------------------------------------


def trial(**more):
    return Rule(name="Trial", kind=Kind.ANY, hold=10 * SECOND, by=("user.id",), **more)


def story(rule, seconds, upto=None):
    """Return when the alert of one key was raised, by the seconds of its matches."""
    alerts, raised = {}, []
    for second in seconds:
        alerts = advance(rule, alerts, [Match(T0 + second * SECOND, ("u",), "why")], T0 + second * SECOND)
        since = (alerts['["u"]'].since - T0) // SECOND if alerts['["u"]'].standing else None
        if since is not None and since not in raised:
            raised.append(since)
    return raised


def test_an_alert_stands_while_matches_come_and_ends_after_hold():
    rule = trial()
    assert story(rule, [0, 9, 18, 27]) == [0]
    assert story(rule, [0, 9, 30]) == [0, 30]
    alerts = advance(rule, {}, [Match(T0, ("u",), "why")], T0)
    assert advance(rule, alerts, [], T0 + 10 * SECOND)['["u"]'].standing
    assert advance(rule, alerts, [], T0 + 21 * SECOND) == {}


def test_realert_keeps_an_alert_from_being_raised_again_too_soon():
    assert story(trial(realert=60 * SECOND), [0, 30, 59, 61, 100, 125]) == [0, 61, 125]


def test_exponential_realert_doubles_while_it_comes_back_and_halves_when_it_rests():
    rule = trial(realert=60 * SECOND, realert_max=10 * MINUTE)
    # silent until 60; back at 61: doubled, silent until 181; back at 190: doubled, silent until 430
    assert story(rule, [0, 61, 130, 190, 400, 429, 431]) == [0, 61, 190, 431]
    # long after, the wait is short again
    assert story(rule, [0, 61, 190, 190 + 7200, 190 + 7200 + 61]) == [0, 61, 190, 7390, 7451]


def test_an_alert_may_wait_for_matches_in_a_row():
    assert story(trial(open_after=3), [0, 20, 25, 30, 35]) == [30]


def test_an_alert_that_flaps_is_held_until_it_is_quiet():
    rule = trial(flapping=Flapping(times=3, within=2 * MINUTE, quiet=5 * MINUTE))
    assert story(rule, [0, 20, 40, 90, 200, 400, 690, 1100]) == [0, 20, 40, 1100]


def test_labels_of_an_alert_stay_the_same_and_keep_it_from_control():
    rule = trial(
        labels={"severity": "info", "level": "3", "team": "t", "service": "s"},
        annotations={"summary": "{user.id} {why}"},
    )
    alerts = advance(rule, {}, [Match(T0, ("u",), "one", 1.0)], T0)
    again = advance(rule, alerts, [Match(T0 + SECOND, ("u",), "two", 2.0)], T0 + SECOND)
    first, second = (postable(rule, '["u"]', one['["u"]'], Instant(T0)) for one in (alerts, again))
    assert first.labels == second.labels
    assert (first.labels["audience"], first.labels["user_id"], first.starts_at) == ("people", "u", second.starts_at)
    assert (first.annotations["summary"], second.annotations["summary"]) == ("u one", "u two")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=25), st.lists(st.integers(0, 300), max_size=5))
def test_it_does_not_matter_in_how_many_turns_matches_come(seconds, cuts):
    rule = trial(realert=30 * SECOND, realert_max=HOUR, open_after=2, flapping=Flapping(3, 60 * SECOND, 90 * SECOND))
    matches = [Match(T0 + second * SECOND, ("u",), "why") for second in sorted(seconds)]
    whole = advance(rule, {}, matches, T0 + 300 * SECOND)
    alerts, done = {}, 0
    for cut in [*sorted(cuts), 300]:
        here = [one for one in matches[done:] if one.at <= T0 + cut * SECOND]
        done += len(here)
        alerts = advance(rule, alerts, here, T0 + cut * SECOND)
    assert alerts == whole


# --- templates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("order 4711 of acc-17 took 3.5 s", "order <n> of <id> took <n> s"),
        ("cannot open /var/lib/x/journal.001: denied", "cannot open <path>: denied"),
        ("peer 10.0.0.7:8080 left", "peer <ip> left"),
        ("run 550e8400-e29b-41d4-a716-446655440000 failed at 2026-03-02T09:30:00Z", "run <uuid> failed at <time>"),
        ("hash deadbeef01 differs from 0xFF", "hash <hex> differs from <hex>"),
        ("nothing to mask here", "nothing to mask here"),
    ],
)
def test_what_varies_is_masked(line, shape):
    assert masked(line) == shape


def test_like_lines_are_one_template_and_unlike_ones_are_not():
    assert template("disk full on alpha now", ["disk full on beta now"]) == (
        "disk full on <*> now",
        "disk full on beta now",
    )
    assert template("disk gone", ["disk full on beta now"])[1] is None
    assert template("tape full on beta now", ["disk full on beta now"])[1] is None


def test_a_hostile_line_costs_no_more_than_a_long_one():
    for line in (
        "a-" * 500_000,
        "1" * 1_000_000,
        "/a" * 500_000,
        "f:" * 500_000,
        "0" * 70 + "g",
        "-".join(["a"] * 10_000),
    ):
        assert len(masked(line)) <= 4_000


def test_a_new_kind_of_line_is_found_once_and_learned_ones_never():
    rule = Rule(name="T", kind=Kind.NEW_TEMPLATE, field="message", known_for=HOUR)
    store = DuckdbLogStore(None)
    store.add([record(T0 - 60 * SECOND, message="order 1 slow"), record(T0 + SECOND, message="order 2 slow")])
    store.add([record(T0 + 2 * SECOND, message="disk 9 broke"), record(T0 + 3 * SECOND, message="disk 10 broke")])
    first = take(rule, None, store, Instant(T0 + 5 * SECOND))
    assert first.matches == ()
    second = take(rule, first.kept, store, Instant(T0 + 10 * SECOND))
    assert [match.why for match in second.matches] == ["a new kind of line: disk <n> broke"]
    store.close()


# --- turns --------------------------------------------------------------------------------------------------------


def test_each_key_that_was_ever_seen_is_waited_for():
    rule = Rule(name="T", kind=Kind.FLATLINE, by=("user.id",), timeframe=10 * SECOND, below=1, lateness=0)
    store = DuckdbLogStore(None)
    store.add(
        [record(T0 + s * SECOND, **{"user.id": who}) for s in range(20) for who in ("a", "b") if who == "a" or s < 3]
    )
    kept, found = None, []
    for second in range(0, 41, 5):
        outcome = take(rule, kept, store, Instant(T0 + second * SECOND))
        kept = outcome.kept
        found += [((match.at - T0) // SECOND, match.key[0]) for match in outcome.matches]
    assert found == [(15, "b"), (20, "b"), (25, "b"), (30, "a"), (30, "b"), (35, "a"), (35, "b"), (40, "a"), (40, "b")]
    store.close()


class Down:
    """A store that does not answer."""

    def search(self, *_, **__):
        raise TemporaryError("the store does not answer")

    tally = search


def test_a_store_that_is_down_decides_nothing_and_ends_no_alert():
    rule = trial()
    store = DuckdbLogStore(None)
    start = take(rule, None, store, Instant(T0))
    store.add([record(T0, **{"user.id": "u"})])
    raised = take(rule, start.kept, store, Instant(T0 + 10 * SECOND))
    down = take(rule, raised.kept, Down(), Instant(T0 + 10 * MINUTE))
    assert down.unknown == "the store does not answer"
    assert down.kept == raised.kept
    assert down.kept.alerts['["u"]'].standing
    back = take(rule, down.kept, store, Instant(T0 + 10 * MINUTE))
    assert back.kept.alerts == {}
    store.close()


def test_a_long_stop_is_passed_over_and_counted_and_a_clock_set_back_begins_anew():
    rule = trial()
    store = DuckdbLogStore(None)
    start = take(rule, None, store, Instant(T0))
    later = take(rule, start.kept, store, Instant(T0 + 5 * HOUR))
    assert later.kept.state.passed_over_ns == 4 * HOUR
    back = take(rule, later.kept, store, Instant(T0))
    assert back.kept.state.decided == horizon(rule, Instant(T0))
    store.close()


def test_more_records_than_one_page_are_all_found():
    rule = Rule(name="T", kind=Kind.ANY, every=SECOND, lateness=0)
    store = DuckdbLogStore(None)
    start = take(rule, None, store, Instant(T0))
    store.add([record(T0 + number * 4_000_000, message=str(number)) for number in range(5_000)])
    assert len(take(rule, start.kept, store, Instant(T0 + 30 * SECOND)).matches) == 5_000
    store.close()


def test_what_a_rule_remembers_survives_being_written_down():
    import msgspec

    rule = trial()
    store = DuckdbLogStore(None)
    start = take(rule, None, store, Instant(T0))
    store.add([record(T0, **{"user.id": "u"})])
    kept = take(rule, start.kept, store, Instant(T0 + 10 * SECOND)).kept
    again = msgspec.json.decode(msgspec.json.encode(Memory(rules={"Trial": kept})), type=Memory).rules["Trial"]
    assert again == kept
    assert isinstance(again, Kept)
    assert take(trial(at_least=9), again, store, Instant(T0 + 20 * SECOND)).kept.alerts == {}
    store.close()


def test_a_query_with_many_jokers_against_a_long_value_is_quick():
    store = DuckdbLogStore(None)
    store.add([record(T0, message="a" * 60_000)] * 20)
    from monitor.log_store import Span

    assert store.count(parse("message:a*a*a*a*a*a*b"), Span(T0, Instant(T0 + SECOND))) == 0
    store.close()
