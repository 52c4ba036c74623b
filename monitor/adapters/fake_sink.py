"""A sink in memory that answers as Elasticsearch does, with what it shall suffer from set by the test."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kernel.errors import PermanentError, TemporaryError
from monitor.shipping import Answer, Piece

CONFLICT = "mapper_parsing_exception"


class FakeSink:
    """`monitor.shipping.Sink` over a dict of documents by id."""

    def __init__(self) -> None:
        self.documents: dict[str, Piece] = {}
        self.ready = True
        """Whether templates and pipelines are there."""
        self.down = False
        self.lose_answers = 0
        """So many requests are carried out, and their answers lost."""
        self.script: list[Answer] = []
        """Answers given first, one a piece; one with status 0 stands for whatever would be answered without."""
        self.conflict = b""
        """A line that holds these bytes does not fit the mapping."""
        self.read_only = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """See `Sink`."""
        if self.down:
            raise TemporaryError("the sink cannot be reached")
        if not self.ready:
            raise PermanentError("the sink has not the ingest pipeline logs-exchange: `tapewatch elk setup` puts it")

    def send(self, pieces: Sequence[Piece]) -> Sequence[Answer]:
        """See `Sink`."""
        with self._lock:
            if self.down:
                raise TemporaryError("the sink cannot be reached")
            answers = [self._put(piece) for piece in pieces]
            if self.lose_answers:
                self.lose_answers -= 1
                raise TemporaryError("the sink did not answer in time")
            return answers

    def _put(self, piece: Piece) -> Answer:
        scripted = self.script.pop(0) if self.script else Answer(0)
        # A document that is there was parsed before: it would be parsed again.
        if scripted.status and not (scripted.status == 400 and piece.id in self.documents):  # noqa: PLR2004 - HTTP's own
            return scripted
        if self.read_only:
            return Answer(403, "cluster_block_exception", "index blocked by: [FORBIDDEN/12/read-only]")
        if piece.id in self.documents:
            return Answer(409, "version_conflict_engine_exception", "document already exists")
        if self.conflict and self.conflict in piece.data:
            return Answer(400, CONFLICT, "failed to parse")
        self.documents[piece.id] = piece
        return Answer(201)
