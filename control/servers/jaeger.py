"""Jaeger: found, or built once from its Go module; a child on loopback that takes OTLP, traces in memory, no page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control.addresses import HOST
from control.plan import free_ports
from control.servers.go_module import GoModule, built, kept
from control.servers.store import Tell
from control.servers.trace_server import TraceServer
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
    need_bytes=6_000_000_000,
    takes="about eight minutes on two cores, 100 MB in the end",
)
_CONFIG: Final = """\
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "{host}:{query}"}}
    grpc: {{endpoint: "{host}:{query_grpc}"}}
  jaeger_storage:
    backends:
      memory:
        memory: {{max_traces: {max_traces}}}
  healthcheckv2:
    use_v2: true
    http: {{endpoint: "{host}:{health}"}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: "{host}:{otlp}"}}
processors:
  batch: {{timeout: 200ms}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""
"""By default it listens on every interface; each address is said here, and all are loopback."""
READY_WITHIN_S: Final = 30.0
MAX_TRACES: Final = 50_000
"""How many traces it keeps; then the oldest go."""


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
    return kept(_MODULE) if os.access(kept(_MODULE), os.X_OK) else None


def find_or_build(named: str = "", say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: about eight minutes on two cores.

    Raises:
        InputError: the one named is no program.
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    return find(named) or built(_MODULE, say)


class Jaeger(TraceServer):
    """One Jaeger, without its page."""

    title = "Jaeger"
    house = "jaeger"
    ready_within_s = READY_WITHIN_S
    health_path = "/status"

    def __init__(self, program: Path, *, port: int = 0, otlp_port: int = 0) -> None:
        """Take ports for its API and for spans (0: free ones); nothing is started before `start`."""
        query, otlp, health, self._grpc_port = free_ports(4)
        super().__init__(health)
        self.port = port or query
        self.otlp_port = otlp_port or otlp
        self.url = f"http://{HOST}:{self.port}"
        """Of its query API."""
        self.otlp_url = f"http://{HOST}:{self.otlp_port}"
        """Where spans go by OTLP."""
        self._program = program

    def _argv(self, directory: Path) -> Sequence[str]:
        config = directory / "jaeger.yaml"
        config.write_text(
            _CONFIG.format(
                host=HOST, query=self.port, query_grpc=self._grpc_port, health=self._health_port, otlp=self.otlp_port,
                max_traces=MAX_TRACES,
            )
        )  # fmt: skip
        return (str(self._program), "--config", str(config))
