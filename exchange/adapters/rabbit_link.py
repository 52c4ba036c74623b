"""A connection to RabbitMQ: bounds on every wait, its errors told apart, its queues declared and checked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, HeadersType
from aiormq import exceptions
from pamqp.common import FieldTable
from yarl import URL

from exchange.adapters.rabbit_topology import DEAD, Queue, Topology
from exchange.messaging import Delivery
from kernel.errors import PermanentError, TapewatchError, TemporaryError

HEARTBEAT_S: Final = 10
"""A broker that stands still is noticed after two of these."""
CONNECT_S: Final = 5.0
RPC_S: Final = 10.0
DECLARED_AFTER_S: Final = 2.5
WHY: Final = "x-tapewatch-why"
"""Header of a dead letter: the reason, when its consumer gave one."""
KEY: Final = "x-tapewatch-key"
"""Header of a dead letter: the routing key that it was published with."""
CAME: Final = "x-tapewatch-came"
"""Header of a dead letter: how often it had been delivered, when its consumer sent it there."""
TRACE: Final = "traceparent"
COUNT: Final = "x-delivery-count"
"""Header of a quorum queue: how often a message was handed out before."""
_DEATHS: Final = "x-death"
_LOST: Final = (
    exceptions.AMQPError, exceptions.ChannelInvalidStateError, ConnectionError, TimeoutError, OSError, RuntimeError,
    asyncio.InvalidStateError,
)  # fmt: skip
_REFUSED: Final = (
    exceptions.ProbableAuthenticationError, exceptions.AuthenticationError, exceptions.IncompatibleProtocolError,
    exceptions.ChannelAccessRefused, exceptions.ChannelNotFoundEntity, exceptions.ChannelPreconditionFailed,
)  # fmt: skip
_NOT_NOW: Final = ("down or inaccessible", "timeout", "timed out", "nodedown", "noproc")
"""Words of refusals that only mean that a queue's leader is not there yet, as after the broker's start."""

# What breaks is told by our errors; the library would write of it on standard error as well.
for _name in ("aio_pika", "aiormq"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class RabbitLink:
    """How one process reaches the broker; a connection is open while somebody needs it."""

    def __init__(self, url: str, *, password: str = "", name: str = "tapewatch") -> None:
        """Nothing is opened yet.

        Args:
            url: such as `amqp://tapewatch@127.0.0.1:5672/`; `amqps` for TLS.
            password: of the user in the URL; empty: the one in the URL.
            name: told to the broker, for the person who looks at its connections.
        """
        address = URL(url)
        self._url: Final = address.with_password(password) if password else address
        self._name: Final = name
        self.broker: Final = f"{address.host}:{address.port or 5672}"
        """Host and port, for messages."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AbstractConnection]:
        """Open a connection for as long as the block lasts.

        Raises:
            TemporaryError: nobody answers, or the virtual host is not there.
            PermanentError: the broker refuses the user or the password.
        """
        opened = await self.open()
        try:
            yield opened
        finally:
            await close(opened)

    async def open(self) -> AbstractConnection:
        """Open a connection; `close` it. Raises as `connection` does."""
        try:
            return await aio_pika.connect(
                self._url, timeout=CONNECT_S, heartbeat=HEARTBEAT_S, client_properties={"connection_name": self._name},
                connection_class=OwnConnection,
            )  # fmt: skip
        except exceptions.InvalidFrameError as error:
            # The library tells of a close instead of the expected answer, not of its reason: a virtual host that is
            # missing (which lasts) and one that is not up yet after the broker's start (which does not) look alike.
            vhost = self._url.path.removeprefix("/") or "/"
            raise TemporaryError(
                f"RabbitMQ at {self.broker} refuses virtual host {vhost}: it is missing, not this user's, or not up yet"
            ) from error
        except _LOST as error:
            raise self.told(error, "it cannot be reached") from error

    def told(self, error: BaseException, what: str) -> TapewatchError:
        """Return the error that an error of the library amounts to; `what` says what it stopped."""
        words = f"RabbitMQ at {self.broker}: {what}: {' '.join(str(error).split())[:300] or type(error).__name__}"
        if isinstance(error, TapewatchError):
            return error
        if isinstance(error, _REFUSED) and not any(each in words for each in _NOT_NOW):
            return PermanentError(words)
        return TemporaryError(words)

    @asynccontextmanager
    async def errors(self, what: str) -> AsyncIterator[None]:
        """Turn what the library raises within the block into our errors, and bound its waits."""
        try:
            yield
        except TapewatchError:
            raise
        except _LOST as error:
            raise self.told(error, what) from error


class OwnConnection(aio_pika.Connection):
    """A connection that closes itself in its own loop only, if nobody closed it.

    One that never opened is collected whenever Python likes, in any thread. The library begins to close it there, too,
    without a loop that could go on with that, and a warning is all that comes of it.
    """

    def __del__(self) -> None:
        """Close what nobody closed, where that can be done."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if running is getattr(self, "loop", None):
            super().__del__()


async def close(opened: AbstractConnection) -> None:
    """Close a connection, whatever state it is in; what was not acknowledged on it comes again."""
    try:
        async with asyncio.timeout(2.0):
            await opened.close()
    except _LOST:
        pass  # it is lost already, which is all that was wanted


def heed_cancellation() -> None:
    """Raise the cancellation that a time limit of the library swallowed.

    Python 3.11's `wait_for` returns its result when that and the cancellation come at the same moment: whoever was
    told to end would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


# --- queues ---------------------------------------------------------------------------------------------------------


def arguments(topology: Topology, queue: Queue) -> FieldTable:
    """Return what a queue is declared with."""
    if queue.name.endswith(DEAD):
        return {"x-queue-type": "quorum"}
    if queue.drops_oldest:
        return {
            "x-queue-type": "quorum", "x-delivery-limit": queue.redeliveries, "x-max-length": queue.longest,
            "x-overflow": "drop-head",
        }  # fmt: skip
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": queue.redeliveries,
        "x-dead-letter-exchange": topology.dead,
        "x-dead-letter-routing-key": queue.name,
        # The letter leaves its queue only when the other has confirmed it; that needs the second setting.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-max-length": queue.longest,
    }


async def declare(link: RabbitLink, topology: Topology, *, within_s: float = RPC_S) -> None:
    """Make the exchanges, queues and bindings that are missing; those that are there must be as they should.

    The broker writes what was declared to its disk within two seconds (`DECLARED_AFTER_S`); killed before that, it
    forgets it, and with a queue what it confirmed for it. Who starts a new broker waits so long.

    Raises:
        TemporaryError: the broker is away, or not ready within the time.
        PermanentError: one exists otherwise, or the broker refuses for good.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            async with link.connection() as connection, link.errors("the queues cannot be declared"):
                await declare_on(connection, topology)
                return
        except TemporaryError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


async def declare_on(connection: AbstractConnection, topology: Topology) -> None:
    """As `declare`, on a connection that is open; raises the library's errors."""
    channel = await connection.channel()
    letters = await channel.declare_exchange(topology.exchange, "topic", durable=True, timeout=RPC_S)
    dead = await channel.declare_exchange(topology.dead, "direct", durable=True, timeout=RPC_S)
    for queue in topology.queues:
        grave = await declare_queue(channel, topology, topology.queue(queue.dead))
        await grave.bind(dead, queue.name, timeout=RPC_S)
        made = await declare_queue(channel, topology, queue)
        for pattern in queue.patterns:
            await made.bind(letters, pattern, timeout=RPC_S)
    await channel.close()


async def declare_queue(channel: AbstractChannel, topology: Topology, queue: Queue) -> aio_pika.abc.AbstractQueue:
    """Make a queue, or see that it is as it should be."""
    return await channel.declare_queue(
        queue.name, durable=True, arguments=arguments(topology, queue), timeout=RPC_S
    )  # fmt: skip


# --- messages -------------------------------------------------------------------------------------------------------


def delivery_of(letter: AbstractIncomingMessage) -> Delivery:
    """Return what came out of a queue as the port tells of it."""
    headers = letter.headers
    return Delivery(
        routing_key=_text(headers, KEY) or _first_key(headers) or letter.routing_key or "",
        body=letter.body,
        message_id=letter.message_id or "",
        trace=_text(headers, TRACE),
        attempt=_number(headers, COUNT) + 1,
    )


def why_dead(letter: AbstractIncomingMessage) -> str:
    """Return why a dead letter is one: its consumer's reason, else the broker's."""
    if why := _text(letter.headers, WHY):
        return why
    reason = _last_death(letter.headers).get("reason", "")
    return {
        "delivery_limit": "it came too often: whoever took it ended, or refused it, each time",
        "rejected": "it was refused",
        "maxlen": "its queue was full",
        "expired": "it grew too old",
    }.get(str(reason), str(reason))


def dead_since(letter: AbstractIncomingMessage) -> datetime | None:
    """Return when a dead letter was put there: by its consumer's clock, else the broker's; None when neither told."""
    if _text(letter.headers, WHY):
        return letter.timestamp
    at = _last_death(letter.headers).get("time")
    return at if isinstance(at, datetime) else None


def _text(headers: HeadersType, name: str) -> str:
    value = headers.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(headers: HeadersType, name: str) -> int:
    value = headers.get(name, 0)
    return value if isinstance(value, int) else 0


def _last_death(headers: HeadersType) -> Mapping[str, object]:
    deaths = headers.get(_DEATHS)
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return {}


def _first_key(headers: HeadersType) -> str:
    keys = _last_death(headers).get("routing-keys")
    return str(keys[0]) if isinstance(keys, list) and keys else ""
