"""What an estate on Kubernetes consists of, and how Alertmanager tells two controls."""

from pathlib import Path

import pytest

from control import plan
from control.config import load_config
from control.estate import _kind
from control.kube_estate import KubeEstate, KubeSupervisor
from control.layout import Layout
from control.podhost import HOSTED, ROLE, Container, HostedPod, HostReport, Meta, Pod, PodSpec, PodStatus
from control.render import alertmanager_config
from control.routing import house_routes
from control.settings import load_settings
from control.state_dir import generate_instruments
from control.supervisor import PERSON
from kernel.errors import InputError, PermanentError
from runbooks.ports import RefusedError


@pytest.fixture
def settings(tmp_path):
    return load_settings(on="kubernetes", ports="auto", state=tmp_path)


def test_the_exchange_is_not_among_what_the_estate_itself_starts(settings):
    layout, ports = Layout(settings.state), plan.choose_ports(settings)
    started = {spec.name: spec.replicas for spec in plan.workloads(settings, layout, ports)}
    assert started.pop("node", 1) == 1, "it runs where it is installed"
    assert started.pop("log-watch") == 1, "log rules run beside every estate"
    assert started.pop("anomaly") == 1, "so do detectors"
    assert started == {"podhost": 1, "control": 2, "kube-state": 1, "prometheus": 1, "alertmanager": 1, "load": 1}
    grouped = {name for group in plan.KUBE_STOP_ORDER for name in group}
    assert grouped == set(started)
    assert {name for group in plan.KUBE_START_ORDER for name in group} | {"podhost"} == set(started)


def test_each_process_gets_the_account_its_work_needs_and_no_other(settings):
    layout, ports = Layout(settings.state), plan.choose_ports(settings)
    plan.write_configs(settings, layout, ports, generate_instruments(1, 1))
    accounts = {
        name: Path(config.kube.kubeconfig).name
        for name in ("control-1", "control-2", "kube-state-1", "podhost-1")
        if (config := load_config(layout.config(name))).kube is not None
    }
    assert accounts == {
        "control-1": "tapewatch.kubeconfig", "control-2": "tapewatch.kubeconfig",
        "kube-state-1": "tapewatch-kube-state.kubeconfig", "podhost-1": "probe.kubeconfig",
    }  # fmt: skip
    assert load_config(layout.config("kube-state-1")).kube.allowed == ()


def test_an_estate_is_of_the_kind_that_its_settings_name(settings, tmp_path):
    assert _kind(settings) is KubeEstate
    assert _kind(load_settings(state=tmp_path)) is not KubeEstate


# --- Alertmanager tells both ----------------------------------------------------------------------------------------


def told(config, route=None):
    """Return the receivers below a route, by what they are matched with."""
    route = route or config["route"]
    children = route.get("routes", [])
    own = {(tuple(route.get("matchers", ())), route["receiver"])} if "receiver" in route else set()
    return (
        own.union(*(told(config, {"receiver": route["receiver"], **child}) for child in children)) if children else own
    )


def test_whatever_goes_to_control_goes_to_both_and_what_goes_to_people_goes_once():
    source = house_routes()
    config = alertmanager_config(source, control_ports=(1, 2), secret=Path("s"), group_wait_s=None)
    urls = {one["name"]: one["webhook_configs"][0]["url"] for one in config["receivers"] if "webhook_configs" in one}
    assert urls == {"control": "http://127.0.0.1:1/api/v1/alerts", "control-2": "http://127.0.0.1:2/api/v1/alerts"}
    routes = told(config)
    first = {matchers for matchers, receiver in routes if receiver == "control"}
    second = {matchers for matchers, receiver in routes if receiver == "control-2"}
    assert first == second
    assert {matchers for matchers, receiver in routes if receiver == "on-call"} == {
        ('alertname="IncidentNeedsPerson"',), ('audience="people"',),
    }  # fmt: skip
    *to_people, one, two = config["route"]["routes"]
    assert all(child["receiver"] == "on-call" for child in to_people)
    assert (one.get("continue"), two.get("continue")) == (True, None)


def test_one_control_is_told_as_ever():
    source = house_routes()
    config = alertmanager_config(source, control_ports=(1,), secret=Path("s"), group_wait_s=None)
    assert config["route"] == source["route"]


# --- pods stand in the estate's interface ---------------------------------------------------------------------------


@pytest.fixture
def supervisor(tmp_path):
    return KubeSupervisor(
        [], None, kill_switch=tmp_path / "k", allowed=frozenset(), log=lambda *_, **__: None, on_change=lambda: None
    )


def hosted(name: str, *, role: str = "gateway", workload: str = "gateway", leaving: bool = False) -> HostedPod:
    return HostedPod(
        workload=workload, role=role, id=name, uid=f"uid-{name}", port=1234, pid=None, ready=True, node="node-0",
        restarts=1, started_at=None, leaving=leaving,
    )  # fmt: skip


def test_a_pod_is_a_replica_and_one_that_leaves_is_none(supervisor):
    supervisor.take(HostReport((hosted("gateway-a"), hosted("gateway-b", leaving=True)), {"gateway": 2}))
    status = supervisor.status("gateway")
    assert ([one.id for one in status.replicas], status.desired, status.restarts) == (["gateway-a"], 2, 1)
    assert supervisor.targets()["gateway"] == [("gateway-a", 1234)]


def test_a_canary_is_scraped_as_the_role_it_serves(supervisor):
    supervisor.take(HostReport((hosted("gateway-canary-a", workload="gateway-canary"),), {"gateway-canary": 1}))
    assert supervisor.targets()["gateway"] == [("gateway-canary-a", 1234)]


def test_a_pod_is_neither_restarted_nor_scaled_through_the_estate(supervisor):
    supervisor.take(HostReport((hosted("gateway-a"),), {"gateway": 1}))
    with pytest.raises(RefusedError):
        supervisor._unit("gateway")
    with pytest.raises(PermanentError, match="does not run"):
        supervisor.signal("gateway-a", "STOP")
    with pytest.raises(InputError, match="SIGHUP"):
        supervisor.signal("gateway-a", "SIGHUP")
    assert PERSON


def pod(**given) -> Pod:
    notes = {HOSTED: "true", ROLE: "gateway", **given.pop("notes", {})}
    meta = {"name": "p", "uid": "u", "annotations": notes, **given.pop("meta", {})}
    image = given.pop("image", "tapewatch/gateway:1")
    return Pod(
        Meta(**meta),
        PodSpec(given.pop("node", "node-0"), (Container("c", image),)),
        PodStatus(given.pop("phase", "Running")),
    )


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        pytest.param({}, True, id="it runs"),
        pytest.param({"phase": "Pending"}, False, id="not started by its node yet"),
        pytest.param({"node": ""}, False, id="not scheduled"),
        pytest.param({"node": "node-9"}, False, id="its node is lost"),
        pytest.param({"image": "tapewatch/gateway:2-crash"}, False, id="its image crashes"),
        pytest.param({"image": "tapewatch/gateway:2-broken"}, False, id="its image is broken"),
        pytest.param({"meta": {"deletion_timestamp": "2026-01-01T00:00:00Z"}}, False, id="it is being deleted"),
        pytest.param({"notes": {HOSTED: "false"}}, False, id="it is not to be hosted"),
        pytest.param({"notes": {ROLE: "shell"}}, False, id="it is no part of the exchange"),
    ],
)
def test_a_process_is_started_only_for_a_pod_that_is_to_run(given, runs):
    assert pod(**given).is_to_run(frozenset({"node-9"})) is runs
