"""Dead letters by a person's hand: seen, shown without secrets, put back or dropped, and kept account of."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import stat

import msgspec
import pytest

from control import letter_desk, verbs_letters
from control.addresses import HOST
from control.config import RabbitAccess, RoleConfig, save_config
from control.layout import Layout
from control.letter_desk import LetterDesk, open_desk, secrets_of, shown
from control.plan import free_ports
from control.state_dir import StateDir
from exchange.adapters.memory_broker import MemoryBroker
from exchange.letters import Deed
from exchange.messaging import Outgoing, PoisonError
from kernel.adapters.clock import SystemClock
from kernel.errors import InputError, PermanentError, TemporaryError
from tests.control.test_cli import run

SECRET = "a-secret-of-this-estate"


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "up")
    StateDir(layout.root).release()
    layout.secret("admin").parent.mkdir(parents=True, exist_ok=True)
    layout.secret("admin").write_text(SECRET + "\n")
    return layout


@pytest.fixture
def broker(layout, monkeypatch):
    made = MemoryBroker()
    desk = LetterDesk({"rabbit": made.letters()}, layout.letter_deeds, SystemClock())
    monkeypatch.setattr(verbs_letters, "open_desk", lambda *_: desk)
    return made


def bury(broker, *bodies):
    """Have the service of cash refuse messages."""

    async def refuse(batch):
        raise PoisonError(batch[0], "it asks for [no] step")

    async def work():
        messages = [
            Outgoing(routing_key="saga.ask.cash", body=body, message_id=f"m{number}")
            for number, body in enumerate(bodies)
        ]
        await broker.publisher().publish(messages)
        task = asyncio.create_task(broker.consumer("saga.cash").run(refuse))
        while len(broker.dead("saga.cash")) < len(bodies):  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0)  # the broker's and the reader's turn
        task.cancel()

    asyncio.run(work())


def letters(layout, *words):
    return run("exchange", "dead-letters", *words, "--state", layout.root)


def listed(layout, *words):
    code, told, _ = letters(layout, "list", "--json", *words)
    assert code == 0
    return json.loads(told)


def test_a_list_tells_where_each_lies_why_its_key_its_size_and_no_body(layout, broker):
    bury(broker, b"body")
    (one,) = listed(layout)
    assert one == {
        "id": one["id"], "lies_in": "saga.cash.dead", "came_from": "saga.cash", "at": None, "key": "saga.ask.cash",
        "why": "it asks for [no] step", "deliveries": 1, "copies": 1, "bytes": 4,
    }  # fmt: skip
    code, told, _ = letters(layout, "list")
    assert (code, one["id"] in told, "it asks for [no] step" in told) == (0, True, True)


def test_a_list_of_one_place_has_no_other_s(layout, broker):
    bury(broker, b"body")
    assert len(listed(layout, "--in", "saga.cash.dead")) == 1
    assert listed(layout, "--in", "saga.cas") == listed(layout, "--in", "saga.fees.dead") == []
    assert "no dead letters" in letters(layout, "list", "--in", "saga.fees.dead")[1]


def test_a_body_is_shown_without_the_estate_s_secrets_and_without_what_a_terminal_obeys(layout, broker):
    bury(broker, f'{{"note":"{SECRET}","api_key":"k1"}}'.encode(), b"\x1b[31m" + SECRET.encode())
    for one in listed(layout):
        for more in ((), ("--json",)):
            code, told, _ = letters(layout, "show", one["id"], *more)
            assert code == 0
            assert SECRET not in told
            assert "k1" not in told
            assert "\x1b" not in told
            assert "[redacted]" in told


def test_one_that_is_put_back_is_in_its_queue_and_the_account_holds_it(layout, broker):
    bury(broker, b"body")
    (one,) = listed(layout)
    code, told, _ = letters(layout, "requeue", one["id"], "--by", "anna")
    assert (code, told.strip()) == (0, f"{one['id']} requeued to saga.cash")
    assert (broker.depth("saga.cash"), listed(layout)) == (1, [])
    (line,) = layout.letter_deeds.read_text().splitlines()
    kept = json.loads(line)
    assert (kept["by"], kept["deed"], kept["id"]) == ("anna", "requeued", one["id"])
    assert base64.b64decode(kept["body"]) == b"body"
    assert stat.S_IMODE(layout.letter_deeds.stat().st_mode) == 0o600


def test_without_yes_nothing_is_dropped_and_with_it_the_letter_is_in_the_account_alone(layout, broker):
    bury(broker, b"a", b"b")
    first, second = listed(layout)
    code, _, told = letters(layout, "drop", first["id"])
    assert (code, "say --yes" in told, len(listed(layout))) == (3, True, 2)
    assert not layout.letter_deeds.exists()
    code, told, _ = letters(layout, "drop", first["id"], "--yes", "--json")
    assert (code, [each["id"] for each in json.loads(told)]) == (0, [first["id"]])
    assert [each["id"] for each in listed(layout)] == [second["id"]]
    assert broker.depth("saga.cash") == 0
    assert json.loads(layout.letter_deeds.read_text())["deed"] == "dropped"


@pytest.mark.parametrize("words", [("show",), ("requeue",), ("drop", "--yes")])
@pytest.mark.parametrize("name", ["rabbit-ff", "kafka-0-1", "nonsense"])
def test_an_unknown_id_is_told_by_name_with_the_way_to_the_known_ones(layout, broker, words, name):
    bury(broker, b"a")
    code, _, told = letters(layout, *words, name)
    assert code == 2
    assert f"dead letter {name}: is not there" in told
    assert "dead-letters list" in told
    assert len(listed(layout)) == 1


def test_a_deed_that_cannot_be_kept_leaves_the_letter(layout, broker):
    bury(broker, b"a")
    (one,) = listed(layout)
    layout.letter_deeds.mkdir(parents=True)
    code, _, told = letters(layout, "drop", one["id"], "--yes")
    assert (code, "it stays" in told) == (1, True)
    assert listed(layout) == [one]


def test_a_letter_stays_when_the_account_does_not_reach_the_disk(layout, broker, monkeypatch):
    def failing(_descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    bury(broker, b"a")
    (one,) = listed(layout)
    with monkeypatch.context() as failing_disk:
        failing_disk.setattr(letter_desk.os, "fsync", failing)
        code, _, told = letters(layout, "drop", one["id"], "--yes")
    assert (code, "it stays" in told) == (1, True)
    assert listed(layout) == [one]


def test_a_broker_that_is_away_is_told_and_the_other_s_letters_are_listed_all_the_same(layout, broker, monkeypatch):
    bury(broker, b"a")

    class Away:
        async def look(self, _):
            raise TemporaryError("no Kafka broker answers")

    desk = LetterDesk({"rabbit": broker.letters(), "kafka": Away()}, layout.letter_deeds, SystemClock())
    monkeypatch.setattr(verbs_letters, "open_desk", lambda *_: desk)
    code, told, wrong = letters(layout, "list", "--json")
    assert (code, len(json.loads(told)), "no Kafka broker answers" in wrong) == (4, 1, True)
    assert letters(layout, "show", "kafka-0-1")[0] == 4


def test_where_no_estate_ever_ran_or_none_runs_that_is_said(layout, tmp_path):
    code, _, told = run("exchange", "dead-letters", "list", "--state", tmp_path / "nowhere")
    assert (code, "no estate ever ran here" in told) == (2, True)
    code, _, told = letters(layout, "list")
    assert (code, "no estate runs" in told) == (4, True)


@pytest.fixture
def running(layout, monkeypatch):
    """Estate files as a running one has them; call it with what settlement's configuration says of brokers."""
    monkeypatch.setattr(letter_desk, "connect", lambda _: None)
    plain = RoleConfig(
        role="settlement", replica="settlement-1", state=str(layout.root), port=1,
        engine_http_port=1, engine_stream_port=1, market_data_port=1, settlement_port=1, estate_port=1, control_port=1,
        prometheus_url="", alertmanager_url="", instruments=(),
    )  # fmt: skip

    def configured(**brokers):
        save_config(msgspec.structs.replace(plain, **brokers), layout.config("settlement-1"))
        return open_desk(layout, SystemClock())

    return configured


async def test_brokers_are_found_by_what_settlement_was_told(layout, running):
    layout.secret("rabbitmq").write_text("word-of-rabbit\n")
    port = free_ports(1)[0]
    desk = running(
        rabbit=RabbitAccess(url=f"amqp://tapewatch@{HOST}:{port}/", password_file=str(layout.secret("rabbitmq")))
    )
    found, (wrong,) = await desk.look(1)
    assert found == []
    assert isinstance(wrong, TemporaryError)
    assert f"RabbitMQ at {HOST}:{port}: it cannot be reached" in str(wrong)
    with pytest.raises(InputError, match="is not there"):
        await desk.settle(["kafka-0-1"], Deed.DROPPED, "anna")


def test_an_estate_without_brokers_and_one_without_files_are_told(layout, running):
    with pytest.raises(InputError, match=r"runs without brokers; .*--estate distributed"):
        running()
    layout.config("settlement-1").unlink()
    with pytest.raises(PermanentError, match="cannot be read"):
        open_desk(layout, SystemClock())


def test_queues_of_dead_letters_complete():
    assert verbs_letters.complete_place("saga.ca") == ["saga.cash.dead", "saga.cash.events.dead"]


def test_keys_of_token_files_are_secrets_and_short_words_are_not(layout):
    layout.token_keys.write_text('{"keys":[{"kid":"1","k":"shared-key-of-gateways","x":"public-part-of-one"}]}')
    layout.secret("short").write_text("abc")
    layout.secret("broken").with_suffix(".json").write_text("{")
    assert secrets_of(layout) == [SECRET.encode(), b"shared-key-of-gateways"]


def test_a_body_that_is_no_text_is_written_out():
    assert shown(b"\x00\xfe\xc2\x85a\nb") == "\\x00\\xfe\\x85a\nb"
