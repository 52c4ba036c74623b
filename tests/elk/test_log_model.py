"""The one model of log fields against everything that logs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml

from monitor.elk import kibana, nodes, templates
from monitor.elk.files import files
from monitor.elk.pipelines import LEVELS, guard
from monitor.elk.schema import BY_NAME, FIELDS, OWN, Type, flat, properties, unknown
from monitor.logs import ECS_FIELDS, EcsFormat
from monitor.logs import LEVELS as OUR_LEVELS

ROOT = Path(__file__).parents[2]
ROOMS = ("exchange", "anomaly", "monitor", "runbooks", "incidents", "control")


def logged_fields():
    """Every field of every call that logs, as it stands in the record, with where the call is.

    Three ways to log: `log.event("name", key=...)`, the supervisor's `_log("level", "text", key=...)`, and a record
    written out as a dict with its `@timestamp`.
    """
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Dict):
                    keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                    if "@timestamp" in keys and "log.level" in keys:
                        yield from ((key, where) for key in keys)
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                names = [one.arg for one in node.keywords if one.arg is not None and one.arg != "severity"]
                if node.func.attr == "event":
                    yield from ((ECS_FIELDS.get(name, f"exchange.{name}"), where) for name in names)
                if node.func.attr == "_log" and len(node.args) == 2:
                    yield from ((f"exchange.{name}", where) for name in names)


def test_every_field_that_any_process_logs_is_in_the_model():
    found = list(logged_fields())
    assert len(found) > 40, "the search for calls that log finds none: it has lost its way"
    missing = [f"{where}: {name}" for name, where in found if name not in BY_NAME]
    assert not missing, "add them to monitor/elk/schema.py"


@pytest.mark.parametrize("prefix", OWN)
def test_whatever_the_format_adds_by_itself_is_in_the_model(prefix):
    form = EcsFormat("gateway", "gateway-0", prefix=prefix)
    every = dict.fromkeys(ECS_FIELDS, 1) | {"dropped": 1, "failed": 2}
    for fields in (every, {"why": "x" * 100_000}):
        assert not unknown(json.loads(form.line(1, "x", "info", fields)))


def test_ecs_names_and_own_names_do_not_meet():
    assert len({field.name for field in FIELDS}) == len(FIELDS)
    for field in FIELDS:
        assert field.why
        assert field.own == (field.name.split(".")[0] in OWN)
        for other in FIELDS:
            assert not other.name.startswith(f"{field.name}."), f"{other.name} stands inside the field {field.name}"


def test_an_own_word_means_the_same_under_either_prefix():
    for name, field in BY_NAME.items():
        if name.startswith("exchange."):
            assert BY_NAME[name.replace("exchange.", "tapewatch.", 1)].type is field.type


def test_own_fields_are_strict_and_others_are_kept_unindexed():
    own = templates.own_mappings()["template"]["mappings"]["properties"]
    assert set(own) == set(OWN)
    assert {part["dynamic"] for part in own.values()} == {"strict"}
    assert templates.ecs_mappings()["template"]["mappings"]["dynamic"] is False


def test_the_guard_knows_every_field_and_its_type():
    model = guard()["processors"][-1]["script"]["params"]["model"]
    assert flat(model) == {field.name: field.type.value for field in FIELDS}
    assert set(guard()["processors"][-1]["script"]["params"]["levels"].values()) == OUR_LEVELS == set(LEVELS.values())


def test_properties_nest_by_dots():
    assert properties([BY_NAME["trace.id"]])["trace"]["properties"]["id"]["type"] == "keyword"
    assert properties([field for field in FIELDS if field.type is Type.STORED])["event"]["properties"]["original"] == {
        "type": "keyword", "index": False, "doc_values": False,
    }  # fmt: skip


def test_the_files_are_what_the_model_makes():
    made = files()
    there = {str(path.relative_to(ROOT / "elk")) for path in (ROOT / "elk").rglob("*") if path.is_file()}
    assert not {name for name in made if name not in there}, "run `tapewatch elk files --write elk`"
    odd = [name for name, text in made.items() if (ROOT / "elk" / name).read_text() != text]
    assert not odd, "run `tapewatch elk files --write elk`"
    strays = {name for name in there if name not in made and not name.startswith("filebeat/")}
    assert not strays, "what is in elk/ is generated"


# --- Kibana ---------------------------------------------------------------------------------------------------------


def kibana_fields(value):
    """Every field that an object's columns, sorting and panels name."""
    if isinstance(value, dict):
        if isinstance(value.get("sourceField"), str):
            yield value["sourceField"]
        for inner in value.values():
            yield from kibana_fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from kibana_fields(inner)


def query_fields(query):
    """The fields of a KQL query of the plain form that ours have: `field: value`, joined by `or` and `and`."""
    return [part.split(":")[0].strip() for part in query.replace(" and ", " or ").split(" or ") if ":" in part]


def objects():
    return [json.loads(line) for line in (ROOT / "elk/kibana/tapewatch.ndjson").read_text().splitlines()]


def test_every_reference_of_kibanas_objects_resolves_before_it_is_made():
    seen = set()
    for one in objects():
        for reference in one["references"]:
            assert (reference["type"], reference["id"]) in seen, f"{one['id']} refers to {reference['id']}"
        seen.add((one["type"], one["id"]))
    assert len(seen) == len(objects()), "an id is used twice"


def test_every_reference_a_panel_or_a_search_names_is_among_its_objects_references():
    for one in objects():
        names = {reference["name"] for reference in one["references"]}
        if one["type"] == "dashboard":
            panels = json.loads(one["attributes"]["panelsJSON"])
            assert {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels} == names
        if one["type"] == "search":
            source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            assert {source["indexRefName"]} == names
        if one["type"] == "lens":
            layers = one["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]
            assert {f"indexpattern-datasource-layer-{layer}" for layer in layers} == names


def test_every_field_of_kibanas_objects_exists_and_can_be_asked_for():
    fields = set()
    for one in objects():
        attributes = one["attributes"]
        fields |= set(attributes.get("columns", [])) | set(kibana_fields(attributes))
        fields |= {key for key, _ in attributes.get("sort", [])}
        state = (
            attributes.get("state", {}).get("query")
            or json.loads(
                attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", '{"query":{"query":""}}')
            )["query"]
        )
        asked = query_fields(state["query"])
        assert all(BY_NAME[name].type is not Type.STORED for name in asked), one["id"]
        fields |= set(asked)
    assert fields - {"___records___"} <= set(BY_NAME)
    assert len(fields) > 15


def test_lens_columns_are_all_used_and_aggregate_what_can_be_aggregated():
    for one in (one for one in objects() if one["type"] == "lens"):
        state = one["attributes"]["state"]
        (layer,) = state["datasourceStates"]["formBased"]["layers"].values()
        used = json.dumps(state["visualization"])
        for name, column in layer["columns"].items():
            assert f'"{name}"' in used, f"{one['id']}: {name} is shown nowhere"
            if column["operationType"] == "terms":
                assert BY_NAME[column["sourceField"]].type is Type.KEYWORD
        assert set(layer["columnOrder"]) == set(layer["columns"])


def test_panels_do_not_lie_over_each_other():
    (board,) = (one for one in objects() if one["type"] == "dashboard")
    places = [panel["gridData"] for panel in json.loads(board["attributes"]["panelsJSON"])]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 48
    assert board["id"] == kibana.DASHBOARD


# --- node roles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", nodes.ROLES)
def test_a_node_file_says_its_role_and_is_locked_up(role):
    said = yaml.safe_load((ROOT / f"elk/nodes/{role}.yml").read_text())
    assert said == nodes.node(role)
    assert said["node.roles"] == list(nodes.ROLES[role][0])
    assert said["xpack.security.enabled"]
    assert said["xpack.security.http.ssl.enabled"]
    assert ("cluster.initial_master_nodes" in said) == (role == "master"), "only masters elect the first master"
