# mypy: check-untyped-defs=False, disable-error-code="arg-type"
"""A drill fails when the ledger is not what follows from the journal, and waits for settlement before it says so."""

import threading
from types import SimpleNamespace

import msgspec
import pytest
import sqlalchemy as sa

from control import ledger_link
from control.drill import Drill
from control.layout import Layout
from control.scenario import Scenario
from exchange.adapters.file_log import FileLog
from exchange.adapters.settlement_store import SettlementStore
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.journal import encode_command
from exchange.types import AccountId
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS


@pytest.fixture
def drill(tmp_path, monkeypatch):
    """A drill of a distributed estate whose journal is whole, and what its settlement has still to post."""
    layout = Layout(tmp_path / "estate")
    layout.root.mkdir()
    (layout.root / "instruments.json").write_bytes(msgspec.json.encode({"instruments": INSTRUMENTS}))
    monkeypatch.setattr(ledger_link, "load_config", lambda _: SimpleNamespace(ledger=None))
    engine, flow = Engine(INSTRUMENTS), OrderFlow(1, INSTRUMENTS, [AccountId("ann"), AccountId("bob")])
    happened = []
    with FileLog(layout.journal) as log:
        for seq in range(1, 201):
            command = Sequenced(seq, Instant(seq), next(flow))
            events = engine.apply(command)
            flow.observe(events)
            happened.append(Happened(seq, Instant(seq), events))
            log.append([encode_command(command)])
        log.sync()
    scenario = Scenario(name="d", title="", story="", estate="distributed", acts=(), links=(), outcome="")
    store = SettlementStore(layout.ledger, INSTRUMENTS)
    yield Drill(scenario, tmp_path, lambda *_: None), store, happened, layout
    store.close()


def test_what_settlement_has_still_to_post_is_waited_for(drill):
    made, store, happened, _ = drill
    store.settle(happened[:100])
    rest = threading.Timer(0.3, lambda: store.settle(happened[100:]))
    rest.start()
    seen = made._ledger(1.0)
    rest.join()
    assert seen.seen
    assert "trades in journal and ledger, 0 missing, 0 twice, 0 differing" in seen.evidence


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (("DELETE FROM postings WHERE trade_id = 7", "DELETE FROM trades WHERE trade_id = 7"), "1 missing, 0 twice"),
        (("INSERT INTO postings SELECT * FROM postings WHERE trade_id = 7",), "0 missing, 1 twice"),
    ],
    ids=["missing", "doubled"],
)
def test_a_planted_difference_fails_the_drill_and_is_named(drill, monkeypatch, statements, words):
    made, store, happened, layout = drill
    monkeypatch.setattr(ledger_link.check_ledger, "__kwdefaults__", {"within_s": 0.0})
    store.settle(happened)
    spoiling = make_engine(parse(sqlite_url(layout.ledger), "test"), "test")
    with spoiling.begin() as one:
        for name in one.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all():
            one.execute(sa.text(f"DROP TRIGGER {name}"))
        for statement in statements:
            one.execute(sa.text(statement))
    spoiling.dispose()
    seen = made._ledger(1.0)
    assert not seen.seen
    assert words in seen.evidence
    assert "; trade 7 is " in seen.evidence


def test_a_ledger_that_cannot_be_read_is_no_ledger_that_agrees(drill):
    made, store, _, layout = drill
    store.close()
    layout.ledger.write_bytes(b"no database at all, and longer than a header of one hundred bytes" * 4)
    seen = made._ledger(1.0)
    assert not seen.seen
    assert "cannot be held against the journal" in seen.evidence
