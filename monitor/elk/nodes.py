"""elasticsearch.yml for each role of a full cluster; pure. Each is started by a test on the node that can be had."""

from __future__ import annotations

from typing import Any, Final

ROLES: Final = {
    "master": (("master",), "Dedicated masters: three, small, never loaded; they keep the cluster's state."),
    "hot": (("data_hot", "data_content", "ingest"), "Writes and runs the ingest pipelines: fast disks, most cores."),
    "warm": (("data_warm",), "Rolled indices that are still asked for: larger disks."),
    "cold": (("data_cold",), "Old indices, seldom asked for: the largest and cheapest disks."),
    "coordinating": ((), "Takes searches and bulks, holds no data: clients speak to these alone."),
}
"""Node roles by name, and what each is for."""


def node(role: str) -> dict[str, Any]:
    """Return the settings of a node of a role by their dotted names."""
    roles, _ = ROLES[role]
    settings: dict[str, Any] = {
        "cluster.name": "exchange-logs", "node.name": "${HOSTNAME}", "node.roles": list(roles),
        "network.host": "${NODE_ADDRESS}", "discovery.seed_hosts": "${MASTER_ADDRESSES}",
        "path.data": "/var/lib/elasticsearch", "path.logs": "/var/log/elasticsearch",
        "bootstrap.memory_lock": True, "action.destructive_requires_name": True,
        "xpack.security.enabled": True,
        "xpack.security.transport.ssl.enabled": True,
        "xpack.security.transport.ssl.verification_mode": "certificate",
        "xpack.security.transport.ssl.keystore.path": "certificates/node.p12",
        "xpack.security.transport.ssl.truststore.path": "certificates/node.p12",
        "xpack.security.http.ssl.enabled": True,
        "xpack.security.http.ssl.keystore.path": "certificates/http.p12",
        "cluster.routing.allocation.disk.watermark.low": "85%",
        "cluster.routing.allocation.disk.watermark.high": "90%",
        "cluster.routing.allocation.disk.watermark.flood_stage": "95%",
        "cluster.routing.allocation.awareness.attributes": "zone",
        "node.attr.zone": "${ZONE}",
    }  # fmt: skip
    if role == "master":
        settings["cluster.initial_master_nodes"] = "${MASTER_NAMES}"
    if "ingest" in roles:
        settings["indices.memory.index_buffer_size"] = "20%"
    return settings


def yml(role: str) -> str:
    """Return the file of a role."""
    lines = [f"# Generated from monitor/elk. {ROLES[role][1]}"]
    for name, value in node(role).items():
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, list):
            text = "[" + ", ".join(value) + "]"
        else:
            text = f'"{value}"' if "$" in value or "%" in value else value
        lines.append(f"{name}: {text}")
    return "\n".join(lines) + "\n"
