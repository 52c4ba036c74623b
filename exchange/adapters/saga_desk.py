"""One saga for a person: where it stands, step by step, and what a person may do to it, over HTTP.

    GET  /v1/sagas/{trade}              what this part knows of it
    POST /v1/sagas/{trade}/retry        ask, or say, once more what is waited for, now
    POST /v1/sagas/{trade}/compensate   give it up, as a time-out would: the pivot says whether it is too late

What a person does is written down with who and why, in the transaction of its effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exchange.adapters.http import Endpoint, guarded, json_response, problem, read_body
from exchange.saga import AT, NEXT, WHO_MAX, WHY_LEAST, WHY_MAX, Deed, Instruction, Step, Verdict
from exchange.saga_coordinator import Begun, Entry, GaveUp, Told
from exchange.types import TradeId
from kernel.errors import PermanentError, TapewatchError
from kernel.time import Instant, to_rfc3339

_BEYOND: Final = 1 << 63


class UnknownSagaError(PermanentError):
    """There is no saga of this trade here."""


class DeedRefusedError(PermanentError):
    """A saga stands where this cannot be done to it; nothing was done."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a deed."""

    by: Annotated[str, msgspec.Meta(min_length=1, max_length=WHO_MAX)]
    why: Annotated[str, msgspec.Meta(min_length=WHY_LEAST, max_length=WHY_MAX)]


class StepTold(msgspec.Struct, frozen=True):
    """One step of a saga. Instants in RFC 3339; empty: not known, or not yet."""

    step: str
    service: str
    since: str = ""
    """When its turn came."""
    answered: str = ""
    verdict: str = ""
    """Empty: it is waited for."""
    reason: str = ""


class DeedTold(msgspec.Struct, frozen=True):
    """What a person did."""

    at: str
    deed: str
    who: str
    why: str


class MoveTold(msgspec.Struct, frozen=True):
    """What a service moved for a saga."""

    step: str
    giver: str
    taker: str
    asset: str
    amount: int


class SagaView(msgspec.Struct, frozen=True, kw_only=True):
    """What one part knows of one saga. Instants in RFC 3339; empty: not known."""

    trade_id: int
    part: str
    style: str
    state: str
    """Of who begins sagas: `open`, `settled` or `cancelled`. Of a service: empty, or `open` while it says something."""
    instruction: Instruction | None = None
    traded: str = ""
    begun: str = ""
    ended: str = ""
    step: str = ""
    """Where it stands, or without a coordinator what this part said last."""
    waits_for: str = ""
    """The service that is waited for, as far as this part knows."""
    since: str = ""
    asked: int = 0
    """How often it was asked, or said, since this process began."""
    asked_last: str = ""
    stuck: str = ""
    """Why it does not go on; empty: it does not stand for long yet."""
    refusal: str = ""
    steps: list[StepTold] = []
    moves: list[MoveTold] = []
    deeds: list[DeedTold] = []


class Desk(Protocol):
    """A part that can be asked about one saga."""

    async def view(self, trade_id: TradeId) -> SagaView:
        """Return what the part knows.

        Raises:
            UnknownSagaError: nothing.
        """
        ...

    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """Do it, and return how the saga stands then.

        Raises:
            UnknownSagaError: the part knows nothing of this saga.
            DeedRefusedError: it cannot be done where the saga stands.
        """
        ...


def told(instant: int | None) -> str:
    """Return an instant as text; empty for none."""
    return "" if instant is None else to_rfc3339(instant)


def steps_of(entries: Sequence[Entry]) -> list[StepTold]:
    """Return the steps of one saga as the coordinator's journal has them; the last one is waited for, if it is open."""
    steps: list[StepTold] = []
    step: Step | None = None
    since: Instant | None = None
    for entry in entries:
        match entry:
            case Begun():
                following = NEXT[Step.BEGIN, Verdict.DONE]
            case GaveUp():
                assert step is not None, "nothing is given up before it is begun"
                steps.append(_told(step, since, entry.at, Verdict.GIVEN_UP.value))
                following = NEXT[Step.BEGIN, Verdict.GIVEN_UP]
            case Told():
                answer = entry.answer
                steps.append(_told(answer.step, since, entry.at, answer.verdict.value, answer.reason.value))
                if (answer.step, answer.verdict) not in NEXT:
                    continue  # it stands there still
                following = NEXT[answer.step, answer.verdict]
        step, since = (following, entry.at) if isinstance(following, Step) else (None, None)
    if step is not None:
        steps.append(_told(step, since, None, ""))
    return steps


def _told(step: Step, since: Instant | None, answered: Instant | None, verdict: str, reason: str = "") -> StepTold:
    return StepTold(step.value, AT[step].value, told(since), told(answered), verdict, reason)


def desk_routes(desk: Desk, admin_secret: str) -> list[BaseRoute]:
    """Return the routes of one saga; what changes something wants the admin secret."""

    async def show(request: Request) -> Response:
        return json_response(await desk.view(_trade(request)))

    def changing(deed: Deed) -> Endpoint:
        async def change(request: Request) -> Response:
            wish = msgspec.json.decode(await read_body(request), type=Wish)
            return json_response(await desk.do(_trade(request), deed, wish))

        return guarded(admin_secret, _answered(change))

    changes = [Route(f"/v1/sagas/{{trade:int}}/{deed}", changing(deed), methods=["POST"]) for deed in Deed]
    return [Route("/v1/sagas/{trade:int}", _answered(show), methods=["GET"]), *changes]


def _trade(request: Request) -> TradeId:
    number = int(request.path_params["trade"])
    if not 0 < number < _BEYOND:
        raise UnknownSagaError(f"no trade has the number {number}")
    return TradeId(number)


def _answered(endpoint: Endpoint) -> Endpoint:
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except UnknownSagaError as error:
            return problem(404, str(error))
        except DeedRefusedError as error:
            return problem(409, str(error))
        except TapewatchError as error:
            return problem(503, str(error))

    return answered
