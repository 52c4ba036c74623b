"""The alert of a lost page: at once, one for each channel, told again, ended in time, and the same as its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from control.bridge_alarm import SHOWN_FOR, SOON_S, LostPages
from incidents.paging.outbox import Ended, Phase, Taken, fold
from kernel.errors import TemporaryError
from kernel.time import SECOND, Instant, parse_duration
from monitor.direct_alerts import page_not_delivered
from tests.incidents.test_paging_outbox import PAGE

RULES = Path(__file__).parents[2] / "alerts" / "rules" / "paging.yml"


class Alertmanager:
    def __init__(self):
        self.posted = []
        self.down = False

    async def post(self, alerts):
        if self.down:
            raise TemporaryError("Alertmanager does not answer")
        self.posted += alerts


class Clock:
    def __init__(self):
        self.at = Instant(0)

    def now(self):
        return self.at


class Log:
    def event(self, name, /, *, severity="info", **fields):
        pass


def lost(channel, at):
    taken = Taken(Instant(0), channel, channel, "", PAGE)
    return fold([taken, Ended(Instant(at), Phase.FAILED, "404 gone")])


@pytest.fixture
def plant():
    alertmanager, clock = Alertmanager(), Clock()
    return alertmanager, clock, LostPages(alertmanager, Log(), clock)


async def test_each_channel_has_one_alert_that_is_told_again_and_ends(plant):
    alertmanager, clock, pages = plant
    for channel in ("sms", "call", "sms"):
        pages.lost(lost(channel, 0))
    await pages._turn()
    assert sorted(one.labels["channel"] for one in alertmanager.posted) == ["call", "sms"]
    assert all(one.ends_at > clock.at for one in alertmanager.posted)
    clock.at = SHOWN_FOR
    await pages._turn()
    assert all(one.ends_at == clock.at for one in alertmanager.posted[2:])
    await pages._turn()
    assert len(alertmanager.posted) == 4


async def test_an_alertmanager_that_is_down_learns_of_it_later(plant):
    alertmanager, clock, pages = plant
    pages.lost(lost("sms", 0))
    alertmanager.down = True
    assert await pages._turn() == SOON_S
    clock.at = Instant(10 * SHOWN_FOR)
    alertmanager.down = False
    await pages._turn()
    (told,) = alertmanager.posted
    assert told.ends_at > clock.at, "what nobody was told of is not over"
    clock.at = Instant(11 * SHOWN_FOR)
    await pages._turn()
    assert alertmanager.posted[1].ends_at == clock.at


@pytest.mark.skipif(not RULES.exists(), reason="the rules of paging are not written yet")
def test_the_alert_is_that_of_its_rule_and_ends_before_it():
    (rule,) = [
        one
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for one in group["rules"]
        if one.get("alert") == "PageNotDelivered"
    ]
    ours = page_not_delivered("sms")
    assert dict(ours.labels) == rule["labels"] | {"alertname": "PageNotDelivered", "channel": "sms"}
    words = {key: text.replace("{{ $labels.channel }}", "sms") for key, text in rule["annotations"].items()}
    assert dict(ours.annotations) == words
    window = parse_duration(rule["expr"].split("[")[1].split("]")[0])
    assert window - 10 * SECOND <= SHOWN_FOR < window
