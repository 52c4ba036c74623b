"""Our shipper against a real Elasticsearch: killed, refused, pushed back, and what the node then holds."""

from __future__ import annotations

import http.server
import json
import signal
import threading
from contextlib import contextmanager

import pytest

from control.shipper import Shipper
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from monitor.adapters.elastic_client import Access, connect
from monitor.adapters.fake_sink import FakeSink
from monitor.adapters.shipper_elastic import ElasticSink
from monitor.adapters.shipper_files import DeadLetters, LogTail
from monitor.shipping import LONGEST_LINE, Piece, Verdict, judge
from tests.elk.ship_bed import (
    DEADLINE_S,
    PassingOn,
    count,
    documents,
    estate,
    holding,
    set_up,
    shipper,
    write_lines,
)


@pytest.fixture
def node(elastic):
    set_up(elastic.url)
    return elastic


def sink_of(url, name):
    return ElasticSink(connect(Access(url), timeout_s=20), name)


class Told:
    def __init__(self):
        self.up = []

    def counted(self, result, amount):
        pass

    def standing(self, backlog_bytes, lag_s, up):
        self.up.append(up)

    def note(self, name, severity, **fields):
        pass


@contextmanager
def running(root, sink):
    made = Shipper(LogTail(root / "logs", root / "s" / "o.json"), sink, DeadLetters(root / "s" / "d"), Told(),
                   SystemClock())  # fmt: skip
    try:
        yield made
    finally:
        made.close()


def ended(process):
    said, troubles = process.communicate(timeout=120)
    return process.returncode, json.loads(said) if said else None, troubles


@pytest.mark.parametrize("lines", [10_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_a_shipper_killed_in_the_middle_leaves_each_line_as_one_document(node, elastic_name, tmp_path, lines):
    logs = estate(tmp_path / "state")
    write_lines(logs / "engine-1.jsonl.1", "engine", 0, lines // 2)
    write_lines(logs / "engine-1.jsonl", "engine", lines // 2, lines - lines // 2)
    with holding(node) as way:
        first = shipper(tmp_path / "state", way.url, elastic_name)
        assert way.held.wait(DEADLINE_S)
        first.send_signal(signal.SIGKILL)
        first.wait()
    first.stdout.close()
    first.stderr.close()
    assert 0 < count(node, elastic_name) < lines, "it was not killed in the middle"
    (logs / "engine-1.jsonl.1").rename(logs / "engine-1.jsonl.2")
    (logs / "engine-1.jsonl").rename(logs / "engine-1.jsonl.1")
    write_lines(logs / "engine-1.jsonl", "engine", lines, 10)
    code, done, troubles = ended(shipper(tmp_path / "state", node.url, elastic_name))
    assert (code, done["dead_letter"], done["lost"], done["left_bytes"]) == (0, 0, 0, 0), troubles
    found = [json.loads(one)[1]["exchange"]["seq"] for one in documents(node, elastic_name)]
    assert sorted(found) == list(range(lines + 10))


def pieces(*lines):
    return [Piece("f", "/logs/engine-1.jsonl", at * 100_000, at * 100_000 + len(line) + 1, line)
            for at, line in enumerate(lines)]  # fmt: skip


@pytest.fixture(params=["fake", "real"])
def sink(request, elastic_name):
    if request.param == "fake":
        return FakeSink()
    node = request.getfixturevalue("node")
    return sink_of(node.url, elastic_name)


def test_a_sink_says_once_stored_and_then_that_it_is_there(sink):
    sink.check()
    sent = pieces(
        b'{"@timestamp":"2026-01-01T00:00:00Z","event.action":"a"}', b"plain", b"\xff\x00\x1b[2J", b'{"torn": '
    )
    assert [judge(one) for one in sink.send(sent)] == [Verdict.STORED] * 4
    assert [judge(one) for one in sink.send(sent[1:] + pieces(b"another"))] == [Verdict.DUPLICATE] * 3 + [
        Verdict.STORED
    ]


def test_binary_long_and_escaping_lines_are_documents_or_dead_letters_with_every_byte(node, elastic_name, tmp_path):
    lines = [b"\xff\xfe\x00bin", b"\x1b]0;gone\x07", b"x" * (LONGEST_LINE - 5), b'{"@timestamp":1,"event":"x"}',
             b"{" * 3_000,
             b'{"@timestamp":"2026-01-01T00:00:00Z","event.action":"a","exchange.seq":{"no":"number"}}',
             b'{"@timestamp":"2026-01-01T00:00:00Z","event.action":"a","event.action":"twice"}']  # fmt: skip
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "engine-1.jsonl").write_bytes(b"\n".join([*lines, b"y" * 1_000_000, b""]))
    with running(tmp_path, sink_of(node.url, elastic_name)) as made:
        made.run(lambda: False, until_idle=True)
        assert made.done.shipped + made.done.dead_letter == len(lines) + 1
        letters = DeadLetters(tmp_path / "s" / "d").all()
        assert b"y" * 1_000_000 in [one.piece().data for one in letters]
        assert count(node, elastic_name) == made.done.shipped == len(lines) + 1 - len(letters)


def test_a_mapping_conflict_costs_only_its_own_line_and_is_kept_with_its_reason(node, elastic_name):
    index = f"{elastic_name}-odd"
    node.request(
        "PUT", f"/{index}", {"mappings": {"properties": {"event": {"properties": {"action": {"type": "long"}}}}}}
    )
    client = connect(Access(node.url))
    answered = client.bulk(
        operations=[{"create": {"_index": index, "_id": "1"}}, {"event.action": "no number"},
                    {"create": {"_index": index, "_id": "2"}}, {"event.action": 5}]
    )  # fmt: skip
    refused = answered["items"][0]["create"]
    assert refused["error"]["type"] in {"mapper_parsing_exception", "document_parsing_exception"}
    assert refused["status"] == 400
    assert answered["items"][1]["create"]["status"] == 201


def test_a_read_only_stream_is_waited_for_and_nothing_is_lost(node, elastic_name, tmp_path):
    write_lines(tmp_path / "logs" / "engine-1.jsonl", "engine", 0, 10)
    with running(tmp_path, sink_of(node.url, elastic_name)) as made:
        made.run(lambda: False, until_idle=True)
        node.request(
            "PUT", f"/logs-exchange.engine-{elastic_name}/_settings", {"index.blocks.read_only_allow_delete": True}
        )
        write_lines(tmp_path / "logs" / "engine-1.jsonl", "engine", 10, 10)
        made.run(lambda: bool(made.why))
        assert "cluster_block_exception" in made.why
        assert made.done.dead_letter == 0
        assert made._told.up[-1] is False
        node.request(
            "PUT", f"/logs-exchange.engine-{elastic_name}/_settings", {"index.blocks.read_only_allow_delete": None}
        )
        made.run(lambda: False, until_idle=True)
        assert count(node, elastic_name) == made.done.shipped == 20


class Pushing(PassingOn):
    """Passes everything on but the first bulks, which it answers 429; then one whose answer it swallows."""

    def work(self):
        body = self.body()
        bulk = self.path.startswith("/_bulk")
        if bulk and self.server.pushed < 2:
            self.server.pushed += 1
            return self.answer(429, b'{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"}}')
        told = self.passed_on(body)
        if bulk and not self.server.swallowed:
            self.server.swallowed = True
            self.close_connection = True
            return None
        return self.answer(*told)


def test_a_node_that_pushes_back_and_an_answer_that_is_lost_change_nothing(node, elastic_name, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pushing)
    server.behind, server.pushed, server.swallowed = node.port, 0, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        write_lines(tmp_path / "logs" / "engine-1.jsonl", "engine", 0, 500)
        with running(tmp_path, sink_of(f"http://127.0.0.1:{server.server_port}", elastic_name)) as made:
            made.run(lambda: False, until_idle=True)
            assert (made.done.shipped, made.done.duplicate, made.done.dead_letter) == (0, 500, 0)
        assert (server.pushed, server.swallowed) == (2, True)
        assert count(node, elastic_name) == 500
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_record_from_the_future_is_kept_and_marked(node, elastic_name, tmp_path):
    (tmp_path / "logs").mkdir()
    line = b'{"@timestamp":"2099-01-01T00:00:00Z","event.action":"early","log.level":"info"}\n'
    (tmp_path / "logs" / "engine-1.jsonl").write_bytes(line)
    with running(tmp_path, sink_of(node.url, elastic_name)) as made:
        made.run(lambda: False, until_idle=True)
    (found,) = documents(node, elastic_name)
    assert "clock_skew" in json.loads(found)[1]["tags"]


def test_a_node_that_cannot_be_reached_is_told_in_a_sentence(tmp_path):
    estate(tmp_path / "state")
    code, _, troubles = ended(shipper(tmp_path / "state", "http://127.0.0.1:1", "x"))
    assert (code, "cannot be reached" in troubles, "Traceback" in troubles) == (4, True, False)


@pytest.mark.long
def test_a_node_that_is_down_is_told_from_one_that_is_not_set_up(own_elastic, tmp_path):
    bare = own_elastic()
    with pytest.raises(PermanentError, match=r"index template logs-exchange.*tapewatch elk setup"):
        sink_of(bare.url, "x").check()
    estate(tmp_path / "state")
    write_lines(tmp_path / "state" / "logs" / "engine-1.jsonl", "engine", 0, 5)
    code, _, troubles = ended(shipper(tmp_path / "state", bare.url, "x"))
    assert (code, count(bare, "x")) == (1, 0)
    assert "tapewatch elk setup" in troubles
    assert "Traceback" not in troubles
    set_up(bare.url)
    code, done, troubles = ended(shipper(tmp_path / "state", bare.url, "x"))
    assert (code, done["shipped"]) == (0, 5), troubles
    url = bare.url
    bare.kill()
    with pytest.raises(TemporaryError, match="cannot be reached"):
        sink_of(url, "x").send(pieces(b"a"))
    code, _, troubles = ended(shipper(tmp_path / "state", url, "x"))
    assert (code, "Traceback" in troubles) == (4, False)
