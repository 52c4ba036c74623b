"""One way to several engines: each request goes to the engine that has it, and what it says of ids is made whole.

    place          the engine of the symbol
    cancel, replace  the engine that an order's id names: `exchange.shards.whole_id` holds the partition
    mass cancel    the engine of its symbol; without one every engine, and their answers are one
    look-up        every engine

An engine that is away is told only of what is its own: the others go on. A mass cancel that not all engines have is
answered as unknown, so that it is sent again under the same client id, which those that have it answer as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from exchange.adapters.engine_client import (
    Answered,
    AnsweredSome,
    AnswerLostError,
    EngineClient,
    EngineReply,
    NotConnectedError,
    ReplyOfMany,
    into,
)
from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.events import Event, MassCanceled
from exchange.protocol import Answer, NotFound, Refused
from exchange.shards import made_whole, partition_of, whole_id
from exchange.types import AccountId, ClientId, OrderId

_SPAN: Final = whole_id(1, 0)


class _Asked(NamedTuple):
    engine: EngineClient
    request_id: int


class EngineRouter:
    """The engines of all partitions behind the face of one `EngineClient`."""

    def __init__(self, engines: Sequence[EngineClient]) -> None:
        """Route to `engines`, each in the place of its partition."""
        assert engines, "an exchange without an engine"
        self._engines: Final = tuple(engines)
        self._asked: Final[dict[int, tuple[_Asked, ...]]] = {}
        self._next_id = 0

    @property
    def connected(self) -> bool:
        """Whether some request could be sent now."""
        return any(engine.connected for engine in self._engines)

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered, those to every engine counted for each."""
        return sum(engine.in_flight for engine in self._engines)

    def send(self, command: ParticipantCommand, trace: str, answered: Answered) -> int:
        """See `EngineClient.send`.

        Raises:
            NotConnectedError: the engine that has it is away (of a mass cancel without a symbol: all are).
        """
        number = self._take_number()
        if isinstance(command, MassCancel) and command.symbol is None:
            return self._to_all(number, answered, lambda engine, told: engine.send(command, trace, told), _all_canceled)
        place, command = self._route(command)
        request_id = self._engines[place].send(command, trace, self._whole(number, place, answered))
        self._asked[number] = (_Asked(self._engines[place], request_id),)
        return number

    def send_many(
        self, commands: Sequence[ParticipantCommand], traces: Mapping[int, str], answered: AnsweredSome
    ) -> int:
        """See `EngineClient.send_many`. What an engine that is away has is answered with `NotConnectedError`."""
        first = self._next_id + 1
        away: list[tuple[int, ReplyOfMany]] = []
        for place, command in enumerate(commands):
            try:
                self.send(command, traces.get(place, ""), partial(_one_of_many, answered, place))
            except NotConnectedError as error:
                away.append((place, error))
        if away:  # not before the caller has the number
            asyncio.get_running_loop().call_soon(answered, away)
        return first

    def send_look_up(self, account: AccountId, client_id: ClientId, answered: Answered) -> int:
        """See `EngineClient.send_look_up`: any engine may have it."""
        return self._to_all(
            self._take_number(), answered, lambda engine, told: engine.send_look_up(account, client_id, told), _found
        )

    def waits(self, request_id: int) -> bool:
        """See `EngineClient.waits`."""
        return any(asked.engine.waits(asked.request_id) for asked in self._asked.get(request_id, ()))

    def give_up(self, request_id: int) -> None:
        """See `EngineClient.give_up`."""
        for asked in self._asked.pop(request_id, ()):
            asked.engine.give_up(asked.request_id)

    async def submit(self, command: ParticipantCommand, timeout_s: float, trace: str = "") -> EngineReply:
        """See `EngineClient.submit`."""
        answer: asyncio.Future[EngineReply] = asyncio.get_running_loop().create_future()
        return await self._wait(self.send(command, trace, into(answer)), answer, timeout_s)

    async def look_up(self, account: AccountId, client_id: ClientId, timeout_s: float) -> EngineReply:
        """See `EngineClient.look_up`."""
        answer: asyncio.Future[EngineReply] = asyncio.get_running_loop().create_future()
        return await self._wait(self.send_look_up(account, client_id, into(answer)), answer, timeout_s)

    async def run(self) -> None:
        """Keep every connection; returns only when cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for engine in self._engines:
                tasks.create_task(engine.run())

    # --- within ------------------------------------------------------------------------------------------------------

    async def _wait(self, number: int, answer: asyncio.Future[EngineReply], timeout_s: float) -> EngineReply:
        timer = asyncio.get_running_loop().call_later(timeout_s, self.give_up, number)
        try:
            return await answer
        finally:
            timer.cancel()
            self.give_up(number)

    def _take_number(self) -> int:
        self._next_id += 1
        return self._next_id

    def _route(self, command: ParticipantCommand) -> tuple[int, ParticipantCommand]:
        """Return the place of the engine that has a command, and the command in that engine's own numbers."""
        if isinstance(command, PlaceOrder):
            return partition_of(command.symbol, len(self._engines)), command
        if isinstance(command, MassCancel):
            assert command.symbol is not None, "a mass cancel of everything goes to all"
            return partition_of(command.symbol, len(self._engines)), command
        return self._of_order(command)

    def _of_order(self, command: CancelOrder | ReplaceOrder) -> tuple[int, ParticipantCommand]:
        place, number = divmod(command.order_id, _SPAN)
        if place >= len(self._engines):  # nobody's: the first engine has no order of that number either, and says so
            return 0, command
        return place, command if place == 0 else msgspec.structs.replace(command, order_id=OrderId(number))

    def _whole(self, number: int, place: int, answered: Answered) -> Answered:
        def told(reply: EngineReply | AnswerLostError) -> None:
            self._asked.pop(number, None)
            answered(_with_whole_ids(place, reply))

        return told

    def _to_all(
        self,
        number: int,
        answered: Answered,
        send: Callable[[EngineClient, Answered], int],
        together: Callable[[Sequence[EngineReply | AnswerLostError]], EngineReply | AnswerLostError],
    ) -> int:
        """Ask every engine, and answer once when all have."""
        there = [place for place, engine in enumerate(self._engines) if engine.connected]
        if not there:
            raise NotConnectedError("no engine is connected")
        replies: dict[int, EngineReply | AnswerLostError] = {
            place: AnswerLostError(f"the engine of partition {place} is not connected")
            for place in range(len(self._engines))
            if place not in there
        }

        def heard(place: int) -> Answered:
            def told(reply: EngineReply | AnswerLostError) -> None:
                replies[place] = _with_whole_ids(place, reply)
                if len(replies) == len(self._engines):
                    self._asked.pop(number, None)
                    answered(together([replies[each] for each in range(len(self._engines))]))

            return told

        self._asked[number] = tuple(
            _Asked(self._engines[place], send(self._engines[place], heard(place))) for place in there
        )
        return number


def _one_of_many(answered: AnsweredSome, place: int, reply: EngineReply | AnswerLostError) -> None:
    answered([(place, reply)])


def _with_whole_ids(place: int, reply: EngineReply | AnswerLostError) -> EngineReply | AnswerLostError:
    if place == 0 or not isinstance(reply, Answer):
        return reply
    return Answer(reply.id, reply.seq, tuple(made_whole(place, event) for event in reply.events), reply.replayed)


def _all_canceled(replies: Sequence[EngineReply | AnswerLostError]) -> EngineReply | AnswerLostError:
    """Return one answer to a mass cancel of everything: how many it cancelled in all; unknown unless all have it."""
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    if len(answers) < len(replies):
        others = [reply for reply in replies if not isinstance(reply, Answer)]
        if not answers and all(isinstance(reply, Refused) for reply in others):
            return others[0]
        return AnswerLostError(f"not every engine has it ({_words(others[0])}); send it again")
    events: list[Event] = []
    total: MassCanceled | None = None
    for answer in answers:
        for event in answer.events:
            if isinstance(event, MassCanceled):
                count = event.count + (0 if total is None else total.count)
                total = msgspec.structs.replace(event, count=count)
            else:
                events.append(event)
    first = answers[0]
    told = (*events, total) if total is not None else tuple(events)
    return Answer(first.id, first.seq, told, all(answer.replayed for answer in answers))


def _found(replies: Sequence[EngineReply | AnswerLostError]) -> EngineReply | AnswerLostError:
    """Return what the engines know of a request: one has it, or all of a mass cancel of everything, or none."""
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    others = [reply for reply in replies if not isinstance(reply, Answer)]
    if not answers:
        return next((reply for reply in others if not isinstance(reply, NotFound)), others[0])
    if len(answers) == len(replies):
        return _all_canceled(answers)
    if any(isinstance(event, MassCanceled) for answer in answers for event in answer.events):
        # Of everything, or of one symbol? It does not say; sent again, each engine answers as before.
        return AnswerLostError("a mass cancel that not every engine has: send it again under the same client id")
    return answers[0]


def _words(reply: EngineReply | AnswerLostError) -> str:
    if isinstance(reply, Refused):
        return reply.detail or str(reply.reason)
    return "it does not know it" if isinstance(reply, NotFound) else str(reply)
