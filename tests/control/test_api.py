"""The control plane over real HTTP: who may ask what, and what is answered."""

import asyncio
import io

import aiohttp
import msgspec
import pytest

from control import killswitch
from control.api import ApiParts, make_app
from control.desk import Desk
from control.plan_digest import plan_of, steps_in_words
from control.telemetry import ControlInstruments
from exchange.adapters.http import HttpServer, listen
from exchange.recording import RecordingExposition
from incidents.timeline import Draft, EntryKind
from kernel.errors import InputError
from kernel.time import to_rfc3339
from runbooks.model import Ask, Consent
from tests.sim.library import LIBRARY
from tests.sim.world import METER, World

ADMIN, WEBHOOK = "admin-secret", "webhook-secret"
ROUTES = {
    ("POST", "/api/v1/alerts"): WEBHOOK,
    ("GET", "/api/v1/incidents"): ADMIN,
    ("GET", "/api/v1/incidents/{id}"): ADMIN,
    ("GET", "/api/v1/incidents/{id}/timeline"): ADMIN,
    ("GET", "/api/v1/incidents/{id}/postmortem"): ADMIN,
    ("POST", "/api/v1/incidents/{id}/causes"): ADMIN,
    ("POST", "/api/v1/incidents/{id}/ack"): ADMIN,
    ("POST", "/api/v1/incidents/{id}/note"): ADMIN,
    ("POST", "/api/v1/incidents/{id}/resolve"): ADMIN,
    ("GET", "/api/v1/runbooks"): ADMIN,
    ("POST", "/api/v1/runbooks/{name}/run"): ADMIN,
    ("POST", "/api/v1/runbooks/{name}/rehearse"): ADMIN,
    ("GET", "/api/v1/runs"): ADMIN,
    ("GET", "/api/v1/consents"): ADMIN,
    ("POST", "/api/v1/consents"): ADMIN,
    ("GET", "/api/v1/kill-switch"): ADMIN,
    ("PUT", "/api/v1/kill-switch"): ADMIN,
    ("GET", "/health/live"): "",
    ("GET", "/health/ready"): "",
    ("GET", "/metrics"): "",
}
TITLE = "<script>alert(1)</script>"


class Site:
    def __init__(self, world, parts, session, base):
        self.world, self.parts, self.session, self.base = world, parts, session, base

    async def ask(self, method, path, body=None, *, token=ADMIN, raw=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = io.BytesIO(raw) if raw is not None else None if body is None else msgspec.json.encode(body)
        async with self.session.request(method, self.base + path, data=data, headers=headers) as answer:
            content = await answer.read()
            self.headers = answer.headers
            return answer.status, msgspec.json.decode(content) if "json" in answer.content_type else content.decode()


@pytest.fixture
async def site(tmp_path):
    world = World(1, tmp_path)
    world.start()
    life = world.life
    store = life.loop._p.store
    now = world.clock.now()
    data = {"incident": "INC-1", "title": TITLE, "level": 2, "service": "gateway", "team": "t", "key": "gateway"}
    world.store.append("INC-1", [Draft(now, EntryKind.OPENED, "control", TITLE, data)])
    labels = {"alertname": TITLE, "service": "gateway"}
    alert = {"fingerprint": "f", "alertname": TITLE, "labels": labels, "annotations": {}, "starts_at": now}
    world.store.append("INC-1", [Draft(now, EntryKind.ALERT_FIRING, "alertmanager", TITLE, alert)])
    parts = ApiParts(
        intake=life.intake, desk=Desk(store, life.loop, list(LIBRARY.values()), world.clock), consents=life.consents,
        deadman=life.deadman, library=list(LIBRARY.values()), library_errors=[InputError("x.yaml:3", "is broken")],
        kill_switch=world.kill_switch, telemetry=ControlInstruments(METER), exposition=RecordingExposition(),
        clock=world.clock, webhook_secret=WEBHOOK, admin_secret=ADMIN,
    )  # fmt: skip
    server = HttpServer(make_app(parts), listen(0))
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield Site(world, parts, session, f"http://127.0.0.1:{server.port}")
    await server.stop()
    await world.stop()


def notification(*, name="Odd", status="firing", start=1):
    alert = {
        "status": status, "labels": {"alertname": name}, "annotations": {}, "fingerprint": "f1",
        "startsAt": to_rfc3339(start), "endsAt": to_rfc3339(start + 10**9),
    }  # fmt: skip
    return {"version": "4", "groupKey": "g", "alerts": [alert]}


def test_the_routes_are_these_and_no_others(tmp_path):
    nothing = dict.fromkeys(ApiParts.__dataclass_fields__)
    app = make_app(ApiParts(**{**nothing, "webhook_secret": "w", "admin_secret": "a"}))
    found = {(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}}
    assert found == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])
async def test_only_the_holder_of_the_right_secret_gets_in(site, method, path):
    right = ROUTES[method, path]
    where = path.format(id="INC-1", name="gateway-down")
    for token in ("", "wrong", WEBHOOK, ADMIN, ADMIN + "x", "é"):
        status, answer = await site.ask(method, where, token=token, raw=b"{")
        assert (status == 401) is bool(right and token != right), f"{token}: {status} {answer}"
        assert status < 500
        assert site.headers["X-Content-Type-Options"] == "nosniff"
        assert site.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/", "/api/v1", "/api/v1/alerts/x", "/admin/faults"]
)
async def test_what_is_not_there_says_so_in_one_sentence(site, path):
    status, answer = await site.ask("GET", path)
    assert status == 404
    assert answer == {"error": f"GET {path} is not known here"}
    assert site.headers["X-Frame-Options"] == "DENY"


async def test_another_method_is_not_allowed(site):
    status, answer = await site.ask("DELETE", "/api/v1/incidents")
    assert status == 405
    assert set(answer) == {"error"}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/api/v1/incidents/INC-9", None, 404),
        ("POST", "/api/v1/incidents/INC-9/causes", None, 404),
        ("GET", "/api/v1/incidents/INC-9/postmortem", None, 404),
        ("POST", "/api/v1/runbooks/nothing/run", {"by": "anna"}, 404),
        ("GET", "/api/v1/incidents/INC-1/postmortem?format=exe", None, 400),
        ("POST", "/api/v1/incidents/INC-1/ack", {"by": ""}, 400),
        ("POST", "/api/v1/incidents/INC-1/ack", {"by": "a\nb"}, 400),
        ("POST", "/api/v1/incidents/INC-1/ack", {"who": "anna"}, 400),
        ("POST", "/api/v1/incidents/INC-1/ack", [], 400),
        ("POST", "/api/v1/incidents/INC-1/note", {"by": "anna", "text": " "}, 400),
        ("POST", "/api/v1/incidents/INC-1/note", {"by": "anna", "text": "x" * 4_001}, 400),
        ("POST", "/api/v1/incidents/INC-1/note", {"by": "anna", "text": "x" * 70_000}, 400),
        ("POST", "/api/v1/consents", {"run": "r", "by": "anna", "grant": True}, 422),
        ("POST", "/api/v1/consents", {"run": "r", "by": " ", "grant": True}, 400),
        ("POST", "/api/v1/consents", {"run": "r", "by": "anna", "grant": "yes"}, 400),
        ("POST", "/api/v1/consents", {"run": "r", "by": "anna", "grant": True, "plan": 1}, 400),
        ("POST", "/api/v1/runbooks/gateway-down/run", {"by": "anna"}, 409),
        ("POST", "/api/v1/runbooks/nothing/rehearse", {}, 404),
        ("POST", "/api/v1/runbooks/gateway-down/rehearse", {}, 409),
        ("POST", "/api/v1/runbooks/gateway-down/rehearse", {"by": "anna"}, 400),
        ("PUT", "/api/v1/kill-switch", {"by": "anna"}, 400),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_sentence(site, method, path, body, expected):
    status, answer = await site.ask(method, path, body)
    assert status == expected, answer
    assert set(answer) == {"error"}


async def test_a_webhook_is_kept_before_it_is_answered(site):
    status, answer = await site.ask("POST", "/api/v1/alerts", notification(), token=WEBHOOK)
    assert (status, answer) == (202, {"taken_in": 1})
    assert site.world.store.take_in(list(site.world.store._signals.values())) == 0
    assert len(site.world.store._signals) == 1


async def test_a_webhook_that_cannot_be_kept_is_asked_to_come_back(site):
    site.world.store_down = True
    status, _ = await site.ask("POST", "/api/v1/alerts", notification(), token=WEBHOOK)
    assert status == 503
    assert not site.world.store._signals


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"version":"4"}', b"\xff", b"[" * 5_000, b'{"a":NaN}'])
async def test_a_hostile_webhook_is_refused_with_a_reason(site, raw):
    status, answer = await site.ask("POST", "/api/v1/alerts", raw=raw, token=WEBHOOK)
    assert status == 400
    assert answer["error"].startswith("webhook")


async def test_a_huge_webhook_is_refused_before_it_is_read_whole(site):
    status, answer = await site.ask("POST", "/api/v1/alerts", raw=b" " * (4 * 1024 * 1024 + 1), token=WEBHOOK)
    assert status == 400
    assert "longer than" in answer["error"]


async def test_acknowledging_twice_is_refused(site):
    assert (await site.ask("POST", "/api/v1/incidents/INC-1/ack", {"by": "anna"}))[0] == 200
    status, answer = await site.ask("POST", "/api/v1/incidents/INC-1/ack", {"by": "ben"})
    assert status == 409
    assert "acknowledged" in answer["error"]


async def test_the_kill_switch_is_thrown_and_released(site):
    status, answer = await site.ask("PUT", "/api/v1/kill-switch", {"on": True, "by": "anna", "why": "test"})
    assert (status, answer["on"], answer["thrown"]["by"]) == (200, True, "anna")
    assert killswitch.read(site.world.kill_switch) is not None
    refused, said = await site.ask("POST", "/api/v1/runbooks/order-latency-high/run", {"by": "anna"})
    assert refused == 409
    assert "kill" in said["error"]
    assert (await site.ask("PUT", "/api/v1/kill-switch", {"on": False, "by": "anna"}))[1]["on"] is False
    assert killswitch.read(site.world.kill_switch) is None


async def _question(site, consent):
    """Let a run ask; return the task that waits and what the API tells of the question."""
    runbook, looked = LIBRARY["EngineDown"], asyncio.Event()

    async def look():
        facts = await site.world._facts(site.world.life)
        looked.set()
        return plan_of(runbook, facts)

    waiting = asyncio.create_task(
        site.parts.consents.wait_for("INC-1/run-1", Ask(consent, "mend it"), look, does=steps_in_words(runbook))
    )
    await looked.wait()
    (asked,) = (await site.ask("GET", "/api/v1/consents"))[1]
    return waiting, asked


async def test_a_question_names_its_plan_what_would_be_done_and_the_time_left(site):
    waiting, asked = await _question(site, Consent.FOUR_EYES)
    assert asked["plan"].startswith(asked["plan_short"])
    assert asked["does"][0].startswith("restart engine-1 of engine; proven by engine_ready == 1 for 2s within 10s")
    assert 0 < asked["left_s"] <= 20
    assert (asked["consent"], asked["needed"], asked["granted"]) == ("four_eyes", 2, [])
    assert asked["stands_on"]["engine desired"] == "1"
    waiting.cancel()


async def test_an_approval_names_the_plan_and_another_is_refused(site):
    waiting, asked = await _question(site, Consent.FOUR_EYES)
    answer = {"run": asked["run"], "by": "anna", "grant": True}
    status, told = await site.ask("POST", "/api/v1/consents", {**answer, "plan": "0" * 12})
    assert status == 409
    assert f"asks for plan {asked['plan_short']}, not 000000000000" in told["error"]
    assert (await site.ask("POST", "/api/v1/consents", {**answer, "plan": asked["plan_short"]}))[0] == 200
    assert (await site.ask("POST", "/api/v1/consents", answer))[0] == 409
    status, told = await site.ask("POST", "/api/v1/consents", {**answer, "by": "ben"})
    assert (status, told) == (200, {"said": f"granted for plan {asked['plan_short']}: the run goes on"})
    verdict = await waiting
    assert (verdict.granted, verdict.by, verdict.plan) == (True, ("anna", "ben"), asked["plan"])


async def test_a_denial_says_why(site):
    waiting, asked = await _question(site, Consent.ONE_APPROVER)
    body = {"run": asked["run"], "by": "anna", "grant": False, "why": "we are moving it"}
    assert (await site.ask("POST", "/api/v1/consents", body))[0] == 200
    assert (await waiting).detail == "denied by anna: we are moving it"


async def test_a_rehearsal_says_what_would_be_done_and_changes_nothing(site):
    site.world.workloads.set_ready("gateway", "gateway-1", ready=False)
    site.world.sample()
    before = site.world.store.runs_since(0), site.world.store.incidents(), site.world.workloads.writes
    body = {"labels": {"replica": "gateway-1"}}
    status, told = await site.ask("POST", "/api/v1/runbooks/gateway-down/rehearse", body)
    assert (status, told["would"], told["consent"]) == (200, "would_begin", "automatic")
    assert [guard["holds"] for guard in told["guards"]] == [True, True]
    (step,) = told["steps"]
    assert step["platform"] == ["would restart gateway-1 of gateway"]
    assert step["replicas"] == "1 of 2 replicas of gateway"
    assert (site.world.store.runs_since(0), site.world.store.incidents(), site.world.workloads.writes) == before


async def test_a_report_is_escaped_and_may_load_nothing(site):
    status, page = await site.ask("GET", "/api/v1/incidents/INC-1/postmortem")
    assert status == 200
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert site.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_a_fault_of_the_program_is_500_without_its_details(site, monkeypatch):
    async def broken():
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(site.parts.desk, "runs", broken)
    status, answer = await site.ask("GET", "/api/v1/runs")
    assert status == 500
    assert "secret" not in str(answer)
