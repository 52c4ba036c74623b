"""One local server that plays every provider of pages: it checks what it is sent, and answers as it is told.

Method, path, headers, authorization and body are held to the provider's published contract (`schemas/`); what breaks it
is answered as the provider would, and kept in `problems`. Scripted answers come after the checks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import jsonschema
from aiohttp import web

from incidents.paging.twilio import signature

SCHEMAS = {
    path.stem: jsonschema.Draft202012Validator(json.loads(path.read_text()))
    for path in (Path(__file__).parent / "schemas").glob("*.json")
}
ACCOUNT = "AC" + "0123456789abcdef" * 2
TWILIO_TOKEN = "twilio-token-1234567890"
GENIE_KEY = "genie-key-1234567890"
ROUTING_KEY = "R0123456789abcdef0123456789abcde"
SLACK_TOKEN = "xoxb-1234567890-secret"
SLACK_CHANNEL = "C0123456789"
TELEGRAM_TOKEN = "123456:telegram-secret"
WEBHOOK_TOKEN = "webhook-secret-1234567890"
PATHS = {
    "teams": "/workflows/5f3a/triggers/manual/paths/invoke?sig=teams-secret-signature",
    "zenduty": "/integration/abcde/generic/zenduty-secret-key/",
    "slack-webhook": "/services/T0000/B0000/slack-webhook-secret",
    "discord": "/api/webhooks/42/discord-secret-token",
}
TEAMS_BYTES_MAX = 28 * 1024
DISCORD_EMBEDS_LETTERS_MAX = 6000


@dataclass
class Say:
    """Answer this; the message is not kept unless `keep`."""

    status: int
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)
    keep: bool = False


@dataclass
class Cut:
    """Cut the connection without an answer; `keep`: after the message was taken."""

    keep: bool = False


@dataclass
class Slow:
    """Take the message, then let the asker wait for so long."""

    seconds: float
    keep: bool = True


@dataclass
class Later:
    """Accept, and let the receipt say this (provider's own word); None: it never says anything."""

    word: str | None


Answer = Say | Cut | Slow | Later


@dataclass
class Received:
    provider: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    problem: str = ""
    answer: Answer | None = None
    ref: str = ""


class Sinks:
    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.kept: dict[str, list[Received]] = defaultdict(list)
        self.scripts: dict[str, deque[Answer]] = defaultdict(deque)
        self.receipts: dict[str, str | None] = {}
        """What asking for a receipt is answered, by the provider's reference."""
        self.polls = 0
        self.history_right = True

    @property
    def problems(self) -> list[str]:
        return [f"{one.provider}: {one.problem}" for one in self.received if one.problem]

    def script(self, provider: str, *answers: Answer) -> None:
        self.scripts[provider].extend(answers)

    def sent(self, provider: str) -> list[Received]:
        return [one for one in self.received if one.provider == provider]

    def alerts(self, provider: str) -> set[str]:
        """What a keyed provider shows: one alert a key, however often it was told."""
        return {self._key(one) for one in self.kept[provider]}

    @staticmethod
    def _key(one: Received) -> str:
        for name in ("alias", "dedup_key", "entity_id"):
            if name in one.body:
                return str(one.body[name])
        return one.path.split("/")[-2]

    # --- the server --------------------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        post = app.router.add_post
        post("/services/{t}/{b}/{x}", self._route("slack-webhook", self._slack_webhook))
        post("/api/chat.postMessage", self._route("slack", self._slack("slack-chat-post")))
        post("/api/chat.update", self._route("slack-update", self._slack("slack-chat-update")))
        app.router.add_get("/api/conversations.history", self._history)
        for prefix in ("", "/jsm/ops/integration"):
            post(prefix + "/v2/alerts", self._route("opsgenie", self._genie("opsgenie-create")))
            post(prefix + "/v2/alerts/{alias}/close", self._route("opsgenie", self._genie("opsgenie-close")))
            app.router.add_get(prefix + "/v2/alerts/requests/{ref}", self._genie_status)
        post("/v2/enqueue", self._route("pagerduty", self._pagerduty))
        post("/api/webhooks/42/{token}", self._route("discord", self._discord))
        post("/bot{token}/sendMessage", self._route("telegram", self._telegram))
        post("/workflows/{id}/triggers/manual/paths/invoke", self._route("teams", self._teams))
        post("/integration/{account}/generic/{key}/", self._route("zenduty", self._zenduty))
        app.router.add_get("/api/alert/status/{ref}", self._zenduty_status)
        accounts = "/2010-04-01/Accounts/{account}"
        for name, provider, schema in (("Messages", "sms", "twilio-message"), ("Calls", "call", "twilio-call")):
            post(f"{accounts}/{name}.json", self._route(provider, self._twilio(schema)))
            app.router.add_get(f"{accounts}/{name}.json", self._twilio_list(provider))
            app.router.add_get(f"{accounts}/{name}/{{ref}}.json", self._twilio_status(provider))
        post("/hook", self._route("webhook", self._webhook))
        return app

    def _route(self, provider: str, check: Callable[[web.Request, Received], tuple[str, Say]]):
        async def endpoint(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            one = Received(provider, request.method, request.path_qs, dict(request.headers), None)
            self.received.append(one)
            form = request.content_type == "application/x-www-form-urlencoded"
            try:
                one.body = dict(parse_qsl(raw.decode(), strict_parsing=True)) if form else json.loads(raw)
            except ValueError:
                one.problem, one.body = "the body is not what its content type says", {}
                return web.json_response({"error": "unreadable"}, status=400)
            one.problem, usual = check(request, one)
            if one.problem:
                return _said(usual)
            script = self.scripts[provider]
            one.answer = script.popleft() if script else usual
            return await self._answer(request, one, usual)

        return endpoint

    async def _answer(self, request: web.Request, one: Received, usual: Say) -> web.StreamResponse:
        match one.answer:
            case Say(keep=keep) as say:
                if keep or say is usual:
                    self._keep(one)
                return _said(say)
            case Later(word):
                self._keep(one)
                self.receipts[one.ref] = word
                return _said(usual)
            case Slow(seconds, keep):
                if keep:
                    self._keep(one)
                await asyncio.sleep(seconds)
                return _said(usual)
            case Cut(keep):
                if keep:
                    self._keep(one)
                assert request.transport is not None
                request.transport.close()
                raise asyncio.CancelledError
        raise AssertionError(one.answer)

    def _keep(self, one: Received) -> None:
        self.kept[one.provider].append(one)
        self.receipts.setdefault(one.ref, "good")

    # --- each provider: a problem, and the usual answer -------------------------------------------------------------

    def _slack_webhook(self, request: web.Request, one: Received) -> tuple[str, Say]:
        problem = _json(request) or _against("slack-webhook", one.body)
        return problem, Say(400, "invalid_payload") if problem else Say(200, "ok")

    def _slack(self, schema: str):
        def check(request: web.Request, one: Received) -> tuple[str, Say]:
            if request.headers.get("Authorization") != f"Bearer {SLACK_TOKEN}":
                return "authorization", Say(200, {"ok": False, "error": "invalid_auth"})
            problem = _json(request) or _against(schema, one.body)
            one.ref = f"1700000000.{len(self.received):06d}"
            good = {"ok": True, "channel": one.body.get("channel"), "ts": one.ref}
            return problem, Say(200, {"ok": False, "error": "invalid_blocks"} if problem else good)

        return check

    async def _history(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {SLACK_TOKEN}" or not self.history_right:
            return web.json_response({"ok": False, "error": "missing_scope"})
        float(request.query["oldest"])
        messages = [
            {"ts": one.ref, "text": one.body.get("text"), "metadata": one.body.get("metadata")}
            for one in self.kept["slack"]
            if one.body["channel"] == request.query["channel"]
        ]
        return web.json_response({"ok": True, "messages": messages, "has_more": False})

    def _genie(self, schema: str):
        def check(request: web.Request, one: Received) -> tuple[str, Say]:
            if request.headers.get("Authorization") != f"GenieKey {GENIE_KEY}":
                return "authorization", Say(401, {"message": "Key format is not valid!"})
            problem = _json(request) or _against(schema, one.body)
            if schema == "opsgenie-close" and request.query.get("identifierType") != "alias":
                problem = problem or "identifierType is not alias"
            if sum(len(key) + len(str(text)) for key, text in (one.body.get("details") or {}).items()) > 8000:
                problem = problem or "details have more than 8000 letters"
            one.ref = f"request-{len(self.received)}"
            good = {"result": "Request will be processed", "took": 0.1, "requestId": one.ref}
            return problem, Say(422, {"message": problem}) if problem else Say(202, good)

        return check

    async def _genie_status(self, request: web.Request) -> web.Response:
        self.polls += 1
        if request.headers.get("Authorization") != f"GenieKey {GENIE_KEY}":
            return web.json_response({"message": "Key format is not valid!"}, status=401)
        word = self.receipts.get(request.match_info["ref"])
        if word is None:
            return web.json_response({"message": "Request not found"}, status=404)
        good = word == "good"
        data = {"isSuccess": good, "success": good, "action": "Create", "status": "Created alert" if good else word}
        return web.json_response({"data": data, "took": 0.1, "requestId": request.match_info["ref"]})

    def _pagerduty(self, request: web.Request, one: Received) -> tuple[str, Say]:
        problem = _json(request) or _against("pagerduty-event", one.body)
        if not problem and one.body["routing_key"] != ROUTING_KEY:
            problem = "routing_key"
        if problem:
            return problem, Say(
                400, {"status": "invalid event", "message": "Event object is invalid", "errors": [problem]}
            )
        key = one.body.get("dedup_key", "made-by-pagerduty")
        return "", Say(202, {"status": "success", "message": "Event processed", "dedup_key": key})

    def _discord(self, request: web.Request, one: Received) -> tuple[str, Say]:
        problem = _json(request) or _against("discord-webhook", one.body)
        embeds = one.body.get("embeds") or []
        letters = sum(len(one.get("title", "")) + len(one.get("description", "")) for one in embeds)
        if letters > DISCORD_EMBEDS_LETTERS_MAX:
            problem = problem or "embeds have more than 6000 letters"
        if request.match_info["token"] != "discord-secret-token":
            return "token", Say(401, {"message": "Invalid Webhook Token", "code": 50027})
        return problem, Say(400, {"message": "Invalid Form Body", "code": 50035}) if problem else Say(204)

    def _telegram(self, request: web.Request, one: Received) -> tuple[str, Say]:
        if request.match_info["token"] != TELEGRAM_TOKEN:
            return "token", Say(401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
        problem = _json(request) or _against("telegram-send", one.body)
        if problem:
            return problem, Say(400, {"ok": False, "error_code": 400, "description": f"Bad Request: {problem}"})
        chat = {"id": int(one.body["chat_id"]), "type": "group", "title": "on call"}
        result = {"message_id": len(self.received), "date": 1700000000, "chat": chat, "text": one.body["text"]}
        return "", Say(200, {"ok": True, "result": result})

    def _teams(self, request: web.Request, one: Received) -> tuple[str, Say]:
        if request.query.get("sig") != "teams-secret-signature":
            return "signature", Say(401, {"error": {"code": "DirectApiAuthorizationRequired"}})
        if int(request.headers["Content-Length"]) > TEAMS_BYTES_MAX:
            return "longer than 28 KB", Say(413, "Request Entity Too Large")
        problem = _json(request) or _against("teams-workflow", one.body)
        return problem, Say(400, {"error": {"code": "InvalidRequest"}}) if problem else Say(202)

    def _zenduty(self, request: web.Request, one: Received) -> tuple[str, Say]:
        if request.match_info["key"] != "zenduty-secret-key":
            return "key", Say(404, {"message": "not found"})
        problem = _json(request) or _against("zenduty-event", one.body)
        one.ref = f"trace-{len(self.received)}"
        return problem, Say(400, {"message": problem}) if problem else Say(
            201, {"message": "success", "trace_id": one.ref}
        )

    async def _zenduty_status(self, request: web.Request) -> web.Response:
        self.polls += 1
        word = self.receipts.get(request.match_info["ref"])
        if word is None:
            return web.json_response({"message": "not processed yet"}, status=202)
        if word == "good":
            return web.json_response({"status": "processed", "incident_number": 7})
        return web.json_response({"status": "failed", "message": word})

    def _twilio(self, schema: str):
        def check(request: web.Request, one: Received) -> tuple[str, Say]:
            expected = base64.b64encode(f"{ACCOUNT}:{TWILIO_TOKEN}".encode()).decode()
            if request.headers.get("Authorization") != f"Basic {expected}" or request.match_info["account"] != ACCOUNT:
                return "authorization", Say(401, {"code": 20003, "message": "Authenticate", "status": 401})
            if request.content_type != "application/x-www-form-urlencoded":
                return "content type", Say(400, {"code": 20001, "message": "content type"})
            problem = _against(schema, one.body)
            one.ref = f"{'SM' if schema == 'twilio-message' else 'CA'}{len(self.received):032x}"
            if problem:
                return problem, Say(400, {"code": 21617, "message": problem, "status": 400})
            return "", Say(201, {"sid": one.ref, "status": "queued", "to": one.body["To"]})

        return check

    def _twilio_list(self, provider: str):
        async def listed(request: web.Request) -> web.Response:
            found = [
                {"sid": one.ref, "body": one.body.get("Body"), "to": one.body["To"], "from": one.body["From"]}
                for one in self.kept[provider]
                if one.body["To"] == request.query["To"] and one.body["From"] == request.query["From"]
            ]
            return web.json_response({"messages" if provider == "sms" else "calls": found})

        return listed

    def _twilio_status(self, provider: str):
        async def status(request: web.Request) -> web.Response:
            self.polls += 1
            word = self.receipts.get(request.match_info["ref"])
            good = "delivered" if provider == "sms" else "completed"
            return web.json_response(
                {"sid": request.match_info["ref"], "status": {"good": good, None: "queued"}.get(word, word)}
            )

        return status

    def _webhook(self, request: web.Request, one: Received) -> tuple[str, Say]:
        if request.headers.get("Authorization") != f"Bearer {WEBHOOK_TOKEN}":
            return "authorization", Say(401)
        problem = _json(request) or _against("alertmanager-webhook", one.body)
        return problem, Say(400, problem) if problem else Say(200)

    async def call_back(self, one: Received, word: str, *, token: str = TWILIO_TOKEN, sid: str = "") -> int:
        """Play Twilio's callback for a message or call that was sent; returns the answer's status."""
        url, kind = one.body["StatusCallback"], "Message" if one.provider == "sms" else "Call"
        form = {f"{kind}Sid": sid or one.ref, f"{kind}Status": word, "AccountSid": ACCOUNT, "To": one.body["To"]}
        headers = {"X-Twilio-Signature": signature(token, url, form.items())}
        async with aiohttp.ClientSession() as session, session.post(url, data=form, headers=headers) as response:
            return response.status


def _json(request: web.Request) -> str:
    return "" if request.content_type == "application/json" else f"content type {request.content_type}"


def _against(schema: str, body: Any) -> str:
    """Return the first way in which a body breaks a schema, empty when it keeps it."""
    for error in SCHEMAS[schema].iter_errors(body):
        return f"{'/'.join(map(str, error.absolute_path)) or 'body'}: {error.message[:200]}"
    return ""


def _said(say: Say) -> web.Response:
    if isinstance(say.body, str):
        return web.Response(status=say.status, text=say.body, headers=say.headers)
    return web.json_response(say.body, status=say.status, headers=say.headers)


@contextlib.asynccontextmanager
async def sinks() -> AsyncIterator[Sinks]:
    """Run the server on a free port of this machine."""
    made = Sinks()
    runner = web.AppRunner(made.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()
