"""Rotation of our own: the contract on the real node and in memory, and what is due, by properties."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.verbs_elk import rotated
from kernel.errors import PermanentError, TapewatchError
from kernel.time import DAY, SECOND, Instant
from monitor.adapters.elastic_client import ReadOnlyError, TooBusyError, answered
from monitor.elk.retention import Index, Limits, Stream, due
from tests.elk.fake_indices import FakeIndices
from tests.elk.logs import admin, bulk, search

RECORD = {"@timestamp": "2026-03-02T09:30:00Z", "event.action": "x", "message": "m"}
NEVER = Limits(max_docs=10**9, max_bytes=None, max_age_s=None)


class InMemory:
    def __init__(self):
        self.indices = FakeIndices(time.time_ns)
        self.name = "t"

    def write(self, stream, docs):
        self.indices.add(stream, docs)


class OnTheNode:
    def __init__(self, node, name):
        self.indices, self.node, self.name = admin(node), node, name

    def write(self, stream, docs):
        assert all(one["status"] == 201 for one in bulk(self.node, stream, [RECORD] * docs))


@pytest.fixture
def plant(request):
    if request.param == "in memory":
        return InMemory()
    node = request.getfixturevalue("elastic")
    admin(node).setup()
    return OnTheNode(node, request.getfixturevalue("elastic_name"))


BOTH = pytest.mark.parametrize(
    "plant", ["in memory", pytest.param("on the node", marks=pytest.mark.elastic)], indirect=True
)


def ours(plant):
    return {one.name: one for one in plant.indices.streams() if one.name.endswith(f"-{plant.name}")}


@BOTH
def test_an_index_rolls_when_it_is_full_and_not_before(plant):
    stream = f"logs-exchange.gateway-{plant.name}"
    plant.write(stream, 4)
    assert not plant.indices.roll(stream, Limits(max_docs=5), dry_run=False).rolled
    plant.write(stream, 1)
    wish = plant.indices.roll(stream, Limits(max_docs=5), dry_run=True)
    assert not wish.rolled
    assert wish.why == ("max_docs: 5",)
    assert len(ours(plant)[stream].indices) == 1, "a dry run rolls nothing"
    done = plant.indices.roll(stream, Limits(max_docs=5), dry_run=False)
    assert done.rolled
    plant.write(stream, 2)
    indices = ours(plant)[stream].indices
    assert [index.docs for index in indices] == [5, 2]
    assert [indices[0].name, indices[1].name] == [done.old, done.new]
    assert indices[0].created_at <= indices[1].created_at


@BOTH
def test_what_was_rolled_goes_and_the_written_index_stays(plant):
    stream = f"logs-exchange.engine-{plant.name}"
    for _ in range(3):
        plant.write(stream, 1)
        plant.indices.roll(stream, Limits(max_docs=1), dry_run=False)
    indices = ours(plant)[stream].indices
    later = Instant(indices[-1].created_at + DAY)
    gone = due([ours(plant)[stream]], 86_400, later)
    assert [one.index for one in gone] == [index.name for index in indices[:-1]]
    for one in gone:
        plant.indices.delete(one.index)
        if plant.name != "t":
            plant.indices.delete(one.index)  # gone already: done
    assert [index.name for index in ours(plant)[stream].indices] == [indices[-1].name]
    with pytest.raises(PermanentError):
        plant.indices.delete(indices[-1].name)
    assert ours(plant)[stream].indices[-1].name == indices[-1].name


@BOTH
@pytest.mark.parametrize("name", ["logs-nginx-prod", "logs-exchange-prod", "metrics-exchange.gateway-dev", "*", "_all"])
def test_what_is_not_ours_is_never_touched(plant, name):
    with pytest.raises(PermanentError, match="ours"):
        plant.indices.roll(name, NEVER, dry_run=False)
    with pytest.raises(PermanentError, match="ours"):
        plant.indices.delete(name)
    assert name not in {one.name for one in plant.indices.streams()}


STREAMS = st.builds(
    Stream,
    st.sampled_from(["logs-exchange.gateway-dev", "logs-exchange.a_b-prod-2", "logs-nginx-dev", "logs-exchange-dev"]),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=6).map(
        lambda seconds: tuple(Index(f"i{n}", Instant(at * SECOND), n, n) for n, at in enumerate(sorted(seconds)))
    ),
    st.sampled_from(["", "", "their-policy"]),
)


@given(st.lists(STREAMS, max_size=4), st.integers(1, 10**6), st.integers(0, 2 * 10**6))
def test_what_is_due_is_what_was_rolled_long_enough_ago(streams, keep_s, now_s):
    """Against a naive reading: an index may hold records until its successor was made."""
    expected = []
    for stream in streams:
        if not stream.lifecycle and stream.name.startswith("logs-exchange."):
            for number in range(len(stream.indices) - 1):
                youngest_record_s = stream.indices[number + 1].created_at // SECOND
                if now_s - youngest_record_s >= keep_s:
                    expected.append((stream.name, stream.indices[number].name))
    assert [(one.stream, one.index) for one in due(streams, keep_s, Instant(now_s * SECOND))] == expected


@pytest.mark.elastic
def test_a_whole_turn_with_small_limits(elastic, elastic_name):
    """Roll, wait for the age, delete; records that are kept stay findable, and a dry run says the same beforehand."""
    here = admin(elastic)
    here.setup()
    stream = f"logs-exchange.control-{elastic_name}"

    def mine(told):
        return [len([one for one in told[what] if one["stream"] == stream]) for what in ("deleted", "rolled")]

    small = Limits(max_docs=3, max_bytes=None, max_age_s=None, keep_s=1)
    keeping = Limits(max_docs=3, max_bytes=None, max_age_s=None, keep_s=3_600)
    bulk(elastic, stream, [RECORD] * 3)
    assert mine(rotated(here, keeping, dry_run=True)) == [0, 1]
    assert mine(rotated(here, keeping, dry_run=False)) == [0, 1]
    bulk(elastic, stream, [{**RECORD, "message": "kept"}] * 2)
    assert mine(rotated(here, keeping, dry_run=False)) == [0, 0]
    time.sleep(1.1)
    assert mine(rotated(here, small, dry_run=True)) == [1, 0]
    assert mine(rotated(here, small, dry_run=False)) == [1, 0]
    assert [one["message"] for one in search(elastic, stream)] == ["kept"] * 2


@pytest.mark.elastic
def test_a_read_only_stream_is_told_of_and_frees_its_disk_all_the_same(elastic, elastic_name):
    """Flood stage: records are refused in a sentence, old indices can still go, the other streams still roll."""
    here = admin(elastic)
    here.setup()
    stream, other = f"logs-exchange.engine-{elastic_name}", f"logs-exchange.load-{elastic_name}"
    bulk(elastic, stream, [RECORD])
    here.roll(stream, Limits(max_docs=1), dry_run=False)
    bulk(elastic, stream, [RECORD])
    bulk(elastic, other, [RECORD])
    elastic.request("PUT", f"/{stream}/_settings", {"index.blocks.read_only_allow_delete": True})
    try:
        (answer,) = bulk(elastic, stream, [RECORD])
        assert answer["status"] == 429
        assert "read-only" in json.dumps(answer["error"])
        assert next(one for one in here.streams() if one.name == stream).indices[-1].read_only
        time.sleep(1.1)
        told = rotated(here, Limits(max_docs=1, max_bytes=None, max_age_s=None, keep_s=1), dry_run=False)
        assert stream in {one["stream"] for one in told["deleted"]}
        assert other in {one["stream"] for one in told["rolled"]}
    finally:
        elastic.request("PUT", f"/{stream}/_settings", {"index.blocks.read_only_allow_delete": None})
    assert bulk(elastic, stream, [RECORD])[0]["status"] == 201


def test_a_refused_write_is_read_as_what_it_is():
    flood = "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded, index has read-only-allow-delete block];"
    assert isinstance(answered(429, flood, "writing"), ReadOnlyError)
    assert isinstance(answered(403, "index [x] blocked by: [FORBIDDEN/8/index write (api)];", "writing"), ReadOnlyError)
    assert isinstance(answered(429, "rejected execution of coordinating operation", "writing"), TooBusyError)
    assert "refuses" in str(answered(400, "mapper [a] cannot be changed", "writing"))
    assert "TAPEWATCH_ELASTIC_USER" in str(answered(401, "", "writing"))
    assert isinstance(answered(403, "no permission", "writing"), TapewatchError)
