"""Where an alert goes, how soon, what holds it back: both configurations, by each Alertmanager's own tool."""
# mypy: disable-error-code="type-arg, no-any-return, union-attr"
# (JSON of a foreign interface is read without a type of its own)

import functools
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from control import routing
from control.render import alertmanager_config
from control.servers import amtool
from monitor.routing.model import Version
from monitor.routing.walk import hits_of

ROOT = Path(__file__).parents[2]
CONFIGS = {version: ROOT / "alerts" / name for version, name in routing.GENERATED.items()}
CONFIG = CONFIGS[Version.OLD]
ALERTS = {
    rule["alert"]: rule
    for path in (ROOT / "alerts/rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
MARKET, EXCHANGE = "market-operations", "exchange-platform"
SETTLEMENT, PLATFORM = "settlement-operations", "platform-operations"


def level_2(team):
    return [f"{team}-level-2", f"{team}-level-2-off-hours"]


def needs(team, level):
    return {"severity": "critical", "incident": "I-1", "team": team, "level": level}


def ticket(name, team, level, **more):
    """A burn rate or an anomaly: for people alone."""
    return (name, {"audience": "people", "severity": "warning", "team": team, "level": level, "service": "x", **more})


BY_SYMBOL = ["alertname", "service", "symbol"]
BY_REPLICA = ["alertname", "service", "replica"]
BY_SERVICE = ["alertname", "service"]
BY_TEAM = ["alertname", "service", "team"]

# alert, further labels, receivers in order, what the last group is told by
ROUTES = [
    # a person is needed: never control
    *(("IncidentNeedsPerson", needs(team, "1"), [f"{team}-level-1"], ["incident"])
      for team in (MARKET, EXCHANGE, SETTLEMENT, PLATFORM)),
    *(("IncidentNeedsPerson", needs(team, "2"), level_2(team), ["incident"])
      for team in (MARKET, EXCHANGE, SETTLEMENT, PLATFORM)),
    *(("IncidentNeedsPerson", needs(team, "3"), [f"{team}-level-3"], ["incident"])
      for team in (MARKET, EXCHANGE, SETTLEMENT, PLATFORM)),
    ("IncidentNeedsPerson", needs("nobody-knows", "1"), [f"{PLATFORM}-level-2-off-hours"], ["incident"]),
    ("IncidentNeedsPerson", needs(MARKET, ""), [f"{PLATFORM}-level-2-off-hours"], ["incident"]),
    # for people to judge: never control
    *((*ticket("OrderEntryBudgetBurn", team, "2"), level_2(team), BY_TEAM)
      for team in (MARKET, EXCHANGE, SETTLEMENT, PLATFORM)),
    *((*ticket("OrderEntryBudgetTicket", team, "3"), [f"{team}-level-3"], BY_TEAM)
      for team in (MARKET, EXCHANGE, SETTLEMENT, PLATFORM)),
    (*ticket("OrderEntryBudgetBurn", EXCHANGE, "1"), [f"{EXCHANGE}-level-1"], BY_TEAM),
    (*ticket("OrderEntryBudgetBurn", EXCHANGE, "2", severity="critical"), level_2(EXCHANGE), BY_TEAM),
    (*ticket("ControlBudgetBurn", PLATFORM, "2", severity="critical", service="control"), level_2(PLATFORM), BY_TEAM),
    (*ticket("OrdersUnusual", "", "3"), [f"{PLATFORM}-level-2-off-hours"], BY_TEAM),
    # the market is endangered: people and control
    ("SequenceGap", {"symbol": "ACME"}, [f"{MARKET}-level-1", "control"], BY_SYMBOL),
    ("BookCrossed", {"symbol": "ACME"}, [f"{MARKET}-level-1", "control"], BY_SYMBOL),
    ("JournalFailed", {}, [f"{MARKET}-level-1", "control"], BY_SYMBOL),
    ("LedgerImbalance", {}, [f"{SETTLEMENT}-level-1", "control"], BY_SYMBOL),
    ("EngineDown", {}, [f"{EXCHANGE}-level-1", "control"], BY_REPLICA),
    ("PageNotDelivered", {"severity": "critical", "level": "1", "team": MARKET, "service": "bridge", "channel": "sms"},
     [f"{MARKET}-level-1", "control"], BY_REPLICA),
    ("Unheard", {"level": "1", "team": "new-team"}, [f"{PLATFORM}-level-2-off-hours", "control"], BY_SERVICE),
    # whoever is to mend or to watch is broken itself
    *((name, {"replica": "x-1"}, [*level_2(PLATFORM), "control"], BY_REPLICA) for name in (
        "ControlDown", "ControlLoopStuck", "PrometheusTargetsAbsent", "AlertmanagerDown", "KubeApiUnreachable",
        "PrometheusRuleFailures", "PrometheusNotificationsDropped", "AlertmanagerNotificationsFailing",
        "KubeStateAbsent",
    )),
    # everything else: control alone
    ("Watchdog", {}, ["heartbeat", "control"], ["alertname"]),
    *((name, {"replica": "gateway-1"}, ["control"], BY_REPLICA) for name in (
        "GatewayDown", "GatewayShedding", "GatewayCanaryFailing", "OrderLatencyHigh", "FeedDown", "FeedStalled",
        "SettlementDown", "WatchdogDown", "NodeNotReady", "ConfigPoisoned", "EstateDown",
    )),
    *((name, {}, ["control"], BY_SERVICE) for name in (
        "GatewayOvercapacity", "GatewayEngineDisconnected", "MarketHalted", "SymbolHalted", "SymbolFeedStale",
        "SettlementLagging", "JournalSyncSlow", "RejectsHigh", "KillSwitchOn", "ReplicasMissing", "ScrapeSlow",
        "PodNotReady", "PodCrashLooping", "RolloutStuck", "CanaryUnhealthy", "CertificateExpiring",
    )),
]  # fmt: skip


@functools.cache
def read(path: Path) -> dict:
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def labels_of(name: str, more: dict[str, str]) -> dict[str, str]:
    """Return an alert's labels; what a rule takes from its series is the gateway's."""
    own = ALERTS[name]["labels"] if name in ALERTS else {}
    return {"alertname": name, **{key: "gateway" if "{{" in text else text for key, text in own.items()}, **more}


def route_of(labels: dict[str, str]) -> dict:
    """Return the settings of the first of control's routes that fits, as Alertmanager walks them."""
    root = read(CONFIG)["route"]
    for child in root["routes"]:
        if not child.get("continue") and all(fits(text, labels) for text in child.get("matchers", [])):
            return {**root, **child}
    return root


def fits(matcher: str, labels: dict[str, str]) -> bool:
    name, relation, value = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher).groups()
    return bool(re.fullmatch(value if relation == "=~" else re.escape(value), labels.get(name, "")))


@pytest.fixture
def tool(request):
    """Return the tool of an Alertmanager."""
    if request.param is Version.OLD:
        return "amtool"
    found = amtool.find()
    if found is None and os.environ.get("SERVERS_REQUIRED") != "1":
        pytest.skip("the newest amtool is not built: tapewatch servers build amtool")
    assert found is not None, "the newest amtool is not built"
    return str(found)


def ask(*argv) -> tuple[int, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


BOTH = pytest.mark.parametrize(("tool", "version"), [(one, one) for one in Version], indirect=["tool"])


@BOTH
@pytest.mark.servers
def test_amtool_finds_no_fault_in_the_configuration(tool, version):
    code, said = ask(tool, "check-config", CONFIGS[version])
    assert code == 0, said


@BOTH
@pytest.mark.servers
def test_every_alert_of_the_table_reaches_its_receivers_by_amtools_word(tool, version):
    def wrong(row):
        name, more, receivers, _ = row
        labels = [f"{key}={value}" for key, value in labels_of(name, more).items()]
        verify = f"--verify.receivers={','.join(receivers)}"
        code, said = ask(tool, "config", "routes", "test", f"--config.file={CONFIGS[version]}", verify, *labels)
        return "" if code == 0 else f"{name} {more}: {said}"

    with ThreadPoolExecutor(2) as pool:
        problems = [one for one in pool.map(wrong, ROUTES) if one]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("version", list(Version))
def test_our_own_walk_names_the_same_receivers_and_groups(version):
    config = read(CONFIGS[version])
    for name, more, receivers, grouped in ROUTES:
        hits = hits_of(config, labels_of(name, more))
        assert [hit.receiver for hit in hits] == receivers, (name, more)
        assert list(hits[-1].group_by) == grouped, (name, more)


def test_the_table_of_routes_has_at_least_60_rows():
    rows = {(name, *sorted(more.items())) for name, more, *_ in ROUTES}
    assert len(rows) == len(ROUTES) >= 60


@pytest.mark.parametrize("version", list(Version))
def test_the_kept_configuration_is_what_the_organisation_makes(version):
    made = routing.reference(version)
    assert CONFIGS[version].read_text() == made, "make it anew: tapewatch alerts config --reference --write"


def test_control_hears_of_the_same_in_the_same_groups_whether_people_can_be_told_or_not():
    whole, bare = read(CONFIG), routing.house_routes()
    for name in ALERTS:
        labels = labels_of(name, {"replica": "r-1", "symbol": "ACME"})
        told = [hit for hit in hits_of(whole, labels) if hit.receiver == "control"]
        assert told == [hit for hit in hits_of(bare, labels) if hit.receiver == "control"], name


def test_two_control_processes_are_both_told_and_people_once():
    whole = read(CONFIG)
    twice = alertmanager_config(whole, control_ports=(1, 2), secret=Path("s"), group_wait_s=None)
    for name, more, receivers, _ in ROUTES:
        told = [hit.receiver for hit in hits_of(twice, labels_of(name, more))]
        assert sorted(told) == sorted([*receivers, *(["control-2"] if "control" in receivers else [])]), name
    urls = {one["name"]: one["webhook_configs"][0]["url"] for one in twice["receivers"] if "control" in one["name"]}
    assert urls == {"control": "http://127.0.0.1:1/api/v1/alerts", "control-2": "http://127.0.0.1:2/api/v1/alerts"}
    people = [one for one in twice["receivers"] if "control" not in one["name"]]
    assert people == [one for one in whole["receivers"] if one["name"] != "control"]


def test_what_endangers_the_market_is_muted_in_no_phase():
    for mute in routing.load_organisation().mutes:
        assert ALERTS[mute.alert]["labels"]["level"] != "1", mute.alert


def test_without_a_live_channel_control_alone_is_told_and_persons_are_asked_for_on_its_page():
    bare = routing.house_routes()
    assert [one["name"] for one in bare["receivers"]] == ["control", "on-call"]
    assert [hit.receiver for hit in hits_of(bare, {"alertname": "IncidentNeedsPerson", "level": "1"})] == ["on-call"]
    assert "time_intervals" not in bare


FOR_PEOPLE = {name for name, rule in ALERTS.items() if rule["labels"].get("audience") == "people"}


@pytest.mark.parametrize("name", sorted(name for name, rule in ALERTS.items() if rule["labels"]["level"] == "1"))
def test_whatever_endangers_the_market_is_told_to_people_at_once(name):
    people, *_ = hits_of(read(CONFIG), labels_of(name, {}))
    assert people.receiver.endswith("-level-1")
    assert people.group_wait == "0s"


@pytest.mark.parametrize("name", sorted(FOR_PEOPLE))
def test_what_is_for_people_never_reaches_control_and_always_its_team(name):
    for config in (read(CONFIG), routing.house_routes()):
        assert "control" not in [hit.receiver for hit in hits_of(config, labels_of(name, {}))]
    team = ALERTS[name]["labels"]["team"]
    assert all(hit.receiver.startswith(team) for hit in hits_of(read(CONFIG), labels_of(name, {})))


@pytest.mark.parametrize(
    "name",
    sorted(
        name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "critical" and name not in FOR_PEOPLE
    ),
)
def test_a_critical_alert_waits_for_nobody(name):
    route = route_of(labels_of(name, {}))
    assert (route["group_wait"], route["group_interval"]) == ("0s", "1s")


def test_the_dead_mans_switch_is_heard_every_few_seconds():
    route = route_of(labels_of("Watchdog", {}))
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("0s", "2s", "4s")


@pytest.mark.parametrize("level", ["1", "2", "3", "", "x"])
@pytest.mark.parametrize("team", [MARKET, EXCHANGE, SETTLEMENT, PLATFORM, "", "x"])
def test_what_needs_a_person_never_comes_back_to_control_and_always_finds_somebody(team, level):
    config = read(CONFIG)
    ways = {one["name"]: [key for key in one if key != "name"] for one in config["receivers"]}
    hits = hits_of(config, {"alertname": "IncidentNeedsPerson", "severity": "critical", "team": team, "level": level})
    assert hits
    assert all(hit.receiver != "control" and ways[hit.receiver] for hit in hits)


def test_control_is_told_everything_with_its_credentials():
    (control,) = next(one for one in read(CONFIG)["receivers"] if one["name"] == "control")["webhook_configs"]
    assert control["send_resolved"] is True
    assert control["max_alerts"] == 0
    assert "credentials_file" in control["http_config"]["authorization"]
    assert "credentials" not in control["http_config"]["authorization"]


def inhibited(source: str, target: str) -> bool:
    rules = read(CONFIG)["inhibit_rules"]
    return any(
        all(fits(text, {"alertname": source}) for text in rule["source_matchers"])
        and all(fits(text, {"alertname": target}) for text in rule["target_matchers"])
        for rule in rules
    )


def test_inhibition_names_only_alerts_that_exist():
    for rule in read(CONFIG)["inhibit_rules"]:
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
        ("EngineDown", "OrderFlowStopped", True),
        ("MarketHalted", "SymbolSilent", True),
        ("BridgeDown", "PageNotDelivered", False),
        ("ControlDown", "IncidentOpenLong", True),
        ("EngineDown", "TradeThrough", False),
    ],
)
def test_a_cause_holds_its_symptoms_back_and_nothing_else(source, target, held):
    assert inhibited(source, target) is held


@pytest.mark.parametrize(
    "name", sorted({"Watchdog", *(name for name, rule in ALERTS.items() if rule["labels"]["level"] == "1")})
)
def test_nothing_ever_holds_back_what_endangers_the_market(name):
    assert not any(inhibited(source, name) for source in ALERTS)
