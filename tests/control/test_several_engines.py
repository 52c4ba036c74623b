# mypy: check-untyped-defs=False
"""Several engines in one estate: each gets its partition and its symbols, and what does not go together is refused."""

import asyncio

import msgspec
import pytest

from control import estate, journal_desk, plan, server_plan
from control.config import EngineAddress, load_config
from control.settings import Settings, load_settings
from control.state_dir import StateDir
from control.verbs_market import status_words
from exchange import snapshot
from exchange.adapters.engines_http import EngineSite, together
from exchange.adapters.file_log import FileLog
from exchange.adapters.journal_place import NOTE, part_directory, parts_of
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.ledger_check import compare, from_journal
from exchange.adapters.load_account import account
from exchange.adapters.recovery import write_snapshot
from exchange.adapters.verify import verify
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.journal import encode_command
from exchange.listing import Listing
from exchange.shards import instruments_of, partition_of, whole_id
from exchange.types import Side, Venue
from kernel.errors import InputError, PermanentError
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS, order
from tests.exchange.test_engines_http import standing

SERVICES = ("kafka", "postgres", "zipkin", "edge")


@pytest.fixture
def laid(tmp_path):
    settings = Settings(state=tmp_path / "up", ports="auto", estate="distributed", services=SERVICES, engines=3)
    state = StateDir(settings.state)
    listing = state.fill(symbols=9, seed=1, engines=3)
    server_plan.check_engines(settings, listing)
    state.share(3)
    ports = plan.choose_ports(settings)
    settings = server_plan.completed(settings, state.layout, ports)
    plan.write_configs(settings, state.layout, ports, listing.instruments, listing.venue)
    yield settings, state.layout, ports, listing
    state.release()


def test_every_engine_has_its_partition_its_symbols_and_ports_and_all_symbols_have_one(laid):
    _, layout, ports, listing = laid
    configs = [load_config(layout.config(f"engine-{number}")) for number in (1, 2, 3)]
    assert [(one.kafka.partition, one.kafka.partitions) for one in configs] == [(0, 3), (1, 3), (2, 3)]
    for place, one in enumerate(configs):
        assert {partition_of(each.symbol, 3) for each in one.instruments} == {place}
    traded = [each for one in configs for each in one.instruments]
    assert sorted(each.symbol for each in traded) == sorted(each.symbol for each in listing.instruments)
    assert len({port for one in configs for port in (one.port, one.engine_stream_port)} | {ports.engine}) == 7


def test_gateways_and_market_data_are_told_of_every_engine_and_settlement_of_every_partition(laid):
    _, layout, ports, _ = laid
    every = tuple(EngineAddress(ports.servers[f"engine-{number}/stream"]) for number in (1, 2, 3))
    for replica in ("gateway-1", "market-data-1"):
        assert load_config(layout.config(replica)).engines == every
    settlement = load_config(layout.config("settlement-1"))
    assert settlement.engines == ()
    assert (settlement.kafka.partition, settlement.kafka.partitions) == (0, 3)


def test_the_workload_has_a_replica_for_each_engine(laid):
    settings, layout, ports, _ = laid
    (engine,) = [one for one in plan.workloads(settings, layout, ports) if one.name == "engine"]
    assert [slot.id for slot in engine.slots] == ["engine-1", "engine-2", "engine-3"]
    assert engine.replicas == 3
    assert engine.singleton


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "takes a journal on Kafka in a distributed estate"),
        ({"estate": "distributed", "services": ("postgres",)}, "takes a journal on Kafka in a distributed estate"),
        ({"estate": "distributed", "services": SERVICES, "follows": "h:1"}, "follows names another region"),
    ],
)
def test_several_engines_are_refused_where_something_follows_one_of_them(given, words):
    with pytest.raises(InputError, match=words):
        load_settings(engines=2, **given)
    assert load_settings(**given | {"engines": 1}).engines == 1


def test_an_engine_without_a_symbol_and_breakers_are_refused():
    settings = load_settings(engines=16, estate="distributed", services=SERVICES)
    with pytest.raises(InputError, match="none of the 2 symbols belongs to it; take fewer partitions"):
        server_plan.check_engines(settings, Listing(INSTRUMENTS, Venue()))
    two = load_settings(engines=2, estate="distributed", services=SERVICES)
    with pytest.raises(InputError, match=r"venue\.breakers: watch the whole market"):
        server_plan.check_engines(two, Listing(INSTRUMENTS, Venue(breakers=True)))
    server_plan.check_engines(two, Listing(INSTRUMENTS, Venue()))


def test_a_state_that_was_begun_with_another_number_of_engines_is_refused(tmp_path, laid):
    _, layout, _, _ = laid
    for engines in (1, 2, 4):
        state = StateDir(tmp_path / "other")
        StateDir.fill(state, symbols=2, seed=1, engines=3)
        state.share(3)
        with pytest.raises(PermanentError, match=f"was begun with 3 engines, and engines is {engines}"):
            state.fill(symbols=2, seed=1, engines=engines)
        state.release()
    alone = StateDir(tmp_path / "alone")
    alone.fill(symbols=2, seed=1)
    place = KafkaPlace(bootstrap="h:1", cluster_id="c")
    (alone.layout.journal / NOTE).write_bytes(msgspec.json.encode(place))
    with pytest.raises(PermanentError, match=r"begun with 1 engine, and engines is 2.*TAPEWATCH_ENGINES=1"):
        alone.fill(symbols=2, seed=1, engines=2)
    alone.fill(symbols=2, seed=1)
    alone.release()
    assert [part.name for part in parts_of(layout.journal)] == ["engine-1", "engine-2", "engine-3"]


def test_a_directory_of_several_journals_is_told_and_one_of_them_has_its_files_beside(laid):
    _, layout, _, _ = laid
    with pytest.raises(InputError, match="holds the journals of 3 engines; name one of engine-1, engine-2, engine-3"):
        journal_desk.paths_of(layout.root)
    place = KafkaPlace(bootstrap="h:1", cluster_id="c", partition=1, partitions=3)
    (part_directory(layout.journal, 1) / NOTE).write_bytes(msgspec.json.encode(place))
    found = journal_desk.paths_of(part_directory(layout.journal, 1))
    assert found.events == layout.events / "engine-2"
    assert found.snapshots == layout.snapshots / "engine-2"


def test_the_snapshots_of_one_of_several_engines_are_checked_by_its_own_symbols(laid):
    _, layout, _, listing = laid
    directory, snapshots = part_directory(layout.journal, 1), part_directory(layout.snapshots, 1)
    place = KafkaPlace(bootstrap="h:1", cluster_id="c", partition=1, partitions=3)
    (directory / NOTE).write_bytes(msgspec.json.encode(place))
    snapshots.mkdir(parents=True)
    engine = Engine(instruments_of(listing.instruments, 1, 3), listing.venue)
    write_snapshot(snapshots, engine.sequence, snapshot.dump(engine))
    (found,) = journal_desk.check(directory).snapshots
    assert found.wrong == ""


def test_account_and_ledger_are_held_against_the_journals_of_all_engines(tmp_path):
    journal, load = tmp_path / "journal", tmp_path / "load"
    load.mkdir()
    for place in (0, 1):
        symbol = next(one.symbol for one in INSTRUMENTS if partition_of(one.symbol, 2) == place)
        with FileLog(part_directory(journal, place)) as log:
            for seq, side in enumerate((Side.SELL, Side.BUY), 1):
                command = msgspec.structs.replace(order(f"{symbol}-{seq}", side), symbol=symbol)
                log.append([encode_command(Sequenced(seq, Instant(seq), command))])
            log.sync()
    assert account(load, journal, INSTRUMENTS).journal_seq == 4
    told, until = from_journal(journal, Listing(INSTRUMENTS, Venue()))
    assert [number for number, _ in told.rows] == [1, whole_id(1, 1)]
    assert until == {0: 2, 1: 2}
    assert compare(told, told, until).clean
    second = type(told)(told.rows[:1], dict(list(told.moves.items())[:1]))
    assert compare(told, second, until).missing == 1
    assert compare(second, told, {0: 2, 1: 1}).clean, "what came later in its own partition is no difference"


def test_the_status_says_whose_symbols_stand_still_and_which_engine_does_not_answer():
    def told(second):
        sites = [EngineSite("engine-1", ""), EngineSite("engine-2", "")]
        return dict(status_words(together(sites, [standing(), second]), Instant(0)))

    halted = standing(market_halted=True, market_halt_reason="recovery")
    assert told(halted)["halted"] == "the symbols of engine-2 (recovery)"
    assert told(None)["engines"] == "engine-2 does not answer"
    assert "engines" not in told(standing())


def test_after_an_unclean_stop_each_engine_is_reopened_by_its_own_replay_and_by_no_other(laid, monkeypatch):
    settings, layout, ports, listing = laid
    said, asked = [], []
    held = {}
    for part in parts_of(layout.journal):
        mine = part.instruments(listing.instruments)
        command = msgspec.structs.replace(order("a", price=int(mine[0].reference)), symbol=mine[0].symbol)
        with FileLog(part.directory) as log:
            log.append([encode_command(Sequenced(1, Instant(1), command))])
            log.sync()
        found = verify(part.directory, listing.instruments)
        held[ports.servers[f"{part.name}/http"]] = {"seq": 1, "state_hash": found.state_hash}
    first, second, third = held
    held[third] = {"seq": 1, "state_hash": "another"}

    def call(method, url, **more):
        port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        if path == "v1/status":
            return {"market_halted": True, "clean_start": int(port) == first}
        if path == "v1/hash":
            return held[int(port)]
        asked.append((method, int(port), path))
        return None

    monkeypatch.setattr(estate, "call", call)
    made = estate.Estate(settings, layout, ports, listing.instruments, said.append)
    monkeypatch.setattr(estate.Estate, "admin", "secret")
    asyncio.run(made._reopen())
    assert asked == [("POST", second, "admin/resume")]
    assert said[0] == (
        "engine-2: the last stop was unclean: 1 commands replayed to an equal state hash, market reopened"
    )
    assert said[1].startswith("engine-3: the last stop was unclean and the journal replays to ")
    assert said[1].endswith("not to the engine's another: the market stays halted")
