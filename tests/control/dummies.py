"""Stand-ins for the roles: a small HTTP server that is ready at once, and the parts of an estate around it."""

from __future__ import annotations

import sys
from pathlib import Path

from control.child import Slot, now
from control.effects import EffectLog
from control.estate_api import EstateApi, serve
from control.plan import free_ports
from control.supervisor import ESTATE, Supervisor, WorkloadSpec
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from runbooks.adapters.local import LocalWorkloads

SERVER = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
class Server(http.server.HTTPServer):
    allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


def slot(tmp_path: Path, name: str, port: int, code: str = SERVER) -> Slot:
    return Slot(name, port, (sys.executable, "-S", "-c", code, str(port)), tmp_path / "logs" / f"{name}.out")


def specs(tmp_path: Path, *, grace_s: float = 1.0) -> list[WorkloadSpec]:
    ports = free_ports(6)
    gateways = tuple(slot(tmp_path, f"gateway-{i + 1}", ports[i]) for i in range(4))
    return [
        WorkloadSpec("engine", (slot(tmp_path, "engine-1", ports[4]),), 1, singleton=True, grace_s=grace_s),
        WorkloadSpec("gateway", gateways, 2, grace_s=grace_s),
        WorkloadSpec("control", (slot(tmp_path, "control-1", ports[5]),), 1, owned_by=ESTATE),
    ]


class DummyEstate:
    """A supervisor with dummy replicas behind the real interface."""

    token = "admin-of-the-dummies"

    def __init__(self, tmp_path: Path, workloads: list[WorkloadSpec] | None = None) -> None:
        self.root = tmp_path
        self.specs = workloads or specs(tmp_path)
        self.logged: list[str] = []
        self.changes = 0
        self.kill_switch = tmp_path / "kill-switch.json"

    def _changed(self) -> None:
        self.changes += 1

    async def __aenter__(self):
        self.effects = EffectLog.open(self.root / "estate" / "effects.log", at=now())
        self.supervisor = Supervisor(
            self.specs, self.effects, kill_switch=self.kill_switch, allowed=frozenset({"engine", "gateway"}),
            log=lambda level, text, **_: self.logged.append(f"{level}: {text}"), on_change=self._changed,
        )  # fmt: skip
        self.down_asked = 0
        port = free_ports(1)[0]
        self.api = EstateApi(self.supervisor, Exporter(Role.ESTATE, process=False), self.token, True, self._down)
        self.server, self.task = await serve(self.api.app(), port)
        self.url = f"http://127.0.0.1:{port}"
        self.workloads = LocalWorkloads(self.url, self.token)
        try:
            for spec in self.specs:
                await self.supervisor.start(spec.name)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    def _down(self) -> None:
        self.down_asked += 1

    async def __aexit__(self, *_):
        await self.workloads.close()
        await self.supervisor.close()
        self.server.should_exit = True
        await self.task
        self.effects.close()
