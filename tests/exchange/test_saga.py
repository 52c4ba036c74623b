# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange.saga_plans import CALM_END, ENOUGH, SCENARIOS, money_comes_later, random_plan
from tests.exchange.saga_plants import PLANTS, caught, messages
from tests.exchange.saga_world import STYLES, Plan, World, parts, trade

MADE = parts()


@pytest.fixture(params=STYLES)
def style(request):
    return request.param


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_trouble_a_saga_ends_as_its_scenario_says(style, scenario):
    ends_as = CALM_END.get(scenario, "cancelled")
    World(Plan(style, (trade(1),), ends_as=ends_as, **SCENARIOS[scenario]), MADE).run()


def test_money_that_comes_later_changes_no_answer(style):
    plan = money_comes_later(style)
    for crash in range(len(World(plan, MADE).run().points)):
        World(money_comes_later(style, crash), MADE).run()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_any_point_changes_no_sum_and_settles_once_or_not_at_all(style, scenario):
    plan = {"style": style, "trades": (trade(1),), **SCENARIOS[scenario]}
    points = len(World(Plan(**plan), MADE).run().points)
    assert points > 4
    for first in range(points):
        World(Plan(**plan, crashes=(first,)), MADE).run()


def test_two_crashes_at_any_two_points_do_no_harm(style):
    plan = {"style": style, "trades": (trade(1),), "least": 0, "opening": ENOUGH}
    points = len(World(Plan(**plan), MADE).run().points)
    for first in range(points):
        for second in range(first + 1, points + 2):
            World(Plan(**plan, crashes=(first, second)), MADE).run()


def test_crashes_are_tried_before_and_after_each_effect_and_each_entry(style):
    points = set(World(Plan(style, (trade(1),)), MADE).run().points)
    steps = MADE.saga.AT.items()
    forward = [(step, at) for step, at in steps if step not in MADE.saga.TAKES_BACK]
    for step, service in forward:
        assert f"{service}: before the effect of {step}" in points
        assert f"{service}: after the effect of {step}, before the answer" in points
        if style == "orchestrated":
            assert f"coordinator: before it takes the answer to {step}" in points


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("each", STYLES)
def test_loss_repeats_disorder_and_crashes_change_no_sum(each, seed):
    rng = random.Random(seed)
    World(random_plan(each, rng), MADE, rng).run()


def test_both_styles_settle_the_same_trades_when_nothing_goes_wrong():
    for seed in range(40):
        ends = []
        for each in STYLES:
            plan = random_plan(each, random.Random(seed))
            calm = Plan(each, plan.trades[:1], plan.least, plan.opening, plan.suspended)
            ends.append(World(calm, MADE).run().ends)
        assert ends[0] == ends[1]


def test_what_overtakes_its_step_leaves_a_tombstone():
    saga, book = MADE.saga, MADE.saga.Book()
    it = saga.instruction(trade(1), 10)
    for step, verdict, reason in (
        (saga.Step.RELEASE_CASH, "done", ""),
        (saga.Step.RESERVE_CASH, "refused", "overtaken"),
        (saga.Step.RELEASE_CASH, "done", ""),
    ):
        carried = saga.carry_out(saga.Ask(step, it), book, saga.Rules())
        assert (carried.answer.verdict, carried.answer.reason, carried.postings) == (verdict, reason, ())
        book.write(carried)
    assert book.amounts() == {}


def test_the_answer_to_void_after_clearing_is_too_late_and_stays_so():
    saga, book = MADE.saga, MADE.saga.Book()
    it = saga.instruction(trade(1), 10)
    for step in (saga.Step.CLEAR, saga.Step.VOID, saga.Step.VOID):
        carried = saga.carry_out(saga.Ask(step, it), book, saga.Rules())
        book.write(carried)
    assert carried.answer.verdict == "too_late"


def test_a_delivery_of_what_is_not_reserved_is_refused_and_not_remembered():
    saga, book = MADE.saga, MADE.saga.Book()
    ask = saga.Ask(saga.Step.DELIVER_CASH, saga.instruction(trade(1), 10))
    carried = saga.carry_out(ask, book, saga.Rules())
    assert (carried.answer.reason, carried.remembered) == ("not_reserved", ())


def test_a_saga_that_stands_too_long_is_told_with_who_is_waited_for_and_why():
    saga, coordinator = MADE.saga, MADE.coordinator
    it = saga.instruction(trade(1), 10)
    times = coordinator.Times(first=1, longest=8, give_up=10**9, stuck=100)
    lead = coordinator.Coordinator(times, [coordinator.Begun(0, it)])
    assert lead.stuck(99) == []
    (stuck,) = lead.stuck(100)
    assert (stuck.trade_id, stuck.step, stuck.service, stuck.reason) == (1, "reserve_cash", "cash", "unanswered")
    for step in ("reserve_cash", "reserve_securities", "charge_fees", "clear"):
        lead.apply(coordinator.Told(100, saga.Answer(saga.Step(step), it, saga.Verdict.DONE)))
    assert lead.stuck(100) == []
    assert [item.reason for item in lead.stuck(200)] == ["not_delivered"]
    refused = saga.Answer(saga.Step.DELIVER_SECURITIES, it, saga.Verdict.REFUSED, saga.Reason.NOT_RESERVED)
    entry = lead.told(refused, 201)
    lead.apply(entry)
    assert lead.told(refused, 202) is None, "the same refusal is journaled once"
    assert [(item.reason, item.refusal) for item in lead.stuck(202)] == [("refused", "not_reserved")]


def test_a_saga_that_cannot_be_taken_back_is_told_as_such():
    saga, coordinator = MADE.saga, MADE.coordinator
    it = saga.instruction(trade(1), 10)
    times = coordinator.Times(first=1, longest=8, give_up=10, stuck=100)
    lead = coordinator.Coordinator(times, [coordinator.Begun(0, it)])
    (gave_up,) = lead.late(10)
    lead.apply(gave_up)
    assert lead.late(10**6) == []
    assert [(item.step, item.reason) for item in lead.stuck(200)] == [("void", "not_taken_back")]


def test_an_unanswered_step_is_asked_again_after_longer_and_longer_waits():
    saga, coordinator = MADE.saga, MADE.coordinator
    times = coordinator.Times(first=1, longest=8, give_up=10**9, stuck=100)
    lead = coordinator.Coordinator(times, [coordinator.Begun(0, saga.instruction(trade(1), 10))])
    assert [now for now in range(40) if lead.asks(now)] == [0, 1, 3, 7, 15, 23, 31, 39]


def test_a_service_whose_end_is_not_heard_is_told_as_stuck():
    saga, choreography = MADE.saga, MADE.choreography
    said = choreography.Sayings(MADE.coordinator.Times(first=1, longest=8, give_up=50, stuck=100))
    it = saga.instruction(trade(1), 10)
    said.begin(it, 0)
    assert [now for now in range(20) if said.due(now)] == [0, 1, 3, 7, 15]
    assert said.stuck(100) == [(1, "begin", 100)]
    said.hear(saga.Answer(saga.Step.RELEASE_CASH, it, saga.Verdict.DONE))
    assert said.stuck(10**6) == [] == said.due(10**6)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant):
    assert caught(plant) is not None


def test_a_calm_trade_takes_twelve_messages_with_a_coordinator_and_eleven_without():
    assert messages("orchestrated", 0.0, 1) == 12
    assert messages("choreographed", 0.0, 1) == 11
