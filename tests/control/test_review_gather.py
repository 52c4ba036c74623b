# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""What a review is gathered from: who looks at a metric, and what Prometheus says or does not say."""

import json

import pytest

from control.review import gather, lookers, rule_facts
from control.verbs_review import _length
from kernel.errors import InputError, TemporaryError
from kernel.time import DAY, HOUR, SECOND
from monitor.ports import Curve

END = 1_772_443_800 * SECOND
RULES = """
groups:
  - name: g
    rules:
      - {record: "a:b:c", expr: "rate(raw_total[1m])"}
      - {record: "d:e:f", expr: "a:b:c / other"}
      - {alert: Slow, expr: "d:e:f > 1", labels: {team: t, severity: warning, level: "2", service: s}}
"""


class Metrics:
    """Answers by a table of queries; raises where it is told to."""

    def __init__(self, table, *, down=False):
        self.table, self.down, self.asked = table, down, []

    async def curve(self, query, start, end, step):
        self.asked.append((query, step))
        if self.down:
            raise TemporaryError("Prometheus does not answer")
        found = next((value for part, value in self.table.items() if part in query), ())
        return [Curve(labels, [(end, value)]) for labels, value in found]


def test_who_looks_at_a_metric_is_seen_through_recorded_series_and_boards(tmp_path):
    rules, boards = tmp_path / "rules", tmp_path / "boards"
    rules.mkdir()
    boards.mkdir()
    (rules / "a.yml").write_text(RULES)
    board = {
        "uid": "b1",
        "panels": [{"targets": [{"expr": "sum(a:b:c)"}]}, {"panels": [{"targets": [{"expr": "up"}]}]}],
    }
    (boards / "b.json").write_text(json.dumps(board))
    by_alert, by_board = lookers(rules, boards)
    assert by_alert == {name: {"Slow"} for name in ("d:e:f", "a:b:c", "raw_total", "other")}
    assert by_board == {name: {"b1"} for name in ("a:b:c", "raw_total", "up")}
    (facts,) = rule_facts(rules)
    assert (facts.alert, facts.team, facts.level) == ("Slow", "t", "2")


async def test_figures_are_taken_from_answers_and_what_has_none_is_a_note():
    table = {
        "count by (__name__)": [
            ({"__name__": "up"}, 12.0),
            ({"__name__": "x_bucket"}, 30.0),
            ({"__name__": "x_sum"}, 2.0),
        ],
        "count_over_time(up": [({}, 60.0)],
        "slo:objective": [({"slo": "orders"}, 0.999)],
        "slo:error_budget": [({"slo": "orders"}, 0.5)],
        "increase(exchange_gateway": [({}, 1000.0)],
    }
    facts = await gather(Metrics(table), {}, start=END - DAY, end=END)
    costs = {one.name: (one.series, one.bytes_per_day) for one in facts.metrics}
    assert costs == {"up": (12, 12 * 2.0 * 86_400), "x": (32, 32 * 2.0 * 86_400)}
    (objective,) = facts.objectives
    assert (objective.objective, objective.budget_left, objective.achieved) == (0.999, 0.5, None)
    assert facts.orders == 1000
    assert any("compacted no block" in note for note in facts.notes)
    assert {row.episodes for row in facts.rules} == {0}


async def test_a_prometheus_that_is_down_gives_notes_and_no_zeros():
    facts = await gather(Metrics({}, down=True), {}, start=END - DAY, end=END, notes=["Incidents are not known."])
    assert facts.orders is None
    assert facts.metrics == []
    assert facts.notes[0] == "Incidents are not known."
    assert "Prometheus does not answer" in facts.notes[1]


async def test_no_question_asks_for_more_points_than_prometheus_gives():
    for length in (HOUR, DAY, 7 * DAY, 366 * DAY):
        metrics = Metrics({})
        await gather(metrics, {}, start=END - length, end=END)
        query, step = next((query, step) for query, step in metrics.asked if "ALERTS" in query)
        assert length / step <= 11_000
        assert ("max_over_time" in query) == (step > 2 * SECOND), "what fires between two looks is not missed"


@pytest.mark.parametrize("since", ["banana", "", "0s", "10s", "1000d", "-1d"])
def test_a_period_that_makes_no_sense_is_refused(since):
    with pytest.raises(InputError, match="--since"):
        _length(since)
