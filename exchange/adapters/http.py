"""HTTP of the exchange's processes: a server inside a running loop, health, metrics, and who may do what."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.patience import PatientHttp
from exchange.ports import Exposition
from kernel.errors import InputError, PermanentError

MAX_BODY_BYTES: Final = 64 * 1024
"""Larger than any request of ours; a longer body is refused with 413 before it is read."""
MIN_SECRET_LENGTH: Final = 8
"""Shorter ones can be guessed, and cannot be told from ordinary words when logs are redacted."""
PING_S: Final = 5.0
"""How often a WebSocket of order entry is pinged; whoever does not answer within twice that is taken for gone."""
LOOK_S: Final = 1.0
_JSON: Final = "application/json"


class Ready(Protocol):
    """Tells whether a process can do its work, and if not, why."""

    def __call__(self) -> tuple[bool, str]:
        """Return readiness and one sentence."""
        ...


class BodyTooLargeError(Exception):
    """A request's body exceeds `MAX_BODY_BYTES`."""


def listen(port: int, host: str = LOOPBACK) -> socket.socket:
    """Return a listening socket on an address of this machine; port 0 picks a free one.

    Raises:
        PermanentError: the port is in use or forbidden, or the address is not of this machine.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        right = "choose an address of this machine" if error.errno == errno.EADDRNOTAVAIL else "choose a free port"
        raise PermanentError(f"cannot listen on {host}:{port}: {error.strerror}; {right}") from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


def read_secret(path: Path) -> str:
    """Read a bearer secret.

    Raises:
        InputError: the file is missing, unreadable or too short.
    """
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot read the secret ({error})", right="write it with mode 0600") from error
    if len(secret) < MIN_SECRET_LENGTH:
        raise InputError(
            str(path), f"the secret has {len(secret)} characters", right=f"write at least {MIN_SECRET_LENGTH}"
        )
    return secret


class _Server(uvicorn.Server):
    """uvicorn without its grip on the process's signals: the role decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone."""
        yield


def _socket_protocol() -> type[asyncio.Protocol]:
    # Its library is loaded only where WebSockets are served: the images of the other roles do without.
    from exchange.adapters.patient_socket import PatientSocket

    return PatientSocket


class HttpServer:
    """An HTTP server on a socket that already listens."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, sockets: bool = False, ping_s: float | None = None
    ) -> None:
        """Serve `app`; with `sockets` WebSockets too, each pinged every `ping_s` and cut off when it misses one.

        An application that says nothing of its own about routes it does not have tells it as every other error.
        """
        if type(app) is Starlette:
            app.exception_handlers.setdefault(HTTPException, no_route)
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=PatientHttp,
            ws=_socket_protocol() if sockets else "none",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            ws_max_size=MAX_BODY_BYTES,
            ws_ping_interval=ping_s,
            ws_ping_timeout=None if ping_s is None else 2 * ping_s,
            # loopback: compressing costs more than it saves, and hides a subscriber that does not read
            ws_per_message_deflate=False,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="http")
        while not self._server.started:  # noqa: ASYNC110 - uvicorn keeps a flag, not an event
            await asyncio.sleep(0.005)
        self._looking = asyncio.create_task(self._look(), name="http patience")

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            now = loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, PatientHttp):
                    connection.look(now)

    async def stop(self) -> None:
        """Stop taking connections, let the present answers go out, close."""
        if self._looking is not None:
            self._looking.cancel()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listener.close()


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, _JSON)


def problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says what is wrong."""
    return json_response({"error": error}, status, headers)


async def no_route(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes: 404, or 405 where another method is taken."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, words_of_no_route(request, error.status_code), error.headers)


def words_of_no_route(request: Request, status: int) -> str:
    """Return the sentence of a 404 or 405."""
    what = "cannot be asked so" if status == 405 else "is not known here"  # noqa: PLR2004 - HTTP: method not allowed
    return f"{request.method} {request.url.path[:100]} {what}"


async def read_body(request: Request) -> bytes:
    """Read a whole body of bounded size.

    Raises:
        BodyTooLargeError: it is longer than `MAX_BODY_BYTES`.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLargeError
    return bytes(body)


Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(secret: str, endpoint: Endpoint) -> Endpoint:
    """Return `endpoint` for those who bring the bearer secret; 401 for the others.

    Also answers 413 and 400 for bodies that are too large or of the wrong shape, with where and what.
    """
    expected = f"Bearer {secret}".encode()

    async def checked(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            return problem(401, "authorization: a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            return await endpoint(request)
        except BodyTooLargeError:
            return problem(413, f"body: longer than {MAX_BODY_BYTES} bytes")
        except msgspec.ValidationError as error:
            return problem(400, f"body: {error}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # text that is no UTF-8 is no DecodeError
            return problem(400, f"body: no JSON: {error}")

    return checked


def common_routes(exposition: Exposition, ready: Ready) -> list[BaseRoute]:
    """Return what every process answers: `/metrics`, `/health/live`, `/health/ready`."""

    async def metrics(request: Request) -> Response:
        body, media_type = exposition.page(request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    async def live(_: Request) -> Response:
        return json_response({"live": True})

    async def readiness(_: Request) -> Response:
        is_ready, detail = ready()
        return json_response({"ready": is_ready, "detail": detail}, 200 if is_ready else 503)

    return [
        Route("/metrics", metrics, methods=["GET"]),
        Route("/health/live", live, methods=["GET"]),
        Route("/health/ready", readiness, methods=["GET"]),
    ]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault asked for by name; the meaning of `value` is the fault's own."""

    name: str
    value: str | float | None = None


class Faults:
    """The faults a process now suffers, in memory only: a restart clears them."""

    def __init__(self, known: frozenset[str], *, allowed: bool) -> None:
        """Know faults by name; `allowed` False refuses every change with 403."""
        self._known = known
        self._allowed = allowed
        self._active: dict[str, str | float | None] = {}

    def number(self, name: str) -> float:
        """Return the value of an active fault as a number, 0 when it is not active or holds none."""
        value = self._active.get(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def active(self, name: str) -> bool:
        """Tell whether a fault is active."""
        return name in self._active

    def take(self, name: str) -> str | float | None:
        """Return the value of a fault that acts once, and clear it; None when it is not active."""
        return self._active.pop(name, None)

    def peek(self, name: str) -> str | float | None:
        """Return the value of an active fault without clearing it."""
        return self._active.get(name)

    def routes(self, admin_secret: str) -> list[BaseRoute]:
        """Return `/admin/faults`: GET lists, POST `{name, value}` injects, DELETE clears all (or `?name=`)."""

        async def change(request: Request) -> Response:
            if request.method == "GET":
                return json_response({"allowed": self._allowed, "known": sorted(self._known), "active": self._active})
            if not self._allowed:
                return problem(403, "faults are not allowed here; start the estate with faults allowed")
            if request.method == "DELETE":
                name = request.query_params.get("name")
                self._active = {} if name is None else {k: v for k, v in self._active.items() if k != name}
                return json_response({"active": self._active})
            fault = msgspec.json.decode(await read_body(request), type=Fault)
            if fault.name not in self._known:
                return problem(404, f"name: no fault {fault.name!r} here; there are {', '.join(sorted(self._known))}")
            self._active[fault.name] = fault.value
            return json_response({"active": self._active})

        return [Route("/admin/faults", guarded(admin_secret, change), methods=["GET", "POST", "DELETE"])]
