"""A consumer that joins a group, stays for a moment, leaves, and joins again, as one that crashes does.

It commits nothing and processes nothing. While it has a partition nobody reads that one; whoever gets it next begins
where the group is.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException

STAY_S: Final = 1.0
_POLL_S: Final = 0.1


class Churn:
    """One such consumer, on a thread of its own."""

    def __init__(self, bootstrap: str) -> None:
        """Nobody joins yet; `bootstrap` is where the brokers are."""
        self._bootstrap = bootstrap
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, group: str, topic: str, stay_s: float = STAY_S) -> None:
        """Join `group` on `topic` for `stay_s` seconds after each assignment, again and again, until `end`."""
        self.end()
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._turn, args=(group, topic, stay_s), name=f"churn in {group}", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Leave the group for good."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _turn(self, group: str, topic: str, stay_s: float) -> None:
        while not self._stop.is_set():
            consumer = Consumer({
                "bootstrap.servers": self._bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 0,
                "auto.offset.reset": "earliest", "client.id": "churn", "fetch.message.max.bytes": 1024,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6_000, "heartbeat.interval.ms": 300,
            })  # fmt: skip
            assigned = threading.Event()
            try:
                consumer.subscribe([topic], on_assign=lambda *_, assigned=assigned: assigned.set())
                until = float("inf")
                # Only who polls takes part: a member that does not holds up the others until its session is over.
                while not self._stop.is_set() and time.monotonic() < until:
                    consumer.poll(_POLL_S)
                    if assigned.is_set() and until == float("inf"):
                        until = time.monotonic() + stay_s
                # The library's close alone does not leave: the others would wait until the session is over.
                consumer.unsubscribe()
                consumer.poll(_POLL_S)
            except KafkaException:
                self._stop.wait(stay_s)  # without brokers there is nothing to disturb
            finally:
                consumer.close()
