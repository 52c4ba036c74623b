"""A webhook is read whole or refused with the place that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incidents.signals import ALERTS_MAX, BODY_BYTES_MAX, Status, parse_webhook
from kernel.errors import InputError
from kernel.time import Instant, from_rfc3339

NOW = Instant(7)


def one(**changes: Any) -> dict[str, Any]:
    return {
        "status": "firing", "labels": {"alertname": "A", "service": "gateway"}, "annotations": {"summary": "s"},
        "startsAt": "2026-03-02T09:30:00.123Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "f1",
        "generatorURL": "http://p/graph?g0.expr=up", **changes,
    }  # fmt: skip


def body(*alerts: Any, **changes: Any) -> bytes:
    return json.dumps({"version": "4", "groupKey": "{}:{}", "alerts": list(alerts), "new": 1, **changes}).encode()


def test_a_notification_is_read() -> None:
    ended = one(status="resolved", endsAt="2026-03-02T09:31:00Z")
    firing, resolved = parse_webhook(body(one(), ended), NOW)
    assert (firing.name, firing.service, firing.path, firing.ends_at) == ("A", "gateway", "prometheus", None)
    assert resolved.status is Status.RESOLVED
    assert resolved.ends_at == from_rfc3339("2026-03-02T09:31:00Z")
    assert firing.key != resolved.key
    assert parse_webhook(body(one()), Instant(8))[0].key == firing.key, "a repeated delivery has the same key"


REFUSED = {
    "no JSON": (b"{", "is not JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8 at byte 7"),
    "NaN": (body(one(), x=float("nan")), "holds NaN"),
    "list": (b"[]", "is a list"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "huge": (b" " * (BODY_BYTES_MAX + 1), "bytes; at most"),
    "huge number": (b'{"a": ' + b"9" * 10_000 + b"}", "is not JSON"),
    "twice": (b'{"version": "4", "version": "4"}', "key 'version' twice"),
    "version": (body(version="3"), "version: is '3'"),
    "no alerts": (b'{"version": "4", "groupKey": "k"}', "alerts: is missing"),
    "too many": (body(*[0] * (ALERTS_MAX + 1)), "holds 10001 alerts"),
    "no object": (body(one(), 3), r"alerts\[1\]: is a number"),
    "no name": (body(one(labels={"a": "b"})), r"alerts\[0\].labels: holds no alertname"),
    "label no text": (body(one(labels={"alertname": "A", "n": 3})), r"labels\['n'\]: is a number"),
    "label too long": (body(one(labels={"alertname": "A" * 5000})), "has 5000 bytes"),
    "too many labels": (body(one(labels={str(n): "" for n in range(65)})), "holds 65 entries"),
    "surrogate": (body(one(labels={"alertname": "\ud800"})), "half of a surrogate"),
    "NUL": (body(one(labels={"alertname": "A\0"})), "NUL"),
    "status": (body(one(status="burning")), "status: is 'burning'"),
    "status object": (body(one(status={})), "status: is an object"),
    "time": (body(one(startsAt="yesterday")), "startsAt"),
    "year 1": (body(one(startsAt="0001-01-01T00:00:00Z")), "between 1970 and 2262"),
    "resolved without end": (body(one(status="resolved", endsAt=None)), "endsAt: is missing"),
    "fingerprint": (body(one(fingerprint="../x")), "fingerprint"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_body_is_refused_with_its_place(case: str) -> None:
    sent, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as refused:
        parse_webhook(sent, NOW)
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), lambda some: st.lists(some) | st.dictionaries(st.sampled_from(["version", "alerts", "labels"]), some)).map(lambda value: json.dumps(value).encode()))  # fmt: skip  # noqa: E501 - one strategy
def test_nothing_but_a_refusal_comes_of_rubbish(sent: bytes) -> None:
    with pytest.raises(InputError):
        parse_webhook(sent, NOW)
