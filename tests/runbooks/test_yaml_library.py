"""Runbooks from YAML: what is refused, where exactly, and what would be right."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import pytest

from kernel.errors import InputError
from runbooks.adapters.yaml_library import LIBRARY, load_library, load_runbook

GOOD = """\
title: Restart a gateway
answers: [GatewayDown]
service: gateway
team: platform
level: 2
consent: automatic
parameters: {replica: replica}
guards:
  - name: it is down
    query: up{replica="{replica}"}
    is: "== 0"
    max_age: 5s
steps:
  - name: restart
    do:
      restart_replica: {workload: gateway, replica: "{replica}"}
    undo: nothing
    proof:
      name: it is up
      query: up{replica="{replica}"}
      is: "== 1"
      max_age: 3s
      holds_for: 2s
      within: 20s
      poll: 250ms
blast_radius: {replicas: 1}
limits: {cool_down: 10s, runs_per_hour: 6, ineffective_runs: 2}
when_refused: look
"""

# what is replaced, by what, where the error points, and words it must hold
CASES = [
    ("level: 2", "level: 4", "5:8", "maximum is 3"),
    ("level: 2", "level: two", "5:8", "type integer"),
    ("level: 2", "level: 0x2", "5:8", "ambiguous"),
    ("level: 2", "level: yes", "5:8", "ambiguous"),
    ("level: 2", "level: 2\nlevel: 3", "6:1", "twice"),
    ("team: platform", "team: &a platform", "4:7", "anchor"),
    ("team: platform", "team: *a", "4:7", "alias"),
    ("team: platform", "team: !!str platform", "4:7", "tag"),
    ("team: platform", "teem: platform", "4:1", "unknown key 'teem'"),
    ("team: platform", "? [a]\n: b", "4:3", "no plain word"),
    ("team: platform", "<<: {a: b}", "4:1", "no plain word"),
    ("team: platform\n", "", "1:1", "'team' is missing"),
    ("consent: automatic", "consent: nobody", "6:10", "one of automatic, one_approver, four_eyes"),
    ("[GatewayDown]", "[]", "2:10", "minItems"),
    ("[GatewayDown]", "[" * 14 + "]" * 14, "2:21", "nesting is too deep"),
    ("max_age: 5s", "max_age: 5", "12:14", "type string"),
    ("max_age: 5s", "max_age: 5 s", "12:14", "500ms or 1m30s"),
    ("max_age: 5s", "max_age: 0s", "12:14", "no data is that young"),
    ('is: "== 0"', 'is: "=< 0"', "11:9", '">= 1"'),
    ('query: up{replica="{replica}"}\n    is', 'query: up{replica="{pod}"}\n    is', "10:12", "declared: replica"),
    ('query: up{replica="{replica}"}\n    is', 'query: up{replica=~"{replica}"}\n    is', "10:12", "exact matcher"),
    ('query: up{replica="{replica}"}\n    is', "query: up{{replica}}\n    is", "10:12", "exact matcher"),
    ("    undo: nothing\n", "", "14:5", "'undo' is missing"),
    ("undo: nothing", "undo: restore_replicas", "17:11", "takes back scale"),
    ("restart_replica: {workload: gateway, ", "reboot: {workload: gateway, ", "16:7", "unknown key 'reboot'"),
    ('replica: "{replica}"}\n    undo', 'replica: "a b"}\n    undo', "16:53", "A name, or a placeholder"),
    ('replica: "{replica}"}\n    undo', 'replica: ""}\n    undo', "16:53", "A name, or a placeholder"),
    ("holds_for: 2s", "holds_for: 20s", "23:18", "less than 20s"),
    ("poll: 250ms", "poll: 4s", "25:13", "at most 3s"),
    ("poll: 250ms", "poll: 0s", "25:13", "for example 250ms"),
    ("    undo: nothing\n", "    undo: nothing\n    without_proof: why\n", "14:5", "exactly one"),
    ("when_refused: look", "when_refused: 'look", "29:1", "unexpected end"),
    ("when_refused: look", "when_refused: look\nanomaly_may_start: true", "29:20", "ask people"),
    ("when_refused: look", "when_refused: look\nanomaly_may_start: often", "29:20", "must be of type boolean"),
    ("when_refused: look", "when_refused: lo\x07ok", "28:17", "control character"),
    ("when_refused: look", "when_refused: " + "x" * 70_000, "1:1", "65536"),
    (GOOD, "", "1:1", "empty"),
    (GOOD, "%YAML 1.1\n---\na: b\n", "1:1", "directive"),
    (GOOD, GOOD + "---\n" + GOOD, "29:1", "another document"),
    (GOOD, "- a\n", "1:1", "type object"),
]  # fmt: skip


def write(directory, text, name="gateway-down.yaml"):
    path = directory / name
    path.write_bytes(text.encode())
    return path


def test_a_good_runbook_is_read_whole(tmp_path):
    runbook = load_runbook(write(tmp_path, GOOD))
    assert (runbook.name, runbook.limits.runs_per_hour, runbook.steps[0].proof.poll_ns) == (
        "gateway-down",
        6,
        250_000_000,
    )
    assert runbook.guards[0].evidence.fresh == runbook.guards[0].evidence.query


def test_an_anomaly_may_start_what_asks_people_first(tmp_path):
    text = GOOD.replace("consent: automatic", "consent: one_approver") + "anomaly_may_start: true\n"
    assert load_runbook(write(tmp_path, text)).anomaly_may_start
    assert not load_runbook(write(tmp_path, GOOD)).anomaly_may_start


@pytest.mark.parametrize(("old", "new", "where", "words"), CASES, ids=[f"{c[2]} {c[3]}" for c in CASES])
def test_a_broken_runbook_is_refused_with_line_column_and_what_is_right(tmp_path, old, new, where, words):
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_runbook(path)
    assert caught.value.where == f"{path}:{where}", str(caught.value)
    assert words in str(caught.value)
    assert caught.value.right
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_refused_where_it_stands(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"title: x\nteam: \xff\n")
    with pytest.raises(InputError, match=r":2:7: the text is not UTF-8"):
        load_runbook(path)


def test_one_broken_file_does_not_keep_the_others_out(tmp_path):
    write(tmp_path, GOOD, "a.yaml")
    write(tmp_path, "title: [", "b.yaml")
    write(tmp_path, GOOD.replace("GatewayDown", "Other"), "c.yaml")
    write(tmp_path, GOOD, "d.yaml")
    write(tmp_path, GOOD, "E_bad.yaml")
    runbooks, errors = load_library(tmp_path)
    assert [runbook.name for runbook in runbooks] == ["a", "c"]
    assert len(errors) == 3
    assert any("GatewayDown is answered by a already" in str(error) for error in errors)


def test_a_missing_directory_is_one_clear_sentence(tmp_path):
    runbooks, (error,) = load_library(tmp_path / "nowhere")
    assert not runbooks
    assert "no such directory" in str(error)


def test_the_library_of_the_project_is_without_fault():
    runbooks, errors = load_library(LIBRARY)
    assert not errors
    assert len(runbooks) == len(list(LIBRARY.glob("*.yaml"))) >= 30
    local, kubernetes = ({one.name for one in load_library(LIBRARY, name)[0]} for name in ("local", "kubernetes"))
    assert len(kubernetes) == 21
    assert len(local | kubernetes) == len(runbooks)
    assert local & kubernetes == {"sequence-gap", "series-anomalous"}, "what touches no workload is the same everywhere"
