"""Each alert of the PostgreSQL servers, fired by what really happens to one: its readings, the rule, promtool."""

import contextlib
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest
import yaml

from control.addresses import HOST
from control.servers.hosted_postgres import HostedPostgres
from control.servers.postgres_pair import LOGIN
from monitor.adapters.exporter import Exporter
from monitor.catalog_model import Role
from tests.postgres_pair import NAMES, WORDS, real_pair, until

ONE, TWO = NAMES
RULES = Path(__file__).parents[2] / "alerts/rules/postgres.yml"
EVERY_S = 10
"""Readings follow one another as if so many seconds apart: real ones would take minutes."""


@pytest.fixture(scope="module")
def pair(postgres_programs):
    with real_pair() as found:
        yield found.whole()


class Record:
    """What the hosts told, as series for promtool: one reading of every server a step."""

    def __init__(self, pair):
        self.pair, self.steps, self.series = pair, 0, {}
        self.exporters = {name: Exporter(Role.POSTGRES, process=False) for name in NAMES}

    def look(self, times=1):
        for name in NAMES:
            host = self.pair.hosts.get(name)
            self._add(f'up{{job="postgres",replica="{name}"}}', "1" if host else "0", times)
            if host is None:
                continue
            host.observe(self.exporters[name])
            for line in self.exporters[name].render().decode().splitlines():
                if line and not line.startswith("#"):
                    what, value = line.rsplit(" ", 1)
                    metric, _, labels = what.rstrip("}").partition("{")
                    more = f",{labels}" if labels else ""
                    self._add(f'{metric}{{job="postgres",replica="{name}"{more}}}', value, times)
        self.steps += times
        for values in self.series.values():
            values.extend(["stale"] * (self.steps - len(values)))  # what is told no longer, Prometheus knows to be gone

    def _add(self, series, value, times):
        values = self.series.setdefault(series, ["_"] * self.steps)
        values += [value] * times

    def fires(self, alert, tmp_path):
        """Return with which labels an alert fires at the end, in promtool's words; None when it does not."""
        test = {
            "rule_files": [str(RULES)], "evaluation_interval": "1s",
            "tests": [{
                "interval": f"{EVERY_S}s",
                "input_series": [{"series": name, "values": " ".join(values)} for name, values in self.series.items()],
                "alert_rule_test": [{"eval_time": f"{(self.steps - 1) * EVERY_S}s", "alertname": alert, "exp_alerts": [
                    {"exp_labels": {"none": "such"}}]}],
            }],
        }  # fmt: skip
        path = tmp_path / "test.yml"
        path.write_text(yaml.safe_dump(test))
        told = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
        got = told.stdout + told.stderr
        assert "FAILED" in got, got
        got = got.split("got:")[1]
        return got if f'alertname="{alert}"' in got else None


def fired(record, alert, tmp_path, *labels):
    got = record.fires(alert, tmp_path)
    assert got is not None, f"{alert} does not fire"
    for label in labels:
        assert label in got
    return True


def connection(pair, name, database="ledger", **options):
    return psycopg.connect(host=HOST, port=pair.ports[name], user=LOGIN, password=WORDS["postgres-roles"],
                           dbname=database, **options)  # fmt: skip


def test_two_transactions_that_wait_for_each_other_are_told(pair, tmp_path):
    record = Record(pair)
    pair.ask(ONE, "CREATE TABLE held (x int); INSERT INTO held VALUES (1), (2); GRANT ALL ON held TO PUBLIC")
    record.look(7)
    ended = []

    def take(first, second):
        with contextlib.closing(connection(pair, ONE)) as link:
            link.execute(f"UPDATE held SET x = x WHERE x = {first}")
            both.wait()
            try:
                link.execute(f"UPDATE held SET x = x WHERE x = {second}")
            except psycopg.errors.DeadlockDetected:
                ended.append(first)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=take, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    until(lambda: pair.ask(ONE, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'ledger'") == [(1,)])
    assert record.fires("PostgresDeadlocks", tmp_path) is None
    record.look()
    assert fired(record, "PostgresDeadlocks", tmp_path, 'datname="ledger"')


def take_all(pair, stack):
    while True:
        stack.callback(connection(pair, ONE).close)


def test_when_the_roles_take_every_connection_it_is_told_and_who_watches_still_gets_in(pair, tmp_path):
    record = Record(pair)
    record.look(2)
    assert record.fires("PostgresConnectionsExhausted", tmp_path) is None
    with contextlib.ExitStack() as stack:
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            take_all(pair, stack)
        record.look(2)
        assert pair.hosts[ONE].ready()[0]
    assert fired(record, "PostgresConnectionsExhausted", tmp_path, f'replica="{ONE}"')


def test_a_stand_by_that_stands_still_or_is_gone_and_a_long_transaction_are_told(pair, tmp_path):
    record = Record(pair)
    with contextlib.closing(connection(pair, ONE)) as link:
        link.execute("SELECT 1")
        record.look(2)
        assert [record.fires(name, tmp_path) for name in ("PostgresReplicaLag", "PostgresLongTransaction")] == [
            None, None,
        ]  # fmt: skip
        pair.ask(TWO, "SELECT pg_wal_replay_pause()")
        pair.ask(ONE, "CREATE TABLE later (x int)")
        key = next(name for name in record.series if "max_tx" in name and "idle in transaction" in name)
        assert float(record.series[key][-1]) < 40
        time.sleep(1)
        record.look()
        lag = f'pg_replication_lag_seconds{{job="postgres",replica="{TWO}"}}'
        assert float(record.series[lag][-1]) > 1
        assert float(record.series[key][-1]) > 1
        pair.ask(TWO, "SELECT pg_wal_replay_resume()")
    for name in (lag, key):  # a minute is not waited for: the server's readings are drawn out by a factor
        record.series[name][-1] = str(float(record.series[name][-1]) * 1000)
    record.series = {name: [*values, values[-1]] for name, values in record.series.items()}
    record.steps += 1
    assert fired(record, "PostgresReplicaLag", tmp_path, f'replica="{TWO}"')
    assert fired(record, "PostgresLongTransaction", tmp_path, 'datname="ledger"')


def test_a_stand_by_that_is_cut_off_and_one_that_is_down_are_told(pair, tmp_path):
    record = Record(pair)
    record.look(2)
    pair.ask(TWO, "ALTER SYSTEM SET primary_conninfo = ''")
    pair.ask(TWO, "SELECT pg_reload_conf()")
    until(lambda: not pair.ask(TWO, "SELECT 1 FROM pg_stat_wal_receiver"))
    record.look(3)
    assert fired(record, "PostgresReplicationBroken", tmp_path, f'replica="{TWO}"')
    pair.kill(TWO)
    record.look(2)
    assert fired(record, "PostgresDown", tmp_path, f'replica="{TWO}"')
    assert record.fires("PostgresPrimaryDown", tmp_path) is None
    pair.start(TWO)
    until(lambda: pair.record.synchronous)


def test_a_primary_that_is_gone_and_two_that_take_writes_are_told(pair, tmp_path, monkeypatch):
    record = Record(pair)
    record.look(2)
    pair.kill(ONE)
    record.look(2)
    assert fired(record, "PostgresPrimaryDown", tmp_path, f'replica="{ONE}"')
    assert record.fires("PostgresDown", tmp_path) is None, "the primary's loss has an alert of its own"
    pair.turn(ONE)
    record.look(2)
    assert record.fires("PostgresPrimaryDown", tmp_path) is None
    assert fired(record, "PostgresDown", tmp_path, f'replica="{ONE}"')
    assert record.fires("PostgresTwoPrimaries", tmp_path) is None
    pair.start(ONE)
    with monkeypatch.context() as patch:  # as if nobody kept it
        patch.setattr(HostedPostgres, "_tend_stand_by", lambda *_: None)
        pair.ask(ONE, "SELECT pg_promote()", "postgres")  # by somebody's hand
        record.look(2)
        assert fired(record, "PostgresTwoPrimaries", tmp_path)
    until(pair.hosts[ONE].ended)
    assert "promoted although postgres-2 is the primary" in pair.hosts[ONE].ended()
