"""`tapewatch logs` as a person uses it."""

import json

import pytest
from typer.testing import CliRunner

from cli import app
from control.child import now
from kernel.time import SECOND, to_rfc3339

RUN = CliRunner()


@pytest.fixture
def state(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "version").write_text("1")
    base = now() - 100 * SECOND
    with (tmp_path / "logs" / "gateway-1.jsonl").open("w") as file:
        for number in range(60):
            file.write(json.dumps({
                "@timestamp": to_rfc3339(base + number * SECOND), "log.level": "warning", "service.name": "gateway",
                "service.node.name": "gateway-1", "event.action": "order-unanswered", "user.id": "acc-1",
                "message": "order unanswered", "exchange.outcome": "\x1b]0;evil\x07\n\u202etxt",
            }) + "\n")  # fmt: skip
    monkeypatch.setenv("TAPEWATCH_STATE", str(tmp_path))
    return tmp_path


def test_search_prints_one_record_a_line_and_nothing_a_terminal_would_obey(state):
    done = RUN.invoke(app, ["logs", "search", "user.id:acc-1", "--limit", "3"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("\\x1b]0;evil\\x07\\x0a\\u202etxt" in line for line in lines)
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
    assert "newest 3 of 60" in done.stderr


def test_search_as_json_gives_the_fields_that_are_asked_for(state):
    done = RUN.invoke(app, ["logs", "search", "--fields", "user.id", "--limit", "2", "--json"])
    assert json.loads(done.stdout) == [{"user.id": "acc-1"}] * 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search", "a b"], "position 3"),
        (["search", "user.idd:x"], "did you mean user.id"),
        (["search", "--since", "yesterday"], "no time"),
        (["search", "--fields", "nothing"], "no field"),
        (["search", "--store", "paper"], "local or elastic"),
        (["search", "--store", "elastic"], "TAPEWATCH_ELASTIC_URL"),
        (["rules", "show", "Nobody"], "no rule has this name"),
        (["rules", "test", "JournalRepaired", "--on", "/nowhere"], "cannot be read"),
        (["import-elastalert", "/nowhere.yaml"], "cannot be read"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_exit_code_2(state, words, says):
    done = RUN.invoke(app, ["logs", *words])
    assert done.exit_code == 2
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_rule_is_played_over_a_file_and_says_when_and_why(state):
    done = RUN.invoke(
        app, ["logs", "rules", "test", "OrdersUnansweredBurst", "--on", str(state / "logs" / "gateway-1.jsonl")]
    )
    assert done.exit_code == 0
    assert "acc-1" in done.stdout
    assert "20 or more" in done.stdout
    assert "raised 1 times" in done.stdout


def test_a_rule_is_played_over_the_store(state):
    done = RUN.invoke(app, ["logs", "rules", "test", "OrdersUnansweredBurst", "--from", "10m", "--json"])
    found = json.loads(done.stdout)
    assert [one["key"] for one in found["raised"]] == ['["acc-1"]']


def test_tail_and_the_rules_verbs_show_what_is_there(state):
    assert len(RUN.invoke(app, ["logs", "tail", "-n", "5"]).stdout.splitlines()) == 5
    assert "EngineLostNotBack" in RUN.invoke(app, ["logs", "rules", "list"]).stdout
    assert "correlation" in RUN.invoke(app, ["logs", "rules", "show", "EngineLostNotBack"]).stdout
    assert "16 rules are right" in RUN.invoke(app, ["logs", "rules", "check"]).stdout


def test_import_tells_what_is_lost_and_exits_1_unless_partial(state):
    case = "tests/monitor/elastalert/lost_percentiles.yaml"
    done = RUN.invoke(app, ["logs", "import-elastalert", case])
    assert done.exit_code == 1
    assert f"lost {case}:5" in done.stderr
    assert RUN.invoke(app, ["logs", "import-elastalert", case, "--partial"]).exit_code == 0
    whole = RUN.invoke(app, ["logs", "import-elastalert", "tests/monitor/elastalert/any_errors.yaml"])
    assert whole.exit_code == 0
    assert whole.stdout.startswith("rules:\n  - name: ErrorsOfTheEngine")
