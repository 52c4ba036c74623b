# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Spans of orders: which are kept, how they hang together, and what they tell."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from exchange.commands import Halt, Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Happened, Rejected, Traded
from exchange.flow import OrderFlow
from exchange.journal import encode_command, encode_events
from exchange.ports import RequestOutcome
from exchange.tracing import Answered, Committed, Handled, RestedTogether
from exchange.types import HaltReason, Instrument, Side
from kernel.time import MILLISECOND, to_seconds
from kernel.trace import order_trace_id
from monitor.traces import (
    MAX_TRADES_TOLD,
    Look,
    Policy,
    SpanKind,
    commit_spans,
    is_picked,
    publish_spans,
    request_spans,
    resting_spans,
    settle_spans,
)

ALL, NONE = Look(Policy(share=1.0)), Look(Policy(share=0.0))
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))
MS = MILLISECOND


def day(count, seed=7, trace=""):
    """Return the batches of a day: ten commands each."""
    engine, flow = Engine(INSTRUMENTS), OrderFlow(seed, INSTRUMENTS, ("p", "q", "r"))
    for first in range(1, count, 10):
        batch, happened = [], []
        for seq in range(first, first + 10):
            batch.append(Sequenced(seq, first * 10 * MS, next(flow), trace))
            events = engine.apply(batch[-1])
            flow.observe(events)
            happened.append(Happened(seq, batch[-1].at, events, trace))
        yield commit(batch, happened, [0.002] * 10, [0.000_01] * 10, 0.003, first * 10 * MS + 4 * MS)


def commit(batch, happened, *times):
    """Return what an engine tells of a batch."""
    return Committed(batch, happened, *times, [encode_command(one) for one in batch],
                     [encode_events(one) for one in happened])  # fmt: skip


def requests_of(committed):
    for item, result in zip(committed.batch, committed.happened, strict=True):
        rejected = isinstance(result.events[0], Rejected)
        outcome = RequestOutcome.REJECTED if rejected else RequestOutcome.ACCEPTED
        took_s = to_seconds(committed.durable_at - item.at) + 0.004
        yield Answered(item.seq, item.command, item.trace, f"r-{item.seq}", outcome, 422 if rejected else 201,
                       took_s, committed.durable_at + MS)  # fmt: skip


def spans_of(committed, look):
    handled = Handled(committed.happened, committed.durable_at, committed.durable_at + MS)
    for request in requests_of(committed):
        yield from request_spans([request], look)
    yield from commit_spans(committed, look)
    yield from publish_spans(handled, look)
    yield from settle_spans(handled, look)


def test_every_span_hangs_on_another_of_its_trace_or_is_the_request_itself():
    for trace in ("", CALLER):
        spans = [span for batch in day(400, trace=trace) for span in spans_of(batch, ALL)]
        known = {(span.trace_id, span.span_id) for span in spans}
        assert len(known) == len(spans), "no id twice"
        for span in spans:
            if span.name == "gateway request":
                assert span.parent_id == ("00f067aa0ba902b7" if trace else "")
            else:
                assert (span.trace_id, span.parent_id) in known, span


def test_one_order_that_trades_gives_the_whole_tree():
    trees = {}
    for batch in day(400):
        for span in spans_of(batch, ALL):
            trees.setdefault(span.trace_id, []).append(span.name)
    whole = sorted(["gateway request", "engine order", "engine queue", "engine match", "journal sync",
                    "market-data publish", "settlement post"])  # fmt: skip
    assert whole in [sorted(names) for names in trees.values()]


def test_without_a_share_only_rejects_and_slow_orders_are_kept():
    for batch in day(400):
        rejected = {
            order_trace_id(item.command.account, item.command.client_id)
            for item, result in zip(batch.batch, batch.happened, strict=True)
            if isinstance(result.events[0], Rejected)
        }
        kept = list(spans_of(batch, NONE))
        assert {span.trace_id for span in kept} == rejected
        slow = batch._replace(waited_s=[0.3] * 10)
        assert {span.trace_id for span in commit_spans(slow, NONE)} == {
            order_trace_id(item.command.account, item.command.client_id) for item in batch.batch
        }


def test_a_halt_among_orders_has_no_spans_and_costs_the_others_none():
    (batch,) = day(10)
    halt = Sequenced(11, batch.batch[0].at, Halt("watchdog-1", None, HaltReason.OPERATOR))
    mixed = batch._replace(
        batch=[*batch.batch[:5], halt, *batch.batch[5:]],
        happened=[*batch.happened[:5], Happened(11, halt.at, ()), *batch.happened[5:]],
        waited_s=[0.002] * 11, apply_s=[0.000_01] * 11,
    )  # fmt: skip
    assert {span.trace_id for span in commit_spans(mixed, ALL)} == {span.trace_id for span in commit_spans(batch, ALL)}


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_all_processes_pick_the_same_orders(seed, share):
    look = Look(Policy(share=share))
    for batch in day(30, seed):
        expected = {
            order_trace_id(item.command.account, item.command.client_id)
            for item, result in zip(batch.batch, batch.happened, strict=True)
            if is_picked(share, item.seq, item.command.client_id, "") or isinstance(result.events[0], Rejected)
        }
        by_gateway = {span.trace_id for one in requests_of(batch) for span in request_spans([one], look)}
        by_engine = {span.trace_id for span in commit_spans(batch, look)}
        assert by_gateway == by_engine == expected


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 1), st.booleans(), st.booleans())
def test_orders_answered_together_leave_the_spans_of_single_ones(seed, share, slow, wanted):
    look = Look(Policy(share=share))
    for batch in day(30, seed, trace=CALLER if seed % 3 == 0 else ""):
        orders = [(one.command, one.seq, one.trace, one.seq) for one in batch.batch if type(one.command) is PlaceOrder]
        if wanted and orders:
            look = look._replace(wanted=frozenset({(orders[0][0].account, orders[0][0].client_id)}))
        together = RestedTogether(
            orders, "socket-1", 0.3 if slow else 0.01, batch.durable_at, traced=bool(batch.batch[0].trace)
        )
        singly = [span for order in orders for span in request_spans([together.each(order)], look)]
        assert list(resting_spans(together, look)) == singly


def test_time_runs_forward_within_a_trace():
    for batch in day(200):
        spans = {span.span_id: span for span in spans_of(batch, ALL)}
        for span in spans.values():
            assert span.start <= span.end
            if span.parent_id in spans and span.kind is SpanKind.INTERNAL and span.name != "engine queue":
                parent = spans[span.parent_id]
                assert parent.start <= span.start
                assert span.end <= parent.end


def test_what_is_asked_again_stands_beside_the_first_answer():
    order = PlaceOrder("ann", "c1", "AAA", Side.BUY, 1, Limit(1_000))
    first = Answered(1, order, "", "r-1", RequestOutcome.ACCEPTED, 201, 0.001, MS)
    again = replace(first, request_id="r-2", outcome=RequestOutcome.REPLAYED)
    (one,), (two,) = request_spans([first], ALL), request_spans([again], ALL)
    assert one.trace_id == two.trace_id
    assert one.span_id != two.span_id


def test_an_order_without_an_answer_is_an_error_and_a_reject_is_none():
    order = PlaceOrder("ann", "c1", "AAA", Side.BUY, 1, Limit(1_000))
    lost = Answered(0, order, "", "r-1", RequestOutcome.UNKNOWN, 504, 0.001, MS)
    (span,) = request_spans([lost], NONE)
    assert span.error == "unknown"
    (span,) = request_spans([replace(lost, outcome=RequestOutcome.REJECTED, http_status=422)], NONE)
    assert not span.error


def test_a_market_order_that_eats_a_book_tells_some_trades_and_their_number():
    engine = Engine(INSTRUMENTS)
    for seq in range(1, 101):
        engine.apply(Sequenced(seq, 0, PlaceOrder("ann", f"s{seq}", "AAA", Side.SELL, 1, Limit(1_000))))
    item = Sequenced(101, 0, PlaceOrder("bob", "b", "AAA", Side.BUY, 100, Limit(1_000)))
    events = engine.apply(item)
    assert sum(isinstance(event, Traded) for event in events) == 100
    batch = commit([item], [Happened(101, 0, events)], [0.0], [0.0], 0.0, MS)
    order = next(span for span in commit_spans(batch, ALL) if span.name == "engine order")
    assert len(order.events) == MAX_TRADES_TOLD
    assert order.attributes["exchange.trades"] == 100


def test_what_no_participant_asked_has_no_trace():
    engine, item = Engine(INSTRUMENTS), Sequenced(1, 0, Halt("h", None, HaltReason.OPERATOR))
    happened = Happened(1, 0, engine.apply(item))
    assert not list(commit_spans(commit([item], [happened], [9.0], [9.0], 9.0, MS), ALL))
    assert not list(publish_spans(Handled([happened, Happened(2, 0, ())], 0, MS), ALL))
