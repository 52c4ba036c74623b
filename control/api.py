"""The control plane over HTTP: the webhook, and what people and scripts may ask and say.

Two secrets, two doors: Alertmanager holds the webhook's token and nothing else, people and the terminal the
administrator's. Every answer is JSON, reports apart; an error is `{"error": sentence}`.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control import killswitch
from control.consent import Consents, Open
from control.deadman import DeadMan
from control.desk import Desk
from control.errors import NotFoundError, RefusedByRailError
from control.intake import Intake
from control.telemetry import ControlInstruments
from exchange.adapters.http import words_of_no_route
from exchange.ports import Exposition
from incidents.signals import BODY_BYTES_MAX, parse_webhook
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import Clock
from runbooks.model import Runbook

Endpoint = Callable[[Request], Awaitable[Response]]

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SMALL_BODY: Final = 64 * 1024


@dataclass(frozen=True)
class ApiParts:
    """What the API works with."""

    intake: Intake
    desk: Desk
    consents: Consents
    deadman: DeadMan
    library: Sequence[Runbook]
    library_errors: Sequence[InputError]
    kill_switch: Path
    telemetry: ControlInstruments
    exposition: Exposition
    clock: Clock
    webhook_secret: str
    admin_secret: str


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something a person says of an incident."""

    by: str
    text: str = ""
    force: bool = False
    """For closing an incident although its alerts still fire."""


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's wish to run a runbook."""

    by: str
    labels: dict[str, str] = {}


class RehearseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's wish to see what a run would do now."""

    labels: dict[str, str] = {}


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's answer to a question for consent."""

    by: str
    grant: bool
    plan: str = ""
    """The hash of the plan that is meant, whole or its first digits; empty: the one that is asked for now."""
    why: str = ""
    """For a no."""


class Throw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's hand on the kill switch."""

    on: bool
    by: str
    why: str = ""


def make_app(parts: ApiParts) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Tapewatch control", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _fault)
    api = _Api(parts)

    def route(method: str, path: str, endpoint: Endpoint, *, secret: str = "") -> None:
        app.router.add_route(path, _wrapped(endpoint, secret), methods=[method])

    admin = parts.admin_secret
    route("POST", "/api/v1/alerts", api.webhook, secret=parts.webhook_secret)
    route("GET", "/api/v1/incidents", api.incidents, secret=admin)
    route("GET", "/api/v1/incidents/{id}", api.incident, secret=admin)
    route("GET", "/api/v1/incidents/{id}/timeline", api.timeline, secret=admin)
    route("GET", "/api/v1/incidents/{id}/postmortem", api.postmortem, secret=admin)
    route("POST", "/api/v1/incidents/{id}/causes", api.causes, secret=admin)
    route("POST", "/api/v1/incidents/{id}/ack", api.acknowledge, secret=admin)
    route("POST", "/api/v1/incidents/{id}/note", api.note, secret=admin)
    route("POST", "/api/v1/incidents/{id}/resolve", api.resolve, secret=admin)
    route("GET", "/api/v1/runbooks", api.runbooks, secret=admin)
    route("POST", "/api/v1/runbooks/{name}/run", api.run, secret=admin)
    route("POST", "/api/v1/runbooks/{name}/rehearse", api.rehearse, secret=admin)
    route("GET", "/api/v1/runs", api.runs, secret=admin)
    route("GET", "/api/v1/consents", api.consents, secret=admin)
    route("POST", "/api/v1/consents", api.consent, secret=admin)
    route("GET", "/api/v1/kill-switch", api.kill_switch, secret=admin)
    route("PUT", "/api/v1/kill-switch", api.throw, secret=admin)
    route("GET", "/health/live", api.live)
    route("GET", "/health/ready", api.ready)
    route("GET", "/metrics", api.metrics)
    return app


def _wrapped(endpoint: Endpoint, secret: str) -> Endpoint:
    """Let only holders of the secret in, and turn errors into answers that say what is wrong."""
    expected = f"Bearer {secret}".encode()

    async def answer(request: Request) -> Response:  # noqa: PLR0911 - one return a kind of error
        if secret and not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            return _problem(401, "authorization: the bearer token is missing or wrong")
        try:
            return await endpoint(request)
        except NotFoundError as error:
            return _problem(404, str(error))
        except RefusedByRailError as error:
            return _problem(409, str(error))
        except (InputError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        except PermanentError as error:
            return _problem(422, str(error))
        except TemporaryError as error:
            return _problem(503, str(error))

    return answer


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _problem(status, words_of_no_route(request, status))


async def _fault(request: Request, error: Exception) -> Response:
    del request, error  # the server raises it again after this answer, so that it is seen
    return _problem(500, "a fault of the program; its log tells more")


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, _HEADERS, "application/json")


def _problem(status: int, sentence: str) -> Response:
    return _json({"error": sentence}, status)


async def _body(request: Request, limit: int) -> bytes:
    """Read a body of bounded size.

    Raises:
        InputError: it is longer.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InputError("body", f"is longer than {limit} bytes", right="send less at once")
    return bytes(body)


class _Api:
    def __init__(self, parts: ApiParts) -> None:
        self._p = parts

    async def webhook(self, request: Request) -> Response:
        """Take a notification in: 202 once durable, 4xx when it is no notification, 503 to come back."""
        started = time.perf_counter()
        code = 500
        try:
            signals = parse_webhook(await _body(request, BODY_BYTES_MAX), self._p.clock.now())
            self._p.deadman.heard(signals)
            await self._p.intake.take_in(signals)
            for status in ("firing", "resolved"):
                self._p.telemetry.signals(status, sum(signal.status == status for signal in signals))
            code = 202
            return _json({"taken_in": len(signals)}, code)
        except TemporaryError:
            code = 503
            raise
        except InputError:
            code = 400
            raise
        finally:
            self._p.telemetry.webhook(code, time.perf_counter() - started)

    async def incidents(self, request: Request) -> Response:
        return _json(await self._p.desk.incidents(everything=request.query_params.get("all") == "true"))

    async def incident(self, request: Request) -> Response:
        return _json(await self._p.desk.incident(request.path_params["id"]))

    async def timeline(self, request: Request) -> Response:
        entries, tamper = await self._p.desk.timeline(request.path_params["id"])
        return _json({"entries": entries, "tamper": tamper})

    async def postmortem(self, request: Request) -> Response:
        form = request.query_params.get("format", "html")
        if form not in {"html", "md"}:
            raise InputError("format", f"is {form[:20]!r}", right="html or md")
        text = await self._p.desk.postmortem(request.path_params["id"], form)
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
        kind = "text/html" if form == "html" else "text/markdown"
        return Response(text, 200, {**_HEADERS, **policy}, kind)

    async def causes(self, request: Request) -> Response:
        again = request.query_params.get("again") == "true"
        return _json(await self._p.desk.causes(request.path_params["id"], again=again))

    async def acknowledge(self, request: Request) -> Response:
        said = await _decoded(request, Said)
        return _json(await self._p.desk.acknowledge(request.path_params["id"], said.by))

    async def note(self, request: Request) -> Response:
        said = await _decoded(request, Said)
        return _json(await self._p.desk.note(request.path_params["id"], said.by, said.text))

    async def resolve(self, request: Request) -> Response:
        said = await _decoded(request, Said)
        return _json(await self._p.desk.resolve(request.path_params["id"], said.by, said.text, force=said.force))

    async def runbooks(self, request: Request) -> Response:
        del request
        return _json({"runbooks": list(self._p.library), "errors": [str(error) for error in self._p.library_errors]})

    async def run(self, request: Request) -> Response:
        wish = await _decoded(request, RunRequest)
        record = await self._p.desk.run(request.path_params["name"], wish.labels, wish.by)
        return _json(record, 202)

    async def rehearse(self, request: Request) -> Response:
        wish = await _decoded(request, RehearseRequest)
        return _json(await self._p.desk.rehearse(request.path_params["name"], wish.labels))

    async def runs(self, request: Request) -> Response:
        del request
        return _json(await self._p.desk.runs())

    async def consents(self, request: Request) -> Response:
        del request
        return _json([_question(one) for one in self._p.consents.open.values()])

    async def consent(self, request: Request) -> Response:
        body = msgspec.json.decode(await _body(request, _SMALL_BODY), type=dict[str, object])
        verdict = msgspec.convert({key: body[key] for key in body if key != "run"}, Verdict)
        said = self._p.consents.answer(
            str(body.get("run")), verdict.by, grant=verdict.grant, plan=verdict.plan, why=verdict.why
        )
        return _json({"said": said})

    async def kill_switch(self, request: Request) -> Response:
        del request
        thrown = killswitch.read(self._p.kill_switch)
        return _json({"on": thrown is not None, "thrown": thrown})

    async def throw(self, request: Request) -> Response:
        wish = await _decoded(request, Throw)
        if wish.on:
            # Whoever forgets to say who they are still stops everything: refusing here would be the dangerous side.
            by = wish.by.strip() or "somebody"
            killswitch.throw(self._p.kill_switch, by=by, why=wish.why, at=self._p.clock.now())
        else:
            killswitch.release(self._p.kill_switch)
        self._p.telemetry.kill_switch(on=wish.on)
        return await self.kill_switch(request)

    async def live(self, request: Request) -> Response:
        del request
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        del request
        return _json({"ready": True, "runbooks": len(self._p.library), "runbook_errors": len(self._p.library_errors)})

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(self._p.exposition.render(), 200, _HEADERS, self._p.exposition.content_type)


def _question(asked: Open) -> dict[str, object]:
    """Return a question for consent as the API tells it."""
    return {
        "run": asked.run,
        "what": asked.what,
        "does": asked.does,
        "consent": asked.consent,
        "needed": asked.needed,
        "granted": asked.granted,
        "plan": asked.plan.digest,
        "plan_short": asked.plan.short,
        "stands_on": asked.plan.basis,
        "left_s": round(asked.left_s, 1),
        "renewed": asked.renewed,
    }


T = TypeVar("T", bound=msgspec.Struct)


async def _decoded(request: Request, kind: type[T]) -> T:
    return msgspec.json.decode(await _body(request, _SMALL_BODY), type=kind)
