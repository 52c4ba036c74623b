"""Kafka: found, or fetched once as Maven artefacts; brokers that are their own controllers, without ZooKeeper."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from pathlib import Path
from typing import Final

from control.servers.java import java
from control.servers.maven import check_maven, fetch
from control.servers.store import SOURCE, Tell, cache, elapsed, publish, tell, work_place
from kernel.errors import InputError, PermanentError

VERSION: Final = "4.4.0"
POM: Final = "kafka.xml"
SHA256: Final = "76d3314f873571677ff98620ab9a431e508e3687f921a3df4f70d692a970475e"
"""Of the broker's own library."""
_FETCHED_BYTES: Final = 60_000_000
_KEPT_BYTES: Final = 45_000_000
_OLDEST: Final = (4, 0)
"""From here on there is no ZooKeeper, and the settings are the ones we write."""


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
    java("Kafka")
    check_maven(f"Kafka {VERSION}", "name an unpacked Kafka with TAPEWATCH_KAFKA_HOME")
    target = _target()
    with work_place(f"kafka-{VERSION}", _FETCHED_BYTES + _KEPT_BYTES, say) as work:
        if target.is_dir():
            return target
        say(f"fetching Kafka {VERSION}, once: {_FETCHED_BYTES / 1e6:.0f} MB, of which {_KEPT_BYTES / 1e6:.0f} are kept")
        began = time.monotonic()
        out = fetch(f"Kafka {VERSION}", POM, work, _FETCHED_BYTES)
        jar = out / "libs" / f"kafka_2.13-{VERSION}.jar"
        if not jar.is_file() or hashlib.sha256(jar.read_bytes()).hexdigest() != SHA256:
            raise PermanentError(f"what was fetched as Kafka {VERSION} is something else: {jar.name} differs")
        publish(out, target)
    say(f"Kafka {VERSION} is in {target} after {elapsed(began)}")
    return target
