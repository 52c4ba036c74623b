"""The list of watched series: the house's own is sound and whole, a wrong entry is told by file and line."""

import json
import subprocess

import pytest

from kernel.errors import InputError
from monitor.adapters.watched_files import HOUSE, load_watched
from monitor.rule_check import findings_of
from monitor.watched import BUILDS, PROCESSES, Harm, Renews, filled, labelled, union

GOOD = """series:
  - id: gateway-latency
    query: sum by (replica) (rate(exchange_order_ack_seconds_sum{job="gateway"}[$window]))
    service: gateway
    unit: s
    by: replica
    most: 4
    harm: up
    reason: It creeps.
"""
SECOND = """  - id: gateway-latency
    query: max(exchange_settlement_lag_seconds)
    service: settlement
    unit: s
    reason: Again.
"""
WRONG = [
    ("series:", "serie:", 1, "no list of watched series", "series:"),
    (GOOD, "series: []\n", 1, "the list is empty", "one series"),
    (GOOD, GOOD + SECOND, 10, "gateway-latency is also in", "another id"),
    ("    harm: up", "    harms: up", 8, "harms is no key", "did you mean harm?"),
    ("    harm: up", "    harm: sideways", 8, "'sideways' is no harm", "both, up, down"),
    ("    harm: up", "    least: -1", 8, "'-1' is no size", "20%"),
    ("    harm: up", "    least: 20 %", 8, "'20 %' is no size", "20%"),
    ("    harm: up", "    least: true", 8, "'True' is no size", "20%"),
    ("    harm: up", "    session: often", 8, "neither true nor false", "true or false"),
    ("    harm: up", "    renews: never", 8, "'never' is no renews", "build, process"),
    ("    reason: It creeps.\n", "", 2, "lacks reason", "id, query"),
    ("It creeps.", '""', 9, "reason is no text", "characters"),
    ("id: gateway-latency", "id: Gateway Latency", 2, "is no id", "lower-case"),
    ("service: gateway", "service: The Gateway", 4, "is no service", "$job"),
    ("most: 4", "most: 0", 7, "'0' is no number of parts", "1 to 200"),
    ("    most: 4\n", "", 6, "by and most go together", "both or none"),
    ("by: replica", "by: Re-plica", 6, "is no by", "one label's name"),
    ("by: replica", "by: symbol", 6, "does not keep the label symbol", "aggregate by (symbol)"),
    ("service: gateway", "service: $job", 4, "does not keep the label job", "aggregate by (job)"),
    ("exchange_order_ack_seconds_sum", "exchange_order_akc_seconds_sum", 3, "nobody exports", "did you mean"),
    ("[$window]", "[$windw]", 3, "a variable that is not known", "$window"),
    ("rate(exchange", "rate((exchange", 3, "cannot be read", "promtool accepts"),
    ('job="gateway"', 'jub="gateway"', 3, "no label jub", "job"),
    ("rate(exchange_order_ack_seconds_sum", "avg_over_time(exchange_order_ack_seconds_sum", 3, "read raw", "rate("),
    ('rate(exchange_order_ack_seconds_sum{job="gateway"}[$window])', "anomaly_score", 3, "our own", "not watched"),
]  # fmt: skip


def write(directory, text):
    path = directory / "watched.yaml"
    path.write_text(text)
    return path


def test_a_good_entry_is_read_whole(tmp_path):
    (one,) = load_watched(write(tmp_path, GOOD))
    assert (one.id, one.by, one.most, one.harm, one.session, one.renews) == (
        "gateway-latency", "replica", 4, Harm.UP, False, Renews.BUILD
    )  # fmt: skip
    assert one.where.endswith("watched.yaml:2")
    for text, least, share in (("0.5", 0.5, 0.0), ("20%", 0.0, 0.2)):
        (one,) = load_watched(write(tmp_path, GOOD + f"    least: {text}\n"))
        assert (one.least, one.least_share) == (least, pytest.approx(share))


@pytest.mark.parametrize(("old", "new", "line", "problem", "right"), WRONG, ids=[one[3][:40] for one in WRONG])
def test_a_wrong_entry_is_told_with_its_line_and_what_would_be_right(tmp_path, old, new, line, problem, right):
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_watched(path)
    assert caught.value.where == f"{path}:{line}", str(caught.value)
    assert problem in caught.value.problem
    assert right in (caught.value.right or "")


def test_a_list_that_would_be_too_many_series_is_refused(tmp_path):
    many = "".join(
        GOOD.removeprefix("series:\n").replace("gateway-latency", f"s-{n}").replace("most: 4", "most: 200")
        for n in range(6)
    )
    with pytest.raises(InputError, match="at most 1,000 in all"):
        load_watched(write(tmp_path, "series:\n" + many))


def test_the_houses_list_covers_every_service_and_gives_a_reason_each():
    watched = load_watched(HOUSE)
    services = {one.service for one in watched}
    assert services >= {
        "gateway", "engine", "market-data", "watchdog", "settlement", "exchange", "monitoring", "log-watch", "$job",
    }  # fmt: skip
    assert all(len(one.reason) > 30 for one in watched)
    assert len({one.reason for one in watched}) == len(watched)
    assert all(one.least or one.least_share for one in watched)
    memory = next(one for one in watched if one.id == "process-memory")
    for job in ("engine", "gateway", "market-data", "settlement", "watchdog", "control", "log-watch"):
        assert job in memory.query
    assert memory.renews is Renews.PROCESS


def test_the_houses_queries_hold_to_the_catalogue():
    for one in load_watched(HOUSE):
        assert [str(found) for found in findings_of(filled(one.query, 10), {})] == [], one.id


def test_all_of_them_are_one_sound_question_and_each_is_one_alone(tmp_path):
    watched = load_watched(HOUSE)
    asked = [union(watched, 10), *(labelled(one, 20) for one in watched)]
    rules = {"groups": [{"name": "q", "rules": [{"record": f"q{n}:x", "expr": q} for n, q in enumerate(asked)]}]}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(rules))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked[0].count(" or label_replace(") == len(watched) + 1, "versions and starts are asked for as well"
    assert f'"series", "{BUILDS}"' in asked[0]
    assert f'"series", "{PROCESSES}"' in asked[0]
    assert "$window" not in asked[0]


def test_a_series_follows_another_one_of_its_service_or_is_refused(tmp_path):
    other = GOOD.split("series:")[1].replace("id: gateway-latency", "id: gateway-queue")
    other = "\n".join(line for line in other.split("\n") if "by:" not in line and "most:" not in line)
    (_, queue) = load_watched(write(tmp_path, GOOD + other))
    assert queue.follows == ""
    (first, _) = load_watched(write(tmp_path, GOOD + "    follows: gateway-queue" + other))
    assert first.follows == "gateway-queue"
    with pytest.raises(InputError) as caught:
        load_watched(write(tmp_path, GOOD + "    follows: gateway-queues" + other))
    assert "of gateway there are gateway-queue" in (caught.value.right or "")
