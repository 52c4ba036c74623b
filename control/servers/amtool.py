"""The newest amtool: found, or built once from its Go module, to check the configuration for newer Alertmanagers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from control.servers.go_module import GoModule, built, kept
from control.servers.store import Tell

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
    need_bytes=1_500_000_000,
    takes="one to three minutes on two cores, 30 MB in the end",
)


def find() -> Path | None:
    """Return the program in the cache; None when it is not built. The one on PATH is Debian's, and too old."""
    return kept(_MODULE) if os.access(kept(_MODULE), os.X_OK) else None


def find_or_build(say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: one to three minutes on two cores.

    Raises:
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    return built(_MODULE, say)
