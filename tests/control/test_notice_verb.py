"""Notices by a person's hand: looked up, followed, and what is said where there are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from control import verbs_notices
from control.config import RabbitAccess
from exchange.adapters.notice_server import NoticeParts, NoticeServer, notice_routes
from exchange.adapters.notice_store import NoticeStore
from exchange.notices import Notice, NoticeKind
from exchange.recording import RecordingLog
from exchange.types import Side
from kernel.adapters.clock import SystemClock
from kernel.errors import TemporaryError
from kernel.time import SECOND, Instant
from tests.control.test_cli import run
from tests.exchange.notice_plant import RecordingNotices

SECRET = "a-secret-of-this-estate"
BUY = Notice(
    id="trade.3.buy", kind=NoticeKind.TRADE_SETTLED, at=Instant(5 * SECOND), account="ann", symbol="AAA", trade_id=3,
    side=Side.BUY, quantity=2, price=10, fee=7,
)  # fmt: skip
HALTED = Notice(id="0.9.0", kind=NoticeKind.HALTED, at=Instant(6 * SECOND), reason="operator")
GONE = Notice(id="0.9.1", kind=NoticeKind.ORDERS_CANCELLED, at=Instant(7 * SECOND), account="[b]ob[/]",
              reason="kill_switch", client_id="k", count=3, orders=(4, 5))  # fmt: skip


class Client:
    """Asks an application as HTTP would."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    def get(self, path: str, secret: str = "") -> tuple[int, Any]:
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(b"authorization", f"Bearer {secret}".encode())] if secret else [],
        }  # fmt: skip
        told: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        asyncio.run(self.app(scope, receive, send))
        return told[0]["status"], json.loads(told[1]["body"])


def parts(store: NoticeStore) -> NoticeParts:
    def nothing(*_: object) -> Any:
        raise AssertionError("it is not run")

    return NoticeParts(store, nothing, nothing, nothing, nothing, RecordingNotices(), RecordingLog(), SystemClock())  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Any) -> Iterator[NoticeStore]:
    made = NoticeStore(tmp_path / "notices.sqlite")
    made.keep([BUY, HALTED, GONE])
    yield made
    made.close()


@pytest.fixture
def client(store: NoticeStore) -> Client:
    return Client(Starlette(routes=notice_routes(NoticeServer(parts(store)), SECRET)))


@pytest.fixture
def estate(client: Client, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for an estate with a broker, whose settlement answers as the real one."""
    asked: list[str] = []

    def role(method: str, replica: str, path: str) -> Any:
        asked.append(path)
        return client.get(path, SECRET)[1]

    plant = SimpleNamespace(role=role, asked=asked, layout=SimpleNamespace(root="/nowhere"))
    monkeypatch.setattr(verbs_notices, "estate_of", lambda _: plant.layout)
    monkeypatch.setattr(verbs_notices, "connect", lambda _: plant)
    monkeypatch.setattr(
        verbs_notices, "configured", lambda *_: SimpleNamespace(rabbit=RabbitAccess(url="amqp://127.0.0.1/"))
    )
    return plant


def notices(*words: str) -> tuple[int, str, str]:
    return run("exchange", "notices", *words)


def test_they_are_printed_in_their_order_each_with_whom_it_concerns(estate):
    code, told, said = notices()
    lines = told.splitlines()
    assert code == 0
    assert [line.split()[1:3] for line in lines] == [
        ["ann", "trade.settled"], ["market", "halted"], ["[b]ob[/]", "orders.cancelled"],
    ]  # fmt: skip
    assert "symbol=AAA trade_id=3 side=buy quantity=2 price=10 fee=7" in lines[0]
    assert lines[2].endswith("count=3 orders=4,5,...")
    assert "the queue of notices is not read now" in said


def test_those_of_one_account_and_as_json_one_a_line(estate):
    _, told, _ = notices("--account", "ann", "--json")
    (line,) = told.splitlines()
    assert json.loads(line) == {
        "number": 1, "id": "trade.3.buy", "kind": "trade.settled", "at": 5 * SECOND, "account": "ann", "symbol": "AAA",
        "trade_id": 3, "side": "buy", "quantity": 2, "price": 10, "fee": 7,
    }  # fmt: skip
    assert notices("--account", "nobody")[:2] == (0, "")
    assert notices("-n", "1")[1].split()[1] == "[b]ob[/]"


def test_following_goes_on_behind_what_was_shown_and_over_a_settlement_that_is_away(estate, store, monkeypatch):
    polls = 0

    def wait(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 1:
            store.keep([Notice(id="new", kind=NoticeKind.RESUMED, at=Instant(8))])
        elif polls == 4:
            raise KeyboardInterrupt

    real = estate.role

    def role(*words: str) -> Any:
        if polls in {1, 2}:
            raise TemporaryError("settlement does not answer")
        return real(*words)

    estate.role = role
    monkeypatch.setattr(verbs_notices.time, "sleep", wait)
    code, told, said = notices("--follow", "-n", "0", "--json")
    assert code != 0
    assert [json.loads(line)["id"] for line in told.splitlines()] == ["new"]
    assert said.count("settlement does not answer") == 1


def test_an_estate_without_a_broker_says_so(estate, monkeypatch):
    monkeypatch.setattr(verbs_notices, "configured", lambda *_: SimpleNamespace(rabbit=None))
    code, _, said = notices()
    assert code == 2
    assert "runs without a broker of messages" in said


def test_nobody_without_the_secret_reads_what_accounts_are_told(client):
    assert client.get("/v1/notices")[0] == client.get("/v1/notices", "wrong")[0] == 401
    assert client.get("/v1/notices", SECRET)[0] == 200


@pytest.mark.parametrize("asked", ["after=-1", "after=x", "most=1e3", "most=" + "9" * 19, "after=%C2%B2", "after=1.5"])
def test_a_question_that_makes_no_sense_is_refused(client, asked):
    status, answer = client.get(f"/v1/notices?{asked}", SECRET)
    assert (status, "whole numbers" in answer["error"]) == (400, True)


def test_readiness_says_what_is_missing(client):
    assert client.get("/health/notices") == (503, {"ready": False, "detail": "no events yet"})
