"""What settlement by sagas tells, as metrics."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Final

from exchange.ports import DeadReason
from exchange.saga import End, Service, Verdict
from exchange.saga_coordinator import StuckReason
from monitor.instruments import Level, Meter

PARTIES: Final = (*(service.value for service in Service), "unknown")
"""Whom a stuck saga waits for; nobody knows where no coordinator leads."""
REASONS: Final = (*(reason.value for reason in StuckReason), "no_end")


class SagaInstruments:
    """`exchange.ports.SagaTelemetry` over a meter."""

    def __init__(self, meter: Meter) -> None:
        self._begun = meter.count("exchange_saga_begun_total")
        self._ended = {end: meter.count("exchange_saga_ended_total", end.value) for end in End}
        self._open = meter.level("exchange_saga_open")
        self._oldest = meter.level("exchange_saga_oldest_seconds")
        self._stuck = {key: meter.level("exchange_saga_stuck", *key) for key in itertools.product(PARTIES, REASONS)}
        self._sequence = meter.level("exchange_saga_sequence")
        self._connected = meter.level("exchange_saga_source_connected")
        self._step = meter.spread("exchange_saga_step_seconds")
        self._end = meter.spread("exchange_saga_end_seconds")
        self._order = meter.spread("exchange_order_to_settled_seconds")
        self._steps = {verdict: meter.count("exchange_saga_steps_total", verdict.value) for verdict in Verdict}
        self._repeats = meter.count("exchange_saga_repeats_total")
        self._commit = meter.spread("exchange_saga_commit_seconds")
        self._drift = meter.level("exchange_saga_amounts_drift")
        self._forgotten = meter.count("exchange_saga_forgotten_total")

    def carried_out(self, verdicts: Mapping[Verdict, int], *, repeats: int, seconds: float) -> None:
        """See `SagaTelemetry`."""
        for verdict, count in verdicts.items():
            self._steps[verdict].add(count)
        self._repeats.add(repeats)
        self._commit.observe(seconds)

    def begun(self, count: int) -> None:
        """See `SagaTelemetry`."""
        self._begun.add(count)

    def stepped(self, seconds: float) -> None:
        """See `SagaTelemetry`."""
        self._step.observe(seconds)

    def ended(self, end: End, *, seconds: float, since_trade: float) -> None:
        """See `SagaTelemetry`."""
        self._ended[end].add(1)
        self._end.observe(seconds)
        if end is End.SETTLED:
            self._order.observe(since_trade)

    def standing(self, open_: int, *, oldest: float, stuck: Mapping[tuple[str, str], int]) -> None:
        """See `SagaTelemetry`."""
        self._open.set(open_)
        self._oldest.set(oldest)
        for key, level in self._stuck.items():
            level.set(stuck.get(key, 0))

    def forgot(self, count: int) -> None:
        """See `SagaTelemetry`."""
        self._forgotten.add(count)

    def drift(self, value: int) -> None:
        """See `SagaTelemetry`."""
        self._drift.set(value)

    def read(self, seq: int) -> None:
        """See `SagaTelemetry`."""
        self._sequence.set(seq)

    def connected(self, *, source: bool) -> None:
        """See `SagaTelemetry`."""
        self._connected.set(source)


class SagaSourceInstruments:
    """`exchange.ports.ConsumerTelemetry` over a meter, for who begins sagas: the rest of it settlement tells."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._mine: frozenset[int] = frozenset()

    def connected(self, *, connected: bool) -> None:
        """Told as the source of trades that stands, or broke."""

    def assigned(self, partitions: Collection[int]) -> None:
        """See `ConsumerTelemetry`."""
        for partition in self._mine - frozenset(partitions):
            for name in ("lag_records", "stopped"):
                self._of(name, partition).unset()
        for partition in frozenset(partitions) - self._mine:
            self.stopped(partition, stopped=False)
        self._mine = frozenset(partitions)

    def lag(self, partition: int, *, records: int, committed: int) -> None:
        """See `ConsumerTelemetry`."""
        del committed
        self._of("lag_records", partition).set(records)

    def stopped(self, partition: int, *, stopped: bool) -> None:
        """See `ConsumerTelemetry`."""
        self._of("stopped", partition).set(stopped)

    def dead_letter(self, reason: DeadReason) -> None:
        """Settlement reads the same messages and counts them."""

    def _of(self, name: str, partition: int) -> Level:
        return self._meter.level(f"exchange_saga_source_{name}", str(partition))
