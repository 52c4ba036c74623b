"""Routes on a real Alertmanager: a storm, phases that mute, silences."""

import datetime as dt
import json
import random
import time
import urllib.request
import zoneinfo

import pytest

from bench.parts.monitoring import alertmanager_with
from bench.storm import HELD, MESSAGES_MAX, alerts_of, listening, storm
from control import silences
from control.plan import free_ports
from exchange.calendar import Calendar, PhaseName, Turn
from kernel.errors import InputError
from kernel.time import HOUR, MINUTE, SECOND, Duration, Instant
from monitor.routing.intervals import phase_intervals

pytestmark = pytest.mark.servers
COUNT = 2000
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham"]


def test_a_storm_of_2000_alerts_is_a_few_messages_to_people_and_none_is_lost(tmp_path):
    seen = storm(tmp_path, COUNT, 3.0, pace=0.1)
    held = sum(one["labels"]["alertname"] == HELD for one in alerts_of(COUNT))
    assert not seen.missing
    assert held > 400
    assert (seen.inhibited, seen.leaked) == (held, 0)
    assert seen.told.people() <= MESSAGES_MAX


# --- phases ---


def calendar_around(chance: random.Random, at_s: int) -> Calendar:
    """Return a calendar whose sessions turn minutes before and after a moment, some on days of their own."""
    zone = zoneinfo.ZoneInfo(chance.choice(ZONES))
    wall = dt.datetime.fromtimestamp(at_s, zone)
    minute = wall.hour * 60 + wall.minute

    def session():
        near = {max(0, min(1439, minute + chance.randint(-4, 4))) for _ in range(chance.randint(0, 4))}
        names = [PhaseName.PRE_OPEN, PhaseName.CONTINUOUS, PhaseName.POST_CLOSE, PhaseName.CLOSING_AUCTION]
        turns = [Turn(one * 60, names[n % len(names)]) for n, one in enumerate(sorted(near))]
        return (*turns, Turn(min(86_399, turns[-1].at_s + 120), PhaseName.CLOSED)) if turns else ()

    days = {wall.date() + dt.timedelta(days=n): session() for n in (-1, 0, 1, 40) if chance.random() < 0.4}
    return Calendar(zone=zone, week=tuple(session() for _ in range(7)), days=days)


def test_alertmanager_mutes_what_the_calendar_says(tmp_path):
    chance = random.Random(7)
    while time.time() % 60 > 45:
        time.sleep(0.5)  # the test lasts some seconds, which shall not span the turn of a minute
    at_s = int(time.time())
    cases = {
        f"c{n}": (calendar_around(chance, at_s), frozenset(chance.sample(list(PhaseName), chance.randint(1, 4))))
        for n in range(60)
    }
    wanted = {
        name for name, (calendar, phases) in cases.items()
        if calendar.phase_at(Instant(at_s * SECOND)).name not in phases
    }  # fmt: skip
    assert 10 < len(wanted) < 50, "a test that tells something"
    rows = {name: phase_intervals(calendar, phases, 2026) for name, (calendar, phases) in cases.items()}
    (port,) = free_ports(1)
    pace = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    config = {
        "route": {
            "receiver": "sink", "group_by": ["alertname"], **pace,
            "routes": [
                {"matchers": [f'alertname="{name}"'], **({"mute_time_intervals": [name]} if found else {})}
                for name, found in rows.items()
            ],
        },
        "time_intervals": [{"name": name, "time_intervals": found} for name, found in rows.items() if found],
        "receivers": [{"name": "sink", "webhook_configs": [{"url": f"http://127.0.0.1:{port}/sink"}]}],
    }  # fmt: skip
    with listening(port) as told, alertmanager_with(tmp_path, config) as alertmanager:
        body = json.dumps([{"labels": {"alertname": name}} for name in [*cases, "last"]]).encode()
        url = f"http://127.0.0.1:{alertmanager}/api/v2/alerts"
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()
        deadline = time.monotonic() + 40
        while len(told.alerts["sink"]) < len(wanted) + 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)  # what is told too much would come now
        seen = {name for name, _ in told.alerts["sink"]} - {"last"}
    if int(time.time()) // 60 != at_s // 60:
        pytest.skip("the minute turned meanwhile")
    assert seen == wanted


# --- silences ---


def spoken(**more):
    """Return what a person says with a silence; now is when it is said, not when the tests were collected."""
    now = Instant(time.time_ns())
    return {"by": "anna", "why": "the rack is being moved", "now": now, "length": Duration(30 * MINUTE)} | more


def test_a_silence_is_set_listed_prolonged_and_ended_and_its_last_id_counts(tmp_path):
    config = {"route": {"receiver": "x"}, "receivers": [{"name": "x"}]}
    with alertmanager_with(tmp_path, config) as port:
        url = f"http://127.0.0.1:{port}"
        id_ = silences.add(url, ["alertname=FeedDown", "symbol=~A.+", "team!=x"], **spoken())
        (one,) = silences.listed(url)
        assert (one.id, one.by, one.why) == (id_, "anna", "the rack is being moved")
        assert set(one.matchers) == {'alertname="FeedDown"', 'symbol=~"A.+"', 'team!="x"'}
        assert abs(one.ends_at - one.starts_at - 30 * MINUTE) < MINUTE
        edited = silences.edit(url, id_, **spoken(length=Duration(2 * HOUR)))
        (one,) = silences.listed(url)
        assert one.id == edited
        assert one.ends_at - time.time_ns() > HOUR
        silences.expire(url, edited)
        assert silences.listed(url) == []
        assert {one.state for one in silences.listed(url, expired=True)} == {"expired"}
        with pytest.raises(InputError, match="is over"):
            silences.edit(url, edited, **spoken())
        with pytest.raises(InputError, match="is not known"):
            silences.expire(url, "00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("matchers", "more", "said"),
    [
        ([], {}, "has no matcher"),
        (["alertname"], {}, "is no matcher"),
        (["alertname=~.*"], {}, "would silence everything"),
        (["alertname!="], {}, "would silence everything"),
        (["alertname=~("], {}, "no regular expression"),
        (["a=b"], {"by": " "}, "--by"),
        (["a=b"], {"why": ""}, "--why"),
        (["a=b"], {"length": Duration(25 * HOUR)}, "at most 24 h"),
        (["a=b"], {"length": Duration(0)}, "--for"),
    ],
)
def test_a_silence_without_owner_reason_end_or_bounds_is_refused_before_anybody_is_asked(matchers, more, said):
    with pytest.raises(InputError, match=said):
        silences.add("http://127.0.0.1:9", matchers, **spoken(**more))
