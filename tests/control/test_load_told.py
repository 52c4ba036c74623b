"""`exchange load --offline --told`: what each request of a file caused, and how everything stands at the end."""

import json

import pytest

from control import load_desk
from tests.control.test_cli import run

HEAD = "at_us,account,client_id,action,symbol,side,quantity,price,order,time_in_force\n"
TAPE = """0,ann,1,place,AAA,sell,10,101,,
1,bob,2,place,AAA,buy,4,102,,ioc
2,bob,3,place,AAA,buy,9,101,,
3,ann,4,replace,,,12,101,1,
4,bob,5,cancel,,,,,3,
5,bob,6,place,AAA,buy,1,900,,
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tape.csv").write_text(HEAD + TAPE)
    (tmp_path / "i.json").write_text('{"instruments": [{"symbol": "AAA", "reference": 100, "band": 50}]}')
    return tmp_path


def told(files, *more):
    words = ("exchange", "load", "--offline", "--flow", files / "tape.csv", "--instruments", files / "i.json")
    code, out, err = run(*words, "--told", files / "told.jsonl", "--json", *more)
    assert (code, err) == (0, "")
    return json.loads(out), [json.loads(line) for line in (files / "told.jsonl").read_text().splitlines()]


def test_each_line_of_a_tape_has_its_events_and_each_order_its_end(files):
    account, lines = told(files)
    happened = [line for line in lines if "events" in line]
    assert [one["seq"] for one in happened] == list(range(1, 7))
    trades = [(one["maker_order_id"], one["price"], one["quantity"])
              for line in happened for one in line["events"] if one["type"] == "traded"]  # fmt: skip
    assert trades == [(1, 101, 4), (1, 101, 6)]
    assert [line["events"][-1]["type"] for line in happened[3:]] == ["rejected", "canceled", "rejected"]
    orders = [(line["order"], line["average_price"]) for line in lines if "order" in line]
    assert [(one["status"], one["filled"], one["canceled"], mean) for one, mean in orders] == [
        ("filled", 10, 0, 101.0), ("filled", 4, 0, 101.0), ("canceled", 6, 3, 101.0)
    ]  # fmt: skip
    assert [line["book"] for line in lines if "book" in line] == [{"symbol": "AAA", "bids": [], "asks": []}]
    assert {(one["account"], one["asset"]): one["amount"] for one in (line["balance"] for line in lines[-4:])} == {
        ("ann", "$cash"): 10_100_000, ("ann", "AAA"): -10, ("bob", "$cash"): -10_100_000, ("bob", "AAA"): 10
    }  # fmt: skip
    assert (account["sent"], account["rejected_by_reason"]) == (6, {"price_out_of_band": 1, "too_late": 1})


def test_the_venue_of_the_file_is_the_one_that_the_tape_is_traded_at(files):
    listing = json.loads((files / "i.json").read_text())
    (files / "i.json").write_text(json.dumps({**listing, "venue": {"replace_quantity": "total"}}))
    (files / "tape.csv").write_text(
        HEAD + "0,ann,1,place,AAA,sell,10,101,,\n1,bob,2,place,AAA,buy,4,101,,\n2,ann,3,replace,,,7,101,1,\n"
    )
    _, lines = told(files, "--journal", files / "j")
    assert [line["book"]["asks"] for line in lines if "book" in line] == [
        [{"price": 101, "quantity": 3, "order_ids": [1]}]
    ]
    code, out, _ = run("exchange", "replay", files / "j", "--json")
    assert (code, json.loads(out)["records"]) == (0, 3)


def test_a_tape_is_sent_whole_however_many_a_kind_of_flow_sends(files, monkeypatch):
    monkeypatch.setattr(load_desk, "COMMANDS", 5)
    words = ("exchange", "load", "--offline", "--json", "--flow")
    tape = (*words, files / "tape.csv", "--instruments", files / "i.json")
    assert json.loads(run(*tape)[1])["sent"] == 6
    assert json.loads(run(*tape, "--commands", 4)[1])["sent"] == 4
    assert json.loads(run(*words, "calm")[1])["sent"] == 5
