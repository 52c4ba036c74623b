"""The real Filebeat with our configuration: the same documents as our shipper's, a kill -9 in the middle included."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from monitor.adapters.elastic_admin import ElasticAdmin
from monitor.adapters.elastic_client import Access, connect
from monitor.elk.pipelines import READ
from monitor.shipping import LONGEST_LINE
from tests.elk.ship_bed import count, documents, estate, set_up, shipper, until, write_lines

CONFIG = Path(__file__).parents[2] / "elk" / "filebeat" / "filebeat.yml"


@contextmanager
def filebeat(program, logs, home, url, environment):
    home.mkdir(exist_ok=True)
    told = {"TAPEWATCH_LOGS": str(logs), "TAPEWATCH_ELASTIC_URL": url, "TAPEWATCH_ENVIRONMENT": environment}
    process = subprocess.Popen(
        [program, "run", "--path.home", str(home), "-c", str(CONFIG), "--strict.perms=false"],
        env={**os.environ, **told},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("lines", [5_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_filebeat_killed_in_the_middle_makes_the_same_documents_as_our_shipper(
    elastic, elastic_name, filebeat_program, tmp_path, lines
):
    set_up(elastic.url)
    logs = estate(tmp_path / "state")
    write_lines(logs / "market-data-1.jsonl.1", "market-data", 0, lines // 2)
    with (logs / "market-data-1.jsonl.1").open("ab") as file:
        file.write(b'plain words\n{"torn": \n')
    write_lines(logs / "engine-1.jsonl", "engine", 0, lines - lines // 2)
    theirs, mine = f"fb-{elastic_name}", elastic_name
    with filebeat(filebeat_program, logs, tmp_path / "home", elastic.url, theirs) as process:
        until(lambda: count(elastic, theirs) >= lines // 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert count(elastic, theirs) < lines, "it was not killed in the middle"
    with filebeat(filebeat_program, logs, tmp_path / "home", elastic.url, theirs):
        until(lambda: count(elastic, theirs) >= lines + 2)
    ours = shipper(tmp_path / "state", elastic.url, mine)
    _, troubles = ours.communicate(timeout=120)
    assert ours.returncode == 0, troubles
    assert len(documents(elastic, theirs)) == lines + 2, "a line was sent twice and is there twice"
    assert documents(elastic, theirs) == documents(elastic, mine)


def test_filebeat_asks_for_the_pipeline_that_the_setup_puts_and_takes_lines_as_long_as_ours(elastic):
    config = yaml.safe_load(CONFIG.read_text())
    changes = ElasticAdmin(connect(Access(elastic.url)), replicas=0).setup(dry_run=True)
    kinds = [change.kind for change in changes]
    assert config["output.elasticsearch"]["pipeline"] == READ in [change.name for change in changes]
    assert kinds.index("pipeline") < kinds.index("index template"), (
        "an event that finds no pipeline is dropped for good"
    )
    assert config["filebeat.inputs"][0]["message_max_bytes"] == LONGEST_LINE


@pytest.mark.long
def test_filebeat_loses_what_it_sends_before_the_setup_which_is_why_the_setup_comes_first(
    own_elastic, filebeat_program, tmp_path
):
    bare = own_elastic()
    logs = estate(tmp_path / "state")
    write_lines(logs / "engine-1.jsonl", "engine", 0, 200)
    registry = tmp_path / "home" / "data" / "registry" / "filebeat" / "log.json"
    with filebeat(filebeat_program, logs, tmp_path / "home", bare.url, "x"):
        until(lambda: registry.exists() and b'"offset":' in registry.read_bytes())
        until(lambda: f'"offset":{(logs / "engine-1.jsonl").stat().st_size}'.encode() in registry.read_bytes())
    set_up(bare.url)
    with filebeat(filebeat_program, logs, tmp_path / "home", bare.url, "x"):
        write_lines(logs / "engine-1.jsonl", "engine", 200, 1)
        until(lambda: count(bare, "x") == 1)
    ours = shipper(tmp_path / "state", bare.url, "y")
    ours.communicate(timeout=120)
    assert count(bare, "y") == 201
