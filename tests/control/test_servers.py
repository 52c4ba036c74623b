"""How servers are had: found first, fetched once, whole or not at all, with sentences for what is missing."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from control.servers import elastic, filebeat, store
from kernel.errors import InputError, PermanentError

JAVA = "#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n"
MVN = """#!/bin/sh
echo run >> {count}
for word in "$@"; do case $word in -Dout=*) out=${{word#-Dout=}};; -Dmaven.repo.local=*) repo=${{word#*=}};; esac; done
{body}
"""
TREE = """mkdir -p "$out/lib" "$out/bin" "$out/config" "$repo/big"
echo jar > "$out/lib/elasticsearch-6.8.23.jar"; echo x > "$out/bin/elasticsearch-env"; echo zip > "$repo/big/a.zip\""""


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine with a Java and the ordinary programs, and an empty cache."""
    program(tmp_path / "bin", "java", JAVA.format(version="17.0.15"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("ES_JAVA_HOME", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def maven(place, body=TREE):
    return program(place / "bin", "mvn", MVN.format(count=place / "count", body=body))


def without(monkeypatch, place, *names):
    """A PATH with java and coreutils, but without `names`, whatever this machine has."""
    for name in ("setpriv", "nice", "sh", "env", "mkdir", "echo"):
        target = next(p for p in (f"/usr/bin/{name}", f"/bin/{name}") if Path(p).exists())
        if not (place / "bin" / name).exists():
            (place / "bin" / name).symlink_to(target)
    monkeypatch.setenv("PATH", str(place / "bin"))
    for name in names:
        (place / "bin" / name).unlink(missing_ok=True)


def test_a_server_is_fetched_once_and_the_archive_does_not_stay(place):
    maven(place)
    told = []
    home = elastic.find_or_fetch(elastic.LIFECYCLE, say=told.append)
    assert elastic.version_of(home) == "6.8.23"
    assert elastic.find_or_fetch(elastic.LIFECYCLE, say=told.append) == home
    assert (place / "count").read_text() == "run\n"
    assert "149 MB" in told[0]
    assert not [path for path in store.cache().rglob("*") if path.name in {"a.zip", "maven"} or path.suffix == ".part"]
    assert stat.S_IMODE((home / "bin" / "elasticsearch").stat().st_mode) & 0o111 == 0o111


def test_two_at_once_fetch_once(place):
    maven(place, "sleep 0.3\n" + TREE)
    found = []
    both = [
        threading.Thread(target=lambda: found.append(elastic.find_or_fetch(elastic.LIFECYCLE, say=lambda _: None)))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(set(found)) == 1
    assert len(found) == 2
    assert (place / "count").read_text() == "run\n"


@pytest.mark.parametrize(
    "body", ["echo 'no such artefact'; exit 1", TREE.replace("6.8.23", "9.9.9"), TREE + "\nexit 3"]
)
def test_what_fails_leaves_nothing_that_could_be_found(place, body):
    maven(place, body)
    with pytest.raises(PermanentError):
        elastic.find_or_fetch(elastic.LIFECYCLE, say=lambda _: None)
    assert elastic.find(elastic.LIFECYCLE) is None
    maven(place)
    assert elastic.find_or_fetch(elastic.LIFECYCLE, say=lambda _: None).is_dir()


def test_mavens_last_words_are_told(place):
    maven(place, "echo 'no such artefact'; exit 1")
    with pytest.raises(PermanentError, match="no such artefact"):
        elastic.find_or_fetch(elastic.LIFECYCLE, say=lambda _: None)


def test_a_library_that_is_not_elastics_own_is_refused(place):
    maven(place, TREE.replace("6.8.23", "8.19.13"))
    with pytest.raises(PermanentError, match="something else"):
        elastic.find_or_fetch(elastic.CURRENT, say=lambda _: None)


def test_what_is_missing_is_named(place, monkeypatch):
    without(monkeypatch, place)
    with pytest.raises(PermanentError, match="no program mvn"):
        elastic.find_or_fetch(elastic.LIFECYCLE)
    with pytest.raises(PermanentError, match="no program go"):
        filebeat.find_or_build()
    without(monkeypatch, place, "java")
    with pytest.raises(PermanentError, match="no program java"):
        elastic.find_or_fetch(elastic.LIFECYCLE)


@pytest.mark.parametrize(
    ("version", "release", "good"),
    [
        ("17.0.15", elastic.CURRENT, True), ("25.0.3", elastic.CURRENT, True), ("11.0.2", elastic.CURRENT, False),
        ("1.8.0_392", elastic.LIFECYCLE, True), ("23", elastic.LIFECYCLE, True), ("24.0.1", elastic.LIFECYCLE, False),
        ("nonsense", elastic.CURRENT, False),
    ],
)  # fmt: skip
def test_java_is_new_enough_and_not_too_new(place, version, release, good):
    program(place / "bin", "java", JAVA.format(version=version))
    if good:
        assert elastic.java_home(release) == place
    else:
        with pytest.raises(PermanentError, match=r"install Java (17 or newer|8 to 23) \(Debian"):
            elastic.java_home(release)


def test_one_that_is_named_is_taken_or_refused(place):
    home = place / "mine"
    (home / "lib").mkdir(parents=True)
    with pytest.raises(InputError, match="elasticsearch_home"):
        elastic.find(named=str(home))
    (home / "lib" / "elasticsearch-9.4.3.jar").touch()
    with pytest.raises(InputError, match=r"but 9\.4\.3"):
        elastic.find(named=str(home))
    (home / "lib" / "elasticsearch-8.12.0.jar").touch()
    (home / "lib" / "elasticsearch-9.4.3.jar").unlink()
    assert elastic.find(named=str(home)) == home
    with pytest.raises(InputError, match="setting filebeat"):
        filebeat.find(str(home / "lib" / "elasticsearch-8.12.0.jar"))


def test_one_on_the_path_comes_before_the_cache(place):
    (place / "lib").mkdir()
    (place / "lib" / "elasticsearch-8.12.0.jar").touch()
    program(place / "bin", "elasticsearch", "#!/bin/sh\n")
    program(place / "bin", "filebeat", "#!/bin/sh\n")
    assert elastic.find() == place
    assert elastic.find(elastic.LIFECYCLE) is None, "another major version is another server"
    assert filebeat.find() == place / "bin" / "filebeat"


def test_too_small_a_disk_is_told_before_anything_is_fetched(place, monkeypatch):
    maven(place)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(PermanentError, match="no room"):
        elastic.find_or_fetch(elastic.LIFECYCLE, say=lambda _: None)
    assert not (place / "count").exists()


def test_sources_of_filebeat_that_are_not_the_known_ones_are_not_built(place):
    go = """#!/bin/sh
case $1 in env) echo go1.26.8;; mod) echo '{"Dir": "/nowhere", "Sum": "h1:other"}';; *) echo built >> %s;; esac
"""
    program(place / "bin", "go", go % (place / "built"))
    with pytest.raises(PermanentError, match="not those that were known"):
        filebeat.find_or_build(say=lambda _: None)
    assert not (place / "built").exists()


def test_a_recipe_that_changes_has_another_name(place, monkeypatch):
    before = elastic.CURRENT.name
    (place / "elasticsearch-8.xml").write_text("<project/>")
    monkeypatch.setattr(elastic, "SOURCE", place)
    assert elastic.CURRENT.name != before


def test_no_recipe_names_a_host():
    for path in store.SOURCE.iterdir():
        urls = [word for word in path.read_text().split('"') if "://" in word]
        assert set(urls) <= {"http://maven.apache.org/POM/4.0.0"}, path.name
