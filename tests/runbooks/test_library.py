"""The runbooks of the project: sound PromQL, known metrics, and a rehearsal that mends or is taken back."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from monitor.catalog import BY_NAME
from monitor.promql import metric_names
from runbooks.adapters.yaml_library import LIBRARY, SCHEMA, load_library
from runbooks.bind import bind, escape
from runbooks.facts import target
from runbooks.model import Consent, Outcome, Refusal, RefusalReason, Undo
from runbooks.rehearse import Supposition, rehearse

RUNBOOKS = {runbook.name: runbook for runbook in load_library(LIBRARY)[0]}
LABELS = {
    "replica": "gateway-1", "symbol": "TWA", "service": "gateway", "node": "n1", "colour": "green",
    "certificate": "server", "series": "gateway-latency", "party": "cash",
}  # fmt: skip
RULES = sorted((Path(__file__).parents[2] / "alerts/rules").glob("*.yml"))
RECORDED = {
    rule["record"]
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
FOREIGN = {
    "up",
    "process_resident_memory_bytes",
    "certmanager_certificate_expiration_timestamp_seconds",
    "rabbitmq_queue_consumers",
    "rabbitmq_queue_messages_ready",
    "haproxy_server_status",
}
BOUND = {name: bind(runbook, LABELS) for name, runbook in RUNBOOKS.items()}
ALL = pytest.mark.parametrize("runbook", BOUND.values(), ids=BOUND.keys())


def evidence(runbook):
    yield from (guard.evidence for guard in runbook.guards)
    for step in runbook.steps:
        yield from (proof.evidence for proof in (step.proof, step.undo_proof) if proof is not None)


def test_every_query_is_sound_promql(tmp_path):
    queries = sorted({q for runbook in BOUND.values() for e in evidence(runbook) for q in (e.query, e.fresh)})
    rules = {"groups": [{"name": "q", "rules": [{"record": f"q{n}:x", "expr": q} for n, q in enumerate(queries)]}]}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(rules))
    checked = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout


@ALL
def test_every_metric_stands_in_the_catalogue_or_is_recorded_by_a_rule(runbook):
    for each in evidence(runbook):
        named = metric_names(each.query)
        unknown = {
            name
            for name in named | metric_names(each.fresh)
            if re.sub(r"_(bucket|count|sum)$", "", name) not in BY_NAME and name not in RECORDED | FOREIGN
        }
        assert named
        assert not unknown


@ALL
def test_when_it_helps_it_mends_and_when_not_it_is_taken_back_where_owed(runbook):
    good = rehearse(runbook, Supposition(replicas=3)).conclusion
    vain = rehearse(runbook, Supposition(helps=False, replicas=3)).conclusion
    if runbook.never_acts:
        assert good.outcome is vain.outcome is Outcome.REFUSED
        assert good.reason == vain.reason == RefusalReason.PERSON_ONLY
        return
    assert good.outcome is Outcome.MENDED
    first = next(step for step in runbook.steps if step.proof is not None)
    owed = first.undo in {Undo.RESTORE_REPLICAS, Undo.RESUME_SYMBOL, Undo.RESTORE}
    assert vain.outcome is (Outcome.UNDONE if owed else Outcome.NOT_PROVEN)


@ALL
def test_no_placeholder_is_left_and_a_target_is_named(runbook):
    assert target(runbook)
    assert not re.search(r"\{[a-z_]+\}", repr(runbook))


def test_only_what_reopens_or_switches_the_market_at_peace_and_what_is_removed_by_force_asks_people():
    asking = {name: runbook.consent for name, runbook in RUNBOOKS.items() if runbook.consent is not Consent.AUTOMATIC}
    assert asking == {
        "blue-green": Consent.FOUR_EYES,
        "engine-restart": Consent.FOUR_EYES,
        "pod-stuck": Consent.ONE_APPROVER,
    }


@pytest.mark.parametrize(
    "labels", [{}, {"replica": ""}, {"replica": "a b"}, {"replica": '"} or vector(1)'}, {"replica": "\ud800"}]
)
def test_a_label_that_names_no_target_is_a_refusal(labels):
    refusal = bind(RUNBOOKS["gateway-down"], labels)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.NO_TARGET


@pytest.mark.parametrize(
    ("value", "escaped"), [('a"b', 'a\\"b'), ("a\\", "a\\\\"), ("a\nb", "a\\nb"), ("\x00", "\\x00")]
)
def test_a_value_stays_within_its_promql_string(value, escaped):
    assert escape(value) == escaped


def test_the_schema_describes_every_key():
    schema = json.loads(SCHEMA.read_text())

    def undescribed(node, path):
        if isinstance(node, dict):
            for key, value in node.get("properties", {}).items():
                reached = value
                while "description" not in reached and "$ref" in reached:
                    reached = schema["$defs"][reached["$ref"].rpartition("/")[2]]
                if "description" not in reached:
                    yield f"{path}.{key}"
            for key, value in node.items():
                yield from undescribed(value, f"{path}.{key}")

    assert list(undescribed(schema, "")) == []
