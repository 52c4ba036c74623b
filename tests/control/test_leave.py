"""A replica that is replaced on purpose: taken out of the balance first, put in after, and marked for so long."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from types import SimpleNamespace

import pytest

from control import killswitch, leave, server_plan
from control.layout import Layout
from control.leave import EdgeBalance
from control.plan import choose_ports
from control.settings import Settings
from control.supervisor import PERSON
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant
from monitor.adapters.exporter import samples
from runbooks.ports import RefusedError
from tests.control.dummies import DummyEstate, specs
from tests.control.test_canary import canary_of


class Kept:
    """A balance that keeps what it was told, with what was seen of the replica meanwhile."""

    def __init__(self):
        self.told, self.fails, self.see, self.taken = [], None, lambda _: None, True

    async def take_out(self, replica):
        self.told.append(("out", replica, self.see(replica)))
        if self.fails:
            raise self.fails
        return self.taken

    async def put_in(self, replica):
        self.told.append(("in", replica, self.see(replica)))
        if self.fails:
            raise self.fails


@pytest.fixture
async def estate(tmp_path, monkeypatch):
    monkeypatch.setattr(leave, "SETTLE_S", 0.0)
    balance = Kept()
    made = [dataclasses.replace(one, balance=balance) if one.name == "gateway" else one for one in specs(tmp_path)]
    async with DummyEstate(tmp_path, made) as dummy:
        dummy.balance = balance
        balance.see = lambda replica: next(
            one for one in dummy.supervisor.status("gateway").replicas if one.id == replica
        )
        yield dummy


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a supervisor is asked
            await asyncio.sleep(0.02)


async def back(estate, replica="gateway-2"):
    await until(lambda: not estate.supervisor.is_away(replica))


def marks(estate):
    estate.api.update()
    return {
        labels["member"]: value
        for name, labels, value in samples(estate.api.exporter.render())
        if name == "tapewatch_replica_away" and labels["member"].startswith("gateway")
    }


async def test_a_deploy_and_its_roll_back_take_the_replica_out_before_its_process_ends_and_put_it_in_when_ready(estate):
    first = estate.balance.see("gateway-2")
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    await back(estate)
    (out, _, before), (put, _, after) = estate.balance.told
    assert (out, put) == ("out", "in")
    assert (before.uid, before.running, before.revision) == (first.uid, True, ""), "it served to the end"
    assert after.uid != first.uid
    assert (after.ready, after.revision) == (True, "2.1")
    await estate.supervisor.roll_back("gateway", key="b")
    await back(estate)
    assert [what for what, *_ in estate.balance.told] == ["out", "in"] * 2


async def test_it_is_marked_while_it_is_away_and_its_peer_is_not(estate):
    seen = []
    estate.balance.see = lambda _: seen.append(marks(estate))
    await estate.supervisor.restart("gateway", "gateway-2", key="r")
    assert marks(estate)["gateway-2"] == 1
    await back(estate)
    assert seen == [{"gateway-1": 0, "gateway-2": 1}] * 2
    assert marks(estate) == {"gateway-1": 0, "gateway-2": 0}


async def test_one_that_is_dead_is_restarted_at_once_and_never_marked(estate):
    estate.supervisor.signal("gateway-2", "KILL")
    await until(lambda: not estate.balance.see("gateway-2").running)
    await estate.supervisor.restart("gateway", "gateway-2", key="r")
    assert not estate.supervisor.is_away("gateway-2")
    assert estate.balance.told == []


async def test_the_last_one_that_serves_is_not_taken_out(estate):
    await estate.supervisor.scale("gateway", 1, key="s")
    await estate.supervisor.restart("gateway", "gateway-1", key="r")
    await back(estate, "gateway-1")
    assert estate.balance.told == []


async def test_a_single_writer_is_not_marked(estate):
    await estate.supervisor.restart("engine", "engine-1", key="r")
    assert not estate.supervisor.is_away("engine-1")


async def test_one_that_somebody_took_out_before_is_left_out(estate):
    estate.balance.taken = False
    await estate.supervisor.restart("gateway", "gateway-2", key="r")
    await back(estate)
    assert [what for what, *_ in estate.balance.told] == ["out"]


async def test_one_that_is_replaced_again_before_it_was_put_in_is_put_in_by_the_second_leave():
    balance, child = Kept(), SimpleNamespace(slot=SimpleNamespace(id="gateway-2"), running=True, ready=False)
    leaves = leave.Leaves(lambda *_, **__: None)
    first = await leaves.begin("gateway-2", balance)
    balance.taken = False  # the edge says that it is out already: by the first leave
    for second in (await leaves.begin("gateway-2", balance), await leaves.begin("gateway-2", None)):
        await leaves.end(first, child, 0.0)
        assert [what for what, *_ in balance.told] == ["out", "out"]
        assert second.balance is balance
    await leaves.end(second, child, 0.0)
    assert [what for what, *_ in balance.told] == ["out", "out", "in"]
    assert "gateway-2" not in leaves


@pytest.mark.parametrize(("runs", "asked"), [(True, 3), (False, 1)])
async def test_a_balancer_that_does_not_take_it_is_asked_again_as_long_as_the_process_runs(monkeypatch, runs, asked):
    monkeypatch.setattr(leave, "_AGAIN_S", 0.0)
    monkeypatch.setattr(leave, "SETTLE_S", 0.0)
    logged, balance = [], Kept()
    child = SimpleNamespace(slot=SimpleNamespace(id="gateway-2"), running=runs, ready=True)
    leaves = leave.Leaves(lambda level, words, **_: logged.append((level, words)))
    begun = await leaves.begin("gateway-2", balance)
    balance.fails = TemporaryError("the edge is slow")

    def see(_):
        if sum(what == "in" for what, *_ in balance.told) == 2:
            balance.fails = None

    balance.see = see
    await leaves.end(begun, child, 60.0)
    assert [what for what, *_ in balance.told] == ["out"] + ["in"] * asked
    assert any(level == "error" for level, _ in logged) is not runs
    assert "gateway-2" not in leaves


@pytest.mark.parametrize("ended", ["kill switch", "estate"])
async def test_what_is_forbidden_while_requests_are_waited_for_is_not_done_and_it_serves_on(estate, ended):
    first = estate.balance.see("gateway-2")

    def forbid(_):
        if ended == "kill switch":
            killswitch.throw(estate.kill_switch, by="anna", why="stop", at=Instant(0))
        else:
            estate.supervisor.end()

    see, estate.balance.see = estate.balance.see, forbid
    with pytest.raises(RefusedError, match=r"kill switch is on|is being stopped"):
        await estate.supervisor.restart("gateway", "gateway-2", key="r")
    await back(estate)
    assert [what for what, *_ in estate.balance.told] == ["out", "in"]
    assert (see("gateway-2").uid, see("gateway-2").ready) == (first.uid, True)
    assert estate.supervisor.effect("r") is None


async def test_a_person_replaces_a_replica_with_the_kill_switch_on(estate):
    first = estate.balance.see("gateway-2")
    killswitch.throw(estate.kill_switch, by="anna", why="stop", at=Instant(0))
    await estate.supervisor.restart("gateway", "gateway-2", key="r", by=PERSON)
    await back(estate)
    assert estate.balance.see("gateway-2").uid != first.uid


async def test_a_balancer_that_refuses_stops_no_deploy_and_is_told_in_the_log(estate):
    estate.balance.fails = TemporaryError("the edge does not answer")
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    estate.balance.fails = None
    await back(estate)
    assert estate.balance.see("gateway-2").revision == "2.1"
    assert any("replaced under requests" in line for line in estate.logged)


async def test_a_balancer_that_never_takes_it_again_is_told_in_the_log_and_the_mark_ends_all_the_same(monkeypatch):
    monkeypatch.setattr(leave, "_AGAIN_S", 0.0)
    monkeypatch.setattr(leave, "SETTLE_S", 0.0)
    logged, balance = [], Kept()
    leaves = leave.Leaves(lambda level, words, **_: logged.append((level, words)))
    begun = await leaves.begin("gateway-2", balance)
    balance.fails = TemporaryError("the edge does not answer")
    child = SimpleNamespace(slot=SimpleNamespace(id="gateway-2"), running=True, ready=True)
    await leaves.end(begun, child, 0.05)
    assert ("error", "gateway-2 is back, and the balancer does not send to it: the edge does not answer") in logged
    assert "gateway-2" not in leaves


async def test_one_that_ends_again_loses_its_mark_so_that_its_death_is_seen(estate):
    dying = dataclasses.replace(canary_of(estate), argv=("sh", "-c", "exit 3"))
    await estate.supervisor.deploy("gateway", dying, key="d")
    await back(estate)
    assert not estate.balance.see("gateway-2").running


async def test_one_that_cannot_be_started_is_not_marked_for_ever(estate):
    nothing = dataclasses.replace(canary_of(estate), argv=("no-such-program",))
    with pytest.raises(PermanentError, match="there is no program"):
        await estate.supervisor.deploy("gateway", nothing, key="d")
    await back(estate)


async def test_the_edge_is_asked_until_nothing_is_under_way_or_long_enough(monkeypatch):
    asked, busy = [], [3, 3, 1, 0]

    def call(method, url, **more):
        asked.append((method, url.removeprefix("http://e"), more["body"], more["token"]))
        return {"out": False, "sessions": busy.pop(0) if method == "GET" else 0}

    monkeypatch.setattr(leave, "call", call)
    balance = EdgeBalance("http://e", lambda: "secret")
    await balance.take_out("gateway-2")
    await balance.put_in("gateway-2")
    look = ("GET", "/admin/server?server=gateway-2", None, "secret")
    state = lambda word: ("POST", "/admin/server", {"server": "gateway-2", "state": word}, "secret")  # noqa: E731
    assert asked == [look, state("drain"), look, look, look, state("ready")]
    monkeypatch.setattr(leave, "call", lambda *_, **__: {"out": True, "sessions": 1})
    monkeypatch.setattr(leave, "IN_FLIGHT_S", 0.2)
    began = time.monotonic()
    assert not await balance.take_out("gateway-2"), "somebody had taken it out before"
    assert time.monotonic() - began >= 0.2, "one WebSocket is not waited for for ever"


def test_haproxy_alone_is_told_and_only_where_the_estate_runs_it(tmp_path):
    for given, told in (
        ({"estate": "distributed"}, True),
        ({"estate": "distributed", "edge": "nginx"}, False),
        ({"estate": "distributed", "services": ("kafka",)}, False),
        ({}, False),
    ):
        settings = Settings(state=tmp_path, ports="auto", **given)
        assert (server_plan.balance(settings, Layout(tmp_path), choose_ports(settings)) is not None) is told, given
