"""A fail-over of the ledger on real servers: what it loses, how long it takes, and that money is whole after it."""

import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

import cli
from control.failover import AFTER, Report, fail_over


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
    assert told.lost_s >= 0.2
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
