"""Index templates and lifecycle policies of our data streams; pure."""

from __future__ import annotations

from typing import Any, Final

from monitor.elk.pipelines import GUARD, READ
from monitor.elk.schema import ECS, FIELDS, OWN, PATTERN, PRIORITY, properties

TEMPLATE: Final = "logs-exchange"
SETTINGS: Final = "logs-exchange-settings"
ECS_MAPPINGS: Final = "logs-exchange-ecs"
OWN_MAPPINGS: Final = "logs-exchange-own"
LIFECYCLE: Final = "logs-exchange-lifecycle"
POLICY: Final = "logs-exchange"


def settings(*, shards: int = 1, replicas: int = 1) -> dict[str, Any]:
    """Return the component template of settings."""
    return {
        "template": {
            "settings": {
                "index": {
                    "number_of_shards": shards, "number_of_replicas": replicas, "refresh_interval": "2s",
                    "codec": "best_compression", "default_pipeline": READ, "final_pipeline": GUARD,
                    "mapping": {"ignore_malformed": True, "total_fields": {"limit": 500}},
                    "query": {"default_field": ["message", "error.message"]},
                    "sort": {"field": ["@timestamp"], "order": ["desc"]},
                }
            }
        },
        "_meta": {"description": "The guard is the final pipeline, so that nobody can leave it out."},
    }  # fmt: skip


def ecs_mappings() -> dict[str, Any]:
    """Return the component template of ECS's fields: others are kept in the record and not indexed."""
    return {
        "template": {"mappings": {"dynamic": False, "date_detection": False, "properties": properties(ECS)}},
        "_meta": {"description": "ECS 9.4: the fields that are written; what else comes is kept and not indexed."},
    }


def own_mappings() -> dict[str, Any]:
    """Return the component template of our own fields: strict."""
    own = properties(field for field in FIELDS if field.own)
    for prefix in OWN:
        own[prefix] = {"dynamic": "strict", **own[prefix]}
    return {
        "template": {"mappings": {"properties": own}},
        "_meta": {"description": "exchange.* and tapewatch.*: strict; the guard moves what no model holds."},
    }


def lifecycle_settings() -> dict[str, Any]:
    """Return the component template that names the policy: for full clusters, which have lifecycle management."""
    return {
        "template": {"settings": {"index": {"lifecycle": {"name": POLICY}}}},
        "_meta": {"description": "Only where lifecycle management is there; elsewhere `tapewatch elk rotate` does it."},
    }


def index_template(*, lifecycle: bool = False) -> dict[str, Any]:
    """Return the index template of the data streams."""
    parts = [SETTINGS, ECS_MAPPINGS, OWN_MAPPINGS] + ([LIFECYCLE] if lifecycle else [])
    return {
        "index_patterns": [PATTERN], "priority": PRIORITY, "data_stream": {}, "composed_of": parts,
        "_meta": {"description": "logs-exchange.<component>-<environment>"},
    }  # fmt: skip


def policy(
    *,
    max_age: str = "1d",
    max_size: str = "50gb",
    max_docs: int | None = None,
    warm: str = "2d",
    cold: str = "7d",
    delete: str = "30d",
    modern: bool = True,
) -> dict[str, Any]:
    """Return the lifecycle policy: hot rolls by size or age, warm shrinks and merges, cold, then deletion.

    Args:
        max_age: of the index that is written, before it rolls.
        max_size: likewise; of its primary shard where `modern`, of the index otherwise.
        max_docs: likewise; None for no such limit.
        warm: age at which it is shrunk to one shard and merged into one segment.
        cold: age at which it is moved to the cold nodes.
        delete: age at which it goes.
        modern: for 8 and 9; False for 6.8, which knows neither tiers nor sizes of shards.
    """
    roll: dict[str, Any] = {"max_age": max_age, ("max_primary_shard_size" if modern else "max_size"): max_size}
    if max_docs is not None:
        roll["max_docs"] = max_docs
    cold_actions: dict[str, Any] = {"set_priority": {"priority": 0}}
    if not modern:
        cold_actions["allocate"] = {"number_of_replicas": 0}
    return {
        "policy": {
            "phases": {
                "hot": {"min_age": "0ms", "actions": {"rollover": roll, "set_priority": {"priority": 100}}},
                "warm": {
                    "min_age": warm,
                    "actions": {
                        "shrink": {"number_of_shards": 1}, "forcemerge": {"max_num_segments": 1},
                        "set_priority": {"priority": 50},
                    },
                },
                "cold": {"min_age": cold, "actions": cold_actions},
                "delete": {"min_age": delete, "actions": {"delete": {}}},
            }
        }
    }  # fmt: skip
