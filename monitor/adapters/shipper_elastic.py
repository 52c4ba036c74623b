"""The sink of the shipper that is Elasticsearch: bulk with `create` into our data streams, by the official client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final, cast

import elastic_transport
import elasticsearch
import msgspec
from elasticsearch import Elasticsearch

from kernel.errors import PermanentError, TemporaryError
from monitor.adapters.elastic_client import reason_of, telling, told
from monitor.elk.pipelines import PIPELINES
from monitor.elk.templates import TEMPLATE
from monitor.shipping import Answer, Piece

_TOO_LARGE: Final = 413
_REPLICA: Final = re.compile(r"(?:-\d+)?\.jsonl$")
_UNSOUND: Final = re.compile(r"[^a-z0-9_.]+")
_ANSWERED: Final = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
_OK: Final = Answer(201)


class _Ours(msgspec.Struct):
    """What tells a record of ours from another object; decoding it also proves that the line is JSON."""

    at: str = msgspec.field(name="@timestamp")
    action: str = msgspec.field(name="event.action")


_READER: Final = msgspec.json.Decoder(_Ours)


def component(path: str) -> str:
    """Return which component's log a file is: `market_data` for `market-data-1.jsonl`.

    A hyphen would end the second part of a data stream's name.
    """
    return _UNSOUND.sub("_", _REPLICA.sub("", PurePath(path).name).lower()).strip("._") or "unknown"


def stream(path: str, namespace: str) -> str:
    """Return the data stream of a file's lines."""
    return f"logs-exchange.{component(path)}-{namespace}"


def document(piece: Piece) -> bytes:
    """Return a line as a document: a record of ours byte for byte with its place, anything else as text.

    The pipeline reads text; what is not UTF-8 is shown by escapes, so that no byte is lost.
    """
    line = piece.data
    place = b'{"log.file.path":%b,"log.offset":%d' % (msgspec.json.encode(piece.path), piece.offset)
    if line[:1] == b"{":
        try:
            _READER.decode(line)
            line.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return place + b"," + line[1:]
    text = line.decode(errors="backslashreplace")
    return place + b',"message":' + msgspec.json.encode(text) + b"}"


class ElasticSink:
    """`monitor.shipping.Sink` over Elasticsearch."""

    def __init__(self, client: Elasticsearch, namespace: str) -> None:
        """Send through a client of `elastic_client.connect` to the data streams `logs-exchange.*-<namespace>`."""
        self._client, self._namespace = client, namespace

    def check(self) -> None:
        """See `Sink`: without the pipelines every line would be refused, without the template none would be mapped."""
        with telling("looking whether Elasticsearch is set up"):
            try:
                there = set(self._client.ingest.get_pipeline(summary=True).body)
            except elasticsearch.NotFoundError:  # there is not one
                there = set()
            template = bool(self._client.indices.exists_index_template(name=TEMPLATE))
        missing = [f"the ingest pipeline {name}" for name in PIPELINES if name not in there]
        missing += [] if template else [f"the index template {TEMPLATE}"]
        if missing:
            raise PermanentError(
                f"Elasticsearch has not {' and not '.join(missing)}: `tapewatch elk setup` puts them there; "
                "nothing is sent before"
            )

    def send(self, pieces: Sequence[Piece]) -> Sequence[Answer]:
        """See `Sink`."""
        try:
            return self._send(pieces)
        except elasticsearch.ApiError as error:
            if error.meta.status != _TOO_LARGE:
                raise told(error, "sending logs") from error
            if len(pieces) == 1:
                return [Answer(_TOO_LARGE, "too_large", reason_of(error.body))]
            middle = len(pieces) // 2
            return [*self.send(pieces[:middle]), *self.send(pieces[middle:])]
        except elastic_transport.TransportError as error:
            raise told(error, "sending logs") from error

    def _send(self, pieces: Sequence[Piece]) -> Sequence[Answer]:
        body: list[bytes] = []
        streams: dict[str, bytes] = {}
        for piece in pieces:
            begin = streams.get(piece.path)
            if begin is None:
                begin = b'{"create":{"_index":"%b","_id":"' % stream(piece.path, self._namespace).encode()
                streams[piece.path] = begin
            body += (begin + piece.id.encode() + b'"}}', document(piece))
        # The client passes bytes on as they are; its annotation knows only of dicts.
        said = self._client.bulk(operations=cast(Any, body), filter_path=_ANSWERED).body
        if not isinstance(said, dict):
            raise TemporaryError("sending logs: what answers there does not speak as Elasticsearch does")
        if not said.get("errors"):
            return [_OK] * len(pieces)
        items: Sequence[dict[str, Any]] = said["items"]
        assert len(items) == len(pieces), "a bulk is answered item by item"
        return [_answer(item["create"]) for item in items]


def _answer(item: dict[str, Any]) -> Answer:
    error = item.get("error")
    if error is None:
        return Answer(item["status"])
    return Answer(item["status"], str(error.get("type", "")), reason_of({"error": error}))
