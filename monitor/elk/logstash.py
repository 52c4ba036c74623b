"""Logstash's configuration, from the same model as the ingest pipelines; pure. Not run: no Logstash can be had here.

Logstash stands where a buffer must outlast Elasticsearch: a persistent queue, and a dead-letter queue for what
Elasticsearch refuses, which a second pipeline sends to the dead letters with its reason. Lines are read by the same
patterns; the guard stays in Elasticsearch, as the final pipeline.
"""

from __future__ import annotations

from typing import Final

from monitor.elk.pipelines import DEAD_LETTERS, LEVELS, MAX_MESSAGE, PLAIN, PLAIN_ACTION

NOT_RUN: Final = "# Generated from monitor/elk. Parsed and compared by tests; not run: no Logstash can be had there.\n"
Value = str | int | bool | list["Value"] | dict[str, "Value"]


def quoted(text: str) -> str:
    """Return a string of Logstash's language; it knows no escapes by default, so the quote is chosen to fit.

    Raises:
        ValueError: the text holds both kinds of quotes.
    """
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    raise ValueError(f"{text!r} holds both kinds of quotes")


def value(given: Value, indent: int) -> str:
    """Return a value of an option: a string, a number, a boolean, an array or a hash."""
    pad = "  " * (indent + 1)
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int):
        return str(given)
    if isinstance(given, str):
        return quoted(given)
    if isinstance(given, list):
        if len(given) == 1:
            return f"[{value(given[0], indent)}]"
        return "[\n" + ",\n".join(pad + value(one, indent + 1) for one in given) + "\n" + "  " * indent + "]"
    rows = "".join(f"{pad}{quoted(key)} => {value(one, indent + 1)}\n" for key, one in given.items())
    return "{\n" + rows + "  " * indent + "}"


def plugin(name: str, options: dict[str, Value], indent: int) -> str:
    """Return one plugin and its options."""
    pad = "  " * indent
    rows = "".join(f"{pad}  {key} => {value(one, indent + 1)}\n" for key, one in options.items())
    return f"{pad}{name} {{\n{rows}{pad}}}\n"


def _field(dotted: str) -> str:
    return "".join(f"[{part}]" for part in dotted.split("."))


def _reading() -> str:
    plain = [_referenced(pattern) for pattern in PLAIN]
    levels: dict[str, Value] = dict(LEVELS)
    return (
        "  if [message] =~ /^\\s*\\{/ and ![event][action] {\n"
        + plugin("json", {"source": "message", "tag_on_failure": ["unreadable"]}, 2)
        + plugin("de_dot", {"nested": True}, 2)
        + '    if "unreadable" in [tags] {\n'
        + plugin("mutate", {"add_field": {
            _field("event.original"): "%{message}", _field("event.kind"): "pipeline_error",
            _field("data_stream.dataset"): DEAD_LETTERS,
        }}, 3)
        + "    }\n  } else if ![event][action] and ![log][level] {\n"
        + plugin("grok", {"match": {"message": [*plain]}, "overwrite": ["message"]}, 2)
        + plugin("date", {"match": [_field("plain.time"), "ISO8601", "yyyy-MM-dd HH:mm:ss,SSS"]}, 2)
        + plugin("mutate", {
            "add_field": {_field("event.action"): PLAIN_ACTION}, "add_tag": ["plain"], "remove_field": ["plain"],
        }, 2)
        + "  }\n"
        + plugin("mutate", {"lowercase": [_field("log.level")]}, 1)
        + plugin("translate", {
            "source": _field("log.level"), "target": _field("log.level"), "override": True, "fallback": "info",
            "dictionary": levels,
        }, 1)
        + plugin("truncate", {"fields": ["message"], "length_bytes": MAX_MESSAGE, "add_tag": ["cut"]}, 1)
    )  # fmt: skip


def _referenced(pattern: str) -> str:
    """Return a grok pattern whose dotted fields are Logstash's field references."""
    for name in ("plain.time", "log.origin.file.name", "log.origin.file.line", "log.level", "log.logger"):
        pattern = pattern.replace(f":{name}:long}}", f":{_field(name)}:int}}").replace(
            f":{name}}}", f":{_field(name)}}}"
        )
    return pattern


def _output(dataset: str) -> str:
    return plugin("elasticsearch", {
        "hosts": ["${ELASTIC_URL:http://127.0.0.1:9200}"], "user": "${ELASTIC_USER:}",
        "password": "${ELASTIC_PASSWORD:}", "data_stream": True, "data_stream_type": "logs",
        "data_stream_dataset": dataset, "data_stream_namespace": "${TAPEWATCH_ENVIRONMENT:dev}",
        "data_stream_auto_routing": True, "manage_template": False,
    }, 1)  # fmt: skip


def pipeline() -> str:
    """Return the main pipeline: Beats in, Elasticsearch out."""
    dataset = plugin("mutate", {"add_field": {_field("data_stream.dataset"): "exchange.%{[service][name]}"}}, 2)
    return (
        NOT_RUN
        + "input {\n" + plugin("beats", {"host": "${LOGSTASH_HOST:127.0.0.1}", "port": 5044}, 1) + "}\n\n"
        + "filter {\n" + _reading()
        + "  if [service][name] and ![data_stream][dataset] {\n" + dataset + "  }\n}\n\n"
        + "output {\n" + _output("exchange.unknown") + "}\n"
    )  # fmt: skip


def dead_letters() -> str:
    """Return the second pipeline: what Elasticsearch refused, with the reason, as dead letters."""
    source = plugin("dead_letter_queue", {
        "path": "${LOGSTASH_DATA:/var/lib/logstash}/dead_letter_queue", "pipeline_id": "exchange",
        "commit_offsets": True,
    }, 1)  # fmt: skip
    keep = plugin("mutate", {
        "add_field": {
            _field("error.message"): "%{[@metadata][dead_letter_queue][reason]}",
            _field("event.kind"): "pipeline_error",
        },
        "replace": {_field("data_stream.dataset"): DEAD_LETTERS},
    }, 1)  # fmt: skip
    code = "event.set('[event][original]', event.get('exchange').to_json)"
    whole = plugin("ruby", {"code": code}, 2)
    drop = plugin("mutate", {"remove_field": ["exchange", "tapewatch"]}, 1)
    return (
        NOT_RUN + "input {\n" + source + "}\n\n"
        + "filter {\n" + "  if [exchange] {\n" + whole + "  }\n" + keep + drop + "}\n\n"
        + "output {\n" + _output(DEAD_LETTERS) + "}\n"
    )  # fmt: skip


def settings() -> str:
    """Return logstash.yml: the queue outlasts a restart, and what is refused is kept."""
    return (
        NOT_RUN
        + "pipeline.ecs_compatibility: v8\n"
        + "queue.type: persisted\nqueue.max_bytes: 8gb\nqueue.checkpoint.writes: 1024\n"
        + "dead_letter_queue.enable: true\ndead_letter_queue.max_bytes: 2gb\n"
        + "dead_letter_queue.storage_policy: drop_newer\n"
        + "config.support_escapes: false\napi.http.host: 127.0.0.1\n"
    )


def pipelines() -> str:
    """Return pipelines.yml."""
    return (
        NOT_RUN
        + "- pipeline.id: exchange\n  path.config: pipeline.conf\n"
        + "- pipeline.id: dead-letters\n  path.config: dead-letters.conf\n"
        + "  queue.type: memory\n  dead_letter_queue.enable: false\n"
    )
