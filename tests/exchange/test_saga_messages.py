"""What settlement's services write is what they wrote before, and what nobody understands is told from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exchange.adapters.rabbit_topology import TOPOLOGY
from exchange.messaging import Delivery, Outgoing, PoisonError
from exchange.saga import NEXT, Answer, Ask, End, Reason, Service, Step, Verdict, instruction
from exchange.saga_messages import READER, Style, answering, asking, bindings, queue, read_answer, read_ask, saying
from tests.exchange.saga_plant import MONEY, trade

GOLDEN = Path(__file__).parent / "golden" / "saga-messages-1.json"
"""Messages of version 1: written once, read for ever."""
IT = instruction(trade(7), MONEY)
REFUSED = Answer(Step.RESERVE_CASH, IT, Verdict.REFUSED, Reason.INSUFFICIENT)
DONE = Answer(Step.CLEAR, IT, Verdict.DONE)
MADE: dict[str, Outgoing] = {
    "ask": asking(Ask(Step.RESERVE_CASH, IT)),
    "answer": answering(REFUSED),
    "said": saying(DONE),
}


def delivery(message: Outgoing) -> Delivery:
    return Delivery(routing_key=message.routing_key, body=message.body, message_id=message.message_id)


def test_messages_are_written_as_ever():
    told = {
        name: {"routing_key": one.routing_key, "message_id": one.message_id, "body": json.loads(one.body)}
        for name, one in MADE.items()
    }
    kept = json.loads(GOLDEN.read_text())
    for one in kept.values():  # a trace came later, with a default: who knows of none reads on
        one["body"].get("ask", one["body"].get("answer"))["instruction"]["trace"] = ""
    assert told == kept


def test_messages_of_the_first_version_are_still_read():
    kept = json.loads(GOLDEN.read_text())
    read = {
        name: Delivery(routing_key="", body=json.dumps(one["body"]).encode(), message_id="")
        for name, one in kept.items()
    }
    assert read_ask(read["ask"]) == Ask(Step.RESERVE_CASH, IT)
    assert (read_answer(read["answer"]), read_answer(read["said"])) == (REFUSED, DONE)


def test_a_field_that_a_newer_program_adds_is_left_alone():
    body = json.loads(MADE["ask"].body)
    body["more"] = body["ask"]["more"] = 1
    assert read_ask(Delivery(routing_key="", body=json.dumps(body).encode(), message_id="")).step is Step.RESERVE_CASH


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is no message of a saga"),
        (b'{"version":2}', "it is of version 2, this program reads 1"),
        (b'{"version":1}', "it asks for no step"),
        (MADE["answer"].body, "it asks for no step"),
        (MADE["ask"].body.replace(b"reserve_cash", b"begin"), "it asks for no step"),
        (MADE["ask"].body.replace(b"reserve_cash", b"give_all"), "it is no message of a saga"),
    ],
)
def test_what_asks_nothing_is_poison_and_says_why(body, why):
    with pytest.raises(PoisonError, match=why):
        read_ask(Delivery(routing_key="saga.ask.cash", body=body, message_id="x"))


def test_every_event_reaches_who_reacts_to_it_and_every_end_reaches_all_and_nobody_else():
    places = bindings(Style.CHOREOGRAPHED)
    everybody = {READER, *(queue(service, Style.CHOREOGRAPHED) for service in Service)}
    assert set(places) == everybody
    for (step, verdict), after in NEXT.items():
        heard = {name for name, keys in places.items() if f"saga.said.{step}.{verdict}" in keys}
        assert len(heard) == (5 if isinstance(after, End) else 1)
    for style in Style:
        for name, keys in bindings(style).items():
            assert TOPOLOGY.queue(name).patterns == keys


def test_the_same_message_has_the_same_id_however_often_it_is_said():
    assert saying(DONE).message_id == saying(DONE).message_id == "7.clear.done"
    assert len({one.message_id for one in MADE.values()}) == 3
