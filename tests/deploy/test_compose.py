"""The compose file says what the estate does: the catalogue's services, ports, versions, and settings that matter."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from control.servers import kafka, kafka_cluster, postgres, zipkin
from control.servers.catalogue import BY_NAME, SERVICES, port_names
from control.settings import Settings
from exchange.adapters.kafka_topics import KafkaPlace

HERE = Path(__file__).parents[2] / "deploy/compose"
EVERY = pytest.mark.parametrize("replica", [one for service in SERVICES for one in service.ids])
INSIDE = {"controller", "distribution", "epmd"}
"""Ports by which servers of one kind speak to each other: in a network of containers nobody else needs them."""


@functools.cache
def told():
    return yaml.safe_load((HERE / "compose.yaml").read_text())


def service(replica):
    return told()["services"][replica]


def fixed_ports():
    first = Settings.model_fields["port_servers"].default
    return dict(zip(port_names(), itertools.count(first)))


def test_it_names_every_server_of_the_estate_and_no_other():
    assert set(told()["services"]) == {one for each in SERVICES for one in each.ids}
    lasting = {one for each in SERVICES if each.name in {"kafka", "postgres", "rabbitmq"} for one in each.ids}
    assert set(told()["volumes"]) == lasting, "what must not be lost has a volume of its own"
    for one in lasting:
        assert any(mount.startswith(f"{one}:") for mount in service(one)["volumes"]), one


@EVERY
def test_its_image_is_the_catalogues_and_the_version_is_the_estates(replica):
    kind = BY_NAME[replica.rsplit("-", 1)[0]]
    assert service(replica)["image"] == kind.image
    version = kind.image.split(":")[1].removesuffix("-management")
    assert version != "latest"
    known = {"kafka": kafka.VERSION, "zipkin": zipkin.VERSION}.get(kind.name)
    assert known is None or version == known
    if kind.name == "edge":
        assert f"HAProxy {version}" in (HERE.parents[1] / "docs/edge.md").read_text()


@EVERY
def test_its_ports_are_the_estates_fixed_ones_on_loopback(replica):
    kind = BY_NAME[replica.rsplit("-", 1)[0]]
    if kind.name == "edge":
        assert service(replica)["network_mode"] == "host"
        assert "ports" not in service(replica)
        text = (HERE.parent / "haproxy/haproxy.cfg").read_text()
        assert len(re.findall(r"^ +bind 127\.0\.0\.1:\d+", text, re.MULTILINE)) == len(kind.ports) + 1, "and layer 4"
        return
    published = [one.rsplit(":", 1)[0] for one in service(replica)["ports"]]
    wanted = [f"127.0.0.1:{fixed_ports()[f'{replica}/{port}']}" for port in kind.ports if port not in INSIDE]
    assert published == wanted


def test_kafka_loses_a_broker_and_no_record():
    brokers = BY_NAME["kafka"].ids
    environments = [service(one)["environment"] for one in brokers]
    for number, (broker, environment) in enumerate(zip(brokers, environments, strict=True), 1):
        assert environment["KAFKA_NODE_ID"] == str(number)
        outside = fixed_ports()[f"{broker}/broker"]
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"INSIDE://{broker}:9092,OUTSIDE://127.0.0.1:{outside}"
    place = KafkaPlace(bootstrap="x")
    shared = environments[0]
    assert shared["KAFKA_DEFAULT_REPLICATION_FACTOR"] == str(place.copies) == str(kafka_cluster.REPLICATED)
    assert shared["KAFKA_MIN_INSYNC_REPLICAS"] == str(place.needed)
    assert shared["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == str(place.needed)
    assert shared["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"
    voters = shared["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    assert voters == [f"{number}@{broker}:9093" for number, broker in enumerate(brokers, 1)]
    own = {"KAFKA_NODE_ID", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"}
    alike = [{name: value for name, value in one.items() if name not in own} for one in environments]
    assert alike == [alike[0]] * len(brokers)


def test_commits_wait_for_the_stand_by_and_the_first_start_waits_for_nobody():
    primary, stand_by = BY_NAME["postgres"].ids
    command = service(primary)["command"]
    given = dict(part.split("=", 1) for part in command if "=" in part)
    assert given["synchronous_commit"] == "on"
    assert given["wal_level"] == postgres._SMALL["wal_level"]
    assert "synchronous_standby_names" not in given, "the databases would never be made"
    script = (HERE / "primary.sh").read_text()
    assert f'FIRST 1 (\\"{stand_by}\\")' in script
    assert script.index("CREATE DATABASE") < script.index("ALTER SYSTEM"), "before anything waits"
    assert f"host={primary} user=tapewatch application_name={stand_by}" in (HERE / "stand-by.sh").read_text()
    assert re.search(r"for database in (.*); do", script).group(1).split() == ["ledger", "store", "saga"]


@pytest.mark.parametrize("name", ["primary.sh", "stand-by.sh"])
def test_the_scripts_are_what_a_shell_can_read(name):
    done = subprocess.run(["bash", "-n", HERE / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_rabbitmq_tells_its_metrics_and_is_found_by_the_name_of_its_data():
    assert "rabbitmq_prometheus" in (HERE / "enabled_plugins").read_text()
    assert service("rabbitmq-1")["hostname"] == "rabbitmq-1", "data lies under the node's name"


def test_no_password_stands_in_it_and_none_is_made_up():
    text = (HERE / "compose.yaml").read_text()
    for line in text.splitlines():
        if re.search(r"PASS", line) and not line.lstrip().startswith("#"):
            assert re.search(r"\$\{\w+:\?", line), line
