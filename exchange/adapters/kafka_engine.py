"""An engine's journal in Kafka: its partition, with the directory beside it held and noted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from exchange.adapters.file_log import hold
from exchange.adapters.journal_place import note
from exchange.adapters.kafka_listing import publish
from exchange.adapters.kafka_log import KafkaLog
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare
from kernel.errors import PermanentError


class EngineLog(KafkaLog):
    """The journal of the engine whose snapshots and event log lie beside `directory`.

    The directory is taken first: an engine that is started twice by mistake on one machine waits, as with files, and
    does not fence the one that runs.
    """

    def __init__(self, place: KafkaPlace, directory: Path, *, traced: float = 0.0, listing: bytes = b"") -> None:
        """Open it; `traced` as of `KafkaLog`, `listing` is the file of what is traded, for who copies the journal.

        Raises:
            LogHeldError: another process of this machine has the directory.
            TemporaryError: the brokers do not answer.
            PermanentError: they are not the right ones, a topic is not safe, or the directory is another journal's.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held = hold(directory)
        except OSError as error:
            raise PermanentError(f"cannot open the journal's directory: {error}") from error
        self._held: Final = [held]
        try:
            place = msgspec.structs.replace(place, cluster_id=prepare(place))
            note(directory, place)
            if listing:  # before the first command that is carried out by it
                publish(place, listing)
            super().__init__(place, traced=traced)
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Give the partition and the directory back. Does not sync."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.pop())
