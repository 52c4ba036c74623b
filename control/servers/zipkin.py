"""Zipkin: found, or fetched once as a Maven artefact; a child on loopback with its page, traces in memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control.addresses import HOST
from control.plan import free_ports
from control.servers.java import java
from control.servers.maven import check_maven, fetch
from control.servers.store import Tell, cache, elapsed, publish, tell, work_place
from control.servers.trace_server import TraceServer
from kernel.errors import InputError, PermanentError

VERSION: Final = "3.6.1"
POM: Final = "zipkin.xml"
SHA256: Final = "981b1de6139b4f8f787a909c308028732f9713ae5284353d2a5aa404d1094775"
"""Of the server's jar: what was fetched is what its makers published."""
_FETCHED_BYTES: Final = 90_000_000
READY_WITHIN_S: Final = 60.0
MAX_SPANS: Final = 100_000
"""How many spans it keeps; then the oldest traces go."""


def find(named: str = "") -> Path | None:
    """Return the server's jar: the one `named` (setting zipkin), else the one in the cache; or None.

    Raises:
        InputError: the one named is no file.
    """
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InputError(
                f"setting zipkin (TAPEWATCH_ZIPKIN): {named}", "is no file", right="leave it out to have one fetched"
            )
        return path
    path = cache() / f"zipkin-{VERSION}-{SHA256[:12]}" / "zipkin.jar"
    return path if path.is_file() else None


def find_or_fetch(named: str = "", say: Tell | None = None) -> Path:
    """Return the server's jar, fetching it first when there is none.

    Raises:
        InputError: the one named is no file.
        PermanentError: it cannot be fetched; says what to install, or Maven's last words.
    """
    found = find(named)
    if found is not None:
        return found
    say = say or tell
    check_maven(f"Zipkin {VERSION}", "name its jar with TAPEWATCH_ZIPKIN")
    target = cache() / f"zipkin-{VERSION}-{SHA256[:12]}"
    with work_place(f"zipkin-{VERSION}", 2 * _FETCHED_BYTES, say) as work:
        if target.is_dir():
            return target / "zipkin.jar"
        say(f"fetching Zipkin {VERSION}, once: {_FETCHED_BYTES / 1e6:.0f} MB")
        began = time.monotonic()
        out = fetch(f"Zipkin {VERSION}", POM, work, _FETCHED_BYTES)
        if hashlib.sha256((out / "zipkin.jar").read_bytes()).hexdigest() != SHA256:
            raise PermanentError(f"what was fetched as Zipkin {VERSION} is something else: zipkin.jar differs")
        publish(out, target)
    say(f"Zipkin {VERSION} is in {target} after {elapsed(began)}")
    return target / "zipkin.jar"


class Zipkin(TraceServer):
    """One Zipkin, with its page."""

    title = "Zipkin"
    house = "zipkin"
    ready_within_s = READY_WITHIN_S
    telling = ("ERROR", "xception", "rror:")
    health_path = "/health"

    def __init__(self, jar: Path, *, port: int = 0) -> None:
        """Take a port (0: a free one); nothing is started before `start`."""
        self.port = port or free_ports(1)[0]
        self.url = f"http://{HOST}:{self.port}"
        super().__init__(self.port)
        self._jar = jar

    def _argv(self, directory: Path) -> Sequence[str]:
        # By default it listens on every interface; all that is said to it here keeps it on loopback.
        return (
            java("Zipkin"), "-Xms64m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Djava.io.tmpdir={directory}", "-jar", str(self._jar),
            f"--armeria.ports[0].ip={HOST}", f"--armeria.ports[0].port={self.port}",
            "--armeria.ports[0].protocols[0]=http",
            "--zipkin.storage.type=mem", f"--zipkin.storage.mem.max-spans={MAX_SPANS}",
        )  # fmt: skip
