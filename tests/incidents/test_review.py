# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""A period in review says what the timelines say, and what is not known it does not show as a zero."""

import re

from incidents.adapters.review_page import to_html
from incidents.noise import Episode, Fate, RuleFacts, worth
from incidents.review import Facts, MetricCost, ObjectiveState, review
from incidents.timeline import EntryKind
from kernel.time import DAY, HOUR, SECOND
from tests.incidents.timelines import START, Scribe

HOSTILE = '<script>alert(1)</script>"\u202e\x1b[31m'


def story(name="INC-1", *, level=2, mended_after=None, person=False, orders=None, outcome="mended", reason=""):
    scribe = Scribe(name)
    scribe.opened(0, "A gateway does not answer", level, "gateway")
    scribe.alert(0, "GatewayDown", replica="gateway-1")
    scribe.run(1, "gateway-down", "Restart it", "gateway/gateway-1")
    scribe(3, EntryKind.RUN_ENDED, "control", "ended", run="run-1", runbook="gateway-down", outcome=outcome,
           reason=reason, detail="")  # fmt: skip
    if mended_after is not None:
        scribe(mended_after, EntryKind.STATE_CHANGED, "control", "mitigated", **{"from": "open"}, to="mitigated",
               signal="verified")  # fmt: skip
    if person:
        scribe(5, EntryKind.NOTE, "person:ann", "I looked at it", by="ann", text="I looked at it")
    if orders is not None:
        scribe(6, EntryKind.IMPACT, "exchange", "impact", orders=orders, notional_ticks=1, minutes=0.5, source="load")
    return scribe.seal()[1]


def facts(timelines, **more):
    told = {
        "start": START - 3 * DAY, "end": START + 4 * DAY, "made": START + 4 * DAY, "before": {}, "rules": [],
        "metrics": [], "objectives": [],
    }  # fmt: skip
    return Facts(timelines=timelines, **told | more)


def tiles(told):
    return {tile.name: tile.value for tile in told.tiles}


def test_the_figures_are_those_of_the_timelines():
    told = review(
        facts(
            {
                "INC-1": story(mended_after=4, orders=20),
                "INC-2": story("INC-2", level=1, person=True, orders=10),
                "INC-3": story("INC-3", mended_after=8, outcome="undone"),
                "INC-4": story("INC-4", outcome="refused", reason="kill_switch"),
            },
            before={"INC-0": story("INC-0")},
            orders=3_000.0,
        )
    )
    assert told.title == "The week in review"
    assert told.summary[0] == "4 incidents were opened, 1 of level 1; 1 needed a person."
    assert told.summary[1] == "In the period before it was 1."
    assert told.summary[2] == "30 of 3,000 orders were affected (1.000%)."
    seen = tiles(told)
    assert seen["Mended without a person"] == "1 of 4"
    assert seen["Taken back"] == "1"
    assert seen["Median time to mitigate"] == "6.0 s"
    assert seen["Orders affected"] == "30"
    automation = next(table for table in told.tables if table.title == "What the automation did")
    assert [row.cells[:2] for row in automation.rows] == [
        ("mended", "2"), ("undone", "1"), ("refused", "1"), ("… because of kill switch", "1"),
    ]  # fmt: skip


def test_what_is_not_known_is_not_a_zero():
    told = review(facts({"INC-1": story()}))
    seen = tiles(told)
    assert seen["Orders affected"] == seen["Median time to mitigate"] == seen["Smallest budget left"] == "not known"
    assert seen["Noise"] == "not known"
    late = review(facts({}, data_begins=START, notes=("Prometheus said no.",)))
    assert late.summary == ("No incident was opened.",)
    assert late.notes[0].startswith("Prometheus has data since 2026-03-02 09:30:00 UTC only")
    assert late.notes[1] == "Prometheus said no."


def test_an_overspent_budget_and_an_idle_metric_are_told():
    told = review(
        facts(
            {},
            objectives=[
                ObjectiveState(name="orders", objective=0.999, achieved=0.997, budget_left=-2.0),
                ObjectiveState(name="feed", objective=0.99, achieved=None, budget_left=None),
            ],
            metrics=[
                MetricCost(name="seen", series=5, bytes_per_day=1234.0, owner="t", alerts=("A",)),
                MetricCost(name="idle", series=900, bytes_per_day=5e9),
            ],
        )
    )
    assert "overspent for: orders" in told.summary[1]
    assert tiles(told)["Smallest budget left"] == "-200%"
    assert told.advice[0].startswith("Metrics that nobody looks at, the largest first: idle (900).")
    assert told.advice[1].startswith("orders: its budget is overspent")
    costs = next(table for table in told.tables if table.title == "What the metrics cost")
    assert [row.cells[:4] for row in costs.rows] == [("idle", "900", "5 GB", "nobody"), ("seen", "5", "1.23 kB", "t")]
    assert "1 metrics with 900 series" in costs.note


def test_advice_on_rules_is_told_and_those_that_never_fired_are_counted():
    spells = [
        Episode(alert="A", labels={}, start=START + n * HOUR, end=START + n * HOUR + 60 * SECOND) for n in range(3)
    ]
    rules = worth([RuleFacts(alert="A", team="t"), RuleFacts(alert="B", team="t")], spells, [Fate.NOISE] * 3, START,
                  START + DAY)  # fmt: skip
    told = review(facts({}, rules=rules))
    assert told.advice[0].startswith("A: 3 of 3 episodes passed without anybody acting")
    fired = next(table for table in told.tables if table.title == "Alerts that fired")
    assert [row.cells[0] for row in fired.rows] == ["A"]
    assert fired.note == "1 of 2 rules never fired."


def test_the_page_holds_every_cell_and_no_hostile_word_gets_through():
    scribe = Scribe("INC-9")
    scribe.opened(0, HOSTILE, 2, HOSTILE)
    rules = worth([RuleFacts(alert="A" + HOSTILE, team=HOSTILE)],
                  [Episode(alert="A" + HOSTILE, labels={}, start=START, end=START + SECOND)], [Fate.NOISE], START,
                  START + DAY)  # fmt: skip
    told = review(
        facts({"INC-9": scribe.seal()[1]}, rules=rules, notes=(HOSTILE,), reports={"INC-9": "reports/INC-9.html"},
              metrics=[MetricCost(name=HOSTILE, series=1, bytes_per_day=None)])
    )  # fmt: skip
    page = to_html(told)
    assert "<script" not in page
    assert 'href="reports/INC-9.html"' in page
    assert len(re.findall(r"<td", page)) == sum(len(row.cells) for table in told.tables for row in table.rows)
    assert "http" not in page.split("</head>")[1], "nothing is fetched"
