"""Log rules decide the same over a real Elasticsearch as over the local files and as the naive evaluator."""

import random

from kernel.time import MILLISECOND, SECOND, Instant, to_rfc3339
from monitor.adapters.elastic_client import Access, connect
from monitor.adapters.log_store_elastic import ElasticLogStore
from monitor.elk import schema
from monitor.logrules.turn import take
from tests.monitor.naive_log_rules import judge
from tests.monitor.test_log_rules_oracle import RULES, T0, played

TURNS = [T0 + second * SECOND for second in (0, 12, 30, 33, 58, 75)]


def arrivals(seed):
    chance, found = random.Random(seed), []
    for _ in range(60):
        moment = T0 + chance.randint(-20, 60) * SECOND + chance.choice([0, 0, 1, 999]) * MILLISECOND
        one = {"@timestamp": to_rfc3339(moment), "log.level": chance.choice(["error", "error", "info"])}
        if chance.random() < 0.8:
            one["service.node.name"] = chance.choice(["a", "b", ["a", "b"]])
        if chance.random() < 0.8:
            one["user.id"] = chance.choice(["u1", "u2", "u3", ["u1", "u3"]])
        if chance.random() < 0.8:
            one["event.duration"] = chance.choice([1, 2, 4, 8, 16, [1, 9]])
        found.append((moment + chance.choice([0, 0, 1, 4, 5, 6, 30]) * SECOND, one))
    return found


def test_every_kind_decides_the_same_on_elasticsearch_and_on_local_files(elastic, elastic_name):
    client = connect(Access(elastic.url))
    client.indices.create(
        index=f"{elastic_name}-logs",
        mappings={"dynamic": False, "properties": schema.properties(schema.FIELDS)},
        settings={"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": -1},
    )
    store = ElasticLogStore(client, f"{elastic_name}-logs")
    for seed in (1, 2):
        client.delete_by_query(index=f"{elastic_name}-logs", query={"match_all": {}}, refresh=True)
        told = arrivals(seed)
        found, kept, waiting = dict.fromkeys(RULES, ()), dict.fromkeys(RULES), list(told)
        for turn in TURNS:
            lines = [part for came, one in waiting if came <= turn for part in ({"index": {}}, one)]
            waiting = [one for one in waiting if one[0] > turn]
            if lines:
                assert not client.bulk(index=f"{elastic_name}-logs", operations=lines, refresh=True)["errors"]
            for name, rule in RULES.items():
                outcome = take(rule, kept[name], store, Instant(turn))
                assert not outcome.unknown
                kept[name] = outcome.kept
                found[name] += tuple((turn, match.at, match.key) for match in outcome.matches)
        for name, rule in RULES.items():
            assert sorted(found[name]) == played(rule, told, TURNS) == judge(rule, told, TURNS), (seed, name)
    assert sum(map(len, found.values())) > len(RULES)
    client.close()
