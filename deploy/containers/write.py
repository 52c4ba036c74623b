"""Write the Containerfiles and their locks: `python deploy/containers/write.py`.

One image a role, with what that role imports and nothing else: no pytest in the engine, no Kubernetes client in a
gateway. A role's lock is cut out of `requirements.lock`, whose `# via` lines tell who needs what; versions and hashes
are the same. The files are kept, so that a build needs no script; a test writes them anew and compares.
"""  # noqa: INP001 - a script

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path("deploy/containers")
_SERVER: Final = ("httptools", "msgspec", "prometheus-client", "starlette", "uvicorn", "uvloop")
_ROOMS: Final = ("control", "exchange", "kernel", "monitor", "runbooks")


@dataclass(frozen=True)
class Image:
    """What a role's image holds beside the interpreter."""

    port: int
    needs: tuple[str, ...] = ()
    """Packages beside the server's; what those need follows from the lock."""
    rooms: tuple[str, ...] = ()
    """Rooms beside those that every role has, and data that it reads."""


IMAGES: Final = {
    "engine": Image(18710),
    "gateway": Image(18800, ("cryptography", "fastapi", "pyjwt", "websockets")),
    "market-data": Image(18720, ("websockets",)),
    "settlement": Image(18730, ("alembic", "psycopg", "sqlalchemy")),
    "watchdog": Image(18740, ("aiohttp", "websockets")),
    "control": Image(
        18700,
        (
            "aiohttp",
            "alembic",
            "fastapi",
            "jinja2",
            "jsonschema",
            "kubernetes",
            "numpy",
            "psycopg",
            "pyyaml",
            "sqlalchemy",
        ),
        ("alerts/anomaly", "anomaly", "incidents"),
    ),
    "anomaly": Image(18795, ("aiohttp", "numba", "numpy", "pyyaml"), ("alerts/anomaly", "anomaly")),
    "kube-state": Image(18760, ("kubernetes",)),
}

_CONTAINERFILE: Final = """\
# The image of the role `{role}`, written by deploy/containers/write.py. From the root of the repository:
#   podman build -f deploy/containers/{role}.Containerfile -t tapewatch/{role}:1 .
FROM python:3.11-slim AS build
COPY deploy/containers/{role}.lock /build/requirements.lock
# Every package by its hash, none built here, nothing resolved anew.
RUN python -m pip install --disable-pip-version-check --no-cache-dir --no-compile --root-user-action=ignore \\
    --require-hashes --only-binary=:all: --no-deps --target /opt/site -r /build/requirements.lock
{copies}
# Compiled here, because the root file system is read-only where it runs.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash /opt/site /opt/tapewatch

FROM python:3.11-slim
COPY --from=build /opt/site /opt/site
COPY --from=build /opt/tapewatch /opt/tapewatch
ENV PYTHONPATH=/opt/tapewatch:/opt/site PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /opt/tapewatch
# A number, so that `runAsNonRoot` can be checked without a file of users.
USER 10001:10001
EXPOSE {port}
ENTRYPOINT ["python", "-m", "control.roles"]
CMD ["/config/{role}.json"]
"""


def rooms(role: str) -> list[str]:
    """Return the rooms that a role's image holds."""
    return sorted({*_ROOMS, *IMAGES[role].rooms})


def containerfile(role: str) -> str:
    """Return a role's Containerfile."""
    copies = "\n".join(f"COPY {room} /opt/tapewatch/{room}" for room in rooms(role))
    return _CONTAINERFILE.format(role=role, port=IMAGES[role].port, copies=copies)


def entries(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return each package of a lock: its lines, and who needs it; pins for several versions of Python stay together."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for text in re.split(r"\n(?=[a-z0-9])", lock.strip()):
        name = re.match(r"[a-z0-9.-]+", text)
        assert name is not None, f"no package: {text[:60]}"
        pins, _, via = text.partition("    # via")
        before, needs = found.get(name[0], ("", frozenset()))
        found[name[0]] = (before + pins.rstrip() + "\n", needs | frozenset(re.findall(r"[a-z][a-z0-9.-]+", via)))
    return found


def needed(packages: dict[str, tuple[str, frozenset[str]]], roots: Iterable[str]) -> list[str]:
    """Return the roots and all that they need, by name."""
    found = set(roots)
    while more := {name for name, (_, via) in packages.items() if via & found} - found:
        found |= more
    return sorted(found)


def role_lock(role: str, lock: str) -> str:
    """Return the part of a lock that a role needs; what only Windows needs is left out."""
    packages = entries(lock)
    chosen = needed(packages, (*_SERVER, *IMAGES[role].needs))
    return "".join(packages[name][0] for name in chosen if "sys_platform == 'win32'" not in packages[name][0])


def write(root: Path) -> None:
    """Write every Containerfile and lock below `root`."""
    lock = (ROOT / "requirements.lock").read_text()
    (root / HERE).mkdir(parents=True, exist_ok=True)
    for role in IMAGES:
        (root / HERE / f"{role}.Containerfile").write_text(containerfile(role))
        (root / HERE / f"{role}.lock").write_text(role_lock(role, lock))


if __name__ == "__main__":
    write(ROOT)
