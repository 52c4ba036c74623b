"""One suite for both sides of `monitor.ports.Alerts`: a real Alertmanager and the fake that ships."""

import time

import pytest

from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.adapters.fake_alerts import FakeAlerts
from monitor.ports import PostableAlert
from tests.contract.servers import ALERTMANAGER, alertmanager, free_port


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.servers)])
async def alerts(request, tmp_path):
    if request.param == "fake":
        yield FakeAlerts(SystemClock())
        return
    if ALERTMANAGER is None:
        pytest.fail("no Alertmanager binary is installed")
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    async with alertmanager(tmp_path, config) as url, AlertmanagerApi(url) as api:
        yield api


def alert(name="Toy", *, ends_at=None, starts_at=None, **labels):
    return PostableAlert({"alertname": name, **labels}, {"summary": "s"}, starts_at=starts_at, ends_at=ends_at)


async def test_what_was_posted_is_active_with_its_labels_and_words(alerts):
    await alerts.post([alert(symbol="ACME")])
    (one,) = await alerts.active()
    assert one["labels"] == {"alertname": "Toy", "symbol": "ACME"}
    assert one["annotations"] == {"summary": "s"}


async def test_equal_labels_are_one_alert(alerts):
    await alerts.post([alert(symbol="ACME")])
    await alerts.post([alert(symbol="ACME"), alert(symbol="BETA")])
    assert sorted(one["labels"]["symbol"] for one in await alerts.active()) == ["ACME", "BETA"]


async def test_matchers_choose(alerts):
    await alerts.post([alert("Toy", symbol="ACME"), alert("Ball", symbol="ACME"), alert("Toy", symbol="BETA")])
    assert len(await alerts.active('alertname="Toy"')) == 2
    assert len(await alerts.active('alertname="Toy"', 'symbol=~"A.*"')) == 1
    assert len(await alerts.active('symbol!="ACME"')) == 1


async def test_an_alert_that_ended_is_active_no_more(alerts):
    now = time.time_ns()
    await alerts.post([alert()])
    await alerts.post([alert(starts_at=Instant(now - 2 * SECOND), ends_at=Instant(now - SECOND))])
    assert list(await alerts.active()) == []


async def test_a_label_that_is_no_name_is_refused(alerts):
    with pytest.raises(PermanentError):
        await alerts.post([PostableAlert({"alertname": "Toy", "not-a-name": "x"})])
    with pytest.raises(PermanentError):
        await alerts.post([PostableAlert({})])


async def test_a_matcher_that_is_none_is_refused(alerts):
    with pytest.raises(PermanentError):
        await alerts.active("alertname Toy")


async def test_nothing_to_post_is_no_call():
    async with AlertmanagerApi(f"http://127.0.0.1:{free_port()}") as api:
        await api.post([])


async def test_nobody_there_is_temporary():
    async with AlertmanagerApi(f"http://127.0.0.1:{free_port()}") as api:
        with pytest.raises(TemporaryError):
            await api.post([alert()])
        with pytest.raises(TemporaryError):
            await api.active()
