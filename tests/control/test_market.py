"""The market's facts: phase by the calendar, shares by measurement, and nothing made up."""

import msgspec
import pytest

from control.market import DATA_AGE_MAX, Market, bounds_market, load_calendar
from exchange.calendar import calendar_of
from kernel.errors import InputError
from kernel.time import MINUTE, SECOND, Instant, from_rfc3339
from monitor.ports import NoReading, Reading, Unknown
from runbooks.adapters.fake import plant
from runbooks.facts import PlantFacts, Share
from tests.exchange.test_calendar import XETRA
from tests.sim.library import GATEWAY
from tests.sim.virtual import run

YAML = """\
zone: Europe/Berlin
sessions:
  regular:
    - {phase: pre_open, from: "08:00"}
    - {phase: opening_auction, from: "08:50"}
    - {phase: continuous, from: "09:00"}
    - {phase: closed, from: "17:35"}
week: {monday: regular, friday: regular}
holidays: ["2026-12-25"]
"""


class Figures:
    """A monitoring system that knows what it was told, by replica."""

    def __init__(self, **figures):
        self.figures, self.asked = figures, []

    async def read(self, query, *, fresh, max_age):
        assert max_age == DATA_AGE_MAX
        self.asked.append(query)
        replica = fresh.partition('replica="')[2].partition('"')[0]
        value = self.figures.get(replica.replace("-", "_"))
        return NoReading(Unknown.STALE, "old") if value is None else Reading(value, Instant(0))

    async def curve(self, query, start, end, step):
        raise AssertionError("curves are for reports")


class Clock:
    def __init__(self, at="2026-03-02T09:00:00Z"):
        self.at = from_rfc3339(at)

    def now(self):
        return self.at


def facts():
    return PlantFacts(workloads=tuple(plant()), allowed=frozenset())


def shares(**figures):
    return run(Market(Figures(**figures), Clock(), symbols=8).with_shares(facts())).market.shares


def test_orders_are_shared_by_the_gateways_and_all_of_them_meet_in_the_engine():
    assert shares(gateway_1=30.0, gateway_2=10.0, engine_1=1_000.0) == {
        "gateway-1": Share(8, 0.75, 0),
        "gateway-2": Share(8, 0.25, 0),
        "engine-1": Share(8, 1.0, 1_000),
        "market-data-1": Share(8, 0.0, 0),
        "settlement-1": Share(0, 0.0, 0),
        "watchdog-1": Share(0, 0.0, 0),
    }


@pytest.mark.parametrize(
    ("figures", "unknown"),
    [
        ({"gateway_2": 10.0, "engine_1": 5.0}, "gateway-1"),
        ({"gateway_1": 30.0, "gateway_2": 10.0}, "engine-1"),
        ({"gateway_1": -1.0, "gateway_2": 10.0, "engine_1": 5.0}, "gateway-1"),
    ],
)
def test_a_replica_without_young_data_has_no_share(figures, unknown):
    assert unknown not in shares(**figures)
    assert len(shares(**figures)) == 5


def test_one_gateway_that_is_not_known_makes_the_others_look_larger_never_smaller():
    assert shares(gateway_1=30.0)["gateway-1"].volume == 1.0


def test_when_nobody_sends_orders_no_gateway_carries_any():
    assert shares(gateway_1=0.0, gateway_2=0.0)["gateway-2"] == Share(8, 0.0, 0)


def test_a_workload_that_is_not_known_has_no_share():
    odd = tuple(msgspec.structs.replace(one, name="odd") for one in plant()[:1])
    market = Market(Figures(engine_1=1.0), Clock(), symbols=8)
    assert run(market.with_shares(msgspec.structs.replace(facts(), workloads=odd))).market.shares == {}


def test_a_canary_of_the_gateways_is_a_gateway():
    gateway = plant()[1]
    canary = tuple(msgspec.structs.replace(replica, id="canary-1") for replica in gateway.replicas[:1])
    workloads = (gateway, msgspec.structs.replace(gateway, name="gateway-canary", replicas=canary))
    market = Market(Figures(gateway_1=6.0, gateway_2=3.0, canary_1=1.0), Clock(), symbols=8)
    found = run(market.with_shares(msgspec.structs.replace(facts(), workloads=workloads))).market.shares
    assert found["canary-1"] == Share(8, 0.1, 0)


def test_shares_are_kept_for_a_second_and_asked_anew_for_other_replicas():
    figures, clock = Figures(gateway_1=1.0, gateway_2=1.0, engine_1=1.0), Clock()
    market = Market(figures, clock, symbols=8)

    async def main():
        await market.with_shares(facts())
        assert len(figures.asked) == 3
        clock.at += SECOND
        await market.with_shares(facts())
        assert len(figures.asked) == 3
        await market.with_shares(msgspec.structs.replace(facts(), workloads=facts().workloads[:2]))
        assert len(figures.asked) == 6
        clock.at += SECOND + 1
        await market.with_shares(facts())
        assert len(figures.asked) == 9

    run(main())


def test_the_phase_costs_no_question_and_follows_the_calendar():
    figures, clock = Figures(), Clock("2026-03-02T07:49:59Z")
    market = Market(figures, clock, symbols=8, calendar=calendar_of(XETRA))
    before = market.now()
    assert (before.phase, before.auction) == ("pre_open", False)
    assert before.next_auction_at == clock.at + SECOND
    clock.at += SECOND
    assert (market.now().phase, market.now().auction) == ("opening_auction", True)
    clock.at += 10 * MINUTE
    assert market.now().phase == "continuous"
    clock.at -= 10 * MINUTE  # a clock that goes back is believed, too
    assert market.now().phase == "opening_auction"
    assert not figures.asked


def test_without_a_calendar_nothing_is_said_of_the_market():
    assert Market(Figures(), Clock(), symbols=8).now() is None


def test_only_a_runbook_that_bounds_the_market_asks_for_shares():
    assert not bounds_market(GATEWAY)
    for bound in ({"volume_share": 0.0}, {"symbols_served": 0}, {"notional": 0}):
        assert bounds_market(
            msgspec.structs.replace(GATEWAY, blast_radius=msgspec.structs.replace(GATEWAY.blast_radius, **bound))
        )


def test_a_calendar_is_read_from_its_file(tmp_path):
    path = tmp_path / "calendar.yaml"
    path.write_text(YAML)
    assert load_calendar(path).phase_at(from_rfc3339("2026-03-02T07:55:00Z")).name == "opening_auction"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("Europe/Berlin", "Europe/Berln", r"calendar.yaml:1:7: 'Europe/Berln' is no time zone; did you mean"),
        ('"17:35"', "17:35", r"calendar.yaml:7:29: '17:35' is ambiguous; .* put the text in quotes"),
        ("opening_auction", "auction", r"calendar.yaml:5:15: 'auction' is no phase; one of pre_open"),
        ("friday: regular", "friday: late", r"calendar.yaml:8:33: 'late' is no session; one of regular"),
        ("holidays", "holiday", r"calendar.yaml:9:1: 'holiday' is not known here"),
        ('"2026-12-25"', "2026-12-25", r"calendar.yaml:9:12: '2026-12-25' is ambiguous"),
        ("zone:", "zone: &a", r"calendar.yaml:1:7: an anchor is not allowed"),
        (YAML, "", r"calendar.yaml:1:1: the file is empty; a calendar has zone, sessions and week"),
    ],
)
def test_a_broken_calendar_is_refused_with_its_line(tmp_path, before, after, told):
    path = tmp_path / "calendar.yaml"
    path.write_text(YAML.replace(before, after))
    with pytest.raises(InputError, match=told) as error:
        load_calendar(path)
    assert "\n" not in str(error.value)


def test_a_calendar_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"calendar .*none.yaml: cannot be read: No such file"):
        load_calendar(tmp_path / "none.yaml")
