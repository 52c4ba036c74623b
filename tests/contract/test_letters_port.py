"""What a person may do with dead letters, held against the broker in memory and against a real RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from exchange.adapters import rabbit_link
from exchange.adapters.rabbit_letters import RabbitLetters
from exchange.letters import Deed, Letter, Letters
from exchange.messaging import Delivery, Outgoing, PoisonError
from kernel.errors import InputError, PermanentError, TemporaryError
from tests.contract import test_messaging_port as port

BOTH = port.BOTH
Side = port.Side


@pytest.fixture(params=BOTH)
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    if request.param == "memory":
        yield port.MemorySide()
        return
    link = request.getfixturevalue("rabbit_link")
    await rabbit_link.declare(link, port.PLAN)
    made = port.RabbitSide(link)
    yield made
    await made.end()


def letters_of(side: Side) -> Letters:
    return side.broker.letters() if isinstance(side, port.MemorySide) else RabbitLetters(side.link, topology=port.PLAN)


async def refuse(batch: Sequence[Delivery]) -> None:
    raise PoisonError(batch[0], f"{batch[0].message_id} is nobody's")


async def bury(side: Side, *names: str, key: str = "ask.cash", queue: str = "cash") -> None:
    """Have a reader refuse so many messages."""
    there = len(await side.dead(queue))
    messages = [Outgoing(routing_key=key, body=f"body of {name}".encode(), message_id=name) for name in names]
    await side.publisher().publish(messages)
    async with port.reading(consumer := side.consumer(queue), refuse):
        await port.buried(side, queue, there + len(names), consumer, len(names))


def names(letters: Sequence[Letter]) -> list[bytes]:
    return [each.body.removeprefix(b"body of ") for each in letters]


async def test_a_letter_tells_where_it_lies_why_by_which_key_and_how_often_it_came_and_stays(side):
    await bury(side, "a")
    for _ in range(2):
        (letter,) = await letters_of(side).look(10)
        assert (letter.lies_in, letter.came_from, letter.key) == ("cash.dead", "cash", "ask.cash")
        assert (letter.why, letter.body) == ("a is nobody's", b"body of a")
        assert (letter.deliveries, letter.copies) == (1, 1)


async def test_of_each_queue_the_oldest_are_shown_and_no_more_than_asked_for(side):
    await bury(side, "a", "b", "c")
    await bury(side, "d", key="ask.fees", queue="fees")
    assert names(await letters_of(side).look(2)) == [b"a", b"b", b"d"]


async def test_a_letter_that_is_put_back_comes_to_its_queue_alone_as_it_was_and_lies_there_no_more(side):
    await side.publisher().publish(
        [Outgoing(routing_key="said.hold.ok", body=b"x", message_id="x", trace="00-aa-bb-01")]
    )
    await port.seen(side, "fees", 1)
    async with port.reading(consumer := side.consumer("cash"), refuse):
        await port.buried(side, "cash", 1, consumer)
    desk, told = letters_of(side), []
    (letter,) = await desk.look(10)
    assert await desk.settle([letter.id], Deed.REQUEUED, told.append) == [letter] == told
    assert await port.seen(side, "cash", 1) == [
        Delivery(routing_key="said.hold.ok", body=b"x", message_id="x", trace="00-aa-bb-01", attempt=1)
    ]
    assert await desk.look(10) == []
    await side.publisher().publish([Outgoing(routing_key="ask.fees", body=b"", message_id="next")])
    assert port.ids(await port.seen(side, "fees", 1)) == ["next"]


async def test_a_letter_that_was_put_back_in_vain_lies_there_again_with_the_newer_reason(side):
    await bury(side, "a")
    desk = letters_of(side)
    (first,) = await desk.look(10)
    await desk.settle([first.id], Deed.REQUEUED, lambda _: None)

    async def refuse_anew(batch: Sequence[Delivery]) -> None:
        raise PoisonError(batch[0], "still not")

    async with port.reading(consumer := side.consumer("cash"), refuse_anew):
        await port.buried(side, "cash", 1, consumer)
    (again,) = await desk.look(10)
    assert (again.id, again.why, again.key) == (first.id, "still not", "ask.cash")


async def test_what_is_dropped_is_gone_and_the_others_stay_in_their_order(side):
    await bury(side, "a", "b", "c")
    desk = letters_of(side)
    _, second, _ = await desk.look(10)
    assert await desk.settle([second.id], Deed.DROPPED, lambda _: None) == [second]
    assert names(await desk.look(10)) == [b"a", b"c"]
    await bury(side, "d")
    assert names(await desk.look(10)) == [b"a", b"c", b"d"]


async def test_copies_of_one_letter_are_one_and_are_put_back_once(side):
    await bury(side, "a", "a", "b")
    desk = letters_of(side)
    twice, _ = await desk.look(10)
    assert twice.copies == 2
    await desk.settle([twice.id], Deed.REQUEUED, lambda _: None)
    assert names(await desk.look(10)) == [b"b"]
    assert port.ids(await port.seen(side, "cash", 1)) == ["a"]


async def test_an_unknown_id_is_refused_by_name_and_then_nothing_is_done(side):
    await bury(side, "a")
    desk = letters_of(side)
    (letter,) = await desk.look(10)
    with pytest.raises(InputError, match="dead letter rabbit-ff: is not there"):
        await desk.settle([letter.id, "rabbit-ff"], Deed.DROPPED, pytest.fail)
    assert await desk.look(10) == [letter]


@pytest.mark.parametrize("deed", Deed)
async def test_a_letter_whose_witness_fails_stays(side, deed):
    await bury(side, "a")
    desk = letters_of(side)
    (letter,) = await desk.look(10)

    def stumble(_: Letter) -> None:
        raise PermanentError("no room")

    with pytest.raises(PermanentError, match="no room"):
        await desk.settle([letter.id], deed, stumble)
    assert await desk.look(10) == [letter]


async def test_a_letter_whose_queue_is_full_stays(side):
    await bury(side, "a", key="small", queue="small")
    desk = letters_of(side)
    (letter,) = await desk.look(10)
    with pytest.raises(TemporaryError):
        await port.one_by_one(side.publisher(), 100)
    with pytest.raises(TemporaryError, match="not confirmed"):
        await desk.settle([letter.id], Deed.REQUEUED, pytest.fail)
    assert await desk.look(10) == [letter]


async def test_a_broker_that_is_away_is_told():
    side = port.MemorySide()
    await bury(side, "a")
    await side.broker.go_away()
    with pytest.raises(TemporaryError, match="away"):
        await letters_of(side).look(1)
    with pytest.raises(TemporaryError, match="away"):
        await letters_of(side).settle(["rabbit-ff"], Deed.DROPPED, pytest.fail)
