"""The action fail_over on a local estate: journalled, at most once for a key, rehearsed, and behind every rail."""

import asyncio
import dataclasses
import json
from types import SimpleNamespace

import pytest
from msgspec import structs
from typer.testing import CliRunner

import cli
from control import killswitch, verbs_pair
from control.effects import EffectLog
from control.layout import Layout
from control.servers.postgres_pair import Pair
from kernel.errors import PermanentError
from kernel.time import Instant
from runbooks.adapters.fake import FakeWorkloads, plant
from runbooks.adapters.local import LocalWorkloads
from runbooks.changes import FailOver
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.control.dummies import DummyEstate, specs

FROM_ONE, FROM_TWO = FailOver("gateway", "gateway-1"), FailOver("gateway", "gateway-2")


class Toy:
    """A pair in memory: who is primary, what was called, and an error to come."""

    def __init__(self):
        self.primary, self.calls, self.fails = "gateway-1", [], 0

    def check(self, old, key=""):
        if old != self.primary and (old, key) not in self.calls:
            raise RefusedError(RefusalReason.CONFLICT, f"{old} is not the primary: that is {self.primary}")
        return {"primary": self.primary, "synchronous": "true"}

    def depose(self, old, key):
        self.check(old, key)
        self.calls.append((old, key))
        self.primary = "gateway-2" if old == "gateway-1" else "gateway-1"
        return {"primary": self.primary}

    def complete(self, old):
        del old
        if self.fails:
            self.fails -= 1
            raise PermanentError("it was not promoted in time")
        return {"primary": self.primary, "term": "2"}


@pytest.fixture
async def there(tmp_path):
    toy = Toy()
    pair = [dataclasses.replace(one, turnover=toy) if one.name == "gateway" else one for one in specs(tmp_path)]
    async with DummyEstate(tmp_path, pair) as estate:
        yield estate, toy


async def refused(write):
    with pytest.raises(RefusedError) as caught:
        await write
    return caught.value.reason


async def test_the_old_one_is_ended_and_a_repeated_key_gets_the_first_answer(there):
    estate, toy = there
    done = await estate.workloads.change(FROM_ONE, key="f/0")
    assert (done.before["replica"], done.before["primary"], done.after["primary"]) == (
        "gateway-1", "gateway-1", "gateway-2",
    )  # fmt: skip
    status = await estate.workloads.status("gateway")
    assert {one.id: one.running for one in status.replicas} == {"gateway-1": False, "gateway-2": True}
    again = await estate.workloads.change(FROM_ONE, key="f/0")
    assert (again.repeated, again.after) == (True, done.after)
    assert toy.calls == [("gateway-1", "f/0")]
    assert await refused(estate.workloads.change(FROM_TWO, key="f/0")) is RefusalReason.CONFLICT
    assert await refused(estate.workloads.change(FROM_ONE, key="f/1")) is RefusalReason.CONFLICT
    with EffectLogOpen(estate) as kept:
        assert kept.find("f/0").after == done.after


class EffectLogOpen:
    """The journal as another start of the estate would read it."""

    def __init__(self, estate):
        self.path = estate.root / "estate" / "effects.log"

    def __enter__(self):
        self.log = EffectLog.open(self.path, at=Instant(9))
        return self.log

    def __exit__(self, *_):
        self.log.close()


async def test_one_that_was_cut_short_goes_on_under_its_key(there):
    estate, toy = there
    toy.fails = 1
    with pytest.raises(PermanentError, match="not promoted in time"):
        await estate.workloads.change(FROM_ONE, key="f/0")
    assert await estate.workloads.effect("f/0") is None
    done = await estate.workloads.change(FROM_ONE, key="f/0")
    assert (done.repeated, done.after) == (False, {"primary": "gateway-2", "term": "2"})


async def test_a_rehearsal_tells_the_facts_or_the_refusal_and_touches_nothing(there):
    estate, toy = there
    before = await estate.workloads.status("gateway")
    told = await estate.workloads.rehearse(FROM_ONE)
    assert told == ["would fail gateway over from gateway-1", "primary: gateway-1", "synchronous: true"]
    assert await refused(estate.workloads.rehearse(FROM_TWO)) is RefusalReason.CONFLICT
    assert toy.calls == []
    assert (await estate.workloads.status("gateway")).replicas == before.replicas


async def test_each_rail_of_the_estate_stops_it_before_anything_is_touched(there):
    estate, toy = there
    generation = (await estate.workloads.status("gateway")).generation
    for reason, write in (
        (RefusalReason.NO_TARGET, estate.workloads.change(FailOver("gateway", "gateway-9"), key="a")),
        (RefusalReason.NO_TARGET, estate.workloads.change(FailOver("none", "none-1"), key="b")),
        (RefusalReason.CONFLICT, estate.workloads.change(FROM_ONE, key="c", generation=generation + 1)),
        (RefusalReason.NOT_ALLOWED, estate.workloads.change(FailOver("engine", "engine-1"), key="d")),
    ):
        assert await refused(write) is reason
    killswitch.throw(estate.kill_switch, by="test", why="a test", at=Instant(1))
    assert await refused(estate.workloads.change(FROM_ONE, key="e")) is RefusalReason.KILL_SWITCH
    assert toy.calls == []
    person = LocalWorkloads(estate.url, estate.token, by="person")
    try:
        assert (await person.change(FROM_ONE, key="f")).after == {"primary": "gateway-2", "term": "2"}
    finally:
        await person.close()


def tapewatch(*args):
    return CliRunner().invoke(cli.app, ["db", *args])


async def test_a_person_fails_over_by_a_verb_that_can_rehearse(there, monkeypatch, tmp_path):
    estate, toy = there
    addresses = SimpleNamespace(estate=estate.url)
    plant_ = SimpleNamespace(addresses=addresses, admin=estate.token)
    monkeypatch.setattr(verbs_pair, "WORKLOAD", "gateway")
    monkeypatch.setattr(verbs_pair.faults, "connect", lambda _: plant_)
    words = ("fail-over", "--from", "gateway-1", "--state", str(tmp_path))
    told = await asyncio.to_thread(tapewatch, *words, "--dry-run")
    assert (told.exit_code, toy.calls) == (0, [])
    assert "would fail gateway over from gateway-1" in told.output
    told = await asyncio.to_thread(tapewatch, *words, "--key", "k", "--json")
    assert json.loads(told.stdout)["after"] == {"primary": "gateway-2", "term": "2"}
    told = await asyncio.to_thread(tapewatch, *words, "--key", "k")
    assert told.stdout == "gateway-2 takes writes, term 2 (it was, before)\n"
    told = await asyncio.to_thread(tapewatch, *words, "--key", "another")
    assert told.exit_code == 3
    assert "gateway-1 is not the primary" in told.output


def test_a_verb_tells_who_is_named_and_whether_the_other_holds_everything(tmp_path):
    told = tapewatch("pair", "--state", str(tmp_path))
    assert (told.exit_code, "no estate ever ran here" in told.output) == (2, True)
    (tmp_path / "version").write_text("1")
    told = tapewatch("pair", "--state", str(tmp_path))
    assert (told.exit_code, "has no pair of PostgreSQL servers" in told.output) == (2, True)
    pair = Pair(Layout(tmp_path).postgres_pair, "postgres-1")
    with pair.held() as record:
        pair.write(structs.replace(record, term=4, primary="postgres-2", synchronous=True))
    told = tapewatch("pair", "--state", str(tmp_path))
    assert told.stdout == "postgres-2 is the primary of term 4; the other one holds everything that was acknowledged\n"
    assert json.loads(tapewatch("pair", "--state", str(tmp_path), "--json").stdout)["term"] == 4
    Layout(tmp_path).postgres_pair.write_text("{")
    told = tapewatch("pair", "--state", str(tmp_path))
    assert (told.exit_code, "so nobody is the primary" in told.output) == (1, True)


async def test_the_plant_in_memory_turns_as_the_real_one_does():
    workloads = FakeWorkloads(plant())
    workloads.primaries["gateway"] = "gateway-1"
    assert await refused(workloads.rehearse(FROM_TWO)) is RefusalReason.CONFLICT
    done = await workloads.change(FROM_ONE, key="f")
    assert (done.before, done.after) == ({"primary": "gateway-1"}, {"primary": "gateway-2"})
    assert [one.ready for one in (await workloads.status("gateway")).replicas] == [False, True]
    assert (await workloads.change(FROM_ONE, key="f")).repeated
    assert await refused(workloads.change(FROM_TWO, key="g")) is RefusalReason.STATE_UNSAFE
    assert await refused(workloads.change(FailOver("gateway", "gateway-9"), key="h")) is RefusalReason.NO_TARGET
