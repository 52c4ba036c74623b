"""The log store of an estate with Elasticsearch, through its official client of version 8.

Queries are built from the same value as for the local store, never handed over as query strings. Groups are read by
composite aggregations to their end, since the terms and cardinality aggregations are approximations. Running text is
compared from the source by a runtime field, because an analysed field knows words and not parts of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from elasticsearch import Elasticsearch

from kernel.errors import PermanentError, TemporaryError
from kernel.time import MILLISECOND, SECOND, Duration, Instant, to_rfc3339
from monitor.adapters.elastic_client import telling
from monitor.log_fields import FIELDS, MAX_TEXT, TIME, FieldKind, Record, canonical, flatten, ip_shown, time_ms
from monitor.log_query import All, Between, Everything, Exists, Joker, Like, Not, OneOf, Query, Some
from monitor.log_store import MAX_RECORDS, MAX_ROWS, Row, Span, key_kind, measure_kind, rounded, shown_key

T = TypeVar("T")
_PAGE: Final = 2_000
_SCRIPT: Final = """
def found = [];
def flat = params._source[params.name];
if (flat != null) { found.add(flat); }
def at = params._source;
for (part in params.parts) { at = at instanceof Map ? at[part] : null; }
if (at != null && params.parts.length > 1) { found.add(at); }
while (found.length > 0) {
  def one = found.remove(0);
  if (one instanceof List) { found.addAll(one); }
  else if (one instanceof String) { emit(one.length() > params.most ? one.substring(0, params.most) : one); }
}
"""


class ElasticLogStore:
    """`monitor.log_store.LogStore` over an index, a data stream or a pattern of them."""

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        *,
        fields: Mapping[str, FieldKind] = FIELDS,
    ) -> None:
        """Ask `index` (such as `logs-exchange.*`) through `client`, which carries the time limit of a call."""
        self._client = client
        self._index = index
        self._fields = fields

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def search(
        self, query: Query, span: Span, *, fields: Sequence[str] = (), limit: int = 100, newest: bool = False
    ) -> Sequence[Record]:
        """See `LogStore`."""
        limit = min(limit, MAX_RECORDS)
        found = self._hits(query, span, limit, newest=newest)
        if len(found) == limit:
            # Elasticsearch has no order among equal times; the last millisecond is asked for as a whole.
            last = found[-1][0]
            found = [one for one in found if one[0] != last]
            edge = Instant(last * MILLISECOND)
            found += self._hits(query, Span(edge, Instant(edge + MILLISECOND)), MAX_RECORDS, newest=newest)
        found.sort(key=lambda one: (one[0], canonical(one[1])), reverse=newest)
        records = [record for _, record in found[:limit]]
        return [{name: one[name] for name in fields if name in one} for one in records] if fields else records

    def _hits(self, query: Query, span: Span, limit: int, *, newest: bool) -> list[tuple[int, Record]]:
        if limit == 0:
            return []
        sort = [{TIME: {"order": "desc" if newest else "asc", "unmapped_type": "date"}}]
        answer = self._ask(query, span, size=limit, sort=sort, source=True)
        records = [flatten(hit["_source"]) for hit in answer["hits"]["hits"]]
        return [(moment, record) for record in records if (moment := time_ms(record)) is not None]

    def count(self, query: Query, span: Span) -> int:
        """See `LogStore`."""
        return int(self._ask(query, span, size=0, track_total_hits=True)["hits"]["total"]["value"])

    def terms(self, query: Query, span: Span, field: str, *, limit: int = 10) -> Sequence[tuple[str, int]]:
        """See `LogStore`."""
        rows = self._by_key(query, span, field)
        return sorted(rows, key=lambda row: (-row[1], row[0]))[:limit]

    def cardinality(self, query: Query, span: Span, field: str) -> int:
        """See `LogStore`."""
        return len(self._by_key(query, span, field))

    def _by_key(self, query: Query, span: Span, field: str) -> list[tuple[str, int]]:
        width = max(1, (span.end - span.start) // MILLISECOND)
        return [(row.keys[0], row.count) for row in self.tally(query, span, width, keys=[field])]

    def tally(
        self, query: Query, span: Span, step_ms: int, *, keys: Sequence[str] = (), measure: str = ""
    ) -> Sequence[Row]:
        """See `LogStore`."""
        kinds = [key_kind(key, self._fields) for key in keys]
        if measure:
            measure_kind(measure, self._fields)
        start = span.start // MILLISECOND
        grid = {"field": TIME, "fixed_interval": f"{step_ms}ms", "offset": f"{start % step_ms}ms"}
        sources: list[dict[str, Any]] = [{"bucket": {"date_histogram": grid}}]
        sources += [{f"k{place}": {"terms": {"field": key}}} for place, key in enumerate(keys)]
        composite: dict[str, Any] = {"size": _PAGE, "sources": sources}
        group: dict[str, Any] = {"composite": composite}
        if measure:
            group["aggs"] = {"measured": {"stats": {"field": measure}}}
        rows: list[Row] = []
        while True:
            answer = self._ask(query, span, size=0, aggs={"group": group})
            found = answer.get("aggregations", {}).get("group", {"buckets": []})  # no index at all: no aggregation
            rows += [_row(bucket, kinds) for bucket in found["buckets"]]
            if len(rows) > MAX_ROWS:
                raise PermanentError(f"log store: more than {MAX_ROWS:,} combinations of keys; group by fewer")
            if "after_key" not in found or len(found["buckets"]) < _PAGE:
                return sorted(rows, key=lambda row: (row.start, row.keys))
            composite["after"] = found["after_key"]

    def _ask(self, query: Query, span: Span, *, size: int, source: bool = False, **more: Any) -> Mapping[str, Any]:
        span_ = {"range": {TIME: {"gte": to_rfc3339(span.start), "lt": to_rfc3339(span.end)}}}
        texts: dict[str, Any] = {}
        filters = [span_, _condition(query, texts)]
        with telling("searching the logs"):
            answer = self._client.search(
                index=self._index,
                query={"bool": {"filter": filters}},
                runtime_mappings=texts or None,
                size=size,
                source=source,
                ignore_unavailable=True,
                allow_partial_search_results=False,
                **more,
            ).body
        if answer.get("timed_out"):
            raise TemporaryError("Elasticsearch ran out of time for a search", retry_after=_RETRY)
        shards: Mapping[str, Any] = answer.get("_shards", {})
        if shards.get("failed"):
            raise TemporaryError("Elasticsearch could not ask all shards", retry_after=_RETRY)
        return dict(answer)


_RETRY: Final = Duration(5 * SECOND)


def _row(bucket: Mapping[str, Any], kinds: Sequence[FieldKind]) -> Row:
    key = bucket["key"]
    keys = tuple(shown_key(key[f"k{place}"], kind) for place, kind in enumerate(kinds))
    start = Instant(int(key["bucket"]) * MILLISECOND)
    measured = bucket.get("measured")
    if not measured or not measured["count"]:
        return Row(start, keys, bucket["doc_count"])
    total, low, high = rounded(measured["sum"]), float(measured["min"]), float(measured["max"])
    return Row(start, keys, bucket["doc_count"], measured["count"], total, low, high)


def _condition(query: Query, texts: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - one return a form
    match query:
        case Everything():
            return {"match_all": {}}
        case Exists(field, kind):
            return {"exists": {"field": _name(field, kind, texts)}}
        case OneOf(field, kind, values):
            return {"terms": {_name(field, kind, texts): [_given(kind, value) for value in values]}}
        case Like(field, kind, parts, fold):
            body: dict[str, Any] = {"value": _pattern(parts)}
            if fold:
                body["case_insensitive"] = True
            return {"wildcard": {_name(field, kind, texts): body}}
        case Between(field, kind, low, high, with_low, with_high):
            bounds = {
                name: _given(kind, bound)
                for name, bound in (("gte" if with_low else "gt", low), ("lte" if with_high else "lt", high))
                if bound is not None
            }
            return {"range": {_name(field, kind, texts): bounds}}
        case Not(part):
            return {"bool": {"must_not": [_condition(part, texts)]}}
        case All(parts):
            return {"bool": {"filter": _each(parts, lambda part: _condition(part, texts))}}
        case Some(parts):
            some = _each(parts, lambda part: _condition(part, texts))
            return {"bool": {"should": some, "minimum_should_match": 1}} if some else {"match_none": {}}


def _each(parts: Sequence[Query], work: Callable[[Query], T]) -> list[T]:
    return [work(part) for part in parts]


def _name(field: str, kind: FieldKind, texts: dict[str, Any]) -> str:
    """Return the field to ask; running text is shown as it was written by a field made for this question."""
    if kind is not FieldKind.TEXT:
        return field
    name = f"as_written_{field.replace('.', '_').replace('@', '')}"
    params = {"name": field, "parts": field.split("."), "most": MAX_TEXT}
    texts[name] = {"type": "keyword", "script": {"source": _SCRIPT, "params": params}}
    return name


def _given(kind: FieldKind, value: object) -> object:
    if kind is FieldKind.IP:
        return ip_shown(str(value))
    if kind is FieldKind.BOOLEAN:
        return value == "true"
    return value


def _pattern(parts: Sequence[str | Joker]) -> str:
    return "".join(
        part.value if isinstance(part, Joker) else "".join(f"\\{one}" if one in "\\*?" else one for one in part)
        for part in parts
    )
