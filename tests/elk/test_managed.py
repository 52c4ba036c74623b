"""A cluster with lifecycle management, by a stand-in of its client: the real one that can be had here has none."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import elastic_transport
import elasticsearch
import pytest

from control.verbs_elk import rotated
from kernel.errors import PermanentError, TemporaryError
from monitor.adapters.elastic_admin import Done, ElasticAdmin
from monitor.elk.retention import Limits, due
from monitor.elk.templates import LIFECYCLE, POLICY
from tests.elk.fake_indices import FakeIndices


def answer(status):
    return SimpleNamespace(status=status, http_version="1.1", headers={}, duration=0.0, node=None)


def body(value):
    return SimpleNamespace(body=value)


class FullCluster:
    """What `ElasticAdmin.setup` asks of a client, kept in memory."""

    def __init__(self, lifecycle_error=None):
        self.order, self.pipelines, self.components, self.templates, self.policies = [], {}, {}, {}, {}
        self.lifecycle_error = lifecycle_error
        self.ilm = SimpleNamespace(
            get_status=self._status, get_lifecycle=lambda: body(self.policies), put_lifecycle=self._policy
        )
        self.ingest = SimpleNamespace(get_pipeline=self._pipeline, put_pipeline=self._put_pipeline)
        self.cluster = SimpleNamespace(
            get_component_template=lambda: body(
                {"component_templates": [{"name": n, "component_template": b} for n, b in self.components.items()]}
            ),
            put_component_template=self._component,
        )
        self.indices = SimpleNamespace(
            get_index_template=lambda: body(
                {"index_templates": [{"name": n, "index_template": b} for n, b in self.templates.items()]}
            ),
            put_index_template=self._template,
            resolve_index=lambda **_: body({"data_streams": []}),
        )

    def _status(self):
        if self.lifecycle_error:
            raise self.lifecycle_error

    def _policy(self, *, name, policy):
        self.order.append(f"policy {name}")
        self.policies[name] = {"policy": policy, "version": 1}

    def _pipeline(self, *, id):  # noqa: A002 - the client's word
        if id not in self.pipelines:
            raise elasticsearch.NotFoundError("no", answer(404), {})
        return body({id: self.pipelines[id]})

    def _put_pipeline(self, *, id, **given):  # noqa: A002 - the client's word
        self.order.append(f"pipeline {id}")
        self.pipelines[id] = given

    def _component(self, *, name, template, meta):
        self.order.append(f"component {name}")
        self.components[name] = {"template": template, "_meta": meta}

    def _template(self, *, name, meta, **given):
        self.order.append(f"template {name}")
        self.templates[name] = {**given, "_meta": meta}


def test_where_lifecycle_management_is_the_policy_comes_before_what_names_it():
    client = FullCluster()
    changes = ElasticAdmin(client).setup()
    assert {one.done for one in changes} == {Done.CREATED}
    places = {name: place for place, name in enumerate(client.order)}
    assert places[f"policy {POLICY}"] < places[f"component {LIFECYCLE}"] < places["template logs-exchange"]
    assert LIFECYCLE in client.templates["logs-exchange"]["composed_of"]
    made = len(client.order)
    assert {one.done for one in ElasticAdmin(client).setup()} == {Done.SAME}
    assert len(client.order) == made


def test_a_policy_that_somebody_changed_is_told_of_and_put_back():
    client = FullCluster()
    ElasticAdmin(client).setup()
    del client.policies[POLICY]["policy"]["phases"]["delete"]
    (change,) = [one for one in ElasticAdmin(client).setup(dry_run=True) if one.done is not Done.SAME]
    assert (change.kind, change.done) == ("policy", Done.CHANGED)
    assert "delete" not in client.policies[POLICY]["policy"]["phases"], "a dry run puts nothing"
    ElasticAdmin(client).setup()
    assert "delete" in client.policies[POLICY]["policy"]["phases"]


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_server_without_lifecycle_management_gets_no_policy(status):
    kinds = {400: elasticsearch.BadRequestError, 404: elasticsearch.NotFoundError}
    client = FullCluster(kinds.get(status, elasticsearch.ApiError)("no", answer(status), {}))
    ElasticAdmin(client).setup()
    assert not client.policies
    assert LIFECYCLE not in client.templates["logs-exchange"]["composed_of"]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (elasticsearch.AuthorizationException("no", answer(403), {}), PermanentError),
        (elasticsearch.ApiError("busy", answer(429), {}), TemporaryError),
        (elastic_transport.ConnectionTimeout("late"), TemporaryError),
    ],
)
def test_not_being_told_is_not_taken_for_no_lifecycle_management(error, ours):
    client = FullCluster(error)
    with pytest.raises(ours):
        ElasticAdmin(client).setup()
    assert "template logs-exchange" not in client.order


def test_a_stream_that_a_policy_has_in_hand_is_left_alone():
    indices = FakeIndices(time.time_ns)
    stream = "logs-exchange.gateway-dev"
    for _ in range(2):
        indices.add(stream, 5)
        indices.roll(stream, Limits(max_docs=1), dry_run=False)
    theirs = replace(indices.streams()[0], lifecycle="theirs")
    indices.streams = lambda: (theirs,)
    assert not due([theirs], 0, indices.kept[stream][-1].created_at)
    told = rotated(indices, Limits(max_docs=1, keep_s=0), dry_run=False)
    assert told == {"deleted": [], "rolled": [], "left": [{"stream": stream, "lifecycle": "theirs"}], "failed": []}
