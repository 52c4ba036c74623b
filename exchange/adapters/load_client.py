"""An open-loop load that accounts for every request it sent.

Arrivals follow a schedule that waits for nobody, and latency counts from the intended time: a stalled exchange makes
this client's figures worse, never its load lighter. An answer that could not be had is asked for again under the same
client id at another gateway, and looked up in the end. Every request leaves one line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol
from zlib import crc32

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.accounting import Account, LoadLine
from exchange.adapters.http import common_routes, guarded, json_response, problem, read_body
from exchange.adapters.load_account import account
from exchange.adapters.order_requests import request_of
from exchange.answers import OrderAnswer, Status
from exchange.commands import Limit, ParticipantCommand, PlaceOrder
from exchange.flow import DayShape, OrderFlow, arrivals
from exchange.pace import always
from exchange.ports import ClientOutcome, Exposition, LoadTelemetry, Log
from exchange.types import AccountId, ClientId, Instrument, OrderId, Side, Symbol, Ticks, Venue
from kernel.errors import PermanentError
from kernel.time import MINUTE, Clock, Duration, Instant, to_seconds
from kernel.trace import TraceContext, derived_span_id, derived_trace_id, traceparent

ACCOUNTS: Final = tuple(AccountId(f"member-{number:02}") for number in range(1, 17))
SHAPE: Final = DayShape(Duration(10 * MINUTE), depth=0.3)
"""A day in ten minutes, a fifth busier at its ends: gentle enough for a capacity that is planned for the mean."""
ATTEMPT_S: Final = 2.0
RETRY_FOR_S: Final = 10.0
LOOK_UP_FOR_S: Final = 30.0
PAUSE_S: Final = 0.2
MAX_IN_FLIGHT: Final = 4096
TRACED_ONE_IN: Final = 20
"""Orders that are sent with a trace context of their own."""
PACE_S: Final = 0.25
PACE_STEP: Final = 0.05
_POLL_S: Final = 0.5
_FLUSH_S: Final = 0.25
_answer: Final = msgspec.json.Decoder(OrderAnswer)


class Flow(Protocol):
    """What is sent next, given what was answered."""

    def __next__(self) -> ParticipantCommand:
        """Return the next request.

        Raises:
            StopIteration: there is none.
        """
        ...

    def placed(self, account: AccountId, client_id: ClientId, order_id: OrderId) -> None:
        """Learn under which number an order was accepted."""
        ...

    def rested(self, order_id: OrderId, account: AccountId, symbol: Symbol, side: Side, price: Ticks) -> None:
        """Learn that an order rests."""
        ...

    def gone(self, order_id: OrderId) -> None:
        """Learn that an order rests no longer."""
        ...


@dataclass(frozen=True)
class LoadParts:
    """What a load is made of."""

    directory: Path
    journal: Path
    gateways: Callable[[], Sequence[str]]
    """The addresses of the gateways there should be now, or of the edge before them."""
    instruments: Sequence[Instrument]
    trade_secret: str
    seed: int
    rate_per_s: float
    telemetry: LoadTelemetry
    log: Log
    clock: Clock
    venue: Venue | None = None
    flow: Callable[[str], Flow] | None = None
    """Makes what is sent, given a prefix for client ids that no other load has; None: a calm market."""
    pace: Callable[[Instant], float] = always
    """A factor on the rate at an instant, such as that of the market's phase."""
    ca_file: Path | None = None
    """PEM of the authority that is trusted over TLS; None: those the system trusts."""


@dataclass
class _Attempt:
    """How one exchange with a gateway ended."""

    outcome: ClientOutcome
    answer: OrderAnswer | None = None
    sent: bool = True
    """False: the request surely never left."""


@dataclass
class _Gateways:
    """The gateways that were ready a moment ago, in turn."""

    ready: list[str] = field(default_factory=list)
    turn: int = 0

    def next(self, other_than: str | None) -> str | None:
        for _ in range(len(self.ready)):
            self.turn += 1
            url = self.ready[self.turn % len(self.ready)]
            if url != other_than or len(self.ready) == 1:
                return url
        return None


class LoadClient:
    """One load: a flow of orders, the gateways it goes to, and its log."""

    def __init__(self, parts: LoadParts) -> None:
        self._parts: Final = parts
        started = parts.clock.now()
        prefix = f"load-{started:x}"
        self._flow: Final[Flow] = (
            OrderFlow(parts.seed, parts.instruments, ACCOUNTS, prefix=prefix)
            if parts.flow is None
            else parts.flow(prefix)
        )
        self.exhausted: Final = asyncio.Event()
        """The flow came to its end: nothing more is sent."""
        self._path: Final = parts.directory / f"requests-{started}.jsonl"
        self._rate = parts.rate_per_s
        self._pace = 1.0
        self._changed: Final = asyncio.Event()
        self._stopped = False
        self._schedules = 0
        self._gateways: Final = _Gateways()
        self._requests: Final[set[asyncio.Task[None]]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._log_file: IO[bytes] | None = None
        self._account: Account | None = None
        self._finishing: Final = asyncio.Lock()

    # --- what others ask --------------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Tell whether requests can be sent."""
        count = len(self._gateways.ready)
        return bool(count), f"{count} gateways are ready"

    @property
    def rate(self) -> float:
        """Requests a second on average."""
        return 0.0 if self._stopped else self._rate * self._pace

    def set_rate(self, rate: float) -> None:
        """Send so many requests a second from now on; 0 pauses."""
        self._rate = rate
        self._changed.set()

    async def finish(self) -> Account | None:
        """Send nothing more, wait for what is under way, write the account; None when the journal cannot be read."""
        async with self._finishing:
            if self._account is not None:
                return self._account
            self._stopped = True
            self._changed.set()
            if self._requests:
                await asyncio.wait(self._requests)
            self._flush()
            with contextlib.suppress(PermanentError):
                self._account = await self.account()
                path = self._parts.directory / "account.json"
                path.write_bytes(msgspec.json.format(msgspec.json.encode(self._account)))
            return self._account

    async def account(self) -> Account:
        """Return the account of everything answered so far.

        Raises:
            PermanentError: the journal cannot be read.
        """
        self._flush()
        parts = self._parts
        return await asyncio.get_running_loop().run_in_executor(
            None, account, parts.directory, parts.journal, parts.instruments, parts.venue
        )

    # --- the load ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            PermanentError: the log cannot be written, or the authority to trust cannot be read.
        """
        parts = self._parts
        trusting = _trusting(parts.ca_file)
        try:
            parts.directory.mkdir(parents=True, exist_ok=True)
            self._log_file = self._path.open("ab")
        except OSError as error:
            raise PermanentError(f"{self._path}: cannot write the load's log: {error.strerror}") from error
        headers = {"Authorization": f"Bearer {parts.trade_secret}"}
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ssl=trusting)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as self._session:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch_gateways())
                    tasks.create_task(self._flush_often())
                    tasks.create_task(self._follow_pace())
                    tasks.create_task(self._send_on_schedule())
            finally:
                for task in self._requests:
                    task.cancel()
                await asyncio.gather(*self._requests, return_exceptions=True)
                self._flush()
                self._log_file.close()

    async def _follow_pace(self) -> None:
        """Begin a new schedule whenever it is busier or quieter by more than nobody would notice."""
        while True:
            pace = self._parts.pace(self._parts.clock.now())
            if abs(pace - self._pace) > PACE_STEP * self._pace:
                self._pace = pace
                self._changed.set()
            await asyncio.sleep(PACE_S)

    async def _send_on_schedule(self) -> None:
        while True:
            self._changed.clear()
            if self._stopped or self.rate <= 0:
                await self._changed.wait()
                continue
            self._schedules += 1
            started = self._parts.clock.now()
            for offset in arrivals(self.rate, SHAPE, self._parts.seed + self._schedules):
                intended = Instant(started + offset)
                if await self._changed_before(intended):
                    break
                command = next(self._flow, None)
                if command is None:
                    self._stopped = True
                    self.exhausted.set()
                    break
                self._spawn(self._request(command, intended))
                while len(self._requests) >= MAX_IN_FLIGHT:  # noqa: ASYNC110 - rare, and any of thousands may end it
                    await asyncio.sleep(PAUSE_S)

    async def _changed_before(self, instant: Instant) -> bool:
        """Wait until `instant`; True when the rate changed before."""
        wait_s = to_seconds(instant - self._parts.clock.now())
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        return self._changed.is_set()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _request(self, command: ParticipantCommand, intended: Instant) -> None:
        """See one request through, and write its line."""
        clock, sent_at = self._parts.clock, self._parts.clock.now()
        url, attempts, doubtful = None, 0, False
        attempt = _Attempt(ClientOutcome.REFUSED, sent=False)
        while True:
            url = self._gateways.next(other_than=url)
            if url is not None:
                attempts += 1
                attempt = await self._attempt(url, command)
                doubtful = doubtful or (attempt.outcome is ClientOutcome.UNKNOWN and attempt.sent)
                if attempt.outcome in {ClientOutcome.ACKNOWLEDGED, ClientOutcome.REJECTED}:
                    break
                if attempt.outcome is ClientOutcome.REFUSED and not doubtful:
                    break
            if to_seconds(clock.now() - sent_at) >= RETRY_FOR_S or (self._stopped and not doubtful):
                attempt = await self._settle_doubt(command) if doubtful else _Attempt(ClientOutcome.REFUSED)
                break
            await asyncio.sleep(PAUSE_S)
        answered_at = clock.now()
        self._learn(command, attempt)
        self._parts.telemetry.answered(
            attempt.outcome, max(0.0, to_seconds(answered_at - intended)), _notional(command)
        )
        kind = type(command).__struct_config__.tag
        self._write(LoadLine(command.account, command.client_id, str(kind), intended, sent_at, answered_at,
                             attempt.outcome, attempts, attempt.answer))  # fmt: skip

    async def _settle_doubt(self, command: ParticipantCommand) -> _Attempt:
        """Look a request up until somebody knows, or nobody did for `LOOK_UP_FOR_S`."""
        deadline = self._parts.clock.now() + round(LOOK_UP_FOR_S * 1e9)
        while self._parts.clock.now() < deadline:
            url = self._gateways.next(other_than=None)
            if url is not None:
                attempt = await self._look_up(url, command)
                if attempt.outcome is not ClientOutcome.UNKNOWN:
                    return attempt
            await asyncio.sleep(_POLL_S)
        return _Attempt(ClientOutcome.UNKNOWN)

    # --- HTTP -------------------------------------------------------------------------------------------------------

    async def _attempt(self, url: str, command: ParticipantCommand) -> _Attempt:
        method, path, body = request_of(command)
        return await self._call(method, url + path, body, _context_of(command))

    async def _look_up(self, url: str, command: ParticipantCommand) -> _Attempt:
        return await self._call("GET", f"{url}/v1/orders/by-client-id/{command.account}/{command.client_id}", None)

    async def _call(self, method: str, url: str, body: bytes | None, headers: dict[str, str] | None = None) -> _Attempt:
        assert self._session is not None, "a request before the session"
        try:
            timeout = aiohttp.ClientTimeout(total=ATTEMPT_S)
            async with self._session.request(method, url, data=body, headers=headers, timeout=timeout) as response:
                return _read(response.status, await response.read(), looked_up=method == "GET")
        except aiohttp.ClientConnectorError:
            return _Attempt(ClientOutcome.UNKNOWN, sent=False)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return _Attempt(ClientOutcome.UNKNOWN)

    async def _watch_gateways(self) -> None:
        while True:
            urls = self._parts.gateways()
            answers = await asyncio.gather(*(self._is_ready(url) for url in urls))
            self._gateways.ready = [url for url, is_ready in zip(urls, answers, strict=True) if is_ready]
            await asyncio.sleep(_POLL_S)

    async def _is_ready(self, url: str) -> bool:
        assert self._session is not None, "a question before the session"
        try:
            timeout = aiohttp.ClientTimeout(total=_POLL_S)
            async with self._session.get(url + "/health/ready", timeout=timeout) as response:
                return response.status == 200  # noqa: PLR2004 - HTTP OK
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    # --- memory -----------------------------------------------------------------------------------------------------

    def _learn(self, command: ParticipantCommand, attempt: _Attempt) -> None:
        answer = attempt.answer
        if answer is None or answer.order_id is None:
            return
        order_id = OrderId(answer.order_id)
        if isinstance(command, PlaceOrder):
            self._flow.placed(command.account, command.client_id, order_id)
        if answer.resting == 0:
            self._flow.gone(order_id)
        elif isinstance(command, PlaceOrder) and isinstance(command.terms, Limit):
            self._flow.rested(order_id, command.account, command.symbol, command.side, command.terms.price)

    def _write(self, line: LoadLine) -> None:
        if self._log_file is not None and not self._log_file.closed:
            self._log_file.write(msgspec.json.encode(line) + b"\n")

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        if self._log_file is not None and not self._log_file.closed:
            self._log_file.flush()


def _trusting(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Return whom to trust over TLS.

    Raises:
        PermanentError: the file of the authority cannot be read.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise PermanentError(f"{ca_file}: the authority's certificate cannot be read ({error})") from error


def _context_of(command: ParticipantCommand) -> dict[str, str] | None:
    """Return a trace context for some of the requests: a few participants trace their orders, most do not."""
    if crc32(command.client_id.encode()) % TRACED_ONE_IN:
        return None
    trace_id = derived_trace_id("load", command.client_id)
    return {"traceparent": traceparent(TraceContext(trace_id, derived_span_id(trace_id, "client"), sampled=False))}


def _read(status: int, body: bytes, *, looked_up: bool) -> _Attempt:
    """Read a gateway's answer."""
    if status in {200, 201, 422}:
        try:
            answer = _answer.decode(body)
        except msgspec.DecodeError:
            return _Attempt(ClientOutcome.UNKNOWN)
        rejected = answer.status is Status.REJECTED
        return _Attempt(ClientOutcome.REJECTED if rejected else ClientOutcome.ACKNOWLEDGED, answer)
    if looked_up:
        # Found by nobody: it was never sequenced. Everything else leaves the doubt.
        return _Attempt(ClientOutcome.REFUSED if status == 404 else ClientOutcome.UNKNOWN)  # noqa: PLR2004 - Not Found
    return _Attempt(ClientOutcome.UNKNOWN if status in {409, 500, 502, 504} else ClientOutcome.REFUSED)


class RateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `/admin/rate`."""

    rate: float


def load_app(client: LoadClient, exposition: Exposition, admin_secret: str) -> ASGIApp:
    """Return the load's HTTP application."""

    async def set_rate(request: Request) -> Response:
        rate = msgspec.json.decode(await read_body(request), type=RateBody).rate
        if not 0 <= rate <= 1_000_000:  # noqa: PLR2004 - a million a second is more than there will ever be
            return problem(400, "rate: between 0 and 1000000 requests a second")
        client.set_rate(rate)
        return json_response({"rate": client.rate})

    async def get_rate(_: Request) -> Response:
        return json_response({"rate": client.rate})

    async def stop(_: Request) -> Response:
        result = await client.finish()
        return problem(503, "the journal cannot be read") if result is None else json_response(result)

    async def tell_account(_: Request) -> Response:
        try:
            return json_response(await client.account())
        except PermanentError as error:
            return problem(503, str(error))

    return Starlette(
        routes=[
            *common_routes(exposition, client.ready),
            Route("/admin/rate", guarded(admin_secret, set_rate), methods=["POST"]),
            Route("/admin/stop", guarded(admin_secret, stop), methods=["POST"]),
            Route("/v1/rate", get_rate, methods=["GET"]),
            Route("/v1/account", tell_account, methods=["GET"]),
        ]
    )


def _notional(command: ParticipantCommand) -> int:
    """Return what an order is worth in ticks times lots; 0 for one without a price and for other requests."""
    if isinstance(command, PlaceOrder) and isinstance(command.terms, Limit):
        return command.terms.price * command.quantity
    return 0
