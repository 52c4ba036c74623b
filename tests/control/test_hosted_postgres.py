"""A hosted pair of PostgreSQL servers: who is primary, what is known of the other, and that never two take writes."""

import contextlib
import shutil
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from control.databases import KINDS, opened, revisions
from control.servers.postgres import end_all
from kernel.errors import PermanentError, TapewatchError
from monitor.adapters.exporter import Exporter
from monitor.catalog_model import Role
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.postgres_pair import NAMES, real_pair, until

ONE, TWO = NAMES


@pytest.fixture
def pair(postgres_programs):
    with real_pair() as found:
        yield found


def shown(host):
    exporter = Exporter(Role.POSTGRES, process=False)
    host.observe(exporter)
    return dict(line.rsplit(" ", 1) for line in exporter.render().decode().splitlines() if not line.startswith("#"))


def test_a_new_pair_is_a_primary_a_synchronous_stand_by_and_databases_at_their_newest_revision(pair):
    pair.whole()
    assert pair.taking_writes() == [ONE]
    assert [pair.hosts[name].ready() for name in NAMES] == [
        (True, "primary of term 1"), (True, "stand-by of term 1"),
    ]  # fmt: skip
    for kind in KINDS:
        with opened(pair.url(kind), kind) as (connection, _):
            assert revisions(kind).current(connection) == revisions(kind).head
    engine = sa.create_engine(pair.url("saga"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (x int)"))
    engine.dispose()
    assert pair.ask(TWO, "SELECT count(*) FROM kept", "saga") == [(0,)]
    first, second = shown(pair.hosts[ONE]), shown(pair.hosts[TWO])
    assert (first["pg_up"], first["pg_replication_is_replica"]) == ("1.0", "0.0")
    assert (second["pg_up"], second["pg_replication_is_replica"]) == ("1.0", "1.0")
    assert second["tapewatch_postgres_following"] == second["tapewatch_postgres_synchronous"] == "1.0"
    assert second['tapewatch_postgres_primary{primary="postgres-1"}'] == "1.0"
    assert float(first['pg_stat_database_xact_commit{datname="ledger"}']) > 0
    assert float(first['pg_database_size_bytes{datname="ledger"}']) > 1e6
    assert float(first["pg_settings_max_connections"]) == 60
    key = 'pg_stat_replication_pg_wal_lsn_diff{application_name="postgres-2",state="streaming"}'
    assert float(first[key]) >= 0


def test_what_was_acknowledged_is_there_after_a_turn_and_the_old_one_comes_back_as_the_stand_by(pair):
    pair.whole()
    pair.ask(ONE, "CREATE TABLE kept (x int)")
    for number in range(20):
        pair.ask(ONE, f"INSERT INTO kept VALUES ({number})")
    pair.kill(ONE)
    pair.turn(ONE)
    assert pair.taking_writes() == [TWO]
    assert pair.ask(TWO, "SELECT count(*) FROM kept") == [(20,)]
    with opened(pair.url(), "ledger") as (connection, _):
        assert connection.execute(sa.text("SHOW port")).scalar() == str(pair.ports[TWO])
    pair.ask(TWO, "INSERT INTO kept VALUES (20)")
    pair.start(ONE)
    until(lambda: pair.record.synchronous)
    assert pair.taking_writes() == [TWO]
    assert pair.ask(ONE, "SELECT count(*) FROM kept") == [(21,)]
    assert pair.record.term == 2
    pair.turn(TWO, "k/1")  # with both in health, as a person would plan it
    until(pair.hosts[TWO].ended)
    assert "deposed" in pair.hosts[TWO].ended()
    assert pair.taking_writes() == [ONE]
    assert pair.ask(ONE, "SELECT count(*) FROM kept") == [(21,)]


class Eyes(threading.Thread):
    """Asks both servers again and again who takes writes."""

    def __init__(self, pair):
        super().__init__(daemon=True)
        self.pair, self.most, self.over = pair, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, len(self.pair.taking_writes()))


def start_again(pair, name):
    """Start a server as somebody who knows of nothing: it may be ended in the middle of its start."""

    def start():
        with contextlib.suppress(TapewatchError):
            pair.start(name)

    thread = threading.Thread(target=start)
    thread.start()
    return thread


def turn_while_the_old_one_is_started(pair, old, moment):
    """Kill the primary, let the other take over, and start the old one again at a moment of that."""
    pair.kill(old)
    if moment == "before the name":
        again = start_again(pair, old)
        time.sleep(0.3)  # it is the primary again by then, or about to be
    pair.turnover.depose(old, moment)
    if moment == "named":
        again = start_again(pair, old)
        time.sleep(0.3)
    completing = threading.Thread(target=pair.turnover.complete, args=(old,))
    completing.start()
    if moment == "fenced":
        until(lambda: pair.record.fenced)
        again = start_again(pair, old)
    completing.join()
    if moment == "promoted":
        again = start_again(pair, old)
    again.join()
    if not pair.hosts[old].ready()[0]:  # it had begun as the primary, and was ended with the turn
        pair.stop(old)
        pair.start(old)
    until(lambda: pair.record.synchronous)


def test_never_do_two_take_writes_whenever_the_old_one_is_started_again(pair):
    pair.whole()
    eyes = Eyes(pair)
    eyes.start()
    old, new = NAMES
    for term, moment in enumerate(("before the name", "named", "fenced", "promoted"), 2):
        turn_while_the_old_one_is_started(pair, old, moment)
        assert (eyes.most, pair.taking_writes()) == (1, [new]), moment
        assert pair.hosts[old].ready() == (True, f"stand-by of term {term}"), moment
        old, new = new, old
    eyes.over.set()
    eyes.join()


def test_commits_go_on_without_a_stand_by_and_nothing_is_promoted_that_may_lack_some(pair):
    pair.whole()
    began = time.monotonic()
    end_all(Path(pair.configs[TWO].directory) / "data")  # the host of its own takes its time to end
    pair.ask(ONE, "CREATE TABLE kept (x int)")
    assert time.monotonic() - began > 1, "it waited for the stand-by as long as that may be only slow"
    assert not pair.record.synchronous
    pair.kill(TWO)
    with pytest.raises(RefusedError, match="does not answer: there is nobody") as refused:
        pair.turnover.check(ONE)
    assert refused.value.reason is RefusalReason.STATE_UNSAFE
    pair.kill(ONE)
    pair.start(TWO)
    with pytest.raises(RefusedError, match="is not known to hold everything") as refused:
        pair.turnover.depose(ONE, "k/0")
    assert refused.value.reason is RefusalReason.STATE_UNSAFE
    assert pair.record.term == 1
    with pytest.raises(RefusedError, match="postgres-2 is not the primary"):
        pair.turnover.check(TWO)
    with pytest.raises(RefusedError, match="no server of the pair"):
        pair.turnover.check("gateway-1")
    pair.start(ONE)
    until(lambda: pair.record.synchronous)
    assert pair.ask(TWO, "SELECT count(*) FROM kept") == [(0,)]


def test_a_turn_that_the_estates_end_cut_short_is_brought_to_its_end_by_the_next_start(pair):
    pair.whole()
    pair.turnover.depose(ONE, "k/0")
    for name in NAMES:
        pair.stop(name)
    assert not pair.record.fenced
    pair.start(*NAMES)
    until(lambda: pair.record.synchronous)
    assert pair.taking_writes() == [TWO]
    assert pair.turnover.complete(ONE) == {"primary": TWO, "term": "2"}


def test_a_primary_that_lost_its_data_is_not_laid_anew(pair):
    pair.whole()
    for name in NAMES:
        pair.stop(name)
    shutil.rmtree(f"{pair.configs[ONE].directory}/data")
    with pytest.raises(PermanentError, match="is the primary of term 1 and has no data"):
        pair.start(ONE)
