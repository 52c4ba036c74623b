"""What a lost engine, a halted market and a broken feed hold back where several engines share the symbols."""

import json
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from bench.parts.monitoring import alertmanager_with

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]
OF_ONE = ("GatewayEngineDisconnected", "SymbolFeedStale", "SymbolSilent", "SymbolLatencyHigh")
CAUSES = ("FeedEngineDisconnected", "MarketHalted")
"""Of one, too; each holds something back itself."""
OF_ALL = (
    "OrdersUnavailable", "OrdersUnanswered", "OrderLatencyHigh", "OrderLatencyTail", "OrdersUnusual", "RejectsUnusual",
    "LatencyUnusual",
)  # fmt: skip
NOT_ITS = ("GatewayShedding", "RejectsHigh", "SettlementLagging", "OrderFlowStopped", "JournalSyncSlow", "SymbolHalted")


def alert(name, engine=""):
    return {"alertname": name, **({"engine": engine} if engine else {})}


def held_back(home, firing):
    """Return which alerts an Alertmanager with the house's inhibitions holds back, as (name, engine)."""
    rules = yaml.safe_load((ROOT / "alerts/alertmanager.yml").read_text())["inhibit_rules"]
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}], "inhibit_rules": rules}
    # It takes alerts in their order: once the last pair is seen, everything before it is known.
    last = [alert("AnomalyDown"), alert("AnomalyStale")]
    with alertmanager_with(home, config) as port:
        url = f"http://127.0.0.1:{port}/api/v2/alerts"
        for labels in [*firing, *last]:
            body = json.dumps([{"labels": labels}]).encode()
            urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()
        deadline = time.monotonic() + 20
        while True:
            with urllib.request.urlopen(url) as answer:
                told = json.load(answer)
            held = {
                (one["labels"]["alertname"], one["labels"].get("engine", ""))
                for one in told if one["status"]["inhibitedBy"]
            }  # fmt: skip
            if ("AnomalyStale", "") in held and len(told) == len(firing) + len(last):
                return held - {("AnomalyStale", "")}
            assert time.monotonic() < deadline, told
            time.sleep(0.05)


@pytest.mark.parametrize("names", [OF_ONE, CAUSES])
def test_a_lost_engine_holds_back_what_is_its_own_and_nothing_of_another(tmp_path, names):
    both = [alert(name, engine) for name in names for engine in ("engine-1", "engine-2")]
    assert held_back(tmp_path, [alert("EnginePartDown", "engine-2"), *both]) == {(name, "engine-2") for name in names}


def test_a_lost_engine_holds_back_of_what_is_counted_of_all_only_what_its_loss_makes(tmp_path):
    whole = [alert(name) for name in (*OF_ALL, *NOT_ITS)]
    assert held_back(tmp_path, [alert("EnginePartDown", "engine-2"), *whole]) == {(name, "") for name in OF_ALL}


@pytest.mark.parametrize("source", CAUSES)
def test_a_halt_and_a_broken_feed_of_one_engine_leave_the_silence_of_another_to_be_told(tmp_path, source):
    silent = [alert("SymbolSilent", engine) for engine in ("engine-1", "engine-2")]
    assert held_back(tmp_path, [alert(source, "engine-2"), *silent]) == {("SymbolSilent", "engine-2")}


def test_the_only_engine_holds_back_as_before_without_a_label(tmp_path):
    firing = [alert(name) for name in ("MarketHalted", "SymbolHalted", "SymbolSilent", "SymbolFeedStale")]
    assert held_back(tmp_path, firing) == {("SymbolHalted", ""), ("SymbolSilent", "")}
