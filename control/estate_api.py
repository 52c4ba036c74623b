"""The estate's HTTP interface on loopback: workloads seen and changed, effects by key, faults, its own metrics.

Reading and writing need the admin token; `/metrics` and `/health/live` do not. An error is `{"error": sentence,
"reason": word}`: 400 for a request that makes no sense, 401 without the token, 403 for faults where none are allowed,
404 for what is not there, 409 for a refusal by a rail (a `RefusalReason`), 503 when it could not be done now.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.addresses import HOST
from control.made_signals import MadeSignals
from control.revision import revision_of
from control.supervisor import Supervisor
from kernel.errors import InputError, PermanentError, TapewatchError
from monitor.adapters.exporter import Exporter
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

MAX_BODY_BYTES: Final = 16_384
MAX_KEY_LENGTH: Final = 200

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


class RestartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a restart."""

    replica: str
    key: str
    generation: int | None = None
    by: str = ""


class ScaleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a change of the replica count."""

    replicas: int
    key: str
    generation: int | None = None
    by: str = ""


class FailOverRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a fail-over; `replica` is who takes writes no longer."""

    replica: str
    key: str
    generation: int | None = None
    by: str = ""


class DeployRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of giving one replica a revision of its own: its name, and the settings in which it differs."""

    replica: str
    revision: str
    settings: dict[str, Any]
    key: str
    by: str = ""


class RollBackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of giving a workload's canary the revision of the replicas beside it."""

    key: str
    generation: int | None = None
    by: str = ""


class HoldRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of holding a workload down, or releasing it."""

    workload: str
    hold: bool


class MadeSignalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of making an alert fire, or letting it end."""

    alert: str
    on: bool


class TakeOverRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of taking over from the region that is followed."""

    by: str
    even_so: bool = False


class SignalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of sending a signal to a replica."""

    replica: str
    signal: str


@dataclass(frozen=True)
class EstateApi:
    """What the interface needs. `on_down` asks the estate to stop."""

    supervisor: Supervisor
    exporter: Exporter
    token: str
    faults_allowed: bool
    on_down: Callable[[], None]
    on_pods: Callable[[bytes], None] | None = None
    """Takes a report of the pod host (JSON), on Kubernetes; raises `msgspec.DecodeError`."""
    signals: MadeSignals = field(default_factory=MadeSignals)
    on_signals: Callable[[], None] = lambda: None
    """Told when the made signals changed."""
    on_take_over: Callable[[str, bool], Awaitable[object]] | None = None
    """Takes over from another region, for whom and whether even though that answers; None: it follows none."""

    def app(self) -> Starlette:
        """Return the routes as an application."""
        return Starlette(
            routes=[
                Route("/health/live", self._live, methods=["GET"]),
                Route("/health/ready", self._live, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/signals", self._made_signals, methods=["GET"]),
                Route("/v1/signals", self._guarded(self._make_signal), methods=["POST"]),
                Route("/v1/workloads", self._guarded(self._list), methods=["GET"]),
                Route("/v1/workloads/{name}", self._guarded(self._status), methods=["GET"]),
                Route("/v1/workloads/{name}/restart", self._guarded(self._restart), methods=["POST"]),
                Route("/v1/workloads/{name}/scale", self._guarded(self._scale), methods=["POST"]),
                Route("/v1/workloads/{name}/fail-over", self._guarded(self._fail_over), methods=["POST"]),
                Route("/v1/workloads/{name}/fail-over", self._guarded(self._may_fail_over), methods=["GET"]),
                Route("/v1/workloads/{name}/deploy", self._guarded(self._deploy), methods=["POST"]),
                Route("/v1/workloads/{name}/roll-back", self._guarded(self._roll_back), methods=["POST"]),
                Route("/v1/effects/{key:path}", self._guarded(self._effect), methods=["GET"]),
                Route("/v1/hold", self._guarded(self._hold), methods=["POST"]),
                Route("/v1/signal", self._guarded(self._signal), methods=["POST"]),
                Route("/v1/pods", self._guarded(self._pods), methods=["POST"]),
                Route("/v1/take-over", self._guarded(self._take_over), methods=["POST"]),
                Route("/v1/down", self._guarded(self._down), methods=["POST"]),
            ]
        )

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Ask for the token first, and turn operating errors into answers."""

        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return _json({"error": "the admin token is needed: Authorization: Bearer …"}, 401)
            try:
                return await endpoint(request)
            except RefusedError as error:
                status = 404 if error.reason is RefusalReason.NO_TARGET else 409
                return _json({"error": str(error), "reason": error.reason}, status)
            except InputError as error:
                return _json({"error": str(error)}, 400)
            except PermanentError as error:
                return _json({"error": str(error)}, 404)
            except TapewatchError as error:
                return _json({"error": str(error)}, 503)

        return answer

    async def _live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _metrics(self, _: Request) -> Response:
        self.update()
        return Response(self.exporter.render(), media_type=self.exporter.content_type)

    def update(self) -> None:
        """Bring the metrics up to what the supervisor sees now."""
        supervisor, exporter = self.supervisor, self.exporter
        for workload in supervisor.all():
            exporter.level("tapewatch_replicas_desired", workload.name).set(workload.desired)
            exporter.level("tapewatch_replicas_ready", workload.name).set(workload.ready)
            canaries = sum(bool(one.revision) for one in workload.replicas)
            exporter.level("tapewatch_replicas_canary", workload.name).set(canaries)
            if not workload.singleton:
                for one in workload.replicas:
                    exporter.level("tapewatch_replica_away", one.id).set(float(supervisor.is_away(one.id)))
            for name, counts in (
                ("tapewatch_replica_starts_total", supervisor.starts),
                ("tapewatch_replica_exits_total", supervisor.exits),
                ("tapewatch_replica_mends_total", supervisor.mends),
            ):
                cell = exporter.count(name, workload.name)
                cell.add(counts[workload.name] - cell.value)

    async def _list(self, _: Request) -> Response:
        return _json(self.supervisor.all())

    async def _status(self, request: Request) -> Response:
        return _json(self.supervisor.status(request.path_params["name"]))

    async def _restart(self, request: Request) -> Response:
        body = await _body(request, RestartRequest)
        effect = await self.supervisor.restart(
            request.path_params["name"], body.replica, key=_key(body.key), generation=body.generation, by=body.by
        )
        return _json(effect)

    async def _scale(self, request: Request) -> Response:
        body = await _body(request, ScaleRequest)
        effect = await self.supervisor.scale(
            request.path_params["name"], body.replicas, key=_key(body.key), generation=body.generation, by=body.by
        )
        return _json(effect)

    async def _fail_over(self, request: Request) -> Response:
        body = await _body(request, FailOverRequest)
        effect = await self.supervisor.fail_over(
            request.path_params["name"], body.replica, key=_key(body.key), generation=body.generation, by=body.by
        )
        return _json(effect)

    async def _may_fail_over(self, request: Request) -> Response:
        """Rehearse it: the facts it would begin with, or the refusal; nothing is touched."""
        name, replica = request.path_params["name"], request.query_params.get("replica", "")
        return _json(await self.supervisor.may_fail_over(name, replica))

    async def _deploy(self, request: Request) -> Response:
        """Deploy a canary; only where faults are allowed, because nothing looks at its settings but their types."""
        if not self.faults_allowed:
            return _faults_forbidden()
        body, name = await _body(request, DeployRequest), request.path_params["name"]
        slot = next((one for one in self.supervisor.slots(name) if one.id == body.replica), None)
        if slot is None:
            raise RefusedError(RefusalReason.NO_TARGET, f"workload {name} has no replica {body.replica!r}")
        revised = await asyncio.to_thread(revision_of, slot, body.revision, body.settings)
        return _json(await self.supervisor.deploy(name, revised, key=_key(body.key), by=body.by))

    async def _roll_back(self, request: Request) -> Response:
        body = await _body(request, RollBackRequest)
        name = request.path_params["name"]
        effect = await self.supervisor.roll_back(name, key=_key(body.key), generation=body.generation, by=body.by)
        return _json(effect)

    async def _effect(self, request: Request) -> Response:
        return _json(self.supervisor.effect(request.path_params["key"]))

    async def _hold(self, request: Request) -> Response:
        if not self.faults_allowed:
            return _faults_forbidden()
        body = await _body(request, HoldRequest)
        await self.supervisor.hold(body.workload, hold=body.hold)
        return _json({"workload": body.workload, "held": body.hold})

    async def _signal(self, request: Request) -> Response:
        if not self.faults_allowed:
            return _faults_forbidden()
        body = await _body(request, SignalRequest)
        self.supervisor.signal(body.replica, body.signal)
        return _json({"replica": body.replica, "signal": body.signal})

    async def _made_signals(self, _: Request) -> Response:
        return Response(self.signals.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _make_signal(self, request: Request) -> Response:
        if not self.faults_allowed:
            return _faults_forbidden()
        body = await _body(request, MadeSignalRequest)
        if body.on:
            await asyncio.to_thread(self.signals.begin, body.alert)  # it reads files
        elif not self.signals.end(body.alert):
            raise PermanentError(f"no series make {body.alert} fire")
        self.on_signals()
        return _json({"alert": body.alert, "on": body.on})

    async def _pods(self, request: Request) -> Response:
        if self.on_pods is None:
            raise PermanentError("this estate runs no pods")
        try:
            self.on_pods(await request.body())
        except msgspec.DecodeError as error:
            raise InputError("body", str(error), right="send what the pod host sends") from error
        return _json({"taken": True})

    async def _take_over(self, request: Request) -> Response:
        body = await _body(request, TakeOverRequest)
        if self.on_take_over is None:
            raise RefusedError(RefusalReason.NOT_ALLOWED, "this estate follows no other region")
        return _json(await self.on_take_over(body.by, body.even_so))

    async def _down(self, _: Request) -> Response:
        self.on_down()
        return _json({"stopping": True}, 202)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _faults_forbidden() -> Response:
    return _json({"error": "faults are not allowed on this estate (setting faults_allowed)"}, 403)


def _key(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise InputError(
            "key", "is empty, too long or not printable", right=f"give 1 to {MAX_KEY_LENGTH} printable characters"
        )
    return key


async def _body(request: Request, kind: type[T]) -> T:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise InputError("body", f"is longer than {MAX_BODY_BYTES} bytes", right="send one small JSON object")
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except msgspec.DecodeError as error:
        raise InputError(
            "body", str(error), right=f"send a JSON object with {', '.join(kind.__annotations__)}"
        ) from error


class LoopServer(uvicorn.Server):
    """A server that lives in somebody else's loop and leaves the signals to them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGINT and SIGTERM alone."""
        yield


async def serve(app: Any, port: int) -> tuple[LoopServer, asyncio.Task[None]]:
    """Serve on loopback; returns once connections are taken. Stop it by `should_exit` and await the task.

    Raises:
        PermanentError: the port is in use.
    """
    config = uvicorn.Config(
        app, host=HOST, port=port, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
    server = LoopServer(config)
    task = asyncio.create_task(_served(server), name="estate interface")
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has a flag, no event
        await asyncio.sleep(0.01)
    if task.done():
        await task
        raise PermanentError(f"port {port} cannot be opened on {HOST}: it is in use")
    return server, task


async def _served(server: LoopServer) -> None:
    with contextlib.suppress(SystemExit):  # uvicorn's way to say that it could not bind
        await server.serve()
