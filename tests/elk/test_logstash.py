"""Logstash's files: of its grammar, and the same as the ingest pipeline as far as that goes. They were never run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from monitor.elk import logstash
from monitor.elk.pipelines import DEAD_LETTERS, LEVELS, PLAIN, read
from tests.elk.logstash_grammar import Branch, GrammarError, Plugin, parse

ROOM = Path(__file__).parents[2] / "elk" / "logstash"
BUNDLED = {
    "beats", "dead_letter_queue", "elasticsearch", "json", "de_dot", "mutate", "grok", "date", "translate", "truncate",
    "ruby",
}  # fmt: skip
"""Plugins that come with Logstash, of those we use."""


def plugins(body):
    for one in body:
        if isinstance(one, Plugin):
            yield one
        else:
            for _, inner in one.arms:
                yield from plugins(inner)


def found(text, section, name):
    return [one for kind, body in parse(text) if kind == section for one in plugins(body) if one.name == name]


GRAMMAR = [
    ("input { stdin {} }", [("input", [Plugin("stdin")])]),
    ("# c\nfilter { x { a => 1 b => -2.5 c => bare d => 'q\"' e => true } } # end",
     [("filter", [Plugin("x", {"a": 1, "b": -2.5, "c": "bare", "d": 'q"', "e": True})])]),
    ('output { x { a => [1, "b", [c]] h => { "k" => 1 l => { m => "n" } } codec => json { z => 1 } } }',
     [("output", [
         Plugin("x", {"a": [1, "b", ["c"]], "h": {"k": 1, "l": {"m": "n"}}, "codec": Plugin("json", {"z": 1})}),
     ])]),
    ('filter { if [a][b] == "x" and !([c] in ["d"]) { } else if "t" not in [tags] { y {} } else { z {} } }',
     [("filter", [Branch([
         (("and", ("==", ("field", ("a", "b")), "x"), ("not", ("in", ("field", ("c",)), ["d"]))), []),
         (("not in", "t", ("field", ("tags",))), [Plugin("y")]), (None, [Plugin("z")])])])]),
    (r"filter { if [m] =~ /^\/x\d+/ or [n] !~ 'y' { } }",
     [("filter", [Branch([
         (("or", ("=~", ("field", ("m",)), ("regexp", r"^\/x\d+")), ("!~", ("field", ("n",)), "y")), []),
     ])])]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), GRAMMAR)
def test_the_parser_reads_the_language(text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "inputs { }", "input { x { a = 1 } }", "input { x { a => } }", "input { x { a => 1", "filter { if { } }",
        "filter { if [a] = 1 { } }", 'output { x { a => "b } }', "filter { else { } }", "input { x { a => [1,,2] } }",
        "input { x { a => { b 1 } } }", "filter { if [a] and { } }", "input { x { a => 1 a => 2 } }",
        "input { x { 1 => 2 } }",
        "filter { if [a] =~ [b] { } }", "input { x } ",
    ],
)  # fmt: skip
def test_the_parser_refuses_what_the_language_does_not_have(text):
    with pytest.raises(GrammarError, match="line"):
        parse(text)


@pytest.mark.parametrize("name", ["pipeline.conf", "dead-letters.conf"])
def test_our_files_are_of_the_grammar_and_use_bundled_plugins_alone(name):
    text = (ROOM / name).read_text()
    assert text.startswith(logstash.NOT_RUN), "it says that it was not run"
    sections = parse(text)
    assert [kind for kind, _ in sections] == ["input", "filter", "output"]
    assert {one.name for _, body in sections for one in plugins(body)} <= BUNDLED


def test_lines_are_read_by_the_patterns_of_the_ingest_pipeline():
    (grok,) = found((ROOM / "pipeline.conf").read_text(), "filter", "grok")
    theirs = grok.options["match"]["message"]
    assert len(theirs) == len(PLAIN)
    for one, ours in zip(theirs, PLAIN, strict=True):
        back = one.replace("][", ".").replace(":[", ":").replace("]:int}", ":long}").replace("]}", "}")
        assert back == ours
    assert next(step["grok"]["patterns"] for step in read()["processors"] if "grok" in step) == list(PLAIN)


def test_levels_are_those_of_the_ingest_pipeline():
    (translate,) = found((ROOM / "pipeline.conf").read_text(), "filter", "translate")
    assert translate.options["dictionary"] == LEVELS
    assert translate.options["fallback"] == "info"


def test_what_elasticsearch_refuses_comes_back_as_dead_letters():
    text = (ROOM / "dead-letters.conf").read_text()
    (queue,) = found(text, "input", "dead_letter_queue")
    ids = [one["pipeline.id"] for one in yaml.safe_load((ROOM / "pipelines.yml").read_text())]
    assert queue.options["pipeline_id"] in ids
    assert queue.options["commit_offsets"] is True
    (output,) = found(text, "output", "elasticsearch")
    assert output.options["data_stream_dataset"] == DEAD_LETTERS
    said = yaml.safe_load((ROOM / "logstash.yml").read_text())
    assert said["queue.type"] == "persisted"
    assert said["dead_letter_queue.enable"] is True


def test_a_text_with_both_quotes_is_refused_rather_than_broken():
    with pytest.raises(ValueError, match="both kinds"):
        logstash.quoted("\"'")
