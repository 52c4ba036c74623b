# mypy: disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""An order's place in its trace, in the headers of messages and with the settlement of its trades."""

import contextlib

from msgspec.structs import replace

from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.trade_source import Stretch, trades_of
from exchange.commands import Halt, Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Happened, Traded
from exchange.journal import encode_command, encode_events
from exchange.ledger import money_per_tick
from exchange.order_trace import caused, command_headers, context_of, event_headers
from exchange.saga import Answer, Ask, End, Step, Verdict
from exchange.saga_messages import answering, asking, saying
from exchange.tracing import Answered, Concluded, Handled, Sent, Stepped
from exchange.types import HaltReason, Instrument, Side
from kernel.time import MILLISECOND as MS
from kernel.time import SECOND
from kernel.trace import is_place_kept, order_trace_id
from monitor.traces import Look, Policy, received_spans, request_spans, saga_spans, sent_spans, step_spans

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AAA = Instrument("AAA", 1_000, 200)
ALL = Look(Policy(share=1.0))


def two_orders(trace=""):
    """Return a maker's and a taker's commands with what came of them."""
    engine = Engine((AAA,))
    items = [
        Sequenced(1, 5 * MS, PlaceOrder("ann", "a", "AAA", Side.SELL, 5, Limit(1_000))),
        Sequenced(2, 6 * MS, PlaceOrder("bob", "b", "AAA", Side.BUY, 5, Limit(1_000)), trace),
    ]
    return items, [Happened(item.seq, item.at, engine.apply(item), item.trace) for item in items]


def test_the_headers_of_an_orders_messages_hang_below_its_own_spans():
    for trace in ("", CALLER):
        items, happened = two_orders(trace)
        trace_id = order_trace_id("bob", "b", trace)
        told = Sent(1, [encode_events(one) for one in happened], 7 * MS, 8 * MS)
        spans = {span.name: span for span in sent_spans(told, ALL) if span.trace_id == trace_id}
        of_command = context_of(command_headers(2, encode_command(items[1]), 1.0))
        of_events = context_of(event_headers(2, told.records[1], 1.0))
        assert of_command.trace_id == of_events.trace_id == trace_id
        assert of_events.span_id == spans["kafka publish"].parent_id
        request = Answered(2, items[1].command, trace, "r", "accepted", 201, 0.001, 9 * MS)
        (gateway,) = request_spans([request], ALL)
        assert of_command.span_id == gateway.span_id


def test_only_orders_that_are_kept_or_bring_a_trace_have_headers():
    items, happened = two_orders()
    record, events = encode_command(items[1]), encode_events(happened[1])
    for seq in range(1, 2_000):
        kept = is_place_kept(seq, 0.01)
        assert (command_headers(seq, record, 0.01) is not None) == kept
    assert event_headers(1, events, 0.0) is None
    items, happened = two_orders(CALLER)
    context = context_of(event_headers(2, encode_events(happened[1]), 0.0))
    assert (context.trace_id, context.sampled) == (CALLER.split("-")[1], False)
    halt = Sequenced(1, 0, Halt("watchdog-1", None, HaltReason.OPERATOR))
    assert command_headers(1, encode_command(halt), 1.0) is None
    assert event_headers(1, encode_events(Happened(1, 0, ())), 1.0) is None


def test_what_is_no_traceparent_is_no_context():
    assert context_of(None) is None
    assert context_of([("other", b"x"), ("traceparent", None)]) is None
    assert context_of([("traceparent", b"00-nonsense\xff")]) is None


def test_what_kafka_received_hangs_below_what_was_published():
    _, happened = two_orders()
    sent = {span.trace_id: span for span in sent_spans(Sent(1, list(map(encode_events, happened)), 7, 8), ALL)}
    received = {span.trace_id: span for span in received_spans(Handled(happened, 9, 9), ALL)}
    assert sent.keys() == received.keys() == {order_trace_id("ann", "a"), order_trace_id("bob", "b")}
    assert all(received[trace].parent_id == sent[trace].span_id for trace in sent)


async def test_a_trades_settlement_carries_the_trace_of_the_order_that_took_through_the_broker():
    _, happened = two_orders(CALLER)
    (trade,) = trades_of(Stretch(0, happened), {"AAA": money_per_tick(AAA)}, 1.0)
    instruction = trade.instruction
    assert instruction.trace == caused(happened[1], 1.0)
    assert instruction.trace.split("-")[1] == CALLER.split("-")[1]
    answer = Answer(Step.RESERVE_CASH, instruction, Verdict.DONE)
    messages = [asking(Ask(Step.RESERVE_CASH, instruction)), answering(answer), saying(answer)]
    assert {message.trace for message in messages} == {instruction.trace}
    broker, heard = MemoryBroker(), []

    async def handle(deliveries):
        heard.extend(deliveries)
        raise StopError

    await broker.publisher().publish(messages[:1])
    with contextlib.suppress(StopError):
        await broker.consumer("saga.cash").run(handle)
    assert [delivery.trace for delivery in heard] == [instruction.trace]


class StopError(Exception):
    """Enough was heard."""


def test_each_step_of_a_saga_is_a_span_of_its_orders_trace_and_a_refused_one_an_error():
    _, happened = two_orders()
    trade = next(event for event in happened[1].events if isinstance(event, Traded))
    trace = caused(happened[1], 0.0)
    steps = [Stepped(trade.trade_id, step, Verdict.DONE, trace, 10, 20) for step in (Step.RESERVE_CASH, Step.CLEAR)]
    assert not list(step_spans(steps, Look(Policy(share=0.0)))), "nobody wants it"
    kept = Look(Policy(share=0.0), frozenset({("", order_trace_id("bob", "b"))}))
    spans = list(step_spans(steps, kept))
    assert {span.trace_id for span in spans} == {order_trace_id("bob", "b")}
    assert len({span.span_id for span in spans}) == 2
    assert {span.attributes["exchange.saga.step"] for span in spans} == {"reserve_cash", "clear"}
    refused = Stepped(trade.trade_id, Step.CLEAR, Verdict.REFUSED, trace, 10, 20)
    (span,) = step_spans([refused], Look(Policy(share=0.0)))
    assert (span.error, span.verdict.trace_id) == ("refused", order_trace_id("bob", "b"))


def test_a_sagas_end_is_a_span_beside_its_steps_and_a_cancelled_one_an_error():
    _, happened = two_orders()
    trade = next(event for event in happened[1].events if isinstance(event, Traded))
    nobody, all_ = Look(Policy(share=0.0)), Look(Policy(share=1.0))
    settled = Concluded(trade.trade_id, End.SETTLED, caused(happened[1], 0.0), 10, SECOND)
    assert not list(saga_spans(settled, nobody)), "a saga may take long"
    (span,) = saga_spans(replace(settled, trace=caused(happened[1], 1.0)), all_)
    (step,) = step_spans([Stepped(trade.trade_id, Step.CLEAR, Verdict.DONE, caused(happened[1], 1.0), 10, 20)], all_)
    assert (span.trace_id, span.parent_id) == (step.trace_id, step.parent_id)
    assert (span.name, span.start, span.end, span.error) == ("saga", 10, SECOND, "")
    assert span.span_id != step.span_id
    (cancelled,) = saga_spans(replace(settled, end=End.CANCELLED), nobody)
    assert (cancelled.error, cancelled.verdict.trace_id) == ("cancelled", order_trace_id("bob", "b"))
