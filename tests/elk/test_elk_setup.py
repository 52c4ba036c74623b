"""Setting a real Elasticsearch up: from nothing, again, from an older model; with the right and the wrong secrets."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from cli import app
from control.elastic_access import access_of
from control.servers.elastic_node import ElasticStatusError, Node
from control.settings import load_settings
from kernel.errors import InputError, PermanentError, TemporaryError
from monitor.adapters.elastic_admin import Done, ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from tests.elk.logs import admin, bulk, search

RECORD = {"@timestamp": "2026-03-02T09:30:00Z", "event.action": "x", "message": "m", "exchange.seq": 7}
PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def secured(elastic_home):
    """A node of this module's own with security on, as empty as it starts."""
    with Node(elastic_home, password=PASSWORD) as node:
        yield node


@pytest.fixture
def cli(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*argv, **env):
        return CliRunner(env={f"TAPEWATCH_{name.upper()}": value for name, value in env.items()}).invoke(
            app, ["elk", *argv]
        )

    return run


def test_setup_from_nothing_puts_pipelines_first_and_a_second_one_changes_nothing(secured):
    here = admin(secured)
    wish = here.setup(dry_run=True)
    with pytest.raises(ElasticStatusError):
        secured.request("GET", "/_ingest/pipeline/logs-exchange")
    assert here.setup() == wish
    assert {one.done for one in wish} == {Done.CREATED}
    kinds = [one.kind for one in wish]
    assert kinds == ["pipeline"] * 2 + ["component template"] * 3 + ["index template"]
    assert {one.done for one in here.setup()} == {Done.SAME}
    assert {one.done for one in admin(secured, replicas=None).setup()} == {Done.SAME}, "what was chosen is kept"


def test_a_stream_of_an_older_model_learns_the_new_fields_before_the_guard_lets_them_through(secured):
    here, stream = admin(secured), "logs-exchange.older-a"
    here.setup()
    name = "/_component_template/logs-exchange-own"
    new = secured.request("GET", name)["component_templates"][0]["component_template"]
    old = json.loads(json.dumps(new))
    del old["template"]["mappings"]["properties"]["exchange"]["properties"]["seq"]
    secured.request("PUT", name, old)
    guard = secured.request("GET", "/_ingest/pipeline/logs-exchange-guard")["logs-exchange-guard"]
    older = json.loads(json.dumps(guard))
    del older["processors"][-1]["script"]["params"]["model"]["exchange"]["seq"]
    secured.request("PUT", "/_ingest/pipeline/logs-exchange-guard", older)
    bulk(secured, stream, [RECORD])
    assert {(one.kind, one.done) for one in here.setup() if one.done is not Done.SAME} == {
        ("component template", Done.CHANGED), ("data stream", Done.CHANGED), ("pipeline", Done.CHANGED),
    }  # fmt: skip
    assert bulk(secured, stream, [RECORD])[0]["status"] == 201
    assert len(search(secured, stream, query={"term": {"exchange.seq": 7}})) == 1, (
        "the new field is indexed from now on"
    )


def test_a_stream_whose_field_has_another_type_is_rolled(secured):
    here, stream = admin(secured), "logs-exchange.conflict-a"
    here.setup()
    name = "/_component_template/logs-exchange-own"
    new = secured.request("GET", name)["component_templates"][0]["component_template"]
    old = json.loads(json.dumps(new))
    old["template"]["mappings"]["properties"]["exchange"]["properties"]["seq"] = {"type": "keyword"}
    secured.request("PUT", name, old)
    bulk(secured, stream, [RECORD])
    assert ("data stream", stream, Done.ROLLED) in {(one.kind, one.name, one.done) for one in here.setup()}
    bulk(secured, stream, [RECORD])
    assert len(next(one for one in here.streams() if one.name == stream).indices) == 2
    assert len(search(secured, stream)) == 2


def test_the_password_and_an_api_key_come_from_files(secured, cli, tmp_path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    known = {"elastic_url": secured.url, "elastic_user": "elastic", "elastic_password_file": str(tmp_path / "password")}
    done = cli("setup", "--replicas", "0", "--json", **known)
    assert done.exit_code == 0, done.output
    assert {one["name"] for one in json.loads(done.stdout)} >= {"logs-exchange", "logs-exchange-guard"}
    key = secured.request("POST", "/_security/api_key", {"name": "shipper"})["encoded"]
    (tmp_path / "key").write_text(key)
    done = cli("status", "--json", elastic_url=secured.url, elastic_api_key_file=str(tmp_path / "key"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["health"] == "green"


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({}, 1, "TAPEWATCH_ELASTIC_USER"),
        ({"elastic_user": "elastic", "elastic_password_file": "wrong"}, 1, "does not know us"),
        ({"elastic_api_key_file": "wrong"}, 1, "does not know us"),
        ({"elastic_user": "elastic"}, 2, "has no password"),
        ({"elastic_password_file": "wrong"}, 2, "has no user"),
        ({"elastic_user": "elastic", "elastic_password_file": "missing"}, 2, "cannot be read"),
        ({"elastic_user": "elastic", "elastic_password_file": "empty"}, 2, "is empty"),
        (
            {"elastic_user": "elastic", "elastic_password_file": "wrong", "elastic_api_key_file": "wrong"},
            2,
            "one of the two",
        ),
        ({"elastic_ca_file": "missing"}, 2, "is no file"),
        ({"elastic_url": "not an address"}, 2, "elastic_url"),
        ({"elastic_url": "http://127.0.0.1:1"}, 4, "cannot be reached"),
    ],
)
def test_wrong_access_is_one_sentence_and_tells_no_secret(secured, cli, tmp_path, settings, code, said):
    (tmp_path / "wrong").write_text("not-the-password")
    (tmp_path / "empty").write_text("\n")
    done = cli("status", **{"elastic_url": secured.url, **settings})
    assert done.exit_code == code
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not-the-password" not in done.output
    assert "Traceback" not in done.output


def test_status_tells_what_is_wrong(secured, cli, tmp_path):
    (tmp_path / "password").write_text(PASSWORD)
    known = {"elastic_url": secured.url, "elastic_user": "elastic", "elastic_password_file": str(tmp_path / "password")}
    admin(secured).setup()
    bulk(secured, "logs-exchange.gateway-b", [{"message": "{torn"}])
    done = cli("status", "--json", **known)
    assert done.exit_code == 1
    assert any("dead letters" in problem for problem in json.loads(done.stdout)["problems"])
    table = cli("status", **known)
    assert "logs-exchange.dead_letter-b" in table.stdout


def test_a_password_is_not_shown_by_its_holder():
    assert "secret-word" not in repr(Access("http://x:1", "a", "secret-word", "secret-word"))


# --- TLS, without a node ----------------------------------------------------------------------------------------------


class Nobody(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"version":{"number":"8.19.13"}}')

    def log_message(self, *_):
        pass


@pytest.fixture
def tls_server(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    server = HTTPServer(("127.0.0.1", 0), Nobody)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", tmp_path / "ca.pem"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_nobody_vouches_for_is_refused_and_its_authority_makes_it_good(tls_server):
    url, ca = tls_server
    with pytest.raises(PermanentError, match="TAPEWATCH_ELASTIC_CA_FILE"):
        ElasticAdmin(connect(Access(url))).version()
    with pytest.raises(PermanentError, match="is no Elasticsearch"):
        ElasticAdmin(connect(Access(url, ca_file=ca))).version()


def test_without_a_url_it_is_said_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="tapewatch elk up"):
        access_of(load_settings())


def test_nobody_there_is_temporary():
    with pytest.raises(TemporaryError, match="cannot be reached"):
        ElasticAdmin(connect(Access("http://127.0.0.1:1"))).version()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["size", "--events-per-s", "0"], "--events-per-s"),
        (["size", "--events-per-s", "5", "--retention", "tomorrow"], "--retention"),
        (["size", "--events-per-s", "5", "--shard-gb", "500"], "10 to 50"),
        (["rotate", "--keep", "soon", "--url", "http://127.0.0.1:1"], "--keep"),
        (["down"], "no Elasticsearch runs here"),
    ],
)
def test_wrong_arguments_are_one_sentence(cli, argv, said):
    done = cli(*argv)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_size_says_what_decided(cli):
    done = cli("size", "--events-per-s", "20000", "--json")
    assert done.exit_code == 0
    plan = json.loads(done.stdout)
    assert plan["nodes"] == sum(tier["nodes"] for tier in plan["tiers"]) + plan["masters"] + plan["coordinating"]
    assert "decided by" in cli("size", "--events-per-s", "20000").stdout


def test_files_are_written_once(cli, tmp_path):
    assert "wrote" in cli("files", "--write", str(tmp_path / "elk")).stdout
    assert cli("files", "--write", str(tmp_path / "elk")).stdout == ""
    assert (tmp_path / "elk" / "kibana" / "tapewatch.ndjson").is_file()
