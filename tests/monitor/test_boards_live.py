"""Every question of every board finds data on a live estate under load, or says why it may not; a dead one is named."""

import asyncio

import pytest

from control.board_bed import own_estate
from control.child import now
from monitor.adapters.boards import files, live, reading
from monitor.adapters.prometheus_api import PrometheusApi

pytestmark = pytest.mark.estate


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    with own_estate(tmp_path_factory.mktemp("boards")) as found:
        yield found


def ask(plant, boards, silent):
    async def asked():
        async with PrometheusApi(plant.addresses.prometheus, timeout_s=20) as prometheus:
            return await live.ask_all(boards, prometheus, now(), silent)

    return asyncio.run(asked())


def test_no_question_of_any_board_is_dead(plant):
    boards = reading.read(files.GRAFANA)
    verdicts = ask(plant, boards, live.excuses())
    dead = [verdict.sentence() for verdict in verdicts if verdict.dead]
    assert not dead, "\n".join(dead)
    kinds = {verdict.query.kind for verdict in verdicts if verdict.series}
    assert kinds == {"panel", "variable", "annotation"}
    elsewhere = set(live.others().values())
    askable = [verdict for verdict in verdicts if verdict.excuse not in elsewhere]
    assert len(askable) > 300
    assert sum(1 for verdict in askable if verdict.series) > 0.85 * len(askable)


def test_a_dead_question_is_named_with_file_and_line(plant, tmp_path):
    text = (files.GRAFANA / "tapewatch-settlement.json").read_text()
    old = "max(exchange_ledger_imbalance{"
    at = text.index(old)
    path = tmp_path / "tapewatch-settlement.json"
    path.write_text(text[:at] + 'max(exchange_ledger_imbalance{job=\\"nobody\\",' + text[at + len(old) :])
    line = text[:at].count("\n") + 1
    dead = [one.sentence() for one in ask(plant, reading.read(tmp_path), live.excuses()) if one.dead]
    assert len(dead) == 1
    assert dead[0].startswith(f"{path}:{line}: panel Ledger imbalance")


def test_without_the_excuses_what_is_silent_is_found(plant):
    boards = [reading.read_one(files.GRAFANA / "tapewatch-kubernetes.json")]
    verdicts = ask(plant, boards, {})
    assert all(verdict.dead for verdict in verdicts if "kube_" in verdict.query.expr)
