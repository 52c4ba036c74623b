"""A fail-over of the ledger on real servers: what it loses, how long it takes, and that money is whole after it."""

import asyncio
import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

import cli
from control.failover import AFTER, Report, fail_over
from exchange.adapters.http import Faults
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS, SettlementServer
from exchange.adapters.settlement_source import EngineSource
from exchange.adapters.settlement_store import SettlementStore
from exchange.recording import RecordingLog, RecordingSettlement
from exchange.types import Side
from kernel.errors import PermanentError, TemporaryError
from tests.contract.test_ledger_store import lay
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order


def test_a_synchronous_stand_by_loses_no_acknowledged_trade(postgres_programs):
    done = CliRunner().invoke(cli.app, ["db", "failover-drill", "--trades", "300", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["acknowledged"] >= 300
    assert (told["lost"], told["lost_s"], told["settled_again"]) == (0, 0, 0)
    assert (told["missing"], told["twice"], told["imbalance"], told["fenced"]) == (0, 0, 0, True)
    assert 0 < told["recovery_s"] < 30
    assert told["wrong"] == []


def test_what_an_asynchronous_one_lacked_is_measured_and_settled_again_from_the_log(postgres_programs):
    told = fail_over(postgres_programs, synchronous=False, before=100, cut_off_s=0.2)
    assert 0 < told.lost < told.acknowledged
    assert told.lost_s >= 0.15, "the first trade after the cut comes a moment after it"
    assert told.settled_again >= told.lost, "besides what was committed, and its answer was still on its way"
    assert (told.missing, told.twice, told.imbalance, told.fenced) == (0, 0, 0, True)
    assert told.wrong == []
    assert AFTER > 0


def test_the_report_tells_what_must_not_be():
    good = Report(
        synchronous=True, cut_off_s=0, acknowledged=9, lost=0, lost_s=0, recovery_s=1, promote_s=1, settled_again=0,
        missing=0, twice=0, imbalance=0, fenced=True,
    )  # fmt: skip
    assert good.wrong == []
    for name, value in (("lost", 1), ("missing", 1), ("twice", 1), ("imbalance", 5), ("fenced", False)):
        assert len(replace(good, **{name: value}).wrong) == 1


@pytest.mark.parametrize("args", [["--cut-off", "1"]])
def test_a_synchronous_pair_that_is_cut_would_stand_still_and_is_refused(args):
    done = CliRunner().invoke(cli.app, ["db", "failover-drill", *args])
    assert done.exit_code == 2
    assert "use it with --asynchronous" in done.output


async def test_settlement_outlives_its_server_and_ends_when_the_ledger_went_back(tmp_path, own_postgres):
    server = await asyncio.to_thread(own_postgres)
    url = lay(await asyncio.to_thread(server.create_database, "ledger"))
    telemetry, faults = RecordingSettlement(), Faults(SETTLEMENT_FAULTS, allowed=True)
    store = SettlementStore(url, INSTRUMENTS)
    async with engine(tmp_path) as running, client_of(running.port) as client:
        settlement = SettlementServer(
            store, EngineSource(running.port), telemetry=telemetry, log=RecordingLog(), faults=faults
        )
        task = asyncio.create_task(settlement.run())

        async def trade(number):
            await client.submit(order(f"s{number}", Side.SELL), 60)
            await client.submit(order(f"b{number}", Side.BUY, who="bob"), 60)

        await trade(1)
        await eventually(lambda: telemetry.trades == 1)
        await asyncio.to_thread(server.kill)
        await trade(2)
        await asyncio.sleep(1.1)  # the balance is looked at once a second, too
        assert (task.done(), telemetry.trades) == (False, 1)
        with pytest.raises(TemporaryError, match="no server answers there"):
            await settlement.status()
        await asyncio.to_thread(server.start)
        await eventually(lambda: telemetry.trades == 2)
        await asyncio.to_thread(server.ask, "UPDATE progress SET seq = 1", "ledger")
        await trade(3)
        with pytest.raises(PermanentError, match="went back from command 4 to 1"):
            await asyncio.wait_for(task, 60)
    store.close()
