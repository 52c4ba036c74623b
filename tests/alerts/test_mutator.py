"""The spoiler of rules spoils exactly what it says, and a weak test is found out by what survives."""

from pathlib import Path

import pytest

from control.mutation import WeakError, cases, main, outcome_of
from monitor.mutants import KINDS, Mutant, Outcome, Rule, mutants, ratio_of, read_by, seconds, table

LABELS = {"severity": "warning", "level": "2", "team": "a", "service": "b"}


def spoilt(expr, kind):
    return [one.rule.expr for one in mutants(Rule("A", expr, {}), 1) if one.kind == kind]


@pytest.mark.parametrize(
    ("expr", "kind", "expected"),
    [
        ("a > 5", "operator", ["a < 5"]),
        ("a == 5 or b != 2", "operator", ["a != 5 or b != 2", "a == 5 or b == 2"]),
        ("a <= bool 5", "operator", ["a > bool 5"]),
        ("a > 5", "bound", ["a >= 5"]),
        ("a == 5", "bound", []),
        ("a > 5", "threshold", ["a > 10", "a > 2.5"]),
        ("a > 0", "threshold", ["a > 1"]),
        ("a > b", "threshold", []),
        ("rate(a[10s]) > 1", "window", ["rate(a[20s]) > 1", "rate(a[5s]) > 1"]),
        ("rate(a[1m:5s])", "window", ["rate(a[120s:5s])", "rate(a[30s:5s])"]),
        ("rate(a[5s])", "window", ["rate(a[10s])", "rate(a[2500ms])"]),
        ("a offset 2m", "offset", ["a offset 240s"]),
        ("sum by (x) (a) > 3", "aggregation", ["max by (x) (a) > 3"]),
        ("sum(a) > 0", "aggregation", ["min(a) > 0"]),
        ("sum(a) / sum(b)", "aggregation", ["max(a) / sum(b)", "sum(a) / max(b)"]),
        ("sum_total > 3", "aggregation", []),
        ('a{x="> 5", y=~"b"} > 1', "matcher", ['a{x!="> 5", y=~"b"} > 1', 'a{x="> 5", y!~"b"} > 1']),
        ("a > 1 and on (x) b > 2 unless c", "guard", ["a > 1  unless c", "a > 1 and on (x) b > 2 "]),
        ("max(a and on () (b or c)) > 1", "guard", ["max(a ) > 1"]),
        ("a or b", "guard", []),
    ],
)
def test_each_kind_changes_one_thing_and_nothing_else(expr, kind, expected):
    assert spoilt(expr, kind) == expected


def test_what_stands_beside_the_expression_is_spoilt_too():
    made = [one for one in mutants(Rule("A", "a", LABELS, True, 10, 30), 5) if one.rule.expr == "a"]
    assert [(one.kind, one.rule.for_s, one.rule.keep_s) for one in made[:3]] == [
        ("for", 15, 30), ("for", 5, 30), ("keep_firing_for", 10, 0),
    ]  # fmt: skip
    assert [one.rule.labels for one in made[3:]] == [
        {**LABELS, "severity": "none"}, {**LABELS, "level": "9"}, {**LABELS, "team": "nobody"},
    ]  # fmt: skip


def test_a_recorded_series_has_only_its_expression():
    kinds = {one.kind for one in mutants(Rule("service:a:b", "sum(rate(a[5s])) > 1", {}, is_alert=False), 1)}
    assert kinds == {"operator", "bound", "threshold", "window", "aggregation"}
    assert kinds < set(KINDS)


def test_a_rule_reads_what_its_recorded_series_are_made_of():
    recorded = {"s:a:b": "s:c:d > 1", "s:c:d": "rate(x[5s])", "s:e:f": "y"}
    assert read_by(Rule("A", "s:a:b and on () up", {}), recorded) == {"s:a:b", "s:c:d"}


@pytest.mark.parametrize(("text", "expected"), [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1d", 86_400), ("0s", 0)])
def test_a_duration_is_read_in_seconds(text, expected):
    assert seconds(text) == expected


def test_the_table_tells_every_survivor_and_the_share():
    rule = Rule("A", "a | b", {})
    page = table([Outcome("B", 3, ()), Outcome("A", 2, (Mutant("label", "a | b", rule),))])
    assert "4 of 5 mutants are killed: 80.0%." in page
    assert page.index("| A | 2 | 1 | label: a \\| b |") < page.index("| B | 3 | 3 |  |")
    assert ratio_of([]) == 1.0


RULES = """\
groups:
  - name: g
    rules:
      - record: service:a:b
        expr: sum(a)
      - alert: Sound
        expr: service:a:b > 5
        for: 2s
        labels: {severity: warning, level: "2", team: a}
"""
TESTS = """\
rule_files: [../rules/g.yml]
evaluation_interval: 1s
tests:
  - name: "Sound: fires"
    interval: 1s
    input_series:
      - {series: 'a{x="1"}', values: '3x20'}
      - {series: 'a{x="2"}', values: '3x20'}
    alert_rule_test:
      - {eval_time: 1s, alertname: Sound, exp_alerts: []}
      - eval_time: 2s
        alertname: Sound
        exp_alerts: [{exp_labels: {severity: warning, level: "2", team: a}}]
"""
QUIET = """\
  - name: "Sound: does not fire"
    interval: 1s
    input_series: [{series: 'a', values: '5x20'}]
    alert_rule_test: [{eval_time: 9s, alertname: Sound, exp_alerts: []}]
"""


def planted(folder: Path, rules: str, tests: str):
    for name, text in (("rules", rules), ("tests", tests)):
        (folder / name).mkdir()
        (folder / name / "g.yml").write_text(text)
    return list(cases(folder / "rules", folder / "tests"))


def test_sound_tests_kill_every_mutant_of_an_alert_and_of_what_it_reads(tmp_path):
    outcomes = [outcome_of(case) for case in planted(tmp_path, RULES, TESTS + QUIET)]
    assert [(one.name, one.made, one.survivors) for one in outcomes] == [("service:a:b", 1, ()), ("Sound", 9, ())]


def test_a_weak_test_lets_exactly_the_mutants_live_that_it_cannot_see(tmp_path):
    outcomes = {one.name: one for one in map(outcome_of, planted(tmp_path, RULES, TESTS))}
    lives = [(one.kind, one.change) for one in outcomes["Sound"].survivors]
    assert lives == [("bound", "`>` → `>=` after `service:a:b`"), ("threshold", "`5` → `2.5`")]


def test_tests_that_fail_unspoilt_end_the_run(tmp_path):
    (_, alert) = planted(tmp_path, RULES, TESTS.replace("team: a}}]", "team: z}}]"))
    with pytest.raises(WeakError, match="Sound: its tests fail on the sound rule"):
        outcome_of(alert)


def test_a_name_that_is_no_rule_is_said(capsys):
    assert main(["NoSuchAlert"]) == 2
    assert "no rule and no file of rules is called NoSuchAlert" in capsys.readouterr().err
