"""The newest amtool: found, or built once from its Go module, to check the configuration for newer Alertmanagers."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from control.servers.go_module import GoModule, build, check_go
from control.servers.store import Tell, cache, elapsed, publish, tell, work_place

MODULE: Final = "github.com/prometheus/alertmanager"
VERSION: Final = "v0.34.2"
SUM: Final = "h1:4oOnHs4J41X9n+7MucFjA3I5i5MtasjWTnIY27q5Qkw="
"""Go's own checksum of the module: a build of other sources is refused."""
_MODULE: Final = GoModule(
    title="amtool",
    module=MODULE,
    version=VERSION,
    sum=SUM,
    package="./cmd/amtool",
    go=(1, 26),
    ldflags=f"-s -w -X github.com/prometheus/common/version.Version={VERSION.removeprefix('v')}",
)
_NEED_BYTES: Final = 1_500_000_000


def _target() -> Path:
    return cache() / f"amtool-{VERSION.removeprefix('v')}-{re.sub(r'[^A-Za-z0-9]', '', SUM)[2:12]}"


def find() -> Path | None:
    """Return the program in the cache; None when it is not built. The one on PATH is Debian's, and too old."""
    return _target() if os.access(_target(), os.X_OK) else None


def find_or_build(say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: one to three minutes on two cores.

    Raises:
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    found = find()
    if found is not None:
        return found
    say = say or tell
    check_go(_MODULE)
    target = _target()
    with work_place("amtool", _NEED_BYTES, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building amtool {VERSION} from sources, once: one to three minutes on two cores, 30 MB in the end")
        began = time.monotonic()
        publish(build(_MODULE, work), target)
    say(f"built {target} in {elapsed(began)}")
    return target
