"""A person's hand on trading, and what `status` tells of it: control for real, an engine's interface in its place."""

# mypy: disable-error-code="arg-type"
# (plain numbers and texts stand for instants and ids, and a stand-in for the plant)
from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from control import faults, killswitch, terminal, verbs_exchange, verbs_market
from control.addresses import load_addresses, save_addresses
from control.child import now
from control.layout import Layout
from exchange.accounting import LoadLine
from exchange.adapters.verify import read_instruments
from exchange.ports import ClientOutcome
from monitor.adapters.log_rule_files import load as load_rules
from tests.control.desk_plant import desk_plant
from tests.control.test_cli import open_incident, run, run_beside


@dataclass
class Engine:
    """Halts and resumes as an engine does, and remembers what it was told."""

    admin: str
    state_hash: str
    clean_start: bool = True
    ready: bool = True
    journal_failed: bool = False
    market_halted: bool = False
    halted: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    told: list[dict[str, Any]] = field(default_factory=list)

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response({
            "ready": self.ready, "phase": "ready" if self.ready else "replaying", "detail": "", "seq": 0,
            "market_halted": self.market_halted, "halted_symbols": sorted(self.halted),
            "disabled_accounts": sorted(self.disabled), "clean_start": self.clean_start,
            "journal_failed": self.journal_failed,
        })  # fmt: skip

    async def hash(self, _: web.Request) -> web.Response:
        return web.json_response({"seq": 0, "state_hash": self.state_hash})

    async def change(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {self.admin}"
        body, verb = await request.json(), request.match_info["verb"]
        self.told.append({"verb": verb, **body})
        if verb == "account":
            (self.disabled.discard if body["enabled"] else self.disabled.add)(body["account"])
        if verb in {"account", "fund", "phase"}:
            return web.json_response({"seq": 1, "replayed": False})
        if body["symbol"] is None:
            self.market_halted = verb == "halt"
        elif verb == "halt":
            self.halted.add(body["symbol"])
        else:
            self.halted.discard(body["symbol"])
        return web.json_response({"seq": 1, "replayed": False})


@contextlib.asynccontextmanager
async def plant_with_engine(root: Path) -> AsyncIterator[tuple[Engine, list[str]]]:
    """Yield the engine and the symbols there are."""
    async with desk_plant(root) as plant:
        held = json.loads((await run_beside("exchange", "verify", "--json", "--state", root))[1])["state_hash"]
        engine = Engine(plant.secret("admin"), held)
        app = web.Application()
        app.router.add_get("/v1/status", engine.status)
        app.router.add_get("/v1/hash", engine.hash)
        app.router.add_post("/admin/{verb}", engine.change)
        async with TestServer(app) as server:
            book = load_addresses(plant.layout.addresses)
            save_addresses(
                msgspec.structs.replace(book, engine=str(server.make_url("")).rstrip("/")), plant.layout.addresses
            )
            yield engine, [str(one.symbol) for one in read_instruments(root / "instruments.json")]


async def test_a_person_halts_a_symbol_and_lets_it_trade_again(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, symbols):
        words = ("exchange", "halt", symbols[0], "--why", "odd prints", "--by", "anna k", "--state", tmp_path)
        code, out, _ = await run_beside(*words)
        assert (code, engine.halted) == (0, {symbols[0]})
        again = f"`tapewatch exchange resume {symbols[0]}` lets it trade again\n"
        assert out == f"{symbols[0]} is halted by anna k: odd prints; {again}"
        assert "was halted already" in (await run_beside(*words))[1]
        first, second = engine.told
        assert (first["verb"], first["reason"], first["symbol"]) == ("halt", "operator", symbols[0])
        assert first["key"].startswith("person-anna_k-")
        assert first["key"] != second["key"]
        kept = json.loads(Layout(tmp_path).log("people").read_text().splitlines()[0])
        assert (kept["user.name"], kept["event.id"]) == ("anna k", first["key"])
        assert "odd prints" in kept["message"]

        code, out, _ = await run_beside("exchange", "resume", symbols[0], "--by", "bo", "--state", tmp_path)
        assert (code, out, engine.halted) == (0, f"{symbols[0]} is resumed by bo\n", set())
        code, out, _ = await run_beside("exchange", "resume", symbols[0], "--state", tmp_path)
        assert (code, out) == (0, f"{symbols[0]} is not halted: nothing was done\n")


async def test_a_symbol_resumed_in_a_halted_market_is_said_to_wait_for_the_market(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, symbols):
        engine.halted, engine.market_halted = {symbols[0]}, True
        _, out, _ = await run_beside("exchange", "resume", symbols[0], "--state", tmp_path)
        assert "trades again once the market is resumed, too" in out
        engine.halted = {symbols[1]}
        code, out, _ = await run_beside("exchange", "resume", "--market", "--by", "bo", "--state", tmp_path)
        assert (code, out) == (0, f"the market is resumed by bo; still halted: {symbols[1]}\n")


async def test_after_an_unclean_stop_the_market_opens_only_on_a_replay_equal_to_the_engine(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, _):
        engine.clean_start, engine.market_halted, held = False, True, engine.state_hash
        engine.state_hash = "f" * 64
        code, out, err = await run_beside("exchange", "resume", "--market", "--state", tmp_path)
        assert (code, out, engine.market_halted, engine.told) == (3, "", True, [])
        assert "the market stays halted: at command 0 the journal replays to" in err
        engine.state_hash = held
        code, out, _ = await run_beside("exchange", "resume", "--market", "--by", "bo", "--state", tmp_path)
        assert (code, engine.market_halted) == (0, False)
        assert out == "the market is resumed by bo; its last stop was unclean: 0 commands replayed to an equal state\n"


async def test_a_person_turns_the_phase_and_resumes_with_an_auction(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, symbols):
        words = (
            "exchange",
            "phase",
            "closing_auction",
            "--market",
            "--by",
            "bo",
            "--why",
            "early",
            "--state",
            tmp_path,
        )
        code, out, _ = await run_beside(*words)
        assert (code, out) == (0, "the market is in phase closing_auction by bo: early\n")
        assert {**engine.told[0], "key": ""} == {"verb": "phase", "key": "", "symbol": None, "phase": "closing_auction"}
        engine.halted = {symbols[0]}
        _, out, _ = await run_beside("exchange", "phase", "pre_open", symbols[0], "--state", tmp_path)
        assert "it is halted, and stays so until it is resumed" in out
        words = ("exchange", "resume", symbols[0], "--auction", "--by", "bo", "--state", tmp_path)
        code, out, _ = await run_beside(*words)
        assert (code, out) == (0, f"{symbols[0]} is resumed by bo, with an auction first\n")
        assert engine.told[-1]["auction"] is True
        kept = [json.loads(line) for line in Layout(tmp_path).log("people").read_text().splitlines()]
        assert [one["event.action"] for one in kept] == [
            "phase-market", f"phase-{symbols[0]}", f"resume-{symbols[0]}"
        ]  # fmt: skip
        assert kept[0]["message"] == "bo asked to turn the market to closing_auction: early"
        (strangers,) = (one for one in load_rules(Path("alerts/logs")) if one.name == "UnknownProcessLogs")
        assert {one["service.name"] for one in kept} <= set(strangers.values), "a person's act is no stranger's"


async def test_a_person_funds_an_account_and_switches_it_off_and_on(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, (symbol, *_)):
        by = ("--by", "bo", "--why", "ticket 7", "--state", tmp_path)
        code, out, _ = await run_beside("exchange", "fund", "ann", "$cash", "5000", *by)
        assert (code, out) == (0, "ann: 5000 millionths of $cash given by bo: ticket 7\n")
        _, out, _ = await run_beside("exchange", "fund", "ann", symbol, "7", "--take", *by)
        assert out == f"ann: 7 lots of {symbol} taken by bo: ticket 7\n"
        assert [one["amount"] for one in engine.told] == [5000, -7]
        code, _, err = await run_beside("exchange", "fund", "ann", "USD", "5", *by)
        assert code == 2
        assert "asset: 'USD' is none; '$cash' (in quotes, for the shell) or one of " in err
        assert len(engine.told) == 2
        _, out, _ = await run_beside("exchange", "enable", "ann", *by)
        assert out == "ann is not disabled: nothing was done\n"
        _, out, _ = await run_beside("exchange", "disable", "ann", *by)
        assert out == "ann is disabled by bo: ticket 7; `tapewatch exchange enable ann` ends it\n"
        assert engine.disabled == {"ann"}
        code, _, err = await run_beside("exchange", "disable", "ann lee", *by)
        assert (code, engine.disabled) == (2, {"ann"})
        assert "'ann lee' is none; 1 to 64 printable ASCII characters without spaces" in err
        assert "was disabled already" in (await run_beside("exchange", "disable", "ann", *by))[1]
        _, out, _ = await run_beside("exchange", "enable", "ann", *by)
        assert (out, engine.disabled) == ("ann may send orders again by bo: ticket 7\n", set())


async def test_an_engine_that_still_replays_is_not_reachable_yet(tmp_path):
    async with plant_with_engine(tmp_path) as (engine, _):
        engine.ready = False
        code, _, err = await run_beside("exchange", "resume", "--market", "--state", tmp_path)
        assert (code, err) == (4, "tapewatch: the engine is not ready: it is replaying\n")


async def test_status_tells_what_is_forbidden_halted_and_waiting(tmp_path, capsys):
    async with plant_with_engine(tmp_path) as (engine, symbols):
        engine.halted = {symbols[0]}
        incident = await open_incident_in(tmp_path)
        killswitch.throw(Layout(tmp_path).kill_switch, by="anna", why="a [test]", at=now())
        found = await told_by(tmp_path)
        assert found["kill_switch"] == {"on": True, "by": "anna", "why": "a [test]"}
        assert found["market"] == {"halted": False, "halted_symbols": [symbols[0]], "journal_failed": False}
        assert found["incidents"]["open"] == 1, incident
        assert found["incidents"]["waiting_for_person"] in {0, 1}
        lines = dict(terminal._headlines(found))
        assert lines["kill switch"] == "[bold red]on[/], thrown by anna: a \\[test]"
        assert lines["market"] == f"open; [bold red]halted symbols:[/] {symbols[0]}"
        terminal.print_status(found)
        engine.journal_failed = True
        lines = dict(terminal._headlines(await told_by(tmp_path)))
        assert lines["market"] == "[bold red]takes no orders: the engine's journal failed[/]"
        assert "1 unresolved" in capsys.readouterr().out


async def test_status_tells_when_engine_and_control_do_not_answer_and_where_orders_enter(tmp_path, capsys):
    async with desk_plant(tmp_path) as plant:
        book = load_addresses(plant.layout.addresses)
        book = msgspec.structs.replace(book, control=plant.nobody, edge="https://127.0.0.1:7")
        save_addresses(book, plant.layout.addresses)
        found = await told_by(tmp_path)
    terminal.print_status(found)
    assert f"orders       https://127.0.0.1:7/v1/orders by TLS; {found['edge_ca']} vouches" in capsys.readouterr().out
    assert found["kill_switch"] == {"on": False, "by": None, "why": None}
    assert (found["market"], found["incidents"]) == (None, None)
    lines = dict(terminal._headlines(found))
    assert "the engine does not answer" in lines["market"]
    assert "control does not answer" in lines["incidents"]


async def told_by(root: Path) -> dict[str, Any]:
    import asyncio

    return await asyncio.to_thread(lambda: terminal.status_of(faults.connect(root), []))


async def open_incident_in(root: Path) -> str:
    layout = Layout(root)

    class There:
        url = load_addresses(layout.addresses).control

        def bearer(self, name: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {layout.secret(name).read_text()}"}

    return await open_incident(There())


@pytest.mark.parametrize("torn", [b"", b'{"account": "m", "cl'])
def test_an_interval_of_load_is_counted_from_where_the_logs_ended(tmp_path, torn):
    def line(outcome: ClientOutcome) -> bytes:
        return msgspec.json.encode(LoadLine("m", "c", "place", 1, 1, 2, outcome)) + b"\n"

    old = tmp_path / "requests-1.jsonl"
    old.write_bytes(line(ClientOutcome.ACKNOWLEDGED) * 3)
    before = verbs_exchange._sizes(tmp_path)
    with old.open("ab") as file:
        file.write(line(ClientOutcome.REFUSED) + torn)
    (tmp_path / "requests-2.jsonl").write_bytes(line(ClientOutcome.ACKNOWLEDGED) * 2)
    assert verbs_exchange._answers_since(tmp_path, before) == {
        "sent": 3, "acknowledged": 2, "rejected": 0, "refused": 1, "unknown": 0,
    }  # fmt: skip


def test_help_of_load_says_what_becomes_of_the_usual_load():
    assert "replaces the estate's usual load" in " ".join(run("exchange", "load", "--help")[1].split())


STANDING = {
    "market_phase": "pre_open", "market_halted": False, "market_halt_reason": None, "halted_symbols": [],
    "disabled_accounts": [], "seq": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ({"next_phase": "continuous", "next_phase_at": 1772438400_000000000, "by_calendar": True},
         {"phase": "pre_open", "halted": "nothing",
          "next turn": "continuous at 2026-03-02T08:00:00.000000Z, in 10 min 0 s"}),
        ({"next_phase": "closed", "next_phase_at": 1772445600_000000000, "by_calendar": True},
         {"next turn": "closed at 2026-03-02T10:00:00.000000Z, in 2 h 10 min"}),
        ({"next_phase_at": None, "by_calendar": True},
         {"next turn": "none within the month that the calendar looks ahead"}),
        ({"journal_failed": True, "detail": "the journal failed: no space"},
         {"phase": "pre_open", "orders": "none is taken: the journal failed: no space"}),
        ({"market_halted": True, "market_halt_reason": "operator"}, {"halted": "the market (operator)"}),
        ({"halted_symbols": ["MOVA", "KETU"], "disabled_accounts": ["ann"]},
         {"halted": "MOVA, KETU", "disabled": "ann",
          "next turn": "by a person (no calendar turns the phases: phases_by_calendar is false)"}),
    ],
)  # fmt: skip
def test_status_tells_the_phase_what_is_halted_and_the_next_turn(more, lines):
    told = dict(verbs_market.status_words({**STANDING, **more}, 1772437800_000000000))
    assert {name: told[name] for name in lines} == lines
