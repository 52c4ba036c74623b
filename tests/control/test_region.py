"""Taking over from another region: refused while that one answers, done once, and nobody trades before it."""

import asyncio

import pytest

from control import distributed, plan, server_plan
from control.config import load_config
from control.distributed import FOLLOW_ORDER, FOLLOWING, START_ORDER, DistributedEstate
from control.settings import Settings, load_settings
from control.state_dir import StateDir, generate_instruments
from exchange.adapters.listing_file import read_listing, write_listing
from exchange.listing import Listing
from kernel.errors import InputError, PermanentError
from runbooks.ports import RefusedError

TRADING = {"engine", "gateway", "market-data", "settlement", "saga", "edge", "load"}


THEIRS = Listing(generate_instruments(3, 9))


class Kept:
    """A supervisor that only remembers."""

    def __init__(self):
        self.started, self.retired, self.stopped = [], [], []

    async def start(self, name):
        self.started.append(name)

    async def stop(self, name):
        self.stopped.append(name)

    async def retire(self, name):
        self.retired.append(name)

    def status(self, name):
        return type("Status", (), {"ready": 1, "replicas": ()})

    def slots(self, _):
        return []

    def all(self):
        return [type("Status", (), {"name": name, "replicas": ()}) for group in START_ORDER for name in group]


@pytest.fixture
def estate(tmp_path, monkeypatch):
    """An estate that follows a region, with what it is told of the mirror in `estate.mirror`."""
    settings = Settings(state=tmp_path / "up", ports="auto", estate="distributed", follows="127.0.0.1:1")
    state = StateDir(settings.state)
    listing = state.fill(symbols=settings.symbols, seed=settings.seed)
    ports = plan.choose_ports(settings)
    made = DistributedEstate(settings, state.layout, ports, listing.instruments, lambda _: None)
    made._supervisor = Kept()
    made.mirror = {"connected": False, "sequence": 17, "lag": None}
    monkeypatch.setattr(distributed, "call", lambda *_, **__: made.mirror)
    state.layout.followed_listing.write_bytes(write_listing(THEIRS))
    monkeypatch.setattr(DistributedEstate, "publish", lambda _: None)
    monkeypatch.setattr(DistributedEstate, "_lay_databases", lambda _: None)

    async def reopened(_):
        return None

    monkeypatch.setattr(DistributedEstate, "_reopen", reopened)
    yield made
    state.release()


def test_what_an_estate_starts_while_it_follows_is_nobody_who_trades():
    assert not TRADING & {name for group in FOLLOW_ORDER for name in group}


async def test_a_region_that_answers_is_not_taken_over_from(estate):
    await estate.start()
    assert estate.phase == FOLLOWING
    assert not TRADING & set(estate._supervisor.started)
    estate.mirror = {"connected": True, "sequence": 17, "lag": 0}
    with pytest.raises(RefusedError, match=r"brokers answer .* stop it first"):
        await estate.take_over("ana", even_so=False)
    assert (estate._supervisor.retired, estate.layout.taken_over.exists()) == ([], False)
    assert (await estate.take_over("ana", even_so=True)).sequence == 17


async def test_a_take_over_is_done_once_and_kept(estate):
    await estate.start()
    first, second = await asyncio.gather(estate.take_over("ana", even_so=False), estate.take_over("ben", even_so=False))
    assert first == second
    assert first.by == "ana"
    assert estate._supervisor.retired == ["mirror"]
    assert set(estate._supervisor.started) >= TRADING
    assert estate._supervisor.started.count("engine") == 1
    again = DistributedEstate(estate.settings, estate.layout, estate.ports, estate.instruments, lambda _: None)
    again._supervisor = Kept()
    await again.start()
    assert again.phase == "up", "who has taken over follows nobody any more"


async def test_what_the_other_region_trades_is_traded_here_from_the_take_over_on(estate):
    own = estate.layout.root / "instruments.json"
    plan.write_configs(estate.settings, estate.layout, estate.ports, estate.instruments)
    await estate.start()
    assert read_listing(own) != THEIRS
    await estate.take_over("ana", even_so=False)
    assert read_listing(own) == THEIRS
    for replica in ("engine-1", "gateway-1", "market-data-1", "control-1"):
        assert load_config(estate.layout.config(replica)).instruments == THEIRS.instruments
    assert estate._supervisor.stopped == ["control"], "it runs since before, with other symbols"


async def test_a_listing_that_a_person_put_here_and_that_is_the_other_regions_changes_nothing(estate):
    (estate.layout.root / "instruments.json").write_bytes(write_listing(THEIRS))
    await estate.start()
    await estate.take_over("ana", even_so=False)
    assert estate._supervisor.stopped == []


async def test_without_the_other_regions_listing_nothing_is_taken_over_unless_a_person_put_one_here(estate):
    estate.layout.followed_listing.unlink()
    await estate.start()
    with pytest.raises(RefusedError, match="its engine did not say it"):
        await estate.take_over("ana", even_so=True)
    assert (estate._supervisor.retired, estate.layout.taken_over.exists()) == ([], False)
    (estate.layout.root / "instruments.json").write_bytes(write_listing(THEIRS))
    assert (await estate.take_over("ana", even_so=False)).sequence == 17


async def test_a_listing_that_a_person_put_here_and_that_is_another_one_is_refused(estate):
    (estate.layout.root / "instruments.json").write_bytes(write_listing(Listing(generate_instruments(2, 5))))
    await estate.start()
    with pytest.raises(RefusedError, match="would not be carried out alike"):
        await estate.take_over("ana", even_so=True)
    assert (estate._supervisor.retired, estate.layout.taken_over.exists()) == ([], False)


async def test_a_take_over_that_did_not_come_up_whole_says_what_to_do(estate):
    await estate.start()

    async def refuse(name):
        raise PermanentError(f"{name} ended before it was ready")

    estate._supervisor.start = refuse
    with pytest.raises(PermanentError, match="engine ended"):
        await estate.take_over("ana", even_so=False)
    with pytest.raises(PermanentError, match="start it again"):
        await estate.take_over("ana", even_so=False)
    assert estate.layout.taken_over.exists()


async def test_who_is_not_following_takes_nothing_over(estate):
    estate.phase = "starting"
    with pytest.raises(RefusedError, match="follows no other region"):
        await estate.take_over("ana", even_so=False)


@pytest.mark.parametrize("follows", ["host", "a:1,", "a b:1", "a:1,b"])
def test_brokers_that_are_none_are_refused(follows):
    with pytest.raises(InputError, match="follows"):
        load_settings(estate="distributed", follows=follows)


def test_an_embedded_estate_follows_nobody():
    with pytest.raises(InputError, match="set estate=distributed"):
        load_settings(follows="a:9092")


def test_the_mirror_is_told_both_clusters_and_the_engine_one(tmp_path):
    settings = Settings(state=tmp_path / "up", ports="auto", estate="distributed", follows="b:9092")
    ports = plan.choose_ports(settings)
    assert server_plan.followed(settings, "mirror").bootstrap == "b:9092"
    assert server_plan.followed(settings, "engine") is None
    assert server_plan.kafka_access(settings, ports, "mirror") == server_plan.kafka_access(settings, ports, "engine")
