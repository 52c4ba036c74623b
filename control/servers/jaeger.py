"""Jaeger: found, or built once from its Go module; a child on loopback that takes OTLP, traces in memory, no page."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from control.servers.go_module import GoModule, build, check_go
from control.servers.store import Tell, cache, elapsed, publish, tell, work_place
from kernel.errors import InputError

MODULE: Final = "github.com/jaegertracing/jaeger"
VERSION: Final = "v1.76.0"
"""Of the module; its program is Jaeger 2. Go's rules keep the module's own version 2 from being fetched by its name."""
SUM: Final = "h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g="
"""Go's own checksum of the module: a build of other sources is refused."""
_MODULE: Final = GoModule(
    title="Jaeger",
    module=MODULE,
    version=VERSION,
    sum=SUM,
    package="./cmd/jaeger",
    go=(1, 25),
    copied=True,
    get=", or name a program with TAPEWATCH_JAEGER",
)
_NEED_BYTES: Final = 6_000_000_000
READY_WITHIN_S: Final = 30.0
MAX_TRACES: Final = 50_000
"""How many traces it keeps; then the oldest go."""
_STEP_S: Final = 0.1
_GRACE_S: Final = 10.0
_OK: Final = 200


def find(named: str = "") -> Path | None:
    """Return the program: the one `named` (setting jaeger), else the one in the cache; or None.

    Raises:
        InputError: the one named is no program.
    """
    if named:
        path = Path(named).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise InputError(
                f"setting jaeger (TAPEWATCH_JAEGER): {named}", "is no program", right="leave it out to have one built"
            )
        return path
    return _target() if os.access(_target(), os.X_OK) else None


def _target() -> Path:
    return cache() / f"jaeger-{VERSION.removeprefix('v')}-{re.sub(r'[^A-Za-z0-9]', '', SUM)[2:12]}"


def find_or_build(named: str = "", say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: about eight minutes on two cores.

    Raises:
        InputError: the one named is no program.
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    found = find(named)
    if found is not None:
        return found
    say = say or tell
    check_go(_MODULE)
    target = _target()
    with work_place("jaeger", _NEED_BYTES, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building Jaeger {VERSION} from sources, once: about eight minutes on two cores, 100 MB in the end")
        began = time.monotonic()
        publish(build(_MODULE, work), target)
    say(f"built {target} in {elapsed(began)}")
    return target
