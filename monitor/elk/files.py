"""The files of elk/ as they are generated: by name, with their text."""

from __future__ import annotations

import json
from typing import Any

from monitor.elk import kibana, logstash, nodes, templates
from monitor.elk.pipelines import PIPELINES


def _json(body: Any) -> str:
    return json.dumps(body, indent=2, sort_keys=True) + "\n"


def files() -> dict[str, str]:
    """Return every generated file by its name below elk/."""
    return {
        **{f"pipelines/{name}.json": _json(make()) for name, make in PIPELINES.items()},
        f"component-templates/{templates.SETTINGS}.json": _json(templates.settings()),
        f"component-templates/{templates.ECS_MAPPINGS}.json": _json(templates.ecs_mappings()),
        f"component-templates/{templates.OWN_MAPPINGS}.json": _json(templates.own_mappings()),
        f"component-templates/{templates.LIFECYCLE}.json": _json(templates.lifecycle_settings()),
        f"index-templates/{templates.TEMPLATE}.json": _json(templates.index_template(lifecycle=True)),
        f"lifecycle/{templates.POLICY}.json": _json(templates.policy()),
        f"lifecycle/{templates.POLICY}-6.json": _json(templates.policy(modern=False)),
        "logstash/pipeline.conf": logstash.pipeline(),
        "logstash/dead-letters.conf": logstash.dead_letters(),
        "logstash/logstash.yml": logstash.settings(),
        "logstash/pipelines.yml": logstash.pipelines(),
        "kibana/tapewatch.ndjson": kibana.ndjson(),
        **{f"nodes/{role}.yml": nodes.yml(role) for role in nodes.ROLES},
    }
