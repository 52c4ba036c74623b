"""The two ingest pipelines: one reads lines, one makes sure that no record is refused; pure.

`logs-exchange` (the default pipeline) reads a line: JSON of ours, or plain text by grok. What it cannot read goes,
whole, to the dead letters `logs-exchange.dead_letter-<environment>`.

`logs-exchange-guard` (the final pipeline, which nobody can leave out) holds a record to the model: what the mapping
would refuse (a field under our prefixes that no model holds, an object where a word belongs) moves into
`tapewatch.unmapped` as text, so that a strict mapping never costs a record. It also normalises levels, cuts what is too
long, and stamps `event.ingested`. Neither uses mustache, which not every distribution has.
"""

from __future__ import annotations

from typing import Any, Final

from monitor.elk.schema import FIELDS, OWN

READ: Final = "logs-exchange"
GUARD: Final = "logs-exchange-guard"
DEAD_LETTERS: Final = "exchange.dead_letter"
"""Dataset of what could not be read."""
MAX_MESSAGE: Final = 32_768
MAX_ORIGINAL: Final = 65_536
MAX_VALUE: Final = 8_192
MAX_UNMAPPED: Final = 256
SKEW_S: Final = 300
"""A record from further in the future than this bears the tag clock_skew."""

LEVELS: Final = {
    "trace": "debug", "debug": "debug", "dbg": "debug", "fine": "debug",
    "info": "info", "information": "info", "notice": "info", "inf": "info",
    "warn": "warning", "warning": "warning", "wrn": "warning",
    "err": "error", "error": "error", "severe": "error",
    "fatal": "critical", "critical": "critical", "crit": "critical", "alert": "critical", "emerg": "critical",
    "emergency": "critical", "panic": "critical",
}  # fmt: skip
"""Every word for a level, and ours; another word is info and its tag says so."""

_TIME: Final = "%{TIMESTAMP_ISO8601:plain.time}"
_SOURCE: Final = "%{DATA:log.origin.file.name}:%{NUMBER:log.origin.file.line:long}"
_REST: Final = "%{GREEDYDATA:message}$"
PLAIN: Final = (
    # Prometheus and Alertmanager
    f"^ts={_TIME} caller={_SOURCE} level=%{{WORD:log.level}} (?:component=%{{NOTSPACE:log.logger}} )?{_REST}",
    # the same, newer
    f"^time={_TIME} level=%{{WORD:log.level}} source={_SOURCE} {_REST}",
    # Elasticsearch
    rf"^\[{_TIME}\]\[%{{WORD:log.level}} *\]\[%{{DATA:log.logger}} *\] *(?:\[%{{DATA}}\] *)?{_REST}",
    # Python's logging
    rf"^{_TIME} %{{LOGLEVEL:log.level}} +(?:\[?%{{NOTSPACE:log.logger}}\]?: )?{_REST}",
    # uvicorn
    f"^%{{LOGLEVEL:log.level}}: +{_REST}",
    # whatever else: a line is a message
    r"^(?<message>[\s\S]*)$",
)
"""How plain lines look, tried in order. The last fits all."""
PLAIN_ACTION: Final = "plain-line"

_ARRIVE: Final = """
if (ctx.event instanceof String) { ctx.remove('event') }
boolean parsed = ctx['event.action'] != null || (ctx.event instanceof Map && ctx.event.action != null)
  || ctx['log.level'] != null || (ctx.log instanceof Map && ctx.log.level != null);
if (!parsed && ctx.message instanceof String) {
  if (!(ctx.event instanceof Map)) { ctx.event = new HashMap() }
  ctx.event.original = ctx.message;
  String start = ctx.message.trim();
  ctx._read = start.startsWith('{') ? 'json' : 'plain';
}
"""
_READ_WHOLE: Final = """
if (ctx._read != null) {
  if (ctx.event instanceof Map) {
    ctx.event.remove('original');
    if (ctx._read == 'plain') {
      ctx.event.action = params.action;
      if (ctx.tags instanceof List) { ctx.tags.add('plain') } else { ctx.tags = new ArrayList(['plain']) }
    }
    if (ctx.event.isEmpty()) { ctx.remove('event') }
  }
  ctx.remove('_read');
}
ctx.remove('plain');
"""
_DEAD: Final = """
ctx.remove('_read');
ctx.remove('plain');
if (!(ctx.event instanceof Map)) { ctx.event = new HashMap() }
ctx.event.kind = 'pipeline_error';
if (!(ctx.error instanceof Map)) { ctx.error = new HashMap() }
ctx.error.message = ctx.remove('_why');
String index = ctx._index;
if (index.startsWith('logs-exchange.')) {
  int cut = index.indexOf('-', 14);
  if (cut > 0) { ctx._index = 'logs-' + params.dead + index.substring(cut) }
}
"""

_GUARD: Final = """
String sound(String v) { return v.replace(String.valueOf((char) 0), '') }
String text(def v) {
  if (v instanceof Map || v instanceof List) { return sound(Json.dump(v)) }
  return sound(String.valueOf(v));
}
boolean plain(def v) { return !(v instanceof Map) && !(v instanceof List) }
boolean fits(def v, String type) {
  if (v == null) { return true }
  if (v instanceof List) {
    for (def one : v) { if (!fits(one, type) || one instanceof List) { return false } }
    return true;
  }
  if (v instanceof Map) { return false }
  if (type == 'keyword' || type == 'text' || type == 'stored') { return true }
  if (type == 'boolean') { return v instanceof Boolean || v == 'true' || v == 'false' }
  if (type == 'long') { return v instanceof Integer || v instanceof Long || v instanceof Short }
  if (type == 'double') {
    if (v instanceof Double || v instanceof Float) { return !Double.isNaN(v) && !Double.isInfinite(v) }
    return v instanceof Number;
  }
  if (type == 'date') { try { ZonedDateTime.parse(v.toString()); return true } catch (Exception e) { return false } }
  return v instanceof String;
}
boolean named(String key) {
  return key.trim().length() > 0 && !key.startsWith('.') && !key.endsWith('.') && !key.contains('..');
}
def clean(def v) {
  if (v instanceof Map) {
    for (String key : new ArrayList(v.keySet())) {
      if (!named(key)) {
        String other = key.replace('.', '_').trim();
        v[other.length() > 0 ? other : '_'] = v.remove(key);
      }
    }
    for (def e : v.entrySet()) { e.setValue(clean(e.getValue())) }
  } else if (v instanceof List) {
    for (int i = 0; i < v.size(); i++) { v[i] = clean(v[i]) }
  }
  return v;
}
boolean cutAny(def at, String key, int most) {
  def v = at[key];
  if (v instanceof String && v.length() > most) { at[key] = v.substring(0, most); return true }
  if (v instanceof List) {
    boolean any = false;
    for (int i = 0; i < v.size(); i++) {
      if (v[i] instanceof String && v[i].length() > most) { v[i] = v[i].substring(0, most); any = true }
    }
    return any;
  }
  return false;
}
boolean sift(def at, def model, String path, boolean strict, def limits, def moved) {
  boolean any = false;
  for (String key : new ArrayList(at.keySet())) {
    if (path.isEmpty() && key.startsWith('_')) { continue }
    String name = path + key;
    def node = model[key];
    def v = at[key];
    boolean keep = true;
    if (node == null) {
      int dot = key.indexOf('.');
      keep = !strict && named(key) && (dot < 0 || (path.isEmpty() && model[key.substring(0, dot)] == null));
      if (keep) { at[key] = clean(v) }
    }
    else if (name == 'tapewatch.unmapped') { keep = v == null }
    else if (node instanceof Map) {
      if (v == null) { at.remove(key); continue }
      if (v instanceof Map) {
        any = sift(v, node, name + '.', strict || limits.own.contains(name), limits, moved) || any;
      } else { keep = false }
    } else {
      keep = fits(v, node);
      if (keep) {
        int most = name == 'message' ? limits.message : node == 'stored' ? limits.original : limits.value;
        any = cutAny(at, key, most) || any;
      }
    }
    if (!keep) { at.remove(key); if (moved.size() < limits.unmapped) { moved[name] = v } }
  }
  return any;
}
def tags = new ArrayList();
if (ctx.tags instanceof List) {
  for (def one : ctx.tags) { if (plain(one) && one != null) { tags.add(one.toString()) } }
} else if (ctx.tags instanceof String) { tags.add(ctx.tags) }
ctx.remove('tags');
def now = metadata().now.withNano(metadata().now.getNano() / 1000 * 1000);

def moved = new TreeMap();
for (def e : ctx.entrySet()) { if (e.getKey().isEmpty()) { moved['_'] = e.getValue() } }
ctx.entrySet().removeIf(e -> e.getKey().isEmpty());
def stamp = ctx['@timestamp'];
ZonedDateTime at = null;
try {
  if (stamp instanceof Number) { at = Instant.ofEpochMilli(stamp.longValue()).atZone(ZoneId.of('Z')) }
  else if (stamp != null) { at = ZonedDateTime.parse(stamp.toString()) }
} catch (Exception e) { at = null }
if (at != null && (at.getYear() < 1971 || at.getYear() > 2261)) { at = null }
if (at == null) {
  if (stamp != null) { moved['@timestamp'] = stamp; tags.add('bad_timestamp') } else { tags.add('no_timestamp') }
  ctx['@timestamp'] = now.toString();
} else {
  if (stamp instanceof Number) { ctx['@timestamp'] = at.toString() }
  if (at.toInstant().isAfter(now.toInstant().plusSeconds(params.limits.skew))) { tags.add('clock_skew') }
}

if (sift(ctx, params.model, '', false, params.limits, moved)) { tags.add('cut') }
if (moved.size() > 0) {
  tags.add('unmapped_field');
  if (!(ctx.tapewatch instanceof Map)) { ctx.tapewatch = new HashMap() }
  def kept = new TreeMap();
  for (def e : moved.entrySet()) {
    String said = text(e.getValue());
    String name = sound(e.getKey()).trim();
    kept[name.length() == 0 ? '_' : name.length() > 256 ? name.substring(0, 256) : name] =
      said.length() > params.limits.value ? said.substring(0, params.limits.value) : said;
  }
  ctx.tapewatch.unmapped = kept;
}
if (!(ctx.log instanceof Map)) { ctx.log = new HashMap() }
def level = ctx.log.level == null ? null : ctx.log.level.toString().toLowerCase();
def known = level == null ? null : params.levels[level];
if (level != null && known == null) { tags.add('odd_level') }
ctx.log.level = known == null ? 'info' : known;
if (!(ctx.event instanceof Map)) { ctx.event = new HashMap() }
ctx.event.ingested = now.toString();
if (tags.size() > 0) { ctx.tags = new ArrayList(new LinkedHashSet(tags)) }
"""

_LAST_RESORT: Final = """
def why = ctx.remove('_why');
ctx.entrySet().removeIf(e -> e.getKey().isEmpty());
def rest = new HashMap();
for (String key : new ArrayList(ctx.keySet())) { if (!key.startsWith('_')) { rest[key] = ctx.remove(key) } }
String all;
try { all = Json.dump(rest) } catch (Exception e) { all = String.valueOf(rest) }
ctx.event = new HashMap();
ctx.event.kind = 'pipeline_error';
ctx.event.original = all.length() > params.most ? all.substring(0, params.most) : all;
ctx.event.ingested = metadata().now.toString();
ctx['@timestamp'] = metadata().now.toString();
ctx.error = new HashMap();
ctx.error.message = why == null ? 'unknown' : why;
ctx.log = new HashMap();
ctx.log.level = 'error';
"""


def model_tree() -> dict[str, Any]:
    """Return the fields as the guard reads them: objects in objects, a type's word at each leaf."""
    tree: dict[str, Any] = {}
    for field in FIELDS:
        *above, last = field.name.split(".")
        here = tree
        for part in above:
            here = here.setdefault(part, {})
        here[last] = field.type.value
    return tree


def guard() -> dict[str, Any]:
    """Return the final pipeline."""
    limits = {
        "own": list(OWN), "message": MAX_MESSAGE, "original": MAX_ORIGINAL, "value": MAX_VALUE,
        "unmapped": MAX_UNMAPPED, "skew": SKEW_S,
    }  # fmt: skip
    return {
        "description": "Holds every record to the model; what the mapping would refuse is kept as text.",
        "processors": [
            {"dot_expander": {"tag": "dots", "field": "*", "override": True, "ignore_failure": True}},
            {"script": {
                "lang": "painless", "tag": "guard", "source": _GUARD,
                "params": {"model": model_tree(), "levels": LEVELS, "limits": limits},
            }},
        ],
        "on_failure": [
            {"set": {"field": "_why", "copy_from": "_ingest.on_failure_message", "ignore_failure": True}},
            {"script": {"lang": "painless", "source": _LAST_RESORT, "params": {"most": MAX_ORIGINAL}}},
        ],
    }  # fmt: skip


def read() -> dict[str, Any]:
    """Return the default pipeline."""
    plain = "ctx._read == 'plain'"
    formats = ["ISO8601", "yyyy-MM-dd HH:mm:ss,SSS", "yyyy-MM-dd HH:mm:ss.SSS", "yyyy-MM-dd'T'HH:mm:ss,SSS"]
    return {
        "description": "Reads a line: JSON of ours, or plain text; what cannot be read becomes a dead letter, whole.",
        "processors": [
            {"script": {"lang": "painless", "tag": "arrive", "source": _ARRIVE}},
            {"json": {
                "tag": "json", "field": "message", "if": "ctx._read == 'json'", "add_to_root": True,
                "add_to_root_conflict_strategy": "replace",
            }},
            {"grok": {"tag": "grok", "field": "message", "if": plain, "patterns": list(PLAIN)}},
            {"dot_expander": {"tag": "dots", "field": "*", "override": True}},
            {"date": {
                "tag": "date", "if": f"{plain} && ctx.plain?.time != null", "field": "plain.time", "formats": formats,
                "output_format": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSSSSXXX",
            }},
            {"script": {
                "lang": "painless", "tag": "done", "source": _READ_WHOLE, "params": {"action": PLAIN_ACTION},
            }},
        ],
        "on_failure": [
            {"set": {"field": "_why", "copy_from": "_ingest.on_failure_message", "ignore_failure": True}},
            {"script": {"lang": "painless", "source": _DEAD, "params": {"dead": DEAD_LETTERS}}},
        ],
    }  # fmt: skip


PIPELINES: Final = {READ: read, GUARD: guard}
