"""Notices in the process of settlement, wired: they exist where there is a broker of messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from control.config import RoleConfig, place_of
from control.databases import password_of, read_password
from control.layout import Layout
from control.spans_out import traced_share
from exchange.adapters.notice_server import NoticeParts, NoticeServer
from exchange.adapters.notice_store import NoticeStore
from exchange.adapters.rabbit import RabbitConsumer, RabbitPublisher
from exchange.adapters.rabbit_link import RabbitLink
from exchange.adapters.settlement_source import EngineSource, EventSource
from exchange.notices import QUEUE
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from monitor.notice_instruments import NoticeInstruments

if TYPE_CHECKING:
    from exchange.adapters.settlement_server import SettlementServer
    from exchange.ports import DeadReason, Log
    from monitor.adapters.exporter import Exporter

GROUP: Final = "notices"
"""Of consumers of the events in Kafka."""
BATCH: Final = 256
"""Notices that are kept in one transaction at most."""


async def open_notices(
    config: RoleConfig,
    stack: AsyncExitStack,
    server: SettlementServer,
    settled: Mapping[int, int],
    told: tuple[Exporter, Log],
) -> NoticeServer:
    """Return what publishes and keeps the notices of a ledger's process; `settled`: how far that stands now.

    Raises:
        TapewatchError: it cannot be opened, or there is no broker.
    """
    if config.rabbit is None:
        raise PermanentError("notices need a broker of messages: `rabbit`")
    layout, (exporter, log) = Layout(Path(config.state)), told
    place = config.ledger.url if config.ledger is not None else layout.notices
    store = NoticeStore(place, password=password_of(config.ledger))
    stack.callback(store.close)
    store.begin(settled)
    password = read_password(Path(config.rabbit.password_file)) if config.rabbit.password_file else ""
    link = RabbitLink(config.rabbit.url, password=password, name=f"{config.replica} notices")
    publisher = RabbitPublisher(link)
    stack.push_async_callback(publisher.close)
    return NoticeServer(
        NoticeParts(
            store=store,
            source=partial(_source, config, log),
            settled=server.settled,
            publisher=publisher,
            inbox=lambda: RabbitConsumer(link, QUEUE, batch=BATCH),
            telemetry=NoticeInstruments(exporter),
            log=log,
            clock=SystemClock(),
            traced=traced_share(config),
            engines=1 if config.kafka is None else config.kafka.partitions,
        )
    )


def _source(config: RoleConfig, log: Log, only: Callable[[Collection[int]], None]) -> EventSource:
    if config.kafka is None:
        return EngineSource(config.engine_stream_port, host=config.engine_host)
    from exchange.adapters.kafka_consumer import KafkaConsumer
    from exchange.consuming import Missing

    # What cannot be read is told of by the ledger's reader, which stops there; notices go on without it.
    place = place_of(config.kafka)
    return KafkaConsumer(place, GROUP, telemetry=_Divided(only), log=log, missing=Missing.PASSES)


class _Divided:
    """A `ConsumerTelemetry` that passes on which parts are read: the metrics of the topic are the ledger's reader's."""

    def __init__(self, only: Callable[[Collection[int]], None]) -> None:
        self._only: Final = only

    def connected(self, *, connected: bool) -> None:
        """Nobody asks."""

    def assigned(self, partitions: Collection[int]) -> None:
        """Pass it on."""
        self._only(partitions)

    def lag(self, partition: int, *, records: int, committed: int) -> None:
        """Nobody asks."""

    def stopped(self, partition: int, *, stopped: bool) -> None:
        """Nobody asks."""

    def dead_letter(self, reason: DeadReason) -> None:
        """Nobody asks."""
