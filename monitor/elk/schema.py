"""Every field that a log record may hold: its name, its type in Elasticsearch and why it is there. The one model.

Templates, the ingest pipeline, Logstash's configuration and Kibana's objects are made from it; a test holds every call
that logs, and the records of a running estate, to it. ECS's fields bear ECS's types; ours stand under `exchange.` or
`tapewatch.`, where nothing else may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

OWN: Final = ("exchange", "tapewatch")
"""The prefixes that are ours: strict."""
PATTERN: Final = "logs-exchange.*-*"
"""Our data streams: `logs-exchange.<component>-<environment>`."""
PRIORITY: Final = 500
"""Of the index template: above those that Elastic ships for `logs-*-*`."""
IGNORE_ABOVE: Final = 1_024
"""Characters of a keyword that are indexed; what is longer stays in the record."""


class Type(StrEnum):
    """How Elasticsearch keeps a field."""

    KEYWORD = "keyword"
    TEXT = "text"
    LONG = "long"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    DATE = "date"
    IP = "ip"
    STORED = "stored"
    """Kept in the record, neither searchable nor sortable."""
    FLAT = "flattened"
    """An object of unknown keys as one field: whatever stands in it adds nothing to the mapping."""


@dataclass(frozen=True)
class Field:
    """One field."""

    name: str
    type: Type
    why: str

    @property
    def own(self) -> bool:
        """Whether it is ours rather than ECS's."""
        return self.name.startswith(tuple(f"{prefix}." for prefix in OWN))


_K, _T, _L, _D, _B = Type.KEYWORD, Type.TEXT, Type.LONG, Type.DOUBLE, Type.BOOLEAN

ECS: Final = (
    Field("@timestamp", Type.DATE, "When it happened, by the writer's clock."),
    Field("agent.id", _K, "Which shipper instance sent it."),
    Field("agent.name", _K, "The shipper's host."),
    Field("agent.type", _K, "Which shipper: filebeat or tapewatch."),
    Field("agent.version", _K, "The shipper's version."),
    Field("client.ip", Type.IP, "Who asked the gateway."),
    Field("data_stream.dataset", _K, "Second part of the data stream's name."),
    Field("data_stream.namespace", _K, "Third part: the environment."),
    Field("data_stream.type", _K, "First part: logs."),
    Field("ecs.version", _K, "Which ECS the record follows."),
    Field("error.message", _T, "What went wrong; also why the ingest pipeline failed."),
    Field("error.stack_trace", Type.STORED, "Where it went wrong."),
    Field("error.type", _K, "Class of the error."),
    Field("event.action", _K, "The event's name: what log rules ask for."),
    Field("event.created", Type.DATE, "The time a record claimed when its clock is not believed."),
    Field("event.dataset", _K, "Which process's log."),
    Field("event.duration", _L, "Nanoseconds it took."),
    Field("event.id", _K, "The key by which a wish is told from its repetition."),
    Field("event.ingested", Type.DATE, "When the pipeline saw it: lateness is this less @timestamp."),
    Field("event.kind", _K, "pipeline_error where a line could not be read."),
    Field("event.original", Type.STORED, "The line as it came, where it could not be read whole."),
    Field("event.outcome", _K, "success, failure or unknown."),
    Field("event.reason", _K, "Why: the enum that also labels metrics."),
    Field("file.path", _K, "A file the event is about."),
    Field("host.name", _K, "The machine."),
    Field("http.request.id", _K, "The client's request."),
    Field("http.request.method", _K, "HTTP's verb."),
    Field("http.response.status_code", _L, "HTTP's answer."),
    Field("log.file.path", _K, "The file it was read from."),
    Field("log.level", _K, "debug, info, warning, error or critical: normalised."),
    Field("log.logger", _K, "The part of a program that spoke."),
    Field("log.offset", _L, "Where in that file: the shipper's own identity of a record."),
    Field("log.origin.file.line", _L, "Line of the program's source that spoke."),
    Field("log.origin.file.name", _K, "Source file that spoke."),
    Field("message", _T, "The sentence."),
    Field("process.pid", _L, "The process."),
    Field("process.thread.name", _K, "The thread that spoke."),
    Field("server.port", _L, "Port it listens on."),
    Field("service.name", _K, "The role: engine, gateway, control, ..."),
    Field("service.node.name", _K, "The replica."),
    Field("service.version", _K, "Our version."),
    Field("span.id", _K, "The span the event fell into."),
    Field("tags", _K, "What the pipeline found: unmapped_field, cut, clock_skew, plain."),
    Field("trace.id", _K, "The order's trace: leads to the trace store."),
    Field("url.full", _K, "The address asked."),
    Field("url.path", _K, "The path asked."),
    Field("user.id", _K, "The account."),
    Field("user.name", _K, "The person who asked."),
)

_WORDS: Final[Mapping[str, tuple[Type, str]]] = MappingProxyType({
    "alert": (_K, "The alert a page or a rule is about."),
    "answer": (_K, "What a person said of a detector's page: false, true, or unknown."),
    "by": (_K, "Who did it where no person is meant: the calendar."),
    "bytes": (_L, "Size of what was cut or sent."),
    "channel": (_K, "The channel a page goes by."),
    "channels": (_K, "The channels that are configured."),
    "clean": (_B, "Whether the stop before was orderly."),
    "client_id": (_K, "The client's own id of an order."),
    "code": (_L, "Exit code of a process."),
    "count": (_L, "How many."),
    "covered": (_L, "Up to which sequence number every snapshot covers the journal."),
    "cut_bytes": (_L, "Size of a record before its fields were left out."),
    "dead_topic": (_K, "The topic to which a message was put aside."),
    "delay_s": (_D, "After how many seconds it is tried again."),
    "delivery": (_K, "Id of one delivery of a page."),
    "dropped": (_L, "Records lost since the start because the queue was full."),
    "expected": (_K, "What the watchdog expected to see."),
    "failed": (_L, "Records lost since the start because the file could not be written."),
    "file": (_K, "The file that was offered."),
    "first_seq": (_L, "The first sequence number that a journal still has."),
    "from_offset": (_L, "Where in a partition reading begins."),
    "got": (_K, "What the watchdog saw."),
    "group": (_K, "The group of consumers."),
    "incident": (_K, "The incident."),
    "index": (_K, "The index or data stream concerned."),
    "instruments": (_L, "How many instruments a listing has."),
    "key": (_K, "The key by which an action is told from its repetition."),
    "kids": (_K, "Ids of the keys for tokens that are known now."),
    "last_event": (_L, "The last sequence number in a topic."),
    "message": (_T, "The sentence of an error or an incident."),
    "name": (_K, "What the event is about, by name."),
    "next_seq": (_L, "The sequence number that is due."),
    "not_after": (_L, "When a certificate ends, in nanoseconds since 1970."),
    "offset": (_L, "Where in a file, in bytes."),
    "open": (_L, "Settlements by sagas that are under way."),
    "outcome": (_K, "How a run or a request ended."),
    "page": (_K, "A detector's page."),
    "parent": (_K, "The delivery that a page was escalated from."),
    "part": (_K, "Which part of settlement by sagas a process is."),
    "partition": (_L, "The partition of a topic."),
    "partitions": (_K, "The partitions of a topic that a consumer has."),
    "pid": (_L, "A process of the estate, as its supervisor saw it."),
    "reached": (_L, "Up to which sequence number an effect is kept."),
    "records": (_L, "How many records of a journal the event is about."),
    "replayed": (_L, "Commands replayed at the start."),
    "replica": (_K, "The replica that the supervisor speaks of."),
    "rule": (_K, "The rule concerned."),
    "run": (_K, "The runbook's run."),
    "seconds": (_D, "How long it took."),
    "segments": (_L, "How many segments of a journal the event is about."),
    "seq": (_L, "Sequence number in the journal."),
    "serial": (_K, "A certificate's serial number."),
    "series": (_K, "The watched series, and which one of its kind."),
    "server": (_K, "The service's replica that a host speaks of."),
    "session": (_K, "The session of order entry that orders belong to."),
    "step": (_K, "The step at which a saga stands."),
    "style": (_K, "How sagas are led: orchestrated or choreographed."),
    "symbol": (_K, "The instrument."),
    "topic": (_K, "The topic in Kafka."),
    "to_channel": (_K, "The channel a page was escalated to."),
    "trade_id": (_L, "The trade concerned."),
    "trades": (_L, "How many trades the event is about."),
    "tries": (_L, "How often it was tried."),
    "trouble": (_K, "What the watchdog found wrong."),
    "what": (_K, "Which work of a process the event is about."),
    "why": (_K, "The reason in words."),
    "workload": (_K, "The workload that the supervisor speaks of."),
})  # fmt: skip
"""Our words; each may stand under either prefix and means the same there."""

FIELDS: Final = (
    *ECS,
    *(Field(f"{prefix}.{name}", kind, why) for prefix in OWN for name, (kind, why) in _WORDS.items()),
    Field(
        "tapewatch.unmapped", Type.FLAT, "What came under our prefixes and is in no model: kept, findable, harmless."
    ),
)
BY_NAME: Final[Mapping[str, Field]] = MappingProxyType({field.name: field for field in FIELDS})


def leaf(kind: Type) -> dict[str, Any]:
    """Return the mapping of one field of a type.

    Only types that every distribution has: `match_only_text` and `constant_keyword` are modules of their own.
    """
    match kind:
        case Type.STORED:
            return {"type": "keyword", "index": False, "doc_values": False}
        case Type.TEXT:
            return {"type": "text", "norms": False, "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
        case Type.KEYWORD | Type.FLAT:
            return {"type": kind.value, "ignore_above": IGNORE_ABOVE}
        case Type.DATE:
            return {"type": "date_nanos"}
        case _:
            return {"type": kind.value}


def properties(fields: Iterable[Field]) -> dict[str, Any]:
    """Return the `properties` of a mapping that holds these fields, each object in its place."""
    tree: dict[str, Any] = {}
    for field in fields:
        *above, last = field.name.split(".")
        here = tree
        for part in above:
            here = here.setdefault(part, {}).setdefault("properties", {})
        here[last] = here.get(last, {}) | leaf(field.type)
    return tree


def unknown(record: Mapping[str, object]) -> list[str]:
    """Return the fields of a record (dotted or nested) that the model does not hold, sorted."""
    return sorted(name for name in flat(record) if name not in BY_NAME and not name.startswith("tapewatch.unmapped"))


def flat(record: Mapping[str, object], above: str = "") -> dict[str, object]:
    """Return a record's leaves by their dotted names; an empty object is a leaf."""
    leaves: dict[str, object] = {}
    for key, value in record.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{name}.")
        else:
            leaves[name] = value
    return leaves
