"""Every runbook for Kubernetes, carried out on a real API server: the platform is real, the readings are supposed.

Most are run twice: the remedy helps, and it does not. Then what can be taken back must be exactly as before.
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import json
import signal

import msgspec
import pytest

from control.bindings import LivePlant
from kernel.adapters.clock import SystemClock
from kernel.time import seconds, to_seconds
from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.bind import bind
from runbooks.facts import MarketFacts, PlantFacts, Share
from runbooks.model import (
    Ask,
    AskAnswer,
    Conclusion,
    Do,
    Look,
    Outcome,
    Permit,
    Read,
    ReadAnswer,
    RefusalReason,
    Runbook,
    Wait,
    WaitAnswer,
)
from runbooks.policy import permit
from runbooks.rehearse import _value
from runbooks.run import advance, run
from tests.kube.plant import SINGLETON, Plant, adapter, overdue, workload
from tests.standing import stop

BOOKS = {one.name: one for one in load_library(LIBRARY, "kubernetes")[0]}
STATEFUL = {**SINGLETON, "tapewatch.example/stateful": "true"}
DEPLOYMENTS = ("gateway", "gateway-canary", "market-data", "settlement", "watchdog", "consumer")
ENTRIES = (
    *(f"Deployment/{name}" for name in DEPLOYMENTS),
    "StatefulSet/engine", "ConfigMap/exchange-config", "Service/engine", "Node/*",
)  # fmt: skip
CLOCK = SystemClock()


class Market:
    """The exchange's levers, kept in memory: this suite is about the cluster."""

    def __init__(self):
        self.done = []

    async def halt(self, key, symbol, reason):
        self.done.append(("halt", symbol))

    async def resume(self, key, symbol, engine=""):
        self.done.append(("resume", symbol))

    async def snapshot(self, key):
        self.done.append(("snapshot", None))
        return 7


class Floor(LivePlant):
    """The real bindings, but for the replay: no exchange runs here."""

    async def _verify(self, replica):
        return {}, {"state_hash": "equal"}


def patient(proof, within_s):
    return proof and msgspec.structs.replace(
        proof, within_ns=seconds(within_s), holds_for_ns=seconds(0.6), poll_ns=seconds(0.2)
    )


def hurried(proof):
    return proof and msgspec.structs.replace(
        proof, within_ns=seconds(1.5), holds_for_ns=seconds(0.5), poll_ns=seconds(0.3)
    )


def bound(name, labels, *, helps, within_s=90):
    """Bind a shipped runbook; its times are changed, nothing else."""
    book = bind(BOOKS[name], labels)
    assert isinstance(book, Runbook), book
    first = (lambda proof: patient(proof, within_s)) if helps else hurried
    steps = tuple(
        msgspec.structs.replace(step, proof=first(step.proof), undo_proof=patient(step.undo_proof, within_s))
        for step in book.steps
    )
    return msgspec.structs.replace(book, steps=steps)


async def look_around(workloads):
    found = tuple(await workloads.list())
    nodes = tuple(await workloads.nodes())
    share = {
        replica.id: Share(8, 1 / max(one.ready, 1) if one.name == "gateway" else 0.05, 0)
        for one in found for replica in one.replicas
    }  # fmt: skip
    return PlantFacts(
        workloads=found, allowed=frozenset(one.name for one in found), symbols=frozenset({"TWA"}),
        targets=await workloads.targets(), nodes=nodes, market=MarketFacts(phase="continuous", shares=share),
    )  # fmt: skip


async def answer(question, book, plant, workloads, *, helps):
    match question:
        case Read():
            value = _value(
                question.evidence, good=question.purpose != "proof" or helps or "halted" in question.evidence.name
            )
            return ReadAnswer(CLOCK.now(), value=value, data_at=CLOCK.now())
        case Look():
            return await plant.look(question.target)
        case Ask():
            return AskAnswer(CLOCK.now(), granted=True, by=("anna", "bela"))
        case Permit():
            facts = await look_around(workloads)
            return permit(
                question.action, runbook=book, facts=facts, history=(), kill_switch=False, now=CLOCK.now(),
                undo=question.undo,
            )  # fmt: skip
        case Do():
            return await plant.carry_out(question.action, question.key, forbidden=lambda: False)
        case Wait():
            await asyncio.sleep(max(to_seconds(question.until - CLOCK.now()), 0))
            return WaitAnswer(CLOCK.now())


async def drive(kube, ns, name, labels, *, helps=True, within_s=90, before=lambda _question: None):
    """Run a shipped runbook on the namespace; return how it ended and what the exchange was asked."""
    book, market = bound(name, labels, helps=helps, within_s=within_s), Market()
    async with adapter(kube, ns, entries=ENTRIES) as workloads:
        plant = Floor(workloads, market, CLOCK, None, None)
        generator = run(book, f"{ns}-{name}-{helps}")
        question = advance(generator)
        while not isinstance(question, Conclusion):
            before(question)
            question = advance(generator, await answer(question, book, plant, workloads, helps=helps))
    return question, market.done


def spec(plant, name="gateway", kind="deployments"):
    found = plant.get(plant.apps(kind, name))["spec"]
    pod = json.loads(json.dumps(found["template"]))
    pod["metadata"].pop("annotations", None)
    return {"replicas": found["replicas"], "paused": found.get("paused", False), "template": pod}


def image(plant, name="gateway"):
    return plant.get(plant.apps("deployments", name))["spec"]["template"]["spec"]["containers"][0]["image"]


def make(plant, name, **given):
    plant.make(workload(name, **given))


def make_engine(plant):
    plant.make(workload("engine", "StatefulSet", replicas=1, annotations=STATEFUL))


@pytest.fixture
def plant(kube, ns):
    return Plant(kube, ns)


# --- replicas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helps", [True, False])
async def test_pod_hang(kube, ns, plant, helps):
    make(plant, "gateway")
    hung, other = sorted(plant.pods())
    plant.kubectl("label", "pod", hung, "testbed-unready=true")
    kube.wait("it is unready", lambda: plant.gateway()["status"].get("readyReplicas") == 1)
    ended, _ = await drive(kube, ns, "pod-hang", {"service": "gateway", "replica": hung}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.NOT_PROVEN), ended.detail
    assert hung not in plant.pods()
    assert other in plant.pods()


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(("name", "after"), [("gateway-overload", 4), ("order-latency", 3)])
async def test_scaling_out(kube, ns, plant, name, after, helps):
    make(plant, "gateway")
    before = spec(plant)
    ended, _ = await drive(kube, ns, name, {"service": "gateway"}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.UNDONE), ended.detail
    assert spec(plant) == (before | {"replicas": after} if helps else before)


@pytest.mark.parametrize("helps", [True, False])
async def test_gateway_overcapacity(kube, ns, plant, helps):
    make(plant, "gateway", replicas=4)
    ended, _ = await drive(kube, ns, "gateway-overcapacity-kubernetes", {"service": "gateway"}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.UNDONE), ended.detail
    assert spec(plant)["replicas"] == (2 if helps else 4)


async def test_consumer_lag_goes_to_the_partition_count_and_not_beyond(kube, ns, plant):
    make(plant, "consumer", replicas=1, annotations={"tapewatch.example/partitions": "3"})
    ended, _ = await drive(kube, ns, "consumer-lag", {"service": "consumer"})
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert spec(plant, "consumer")["replicas"] == 3
    again, _ = await drive(kube, ns, "consumer-lag", {"service": "consumer"}, helps=False)
    assert again.outcome is not Outcome.MENDED
    assert spec(plant, "consumer")["replicas"] == 3


async def test_canary_abort(kube, ns, plant):
    make(plant, "gateway")
    make(plant, "gateway-canary", replicas=1)
    ended, _ = await drive(kube, ns, "canary-abort", {"service": "gateway-canary"})
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert spec(plant, "gateway-canary")["replicas"] == 0
    assert len(plant.pods("gateway")) == 2


# --- rollouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bad"), [("crash-loop", "crash:2"), ("stuck-rollout", "broken:2")])
@pytest.mark.parametrize("helps", [True, False])
async def test_a_bad_deploy_is_rolled_back(kube, ns, plant, name, bad, helps):
    make(plant, "gateway", progressDeadlineSeconds=3)
    plant.set_image(bad)
    kube.wait("the new pod is there", lambda: len(plant.pods()) == 3)
    before = spec(plant)
    # The undo puts the deploy back; that cannot be proven, because it is as broken as it was: a short wait shows it.
    ended, _ = await drive(kube, ns, name, {"service": "gateway"}, helps=helps, within_s=90 if helps else 25)
    if helps:
        assert ended.outcome is Outcome.MENDED, ended.detail
        assert image(plant) == "app:1"
    else:
        assert ended.outcome in {Outcome.UNDONE, Outcome.NOT_PROVEN}, ended.detail
        assert spec(plant) == before


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("memory-leak", {"service": "gateway"}), ("feed-stalled-kubernetes", {"service": "market-data"}),
        ("settlement-lagging-kubernetes", {"service": "settlement"}),
        ("watchdog-down-kubernetes", {"service": "watchdog"}),
    ],
)  # fmt: skip
async def test_rolling_restarts_leave_the_specification_and_renew_every_pod(kube, ns, plant, name, labels):
    service = labels["service"]
    if service == "gateway":
        make(plant, service)
    else:  # as they are deployed: a single one, of which the old ends before the new starts
        make(plant, service, replicas=1, annotations=SINGLETON, strategy={"type": "Recreate"})
    before, old = spec(plant, service), set(plant.pods(service))
    ended, _ = await drive(kube, ns, name, labels)
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert spec(plant, service) == before
    assert not old & set(plant.pods(service))


async def test_pod_stuck_is_deleted_only_when_it_should_have_ended(kube, ns, plant, monkeypatch):
    make(plant, "gateway", notes={"testbed/delete-delay": "300s"})
    stuck = min(plant.pods())
    early, _ = await drive(kube, ns, "pod-stuck", {"service": "gateway", "replica": stuck}, helps=False)
    assert early.outcome is not Outcome.MENDED
    assert stuck in plant.pods()
    plant.kubectl("delete", "pod", stuck, "--wait=false", "--grace-period=1")
    monkeypatch.setattr("runbooks.adapters.kubernetes.reader.OVERDUE", 0)  # else ten seconds more
    await overdue(plant, stuck)
    ended, _ = await drive(kube, ns, "pod-stuck", {"service": "gateway", "replica": stuck})
    assert ended.outcome is Outcome.MENDED, ended.detail
    names = {pod["metadata"]["name"] for pod in plant.get(plant.core("pods"))["items"]}
    assert stuck not in names


# --- nodes ----------------------------------------------------------------------------------------------------------


async def test_node_not_ready_is_cordoned_and_drained_and_a_second_one_is_not(own_kube):
    from tests.kube.audit import new_namespace

    own_kube.add_nodes(2)
    ns = new_namespace(own_kube)
    plant = Plant(own_kube, ns)
    make(plant, "gateway", replicas=6)
    lost, second = "node-0", "node-1"
    own_kube.kubectl("label", "node", lost, "testbed-notready=true")
    own_kube.wait(
        "it is not ready",
        lambda: "True" not in own_kube.kubectl(
            "get", "node", lost, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        ),
    )  # fmt: skip
    ended, _ = await drive(own_kube, ns, "node-not-ready", {"node": lost})
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert not [pod for pod in plant.pods().values() if pod["spec"].get("nodeName") == lost]
    assert plant.get(f"/api/v1/nodes/{lost}")["spec"]["unschedulable"]
    again, _ = await drive(own_kube, ns, "node-not-ready", {"node": second})
    assert (again.outcome, again.reason) == (Outcome.REFUSED, RefusalReason.BLAST_RADIUS), again.detail
    assert "unschedulable" not in plant.get(f"/api/v1/nodes/{second}")["spec"]


# --- configurations, services, state --------------------------------------------------------------------------------


@pytest.mark.parametrize("helps", [True, False])
async def test_poisoned_config(kube, ns, plant, helps):
    make(plant, "gateway")
    plant.config("exchange-config", limit="-1")
    plant.config("exchange-config-last-good", limit="400")
    ended, _ = await drive(kube, ns, "poisoned-config", {"service": "gateway"}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.UNDONE), ended.detail
    assert plant.data("exchange-config") == {"limit": "400" if helps else "-1"}


def engine_service(plant):
    body = {"metadata": {"name": "engine"}, "spec": {"selector": {"app": "engine", "colour": "blue"},
                                                      "ports": [{"port": 80}]}}  # fmt: skip
    plant.cluster.request("POST", plant.core("services"), body)
    green = workload("engine-green", replicas=1, labels={"app": "engine", "colour": "green"})
    green["spec"]["selector"] = {"matchLabels": {"colour": "green"}}
    plant.cluster.request("POST", plant.apps("deployments"), green)
    plant.cluster.wait(
        "green is ready",
        lambda: plant.get(plant.apps("deployments", "engine-green"))["status"].get("readyReplicas"),
    )


@pytest.mark.parametrize("helps", [True, False])
async def test_blue_green(kube, ns, plant, helps):
    make(plant, "gateway")
    make_engine(plant)
    engine_service(plant)
    ended, asked = await drive(kube, ns, "blue-green", {"service": "engine", "colour": "green"}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.UNDONE), ended.detail
    assert helps or "is kept: it is the safe side" in ended.detail
    assert plant.get(plant.core("services", "engine"))["spec"]["selector"] == {
        "app": "engine", "colour": "green" if helps else "blue",
    }  # fmt: skip
    assert asked == [("halt", None), *([("resume", None)] if helps else [])]


@pytest.mark.parametrize("name", ["engine-restart", "engine-crash"])
async def test_the_engine_is_renewed_the_safe_way(kube, ns, plant, name):
    make_engine(plant)
    old = plant.pods("engine")["engine-0"]["metadata"]["uid"]
    if name == "engine-crash":
        plant.kubectl("label", "pod", "engine-0", "testbed-unready=true")
        status = plant.apps("statefulsets", "engine")
        kube.wait("down", lambda: not plant.get(status)["status"].get("readyReplicas"))
    ended, asked = await drive(kube, ns, name, {"service": "engine"})
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert plant.pods("engine")["engine-0"]["metadata"]["uid"] != old
    expected = (
        [("halt", None), ("snapshot", None), ("resume", None)] if name == "engine-restart" else [("resume", None)]
    )
    assert asked == expected


async def test_a_certificate_is_a_persons_matter(kube, ns, plant):
    make(plant, "gateway")
    before = plant.gateway()
    ended, asked = await drive(kube, ns, "certificate-expiry", {"service": "gateway", "certificate": "x"})
    assert (ended.outcome, ended.reason) == (Outcome.REFUSED, RefusalReason.PERSON_ONLY)
    assert plant.gateway()["spec"] == before["spec"]
    assert not asked


async def test_a_gap_halts_the_symbol_here_too(kube, ns, plant):
    make(plant, "gateway")
    ended, asked = await drive(kube, ns, "sequence-gap", {"service": "market-data", "symbol": "TWA"})
    assert ended.outcome is Outcome.MENDED, ended.detail
    assert asked == [("halt", "TWA")]


@pytest.mark.parametrize("helps", [True, False])
async def test_what_only_a_detector_finds_changes_nothing_on_the_cluster(kube, ns, plant, helps):
    make_engine(plant)
    before = (
        plant.get(plant.apps("statefulsets", "engine"))["spec"],
        plant.pods("engine")["engine-0"]["metadata"]["uid"],
    )
    ended, asked = await drive(kube, ns, "series-anomalous", {"series": "feed-messages"}, helps=helps)
    assert ended.outcome is (Outcome.MENDED if helps else Outcome.NOT_PROVEN), ended.detail
    assert asked == [("snapshot", None)]
    after = plant.get(plant.apps("statefulsets", "engine"))["spec"], plant.pods("engine")["engine-0"]["metadata"]["uid"]
    assert after == before


def test_every_runbook_for_kubernetes_is_run_here():
    from pathlib import Path

    text = Path(__file__).read_text()
    assert not [name for name in BOOKS if f'"{name}"' not in text]


async def test_a_platform_that_dies_in_mid_proof_ends_blind_and_is_not_undone(own_kube):
    from tests.kube.audit import new_namespace

    ns = new_namespace(own_kube)
    plant = Plant(own_kube, ns)
    make(plant, "gateway")

    def die(question):
        if isinstance(question, Look):
            stop(own_kube.alive()["kube-apiserver"])

    try:
        ended, _ = await drive(own_kube, ns, "gateway-overload", {"service": "gateway"}, within_s=8, before=die)
    finally:
        own_kube.send("kube-apiserver", signal.SIGCONT)
    assert (ended.outcome, ended.reason) == (Outcome.NOT_PROVEN, RefusalReason.NO_EVIDENCE), ended.detail
    own_kube.wait_api()
    assert plant.gateway()["spec"]["replicas"] == 4
