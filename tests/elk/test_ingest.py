"""The pipelines, golden, on the real node."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.elk.pipelines import MAX_MESSAGE, MAX_VALUE, guard
from monitor.elk.schema import FIELDS, Type, unknown
from monitor.logs import EcsFormat
from tests.elk.logs import NOW, admin, bulk, ingest, search, simulate

OURS = {"@timestamp": NOW, "log.level": "warning", "message": "feed lost", "event.action": "feed-lost",
        "service.name": "gateway", "exchange.why": "no route"}  # fmt: skip
READ = {"@timestamp": NOW, "log": {"level": "warning"}, "message": "feed lost", "service": {"name": "gateway"},
        "exchange": {"why": "no route"}}  # fmt: skip


def without_ingested(found):
    found = json.loads(json.dumps(found))
    assert found["event"].pop("ingested")
    return found


def without_ingested_empty(found):
    found = without_ingested(found)
    assert not found.pop("event")
    return found


@pytest.fixture(scope="module")
def node(elastic):
    admin(elastic).setup()
    return elastic


def test_a_record_that_was_parsed_is_no_line_even_without_an_action(elastic):
    """The supervisor's records have none; a shipper that parses sends them in parts."""
    said = {"@timestamp": NOW, "log.level": "warn", "message": "ERROR: it says", "service.name": "estate"}
    (found,) = ingest(elastic, [said])
    assert without_ingested_empty(found) == {
        "@timestamp": NOW, "log": {"level": "warning"}, "message": "ERROR: it says", "service": {"name": "estate"},
        "_index": "logs-exchange.gateway-dev",
    }  # fmt: skip


PLAIN = [
    ('ts=2026-03-02T09:30:00.123Z caller=main.go:42 level=warn component=tsdb msg="slow"',
     {"@timestamp": "2026-03-02T09:30:00.123000000Z", "level": "warning", "message": 'msg="slow"', "logger": "tsdb"}),
    ('time=2026-03-02T09:30:00.123Z level=ERROR source=web.go:7 msg="no"',
     {"@timestamp": "2026-03-02T09:30:00.123000000Z", "level": "error", "message": 'msg="no"'}),
    ("[2026-03-02T09:30:00,123][INFO ][o.e.n.Node               ] [n1] started",
     {"@timestamp": "2026-03-02T09:30:00.123000000Z", "level": "info", "message": "started", "logger": "o.e.n.Node"}),
    ("2026-03-02 09:30:00,123 CRITICAL asyncio: loop is closed",
     {"@timestamp": "2026-03-02T09:30:00.123000000Z", "level": "critical", "message": "loop is closed",
      "logger": "asyncio"}),
    ("WARNING:  Invalid HTTP request received.", {"level": "warning", "message": "Invalid HTTP request received."}),
    ("Traceback (most recent call last):\n  File x", {"level": "info",
     "message": "Traceback (most recent call last):\n  File x"}),
    ("\x1b[31mred\x1b[0m \ufffd \x00 \u2028 end",
     {"level": "info", "message": "\x1b[31mred\x1b[0m \ufffd \x00 \u2028 end"}),
    ("", {"level": "info", "message": ""}),
]  # fmt: skip


def test_a_record_of_ours_is_read_whether_parsed_or_a_line(elastic):
    parsed, line = ingest(elastic, [OURS, {"message": json.dumps(OURS)}])
    expected = {**READ, "event": {"action": "feed-lost"}, "_index": "logs-exchange.gateway-dev"}
    assert without_ingested(parsed) == expected
    assert without_ingested(line) == expected


def test_plain_lines_are_read_by_their_form(elastic):
    found = ingest(elastic, [{"message": line} for line, _ in PLAIN])
    for (line, expected), one in zip(PLAIN, found, strict=True):
        assert one["event"]["action"] == "plain-line", line
        assert "plain" in one["tags"]
        assert "original" not in one["event"], "read whole: the line need not be kept twice"
        seen = {"level": one["log"]["level"], "message": one["message"], "logger": one["log"].get("logger")}
        assert seen == {"logger": None} | {key: expected[key] for key in expected if key != "@timestamp"}, line
        assert one["@timestamp"] == expected.get("@timestamp", one["@timestamp"])
        assert ("no_timestamp" in one["tags"]) == ("@timestamp" not in expected)


@pytest.mark.parametrize("torn", ['{"@timestamp": "2026', "{}{", '{"event.action": "x", "event": "y", "event": {'])
def test_a_torn_line_goes_whole_to_the_dead_letters(elastic, torn):
    (found,) = ingest(elastic, [{"message": torn}])
    assert found["_index"] == "logs-exchange.dead_letter-dev"
    assert found["event"]["original"] == torn
    assert found["event"]["kind"] == "pipeline_error"
    assert found["error"]["message"]


@pytest.mark.parametrize(
    ("word", "level"),
    [("WARN", "warning"), ("Err", "error"), ("FATAL", "critical"), ("trace", "debug"), ("info", "info")],
)
def test_levels_become_ours(elastic, word, level):
    (found,) = simulate(elastic, guard(), [{**READ, "log": {"level": word}}])
    assert found["log"]["level"] == level
    assert "odd_level" not in found.get("tags", [])


def test_a_level_nobody_knows_is_told_of(elastic):
    (found,) = simulate(elastic, guard(), [{**READ, "log": {"level": "loud"}}])
    assert found["log"]["level"] == "info"
    assert found["tags"] == ["odd_level"]


def test_times_that_cannot_be_believed_are_told_of_and_kept(elastic):
    stamps = [
        None,
        "yesterday",
        "1812-01-01T00:00:00Z",
        "2262-12-01T00:00:00Z",
        "2199-01-01T00:00:00Z",
        1_772_443_800_123,
    ]
    found = simulate(elastic, guard(), [{"@timestamp": stamp, "message": "x"} for stamp in stamps])
    assert [one.get("tags", []) for one in found] == [
        ["no_timestamp"], ["bad_timestamp", "unmapped_field"], ["bad_timestamp", "unmapped_field"],
        ["bad_timestamp", "unmapped_field"], ["clock_skew"], [],
    ]  # fmt: skip
    assert found[1]["tapewatch"]["unmapped"] == {"@timestamp": "yesterday"}
    assert found[4]["@timestamp"] == "2199-01-01T00:00:00Z", "a skewed clock is told of, not corrected"
    assert found[5]["@timestamp"] == "2026-03-02T09:30:00.123Z"


def test_what_is_too_long_is_cut_and_told_of(elastic):
    (found,) = simulate(elastic, guard(), [{**READ, "message": "x" * 1_000_000, "exchange": {"why": "y" * 100_000}}])
    assert len(found["message"]) == MAX_MESSAGE
    assert len(found["exchange"]["why"]) == MAX_VALUE
    assert found["tags"] == ["cut"]


def test_a_field_no_model_holds_costs_no_record(node, elastic_name):
    odd = {**OURS, "exchange.nobody_knows": {"a": [1, {"b": 2}]}, "exchange.seq": "twelve", "tapewatch.x": None}
    stream = f"logs-exchange.gateway-{elastic_name}"
    (answer,) = bulk(node, stream, [odd])
    assert answer["status"] == 201
    (found,) = search(node, stream, query={"term": {"tags": "unmapped_field"}})
    assert found["tapewatch"]["unmapped"] == {
        "exchange.nobody_knows": '{"a":[1,{"b":2}]}',
        "exchange.seq": "twelve",
    } | ({"tapewatch.x": "null"})
    assert search(node, stream, query={"term": {"tapewatch.unmapped.exchange.seq": "twelve"}}), "and it can be found"


def test_without_the_guard_the_mapping_would_have_refused_it(node, elastic_name):
    """That the mapping is strict is what makes the guard needed; that it is final is what makes it enough."""
    stream = f"logs-exchange.gateway-{elastic_name}"
    assert bulk(node, stream, [OURS])[0]["status"] == 201
    node.request("PUT", f"/{stream}/_settings", {"index": {"final_pipeline": "_none"}})
    (answer,) = bulk(node, stream, [{**OURS, "exchange.nobody_knows": 1}])
    assert answer["status"] == 400
    assert answer["error"]["type"] == "strict_dynamic_mapping_exception"
    node.request("PUT", f"/{stream}/_settings", {"index": {"final_pipeline": "logs-exchange-guard"}})
    lines = f'{{"create":{{"pipeline":"_none"}}}}\n{json.dumps({**OURS, "exchange.nobody_knows": 1})}\n'
    said = node.request("POST", f"/{stream}/_bulk?refresh=true", lines)["items"][0]["create"]
    assert said["status"] == 201, "a request that leaves the default pipeline out does not leave the guard out"


def test_every_field_of_the_model_is_mapped_as_the_model_says(node, elastic_name):
    stream = f"logs-exchange.gateway-{elastic_name}"
    bulk(node, stream, [OURS])
    names = ",".join(field.name for field in FIELDS)
    said = node.request("GET", f"/{stream}/_mapping/field/{names}")
    (mapped,) = (one["mappings"] for one in said.values())
    kinds = {Type.STORED: "keyword", Type.DATE: "date_nanos"}
    for field in FIELDS:
        (body,) = mapped[field.name]["mapping"].values()
        assert body["type"] == kinds.get(field.type, field.type.value), field.name


def test_what_our_own_format_writes_arrives_unchanged(node, elastic_name):
    form = EcsFormat("gateway", "gateway-0")
    lines = [
        form.line(
            1_772_443_800_123_456_000, "slow-order", "warning", {"account": "A1", "duration_ns": 7, "status": 503}
        ),
        form.line(1_772_443_800_123_457_000, "feed-wrong", "critical", {"symbol": "ABC", "expected": 4, "got": None}),
        form.line(1_772_443_800_123_458_000, "x", "info", {"why": "\ud800 \x00 \x1b[2J \u2028", "secret_key": "s"}),
        form.line(1_772_443_800_123_459_000, "long", "info", {"why": "z" * 1_000_000}),
    ]
    stream = f"logs-exchange.gateway-{elastic_name}"
    answers = bulk(node, stream, [{"message": line.decode()} for line in lines])
    assert [one["status"] for one in answers] == [201] * 4
    found = search(node, stream, sort=["@timestamp"])
    assert [one["event"]["action"] for one in found] == ["slow-order", "feed-wrong", "x", "long"]
    assert found[0]["user"] == {"id": "A1"}
    assert found[0]["http"]["response"]["status_code"] == 503
    assert found[1]["exchange"]["expected"] == 4
    assert [one.get("tags", []) for one in found] == [[], [], ["unmapped_field"], []]
    assert not any(unknown(one) for one in found)


KEYS = st.one_of(
    st.sampled_from([field.name for field in FIELDS] + ["exchange", "event", "log", "tags", "x", "tapewatch"]),
    st.text(max_size=6),
    st.sampled_from(["", " ", ".", "a..b", ".a", "a.", "exchange.", "x\x00y", "_read"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20) | st.just("x" * 40_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=12))
def test_no_record_whatever_it_holds_is_refused(node, sources):
    """Twelve records a request, through both pipelines and the strict mapping."""
    answers = bulk(node, "logs-exchange.hostile-t", sources)
    refused = [(source, one["error"]) for source, one in zip(sources, answers, strict=True) if "error" in one]
    assert not refused


def test_a_hostile_record_cannot_swell_the_index(elastic):
    (found,) = simulate(elastic, guard(), [{**READ, "exchange": {f"f{n}": n for n in range(1_000)}}])
    assert len(found["tapewatch"]["unmapped"]) == 256
