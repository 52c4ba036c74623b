"""Spans in Zipkin's JSON: every field where Zipkin looks for it, and back."""

import json

import pytest

from kernel.time import Instant
from monitor.traces import Span, SpanEvent, SpanKind
from monitor.zipkin_json import decode, encode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(**more):
    facts = {"exchange.seq": 7, "exchange.share": 0.5, "exchange.kept": True}
    given = {"trace_id": TRACE, "span_id": "00f067aa0ba902b7", "name": "engine order", "start": Instant(1_000_999),
             "end": Instant(3_000_500), "attributes": facts}  # fmt: skip
    return Span(**(given | more))


def test_each_field_stands_where_zipkin_looks_for_it():
    told = SpanEvent(Instant(1_500_000), "trade", {"exchange.lots": 3})
    [one] = json.loads(
        encode([span(parent_id="0000000000000001", kind=SpanKind.SERVER, events=(told,))], "engine", "e-1")
    )
    assert one == {
        "id": "00f067aa0ba902b7", "traceId": TRACE, "parentId": "0000000000000001", "name": "engine order",
        "kind": "SERVER", "timestamp": 1_000, "duration": 2_000, "localEndpoint": {"serviceName": "engine"},
        "tags": {"exchange.seq": "7", "exchange.share": "0.5", "exchange.kept": "true", "service.instance.id": "e-1"},
        "annotations": [{"timestamp": 1_500, "value": 'trade: {"exchange.lots":3}'}],
    }  # fmt: skip


def test_a_root_has_no_parent_and_work_inside_a_process_no_kind():
    [one] = json.loads(encode([span()], "engine", "e-1"))
    assert not {"parentId", "kind"} & set(one)


def test_an_error_is_told_twice_for_the_page_and_for_other_tools():
    [one] = json.loads(encode([span(error="unknown")], "gateway", "g-1"))
    assert one["tags"]["error"] == "unknown"
    assert one["tags"]["otel.status_code"] == "ERROR"


def test_no_span_lasts_nothing_since_zipkin_reads_that_as_not_known():
    [one] = json.loads(encode([span(end=Instant(1_000_999))], "engine", "e-1"))
    assert one["duration"] == 1


def test_rounding_lets_no_child_stick_out_of_its_parent():
    parent, child = (json.loads(encode([one], "e", "e-1"))[0] for one in (
        span(start=Instant(999), end=Instant(2_001)), span(start=Instant(1_000), end=Instant(2_001)),
    ))  # fmt: skip
    assert parent["timestamp"] <= child["timestamp"]
    assert child["timestamp"] + child["duration"] <= parent["timestamp"] + parent["duration"]


def test_what_was_written_is_read_again_by_its_start():
    late, early = span(span_id="0000000000000002", start=Instant(2_000_000)), span()
    read = decode(encode([late, early], "engine", "e-1"))
    assert [one.id for one in read] == ["00f067aa0ba902b7", "0000000000000002"]
    assert {one.service for one in read} == {"engine"}


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"id":"1"}]', b"<html>"])
def test_what_is_no_answer_of_zipkins_is_refused(body):
    with pytest.raises(ValueError, match=r"Input data|Expected|JSON is malformed|missing required"):
        decode(body)
