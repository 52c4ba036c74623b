"""Where an alert goes, how soon, and what holds it back."""
# mypy: disable-error-code="type-arg, no-any-return, union-attr"
# (JSON of a foreign interface is read without a type of its own)

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "alerts/alertmanager.yml"
ALERTS = {
    rule["alert"]: rule
    for path in (ROOT / "alerts/rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}

# alert, further labels, receiver, what its group is told by
ROUTES = [
    ("IncidentNeedsPerson", {"severity": "critical", "incident": "I-1"}, "on-call", ["incident"]),
    ("Watchdog", {}, "control", ["alertname"]),
    ("SequenceGap", {"symbol": "ACME"}, "control", ["alertname", "service", "symbol"]),
    ("BookCrossed", {"symbol": "ACME"}, "control", ["alertname", "service", "symbol"]),
    ("JournalFailed", {}, "control", ["alertname", "service", "symbol"]),
    ("LedgerImbalance", {}, "control", ["alertname", "service", "symbol"]),
    *((name, {"replica": "gateway-1"}, "control", ["alertname", "service", "replica"]) for name in (
        "GatewayDown", "GatewayShedding", "OrderLatencyHigh", "EngineDown", "FeedDown", "FeedStalled", "SettlementDown",
        "WatchdogDown", "NodeNotReady", "ConfigPoisoned", "KubeApiUnreachable",
        "ControlDown", "ControlLoopStuck", "EstateDown", "PrometheusTargetsAbsent", "AlertmanagerDown",
    )),
    *((name, {}, "control", ["alertname", "service"]) for name in (
        "GatewayOvercapacity", "GatewayEngineDisconnected", "MarketHalted", "SymbolHalted", "SymbolFeedStale",
        "SettlementLagging", "JournalSyncSlow", "RejectsHigh", "KillSwitchOn", "ReplicasMissing", "ScrapeSlow",
        "PodNotReady", "PodCrashLooping", "RolloutStuck", "CanaryUnhealthy", "CertificateExpiring",
    )),
]  # fmt: skip


def labels_of(name: str, more: dict[str, str]) -> dict[str, str]:
    return {"alertname": name, **(ALERTS[name]["labels"] if name in ALERTS else {}), **more}


def route_of(labels: dict[str, str]) -> dict:
    """Return the settings of the first child route that fits, as Alertmanager walks them."""
    root = yaml.safe_load(CONFIG.read_text())["route"]
    for child in root["routes"]:
        if all(fits(text, labels) for text in child["matchers"]):
            return {**root, **child}
    return root


def fits(matcher: str, labels: dict[str, str]) -> bool:
    name, relation, value = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher).groups()
    return bool(re.fullmatch(value if relation == "=~" else re.escape(value), labels.get(name, "")))


def test_amtool_finds_no_fault_in_the_configuration():
    done = subprocess.run(["amtool", "check-config", CONFIG], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "more", "receiver", "grouped"), ROUTES, ids=[row[0] for row in ROUTES])
def test_an_alert_reaches_its_receiver_in_a_group_of_its_own_kind(name, more, receiver, grouped):
    labels = labels_of(name, more)
    argv = ["amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}"]
    done = subprocess.run(
        [*argv, *(f"{k}={v}" for k, v in labels.items())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [receiver]
    assert route_of(labels)["group_by"] == grouped


def test_the_table_of_routes_has_at_least_25_rows():
    assert len(ROUTES) >= 25


@pytest.mark.parametrize(
    "name", sorted(name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "critical")
)
def test_a_critical_alert_waits_for_nobody(name):
    route = route_of(labels_of(name, {}))
    assert (route["group_wait"], route["group_interval"]) == ("0s", "1s")


def test_the_dead_mans_switch_is_heard_every_few_seconds():
    route = route_of(labels_of("Watchdog", {}))
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("0s", "2s", "4s")


def test_what_needs_a_person_never_comes_back_to_control():
    config = yaml.safe_load(CONFIG.read_text())
    assert route_of({"alertname": "IncidentNeedsPerson", "severity": "critical"})["receiver"] == "on-call"
    assert not config["route"]["routes"][0].get("continue", False)
    on_call = next(one for one in config["receivers"] if one["name"] == "on-call")
    assert "webhook_configs" not in on_call


def test_control_is_told_everything_with_its_credentials():
    (control,) = next(one for one in yaml.safe_load(CONFIG.read_text())["receivers"] if one["name"] == "control")[
        "webhook_configs"
    ]
    assert control["send_resolved"] is True
    assert control["max_alerts"] == 0
    assert "credentials_file" in control["http_config"]["authorization"]
    assert "credentials" not in control["http_config"]["authorization"]


def inhibited(source: str, target: str) -> bool:
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    return any(
        all(fits(text, {"alertname": source}) for text in rule["source_matchers"])
        and all(fits(text, {"alertname": target}) for text in rule["target_matchers"])
        for rule in rules
    )


def test_inhibition_names_only_alerts_that_exist():
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        for text in [*rule["source_matchers"], *rule["target_matchers"]]:
            value = re.fullmatch(r'alertname=~?"(.*)"', text).group(1)
            for name in value.split("|"):
                assert any(re.fullmatch(name, known) for known in ALERTS), f"{name} is no alert"


@pytest.mark.parametrize(
    ("source", "target", "held"),
    [
        ("EngineDown", "GatewayEngineDisconnected", True),
        ("EngineDown", "FeedStalled", True),
        ("EngineDown", "SymbolFeedStale", True),
        ("EngineDown", "SettlementLagging", True),
        ("EngineDown", "OrderLatencyHigh", True),
        ("EngineDown", "GatewayShedding", True),
        ("EngineDown", "GatewayDown", False),
        ("EngineDown", "SequenceGap", False),
        ("EngineDown", "JournalFailed", False),
        ("FeedStalled", "SymbolFeedStale", True),
        ("FeedDown", "SymbolFeedStale", True),
        ("FeedDown", "SequenceGap", False),
        ("MarketHalted", "SymbolHalted", True),
        ("JournalSyncSlow", "OrderLatencyHigh", False),
        ("JournalFailed", "EngineDown", False),
        ("EngineDown", "PodNotReady", True),
        ("GatewayDown", "PodNotReady", True),
        ("NodeNotReady", "PodNotReady", True),
        ("NodeNotReady", "GatewayDown", False),
        ("ConfigPoisoned", "PodCrashLooping", True),
        ("PodCrashLooping", "RolloutStuck", True),
        ("RolloutStuck", "PodCrashLooping", False),
        ("KubeApiUnreachable", "KubeStateAbsent", True),
        ("KubeApiUnreachable", "PodNotReady", False),
    ],
)
def test_a_cause_holds_its_symptoms_back_and_nothing_else(source, target, held):
    assert inhibited(source, target) is held


@pytest.mark.parametrize(
    "name", ["EngineDown", "SequenceGap", "BookCrossed", "JournalFailed", "LedgerImbalance", "Watchdog"]
)
def test_nothing_ever_holds_back_what_endangers_the_market(name):
    assert not any(inhibited(source, name) for source in ALERTS)
