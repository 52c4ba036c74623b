"""Who runs in an estate and under which address: `estate.json`, written by the estate, read by everyone else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from kernel.errors import InputError, TemporaryError
from kernel.time import Instant

HOST: Final = "127.0.0.1"


class ReplicaAddress(msgspec.Struct, frozen=True):
    """One replica that should run now."""

    id: str
    url: str
    pid: int | None = None
    ready: bool = True
    """On Kubernetes, whether its pod is: nobody is sent to one that is not, as by a Service. A local estate tells of
    nobody's readiness here; `/health/ready` does."""


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """An estate's address book. It is renamed into place, so a reader never sees half of it."""

    version: int
    phase: str
    """`starting`, `up` or `stopping`."""
    pid: int
    """The process that runs the estate."""
    started_at: Instant
    state: str
    estate: str
    control: str
    prometheus: str
    alertmanager: str
    market_data: str
    settlement: str
    engine: str
    load: str
    engine_stream_port: int
    faults_allowed: bool
    on: str = "local"
    """What runs the exchange: `local` or `kubernetes`."""
    kept: str = "embedded"
    """What keeps the exchange: `embedded` or `distributed`."""
    edge: str = ""
    """Where orders enter by TLS, through the load balancer before the gateways; empty: there is none."""
    workloads: dict[str, tuple[ReplicaAddress, ...]]
    """Workload name to the replicas it should have now; changes when a workload is scaled."""

    @property
    def place(self) -> str:
        """What kind of estate it is, of those that faults and drills tell apart: local, distributed or kubernetes."""
        return self.on if self.kept == "embedded" else self.kept

    def urls(self, workload: str) -> tuple[str, ...]:
        """Return the addresses of a workload's replicas that take requests; empty for an unknown workload."""
        return tuple(replica.url for replica in self.workloads.get(workload, ()) if replica.ready)


def url_of(port: int, host: str = HOST) -> str:
    """Return the address of a port, on this machine unless a host is named."""
    return f"http://{host}:{port}"


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put a file in place whole and durably: write beside it, fsync, rename, fsync the directory.

    Raises:
        OSError: the directory cannot be written (read-only, full).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def save_addresses(addresses: Addresses, path: Path) -> None:
    """Write the address book."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(addresses), indent=2) + b"\n")


def load_addresses(path: Path) -> Addresses:
    """Read the address book of a running estate.

    Raises:
        TemporaryError: there is none, so no estate runs in this state directory.
        InputError: the file is not of this version of the program.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise TemporaryError(f"no estate runs in {path.parent}: start one with `tapewatch up`") from error
    except OSError as error:
        raise TemporaryError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=Addresses)
    except msgspec.DecodeError as error:
        raise InputError(
            str(path),
            f"is no address book of this version ({error})",
            right=f"stop the estate by its process id (see {path.parent / 'lock'}) and start it anew",
        ) from error
