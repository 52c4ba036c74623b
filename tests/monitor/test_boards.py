"""The boards keep their rules, and each rule is broken once to see that it is noticed, with file and line."""

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import app
from control.review import recorded, rule_facts
from kernel.errors import InputError
from monitor.adapters import yaml_places
from monitor.adapters.boards import files, live, reading, rules
from monitor.adapters.boards.dimension import GRAFANA, Measure, told
from monitor.adapters.boards.json_lines import lines_of
from monitor.adapters.boards.model import Ask
from monitor.adapters.boards.tree import Select, parse, walk
from monitor.promql import quoted

BOARDS = reading.read(files.GRAFANA)
RECORDED = recorded()


def test_the_files_are_what_the_specifications_say():
    assert files.drift(files.generated()) == []


def test_every_board_keeps_every_rule():
    assert rules.findings(BOARDS, RECORDED) == []


def test_every_board_that_an_alert_links_to_is_there():
    uids = {board.uid for board in BOARDS}
    linked = {
        rule["annotations"]["dashboard"].rsplit("/", 1)[1]
        for path in sorted((files.ROOM.parent / "alerts" / "rules").glob("*.yml"))
        for group in yaml_places.read(path)[0]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert rule_facts()
    assert linked <= uids


def test_every_board_has_annotations_links_and_a_description_of_what_to_do():
    for board in BOARDS:
        names = {one["name"] for one in board.value["annotations"]["list"]}
        assert {"Incidents opened", "Deployments and starts", "Market phases", "Runbook runs"} <= names
        for _, panel in board.panels:
            assert len(panel["description"]) > 20, (board.uid, panel["title"])
            assert panel["fieldConfig"]["defaults"]["links"], (board.uid, panel["title"])
        numbers = [panel["id"] for panel in board.value["panels"]]
        assert len(numbers) == len(set(numbers))


def test_panels_fill_the_grid_without_overlap():
    for board in BOARDS:
        taken = set()
        for panel in board.value["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, (board.uid, panel["title"])
            assert place["x"] + place["w"] <= 24
            taken |= cells


def test_a_legend_names_only_labels_that_its_question_keeps():

    for board in BOARDS:
        for _, panel in board.panels:
            for target in panel["targets"]:
                kept = " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))
                for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    raw = "by (" not in target["expr"]
                    assert raw or re.search(rf"\b{label}\b", kept), (board.uid, panel["title"], label)


def test_examples_lead_to_traces_and_traces_to_logs():
    sources = yaml_places.read(files.GRAFANA / "provisioning" / "datasources" / "tapewatch.yaml")[0]["datasources"]
    by_uid = {one["uid"]: one for one in sources}
    example = by_uid["tapewatch-prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]
    assert example["datasourceUid"] in by_uid
    assert by_uid[by_uid["tapewatch-traces"]["jsonData"]["tracesToLogsV2"]["datasourceUid"]]["type"] == "elasticsearch"
    assert by_uid["tapewatch-logs"]["jsonData"]["dataLinks"][0]["field"] == "trace.id"
    asked = [target for board in BOARDS for _, panel in board.panels for target in panel["targets"]]
    assert any(target.get("exemplar") for target in asked)
    text = json.dumps([board.value for board in BOARDS])
    assert {uid for uid in ("tapewatch-logs", "tapewatch-traces") if uid in text} <= set(by_uid)


FAULTS = {
    "an unknown metric": ("exchange_trades_total{", "exchange_trade_total{", "no metric of the catalogue"),
    "an unknown label": ("sum by (reason) (rate(exchange_rejects", "sum by (colour) (rate(exchange_rejects",
                         "no metric under it has that label"),
    "a value that never comes": ('side=\\"buy\\"', 'side=\\"bought\\"', "is never 'bought'"),
    "a counter on its own": ("sum(exchange_resting_orders{", "sum(exchange_trades_total{", "is a counter"),
    "a fixed window": ('rate(exchange_trades_total{job=~\\"$job\\",replica=~\\"$replica\\"}[$__rate_interval]',
                       'rate(exchange_trades_total{job=~\\"$job\\",replica=~\\"$replica\\"}[1m]', "is 1m"),
    "a question past the variables": ('exchange_resting_orders{job=~\\"$job\\",replica=~\\"$replica\\"}',
                                      "exchange_resting_orders", "not chosen by the variables"),
    "a unit mismatch": ('"unit": "suffix: ticks"', '"unit": "s"', "measures ticks"),
    "an unknown unit": ('"unit": "suffix: ticks"', '"unit": "furlongs"', "known are"),
    "broken PromQL": ("sum(exchange_resting_orders{", "sum((exchange_resting_orders{", "no PromQL"),
    "an editable board": ('"editable": false', '"editable": true', "can be edited"),
    "a datasource of its own": ('"uid": "${datasource}"', '"uid": "mine"', "does not use the variable"),
    "a strange uid": ('"uid": "tapewatch-exchange"', '"uid": "Exchange!"', "write tapewatch-<name>"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_with_its_file_and_line(fault, tmp_path):
    old, new, said = FAULTS[fault]
    text = (files.GRAFANA / "tapewatch-exchange.json").read_text()
    at = text.index(old)
    line = text[:at].count("\n") + 1
    path = tmp_path / "tapewatch-exchange.json"
    path.write_text(text[:at] + new + text[at + len(old) :])
    found = rules.findings(reading.read(tmp_path), RECORDED)
    assert any(said in one for one in found), found
    lines = [int(one.split(":")[1]) for one in found if one.startswith(f"{path}:")]
    assert any(abs(one - line) <= 3 for one in lines), (line, found)


def test_a_duplicate_uid_is_named_with_both_places(tmp_path):
    text = (files.GRAFANA / "tapewatch-slo.json").read_text()
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(text)
    (found,) = rules.findings(reading.read(tmp_path), RECORDED)
    assert str(tmp_path / "a.json") in found
    assert found.startswith(str(tmp_path / "b.json") + ":")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1,\n\n "b": }', '"x"', "\ud800".encode("utf-8", "replace").decode()]
)
def test_a_broken_file_is_refused_with_its_line(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json:\d"):
        reading.read(tmp_path)


def test_a_directory_without_boards_is_refused(tmp_path):
    with pytest.raises(InputError, match="no board is here"):
        reading.read(tmp_path)


def test_an_excuse_that_no_board_needs_is_found():
    assert live.idle_excuses(BOARDS, live.excuses()) == []
    assert live.idle_excuses(BOARDS, {"nobody_asks_this": "x"}) == ["nobody_asks_this"]


def test_what_another_estate_fills_is_excused_here_and_not_there(tmp_path):
    path = tmp_path / "silent.yml"
    path.write_text("silent:\n  - {series: a_, why: no brokers, only: distributed}\n  - {series: b, why: calm}\n")
    assert live.excuses(path) == {"a_": "no brokers", "b": "calm"}
    assert live.excuses(path, estate="distributed") == {"b": "calm"}
    assert live.others(path) == {"a_": "no brokers"}
    assert live.others(path, estate="distributed") == {}


@pytest.mark.parametrize(
    "text",
    [
        "silent: 3\n",
        "silent:\n  - series: a\n",
        "silent:\n  - {series: a, why: b, more: c}\n",
        "silent:\n  - {series: a, why: b, only: mars}\n",
    ],
)
def test_a_broken_list_of_excuses_is_refused_with_its_line(text, tmp_path):
    (tmp_path / "silent.yml").write_text(text)
    with pytest.raises(InputError, match=r"silent\.yml:\d"):
        live.excuses(tmp_path / "silent.yml")


@pytest.mark.parametrize(
    ("expr", "measures"),
    [
        ("exchange_journal_bytes", "bytes"),
        ("rate(exchange_trades_total[1m])", "count per seconds"),
        ("rate(process_cpu_seconds_total[1m])", "a plain number"),
        ("time() - exchange_feed_published_timestamp_seconds", "seconds"),
        ("histogram_quantile(0.9, sum by (le) (rate(exchange_order_ack_seconds_bucket[1m])))", "seconds"),
        ("rate(exchange_order_ack_seconds_sum[1m]) / rate(exchange_order_ack_seconds_count[1m])", "seconds"),
        ("exchange_open_notional_ticks", "lots·ticks"),
        ("2 * exchange_book_spread_ticks", "ticks"),
        ("count(exchange_journal_bytes)", "a plain number"),
        ("exchange_journal_bytes / exchange_journal_disk_free_bytes", "a plain number"),
        ("rate(node_disk_read_bytes_total[1m])", "bytes per seconds"),
    ],
)
def test_units_follow_from_the_catalogue(expr, measures):
    measure = Measure({})
    assert told(measure.of(parse(expr)) or ()) == measures
    assert measure.troubles == []


def test_unlike_units_are_not_added_or_compared():
    for expr in ("exchange_journal_bytes + exchange_book_spread_ticks", "time() > exchange_journal_bytes"):
        measure = Measure({})
        measure.of(parse(expr))
        assert len(measure.troubles) == 1


NAMES = st.sampled_from(["exchange_trades_total", "up", "slo:objective:ratio"])
VALUES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=12)
SIGNS = st.sampled_from(["+", "and", "> bool", "/ on (job)"])
TREES = st.recursive(
    st.builds(lambda name, value: f"{name}{{job={quoted(value)}}}", NAMES, VALUES) | st.just("4.5e3"),
    lambda inner: st.one_of(
        st.builds(lambda a, sign, b: f"({a}) {sign} ({b})", inner, SIGNS,
                  inner),
        st.builds(lambda a: f"sum by (job, replica) ({a})", inner),
        st.builds(lambda a: f"max({a}) without (le)", inner),
        st.builds(lambda a: f"-abs({a} offset 5m)", inner),
    ),
    max_leaves=8,
)  # fmt: skip


@given(TREES)
def test_whatever_is_promql_is_read_and_keeps_its_names(text):
    found = {part.name for part, _ in walk(parse(text)) if isinstance(part, Select)}

    assert found == set(re.findall(r"(?:exchange_trades_total|up|slo:objective:ratio)(?=\{job=)", re.sub(
        r'"(?:[^"\\]|\\.)*"', "", text)))  # fmt: skip


@given(st.text(max_size=60))
def test_whatever_is_not_promql_is_refused_and_nothing_else(text):
    with contextlib.suppress(ValueError):  # any other error fails the test
        parse(text)


def test_the_short_forms_become_grafanas():
    assert Ask('x{$,a="b"}[$r] / y{$}').expr == (
        'x{job=~"$job",replica=~"$replica",a="b"}[$__rate_interval] / y{job=~"$job",replica=~"$replica"}'
    )
    assert GRAFANA["s"]


def test_the_terminal_lists_checks_and_finds_drift(tmp_path):
    run = CliRunner()
    listed = run.invoke(app, ["dashboards", "list", "--json"])
    assert listed.exit_code == 0
    assert {row["uid"] for row in json.loads(listed.stdout)} == {board.uid for board in BOARDS}
    assert run.invoke(app, ["dashboards", "check", "--static"]).exit_code == 0
    assert run.invoke(app, ["dashboards", "generate", "--dir", str(tmp_path)]).exit_code == 0
    assert run.invoke(app, ["dashboards", "generate", "--check", "--dir", str(tmp_path)]).exit_code == 0
    path = tmp_path / "tapewatch-red.json"
    path.write_text(path.read_text().replace('"unit": "s"', '"unit": "bytes"', 1))
    (tmp_path / "tapewatch-stray.json").write_text("{}")
    drifted = run.invoke(app, ["dashboards", "generate", "--check", "--dir", str(tmp_path)])
    assert drifted.exit_code == 1
    assert "tapewatch-red.json:1" in drifted.stderr
    assert "tapewatch-stray.json:1" in drifted.stderr
    (tmp_path / "tapewatch-stray.json").unlink()
    checked = run.invoke(app, ["dashboards", "check", "--static", "--dir", str(tmp_path)])
    assert checked.exit_code == 1
    assert "tapewatch-red.json:" in checked.stderr
    assert run.invoke(app, ["dashboards", "list", "--dir", str(tmp_path / "none")]).exit_code == 2


def test_an_estate_that_does_not_run_cannot_be_asked(tmp_path):
    done = CliRunner().invoke(app, ["dashboards", "check", "--state", str(tmp_path / "none")])
    assert done.exit_code in {2, 4}
    assert "Traceback" not in done.output


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 0, 2]))
def test_lines_are_where_the_parts_stand(value, indent):
    """Held to the text itself: with an indent, a key or an element begins the line that is told of it."""
    text = json.dumps(value, indent=indent)
    lines = lines_of(text)

    def check(part, path):
        own = text.split("\n")[lines[path] - 1].strip()
        if indent is not None and path:
            wanted = json.dumps(path[-1]) + ":" if isinstance(path[-1], str) else json.dumps(part)[:1]
            assert own.startswith(wanted)
        pairs = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, inner in pairs:
            check(inner, (*path, key))

    check(value, ())
    assert all(line <= text.count("\n") + 1 for line in lines.values())
