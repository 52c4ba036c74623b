"""Consent and live rehearsal from the terminal, against a real control room on a simulated plant."""

import asyncio
import contextlib
import json
from dataclasses import replace

import msgspec
import pytest

from control.addresses import Addresses, save_addresses, url_of
from control.api import ApiParts, make_app
from control.child import now
from control.desk import Desk
from control.layout import STATE_VERSION
from control.market import Market
from control.plan import free_ports
from control.state_dir import StateDir
from control.telemetry import ControlInstruments
from exchange.adapters.http import HttpServer, listen
from exchange.recording import RecordingExposition
from kernel.time import Instant
from runbooks.model import Consent
from tests.control.desk_plant import desk_plant
from tests.control.test_cli import run, run_beside
from tests.sim.library import GATEWAY, LATENCY
from tests.sim.world import METER, World

LIVE = "runbook", "rehearse", "gateway-down", "--against", "live", "--label", "replica=gateway-1"


@contextlib.asynccontextmanager
async def room(root, consent=Consent.FOUR_EYES):
    """Hold a state directory whose control answers for a simulated plant in which gateway-1 hangs."""
    gateway = msgspec.structs.replace(GATEWAY, consent=consent)
    world = World(1, root / "world", library={"GatewayDown": gateway, "OrderLatencyHigh": LATENCY})
    (root / "world").mkdir()
    state = StateDir(root / "state")
    port, nobody = free_ports(2)
    try:
        state.fill(symbols=2, seed=1)
        dead = url_of(nobody)
        save_addresses(
            Addresses(
                version=STATE_VERSION, phase="up", pid=1, started_at=now(), state=str(state.layout.root), estate=dead,
                control=url_of(port), prometheus=dead, alertmanager=dead, market_data=dead, settlement=dead,
                engine=dead, load=dead, engine_stream_port=nobody, faults_allowed=False, workloads={},
            ),
            state.layout.addresses,
        )  # fmt: skip
        world.hang("gateway", "gateway-1")
        world.start()
        life = world.life
        driver = life.loop._p.driver
        market = Market(driver._parts.metrics, world.clock, symbols=2)
        driver._parts = replace(driver._parts, market=market.with_shares)
        parts = ApiParts(
            intake=life.intake, desk=Desk(life.loop._p.store, life.loop, [gateway, LATENCY], world.clock),
            consents=life.consents, deadman=life.deadman, library=[gateway, LATENCY], library_errors=[],
            kill_switch=world.kill_switch, telemetry=ControlInstruments(METER), exposition=RecordingExposition(),
            clock=world.clock, webhook_secret="w", admin_secret=state.layout.secret("admin").read_text(),
        )  # fmt: skip
        server = HttpServer(make_app(parts), listen(port))
        await server.start()
        ticking = asyncio.create_task(_tick(world))
        try:
            yield world, lambda *words: run_beside(*words, "--state", state.layout.root)
        finally:
            ticking.cancel()
            await server.stop()
            await world.stop()
    finally:
        state.release()


async def _tick(world):
    while True:
        world.sample()
        await asyncio.sleep(0.2)


async def _eventually(holds):
    for _ in range(1200):
        if holds():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it never came to that")


async def _asking(tell):
    async with asyncio.timeout(60):
        while True:
            found = json.loads((await tell("runbook", "asking", "--json"))[1])
            if found:
                return found[0]


async def test_two_people_approve_a_plan_by_its_hash_and_the_run_acts(tmp_path):
    async with room(tmp_path) as (world, tell):
        code, out, _ = await tell("runbook", "run", "gateway-down", "--label", "replica=gateway-1", "--by", "anna")
        assert code == 0
        asked = await _asking(tell)
        assert asked["run"] in out
        plan = asked["plan_short"]
        code, out, _ = await tell("runbook", "asking")
        for words in (
            "wants to  gateway-down: restart gateway-1 of gateway",
            "restart gateway-1 of gateway; proven by",
            f"plan      {plan}",
            "agreed    nobody; 2 more people needed",
            "s, then silence counts as no",
            f"tapewatch approve {asked['run']} --plan {plan}",
        ):
            assert words in out
        code, _, err = await tell("approve", asked["run"], "--by", "anna", "--plan", "0" * 12)
        assert (code, f"asks for plan {plan}, not 000000000000" in err) == (3, True)
        assert (await tell("approve", asked["run"], "--by", "anna", "--plan", "latest"))[0] == 2
        code, out, _ = await tell("approve", asked["run"], "--by", "anna", "--plan", plan)
        assert (code, out) == (0, f"agreed to plan {plan}: 1 more person has to agree\n")
        assert (await tell("approve", asked["run"], "--by", "Anna"))[0] == 3
        code, out, _ = await tell("runbook", "approve", asked["run"], "--by", "ben")
        assert (code, out) == (0, f"granted for plan {plan}: the run goes on\n")
        await _eventually(lambda: world.done)
        assert [done.key for done in world.done] == [f"{asked['run']}/0"]


async def test_a_denial_with_its_reason_ends_the_run(tmp_path):
    async with room(tmp_path, Consent.ONE_APPROVER) as (world, tell):
        await tell("runbook", "run", "gateway-down", "--label", "replica=gateway-1", "--by", "anna")
        asked = await _asking(tell)
        code, out, _ = await tell("deny", asked["run"], "--by", "ben", "--why", "we are at it")
        assert (code, out) == (0, "denied: the run ends without acting\n")
        await _eventually(lambda: world.store.run(asked["run"]).outcome)
        ended = world.store.run(asked["run"])
        assert (ended.outcome, ended.reason) == ("refused", "no_consent")
        assert "Denied by ben: we are at it" in ended.detail
        assert (await tell("runbook", "asking"))[1] == "no run waits for consent\n"


async def test_a_live_rehearsal_says_what_would_be_done_and_does_nothing(tmp_path):
    async with room(tmp_path) as (world, tell):
        await asyncio.sleep(0.3)
        code, out, err = await tell(*LIVE)
        assert code == 0, out + err
        for words in (
            "gateway-down on gateway/gateway-1, as things are now: gateway-down",
            "phase     the market is in continuous",
            'guard     up{replica="gateway-1"} == 0 holds: it reads 0',
            "step 1    RestartReplica: restart gateway-1 of gateway",
            "touches 1 of 2 replicas of gateway; nothing of the market goes through it now",
            "platform: would restart gateway-1 of gateway",
            "the rails permit it",
            "it reads 0, which does not hold now",
            "consent   two different people have to approve (level 2)",
            "would begin: two different people have to approve plan ",
            "Nothing was done.",
        ):
            assert words in out
        code, out, _ = await tell(*LIVE, "--json")
        told = json.loads(out)
        assert (code, told["would"], told["people"]) == (0, "would_begin", 2)
        assert not world.done
        assert not world.store.runs_since(Instant(0))
        assert not world.store.incidents()


async def test_the_plan_of_a_rehearsal_is_the_plan_that_is_asked_for(tmp_path):
    async with room(tmp_path) as (_, tell):
        await asyncio.sleep(0.3)
        rehearsed = json.loads((await tell(*LIVE, "--json"))[1])["plan"]
        await tell("runbook", "run", "gateway-down", "--label", "replica=gateway-1", "--by", "anna")
        assert (await _asking(tell))["plan"] == rehearsed


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda w: w.throw(), "would be refused (kill_switch): the kill switch is on"),
        (lambda w: setattr(w, "blind", "missing"), "would be refused (no_evidence): Guard up"),
        (lambda w: setattr(w, "facts_allowed", ("engine",)), "would be refused (not_allowed): "),
        (
            lambda w: w.workloads.set_ready("gateway", "gateway-1", ready=True),
            "would not apply (guard_not_met): Guard up",
        ),
    ],
)
async def test_a_rehearsal_that_would_be_refused_says_why_and_exits_3(tmp_path, spoil, told):
    async with room(tmp_path) as (world, tell):
        spoil(world)
        await asyncio.sleep(0.3)
        code, out, _ = await tell(*LIVE)
        assert code == 3
        assert told in out
        assert out.rstrip().endswith("Nothing was done.")


async def test_a_rehearsal_without_its_labels_or_for_nothing_is_one_sentence(tmp_path):
    async with room(tmp_path) as (_, tell):
        code, _, err = await tell("runbook", "rehearse", "gateway-down", "--against", "live")
        assert (code, "no_target" in err) == (3, True)
        assert (await tell("runbook", "rehearse", "nothing", "--against", "live"))[0] == 2


async def test_where_the_plant_cannot_be_seen_nothing_would_begin(tmp_path):
    async with desk_plant(tmp_path):
        code, out, _ = await run_beside(*LIVE, "--state", tmp_path)
    assert code == 3
    assert "would be refused (no_evidence)" in out
    assert "none: the plant cannot be seen" in out


def test_without_a_control_to_ask_a_rehearsal_exits_4(tmp_path):
    code, out, err = run(*LIVE, "--state", tmp_path)
    assert (code, out) == (4, "")
    assert err == f"tapewatch: no estate runs in {tmp_path}: start one with `tapewatch up`\n"
