"""What is fetched by Maven: by a recipe of ours, into a repository that goes with the work."""

from __future__ import annotations

import shutil
from pathlib import Path

from control.servers.store import SOURCE, run, size_of
from kernel.errors import PermanentError


def check_maven(what: str, instead: str) -> None:
    """Look for Maven, which fetches `what`; `instead` says how it can be had without.

    Raises:
        PermanentError: there is none.
    """
    if shutil.which("mvn") is None:
        raise PermanentError(
            f"there is no program mvn, which fetches {what}: install Maven (Debian: maven), or {instead}"
        )


def fetch(what: str, recipe: str, work: Path, whole_bytes: int) -> Path:
    """Fetch what a recipe of `deploy/servers` names, below the directory `work`; return where it lies.

    Raises:
        PermanentError: it cannot be fetched; carries Maven's last words.
    """
    shutil.copy(SOURCE / recipe, work / "pom.xml")
    repository, out = work / "maven", work / "out"
    whole = whole_bytes / 1e6
    run(
        f"fetching {what}",
        ["mvn", "-B", "-q", "-C", "-f", "pom.xml", f"-Dmaven.repo.local={repository}", f"-Dout={out}",
         "generate-resources"],
        cwd=work, log=work / "maven.log",
        progress=lambda: f"{min(size_of(repository) / 1e6, whole):.0f} of {whole:.0f} MB",
    )  # fmt: skip
    return out
