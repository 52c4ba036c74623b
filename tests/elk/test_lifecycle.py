"""What needs servers of its own and time: the lifecycle policy on 6.8, and each node role's settings on 8.19."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from control.plan import free_ports
from control.servers.elastic import LIFECYCLE
from control.servers.elastic_node import ElasticStatusError, Node
from kernel.errors import PermanentError, TemporaryError
from monitor.elk import nodes
from monitor.elk.templates import policy

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.elastic, pytest.mark.long]


def until(look, seconds):
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.3)


def test_the_policy_rolls_shrinks_merges_and_deletes_with_small_limits(elastic_6_home):
    """6.8 is the server with lifecycle management that can be had: the same policy, by its names of 6.8."""
    quick = {"indices.lifecycle.poll_interval": "1s"}
    with Node(elastic_6_home, release=LIFECYCLE, heap="512m", settings=quick) as node:
        body = policy(max_age="1h", max_size="1gb", max_docs=10, warm="1s", cold="3s", delete="8s", modern=False)
        node.request("PUT", "/_ilm/policy/logs-exchange", body)
        node.request("PUT", "/_template/logs-exchange?include_type_name=false", {
            "index_patterns": ["logs-exchange-*"],
            "settings": {"number_of_shards": 2, "number_of_replicas": 0, "index.lifecycle.name": "logs-exchange",
                         "index.lifecycle.rollover_alias": "logs-exchange"},
        })  # fmt: skip
        node.request("PUT", "/logs-exchange-000001", {"aliases": {"logs-exchange": {"is_write_index": True}}})
        lines = "".join(f'{{"index":{{"_type":"_doc"}}}}\n{{"n":{n}}}\n' for n in range(12))
        assert not node.request("POST", "/logs-exchange/_bulk?refresh=true", lines)["errors"]
        phases, shrunk = set(), []

        def look():
            for name, one in node.request("GET", "/*logs-exchange-*/_ilm/explain")["indices"].items():
                if one.get("managed") and name.endswith("000001"):
                    phases.add(one.get("phase"))
                    assert one.get("step") != "ERROR", one
                    if name.startswith("shrink-"):
                        settings = node.request("GET", f"/{name}/_settings?flat_settings=true")
                        shrunk.extend(each["settings"]["index.number_of_shards"] for each in settings.values())
            names = set(node.request("GET", "/_cat/indices?format=json&h=index") and [
                row["index"] for row in node.request("GET", "/_cat/indices?format=json&h=index")
            ])  # fmt: skip
            return "logs-exchange-000002" in names and not any(name.endswith("000001") for name in names)

        assert until(look, 60), f"the first index is still there; it was in {phases}"
        assert {"warm", "cold"} <= phases | {"hot"}
        assert set(shrunk) == {"1"}, "two shards became one"


def started(home, role, extra=None):
    """Start a node with a role's file; placeholders get values, and what needs certificates is left out."""
    (transport,) = free_ports(1)
    settings = {
        name: value for name, value in nodes.node(role).items()
        if ".ssl." not in name and name not in {"path.data", "path.logs", "network.host", "xpack.security.enabled"}
    }  # fmt: skip
    named = {
        "${HOSTNAME}": role, "${NODE_ADDRESS}": "127.0.0.1", "${MASTER_ADDRESSES}": f"127.0.0.1:{transport}",
        "${MASTER_NAMES}": role, "${ZONE}": "a",
    }  # fmt: skip
    settings = {name: named.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    return Node(home, settings={**settings, "discovery.type": None, "transport.port": transport, **(extra or {})})


@pytest.mark.parametrize("role", nodes.ROLES)
def test_a_node_takes_its_roles_settings(elastic_home, role):
    """Alone, only a master becomes a cluster; the others must start, take every setting, and look for one."""
    node = started(elastic_home, role)
    try:
        if role == "master":
            node.start(60)
            (info,) = node.request("GET", "/_nodes/_local")["nodes"].values()
            assert info["roles"] == ["master"]
            return
        with pytest.raises(TemporaryError) as waiting:
            node.start(20)
        assert "unknown setting" not in str(waiting.value)
    finally:
        node.close()


def test_a_setting_that_does_not_exist_ends_the_node(elastic_home):
    """The control: so the test above would notice one."""
    with pytest.raises(PermanentError, match="unknown setting"):
        started(elastic_home, "hot", {"cluster.routing.allocation.disk.watermark.lowest": "1%"}).start(60)


def test_data_survive_a_kill(elastic_home):
    with Node(elastic_home) as node:
        node.request("PUT", "/a/_doc/1", {"n": 1})
        node.kill()
        node.start()
        assert node.request("GET", "/a/_doc/1")["_source"] == {"n": 1}
        with pytest.raises(ElasticStatusError):
            node.request("GET", "/a/_doc/2")


def test_a_node_does_not_outlive_whoever_started_it(elastic_home, tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from control.servers.elastic_node import Node\n"
        "node = Node(Path(sys.argv[1])).start(); print(*node.pids, node.directory, flush=True); time.sleep(600)"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", program, str(elastic_home)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    *pids, directory = keeper.stdout.readline().split()
    assert len(pids) == 2, "the launcher and the server"
    keeper.kill()
    keeper.communicate()
    try:
        assert until(lambda: not any(psutil.pid_exists(int(pid)) for pid in pids), 30)
    finally:
        shutil.rmtree(directory)
