"""The fold over readings: who has a seat, what asks for attention, what is explained away, what begins anew."""

import dataclasses
import math

import numpy as np
import pytest

from anomaly.detector import NO_SLOT, Channel
from control.anomaly_state import Life, decode, encode
from control.anomaly_watch import GONE, AnomalyWatch, Key, Kind
from exchange.calendar import calendar_of
from kernel.time import MINUTE, SECOND, Duration, from_rfc3339
from tests.control.anomaly_bed import DIGEST, GATEWAY, HOLD, LIST, STEP, at, calm, life, step, watch_of
from tests.control.plain_fleet import PLAIN

CALENDAR = calendar_of(
    {
        "zone": "UTC",
        "sessions": {"day": [{"phase": "continuous", "from": "09:31"}, {"phase": "closed", "from": "17:00"}]},
        "week": {"monday": "day"},
    }
)


def taught(rows=8, **how):
    watch = watch_of(**how)
    for row in range(1, rows + 1):
        watch.advance(calm(row, latency=5.0 + row % 2), Kind.LIVE)
    return watch


def row_of(watch, key=GATEWAY):
    return next(one for one in watch.rows() if one.key == key)


def test_an_episode_pages_once_and_its_alert_stands_until_it_is_over():
    watch = taught()
    (page,) = watch.advance(calm(9, latency=50.0), Kind.LIVE)
    assert (page.series, page.item, page.service, page.value) == ("latency", "gateway-1", "gateway", 50.0)
    assert page.sentence == "50, expected 5 to 6 (ms)"
    assert row_of(watch).alert
    for row in range(10, 30):
        assert watch.advance(calm(row, latency=50.0), Kind.LIVE) == []
        assert row_of(watch).alert, "through the episode"
    for row in range(30, 34):
        watch.advance(calm(row), Kind.LIVE)
    assert not row_of(watch).alert


def test_a_short_episode_stands_for_the_hold_so_that_a_rule_sees_it():
    watch = taught()
    watch.advance(calm(9, latency=50.0), Kind.LIVE)
    standing = 0
    for row in range(10, 30):
        watch.advance(calm(row), Kind.LIVE)
        standing += row_of(watch).alert
    assert standing == HOLD // STEP - 1


def test_history_teaches_and_asks_for_nobody_though_its_episode_goes_on():
    watch = taught()
    assert watch.advance(calm(9, latency=50.0), Kind.HISTORY) == []
    assert watch.advance(calm(10, latency=50.0), Kind.LIVE) == []
    assert row_of(watch).score >= 0.5


def test_an_episode_that_began_in_a_gap_and_goes_on_asks_at_the_next_live_step():
    watch = taught()
    assert watch.advance(calm(9, latency=50.0), Kind.GAP) == []
    assert not row_of(watch).alert
    assert len(watch.advance(calm(10, latency=50.0), Kind.LIVE)) == 1


def test_an_episode_that_is_over_within_the_gap_asks_for_nobody():
    watch = taught()
    watch.advance(calm(9, latency=50.0), Kind.GAP)
    for row in range(10, 14):
        watch.advance(calm(row), Kind.GAP)
    assert watch.advance(calm(14), Kind.LIVE) == []


def test_a_deviation_to_the_harmless_side_is_shown_and_asks_for_nobody_until_it_turns():
    watch = taught()
    assert watch.advance(calm(9, latency=-50.0), Kind.LIVE) == []
    assert row_of(watch).score >= 0.5
    assert not row_of(watch).alert
    assert len(watch.advance(calm(10, latency=50.0), Kind.LIVE)) == 1, "the same episode, now harmful"


def test_a_departure_that_matters_to_nobody_is_shown_and_asks_once_it_grows():
    small = tuple(dataclasses.replace(one, least=10.0, least_share=0.5) for one in LIST)
    watch = AnomalyWatch(small, PLAIN, hold=HOLD)
    for row in range(1, 9):
        watch.advance(calm(row, latency=5.0 + row % 2), Kind.LIVE)
    assert watch.advance(calm(9, latency=12.0, flow=140.0), Kind.LIVE) == []
    assert row_of(watch).score >= 0.5
    for row in range(10, 20):
        assert watch.advance(calm(row), Kind.LIVE) == []
    pages = watch.advance(calm(20, latency=19.0, flow=160.0), Kind.LIVE)
    assert {one.series for one in pages} == {"latency", "flow"}, "ten more, and half as much again"


def test_while_data_come_back_after_an_outage_nobody_is_asked():
    watch = taught()
    watch.quiet_until(at(11))
    assert watch.advance(calm(9, latency=50.0), Kind.LIVE) == []
    assert watch.advance(calm(10, latency=50.0), Kind.LIVE) == []
    assert len(watch.advance(calm(11, latency=50.0), Kind.LIVE)) == 1, "what stays unusual is told then"


def test_a_false_alarm_ends_the_alert_and_makes_this_series_ask_later_and_no_other():
    watch = taught()
    (page,) = watch.advance(step(9, {("latency", "gateway-1"): 9.0, "flow": 100.0}), Kind.LIVE)
    assert watch.answer(page.id, false_alarm=True) == 1
    assert not row_of(watch).alert
    assert watch.pages[0].answer == "false"
    for row in range(10, 16):
        watch.advance(calm(row), Kind.LIVE)
    pages = watch.advance(step(16, {("latency", "gateway-1"): 9.0, "flow": 90.0}), Kind.LIVE)
    assert [one.series for one in pages] == ["flow"], "the other series asks as before"
    assert watch.answer("latency/gateway-1", false_alarm=False) == 1
    for row in range(17, 25):
        watch.advance(calm(row), Kind.LIVE)
    assert [one.series for one in watch.advance(calm(25, latency=20.0), Kind.LIVE)] == ["latency"]


def test_what_names_nothing_is_said_of_nothing_and_an_entry_names_all_its_parts():
    watch = taught()
    watch.advance(step(9, {("latency", "gateway-1"): 5.0, ("latency", "gateway-2"): 5.0}), Kind.LIVE)
    assert watch.answer("A-1-1", false_alarm=True) == 0
    assert watch.answer("latenc", false_alarm=True) == 0
    assert watch.answer("latency", false_alarm=True) == 2


def test_confirmed_pages_do_not_count_against_the_budget():
    watch = taught()
    (page,) = watch.advance(calm(9, latency=50.0), Kind.LIVE)
    assert watch.pages_of_the_day() == 1
    watch.answer(page.id, false_alarm=False)
    assert watch.pages_of_the_day() == 0
    assert watch.promised() == pytest.approx(2 * 0.07)


def test_seats_are_bounded_by_the_list_and_what_is_above_is_counted():
    watch = watch_of()
    watch.advance(step(1, {("latency", f"g-{n}"): 1.0 for n in range(5)} | {"stranger": 1.0}), Kind.LIVE)
    assert [one.key.item for one in watch.rows()] == ["g-0", "g-1"]
    assert watch.left_out == 3
    assert len(watch._fleet) == 5


def test_a_series_that_is_gone_for_long_gives_its_seat_to_another_which_begins_anew():
    watch = taught()
    far = 8 + GONE // STEP
    watch.advance(step(far, {"flow": 100.0}), Kind.LIVE)
    assert row_of(watch).verdict.name == "MISSED", "gone for a while is missing"
    watch.advance(step(far + 1, {"flow": 100.0, ("latency", "gateway-2"): 1.0}), Kind.LIVE)
    assert [one.key.words for one in watch.rows()] == ["latency/gateway-2", "flow"]
    assert watch.dropped == 1
    assert row_of(watch, Key("latency", "gateway-2")).verdict.name == "WARMING"


def test_missing_is_not_zero():
    watch = taught()
    watch.advance(step(9, {"flow": 100.0}), Kind.LIVE)
    assert math.isnan(row_of(watch).value)
    watch.advance(step(10, {"flow": 100.0, ("latency", "gateway-1"): math.nan}), Kind.LIVE)
    assert row_of(watch).verdict.name == "MISSED"


def test_a_deploy_begins_its_series_anew_and_a_mere_restart_only_what_lives_in_the_process():
    def living(row, **how):
        values = {("latency", "gateway-1"): 5.0, ("memory", "gateway-1"): 7.0, "flow": 1.0}
        return step(row, values, lives=life(**how))

    watch = watch_of()
    for row in range(1, 4):
        watch.advance(living(row), Kind.LIVE)
    seat = {key.series: one.index for key, one in watch._seats.items()}
    watch._fleet.restarted.clear()
    watch.advance(living(4, since=2.0), Kind.LIVE)
    assert watch._fleet.restarted == [seat["memory"]]
    watch.advance(living(5, since=3.0, build="2"), Kind.LIVE)
    assert sorted(watch._fleet.restarted[1:]) == sorted([seat["memory"], seat["latency"]])
    watch.advance(living(6, since=3.0, build=""), Kind.LIVE)
    watch.advance(living(7, since=0.0, build="2"), Kind.LIVE)
    assert len(watch._fleet.restarted) == 3, "what is not said for a scrape has not changed"
    assert [watch.renewed[one] for one in watch.renewed] == [2, 1]


def test_a_seat_given_to_another_series_begins_without_what_was_said_and_a_deploy_keeps_it():
    def of(row, replica, build="1"):
        lives = {replica: Life("gateway", build, 1.0)}
        return step(row, {("latency", replica): 5.0}, lives=lives)

    watch = watch_of()
    for row in range(1, 4):
        watch.advance(of(row, "gateway-1"), Kind.LIVE)
    seat = watch._seats[GATEWAY].index
    assert watch.answer("latency/gateway-1", false_alarm=True) == 1
    told = watch._fleet.state[seat, 5]
    assert told > 1
    watch.advance(of(4, "gateway-1", build="2"), Kind.LIVE)
    assert (watch._fleet.restarted, watch._fleet.state[seat, 5]) == ([seat], told), "a deploy keeps it"
    later = 4 + GONE // STEP + 2
    watch.advance(of(later, "gateway-2"), Kind.LIVE)
    watch.advance(of(later + 1, "gateway-2"), Kind.LIVE)
    other = watch._seats[Key("latency", "gateway-2")]
    assert (other.index, other.patience) == (seat, 1.0)
    assert watch._fleet.state[seat, 5] == 1.0
    assert watch._fleet.restarted == [seat]


def test_the_calendar_tells_the_minute_of_the_phase_to_what_follows_the_session_alone():
    watch = taught(calendar=CALENDAR)
    seats = {key.series: one.index for key, one in watch._seats.items()}
    row = (from_rfc3339("2026-03-02T09:34:10Z") - at(0)) // STEP
    watch.advance(calm(row), Kind.LIVE)
    slots = watch._fleet.slots
    assert slots.dtype == np.int32
    assert slots[seats["latency"]] == NO_SLOT
    assert slots[seats["flow"]] % 1_440 == 3
    closed = (from_rfc3339("2026-03-02T17:03:00Z") - at(0)) // STEP
    watch.advance(calm(closed), Kind.LIVE)
    assert watch._fleet.slots[seats["flow"]] % 1_440 == 3
    assert watch._fleet.slots[seats["flow"]] != slots[seats["flow"]], "phases are numbered apart"


def test_after_a_turn_of_the_phase_a_change_of_the_flow_is_explained_and_a_change_of_the_latency_is_not():
    watch = taught(calendar=CALENDAR)
    row = MINUTE // STEP + 1
    pages = watch.advance(calm(row, latency=50.0, flow=900.0), Kind.LIVE)
    assert [one.series for one in pages] == ["latency"]
    later = [watch.advance(calm(n, latency=50.0, flow=900.0), Kind.LIVE) for n in range(row + 1, row + 90)]
    assert later == [[]] * 89, "what was explained is not told afterwards"


def test_what_the_minute_of_the_session_usually_brings_and_is_missing_is_not_explained(monkeypatch):
    watch = taught(calendar=CALENDAR, settle=Duration(4 * SECOND))
    row = MINUTE // STEP + 1
    advance = watch._fleet.advance

    def same_clock(*given):
        scores = advance(*given)
        scores.channel[scores.score >= 0.5] = Channel.SAME_CLOCK
        return scores

    monkeypatch.setattr(watch._fleet, "advance", same_clock)
    assert [one.series for one in watch.advance(calm(row, flow=1.0), Kind.LIVE)] == ["flow"]


@pytest.mark.parametrize(("lasting", "rows"), [(False, 8), (True, 200)])
def test_a_watch_that_is_restored_goes_on_bit_for_bit(lasting, rows):
    one = taught(rows, lasting=lasting)
    for row in range(rows + 1, rows + 9):
        one.advance(calm(row, latency=50.0), Kind.LIVE)
    kept = decode(encode(one.kept(), DIGEST), DIGEST)
    other = watch_of(kept=kept, lasting=lasting)
    assert len(one.pages) == 1
    for row in range(rows + 9, rows + 40):
        values = calm(row, latency=50.0 if row < rows + 20 else 5.0, flow=100.0 + row - rows)
        assert one.advance(values, Kind.LIVE) == other.advance(values, Kind.LIVE)
        assert [str(each) for each in one.rows()] == [str(each) for each in other.rows()]
    assert one.pages == other.pages
    assert one.kept().fleet == other.kept().fleet


def test_a_state_with_another_number_of_seats_is_refused():
    kept = taught().kept()
    kept.fleet = kept.fleet.replace(b"[[", b"[[0,0,0,0,0,1],[", 1)
    with pytest.raises(ValueError, match="6 seats, 5 are needed"):
        watch_of(kept=kept)
