"""Elasticsearch: found, or fetched once as a Maven artefact; Elastic's own build, for tests and local trials."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.servers.java import java
from control.servers.maven import check_maven, fetch
from control.servers.store import SOURCE, Tell, cache, elapsed, publish, tell, work_place
from kernel.errors import InputError, PermanentError

_LAUNCHER: Final = '#!/bin/bash\nCLI_NAME={cli}\nCLI_LIBS={libs}\nsource "`dirname "$0"`"/elasticsearch-cli\n'
"""The distribution inside another product carries no start scripts for Unix; these are what Elastic's own ones say."""


@dataclass(frozen=True)
class Release:
    """One version that can be had."""

    version: str
    pom: str
    jar_sha256: str
    """Of the server's own library: what was unpacked is Elastic's build and no other."""
    java: tuple[int, int]
    """The oldest and the newest major version of Java that runs it."""
    fetched_bytes: int
    kept_bytes: int

    @property
    def name(self) -> str:
        """Directory below the cache; another recipe has another name."""
        key = hashlib.sha256((SOURCE / self.pom).read_bytes() + self.jar_sha256.encode()).hexdigest()[:12]
        return f"elasticsearch-{self.version}-{key}"

    @property
    def major(self) -> int:
        """The major version."""
        return int(self.version.partition(".")[0])


CURRENT: Final = Release(
    "8.19.13", "elasticsearch-8.xml", "ac1fc31418ad969af59a0a98fb218737ca92f1bf4771a0b01e603f910baf9d86",
    (17, 99), 921_000_000, 122_000_000,
)  # fmt: skip
"""What our client speaks to: data streams, ingest pipelines, rollover, security; no lifecycle management."""
LIFECYCLE: Final = Release(
    "6.8.23", "elasticsearch-6.xml", "",
    (8, 23), 149_000_000, 120_000_000,
)  # fmt: skip
"""The one with index lifecycle management; not newer than Java 23, it needs the security manager."""


def find(release: Release = CURRENT, named: str = "") -> Path | None:
    """Return the server's directory, or None: the one `named` (setting elasticsearch_home), on PATH, or in the cache.

    Raises:
        InputError: the one named is no Elasticsearch of that major version.
    """
    if named:
        home = Path(named).expanduser()
        found = version_of(home)
        if found is None or not found.startswith(f"{release.major}."):
            raise InputError(
                f"setting elasticsearch_home (TAPEWATCH_ELASTICSEARCH_HOME): {named}",
                f"holds no Elasticsearch {release.major}" + (f" but {found}" if found else ""),
                right="leave it out to have one fetched",
            )
        return home
    program = shutil.which("elasticsearch")
    if program is not None:
        home = Path(program).resolve().parent.parent
        if (version_of(home) or "").startswith(f"{release.major}."):
            return home
    home = cache() / release.name
    return home if home.is_dir() else None


def version_of(home: Path) -> str | None:
    """Return the version of the server in a directory, or None when there is none."""
    for jar in (home / "lib").glob("elasticsearch-[0-9]*.jar"):
        found = re.fullmatch(r"elasticsearch-(\d+\.\d+\.\d+)\.jar", jar.name)
        if found is not None:
            return found[1]
    return None


def find_or_fetch(release: Release = CURRENT, named: str = "", say: Tell | None = None) -> Path:
    """Return the server's directory, fetching it first when there is none.

    Raises:
        InputError: the one named is no Elasticsearch.
        PermanentError: it cannot be fetched; says what to install, or Maven's last words.
    """
    found = find(release, named)
    if found is not None:
        return found
    say = say or tell
    java_home(release)
    check_maven(f"Elasticsearch {release.version}", "name an unpacked Elasticsearch with TAPEWATCH_ELASTICSEARCH_HOME")
    target = cache() / release.name
    with work_place(f"elasticsearch-{release.version}", release.fetched_bytes + 2 * release.kept_bytes, say) as work:
        if target.is_dir():
            return target
        say(
            f"fetching Elasticsearch {release.version}, once: {release.fetched_bytes / 1e6:.0f} MB, of which "
            f"{release.kept_bytes / 1e6:.0f} MB are kept"
        )
        began = time.monotonic()
        _unpack(release, work)
        publish(work / "out", target)
    say(f"Elasticsearch {release.version} is in {target} after {elapsed(began)}")
    return target


def _unpack(release: Release, work: Path) -> None:
    """Fetch into a Maven repository of our own below `work`, so that the archive does not stay in the user's."""
    out = fetch(f"Elasticsearch {release.version}", release.pom, work, release.fetched_bytes)
    jar = out / "lib" / f"elasticsearch-{release.version}.jar"
    if not jar.is_file() or (release.jar_sha256 and _sha256(jar) != release.jar_sha256):
        raise PermanentError(
            f"what was fetched as Elasticsearch {release.version} is something else: {jar.name} differs"
        )
    for cli, name, libs in (
        ("server", "elasticsearch", "lib/tools/server-cli"),
        ("keystore", "elasticsearch-keystore", "lib/tools/keystore-cli"),
    ):
        script = out / "bin" / name
        if not script.exists():
            script.write_text(_LAUNCHER.format(cli=cli, libs=libs))
    for script in (out / "bin").iterdir():
        script.chmod(0o755)
    (out / "plugins").mkdir(exist_ok=True)
    for path in (out, *out.rglob("*")):  # it may run as somebody else
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def java_home(release: Release = CURRENT) -> Path:
    """Return the Java that runs it: `ES_JAVA_HOME`, `JAVA_HOME`, else the program java on PATH.

    Raises:
        PermanentError: there is none, or it is too old or too new.
    """
    oldest, newest = release.java
    title = f"Elasticsearch {release.version}"
    program = java(title, oldest=oldest, newest=newest, named_by=("ES_JAVA_HOME", "JAVA_HOME"))
    return Path(program).resolve().parent.parent
