from __future__ import annotations

import functools
import itertools
from typing import ClassVar

import numpy as np
import pytest

from anomaly.baselines.ewma import Ewma
from control import series_backtest
from control.series_backtest import Past, from_folder, from_prometheus, look_back
from control.series_joint import alone
from control.series_story import Series
from kernel.errors import PermanentError, TemporaryError
from kernel.time import DAY, MINUTE, SECOND, Duration, Instant
from monitor.ports import Curve

MAKE = functools.partial(alone, Ewma)
STEP = Duration(MINUTE)


def _series(name="a", days=2, spikes=(1500, 2000)):
    count = days * 1440
    values = 100.0 + np.tile([0.0, 1.0, -1.0, 0.5], count // 4)
    for row in spikes:
        values[row] += 60.0
    return Series(name, ("value",), np.arange(count, dtype=np.int64) * MINUTE, values[:, None])


def _back(*series, start=None, end=None, budget=0.5, **more):
    past = Past(iter(series), [])
    return look_back(past, start, end, make=MAKE, budget=budget, **more), past.troubles


def test_pages_are_counted_a_day_and_against_the_promise():
    told, troubles = _back(_series(), _series("b", spikes=()))
    assert not troubles
    assert [(line.name, line.pages) for line in told.lines] == [("a", 2), ("b", 0)]
    assert [page.row for _, page in told.pages] == [1500, 2000]
    assert told.days == pytest.approx(4.0, abs=0.01)
    facts = told.facts()
    assert facts["pages_per_series_day"] == pytest.approx(0.5, abs=0.01)
    assert facts["budget_used"] == pytest.approx(1.0, abs=0.01)
    assert "2 pages in 2.0 days of 2 series: 1.00 a day in all" in told.verdict()
    assert "100% of the budget" in told.verdict()


def test_what_lies_outside_the_time_warms_and_does_not_count():
    told, _ = _back(_series(), start=Instant(DAY + 200 * MINUTE), end=Instant(DAY + 700 * MINUTE))
    assert [page.row for _, page in told.pages] == [2000]
    assert told.lines[0].rows == 501
    cold, _ = _back(_series(), start=Instant(10 * DAY))
    assert cold.lines == ()
    assert cold.verdict() == "no series had a reading in that time"


def test_series_that_page_are_drawn_under_names_that_are_file_names(tmp_path):
    _back(_series("up{job=../x}"), _series("calm", spikes=()), plots=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["up-job-..-x.svg"]


def test_a_folder_is_read_file_by_file_and_what_is_wrong_is_told(tmp_path):
    (tmp_path / "deep").mkdir()
    lines = ["timestamp,value", *(f"{60 * row},{row % 5}" for row in range(200))]
    (tmp_path / "deep" / "good.csv").write_text("\n".join(lines))
    (tmp_path / "bad.csv").write_text("")
    past = from_folder(tmp_path)
    assert [one.name for one in past.series] == ["deep/good.csv"]
    assert past.troubles == ["bad.csv: the file is empty"]


class _Prometheus:
    """Answers with one series of minutes from a given instant on, with a hole and a NaN, in the steps asked for."""

    asked: ClassVar[list[tuple[str, int, int]]] = []
    fails: ClassVar[dict[str, Exception]] = {}
    empty = False

    def __init__(self, url, *, timeout_s):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def curve(self, query, start, end, step):
        type(self).asked.append((query, start, end))
        for word, error in type(self).fails.items():
            if word in query:
                raise error
        if type(self).empty:
            return []
        points = [(Instant(at), float(at // step % 7)) for at in range(max(start, 0), end + 1, step)]
        points = [(at, float("nan") if at == 50 * MINUTE else value) for at, value in points if at != 60 * MINUTE]
        return [Curve({"__name__": "up", "replica": "g-1"}, points)]


@pytest.fixture
def prometheus(monkeypatch):
    monkeypatch.setattr(series_backtest, "PrometheusApi", _Prometheus)
    monkeypatch.setattr(_Prometheus, "asked", [])
    monkeypatch.setattr(_Prometheus, "fails", {})
    monkeypatch.setattr(_Prometheus, "empty", False)
    return _Prometheus


def test_a_prometheus_is_asked_in_stretches_it_can_answer_and_from_before_the_time(prometheus):
    past = from_prometheus("http://p", ["rate(x[1m])"], Instant(DAY), Instant(5 * DAY), STEP)
    spans = [(start, end) for _, start, end in prometheus.asked]
    assert spans[0][0] == DAY - 1440 * MINUTE
    assert spans[-1][1] == 5 * DAY
    assert all(end - start <= 2999 * MINUTE for start, end in spans)
    assert all(second[0] - first[1] == STEP for first, second in itertools.pairwise(spans))
    (series,) = past.series
    assert series.name == "rate(x[1m]){replica=g-1}"
    assert (np.diff(series.at) == STEP).all()
    assert np.flatnonzero(np.isnan(series.values[:, 0])).tolist() == [50, 60]
    assert series.values[61, 0] == 61 % 7


def test_readings_that_are_not_there_are_told(prometheus, monkeypatch):
    monkeypatch.setattr(prometheus, "empty", True)
    past = from_prometheus("http://p", ["gone"], Instant(DAY), Instant(2 * DAY), STEP)
    assert past.troubles == ["gone: Prometheus has no reading in that time"]
    assert list(past.series) == []


def test_a_query_that_was_given_must_be_answered(prometheus):
    prometheus.fails["bad("] = PermanentError("parse error")
    with pytest.raises(PermanentError, match="parse error"):
        from_prometheus("http://p", ["up", "bad("], Instant(DAY), Instant(2 * DAY), STEP)
    prometheus.fails["up"] = TemporaryError("refused", retry_after=Duration(SECOND))
    with pytest.raises(TemporaryError):
        from_prometheus("http://p", ["up"], Instant(DAY), Instant(2 * DAY), STEP)


def test_without_a_query_all_that_is_watched_is_asked_for_and_one_refused_is_told(prometheus):
    prometheus.fails["exchange_trades_total"] = PermanentError("refused")
    past = from_prometheus("http://p", [], Instant(DAY), Instant(DAY + 100 * MINUTE), STEP)
    names = [one.name for one in past.series]
    assert len(names) > 10
    assert any(name.startswith("gateway-order-rate{") for name in names)
    assert any(trouble.startswith("engine-trade-rate: refused") for trouble in past.troubles)
    assert all("$window" not in query for query, _, _ in prometheus.asked)
