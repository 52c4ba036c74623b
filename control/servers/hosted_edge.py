"""The edge under a server host: HAProxy or nginx before the gateways, with TLS of the state's own authority."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import http.client
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from control.addresses import HOST
from control.servers.edge import SELF, Edge, EdgePlace, balancer_of
from control.servers.edge_certificate import SHOWN, Certificates
from control.servers.hosted import ServerConfig
from control.servers.trial_authority import RENEW_SHARE, TrialAuthority, not_after
from kernel.errors import PermanentError, TapewatchError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from exchange.ports import Log
    from monitor.adapters.exporter import Exporter

_LOOK_S: Final = 0.8
_STATES: Final = ("ready", "drain", "maint")
_OUT: Final = ("DRAIN", "MAINT")
"""How HAProxy says that somebody took a server out, whatever its health."""
_OK: Final = 200


class ServerState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/server`: what the edge is to do with a gateway."""

    server: str
    state: str
    """`ready` (as its health says), `drain` (what is under way ends, nothing new) or `maint` (nothing at all)."""


class Lasting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/certificate`: how long the certificate that is shown from now on lasts."""

    seconds: float
    """0: the one that is kept is shown again."""


class HostedEdge:
    """One edge, and what is seen of it from outside."""

    def __init__(self, config: ServerConfig) -> None:
        """Nothing is started yet.

        Raises:
            TapewatchError: the program is not there, or the options name no gateways.
        """
        self._config: Final = config
        self._authority: Final = TrialAuthority(config.layout.edge)
        self._edge: Final = Edge(place_of(config))
        share = float(config.options.get("renew_share", RENEW_SHARE))
        self._certificates: Final = Certificates(self._authority, self._edge.place.directory, self._edge, share)
        # It asks whether the edge answers, and until when its certificate lasts, even when that is over.
        self._context: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._told: Final = dict.fromkeys(self._certificates.taken, 0)
        self._seen: tuple[bool, float] = (False, 0.0)
        """Whether it answered, and until when its certificate lasts (seconds since the epoch; 0: not seen)."""

    def log_to(self, log: Log) -> None:
        """Tell of certificates there."""
        self._certificates.log_to(log)

    def start(self) -> None:
        """Make the certificate where there is none, or ours is about to end; start the program."""
        try:
            self._certificates.prepare()
        except OSError as error:
            raise PermanentError(f"{self._authority.edge}: cannot be written ({error.strerror})") from error
        self._edge.start()

    def ready(self) -> tuple[bool, str]:
        """Ask it over TLS whether it serves, whatever the gateways do."""
        place = self._edge.place
        try:
            self._seen = self._look(place.https)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._seen = (False, 0.0)
            return False, f"{place.balancer} does not answer at https://{HOST}:{place.https}: {error}"
        answers = self._seen[0]
        return (
            answers,
            f"{place.balancer} {'answers' if answers else 'answers wrongly'} at https://{HOST}:{place.https}",
        )

    def _look(self, port: int) -> tuple[bool, float]:
        connection = http.client.HTTPSConnection(HOST, port, timeout=_LOOK_S, context=self._context)
        try:
            connection.connect()
            shown = connection.sock.getpeercert(binary_form=True)
            connection.request("GET", SELF)
            return connection.getresponse().status == _OK, not_after(shown or b"")
        finally:
            connection.close()

    def ended(self) -> str:
        """Return its last words once it has ended."""
        if self._edge.exit_code is None:
            return ""
        return f"{self._edge.place.balancer} ended with exit code {self._edge.exit_code}: {self._edge.last_words()}"

    def observe(self, exporter: Exporter) -> None:
        """Renew the certificate where that is due, and tell what `ready` saw; HAProxy's own page tells of gateways."""
        if self._seen[0]:
            self._certificates.turn()
        for result, times in self._certificates.taken.items():
            cell = exporter.count("tapewatch_edge_certificates_total", result)
            cell.add(times - self._told[result])
            self._told[result] = times
        exporter.level("tapewatch_edge_certificate_refused").set(float(bool(self._certificates.why)))
        answers, ends = self._seen
        exporter.level("tapewatch_edge_serves").set(float(answers))
        if ends:
            exporter.level("tapewatch_edge_certificate_not_after_timestamp_seconds").set(ends)

    def stop(self) -> None:
        """End it: requests that are under way may finish."""
        self._edge.close()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:
        """Return what the host answers: which gateways get requests, a new certificate, and another as a fault."""
        from starlette.routing import Route

        from exchange.adapters.http import guarded

        return (
            Route("/admin/server", guarded(admin_secret, self._server), methods=["POST"]),
            Route("/admin/server", guarded(admin_secret, self._sessions), methods=["GET"]),
            Route("/admin/renew", guarded(admin_secret, self._renew), methods=["POST"]),
            Route("/admin/certificate", guarded(admin_secret, self._certificate), methods=["POST"]),
        )

    async def _server(self, request: Request) -> Response:
        from exchange.adapters.http import json_response, problem, read_body

        asked = msgspec.json.decode(await read_body(request), type=ServerState)
        if asked.server not in self._edge.place.gateways or asked.state not in _STATES:
            known = ", ".join(self._edge.place.gateways)
            return problem(400, f"server: one of {known}; state: one of {', '.join(_STATES)}")
        said = await asyncio.to_thread(self._say, f"set server gateways/{asked.server} state {asked.state}")
        return problem(503, said) if said else json_response({"server": asked.server, "state": asked.state})

    async def _sessions(self, request: Request) -> Response:
        """Tell whether somebody took a gateway out, and how many requests and WebSockets it is busy with."""
        from exchange.adapters.http import json_response, problem

        name = request.query_params.get("server", "")
        try:
            told = await asyncio.to_thread(self._edge.tell, "show stat")
        except TapewatchError as error:
            return problem(503, str(error))
        for row in csv.DictReader(told.removeprefix("# ").splitlines()):
            if (row["pxname"], row["svname"]) == ("gateways", name):
                out = row["status"].startswith(_OUT)
                return json_response({"server": name, "out": out, "sessions": int(row["scur"]) + int(row["qcur"])})
        return problem(404, f"the edge knows no server {name[:40]!r}")

    async def _renew(self, _: Request) -> Response:
        from exchange.adapters.http import json_response, problem

        try:
            return json_response(await asyncio.to_thread(self._certificates.renew))
        except (TapewatchError, OSError) as error:
            return problem(409, str(error))

    async def _certificate(self, request: Request) -> Response:
        from exchange.adapters.http import json_response, problem, read_body

        if not self._config.faults_allowed:
            return problem(403, "faults are not allowed here")
        asked = msgspec.json.decode(await read_body(request), type=Lasting)
        said = await asyncio.to_thread(self._show, asked.seconds)
        return problem(503, said) if said else json_response({"seconds": asked.seconds})

    def _show(self, seconds: float) -> str:
        """Let the edge show a certificate that lasts so long, or the one that is kept; return what went wrong."""
        if self._edge.place.balancer != "haproxy":
            return "nginx shows what its file holds, and no other"
        kept = self._certificates.shown
        try:
            self._edge.show_once(self._authority.issue(dt.timedelta(seconds=seconds)) if seconds else kept.read_bytes())
        except (TapewatchError, OSError) as error:
            return str(error)
        return ""

    def _say(self, command: str) -> str:
        """Give HAProxy a command; return what went wrong, or nothing."""
        try:
            said = self._edge.tell(command)
        except TapewatchError as error:
            return str(error)
        return said[:200]


def place_of(config: ServerConfig) -> EdgePlace:
    """Return what a host's configuration says of the edge.

    Raises:
        InputError: the balancer is not known.
        PermanentError: it names no gateways.
    """
    pairs = (pair.partition("=") for pair in config.options.get("gateways", "").split(",") if pair)
    gateways = {name: int(port) for name, _, port in pairs if port.isdigit()}
    if not gateways:
        raise PermanentError("the edge is told of no gateways (option `gateways`, such as gateway-1=18800)")
    return EdgePlace(
        balancer=balancer_of(config.options.get("balancer", "haproxy")),
        directory=Path(config.directory),
        certificate=Path(config.directory) / SHOWN,
        https=config.own["https"],
        stats=config.own["stats"],
        gateways=gateways,
        market_data=int(config.options.get("market_data", "0")),
        program=config.program,
    )
