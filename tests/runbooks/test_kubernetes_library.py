"""Every runbook for Kubernetes, driven against a simulated plant under the real rails: to both its ends."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from control.servers.catalogue import BY_NAME as SERVICES
from kernel.time import HOUR, MILLISECOND, MINUTE, SECOND, Instant
from runbooks.adapters.fake import FakeWorkloads
from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.bind import bind
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    PauseRollout,
    ResumeRollout,
    RollBack,
    RollingRestart,
    TakeBack,
)
from runbooks.facts import MarketFacts, PlantFacts, Share
from runbooks.model import (
    Ask,
    AskAnswer,
    Conclusion,
    Consent,
    Do,
    DoAnswer,
    HaltMarket,
    KeepSnapshot,
    Look,
    LookAnswer,
    Outcome,
    Permit,
    Read,
    ReadAnswer,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    SetReplicas,
    VerifyReplay,
    Wait,
    WaitAnswer,
)
from runbooks.policy import permit
from runbooks.ports import RefusedError, Replica, WorkloadStatus
from runbooks.run import advance, run

ROOT = Path(__file__).parents[2]
START = Instant(10 * HOUR)
LIBRARY_KUBE = {runbook.name: runbook for runbook in load_library(LIBRARY, "kubernetes")[0]}
HALT_SYMBOL = "sequence-gap"
ACTING = {name: one for name, one in LIBRARY_KUBE.items() if not one.never_acts and name != HALT_SYMBOL}
WORKLOAD_ACTIONS = (
    RestartReplica, Scale, RollingRestart, RollBack, PauseRollout, ResumeRollout, DeleteReplica, Drain,
)  # fmt: skip
GATEWAY = {"service": "gateway", "replica": "gateway-5d4-a"}
LABELS: dict[str, dict[str, str]] = {
    "pod-hang": GATEWAY,
    "crash-loop": GATEWAY,
    "stuck-rollout": GATEWAY,
    "memory-leak": {"service": "market-data"},
    "node-not-ready": {"service": "cluster", "node": "n1"},
    "consumer-lag": {"service": "consumer"},
    "canary-abort": {"service": "gateway-canary"},
    "poisoned-config": GATEWAY,
    "blue-green": {"service": "engine", "colour": "green"},
    "pod-stuck": GATEWAY,
    "certificate-expiry": {"service": "monitoring", "certificate": "server"},
    "series-anomalous": {"service": "gateway", "series": "gateway-latency"},
}


def pods(workload, *names, **more):
    replicas = tuple(
        Replica(name, None, f"{name}:0", running=True, ready=True, url="", started_at=START) for name in names
    )
    status = WorkloadStatus(
        workload, len(names), replicas, 1, False, "runbook", START, settled=None, images=("tapewatch/x@sha256:1",)
    )
    return msgspec.structs.replace(status, **more)


class Plant:
    """A small exchange on Kubernetes: pods, nodes, things, a market; and the answers of a monitoring that is well.

    Readings of the step named in `refuted` speak against its proof, and so does the platform.
    """

    def __init__(self, runbook, *, refuted="", gateways=2):
        names = ("gateway-5d4-a", "gateway-5d4-b", "gateway-5d4-c", "gateway-5d4-d")[:gateways]
        self.now = START
        self.workloads = FakeWorkloads(
            [
                pods("engine", "engine-0", singleton=True, stateful=True),
                pods("gateway", *names),
                pods("gateway-canary", "gateway-canary-6f-a"),
                pods("market-data", "market-data-7c-a", singleton=True),
                pods("settlement", "settlement-88-a", singleton=True),
                pods("watchdog", "watchdog-99-a", singleton=True),
                pods("consumer", "consumer-1-a", "consumer-1-b", partitions=5),
            ],
            now=lambda: self.now,
        )
        self.workloads.things |= {
            "node:n1": {"ready": "false"}, "node:n2": {}, "node:n3": {}, "config:exchange-config": {"good": "false"},
            "service:engine": {"colour": "none"}, "gateway": {"revision": "7"},
        }  # fmt: skip
        shares = {name: Share(8, 0.8 / gateways, 0) for name in names} | {"gateway-canary-6f-a": Share(8, 0.2, 0)}
        rest = ("engine-0", "market-data-7c-a", "settlement-88-a", "watchdog-99-a", "consumer-1-a", "consumer-1-b")
        self.market = MarketFacts(phase="continuous", shares={**shares, **{name: Share(0, 0.0, 0) for name in rest}})
        self.runbook = runbook
        self.refuted = refuted
        self.halted = False
        self.did: list[str] = []
        self.step = ""
        self.approvers: list[str] = []

    async def drive(self, run_id="r"):
        generator = run(self.runbook, run_id)
        question = advance(generator)
        while not isinstance(question, Conclusion):
            self.now = Instant(self.now + MILLISECOND)
            question = advance(generator, await self.answer(question))
        return question

    async def answer(self, question):
        match question:
            case Read():
                return ReadAnswer(self.now, value=self._value(question), data_at=self.now)
            case Look():
                return await self._look(question)
            case Ask():
                self.approvers.append(question.consent)
                return AskAnswer(self.now, granted=True, by=("a", "b"))
            case Permit():
                return permit(
                    question.action, runbook=self.runbook, facts=await self.facts(), history=(), kill_switch=False,
                    now=self.now, undo=question.undo,
                )  # fmt: skip
            case Do():
                return await self._do(question)
            case Wait():
                self.now = Instant(max(self.now, question.until))
                return WaitAnswer(self.now)

    async def facts(self):
        listed = tuple(await self.workloads.list())
        return PlantFacts(
            workloads=listed, allowed=frozenset(one.name for one in listed), symbols=frozenset({"TWA"}),
            targets=await self.workloads.targets(), nodes=tuple(await self.workloads.nodes()), market=self.market,
        )  # fmt: skip

    def _value(self, question):
        good = question.purpose != "proof" or self.step != self.refuted
        expected = question.evidence.expected
        return next(value for value in (expected, expected + 1, expected - 1) if question.evidence.holds(value) is good)

    async def _look(self, question):
        if question.purpose == "proof" and self.step == self.refuted:
            return LookAnswer(self.now, settled=False, seen_at=self.now)
        if question.target.startswith("node:"):
            thing = self.workloads.things[question.target]
            return LookAnswer(self.now, settled={"cordoned", "drained"} <= set(thing), seen_at=self.now)
        status = await self.workloads.status(question.target)
        return LookAnswer(self.now, settled=status.is_settled, seen_at=status.seen_at, restarts=status.restarts)

    async def _do(self, question):
        self.step = self.step if question.undo else self._named(question.action)
        try:
            before, after = await self._act(question.action, question.key)
        except RefusedError as error:
            return DoAnswer(self.now, ok=False, refused=error.reason, error=str(error))
        self.did.append(type(question.action).__struct_config__.tag)
        return DoAnswer(self.now, ok=True, before=before, after=after)

    def _named(self, action):
        return next(step.name for step in self.runbook.steps if step.action == action)

    async def _act(self, action, key):
        plant = self.workloads
        match action:
            case HaltMarket() | ResumeMarket():
                self.halted = isinstance(action, HaltMarket)
                return {}, {}
            case VerifyReplay() | KeepSnapshot():
                return {}, {}
            case RestartReplica():
                effect = await plant.restart(action.workload, action.replica, key=key)
            case Scale():
                status = await plant.status(action.workload)
                most = min(action.maximum, status.partitions or action.maximum)
                effect = await plant.scale(
                    action.workload, min(max(status.desired + action.by, action.minimum), most), key=key
                )
            case SetReplicas():
                effect = await plant.scale(action.workload, action.replicas, key=key)
            case TakeBack():
                effect = await plant.restore(action.of, key=key)
            case _:
                effect = await plant.change(action, key=key)
        return effect.before, effect.after


def bound(name):
    runbook = bind(LIBRARY_KUBE[name], LABELS.get(name, {}))
    assert isinstance(runbook, Runbook)
    return runbook


def plant_for(name, *, refuted=""):
    plant = Plant(bound(name), refuted=refuted, gateways=4 if name == "gateway-overcapacity-kubernetes" else 2)
    if name in {"pod-hang", "pod-stuck"}:
        plant.workloads.set_ready("gateway", "gateway-5d4-a", ready=False)
    if name == "engine-crash":
        plant.workloads.set_ready("engine", "engine-0", ready=False)
    return plant


async def count(plant, workload):
    return (await plant.workloads.status(workload)).desired


# --- to the good end ----------------------------------------------------------------------------------------------

DONE = {
    "pod-hang": ["restart_replica"],
    "crash-loop": ["roll_back"],
    "stuck-rollout": ["roll_back"],
    "gateway-overload": ["scale"],
    "gateway-overcapacity-kubernetes": ["scale"],
    "order-latency": ["scale"],
    "node-not-ready": ["cordon", "drain"],
    "consumer-lag": ["scale"],
    "memory-leak": ["rolling_restart"],
    "feed-stalled-kubernetes": ["rolling_restart"],
    "settlement-lagging-kubernetes": ["rolling_restart"],
    "watchdog-down-kubernetes": ["rolling_restart"],
    "engine-crash": ["restart_replica", "verify_replay", "resume_market"],
    "engine-restart": ["halt_market", "keep_snapshot", "restart_replica", "verify_replay", "resume_market"],
    "blue-green": ["halt_market", "verify_replay", "switch_service", "resume_market"],
    "canary-abort": ["scale"],
    "poisoned-config": ["restore_config"],
    "pod-stuck": ["delete_replica"],
    "series-anomalous": ["keep_snapshot"],
}


def test_the_tables_below_name_every_runbook_that_acts():
    assert set(DONE) == set(ACTING)
    assert len(ACTING) >= 12


@pytest.mark.parametrize("name", DONE)
async def test_it_mends_within_the_rails_when_it_helps(name):
    plant = plant_for(name)
    conclusion = await plant.drive()
    assert (conclusion.outcome, conclusion.reason) == (Outcome.MENDED, ""), conclusion.detail
    assert plant.did == DONE[name]
    assert plant.halted is False
    consent = plant.runbook.consent
    assert plant.approvers == ([] if consent is Consent.AUTOMATIC else [consent])


@pytest.mark.parametrize(
    ("name", "workload", "replicas"),
    [
        ("gateway-overload", "gateway", 4),
        ("gateway-overcapacity-kubernetes", "gateway", 2),
        ("order-latency", "gateway", 3),
        ("consumer-lag", "consumer", 5),
        ("canary-abort", "gateway-canary", 0),
    ],
)
async def test_scaling_ends_at_the_number_that_is_meant(name, workload, replicas):
    plant = plant_for(name)
    await plant.drive()
    assert await count(plant, workload) == replicas


async def test_things_are_left_as_each_runbook_says():
    things = {}
    for name in ("crash-loop", "node-not-ready", "blue-green", "poisoned-config"):
        plant = plant_for(name)
        await plant.drive()
        things[name] = plant.workloads.things
    assert things["crash-loop"]["gateway"] == {"revision": "6"}
    assert set(things["node-not-ready"]["node:n1"]) == {"ready", "cordoned", "drained"}
    assert things["blue-green"]["service:engine"] == {"colour": "green"}
    assert things["poisoned-config"]["config:exchange-config"] == {"good": "true"}


# --- to the bad end -----------------------------------------------------------------------------------------------

UNDONE, NOT_PROVEN = Outcome.UNDONE, Outcome.NOT_PROVEN
VAIN = [
    ("pod-hang", "evict the pod", NOT_PROVEN, ["restart_replica"]),
    ("crash-loop", "roll back", UNDONE, ["roll_back", "take_back"]),
    ("stuck-rollout", "roll back", UNDONE, ["roll_back", "take_back"]),
    ("gateway-overload", "scale the gateways out", UNDONE, ["scale", "set_replicas"]),
    ("gateway-overcapacity-kubernetes", "scale the gateways in", UNDONE, ["scale", "set_replicas"]),
    ("order-latency", "scale the gateways out", UNDONE, ["scale", "set_replicas"]),
    ("node-not-ready", "cordon the node", NOT_PROVEN, ["cordon"]),
    ("node-not-ready", "drain the node", NOT_PROVEN, ["cordon", "drain"]),
    ("consumer-lag", "scale the consumers out", UNDONE, ["scale", "set_replicas"]),
    ("memory-leak", "restart the replicas in turn", NOT_PROVEN, ["rolling_restart"]),
    ("feed-stalled-kubernetes", "restart market data", NOT_PROVEN, ["rolling_restart"]),
    ("settlement-lagging-kubernetes", "restart settlement", NOT_PROVEN, ["rolling_restart"]),
    ("watchdog-down-kubernetes", "restart the watchdog", NOT_PROVEN, ["rolling_restart"]),
    ("engine-crash", "restart the engine", NOT_PROVEN, ["restart_replica"]),
    ("engine-crash", "reopen the market", NOT_PROVEN, DONE["engine-crash"]),
    ("engine-restart", "halt the market", NOT_PROVEN, ["halt_market"]),
    ("engine-restart", "restart the engine", NOT_PROVEN, ["halt_market", "keep_snapshot", "restart_replica"]),
    ("blue-green", "halt the market", NOT_PROVEN, ["halt_market"]),
    ("blue-green", "switch the service", UNDONE, ["halt_market", "verify_replay", "switch_service", "take_back"]),
    ("canary-abort", "take the canary away", NOT_PROVEN, ["scale"]),
    ("poisoned-config", "restore the configuration", UNDONE, ["restore_config", "take_back"]),
    ("pod-stuck", "remove the pod", NOT_PROVEN, ["delete_replica"]),
    ("series-anomalous", "keep a snapshot of the books and see whether it passes", NOT_PROVEN, ["keep_snapshot"]),
]


@pytest.mark.parametrize(("name", "step", "outcome", "did"), VAIN, ids=[f"{row[0]}: {row[1]}" for row in VAIN])
async def test_when_a_proof_is_refuted_it_ends_as_it_owes(name, step, outcome, did):
    plant = plant_for(name, refuted=step)
    before = {key: dict(value) for key, value in plant.workloads.things.items()}
    counts = {one.name: one.desired for one in await plant.workloads.list()}
    conclusion = await plant.drive()
    assert conclusion.outcome is outcome, conclusion.detail
    assert conclusion.undone is (outcome is UNDONE)
    assert plant.did == did
    if outcome is UNDONE:
        assert plant.workloads.things == before, "exactly what was before"
        assert {one.name: one.desired for one in await plant.workloads.list()} == counts
    assert plant.halted is ("halt_market" in did and "resume_market" not in did)


def test_every_runbook_that_acts_has_a_bad_end_here():
    assert {row[0] for row in VAIN} == set(ACTING)


async def test_undoing_stops_when_somebody_else_has_written_meanwhile():
    plant = plant_for("poisoned-config", refuted="restore the configuration")
    generator = run(plant.runbook, "r")
    question = advance(generator)
    while not isinstance(question, Conclusion):
        if isinstance(question, Permit) and question.undo:
            plant.workloads.things["config:exchange-config"] = {"good": "by a person"}
        plant.now = Instant(plant.now + MILLISECOND)
        question = advance(generator, await plant.answer(question))
    assert (question.outcome, question.reason) == (NOT_PROVEN, RefusalReason.CONFLICT)
    assert plant.workloads.things["config:exchange-config"] == {"good": "by a person"}


# --- refused ------------------------------------------------------------------------------------------------------


async def refused(plant):
    conclusion = await plant.drive()
    assert conclusion.outcome is Outcome.REFUSED
    assert plant.did == []
    return conclusion.reason


async def test_a_pod_that_carries_most_of_the_orders_is_not_evicted():
    plant = Plant(bound("pod-hang"))
    plant.market = msgspec.structs.replace(
        plant.market, shares={**plant.market.shares, "gateway-5d4-a": Share(8, 0.9, 0)}
    )
    assert await refused(plant) is RefusalReason.BLAST_RADIUS


@pytest.mark.parametrize("name", [name for name, one in ACTING.items() if one.blast_radius.volume_share is not None])
async def test_without_the_markets_figures_nothing_that_carries_orders_is_touched(name):
    plant = plant_for(name)
    plant.market = None
    assert await refused(plant) is RefusalReason.NO_EVIDENCE


@pytest.mark.parametrize("name", ["memory-leak", "crash-loop", "blue-green", "engine-restart", "poisoned-config"])
async def test_in_an_auction_and_shortly_before_one_nothing_is_disrupted(name):
    for market in (
        MarketFacts(phase="opening_auction", auction=True),
        MarketFacts(phase="continuous", next_auction_at=Instant(START + MINUTE)),
    ):
        plant = plant_for(name)
        plant.market = msgspec.structs.replace(market, shares=plant.market.shares)
        conclusion = await plant.drive()
        assert (conclusion.outcome, conclusion.reason) == (Outcome.REFUSED, RefusalReason.MARKET_PHASE)
        assert "restart_replica" not in plant.did


async def test_never_two_nodes():
    plant = plant_for("node-not-ready")
    plant.workloads.things["node:n2"] = {"cordoned": "true"}
    assert await refused(plant) is RefusalReason.BLAST_RADIUS


async def test_a_single_writer_that_lags_gets_no_second_replica():
    plant = Plant(bind(LIBRARY_KUBE["consumer-lag"], {"service": "settlement"}))
    assert await refused(plant) is RefusalReason.SINGLETON


@pytest.mark.parametrize("name", ["crash-loop", "stuck-rollout", "memory-leak", "pod-stuck"])
async def test_the_engine_is_touched_the_state_safe_way_only(name):
    plant = Plant(bind(LIBRARY_KUBE[name], {"service": "engine", "replica": "engine-0"}))
    assert await refused(plant) is RefusalReason.STATE_UNSAFE


async def test_an_engine_that_is_ready_again_is_not_restarted_as_if_it_had_crashed():
    assert await refused(Plant(bound("engine-crash"))) is RefusalReason.STATE_UNSAFE


@pytest.mark.parametrize("name", ["crash-loop", "stuck-rollout", "gateway-overload", "order-latency"])
async def test_what_somebody_else_owns_is_left_to_them(name):
    plant = plant_for(name)
    facts = plant.facts

    async def owned():
        seen = await facts()
        listed = tuple(msgspec.structs.replace(one, spec_owner="Argo CD") for one in seen.workloads)
        return msgspec.structs.replace(seen, workloads=listed)

    plant.facts = owned
    assert await refused(plant) is RefusalReason.OWNED


async def test_a_certificate_is_paged_and_nothing_is_done():
    assert await refused(Plant(bound("certificate-expiry"))) is RefusalReason.PERSON_ONLY


# --- house rules --------------------------------------------------------------------------------------------------


def rules(path):
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


ALERTS = {rule["alert"]: path.stem for path in (ROOT / "alerts/rules").glob("*.yml") for rule in rules(path)}
ANSWERED = {alert for runbook in LIBRARY_KUBE.values() for alert in runbook.answers}


@pytest.mark.parametrize("name", LIBRARY_KUBE)
def test_what_acts_on_a_workload_is_proven_by_the_platform_too(name):
    for step in LIBRARY_KUBE[name].steps:
        if isinstance(step.action, WORKLOAD_ACTIONS):
            assert step.proof is not None
            assert step.proof.settled
        else:
            assert isinstance(step.action, Cordon) or "kube_deployment" not in repr(step.action)


@pytest.mark.parametrize("name", LIBRARY_KUBE)
def test_it_proves_something_or_says_why_it_never_acts(name):
    runbook = LIBRARY_KUBE[name]
    assert bool(runbook.never_acts) is (not runbook.steps)
    assert runbook.never_acts or runbook.steps[-1].proof is not None, "the last step shows that it helped"


@pytest.mark.parametrize("name", LIBRARY_KUBE)
def test_a_pod_that_was_restarted_has_another_name_so_no_proof_asks_for_it(name):
    for step in LIBRARY_KUBE[name].steps:
        if isinstance(step.action, RestartReplica) and step.proof is not None:
            assert "replica" not in step.proof.evidence.query
            assert "pod=" not in step.proof.evidence.query


@pytest.mark.parametrize("name", LIBRARY_KUBE)
def test_every_limit_is_set_and_a_person_is_told_what_to_do(name):
    runbook = LIBRARY_KUBE[name]
    assert runbook.limits.cool_down_ns >= 10 * SECOND
    assert len(runbook.when_refused) > 60
    assert all(guard.evidence.max_age_ns <= 5 * SECOND for guard in runbook.guards)


def test_every_alert_answered_exists_and_every_alert_answered_here_is_answered_there():
    local = {alert for runbook in load_library(LIBRARY, "local")[0] for alert in runbook.answers}
    assert set(ALERTS) >= ANSWERED
    # The services of a distributed estate are its own; on a cluster they belong to whoever runs them there.
    assert {alert for alert in local if ALERTS[alert] not in {*SERVICES, "sagas", "traces", "mirror"}} <= ANSWERED | {
        "GatewayCanaryFailing",  # one replica's own revision; a cluster has a rollout, and `canary-abort` for it
        "EnginePartDown",  # one of several engines, which a distributed estate alone can have
    }


@pytest.mark.parametrize("alert", [alert for alert, file in ALERTS.items() if file == "kubernetes"])
def test_every_alert_of_the_cluster_has_a_runbook_or_says_why_not(alert):
    section = (ROOT / "docs/alerts.md").read_text().split(f"### {alert}\n")[1].split("\n###")[0]
    if alert in ANSWERED:
        runbook = next(one for one in LIBRARY_KUBE.values() if alert in one.answers)
        assert f"`{runbook.name}`" in section
    else:
        assert re.search(r"Nothing acts by itself: \w+ \w+", section)


def test_the_page_of_runbooks_names_each_of_them():
    page = (ROOT / "docs/runbooks.md").read_text()
    assert [name for name in LIBRARY_KUBE if f"| `{name}` |" not in page] == []
