"""The whole alert path on real servers: a toy's fault, Prometheus's rules, Alertmanager's routes, a webhook."""
# mypy: disable-error-code="no-any-return"
# (JSON of a foreign interface is read without a type of its own)

import time
from pathlib import Path

import pytest
import yaml

from control.routing import house_routes
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.direct_alerts import sequence_gap
from tests.contract.servers import ALERTMANAGER, PROMETHEUS, alertmanager, prometheus, until
from tests.contract.toys import Toy

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.servers
GAP = 'exchange_watchdog_sequence_gap{{symbol="ACME"}} {}\nexchange_watchdog_feed_connected 1\n'


@pytest.fixture
async def path(tmp_path):
    """Yield a toy watchdog with the sink, and the API of the Alertmanager between."""
    assert PROMETHEUS, "no Prometheus binary is installed"
    assert ALERTMANAGER, "no Alertmanager binary is installed"
    (tmp_path / "secret").write_text("a-bearer-token")
    async with Toy() as toy:
        toy.page = GAP.format(0)
        routes = house_routes()
        (hook,) = routes["receivers"][0]["webhook_configs"]
        hook["url"] = f"http://127.0.0.1:{toy.port}/hook"
        hook["http_config"]["authorization"]["credentials_file"] = str(tmp_path / "secret")
        async with alertmanager(tmp_path, routes) as am:
            config = yaml.safe_load((ROOT / "alerts/prometheus.yml").read_text())
            config["rule_files"] = [str(ROOT / "alerts/rules/*.yml")]
            config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [am.removeprefix("http://")]}]
            target = {"targets": [f"127.0.0.1:{toy.port}"], "labels": {"replica": "watchdog-1"}}
            config["scrape_configs"] = [{"job_name": "watchdog", "static_configs": [target]}]
            async with prometheus(tmp_path, config), AlertmanagerApi(am) as api:
                yield toy, api


async def holds(condition) -> bool:
    return condition()


async def test_a_fault_reaches_the_webhook_and_merges_with_the_direct_alert(path):
    toy, api = path
    await until(lambda: holds(lambda: len(toy.alerts("Watchdog")) >= 2))
    assert toy.hooks[0][1] == "Bearer a-bearer-token"
    direct = sequence_gap("ACME")

    posted = time.monotonic()
    await api.post([direct])
    await until(lambda: holds(lambda: bool(toy.alerts("SequenceGap"))))
    direct_s = time.monotonic() - posted
    assert toy.alerts("SequenceGap")[0]["labels"] == dict(direct.labels)

    toy.page, shown = GAP.format(1), time.monotonic()

    async def the_rule_has_spoken() -> bool:
        found = await api.active('alertname="SequenceGap"')
        return any(one.get("generatorURL") for one in found)

    await until(the_rule_has_spoken)
    assert direct_s < time.monotonic() - shown, "the direct way is the fast one"
    (one,) = await api.active('alertname="SequenceGap"')
    assert one["labels"] == dict(direct.labels)
    assert one["annotations"] == dict(direct.annotations)

    toy.page = GAP.format(0)
    await until(lambda: holds(lambda: toy.alerts("SequenceGap")[-1]["status"] == "resolved"))


async def test_a_dead_process_is_reported_within_seconds_and_resolved_when_it_is_back(path):
    toy, _ = path
    await until(lambda: holds(lambda: toy.scrapes >= 3))
    toy.dead, scraped = True, toy.scrapes
    await until(lambda: holds(lambda: bool(toy.alerts("WatchdogDown"))))
    missed = toy.scrapes - scraped
    (alert,) = toy.alerts("WatchdogDown")[:1]
    assert alert["labels"] == {
        "alertname": "WatchdogDown",
        "severity": "critical",
        "level": "2",
        "team": "market-operations",
        "service": "watchdog",
    }
    assert missed <= 8, "one scrape a second was in vain"
    toy.dead = False
    await until(lambda: holds(lambda: toy.alerts("WatchdogDown")[-1]["status"] == "resolved"))
