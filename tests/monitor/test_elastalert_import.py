"""ElastAlert 2's rule files load, and what of them is lost is named by file and line."""

from pathlib import Path

import pytest
import yaml

from kernel.errors import InputError
from kernel.time import DAY, MINUTE, SECOND, Instant, from_rfc3339, to_rfc3339
from monitor.adapters.elastalert import convert
from monitor.adapters.log_rule_files import load
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.adapters.lucene import parse
from monitor.log_store import Span
from monitor.logrules.model import Kind

T0 = from_rfc3339("2026-03-02T09:30:00Z")
CASES = Path(__file__).parent / "elastalert"
WHOLE = sorted(path.stem for path in CASES.glob("*.yaml") if not path.stem.startswith("lost_"))


def rule_from(converted, tmp_path):
    target = tmp_path / "converted.yaml"
    target.write_text("rules:\n" + converted.yaml)
    (rule,) = load(target)
    return rule


@pytest.mark.parametrize("name", WHOLE)
def test_a_known_rule_loads_whole_and_tells_who_would_have_been_told(name, tmp_path):
    converted = convert(CASES / f"{name}.yaml")
    assert [note.text for note in converted.notes if note.essential] == []
    assert any("alerts/routing" in note.text for note in converted.notes)
    assert any("level " in note.text and "they say who is told" in note.text for note in converted.notes)
    given = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    assert rule_from(converted, tmp_path).kind == given["type"]


def test_every_kind_of_elastalert_is_among_the_cases():
    kinds = {yaml.safe_load((CASES / f"{name}.yaml").read_text())["type"] for name in WHOLE}
    assert kinds == {str(kind) for kind in Kind} - {"correlation", "new_template"}


def test_times_keys_bounds_and_queries_are_carried_over(tmp_path):
    rule = rule_from(convert(CASES / "frequency_term.yaml"), tmp_path)
    assert (rule.at_least, rule.timeframe, rule.by) == (50, 5 * MINUTE, ("user.id",))
    assert (rule.realert, rule.realert_max) == (5 * MINUTE, 60 * MINUTE)
    assert rule.query == parse("event.action:order-slow")
    rule = rule_from(convert(CASES / "new_term_action.yaml"), tmp_path)
    assert (rule.field, rule.known_for) == ("event.action", 7 * DAY)
    rule = rule_from(convert(CASES / "metric_duration.yaml"), tmp_path)
    assert (rule.max, rule.timeframe, rule.lateness) == (500_000_000, 2 * MINUTE, 30 * SECOND)
    rule = rule_from(convert(CASES / "blacklist_users.yaml"), tmp_path)
    assert rule.values == ("acc-13", "acc-66")
    assert (rule.labels["level"], rule.labels["team"]) == ("1", "market-operations")
    rule = rule_from(convert(CASES / "spike_rejects.yaml"), tmp_path)
    one = {"@timestamp": to_rfc3339(T0), "service.name": "gateway", "message": "Order rejected: price"}
    store = DuckdbLogStore(None)
    store.add(
        [
            one,
            {**one, "log.level": "debug"},
            {**one, "message": "fine"},
            {**one, "message": "", "event.action": "rejected"},
        ]
    )
    assert store.count(rule.query, Span(T0, Instant(T0 + SECOND))) == 2
    store.close()


@pytest.mark.parametrize(
    ("name", "line", "what", "nearest"),
    [
        ("lost_regexp", 6, "regexp", "wildcard"),
        ("lost_percentiles", 5, "percentiles", "max"),
        ("lost_custom", 2, "my_rules.Mine", "twelve"),
        ("lost_many", 6, "match_enhancements", "relabelling"),
        ("lost_many", 8, "import", "copy"),
        ("lost_many", 10, "side by side", "AND or OR"),
        ("lost_many", 11, "http.user_agent", "http.request.id"),
        ("lost_many", 12, "@timestamp", "timeframe"),
    ],
)
def test_what_is_lost_is_named_with_file_line_and_the_nearest_thing(name, line, what, nearest):
    notes = [note.text for note in convert(CASES / f"{name}.yaml").notes if note.essential]
    assert any(note.startswith(f"{CASES / name}.yaml:{line}: ") and what in note and nearest in note for note in notes)


def test_a_rule_whose_whole_filter_is_lost_is_not_made_to_match_everything():
    assert convert(CASES / "lost_many.yaml").yaml == ""


def test_what_is_no_rule_file_is_refused_with_its_place(tmp_path):
    path = tmp_path / "x.yaml"
    for text, wrong in (
        ("a: [", ": no YAML"),
        ("- 1", "no rule of ElastAlert"),
        ("type: &x any", "anchors"),
        ("a: 1\na: 2", ":2: the key"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=wrong):
            convert(path)
