# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The engine's process on real brokers: killed, without a majority, in another directory; and the terminal's verbs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import aiohttp
import pytest
from confluent_kafka import TopicPartition

from control.addresses import url_of
from control.config import KafkaAccess, RoleConfig, save_config
from control.layout import Layout
from control.plan import free_ports
from exchange.adapters.engine_server import EXIT_JOURNAL_FAILED
from exchange.adapters.file_log import read_records
from exchange.adapters.kafka_log import read_journal, reader, values
from exchange.adapters.listing_file import write_listing
from exchange.journal import Kind, decode_command
from exchange.listing import Listing
from exchange.messages import unseal
from exchange.ports import Refusal
from exchange.protocol import Answer, Refused
from exchange.types import Venue
from tests.control.test_cli import run
from tests.exchange.plant import INSTRUMENTS, client_of, order
from tests.kafka_brokers import new_place

pytestmark = pytest.mark.kafka
ADMIN = {"Authorization": "Bearer admin-secret"}


class Engine:
    """An engine's process in a state directory, with its journal at a place in Kafka."""

    def __init__(self, root, place):
        self.layout, self.place = Layout(root), place
        self.http, self.stream = free_ports(2)
        secret = self.layout.secret("admin")
        secret.parent.mkdir(parents=True)
        secret.write_text("admin-secret")
        self.layout.journal.mkdir(parents=True)
        (root / "instruments.json").write_bytes(write_listing(Listing(INSTRUMENTS, Venue())))
        wanted = {name: getattr(place, name) for name in KafkaAccess.__struct_fields__}
        config = RoleConfig(
            role="engine", replica="engine-1", state=str(root), port=self.http, engine_http_port=self.http,
            engine_stream_port=self.stream, market_data_port=1, settlement_port=1, estate_port=1, control_port=1,
            prometheus_url="", alertmanager_url="", instruments=INSTRUMENTS, kafka=KafkaAccess(**wanted),
        )  # fmt: skip
        save_config(config, self.layout.config("engine-1"))
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()

    def start(self):
        argv = [sys.executable, "-m", "control.roles", str(self.layout.config("engine-1"))]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def stop(self, words=""):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=90)
        assert words in errors if words else not errors
        return self.process.returncode

    async def status(self, session):
        try:
            async with session.get(url_of(self.http) + "/v1/status") as answer:
                return await answer.json()
        except aiohttp.ClientError:
            return {"ready": False, "journal_failed": False}

    async def until(self, session, holds, within_s=60):
        deadline = time.monotonic() + within_s
        while not holds(status := await self.status(session)):
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, status
            await asyncio.sleep(0.05)
        return status

    async def ready(self, session):
        return await self.until(session, lambda status: status["ready"])

    async def held(self, session):
        async with session.get(url_of(self.http) + "/v1/hash") as answer:
            return await answer.json()

    async def resume(self, session):
        body = {"key": f"resume-{time.monotonic_ns()}", "symbol": None}
        async with session.post(url_of(self.http) + "/admin/resume", json=body, headers=ADMIN) as answer:
            assert answer.status == 200, await answer.text()

    async def metric(self, session, name):
        async with session.get(url_of(self.http) + "/metrics") as answer:
            found = [line for line in (await answer.text()).splitlines() if line.startswith((name + "{", name + " "))]
        return None if not found else float(found[0].rsplit(" ", 1)[1])

    async def tells(self, session, name, value):
        """Wait until a metric has a value: each is told in its own time."""
        async with asyncio.timeout(60):
            while await self.metric(session, name) != value:  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(0.05)


async def send(engine, names):
    async with client_of(engine.stream) as client:
        replies = await asyncio.gather(*(client.submit(order(name), 30) for name in names))
    assert all(isinstance(reply, Answer) for reply in replies), replies


def published(place):
    consumer = reader(place)
    try:
        where = TopicPartition(place.events, place.partition)
        low, high = consumer.get_watermark_offsets(where, timeout=10, cached=False)
        found = values(consumer, TopicPartition(place.events, place.partition, low), high)
        return [unseal(value, Kind.EVENTS)[2:] for _, value in found]
    finally:
        consumer.close()


def known_ids(place):
    commands = [decode_command(record.payload).command for record in read_journal(place)]
    return [one.client_id for one in commands if hasattr(one, "client_id") and hasattr(one, "quantity")]


async def test_an_engine_is_killed_and_comes_back_in_another_directory_with_all_it_acknowledged(kafka, tmp_path):
    place = new_place(kafka)
    names = [f"o{number}" for number in range(300)]
    async with aiohttp.ClientSession() as session:
        with Engine(tmp_path / "one", place) as engine:
            assert (await engine.ready(session))["clean_start"]
            await send(engine, names)
            held = await engine.held(session)
            await engine.tells(session, "exchange_events_published_sequence", held["seq"])
            await engine.tells(session, "exchange_events_unpublished_commands", 0)
            await exchange_verbs_agree(engine, held)
            engine.kill()
            written = list(read_records(engine.layout.events, kind=Kind.EVENTS))
            assert published(place) == [(one.seq, one.payload) for one in written]
        with Engine(tmp_path / "two", place) as engine:
            status = await engine.ready(session)
            assert (status["recovered_commands"], status["market_halted"]) == (held["seq"], True)
            await engine.resume(session)
            await send(engine, names[:5])  # known, and answered as the first time
            await send(engine, ["new"])
            assert sorted(known_ids(place)) == sorted([*names, "new"])
            assert engine.stop() == 0
        seqs = [seq for seq, _ in published(place)]
        assert sorted(set(seqs)) == list(range(1, held["seq"] + 4))  # a halt, its end and one order more


async def exchange_verbs_agree(engine, held):
    """Replay and verify, in the state directory and by the brokers' names, tell what `/v1/hash` tells."""
    far = ("--kafka", engine.place.bootstrap, "--topic", engine.place.topic)
    listing = ("--instruments", engine.layout.root / "instruments.json")
    for words in (("replay", engine.layout.root), ("replay", *far, *listing), ("verify", *far, *listing)):
        code, out, errors = await asyncio.to_thread(run, "exchange", *words, "--json")
        assert code == 0, errors
        told = json.loads(out)
        assert (told["last_seq"], told["state_hash"]) == (held["seq"], held["state_hash"])
    code, out, _ = await asyncio.to_thread(run, "exchange", "verify", engine.layout.root)
    assert code == 0
    assert "the journal itself is in Kafka" in out


@pytest.mark.long
async def test_without_a_majority_nothing_is_acknowledged_and_after_a_restart_all_that_was_is_there(kafka, tmp_path):
    place = new_place(kafka, delivery_s=4.0)
    async with aiohttp.ClientSession() as session:
        with Engine(tmp_path, place) as engine:
            await engine.ready(session)
            await send(engine, [f"o{number}" for number in range(50)])
            kafka.kill(1, 2)
            try:
                async with client_of(engine.stream) as client:
                    lost = await client.submit(order("lost"), 30)
                    later = await client.submit(order("later"), 30)
                assert [one.reason for one in (lost, later) if isinstance(one, Refused)] == [
                    Refusal.UNDECIDED, Refusal.JOURNAL_FAILED,
                ]  # fmt: skip
                assert (await engine.status(session))["journal_failed"]
                assert await engine.metric(session, "exchange_journal_failed") == 1
                assert await engine.metric(session, "exchange_journal_fenced") == 0
                assert engine.stop() == EXIT_JOURNAL_FAILED
                engine.start()  # what a runbook does, and too early: it waits
                status = await engine.until(session, lambda status: status.get("phase"))
                assert not status["ready"]
            finally:
                kafka.start_one(1, wait=False)
                kafka.start_one(2)
            assert (await engine.ready(session))["recovered_commands"] >= 50
            await engine.resume(session)
            await send(engine, ["after"])
            ids = known_ids(place)
            assert sorted(one for one in ids if one != "lost") == sorted(["after", *(f"o{n}" for n in range(50))])
            assert engine.stop() == 0
        assert sorted({seq for seq, _ in published(place)}) == list(range(1, len(list(read_journal(place))) + 1))


async def test_a_second_engine_of_a_partition_fences_the_first_which_says_so_and_refuses(kafka, tmp_path):
    place = new_place(kafka)
    async with aiohttp.ClientSession() as session:
        with Engine(tmp_path / "one", place) as old:
            await old.ready(session)
            await send(old, ["a"])
            with Engine(tmp_path / "two", place) as new:
                await new.ready(session)
                async with client_of(old.stream) as client:
                    assert isinstance(await client.submit(order("b"), 30), Refused)
                status = await old.status(session)
                assert "another engine has opened this partition" in status["detail"]
                assert await old.metric(session, "exchange_journal_fenced") == 1
                assert old.stop("fenced by newer producer") == EXIT_JOURNAL_FAILED  # the library's own last words
                await new.resume(session)
                await send(new, ["c"])
                assert known_ids(place) == ["a", "c"]
                assert new.stop() == 0
