"""The process `settlement`, told where Kafka is: it settles, tells how far it is, and goes on where it was killed."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from control.config import KafkaAccess
from exchange.adapters.kafka_topics import prepare
from monitor.adapters.exporter import samples
from tests.control.test_roles import Estate, ready
from tests.exchange.ledger_from_kafka import event, publish
from tests.exchange.test_settlement import happenings, trades_of
from tests.exchange.test_settlement_from_kafka import sealed
from tests.kafka_brokers import new_place

pytestmark = pytest.mark.kafka


async def page(session, estate):
    async with session.get(estate.url("settlement", "/metrics")) as answer:
        told = samples(await answer.read())
    return {(name, tuple(sorted(labels.items()))): value for name, labels, value in told}


async def told_of(session, estate, key, value):
    """Wait until the process tells `value`; return all that it tells then."""
    async with asyncio.timeout(90):
        while True:
            found = await page(session, estate)
            if found.get(key) == value:
                return found
            await asyncio.sleep(0.05)


async def settled(session, estate, trades):
    async with asyncio.timeout(90):
        while True:
            async with session.get(estate.url("settlement", "/v1/ledger")) as answer:
                ledger = await answer.json()
            if ledger["trades"] == trades:
                return ledger
            await asyncio.sleep(0.05)


async def test_it_settles_from_kafka_and_goes_on_where_it_was_killed_and_stops_where_a_record_is_missing(
    kafka, tmp_path
):
    place, estate, told = new_place(kafka), Estate(tmp_path), happenings(300)
    prepare(place)
    access = KafkaAccess(
        **{name: getattr(place, name) for name in KafkaAccess.__struct_fields__ if name != "cluster_id"},
        cluster_id=kafka.cluster_id,
    )
    topic, where = ("topic", place.events), (("partition", "0"), ("topic", place.events))
    try:
        estate.start("settlement", kafka=access)
        async with aiohttp.ClientSession() as session:
            publish(place, 0, [*map(sealed, told[:200]), b"{}"])
            await ready(session, estate.url("settlement", "/health/ready"))
            await settled(session, estate, len(trades_of(told[:200])))
            estate.kill("settlement")
            publish(place, 0, [sealed(one) for one in told[150:]])
            estate.start("settlement", kafka=access)
            await ready(session, estate.url("settlement", "/health/ready"))
            ledger = await settled(session, estate, len(trades_of(told)))
            assert (ledger["imbalance"], ledger["partitions"]) == (0, {"0": 300})
            publish(place, 0, [event(302)])
            await told_of(session, estate, ("exchange_consumer_stopped", where), 1)
            async with session.get(estate.url("settlement", "/health/ready")) as answer:
                assert answer.status == 503
                assert "record 302 stands where 301 should" in await answer.text()
            found = await told_of(session, estate, ("exchange_consumer_lag_records", where), 1)
        assert found["exchange_dead_letters_total", (("reason", "damaged"), topic)] == 1
        assert found["exchange_consumer_connected", (topic,)] == 1
        assert found["exchange_settlement_engine_connected", ()] == 1
        assert estate.stop() == {"settlement": (0, "")}
    finally:
        for replica in list(estate.processes):
            estate.kill(replica)


async def test_it_refuses_another_cluster_than_the_one_that_was_named(kafka, tmp_path):
    estate, place = Estate(tmp_path), new_place(kafka)
    access = KafkaAccess(bootstrap=place.bootstrap, topic=place.topic, cluster_id="AAAAAAAAAAAAAAAAAAAAAA")
    estate.start("settlement", kafka=access)
    process = estate.processes.pop("settlement")
    _, words = await asyncio.to_thread(process.communicate, timeout=90)
    assert process.returncode == 1
    assert f"belongs to cluster {kafka.cluster_id}, not to AAAAAAAAAAAAAAAAAAAAAA" in words
