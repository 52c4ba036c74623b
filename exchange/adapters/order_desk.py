"""What a gateway does with an order request once it is read: may it, is there room, what came of it.

    bearer's objection -> budgets of key and account -> this gateway's own rate -> engine -> Verdict

Order entry over HTTP (`gateway`) and over WebSockets (`order_socket`) write the same verdicts in their own ways.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from exchange.adapters.engine_client import AnswerLostError, EngineReply, Engines, NotConnectedError
from exchange.admission import TokenBucket
from exchange.answers import OrderAnswer, Status, answer_of
from exchange.bearer import Bearer
from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder
from exchange.limits import NO_RATES, Budget, RateLimits, Rates, Standing
from exchange.ports import AnsweredOrder, GatewayTelemetry, Log, Refusal, RequestOutcome, Resting
from exchange.protocol import Answer, NotFound, Refused
from exchange.tracing import Answered, RestedTogether, Tracer
from exchange.types import AccountId, ClientId
from kernel.time import SECOND
from kernel.trace import order_trace_id

ENGINE_TIMEOUT_S: Final = 5.0
"""Longer than a recovery takes to begin, shorter than a participant waits."""
SLOW_S: Final = 0.25
"""An order that waited longer for its answer is told in the log."""
LOGGED_PER_S: Final = 10.0


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is no `OrderAnswer`."""

    status: str
    error: str
    reason: str | None = None


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """How a request ended."""

    status: int
    """As HTTP says it."""
    body: OrderAnswer | Problem
    outcome: RequestOutcome
    replayed: bool = False
    """The engine answered this request before; this is the first answer again."""
    retry_s: int = 0
    """After how many seconds it is worth trying again; 0: not told."""


Told = Callable[[Verdict], None]

_REFUSALS: Final[dict[Refusal, tuple[int, RequestOutcome, str]]] = {
    Refusal.IN_FLIGHT: (409, RequestOutcome.IN_FLIGHT, "this client id is being decided right now; look it up"),
    Refusal.MISMATCH: (422, RequestOutcome.MISMATCH, "this client id was used for another request; choose a new one"),
    Refusal.UNDECIDED: (504, RequestOutcome.UNKNOWN, "unknown: the journal failed in the middle; look it up later"),
    Refusal.HALTED: (503, RequestOutcome.HALTED, "trading stands still; nothing was done, send it again later"),
    Refusal.OVERLOADED: (503, RequestOutcome.SHED, "the engine is full; nothing was done, send it again"),
    Refusal.NOT_READY: (503, RequestOutcome.UNAVAILABLE, "the engine is not ready; nothing was done, send it again"),
    Refusal.JOURNAL_FAILED: (503, RequestOutcome.UNAVAILABLE, "the journal failed; nothing was done"),
}
_BUDGETS: Final = {CancelOrder: Budget.CANCELS, MassCancel: Budget.CANCELS}


def budget_of(command: ParticipantCommand) -> Budget:
    """Return the budget that a command is taken from."""
    return _BUDGETS.get(type(command), Budget.ORDERS)


class OrderDesk:
    """Decides order requests of one gateway."""

    def __init__(
        self,
        engine: Engines,
        telemetry: GatewayTelemetry,
        *,
        capacity_per_s: float,
        rates: Rates = NO_RATES,
        engine_timeout_s: float = ENGINE_TIMEOUT_S,
        tracer: Tracer | None = None,
        log: Log | None = None,
    ) -> None:
        """Send what is admitted to `engine`: `capacity_per_s` requests a second of everybody, `rates` of each one."""
        self.engine: Final = engine
        self.meter: Final = telemetry
        self.timeout_s: Final = engine_timeout_s
        self.limits: Final = RateLimits(rates)
        self.log: Final = log
        self._bucket: Final = TokenBucket(capacity_per_s, time.perf_counter())
        self._tracer: Final = tracer
        self._log_bucket: Final = TokenBucket(LOGGED_PER_S, time.perf_counter())
        telemetry.capacity(capacity_per_s)

    # --- before the engine -------------------------------------------------------------------------------------------

    def turned_away(self, bearer: Bearer, command: ParticipantCommand) -> tuple[Verdict | None, Standing | None]:
        """Return why a command does not reach the engine, None if it may; and how its budget stands, if one is kept."""
        objection = bearer.objection(command)
        if objection is not None:
            return _forbidden(objection), None
        now = time.perf_counter()
        standing = None
        if self.limits.any:
            standing = self.limits.take(budget_of(command), bearer.key, command.account, now)
            if standing is not None and not standing.allowed:
                return self._limited(standing, bearer, command.account), standing
        if not self._bucket.take(now, reserve=not isinstance(command, PlaceOrder)):
            return _again(RequestOutcome.SHED, "this gateway is full; nothing was done, send it again", "overloaded",
                          self._bucket.wait_s()), standing  # fmt: skip
        return None, standing

    def all_let_in(self, bearer: Bearer, commands: Sequence[ParticipantCommand]) -> bool:
        """Let many commands in at one look; False, and none is let in, where each has to be looked at by itself."""
        return (
            not self.limits.any
            and bearer.may_all({command.account for command in commands})
            and self._bucket.take_many(len(commands), time.perf_counter())
        )

    def look_up_turned_away(self, bearer: Bearer, account: AccountId) -> tuple[Verdict | None, Standing | None]:
        """Return why a look-up does not reach the engine, None if it may; and how its budget stands."""
        objection = bearer.objection_to_look_up(account)
        if objection is not None:
            return _forbidden(objection), None
        standing = self.limits.take(Budget.LOOK_UPS, bearer.key, account, time.perf_counter())
        if standing is not None and not standing.allowed:
            return self._limited(standing, bearer, account), standing
        return None, standing

    def _limited(self, standing: Standing, bearer: Bearer, account: AccountId) -> Verdict:
        """Say whose budget is used up: metrics cannot, for there may be any number of keys."""
        if self.log is not None and self.may_log():
            self.log.event(
                "budget-used-up", severity="warning", key=bearer.key, account=account, reason=standing.policy
            )
        return _limited(standing)

    # --- the engine --------------------------------------------------------------------------------------------------

    async def decide(self, command: ParticipantCommand, trace: str) -> Verdict:
        """Send a command that was let in to the engine, and wait for what comes of it."""
        self.meter.in_flight(self.engine.in_flight + 1)
        try:
            reply = await self.engine.submit(command, self.timeout_s, trace)
        except (NotConnectedError, AnswerLostError) as error:
            return lost(error)
        finally:
            self.meter.in_flight(self.engine.in_flight)
        return decided(command, reply)

    async def look_up(self, account: AccountId, client_id: ClientId) -> Verdict:
        """Ask what became of a request."""
        try:
            reply = await self.engine.look_up(account, client_id, self.timeout_s)
        except (NotConnectedError, AnswerLostError) as error:
            return unasked(error)
        return found(client_id, reply)

    # --- afterwards --------------------------------------------------------------------------------------------------

    def tell(self, verdict: Verdict, command: ParticipantCommand, trace: str, request_id: str, seconds: float) -> None:
        """Tell of one answered request: metrics, the tracer, and the log when it was slow or its answer is unknown."""
        symbol = command.symbol if isinstance(command, PlaceOrder) else None
        outcome, body = verdict.outcome, verdict.body
        seq = body.seq if type(body) is OrderAnswer else 0
        self.meter.answered(outcome, seconds, AnsweredOrder(command.account, command.client_id, symbol, trace, seq))
        if self._tracer is not None:
            self._tracer.answered(
                Answered(seq, command, trace, request_id, outcome, verdict.status, seconds, time.time_ns())
            )
        self._tell_log(outcome, command, trace, request_id, seconds)

    def tell_resting(self, orders: Resting, request_id: str, seconds: float, *, traced: bool = True) -> None:
        """Tell of new orders that rest as a whole and were answered together: as `tell` of each.

        They stand in the journal's order. `request_id` is their connection's: each order's own has its correlation id
        behind it. `traced`: whether one of them may have a `traceparent`.
        """
        self.meter.resting(seconds, orders)
        if self._tracer is not None:
            self._tracer.rested(RestedTogether(orders, request_id, seconds, time.time_ns(), traced))
        if seconds >= SLOW_S:
            for command, _, trace, named in orders:
                self._tell_log(RequestOutcome.ACCEPTED, command, trace, f"{request_id}/{named}", seconds)

    def _tell_log(
        self, outcome: RequestOutcome, command: ParticipantCommand, trace: str, request_id: str, seconds: float
    ) -> None:
        unknown = outcome is RequestOutcome.UNKNOWN
        if self.log is None or not (unknown or seconds >= SLOW_S):
            return
        # Bounded: when everything is slow, ten a second say so as well as ten thousand.
        if self.may_log():
            self.log.event(
                "order-unanswered" if unknown else "order-slow", severity="warning", account=command.account,
                client_id=command.client_id, request_id=request_id, outcome=str(outcome),
                duration_ns=round(seconds * SECOND), trace_id=order_trace_id(command.account, command.client_id, trace),
            )  # fmt: skip

    def may_log(self) -> bool:
        """Tell whether one more line about a single request fits into this second."""
        return self._log_bucket.take(time.perf_counter())


# --- verdicts --------------------------------------------------------------------------------------------------------


def decided(command: ParticipantCommand, reply: EngineReply) -> Verdict:
    """Return what the engine's reply to a command means."""
    if isinstance(reply, Answer):
        return _answered(command.client_id, reply, command)
    assert isinstance(reply, Refused), "the engine looked up what was submitted"
    return _refused(reply)


def _answered(client_id: ClientId, reply: Answer, command: ParticipantCommand | None = None) -> Verdict:
    answer = answer_of(reply.seq, client_id, reply.events, command)
    rejected = answer.status is Status.REJECTED
    outcome = RequestOutcome.REJECTED if rejected else RequestOutcome.ACCEPTED
    if reply.replayed:
        outcome = RequestOutcome.REPLAYED
    return Verdict(422 if rejected else 201, answer, outcome, replayed=reply.replayed)


def found(client_id: ClientId, reply: EngineReply) -> Verdict:
    """Return what the engine's reply to a look-up means."""
    match reply:
        case Answer():
            return msgspec.structs.replace(_answered(client_id, reply), status=200)
        case NotFound():
            return problem(404, RequestOutcome.BAD_REQUEST, "no request of this account and client id is known")
        case Refused():
            return _refused(reply)


def lost(error: NotConnectedError | AnswerLostError) -> Verdict:
    """Return what it means that the engine did not answer a command."""
    if isinstance(error, NotConnectedError):
        return _again(RequestOutcome.UNAVAILABLE, "the engine is not connected; nothing was done, send it again",
                      "not_connected")  # fmt: skip
    return problem(504, RequestOutcome.UNKNOWN, f"unknown: {error}; look it up by client id")


def unasked(error: NotConnectedError | AnswerLostError) -> Verdict:
    """Return what it means that the engine did not answer a look-up."""
    return _again(RequestOutcome.UNAVAILABLE, f"{error}; ask again", "not_connected")


def problem(status: int, outcome: RequestOutcome, words: str, reason: str | None = None) -> Verdict:
    """Return a verdict that says what is wrong."""
    return Verdict(status, Problem(outcome, words, reason), outcome)


def _refused(reply: Refused) -> Verdict:
    if reply.reason not in _REFUSALS:
        return problem(502, RequestOutcome.UNAVAILABLE, f"the engine refused the message: {reply.detail}")
    status, outcome, words = _REFUSALS[reply.reason]
    retry_s = 1 if status in {409, 503} else 0
    return Verdict(status, Problem(outcome, words, reply.detail or reply.reason), outcome, retry_s=retry_s)


def _again(outcome: RequestOutcome, words: str, reason: str, wait_s: float = 1.0) -> Verdict:
    return Verdict(503, Problem(outcome, words, reason), outcome, retry_s=max(1, math.ceil(wait_s)))


def _forbidden(words: str) -> Verdict:
    return problem(403, RequestOutcome.FORBIDDEN, words)


def _limited(standing: Standing) -> Verdict:
    words = f"the budget `{standing.policy}` is used up; nothing was done, send it again"
    body = Problem(RequestOutcome.LIMITED, words, standing.policy)
    return Verdict(429, body, RequestOutcome.LIMITED, retry_s=max(1, math.ceil(standing.wait_s)))
