"""Steps one after the other: gaps are made good, outages are seen, and what people say is taken in once."""

import pytest

from control import anomaly_feedback
from control.anomaly_feedback import Said
from control.anomaly_reading import CHUNK, Failure
from tests.control.anomaly_bed import T0, Bed, at

LATENCY = {"series": "latency", "item": "gateway-1", "service": "gateway"}


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


async def test_each_step_asks_once_for_its_own_instant_and_shows_what_it_found(bed):
    await bed.through(1, 9)
    assert bed.readings.asked == [("now", row, row) for row in range(1, 10)]
    assert bed.shown("anomaly_value", **LATENCY) == 5.0
    assert bed.shown("anomaly_score", **LATENCY) == 0.0
    assert bed.shown("anomaly_expected_high", **LATENCY) == 5.0
    assert bed.shown("anomaly_alert", **LATENCY) == 0.0
    assert bed.shown("anomaly_lag_seconds") == 1.0
    assert bed.shown("anomaly_fresh_seconds") == 1.0
    assert bed.shown("anomaly_steps_total", kind="live") == 9
    assert bed.shown("anomaly_series", state="scored") == 2
    assert bed.shown("anomaly_warming_ratio") == 0.0
    assert bed.loop.why == ""


async def test_a_page_is_counted_logged_kept_at_once_and_held(bed):
    await bed.through(1, 8)
    bed.readings.write(9, latency=50.0)
    await bed.to(9)
    assert bed.shown("anomaly_alert", **LATENCY) == 1.0
    assert bed.shown("anomaly_pages_total", service="gateway") == 1
    assert bed.shown("anomaly_pages_day") == 1
    ((_, severity, fields),) = [one for one in bed.log.events if one[0] == "anomaly-page"]
    assert (severity, fields["series"]) == ("warning", "latency/gateway-1")
    bed.anew()
    assert [one.series for one in bed.watch.pages] == ["latency"], "killed in this moment, it knows the page"


async def test_killed_and_started_again_it_goes_on_where_it_was_and_reads_the_gap_as_one_range(bed):
    await bed.through(1, 10)
    await bed.loop.save()
    bed.anew()
    bed.readings.asked.clear()
    for row in range(11, 21):
        bed.readings.write(row)
    await bed.to(20)
    assert bed.readings.asked == [("now", 11, 20)]
    assert bed.shown("anomaly_steps_total", kind="gap") + bed.shown("anomaly_steps_total", kind="live") == 10
    assert bed.watch.at == at(20)
    assert bed.shown("anomaly_series", state="warming") == 0, "what was learnt is not forgotten"


async def test_old_readings_ask_for_nobody_and_an_episode_that_goes_on_is_told_from_the_present(bed):
    await bed.through(1, 10)
    for row in range(11, 41):
        bed.readings.write(row, latency=50.0)
    await bed.to(40)
    (page,) = bed.watch.pages
    assert page.at == at(36), "the first instant that is young enough"


async def test_a_gap_that_is_too_long_is_passed_over_but_for_its_end_and_counted(bed):
    await bed.through(1, 5)
    bed.readings.asked.clear()
    far = 5 + 3 * 1800
    bed.readings.write(far)
    await bed.to(far)
    assert bed.shown("anomaly_steps_total", kind="skipped") == far - 6 - 1800
    assert {kind for kind, _, _ in bed.readings.asked} == {"now"}
    assert all(last - first < CHUNK for _, first, last in bed.readings.asked)
    assert bed.readings.asked[0][1] == far - 1800
    assert bed.readings.asked[-1][2] == far


@pytest.mark.parametrize("failure", [Failure.UNREACHABLE, Failure.SLOW, Failure.REFUSED])
async def test_without_an_answer_scores_go_away_the_age_grows_and_it_is_told_once(bed, failure):
    await bed.through(1, 9)
    bed.fail(failure)
    for row in range(10, 30):
        await bed.to(row)
    assert bed.shown("anomaly_fresh_seconds") == pytest.approx(2 * 20 + 1)
    for name in ("anomaly_score", "anomaly_value", "anomaly_alert", "anomaly_expected_low"):
        assert bed.shown(name, **LATENCY) is None
    assert bed.shown("anomaly_read_failures_total", reason=str(failure)) == 20
    assert [one[0] for one in bed.log.events].count("anomaly-readings-missing") == 1
    assert bed.loop.why
    bed.readings.failure = None
    for row in range(10, 31):
        bed.readings.write(row)
    await bed.to(30)
    assert bed.shown("anomaly_score", **LATENCY) == 0.0
    assert bed.shown("anomaly_fresh_seconds") == 1.0
    assert bed.loop.why == ""


async def test_an_alert_that_stands_goes_away_with_the_readings(bed):
    await bed.through(1, 8)
    bed.readings.write(9, latency=50.0)
    await bed.to(9)
    bed.fail()
    await bed.to(11)
    assert bed.shown("anomaly_alert", **LATENCY) == 1.0, "of the present still"
    await bed.to(16)
    assert bed.shown("anomaly_alert", **LATENCY) is None


async def test_an_empty_answer_is_no_reading_of_nothing_and_its_end_asks_for_nobody(bed):
    await bed.through(1, 9)
    for row in range(10, 40):
        await bed.to(row)
    assert bed.shown("anomaly_read_failures_total", reason="empty") > 20
    assert bed.watch.at == at(9), "no instant without any reading was judged"
    assert bed.shown("anomaly_score", **LATENCY) is None
    for row in range(40, 44):
        bed.readings.write(row, latency=50.0)
        await bed.to(row)
    assert bed.watch.pages == [], "the windows of rates are still filling"
    assert bed.shown("anomaly_score", **LATENCY) == 0.9


async def test_at_its_first_start_it_learns_from_history_in_chunks_and_asks_for_nobody(tmp_path):
    bed = Bed(tmp_path, history=2 * 700)
    for row in range(-700, 1):
        bed.readings.write(row, latency=50.0 if -20 <= row <= -1 else 5.0)
    await bed.to(0)
    asked = [one for one in bed.readings.asked if one[0] == "history"]
    assert asked == [("history", -700, -401), ("history", -400, -101), ("history", -100, -1)]
    assert bed.readings.asked[-1] == ("now", 0, 0)
    assert bed.shown("anomaly_steps_total", kind="history") == 700
    assert bed.watch.pages == []
    await bed.through(1, 3)
    assert [one[0] for one in bed.readings.asked].count("history") == 3, "once"


async def test_history_that_does_not_come_is_asked_for_a_minute_and_then_done_without(tmp_path):
    bed = Bed(tmp_path, history=600)
    bed.fail()
    for row in range(1, 31):
        await bed.to(row)
    assert {one[0] for one in bed.readings.asked} == {"history", "now"}
    assert bed.shown("anomaly_read_failures_total", reason="unreachable") == 30
    bed.readings.failure = None
    await bed.through(31, 40)
    assert bed.shown("anomaly_score", **LATENCY) == 0.0


async def test_what_people_said_is_taken_in_once_and_survives_a_kill(bed):
    await bed.through(1, 8)
    path = bed.directory / "feedback.jsonl"
    anomaly_feedback.append(path, Said(at=T0, by="ann", what="latency/gateway-1", false_alarm=True))
    anomaly_feedback.append(path, Said(at=T0, by="ann", what="nobody", false_alarm=True))
    with path.open("ab") as file:
        file.write(b"half a line\n" + b'{"at": 1')
    await bed.through(9, 9)
    assert bed.shown("anomaly_feedback_total", answer="false") == 1
    assert bed.shown("anomaly_feedback_total", answer="unknown") == 2
    before = bed.watch._fleet.save()
    bed.anew()
    assert bed.watch._fleet.save() == before, "kept with the step that took it in"
    await bed.through(10, 12)
    assert bed.shown("anomaly_feedback_total", answer="false") == 0, "not taken in twice"
    bed.readings.write(13, latency=9.0)
    await bed.to(13)
    assert bed.watch.pages == []


async def test_a_disk_that_takes_nothing_costs_the_memory_and_not_the_work(bed, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("control.anomaly_loop.save_kept", full)
    await bed.through(1, 9)
    assert bed.shown("anomaly_score", **LATENCY) == 0.0
    assert "anomaly-state-not-kept" in [one[0] for one in bed.log.events]
