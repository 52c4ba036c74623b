"""Templates, pipelines and the age of indices on a real Elasticsearch: put, compared, rolled, deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import elasticsearch
from elasticsearch import Elasticsearch

from kernel.errors import PermanentError
from kernel.time import MILLISECOND, Instant
from monitor.adapters.elastic_client import telling
from monitor.elk.pipelines import PIPELINES
from monitor.elk.retention import OURS, Index, Limits, Rolled, Stream
from monitor.elk.schema import PATTERN
from monitor.elk.templates import (
    ECS_MAPPINGS,
    LIFECYCLE,
    OWN_MAPPINGS,
    POLICY,
    SETTINGS,
    TEMPLATE,
    ecs_mappings,
    index_template,
    lifecycle_settings,
    own_mappings,
    policy,
    settings,
)

OLDEST: Final = (8, 8)
"""The oldest Elasticsearch our pipelines run on: metadata() in scripts, dots expanded everywhere."""


_NOT_ALLOWED: Final = 405


class Done(StrEnum):
    """What became of one part of the setup."""

    SAME = "same"
    CREATED = "created"
    CHANGED = "changed"
    ROLLED = "rolled"


@dataclass(frozen=True)
class Change:
    """One part of the setup, and what was, or would be, done to it."""

    kind: str
    name: str
    done: Done


class ElasticAdmin:
    """Sets an Elasticsearch up for our logs, and is the port `LogIndices`."""

    def __init__(self, client: Elasticsearch, *, replicas: int | None = None, shards: int | None = None) -> None:
        """Work through a client of `elastic_client.connect`.

        `replicas` and `shards` are of new indices; None leaves what is there, and is 1 where nothing is.
        """
        self._client = client
        self._replicas, self._shards = replicas, shards

    # --- setup ------------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """Return the server's version.

        Raises:
            TapewatchError: it cannot be reached or is too old.
        """
        with telling("asking for the version"):
            number = str(self._client.info()["version"]["number"])
        if tuple(map(int, number.split(".")[:2])) < OLDEST:
            raise PermanentError(f"Elasticsearch is {number}; {'.'.join(map(str, OLDEST))} or newer is needed")
        return number

    def has_lifecycle(self) -> bool:
        """Tell whether the server has index lifecycle management."""
        try:
            with telling("asking for lifecycle management"):
                self._client.ilm.get_status()
        except PermanentError as error:
            if isinstance(error.__cause__, elasticsearch.BadRequestError | elasticsearch.NotFoundError):
                return False  # no such request there
            if isinstance(error.__cause__, elasticsearch.ApiError) and error.__cause__.meta.status == _NOT_ALLOWED:
                return False
            raise
        return True

    def setup(self, *, dry_run: bool = False) -> list[Change]:
        """Put what is missing or different, and say what that was; a second call changes nothing.

        Pipelines that are missing come first: a shipper may send as soon as a template is there, and Filebeat drops for
        good what finds no pipeline. Pipelines that changed come last: the new model's fields must be in the mapping of
        the written indices before records bear them.

        Raises:
            TapewatchError: the server cannot be reached, forbids or refuses it.
        """
        managed = self.has_lifecycle()
        changes: list[Change] = []
        late: list[tuple[str, Mapping[str, Any]]] = []
        for name, make in PIPELINES.items():
            there = self._pipeline(name)
            body = make()
            if there is None:
                changes.append(Change("pipeline", name, Done.CREATED))
                if not dry_run:
                    self._put_pipeline(name, body)
            elif _plain(there) != _plain(body):
                late.append((name, body))
            else:
                changes.append(Change("pipeline", name, Done.SAME))
        if managed:
            changes.append(self._setup_policy(dry_run=dry_run))
        changes += self._setup_templates(dry_run=dry_run, managed=managed)
        changes += self._setup_streams(dry_run=dry_run)
        for name, changed in late:
            changes.append(Change("pipeline", name, Done.CHANGED))
            if not dry_run:
                self._put_pipeline(name, changed)
        return changes

    def _pipeline(self, name: str) -> Mapping[str, Any] | None:
        try:
            with telling(f"reading the pipeline {name}"):
                return dict(self._client.ingest.get_pipeline(id=name).body[name])
        except PermanentError as error:
            if isinstance(error.__cause__, elasticsearch.NotFoundError):
                return None
            raise

    def _put_pipeline(self, name: str, body: Mapping[str, Any]) -> None:
        with telling(f"putting the pipeline {name}"):
            self._client.ingest.put_pipeline(id=name, **body)

    def _setup_policy(self, *, dry_run: bool) -> Change:
        wanted = policy()["policy"]
        with telling("reading the lifecycle policies"):
            there = dict(self._client.ilm.get_lifecycle().body).get(POLICY)
        if there is not None and _plain(there["policy"]["phases"]) == _plain(wanted["phases"]):
            return Change("policy", POLICY, Done.SAME)
        if not dry_run:
            with telling(f"putting the lifecycle policy {POLICY}"):
                self._client.ilm.put_lifecycle(name=POLICY, policy=wanted)
        return Change("policy", POLICY, Done.CREATED if there is None else Done.CHANGED)

    def _setup_templates(self, *, dry_run: bool, managed: bool) -> list[Change]:
        changes = []
        with telling("reading the templates"):
            found = self._client.cluster.get_component_template().body["component_templates"]
            there = {one["name"]: one["component_template"] for one in found}
            templates = self._client.indices.get_index_template().body["index_templates"]
        parts = {
            SETTINGS: self._settings(there.get(SETTINGS)), ECS_MAPPINGS: ecs_mappings(), OWN_MAPPINGS: own_mappings(),
        }  # fmt: skip
        if managed:
            parts[LIFECYCLE] = lifecycle_settings()
        for name, body in parts.items():
            done = _compared(there.get(name), body)
            changes.append(Change("component template", name, done))
            if done is not Done.SAME and not dry_run:
                with telling(f"putting the component template {name}"):
                    self._client.cluster.put_component_template(
                        name=name, template=body["template"], meta=body["_meta"]
                    )
        body = index_template(lifecycle=managed)
        old = next((one["index_template"] for one in templates if one["name"] == TEMPLATE), None)
        done = _compared(old, body)
        changes.append(Change("index template", TEMPLATE, done))
        if done is not Done.SAME and not dry_run:
            with telling(f"putting the index template {TEMPLATE}"):
                self._client.indices.put_index_template(
                    name=TEMPLATE, index_patterns=body["index_patterns"], priority=body["priority"],
                    data_stream=body["data_stream"], composed_of=body["composed_of"], meta=body["_meta"],
                )  # fmt: skip
        return changes

    def _settings(self, there: Mapping[str, Any] | None) -> dict[str, Any]:
        kept = {} if there is None else there["template"].get("settings", {}).get("index", {})
        shards = self._shards if self._shards is not None else int(kept.get("number_of_shards", 1))
        replicas = self._replicas if self._replicas is not None else int(kept.get("number_of_replicas", 1))
        return settings(shards=shards, replicas=replicas)

    def _setup_streams(self, *, dry_run: bool) -> list[Change]:
        """Bring the written index of each stream up to the model; where a type changed, roll it instead."""
        wanted = {
            "properties": ecs_mappings()["template"]["mappings"]["properties"]
            | own_mappings()["template"]["mappings"]["properties"]
        }
        changes = []
        for stream in self.streams():
            with telling(f"reading the mapping of {stream.name}"):
                newest = stream.indices[-1].name
                there = self._client.indices.get_mapping(index=newest).body[newest]["mappings"]
            if _covers(there.get("properties", {}), wanted["properties"]):
                continue
            done = Done.CHANGED
            if not dry_run:
                done = self._bring_up(stream.name, wanted["properties"])
            changes.append(Change("data stream", stream.name, done))
        return changes

    def _bring_up(self, stream: str, wanted: Mapping[str, Any]) -> Done:
        # The stream's own time is part of what makes it a stream and is not put again: the server refuses that.
        fields = {name: body for name, body in wanted.items() if name != "@timestamp"}
        try:
            with telling(f"putting the mapping of {stream}"):
                self._client.indices.put_mapping(index=stream, properties=fields, write_index_only=True)
        except PermanentError as error:
            if not isinstance(error.__cause__, elasticsearch.BadRequestError):
                raise
            with telling(f"rolling {stream}"):
                self._client.indices.rollover(alias=stream)
            return Done.ROLLED
        return Done.CHANGED

    # --- retention --------------------------------------------------------------------------------------------------

    def streams(self) -> tuple[Stream, ...]:
        """See `LogIndices`; needs no data stream API, which not every distribution has."""
        with telling("listing the data streams"):
            found = self._client.indices.resolve_index(name=PATTERN, expand_wildcards="all").body["data_streams"]
            named = {one["name"]: _as_list(one["backing_indices"]) for one in found if OURS.match(one["name"])}
            if not named:
                return ()
            facts = self._client.indices.get_settings(
                index=",".join(named),
                name="index.creation_date,index.lifecycle.name,index.blocks.read_only_allow_delete",
                flat_settings=True, expand_wildcards="all",
            ).body  # fmt: skip
            stats = self._client.indices.stats(index=",".join(named), metric="docs,store", expand_wildcards="all").body
        return tuple(_stream(name, named[name], facts, stats["indices"]) for name in sorted(named))

    def roll(self, stream: str, limits: Limits, *, dry_run: bool) -> Rolled:
        """See `LogIndices`."""
        _check_ours(stream)
        conditions: dict[str, Any] = {}
        if limits.max_docs is not None:
            conditions["max_docs"] = limits.max_docs
        if limits.max_bytes is not None:
            conditions["max_size"] = f"{limits.max_bytes}b"
        if limits.max_age_s is not None:
            conditions["max_age"] = f"{limits.max_age_s}s"
        assert conditions, "without a limit every call would roll"
        with telling(f"rolling {stream}"):
            said = self._client.indices.rollover(alias=stream, conditions=conditions, dry_run=dry_run).body
        met = tuple(sorted(name.strip("[]") for name, is_met in said["conditions"].items() if is_met))
        return Rolled(stream, bool(said["rolled_over"]), said["old_index"], said["new_index"], met)

    def delete(self, index: str) -> None:
        """See `LogIndices`."""
        if not index.startswith(".ds-logs-exchange."):
            raise PermanentError(f"{index} is no backing index of ours and is not deleted")
        with telling(f"deleting {index}"):
            self._client.indices.delete(index=index, ignore_unavailable=True, expand_wildcards="none")

    # --- looking ----------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return the cluster's health: `status`, `number_of_nodes`, `unassigned_shards` and more."""
        with telling("asking for the cluster's health"):
            return dict(self._client.cluster.health().body)


def _check_ours(stream: str) -> None:
    if OURS.match(stream) is None:
        raise PermanentError(f"{stream} is no data stream of ours and is left alone")


def _stream(name: str, indices: list[str], facts: Mapping[str, Any], stats: Mapping[str, Any]) -> Stream:
    found, lifecycle = [], ""
    for index in indices:
        told = facts.get(index, {}).get("settings", {})
        totals = stats.get(index, {}).get("primaries", {})
        lifecycle = told.get("index.lifecycle.name", lifecycle)
        found.append(Index(
            index, Instant(int(told.get("index.creation_date", 0)) * MILLISECOND),
            int(totals.get("docs", {}).get("count", 0)), int(totals.get("store", {}).get("size_in_bytes", 0)),
            read_only=told.get("index.blocks.read_only_allow_delete") == "true",
        ))  # fmt: skip
    return Stream(name, tuple(found), lifecycle)


def _as_list(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _compared(there: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> Done:
    if there is None:
        return Done.CREATED
    if isinstance(there.get("data_stream"), Mapping) and "data_stream" in wanted:
        there = {**there, "data_stream": wanted["data_stream"]}  # the server fills it up with its defaults
    return Done.SAME if _plain(there) == _plain(wanted) else Done.CHANGED


def _covers(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a mapping holds all wanted properties as they are wanted."""
    for name, body in wanted.items():
        if name not in there:
            return False
        inner = body.get("properties")
        if inner is not None:
            if not _covers(there[name].get("properties", {}), inner):
                return False
        elif there[name].get("type", "object") != body["type"]:
            return False
    return True


def _plain(value: object) -> object:
    """Return a body as the server gives it back: settings' leaves are texts, and a list of one is that one."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
