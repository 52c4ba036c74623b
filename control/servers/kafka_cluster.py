"""One or three Kafka brokers on loopback: started as children, killed one by one, and gone without a trace.

Each is broker and controller in one, so that three make a cluster that survives the loss of any one.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from control.addresses import HOST
from control.plan import free_ports
from control.servers.java import java
from control.servers.local_server import STEP_S, Housed, finish, last_words_of, spawn
from kernel.errors import PermanentError, TemporaryError

READY_WITHIN_S: Final = 90.0
HEAP: Final = "192m"
CLUSTER_ID: Final = "zeaLaLg7RgCR0GIvBPbL4w"
"""Who a cluster of ours says it is, unless it is told another; sixteen bytes as Kafka writes them."""
REPLICATED: Final = 3
"""From so many brokers on each partition has three copies, of which two must have a record before it counts."""
_GRACE_S: Final = 20.0
_JAVA_FLAGS: Final = (
    "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)  # fmt: skip


class Cluster(Housed):
    """Brokers numbered from 1. A context manager; its processes end with the thread that started them."""

    house = "kafka"

    def __init__(
        self,
        home: Path,
        directory: Path | None = None,
        *,
        brokers: int = 1,
        ports: Sequence[int] = (),
        heap: str = HEAP,
        cluster_id: str = CLUSTER_ID,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take ports; nothing is written before `start`.

        Args:
            home: the server's directory, of `control.servers.kafka`.
            directory: where data and logs lie, each broker's below it; None for one that is removed at the end.
            brokers: how many.
            ports: of the brokers, then of their controllers; empty: free ones.
            heap: of each Java machine.
            cluster_id: what the cluster calls itself; a directory keeps the one that it began with.
            settings: further settings of each broker by name; they come before ours.
        """
        assert brokers in {1, REPLICATED}, "two brokers have no majority to lose one of"
        super().__init__(directory)
        self.home = home
        self.cluster_id = cluster_id
        self.ids = tuple(range(1, brokers + 1))
        taken = list(ports) or free_ports(2 * brokers)
        assert len(taken) == 2 * brokers, f"{brokers} brokers need {2 * brokers} ports"
        self.ports = dict(zip(self.ids, taken[:brokers], strict=True))
        self._controllers = dict(zip(self.ids, taken[brokers:], strict=True))
        self._heap, self._settings = heap, dict(settings or {})
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        """The addresses for a client's setting `bootstrap.servers`."""
        return ",".join(f"{HOST}:{port}" for port in self.ports.values())

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the brokers that live."""
        return {one: process.pid for one, process in self._processes.items() if process.poll() is None}

    def memory_bytes(self) -> int:
        """Return the resident memory of all brokers that live."""
        total = 0
        for pid in self.pids.values():
            with contextlib.suppress(psutil.Error):
                total += int(psutil.Process(pid).memory_info().rss)
        return total

    # --- its life ---------------------------------------------------------------------------------------------------

    def start(self, within_s: float = READY_WITHIN_S) -> Self:
        """Start all brokers that do not run, on the data they had; returns when all are registered.

        Raises:
            PermanentError: Java is missing, or a broker ended; carries its last words.
            TemporaryError: they were not ready in time.
        """
        began = time.monotonic()
        program = java("Kafka")
        self._move_in()
        try:
            self._format(program, self.ids)
            for one in self.ids:
                if one not in self.pids:
                    self._spawn(one, program)
            self.wait(within_s)
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - began
        return self

    def start_one(self, broker: int, *, wait: bool = True, within_s: float = READY_WITHIN_S) -> None:
        """Start one broker on its data, of which it may have none yet; returns when it is registered if it is to wait.

        Its peers may be of this process or of others: nothing but its own directory is touched.

        Raises:
            PermanentError: it ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert broker not in self.pids, f"broker {broker} runs already"
        program = java("Kafka")
        self._format(program, (broker,))
        self._spawn(broker, program)
        if wait:
            self.wait(within_s)

    def wait(self, within_s: float = READY_WITHIN_S) -> None:
        """Return when every broker that was started is registered and the controllers have a leader.

        A broker's port opens before that.

        Raises:
            PermanentError: one ended; carries its last words.
            TemporaryError: they were not ready in time.
        """
        until = time.monotonic() + within_s
        wanted = set(self._processes)
        missing = set(wanted)
        while time.monotonic() < until:
            self._refuse_ended(wanted)
            missing = {one for one in missing if not self._counts(one, wanted)}
            if not missing:
                return
            time.sleep(STEP_S)
        words = "; ".join(f"broker {one}: {self.last_words(one)}" for one in sorted(missing))
        raise TemporaryError(f"Kafka was not ready in {within_s:.0f} s: {words}")

    def stop(self) -> None:
        """End all brokers in order; their data stay. Three take several seconds, the last have no quorum."""
        self._end(signal.SIGTERM, self.ids)

    def kill(self, *brokers: int) -> None:
        """End brokers as a power cut would, all when none is named; their data stay."""
        self._end(signal.SIGKILL, brokers or self.ids)

    def code(self, broker: int) -> int | None:
        """Return with what exit code a broker ended by itself, less than 0 for a signal; None while it runs."""
        return self._processes[broker].poll()

    def last_words(self, broker: int) -> str:
        """Return what a broker wrote last, for error messages."""
        return last_words_of([self.directory / f"broker-{broker}.log"], ("ERROR", "xception"))

    # --- within -----------------------------------------------------------------------------------------------------

    def _end(self, number: signal.Signals, brokers: Collection[int]) -> None:
        ending = [process for one in brokers if (process := self._processes.pop(one, None)) is not None]
        for process in ending:
            process.send_signal(number)
        until = time.monotonic() + _GRACE_S
        for process in ending:
            finish(process, max(0.1, until - time.monotonic()))

    def _counts(self, broker: int, wanted: Collection[int]) -> bool:
        """Ask a broker itself: others name one that was killed for three seconds more."""
        # The client tells on standard error of every connection that fails.
        admin = AdminClient({"bootstrap.servers": f"{HOST}:{self.ports[broker]}", "log_level": 0})
        with contextlib.suppress(KafkaException):
            said = admin.list_topics(timeout=1.0)
            return set(said.brokers) >= set(wanted) and said.controller_id >= 0
        return False

    def _refuse_ended(self, wanted: Collection[int]) -> None:
        for one in wanted:
            code = self._processes[one].poll()
            if code is not None:
                raise PermanentError(f"broker {one} ended with exit code {code}: {self.last_words(one)}")

    def _argv(self, program: str, *main: str) -> list[str]:
        return [program, *_JAVA_FLAGS, f"-Xmx{self._heap}", "-cp", f"{self.home / 'libs'}/*", *main]

    def _format(self, program: str, brokers: Collection[int]) -> None:
        """Write brokers' settings, and prepare the directory of each that has none: two seconds, all at once."""
        preparing: dict[int, subprocess.Popen[bytes]] = {}
        for one in brokers:
            data = self.directory / f"broker-{one}"
            data.mkdir(parents=True, exist_ok=True)
            lines = [f"{name}={value}" for name, value in self._properties(one).items()]
            properties = self.directory / f"broker-{one}.properties"
            properties.write_text("\n".join(lines) + "\n")
            if (data / "meta.properties").exists():
                continue
            main = ("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(properties))
            preparing[one] = self._popen(one, self._argv(program, *main))
        for one, process in preparing.items():
            if process.wait():
                raise PermanentError(f"broker {one}'s directory cannot be prepared: {self.last_words(one)}")

    def _spawn(self, broker: int, program: str) -> None:
        properties = self.directory / f"broker-{broker}.properties"
        self._processes[broker] = self._popen(broker, self._argv(program, "kafka.Kafka", str(properties)))

    def _popen(self, broker: int, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"broker-{broker}.log").open("ab") as output:
            return spawn("Kafka", argv, output, self.directory)

    def _properties(self, broker: int) -> dict[str, object]:
        copies, needed = (3, 2) if len(self.ids) >= REPLICATED else (1, 1)
        voters = ",".join(f"{one}@{HOST}:{port}" for one, port in self._controllers.items())
        broker_at, controller_at = f"{HOST}:{self.ports[broker]}", f"{HOST}:{self._controllers[broker]}"
        return {
            "process.roles": "broker,controller", "node.id": broker, "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{broker_at},CONTROLLER://{controller_at}",
            "advertised.listeners": f"PLAINTEXT://{broker_at}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT", "controller.listener.names": "CONTROLLER",
            "log.dirs": self.directory / f"broker-{broker}",
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies, "min.insync.replicas": needed,
            "offsets.topic.replication.factor": copies, "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": copies, "transaction.state.log.min.isr": needed,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": needed, "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            # Kafka's default of 128 MiB is taken from the heap at the start: a small one would end without a word.
            "log.cleaner.dedupe.buffer.size": 2_097_152,
            # A dead broker is noticed in three seconds instead of nine.
            "broker.session.timeout.ms": 3_000, "broker.heartbeat.interval.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1_000, "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.election.backoff.max.ms": 500,
        } | self._settings  # fmt: skip
