"""The house rules of alert rules, held by promtool and by a reading of the files."""

import functools
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.render import LOADER
from monitor import direct_alerts
from monitor.catalog import BY_NAME, Kind, is_foreign
from monitor.promql import metric_names
from runbooks.model import OF_DETECTORS

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "alerts/rules").glob("*.yml"))
TESTS = sorted((ROOT / "alerts/tests").glob("*.yml"))
LIBRARY = sorted((ROOT / "runbooks/library").glob("*.yaml"))
SERVICES = {
    "engine",
    "gateway",
    "market-data",
    "settlement",
    "saga",
    "watchdog",
    "control",
    "monitoring",
    "exchange",
    "cluster",
    "bridge",
    "shipper",
    "log-watch",
    "anomaly",
    "host",
    "kafka",
    "postgres",
    "rabbitmq",
    "edge",
    "zipkin",
    "mirror",
}
TEAMS = {"exchange-platform", "market-operations", "settlement-operations", "platform-operations"}
KINDS = ("fires", "does not fire", "boundary of for", "missing data")


@functools.cache
def rules() -> list[dict[str, Any]]:
    """Read every rule once."""
    files = [yaml.load(path.read_text(), Loader=LOADER) for path in RULES]
    return [rule for one in files for group in one["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
every_alert = pytest.mark.parametrize("name", sorted(ALERTS))


@functools.cache
def titles_of_tests() -> list[str]:
    """Read every title once: the files are long."""
    return [title for path in TESTS for title in re.findall(r'^  - name: "?(.*?)"?$', path.read_text(), re.MULTILINE)]


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    # promtool makes a database for each test: a fifth of its time was the collector's.
    roomy = {**os.environ, "GOGC": "400"}
    return subprocess.run(
        [str(part) for part in argv], env=roomy, capture_output=True, text=True, check=False, timeout=300
    )


def test_promtool_finds_no_fault_in_the_rules():
    done = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_promtool_test_holds(path):
    done = run("promtool", "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_enough_alerts_and_no_name_twice():
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(names) == len(set(names)) >= 100


@every_alert
def test_every_alert_says_who_must_act_and_how_bad_it_is(name):
    labels = ALERTS[name]["labels"]
    assert set(labels) - {"audience"} == {"severity", "level", "team", "service"}
    assert labels.get("audience", "people") == "people", "whoever is not told by control is told as a person"
    assert labels["severity"] in {"critical", "warning", "info"}
    assert labels["level"] in {"1", "2", "3"}
    assert labels["team"] in TEAMS
    by_label = {"{{ $labels.workload }}", "{{ $labels.service }}"}
    assert labels["service"] in SERVICES | by_label
    assert (labels["level"] == "1") <= (labels["severity"] == "critical"), "level 1 is always critical"


@every_alert
def test_every_alert_says_what_happened_in_sentences_without_moving_numbers(name):
    annotations = ALERTS[name]["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard"}
    assert len(annotations["summary"]) <= 90
    assert not annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert "$value" not in str(annotations), "a moving value would make every evaluation another alert text"
    assert annotations["dashboard"].startswith("https://tapewatch.example/dashboards/tapewatch-")


@every_alert
def test_every_runbook_link_resolves_to_its_section(name):
    base, anchor = ALERTS[name]["annotations"]["runbook_url"].split("#")
    path = ROOT / base.removeprefix("https://tapewatch.example/")
    text = path.read_text()
    assert anchor == name.lower()
    assert re.search(rf"^### {name}$", text, re.MULTILINE), f"{path.name} has no section {name}"


def test_the_page_of_alerts_has_no_section_without_an_alert():
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


@every_alert
def test_every_section_tells_severity_level_team_and_delay_as_the_rule_has_them(name):
    rule = ALERTS[name]
    section = (ROOT / "docs/alerts.md").read_text().split(f"### {name}\n")[1].split("\n###")[0]
    how = f"after {rule['for']}" if "for" in rule else "at once"
    labels = rule["labels"]
    assert f"*{labels['severity']}, level {labels['level']}, {labels['team']}; fires {how}*" in section


@every_alert
def test_every_alert_has_tests_of_the_four_kinds(name):
    titles = titles_of_tests()
    for kind in KINDS:
        assert any(title.startswith(f"{name}: {kind}") for title in titles), f"{name} has no test that it {kind}"


def test_no_rule_names_a_metric_nobody_exports():
    for rule in rules():
        for name in metric_names(rule["expr"]):
            known = name in RECORDED or is_foreign(name) or name in BY_NAME or _of_histogram(name)
            assert known, f"{rule.get('alert') or rule.get('record')} asks for {name}, which nobody exports"


def _of_histogram(name: str) -> bool:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base != name and base in BY_NAME and BY_NAME[base].kind is Kind.HISTOGRAM


def test_no_counter_is_read_raw():
    for rule in rules():
        for name in metric_names(rule["expr"]):
            if name in BY_NAME and BY_NAME[name].kind is Kind.GAUGE:
                continue  # such as pg_stat_activity_count, which is called so by another's exporter
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", rule["expr"]), f"{rule} reads {name} raw"


def test_rates_see_at_least_four_scrapes():
    for rule in rules():
        for window in re.findall(r"\[(\d+)(s|m)\]", rule["expr"]):
            assert window[1] == "m" or int(window[0]) >= 4, rule["expr"]


def test_a_second_counts_on_the_way_of_an_order():
    for name, rule in ALERTS.items():
        if rule["labels"]["severity"] == "critical" and rule["labels"]["service"] in {
            "engine",
            "gateway",
            "market-data",
        }:
            assert rule.get("for", "0s") in {"0s", "1s", "2s"}, name


def test_every_job_is_missed_when_prometheus_has_lost_it():
    jobs = {
        job
        for rule in rules()
        for job in re.findall(r'up\{job="([^"]+)"\}', rule["expr"])
        if rule.get("alert", "").endswith("Down")
    }
    absent = set(re.findall(r'absent_over_time\(up\{job="([^"]+)"\}', ALERTS["PrometheusTargetsAbsent"]["expr"]))
    # What runs only where it is configured cannot be missed when it never was there.
    vanished = set(re.findall(r'up\{job=~"([^"]+)"\}', ALERTS["TargetsVanished"]["expr"])[0].split("|"))
    assert jobs <= absent | vanished
    assert {"engine", "gateway", "market-data", "settlement", "watchdog", "control", "estate"} <= absent


def test_what_only_a_detector_says_is_known_as_that_and_opens_nothing_above_level_three():
    said = {name for name, rule in ALERTS.items() if metric_names(rule["expr"]) & {"anomaly_alert", "anomaly_score"}}
    assert said == OF_DETECTORS, "they start only runbooks that are marked as safe for it"
    for name in said:
        assert ALERTS[name]["labels"]["level"] == "3"
        assert "audience" not in ALERTS[name]["labels"], "control opens an incident, and tells people by it"


def test_recording_rules_are_named_level_metric_operation():
    for name in RECORDED:
        assert re.fullmatch(r"[a-z]+:[a-z_]+:[a-z0-9_]+", name)


@pytest.mark.parametrize(
    "alert",
    [
        direct_alerts.sequence_gap("ACME"),
        direct_alerts.book_crossed("ACME"),
        direct_alerts.journal_failed(),
        direct_alerts.page_not_delivered("sms"),
    ],
    ids=lambda alert: alert.labels["alertname"],
)
def test_a_direct_alert_has_exactly_the_labels_and_words_of_its_rule(alert):
    rule = ALERTS[alert.labels["alertname"]]
    own = {name: alert.labels[name] for name in ("symbol", "channel") if name in alert.labels}
    by_rule = {**rule["labels"], "alertname": rule["alert"], **own}
    words = dict(rule["annotations"])
    for name, value in own.items():
        words = {key: text.replace(f"{{{{ $labels.{name} }}}}", value) for key, text in words.items()}
    assert dict(alert.labels) == by_rule
    assert dict(alert.annotations) == words


@pytest.mark.skipif(not LIBRARY, reason="no runbook is written yet")
def test_every_alert_a_runbook_answers_exists():
    for path in LIBRARY:
        for name in yaml.safe_load(path.read_text())["answers"]:
            assert name in ALERTS, f"{path.name} answers {name}, which no rule raises"


def test_prometheus_accepts_its_configuration_with_every_target_file(tmp_path):
    config = yaml.safe_load((ROOT / "alerts/prometheus.yml").read_text())
    config["rule_files"] = [str(path) for path in RULES]
    for job in config["scrape_configs"]:
        targets = tmp_path / f"{job['job_name']}.json"
        targets.write_text(f'[{{"targets": ["127.0.0.1:1"], "labels": {{"replica": "{job["job_name"]}-1"}}}}]')
        job["file_sd_configs"][0]["files"] = [str(targets)]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    done = run("promtool", "check", "config", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert "external_labels" not in config["global"], "direct alerts must have the labels of the rule's"
