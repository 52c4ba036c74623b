# mypy: disable-error-code="arg-type, dict-item, list-item"
# (plain numbers and texts stand for instants, symbols and ids in these figures)
import re
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from exchange.commands import CancelOrder, Limit, PlaceOrder, Sequenced
from exchange.events import Accepted, Happened, Rejected, Traded
from exchange.ports import AnsweredOrder, BookShape, DeadReason, Refusal, RequestOutcome
from exchange.shards import MAX_PARTITIONS, engine_of, partition_of
from exchange.types import RejectReason, Side
from kernel.time import SECOND
from kernel.trace import order_trace_id
from monitor.adapters.exporter import Exporter, bounded_label, samples
from monitor.catalog import BY_NAME, CATALOG, MAX_LABEL_VALUES, Kind, Role, series_max
from monitor.engine_instruments import EngineInstruments
from monitor.instruments import (
    ConsumerInstruments,
    FeedInstruments,
    GatewayInstruments,
    SettlementInstruments,
    WatchdogInstruments,
)


def values(exporter):
    return {(name, *sorted(labels.items())): value for name, labels, value in samples(exporter.render())}


@pytest.mark.parametrize("role", list(Role))
def test_promtool_accepts_the_page_of_every_role(role):
    exporter = Exporter(role)
    done = subprocess.run(["promtool", "check", "metrics"], input=exporter.render(), capture_output=True, check=False)
    complaints = [
        line for line in done.stderr.decode().splitlines() if line and "process_" not in line and "python_" not in line
    ]
    assert complaints == []


def test_a_page_holds_the_metrics_of_its_role_and_no_other():
    text = Exporter(Role.GATEWAY, process=False).render().decode()
    announced = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert announced == {metric.name for metric in CATALOG if metric.role in {Role.GATEWAY, None}}


def test_a_metric_of_another_role_or_kind_is_a_fault_of_the_program():
    exporter = Exporter(Role.GATEWAY, process=False)
    with pytest.raises(AssertionError):
        exporter.level("exchange_engine_ready")
    with pytest.raises(AssertionError):
        exporter.count("exchange_gateway_in_flight")


def test_closed_label_sets_start_at_zero_and_fold_what_is_outside():
    exporter = Exporter(Role.GATEWAY, process=False)
    exporter.count("exchange_gateway_requests_total", "nonsense").add()
    page = values(exporter)
    assert all(page[("exchange_gateway_requests_total", ("outcome", word))] == 0 for word in RequestOutcome)
    assert page[("exchange_gateway_requests_total", ("outcome", "other"))] == 1


def test_open_label_sets_are_bounded():
    exporter = Exporter(Role.WATCHDOG, process=False)
    watchdog = WatchdogInstruments(exporter)
    for number in range(MAX_LABEL_VALUES + 50):
        watchdog.gap_seen(f"S{number}")
    found = {key: value for key, value in values(exporter).items() if key[0] == "exchange_watchdog_sequence_gaps_total"}
    assert len(found) == MAX_LABEL_VALUES + 1
    assert found[("exchange_watchdog_sequence_gaps_total", ("symbol", "other"))] == 50


def test_timestamps_and_sequences_are_silent_until_they_are_known():
    exporter = Exporter(Role.MARKET_DATA, process=False)
    feed = FeedInstruments(exporter)
    assert ("exchange_feed_sequence",) not in values(exporter)
    feed.published(7, 5 * SECOND, {"delta": 2})
    page = values(exporter)
    assert page[("exchange_feed_sequence",)] == 7
    assert page[("exchange_feed_published_timestamp_seconds",)] == 5
    assert page[("exchange_feed_messages_total", ("kind", "delta"))] == 2


def test_a_spread_without_two_sides_is_left_out():
    exporter = Exporter(Role.MARKET_DATA, process=False)
    feed = FeedInstruments(exporter)
    feed.books(SECOND, {"ACME": BookShape(3, 10, 20)})
    assert values(exporter)[("exchange_book_spread_ticks", ("symbol", "ACME"))] == 3
    feed.books(2 * SECOND, {"ACME": BookShape(None, 0, 20)})
    page = values(exporter)
    assert ("exchange_book_spread_ticks", ("symbol", "ACME")) not in page
    assert page[("exchange_feed_symbol_timestamp_seconds", ("symbol", "ACME"))] == 2
    assert page[("exchange_book_depth_lots", ("side", "buy"), ("symbol", "ACME"))] == 0
    assert page[("exchange_book_depth_lots", ("side", "sell"), ("symbol", "ACME"))] == 20


def test_a_histogram_counts_one_by_one_as_it_does_in_batches():
    single, batch = (Exporter(Role.ENGINE, process=False).spread("exchange_engine_apply_seconds") for _ in range(2))
    sizes = [0.000001, 0.000002, 0.0000021, 0.02, 1.0]
    for size in sizes:
        single.observe(size)
    batch.observe_many(sizes)
    assert single.cumulative() == batch.cumulative()
    assert single.total == pytest.approx(batch.total)
    assert batch.cumulative()[0] == ("2e-06", 2.0), "a bucket holds its own bound"
    assert batch.cumulative()[-1] == ("+Inf", 5.0)


@given(st.lists(st.floats(0, 2) | st.sampled_from([0.000002, 0.00001, 0.001, 0.25]), max_size=80))
def test_a_batch_of_any_size_counts_as_its_values_do_one_by_one(sizes):
    single, batch = (Exporter(Role.ENGINE, process=False).spread("exchange_engine_apply_seconds") for _ in range(2))
    for size in sizes:
        single.observe(size)
    batch.observe_many(sizes)
    assert single.cumulative() == batch.cumulative()
    assert batch.total == pytest.approx(single.total)


class AsTheLibraryWrites(Collector):
    """The same cells laid out and written by `prometheus_client`."""

    def __init__(self, exporter):
        self.exporter = exporter

    def collect(self):
        for metric in self.exporter._metrics:
            series = [(key[1:], cell) for key, cell in self.exporter._cells.items() if key[0] == metric.name]
            if metric.kind is Kind.COUNTER:
                family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
            elif metric.kind is Kind.GAUGE:
                family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            else:
                family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, cell in series:
                if metric.kind is Kind.HISTOGRAM:
                    family.add_metric(labels, cell.cumulative(), cell.total)
                elif cell.value is not None:
                    family.add_metric(labels, float(cell.value))
            yield family


NUMBERS = st.floats(0, allow_nan=False) | st.integers(0, 2**70)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.text(max_size=20), NUMBERS), max_size=12),
    st.lists(NUMBERS | st.floats() | st.floats(-1e9, 1e9), max_size=6),
    st.lists(st.tuples(st.floats(0, 20), st.text(max_size=8) | st.none()), max_size=20),
)
def test_the_page_is_what_the_library_would_have_written(counts, levels, sizes):
    exporter = Exporter(Role.GATEWAY, process=False)
    for label, amount in counts:
        exporter.count("exchange_symbol_acks_total", label, "engine-2").add(amount)
        exporter.level("tapewatch_build_info", label).set(amount)
    for name, value in zip((one.name for one in exporter._metrics if one.kind is Kind.GAUGE and not one.labels),
                           levels, strict=False):  # fmt: skip
        exporter.level(name).set(value)
    for size, example in sizes:
        exporter.spread("exchange_order_ack_seconds").observe(size, None if example is None else lambda e=example: e)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AsTheLibraryWrites(exporter))
    assert exporter.render() == generate_latest(registry)
    assert exporter.page("application/openmetrics-text")[0] == openmetrics_text.generate_latest(registry)


@pytest.mark.parametrize("role", list(Role))
def test_a_fresh_page_of_every_role_is_what_the_library_would_have_written(role):
    exporter = Exporter(role, process=False)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AsTheLibraryWrites(exporter))
    assert exporter.render() == generate_latest(registry)
    assert exporter.page("application/openmetrics-text")[0] == openmetrics_text.generate_latest(registry)


def place(seq):
    return Sequenced(seq, 0, PlaceOrder("a", f"c{seq}", "ACME", Side.BUY, 1, Limit(1)))


def test_a_commit_is_counted_by_command_reason_and_lot():
    exporter = Exporter(Role.ENGINE, process=False)
    engine = EngineInstruments(exporter, ["ACME", "BETA"])
    trade = Traded(1, "ACME", 1, 10, 5, 1, 2, Side.BUY, "a", "b", 0)
    engine.committed(
        [place(1), place(2), Sequenced(3, 0, CancelOrder("a", "x", 9))],
        [
            Happened(1, 0, ()),
            Happened(2, 0, (trade,)),
            Happened(3, 0, (Rejected("a", "x", RejectReason.UNKNOWN_ORDER),)),
        ],
        apply_s=[0.00001, 0.00001, 0.00001],
        sync_s=0.003,
    )
    engine.refused(Refusal.OVERLOADED, 4)
    engine.standing(queue_depth=1, subscribers=2, resting_orders=3, market_halted=False, halted_symbols=["ACME"])
    engine.open_notional(1_234)
    page = values(exporter)
    assert page[("exchange_engine_sequence",)] == 3
    assert page[("exchange_open_notional_ticks",)] == 1_234
    assert page[("exchange_commands_total", ("command", "place"))] == 2
    assert page[("exchange_rejects_total", ("reason", "unknown_order"))] == 1
    assert page[("exchange_traded_lots_total",)] == 5
    assert page[("exchange_engine_apply_seconds_count",)] == 3
    assert page[("exchange_journal_batch_commands_sum",)] == 3
    assert page[("exchange_refused_total", ("reason", "overloaded"))] == 4
    assert page[("exchange_symbol_halted", ("symbol", "ACME"))] == 1
    assert page[("exchange_symbol_halted", ("symbol", "BETA"))] == 0
    engine.standing(queue_depth=0, subscribers=2, resting_orders=3, market_halted=True, halted_symbols=[])
    assert values(exporter)[("exchange_symbol_halted", ("symbol", "ACME"))] == 0


def test_what_commits_brought_is_on_every_page_and_counted_once_however_many_there_were():
    exporter = Exporter(Role.ENGINE, process=False)
    engine, told = EngineInstruments(exporter, ["ACME"]), 0
    for commits in (1, 2, 700, 3, 1_500):
        for _ in range(commits):
            told += 2
            engine.committed(
                [place(told - 1), place(told)],
                [Happened(told - 1, 0, ()), Happened(told, 0, (Accepted(1, "a", "c", "ACME", 1, Side.BUY, 1, 1),))],
                apply_s=[0.00001, 0.5], sync_s=0.003, waited_s=[0.1, 0.1],
            )  # fmt: skip
        for _ in range(2):
            page = values(exporter)
            assert page[("exchange_engine_sequence",)] == told
            assert page[("exchange_commands_total", ("command", "place"))] == told
            assert page[("exchange_symbol_commands_total", ("symbol", "ACME"))] == told / 2
            assert page[("exchange_orders_accepted_total",)] == told / 2
            assert page[("exchange_engine_apply_seconds_count",)] == told
            assert page[("exchange_engine_queue_seconds_sum",)] == pytest.approx(told * 0.1)
            assert page[("exchange_journal_sync_seconds_count",)] == told / 2


def test_a_shed_request_is_counted_and_not_timed():
    exporter = Exporter(Role.GATEWAY, process=False)
    gateway = GatewayInstruments(exporter)
    gateway.answered(RequestOutcome.SHED, 0.0001)
    gateway.answered(RequestOutcome.ACCEPTED, 0.3)
    page = values(exporter)
    assert page[("exchange_order_ack_seconds_count",)] == 1
    assert page[("exchange_gateway_requests_total", ("outcome", "shed"))] == 1


def test_a_failed_journal_is_no_ready_engine():
    exporter = Exporter(Role.ENGINE, process=False)
    engine = EngineInstruments(exporter)
    engine.ready(ready=True)
    engine.journal_failed()
    page = values(exporter)
    assert (page[("exchange_journal_failed",)], page[("exchange_engine_ready",)]) == (1, 0)


def test_settlement_tells_its_place_and_its_doubles():
    exporter = Exporter(Role.SETTLEMENT, process=False)
    settlement = SettlementInstruments(exporter)
    settlement.committed(9, trades=3, duplicates=2, seconds=0.01)
    settlement.caught_up(12)
    page = values(exporter)
    assert page[("exchange_settlement_sequence",)] == 12
    assert page[("exchange_settlement_duplicates_total",)] == 2


def test_a_consumer_tells_of_its_own_partitions_only():
    exporter = Exporter(Role.SETTLEMENT, process=False)
    consumer = ConsumerInstruments(exporter, "exchange.events")
    topic = ("topic", "exchange.events")
    page = values(exporter)
    assert [value for key, value in page.items() if key[0] == "exchange_dead_letters_total"] == [0, 0, 0]
    consumer.connected(connected=True)
    consumer.assigned([0, 1])
    consumer.lag(0, records=5, committed=7)
    consumer.lag(1, records=1, committed=1)
    consumer.stopped(1, stopped=True)
    consumer.dead_letter(DeadReason.SCHEMA)
    page = values(exporter)
    assert page["exchange_consumer_lag_records", ("partition", "0"), topic] == 5
    assert page["exchange_consumer_committed_lag_records", ("partition", "0"), topic] == 7
    assert page["exchange_consumer_stopped", ("partition", "0"), topic] == 0
    assert page["exchange_consumer_stopped", ("partition", "1"), topic] == 1
    assert page["exchange_dead_letters_total", ("reason", "schema"), topic] == 1
    consumer.assigned([0])
    page = values(exporter)
    assert page["exchange_consumer_rebalances_total", topic] == 2
    assert page["exchange_consumer_partitions", topic] == 1
    assert [key for key in page if ("partition", "1") in key] == []


def test_the_catalogue_follows_prometheus_names():
    for metric in CATALOG:
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total"), metric.name
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets), metric.name
        assert metric.help.endswith("."), metric.name
        assert list(metric.buckets) == sorted(metric.buckets)


# --- examples, and labels that mean harm ------------------------------------------------------------------------------


def openmetrics(exporter):
    body, media_type = exporter.page("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert media_type.startswith("application/openmetrics-text")
    return [
        sample
        for family in text_string_to_metric_families(body.decode())
        if family.name == "exchange_order_ack_seconds"
        for sample in family.samples
    ]


def test_a_slow_order_is_shown_as_an_example_with_its_trace_and_a_quick_one_is_not():
    exporter = Exporter(Role.GATEWAY, process=False)
    gateway = GatewayInstruments(exporter, ["ACME"], share=0.0)
    gateway.answered(RequestOutcome.ACCEPTED, 0.001, AnsweredOrder("ann", "a", "ACME"))
    assert not [sample for sample in openmetrics(exporter) if sample.exemplar]
    gateway.answered(RequestOutcome.ACCEPTED, 0.3, AnsweredOrder("ann", "b", "ACME"))
    gateway.answered(RequestOutcome.SHED, 0.3, AnsweredOrder("ann", "c", "ACME"))
    (shown,) = [sample for sample in openmetrics(exporter) if sample.exemplar]
    assert shown.exemplar.labels == {"trace_id": order_trace_id("ann", "b")}
    assert shown.exemplar.value == 0.3
    assert shown.labels["le"] == "0.5"
    page = values(exporter)
    assert page[("exchange_symbol_acks_total", ("symbol", "ACME"))] == 2
    assert page[("exchange_symbol_slow_acks_total", ("symbol", "ACME"))] == 1
    assert page[("exchange_symbol_ack_seconds_total", ("symbol", "ACME"))] == pytest.approx(0.301)


def test_orders_that_are_told_together_are_counted_like_single_ones():
    pages = []
    for together in (True, False):
        exporter = Exporter(Role.GATEWAY, process=False)
        gateway = GatewayInstruments(exporter, ["ACME"], share=1.0)
        orders = [
            (PlaceOrder("ann", f"c{seq}", symbol, Side.BUY, 1, Limit(5)), seq, "", seq)
            for seq, symbol in enumerate(["ACME", "ACME", "NONE"], 1)
        ]
        if together:
            gateway.resting(0.3, orders)
        else:
            for order, seq, trace, _ in orders:
                gateway.answered(
                    RequestOutcome.ACCEPTED, 0.3, AnsweredOrder("ann", order.client_id, order.symbol, trace, seq)
                )
        pages.append(values(exporter))
        (shown,) = [sample for sample in openmetrics(exporter) if sample.exemplar]
        assert shown.exemplar.labels["trace_id"] in {order_trace_id("ann", f"c{seq}") for seq in (1, 2, 3)}
    assert pages[0] == pytest.approx(pages[1])


def test_who_does_not_ask_for_openmetrics_gets_the_plain_text():
    exporter = Exporter(Role.GATEWAY, process=False)
    assert exporter.page("text/plain") == (exporter.render(), exporter.content_type)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(max_size=200), max_size=30))
def test_hostile_label_values_stay_values_and_are_bounded(names):
    exporter = Exporter(Role.WATCHDOG, process=False)
    for name in names:
        exporter.count("exchange_watchdog_sequence_gaps_total", name).add()
    text = exporter.render()
    rows = [line for line in text.decode().split("\n") if line.startswith("exchange_watchdog_sequence_gaps_total{")]
    assert len(rows) == len(set(map(bounded_label, names))), "one row a value, whatever it holds"
    found = [value for (name, *_), value in values(exporter).items() if name == "exchange_watchdog_sequence_gaps_total"]
    assert sum(found) == len(names)


def test_a_hundred_thousand_hostile_values_cost_no_more_than_the_bound():
    exporter = Exporter(Role.WATCHDOG, process=False)
    for number in range(100_000):
        exporter.count("exchange_watchdog_sequence_gaps_total", f"\0{number}\n\u202e" + "x" * 5_000).add()
    assert len(exporter.render()) < 400_000
    assert len(exporter._cells) < 2 * MAX_LABEL_VALUES


def test_series_of_several_engines_name_the_one_that_has_the_symbol():
    assert [partition_of(symbol, 2) for symbol in ("ACME", "BETA")] == [0, 1]
    feed = Exporter(Role.MARKET_DATA, process=False)
    told = FeedInstruments(feed, engines=2)
    told.books(SECOND, {symbol: BookShape(3, 10, 20) for symbol in ("ACME", "BETA")})
    told.traded({"BETA": SECOND})
    told.engine_connected(connected=True, partition=1)
    page = values(feed)
    for symbol, engine in (("ACME", "engine-1"), ("BETA", "engine-2")):
        assert page[("exchange_feed_symbol_timestamp_seconds", ("engine", engine), ("symbol", symbol))] == 1
    assert page[("exchange_symbol_last_trade_timestamp_seconds", ("engine", "engine-2"), ("symbol", "BETA"))] == 1
    assert page[("exchange_feed_engine_connected", ("engine", "engine-1"))] == 0
    assert page[("exchange_feed_engine_connected", ("engine", "engine-2"))] == 1
    gateway = Exporter(Role.GATEWAY, process=False)
    GatewayInstruments(gateway, ["ACME", "BETA"], engines=2).engine_connected(connected=True, partition=0)
    page = values(gateway)
    assert page[("exchange_gateway_engine_connected", ("engine", "engine-1"))] == 1
    assert page[("exchange_gateway_engine_connected", ("engine", "engine-2"))] == 0
    assert page[("exchange_symbol_acks_total", ("engine", "engine-2"), ("symbol", "BETA"))] == 0
    engine = Exporter(Role.ENGINE, process=False)
    EngineInstruments(engine, ["BETA"], engine="engine-2")
    page = values(engine)
    assert page[("exchange_market_halted", ("engine", "engine-2"))] == 0
    assert page[("exchange_symbol_halted", ("engine", "engine-2"), ("symbol", "BETA"))] == 0


def test_no_series_names_the_only_engine():
    exporter = Exporter(Role.GATEWAY, process=False)
    GatewayInstruments(exporter, ["ACME"])
    page = values(exporter)
    assert page[("exchange_gateway_engine_connected",)] == 0
    assert page[("exchange_symbol_acks_total", ("symbol", "ACME"))] == 0


def test_no_metric_can_exceed_what_the_catalogue_says_it_costs():
    exporter = Exporter(Role.GATEWAY, process=False)
    for number in range(2 * MAX_LABEL_VALUES):
        exporter.count("exchange_symbol_acks_total", f"S{number}", engine_of(number % MAX_PARTITIONS))
    most = series_max(BY_NAME["exchange_symbol_acks_total"])
    assert sum(name == "exchange_symbol_acks_total" for name, *_ in values(exporter)) == most


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_names_units_and_owners_follow_the_conventions(metric):
    if metric.name.startswith("kube_"):
        return  # kube-state-metrics' own names
    assert re.fullmatch(r"(exchange|tapewatch|anomaly|kafka|pg|rabbitmq)_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|millis|milliseconds|us|ns|minutes|hours|kb|mb|percent|pct)(_|$)", metric.name)
    assert metric.help.endswith("."), "a help is a sentence"
    assert metric.owner in {"exchange-platform", "market-operations", "settlement-operations", "platform-operations"}
    if metric.kind is Kind.HISTOGRAM:
        assert list(metric.buckets) == sorted(set(metric.buckets))
