"""The runbooks of the project: sound PromQL, known metrics, and a rehearsal that mends or is taken back."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import json
import re
import subprocess

import pytest

from monitor.catalog import BY_NAME
from runbooks.adapters.yaml_library import LIBRARY, SCHEMA, load_library
from runbooks.bind import bind, escape
from runbooks.model import Consent, Outcome, Refusal, RefusalReason, Undo
from runbooks.facts import target
from runbooks.rehearse import Supposition, rehearse

RUNBOOKS = {runbook.name: runbook for runbook in load_library(LIBRARY)[0]}
LABELS = {"replica": "gateway-1", "symbol": "TWA"}
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
def test_every_metric_stands_in_the_catalogue(runbook):
    for each in evidence(runbook):
        bare = re.sub(r"_(bucket|count|sum)\b", "", re.sub(r'"[^"]*"', "", f"{each.query} {each.fresh}"))
        named = set(re.findall(r"\b(?:exchange|tapewatch)_\w+", bare))
        assert named <= set(BY_NAME)
        assert named or re.search(r"\bup\{", bare)


@ALL
def test_when_it_helps_it_mends_and_when_not_it_is_taken_back_where_owed(runbook):
    assert rehearse(runbook, Supposition(replicas=3)).conclusion.outcome is Outcome.MENDED
    vain = rehearse(runbook, Supposition(helps=False, replicas=3)).conclusion
    owed = any(step.undo in {Undo.RESTORE_REPLICAS, Undo.RESUME_SYMBOL} for step in runbook.steps)
    assert vain.outcome is (Outcome.UNDONE if owed else Outcome.NOT_PROVEN)


@ALL
def test_no_placeholder_is_left_and_a_target_is_named(runbook):
    assert target(runbook)
    assert not re.search(r"\{[a-z_]+\}", repr(runbook))
    assert runbook.consent is Consent.AUTOMATIC


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
