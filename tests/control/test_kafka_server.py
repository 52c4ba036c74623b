"""Kafka is found or fetched once; its brokers are ready when they say so, die one by one, and leave nothing behind."""

import hashlib
import threading

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from control.servers import kafka as kafka_server
from control.servers import store
from control.servers.kafka_cluster import Cluster
from kernel.errors import InputError, PermanentError

JAVA = "#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n"
MVN = """#!/bin/sh
echo run >> {count}
for word in "$@"; do case $word in -Dout=*) out=${{word#-Dout=}};; esac; done
{body}
"""
TREE = f'mkdir -p "$out/libs"; printf jar > "$out/libs/kafka_2.13-{kafka_server.VERSION}.jar"'


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine with a Java, an empty cache, and a recipe whose library holds the word jar."""
    program(tmp_path / "bin", "java", JAVA.format(version="17.0.15"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(kafka_server, "SHA256", hashlib.sha256(b"jar").hexdigest())
    return tmp_path


def maven(place, body=TREE):
    program(place / "bin", "mvn", MVN.format(count=place / "count", body=body))


def fetched():
    return kafka_server.find_or_fetch(say=lambda _: None)


def test_two_at_once_fetch_once_and_find_it_afterwards(place):
    maven(place, "sleep 0.3\n" + TREE)
    found = []
    both = [threading.Thread(target=lambda: found.append(fetched())) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found == [fetched()] * 2 == [kafka_server.find()] * 2
    assert (place / "count").read_text() == "run\n"
    assert kafka_server.version_of(found[0]) == kafka_server.VERSION


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'no such artefact'; exit 1", "no such artefact"), (TREE.replace("jar >", "other >"), "something else"),
        ("true", "something else"),
    ],
)  # fmt: skip
def test_what_fails_is_told_and_leaves_nothing_that_could_be_found(place, body, why):
    maven(place, body)
    with pytest.raises(PermanentError, match=why):
        fetched()
    assert kafka_server.find() is None
    assert not [path for path in store.cache().rglob("*") if path.suffix in {".part", ".work"}]


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392", "nonsense"])
def test_a_java_that_is_too_old_is_named(place, version):
    program(place / "bin", "java", JAVA.format(version=version))
    with pytest.raises(PermanentError, match="install Java 17 or newer"):
        fetched()


def test_one_that_is_named_or_on_the_path_comes_first_unless_it_is_too_old(place):
    home = place / "mine"
    (home / "libs").mkdir(parents=True)
    with pytest.raises(InputError, match="kafka_home"):
        kafka_server.find(str(home))
    (home / "libs" / "kafka_2.13-3.9.1.jar").touch()
    with pytest.raises(InputError, match=r"but 3\.9\.1"):
        kafka_server.find(str(home))
    (home / "libs" / "kafka_2.13-3.9.1.jar").rename(home / "libs" / "kafka_2.13-4.1.0.jar")
    assert kafka_server.find(str(home)) == home
    (place / "bin" / "kafka-server-start.sh").symlink_to(program(home / "bin", "kafka-server-start.sh", "#!/bin/sh\n"))
    assert kafka_server.find() == home


@pytest.mark.kafka
def test_a_killed_broker_is_back_on_its_data_and_counted_when_ready(kafka):
    before = kafka.pids
    kafka.kill(2)
    assert not psutil.pid_exists(before[2])
    assert set(kafka.pids) == {1, 3}
    kafka.start_one(2)
    assert set(AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=60).brokers) == {1, 2, 3}
    assert kafka.pids[2] != before[2]
    assert 0 < kafka.ready_s < 60
    assert kafka.memory_bytes() > 3 * 50_000_000
    # What it listens on is seen by this machine alone.
    for pid in kafka.pids.values():
        told = [one for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in told} <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.kafka
def test_a_broker_on_the_directory_of_another_one_ends_and_says_why(kafka_home, tmp_path):
    with Cluster(kafka_home, tmp_path) as first:
        said = first.directory / "broker-1" / "meta.properties"
    assert not first.pids
    said.write_text(said.read_text().replace("node.id=1", "node.id=7"))
    again = Cluster(kafka_home, tmp_path)
    with pytest.raises(PermanentError, match=r"broker 1 ended with exit code 1: .*node id 7"), again:
        pass
    assert not again.pids
