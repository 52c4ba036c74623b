"""Boards of the market itself: orders and books, the feed, and the watchdog over them."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import (
    BAD,
    CALM,
    GOOD,
    GREY,
    ONE,
    ZERO,
    Board,
    Row,
    above,
    ask,
    graph,
    of_kind,
    quantile,
    spread,
    stat,
)

_HALTED: Final = (("0", "trading", GOOD), ("1", "halted", BAD))
_JOINED: Final = (("1", "connected", GOOD), ("0", "lost", BAD))

EXCHANGE: Final = Board(
    name="exchange",
    title="Exchange business",
    about="Orders, fills, rejects by reason, depth, spread, sequence gaps, phases, halts and orders per trade.",
    jobs=("engine", "gateway", "market-data", "watchdog", "control"),
    rows=(
        Row("Orders and trades", (
            stat("Orders", "Orders accepted a second. A sudden fall in a trading phase: see the board Gateway.", "ops",
                 "sum(rate(exchange_orders_accepted_total{$}[$r]))", ((None, CALM),)),
            stat("Trades", "Trades a second. None while orders come: books are one-sided or halted.", "ops",
                 "sum(rate(exchange_trades_total{$}[$r]))", ((None, CALM),)),
            stat("Lots traded", "Lots a second, each trade counted once. Compare with the session's usual volume.",
                 "suffix: lots/s", "sum(rate(exchange_traded_lots_total{$}[$r]))", ((None, CALM),), decimals=1),
            stat("Orders per trade", "Orders accepted for each trade. Red: a member floods the market with orders "
                 "that do not trade; see the rejects.", "short",
                 "sum(rate(exchange_orders_accepted_total{$}[$r])) / (sum(rate(exchange_trades_total{$}[$r])) > 0)",
                 above(50, 500), decimals=1),
            stat("Resting orders", "Orders in all books. A fall to nothing: a mass cancel or a lost restart.", "short",
                 "sum(exchange_resting_orders{$})", ((None, CALM),)),
            stat("Open notional", "Price times quantity of all that rests, in ticks times lots. Compare with the "
                 "members' limits.", "suffix: ticks·lots", "sum(exchange_open_notional_ticks{$})", ((None, CALM),),
                 decimals=1),
            graph("Orders and fills", "Orders, trades and cancels a second. Trades flat while orders come: see halts.",
                  "ops", ask("sum(rate(exchange_orders_accepted_total{$}[$r]))", "orders accepted"),
                  ask("sum(rate(exchange_trades_total{$}[$r]))", "trades"),
                  ask("sum(rate(exchange_cancels_total{$}[$r]))", "cancels"), width=12, height=8),
            graph("Rejects by reason", "Commands refused by a rule. Price_out_of_band for one symbol is a wrong "
                  "reference price; duplicate_client_id is a member that sends again.", "ops",
                  ask("sum by (reason) (rate(exchange_rejects_total{$}[$r]))", "{{reason}}"), stacked=True, width=12,
                  height=8),
            graph("Orders by symbol", "Orders accepted of each symbol. One that stops alone: see its halt and its "
                  "feed.", "ops", ask("sum by (symbol) (rate(exchange_symbol_commands_total{$}[$r]))", "{{symbol}}"),
                  stacked=True),
            graph("Cancels by reason", "Orders whose rest left the book. Many market_remainder: books are thin.", "ops",
                  ask("sum by (reason) (rate(exchange_cancels_total{$}[$r]))", "{{reason}}"), stacked=True),
            graph("Slow answers by symbol", "New orders answered after 250 ms or more. One symbol: its book is large; "
                  "all: see the board Engine.", "ops",
                  ask("sum by (symbol) (rate(exchange_symbol_slow_acks_total{$}[$r]))", "{{symbol}}"),
                  steps=above(0.1, 5)),
        )),
        Row("Books", (
            graph("Depth, buying side", "Lots at the five best levels, by symbol. A side that empties: makers left.",
                  "suffix: lots", ask('sum by (symbol) (exchange_book_depth_lots{$,side="buy"})', "buy {{symbol}}"),
                  stacked=True),
            graph("Depth, selling side", "Lots at the five best levels, by symbol. A side that empties: makers left.",
                  "suffix: lots", ask('sum by (symbol) (exchange_book_depth_lots{$,side="sell"})', "sell {{symbol}}"),
                  stacked=True),
            graph("Spread", "Best offer less best bid. Wide in all symbols: makers are gone; in one: news or an error.",
                  "suffix: ticks", ask("max by (symbol) (exchange_book_spread_ticks{$})", "{{symbol}}"),
                  steps=above(50, 200)),
            of_kind("bargauge", "Spread now", "By symbol. Red: call the maker of that symbol.", "suffix: ticks",
                    ask("max by (symbol) (exchange_book_spread_ticks{$})", "{{symbol}}"), width=12, height=8,
                    steps=above(50, 200), low=0.0),
            of_kind("bargauge", "Since the last trade", "By symbol. Red in a trading phase: nobody trades it, or it is "
                    "halted.", "s", ask("time() - max by (symbol) "
                                        "(exchange_symbol_last_trade_timestamp_seconds{$})", "{{symbol}}"),
                    width=12, height=8, steps=above(60, 600), low=0.0),
        )),
        Row("Phases, halts and gaps", (
            of_kind("state-timeline", "Phase of the calendar", "What the session calendar says. It mutes what belongs "
                    "to trading outside its hours.", "short",
                    ask("max by (phase) (tapewatch_market_phase{$}) == 1", "{{phase}}"),
                    width=24, height=4, steps=((None, GOOD),), words=(("1", "on", GOOD), ("0", "off", GREY))),
            of_kind("state-timeline", "Halts by symbol", "Red while a symbol stands still on its own: find out who "
                    "halted it, then `tapewatch exchange resume`.", "short",
                    ask("max by (symbol) (exchange_symbol_halted{$})", "{{symbol}}"), width=12, height=8, steps=ZERO,
                    words=_HALTED),
            of_kind("state-timeline", "Sequence gaps", "Red while messages of a symbol are missing: its feed is "
                    "resnapshotted by a runbook.", "short",
                    ask("max by (symbol) (exchange_watchdog_sequence_gap{$})", "{{symbol}}"), width=12, height=8,
                    steps=ZERO, words=(("0", "whole", GOOD), ("1", "gap", BAD))),
        )),
    ),
)  # fmt: skip

MARKET_DATA: Final = Board(
    name="market-data",
    title="Market data",
    about="The feed: how far behind the journal, who listens, and how old each symbol's book is.",
    jobs=("engine", "market-data", "watchdog"),
    rows=(
        Row("The feed", (
            stat("Behind the journal", "Commands durable and not yet published. Red: the feed stalls; its runbook "
                 "restarts it.", "short",
                 "clamp_min(max(exchange_engine_sequence{$}) - min(exchange_feed_sequence{$}), 0)",
                 above(200, 2000), width=6),
            stat("Stream from the engine", "Red: the engine is down or its stream port is not reached.", "short",
                 "min(exchange_feed_engine_connected{$})", ONE, words=_JOINED, width=6),
            stat("Subscribers", "Feed subscribers now connected. None: nobody sees prices.", "short",
                 "sum(exchange_feed_subscribers{$})", ((None, BAD), (1, GOOD)), width=6),
            stat("Since the last message", "Red: the feed says nothing at all, not even heartbeats.", "s",
                 "max(time() - exchange_feed_published_timestamp_seconds{$})", above(3, 10), width=6, decimals=1),
            graph("Delay", "From a command's place in the journal to its publication. Above a second: books that "
                  "members see are old.", "s", *spread("exchange_feed_delay_seconds"), steps=above(0.25, 1)),
            of_kind("heatmap", "Delay, all messages", "Where the mass of the messages lies. A second band above the "
                    "first is a stall.", "s",
                    ask("sum by (le) (increase(exchange_feed_delay_seconds_bucket{$}[$r]))", "{{le}}")),
            graph("Messages by kind", "Published a second. Heartbeats alone: no orders come, or the stream is lost.",
                  "ops", ask("sum by (kind) (rate(exchange_feed_messages_total{$}[$r]))", "{{kind}}"), stacked=True),
            of_kind("bargauge", "Age of each book", "Since a symbol's book was last confirmed as current. Red: that "
                    "symbol is stale; its runbook snapshots it again.", "s",
                    ask("time() - max by (symbol) (exchange_feed_symbol_timestamp_seconds{$})", "{{symbol}}"),
                    width=12, height=8, steps=above(5, 10), low=0.0),
            graph("Slow consumers cut off", "Subscribers that did not keep up. Red: call the member.", "ops",
                  ask("sum(rate(exchange_feed_slow_consumers_total{$}[$r]))", "cut off"), width=12, height=8,
                  steps=above(0.01, 1)),
        )),
    ),
)  # fmt: skip

WATCHDOG: Final = Board(
    name="watchdog",
    title="Watchdog",
    about="The market's own watchdog: what it checks on the feed, and the alerts it posts past Prometheus.",
    jobs=("watchdog", "market-data"),
    rows=(
        Row("What it sees", (
            stat("Subscribed to the feed", "Red: it sees nothing; is the feed up?", "short",
                 "min(exchange_watchdog_feed_connected{$})", ONE, words=_JOINED, width=6),
            stat("Symbols with a gap", "Red: messages are missing; see the board Market data.", "short",
                 "sum(exchange_watchdog_sequence_gap{$})", ZERO, width=6),
            stat("Crossed books", "Books whose best bid reaches the best offer. Red: halt that symbol.", "short",
                 "sum(exchange_watchdog_book_crossed{$})", ZERO, width=6),
            stat("Trades through the book, 1 hour", "Trades at a price worse than the best quote. Red: a fault of "
                 "matching; keep the journal.", "short",
                 "sum(increase(exchange_watchdog_trade_throughs_total{$}[1h]))", ZERO, width=6, decimals=0),
            graph("Messages checked", "Feed messages checked a second, beside those published. Apart: it lags.", "ops",
                  ask("sum(rate(exchange_watchdog_messages_total{$}[$r]))", "checked"),
                  ask("sum(rate(exchange_feed_messages_total{$}[$r]))", "published")),
            graph("Gaps by symbol", "Gaps seen a second. One symbol again and again: its publisher drops.", "ops",
                  ask("sum by (symbol) (rate(exchange_watchdog_sequence_gaps_total{$}[$r]))", "{{symbol}}"),
                  steps=above(0.01, 1)),
            graph("Alerts posted", "Straight to Alertmanager, by result. Refused or unreachable: Alertmanager is "
                  "down; see the board Monitoring.", "ops",
                  ask("sum by (result) (rate(exchange_watchdog_alerts_posted_total{$}[$r]))", "{{result}}")),
            of_kind("state-timeline", "Crossed books by symbol", "Red while crossed: halt that symbol.", "short",
                    ask("max by (symbol) (exchange_watchdog_book_crossed{$})", "{{symbol}}"), width=12, height=8,
                    steps=ZERO, words=(("0", "right", GOOD), ("1", "crossed", BAD))),
            graph("Delay of what it sees", "99th percentile from the journal to publication. Red: see Market data.",
                  "s", ask(quantile(0.99, "exchange_feed_delay_seconds"), "p99", exemplar=True), width=12, height=8,
                  steps=above(0.25, 1)),
        )),
    ),
)  # fmt: skip
