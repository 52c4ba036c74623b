"""Kafka: found, or fetched once as Maven artefacts; brokers that are their own controllers, without ZooKeeper."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from control.servers.store import SOURCE, Tell, cache, elapsed, publish, run, size_of, tell, work_place
from kernel.errors import InputError, PermanentError

VERSION: Final = "4.4.0"
POM: Final = "kafka.xml"
SHA256: Final = "76d3314f873571677ff98620ab9a431e508e3687f921a3df4f70d692a970475e"
"""Of the broker's own library."""
_FETCHED_BYTES: Final = 60_000_000
_KEPT_BYTES: Final = 45_000_000
_OLDEST: Final = (4, 0)
"""From here on there is no ZooKeeper, and the settings are the ones we write."""
_OLDEST_JAVA: Final = 17


def _target() -> Path:
    """Directory below the cache; another recipe has another name."""
    key = hashlib.sha256((SOURCE / POM).read_bytes() + SHA256.encode()).hexdigest()[:12]
    return cache() / f"kafka-{VERSION}-{key}"


def version_of(home: Path) -> str | None:
    """Return the version of the broker in a directory, or None when there is none."""
    for jar in (home / "libs").glob("kafka_2.13-*.jar"):
        found = re.fullmatch(r"kafka_2\.13-(\d+\.\d+\.\d+)\.jar", jar.name)
        if found is not None:
            return found[1]
    return None


def _fits(home: Path) -> bool:
    parts = (version_of(home) or "0.0").split(".")
    return (int(parts[0]), int(parts[1])) >= _OLDEST


def find(named: str = "") -> Path | None:
    """Return the server's directory, or None: the one `named` (setting kafka_home), on PATH, or in the cache.

    Raises:
        InputError: the one named is no Kafka, or too old.
    """
    if named:
        home = Path(named).expanduser()
        if not _fits(home):
            raise InputError(
                f"setting kafka_home (TAPEWATCH_KAFKA_HOME): {named}",
                "holds no Kafka 4 or newer" + (f" but {found}" if (found := version_of(home)) else ""),
                right="leave it out to have one fetched",
            )
        return home
    program = shutil.which("kafka-server-start.sh") or shutil.which("kafka-server-start")
    if program is not None:
        home = Path(program).resolve().parent.parent
        if _fits(home):
            return home
    return _target() if _target().is_dir() else None


def find_or_fetch(named: str = "", say: Tell | None = None) -> Path:
    """Return the server's directory, fetching it first when there is none: ten seconds.

    Raises:
        InputError: the one named is no Kafka.
        PermanentError: it cannot be fetched; says what to install, or Maven's last words.
    """
    found = find(named)
    if found is not None:
        return found
    say = say or tell
    java()
    if shutil.which("mvn") is None:
        raise PermanentError(
            f"there is no program mvn, which fetches Kafka {VERSION}: install Maven (Debian: maven), or name an "
            "unpacked Kafka with TAPEWATCH_KAFKA_HOME"
        )
    target = _target()
    with work_place(f"kafka-{VERSION}", _FETCHED_BYTES + _KEPT_BYTES, say) as work:
        if target.is_dir():
            return target
        say(f"fetching Kafka {VERSION}, once: {_FETCHED_BYTES / 1e6:.0f} MB, of which {_KEPT_BYTES / 1e6:.0f} are kept")
        began = time.monotonic()
        shutil.copy(SOURCE / POM, work / "pom.xml")
        repository, out = work / "maven", work / "out"
        argv = ["mvn", "-B", "-q", "-C", "-f", "pom.xml", f"-Dmaven.repo.local={repository}", f"-Dout={out}"]
        run(
            f"fetching Kafka {VERSION}", [*argv, "generate-resources"], cwd=work, log=work / "maven.log",
            progress=lambda: f"{size_of(repository) / 1e6:.0f} of {_FETCHED_BYTES / 1e6:.0f} MB",
        )  # fmt: skip
        jar = out / "libs" / f"kafka_2.13-{VERSION}.jar"
        if not jar.is_file() or hashlib.sha256(jar.read_bytes()).hexdigest() != SHA256:
            raise PermanentError(f"what was fetched as Kafka {VERSION} is something else: {jar.name} differs")
        publish(out, target)
    say(f"Kafka {VERSION} is in {target} after {elapsed(began)}")
    return target


def java() -> str:
    """Return the program that runs it: below `JAVA_HOME`, else the one on PATH.

    Raises:
        PermanentError: there is none, or it is too old.
    """
    get = (
        f"install Java {_OLDEST_JAVA} or newer (Debian: openjdk-17-jre-headless), or name its directory with JAVA_HOME"
    )
    named = os.environ.get("JAVA_HOME")
    program = str(Path(named) / "bin" / "java") if named else shutil.which("java")
    if program is None or not os.access(program, os.X_OK):
        raise PermanentError(f"there is no program {program or 'java'}, which runs Kafka: {get}")
    said = subprocess.run([program, "-version"], check=False, capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise PermanentError(f"{program} is Java {version[1] if version else 'of no known version'}: {get}")
    return program
