"""Two boards by method: rate, errors, duration of every service; utilisation, saturation, errors of every resource."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import FRACTION, ONE, Board, Row, above, ask, below, gauge, graph, quantile, stat

_DISK: Final = 'mountpoint="/"'

RED: Final = Board(
    name="red",
    title="RED: rate, errors, duration",
    about="Every service by the same three questions: how much, how much of it fails, how long it takes.",
    jobs=("engine", "gateway", "market-data", "settlement", "control", "watchdog", "load"),
    rows=(
        Row("Rate", (
            graph("Gateway requests", "Order requests answered, by gateway. One replica apart from the others is sick "
                  "or left out: see the board Gateway.", "reqps",
                  ask("sum by (job, replica) (rate(exchange_gateway_requests_total{$}[$r]))", "{{replica}}")),
            graph("Engine commands", "Commands sequenced. A fall while gateways are busy: see the board Engine.", "ops",
                  ask("sum by (job, command) (rate(exchange_commands_total{$}[$r]))", "{{command}}"), stacked=True),
            graph("Feed, settlement and watchdog", "Messages published, trades posted, messages checked. One that "
                  "stops while others run has lost its stream: see its own board.", "ops",
                  ask("sum(rate(exchange_feed_messages_total{$}[$r]))", "feed messages"),
                  ask("sum(rate(exchange_settlement_trades_total{$}[$r]))", "trades posted"),
                  ask("sum(rate(exchange_watchdog_messages_total{$}[$r]))", "messages checked")),
        )),
        Row("Errors", (
            graph("Gateway failures", "Share of requests without an answer of the market, by gateway. Red: see the "
                  "board Gateway.", "percentunit",
                  ask('sum by (job, replica) (rate(exchange_gateway_requests_total{$,outcome=~"shed|halted|'
                      'unavailable|unknown"}[$r])) / (sum by (job, replica) '
                      '(rate(exchange_gateway_requests_total{$}[$r])) > 0)', "{{replica}}"), steps=FRACTION, low=0.0),
            graph("Engine refusals", "Requests without a place in the journal, by reason. Journal_failed and "
                  "overloaded are outages: see the board Engine.", "ops",
                  ask("sum by (reason) (rate(exchange_refused_total{$}[$r]))", "{{reason}}")),
            graph("Errors in logs", "Records of level error and critical, by service. Follow the link to the logs.",
                  "ops", ask('sum by (job) (rate(tapewatch_log_records_total{$,severity=~"error|critical"}[$r]))',
                             "{{job}}")),
            graph("Control errors", "Webhooks by status code. Anything but 202 is an alert that may be lost: see the "
                  "board Control plane.", "reqps",
                  ask("sum by (code) (rate(tapewatch_webhooks_total{$}[$r]))", "{{code}}")),
            graph("Log records lost", "Records that never reached the file. Red: disk or queue; see the board "
                  "Pipeline.", "ops", ask("sum by (job, reason) (rate(tapewatch_log_lost_total{$}[$r]))",
                                          "{{job}} {{reason}}"), steps=above(0.001, 1)),
            graph("Slow consumers", "Feed subscribers cut off because they did not keep up. Red: call the member.",
                  "ops", ask("sum(rate(exchange_feed_slow_consumers_total{$}[$r]))", "cut off"),
                  steps=above(0.01, 1)),
        )),
        Row("Duration", (
            graph("Order answer, 99th percentile", "By gateway, from request to durable answer. Red: compare with "
                  "journal and matching on this row.", "s",
                  ask(quantile(0.99, "exchange_order_ack_seconds", "job, replica"), "{{replica}}", exemplar=True),
                  steps=above(0.1, 0.25)),
            graph("Engine: queue, matching, journal", "99th percentile of each part of a command's way. The largest "
                  "is the cause of slow answers.", "s",
                  ask(quantile(0.99, "exchange_engine_queue_seconds"), "waiting in queue"),
                  ask(quantile(0.99, "exchange_engine_apply_seconds"), "matching"),
                  ask(quantile(0.99, "exchange_journal_sync_seconds"), "journal sync"), steps=above(0.1, 0.25)),
            graph("Feed, settlement, webhooks", "99th percentile: publication after the journal, a ledger commit, a "
                  "webhook's answer. Red: see the board of the service.", "s",
                  ask(quantile(0.99, "exchange_feed_delay_seconds"), "feed"),
                  ask(quantile(0.99, "exchange_settlement_commit_seconds"), "ledger commit"),
                  ask(quantile(0.99, "tapewatch_webhook_seconds"), "webhook"), steps=above(0.25, 1)),
        )),
    ),
)  # fmt: skip

USE: Final = Board(
    name="use",
    title="USE: utilisation, saturation, errors",
    about="Every resource of the machine and of each process: how busy, how much waits, what went wrong.",
    jobs=("node", "engine", "gateway", "market-data", "settlement", "watchdog", "load", "control", "estate",
          "log-watch", "bridge", "shipper", "prometheus", "alertmanager"),
    rows=(
        Row("The machine at a glance", (
            gauge("Processor", "Share of processor time in use. Red: something else runs here, or the exchange needs "
                  "a larger machine.", "percentunit",
                  '1 - avg(rate(node_cpu_seconds_total{$,mode="idle"}[$r]))', above(0.8, 0.95), low=0.0, high=1.0,
                  width=6),
            gauge("Memory", "Share of memory in use. Red: find the process on this board; a leak has a runbook.",
                  "percentunit", "1 - max(node_memory_MemAvailable_bytes{$} / node_memory_MemTotal_bytes{$})",
                  above(0.8, 0.95), low=0.0, high=1.0, width=6),
            gauge("Disk", "Share of the root file system in use. Red: make room before the journal stops.",
                  "percentunit", f"1 - max(node_filesystem_avail_bytes{{$,{_DISK}}} / "
                  f"node_filesystem_size_bytes{{$,{_DISK}}})", above(0.8, 0.92), low=0.0, high=1.0, width=6),
            stat("Clock in step", "1 while the kernel says the clock is synchronised. Red: start the time service; "
                 "timestamps are evidence.", "short", "min(node_timex_sync_status{$})", ONE, width=6, height=6),
        )),
        Row("Utilisation and saturation", (
            graph("Processor by mode", "Where processor time goes, in cores. Much iowait: the disk is the bottleneck.",
                  "short", ask('sum by (mode) (rate(node_cpu_seconds_total{$,mode!="idle"}[$r]))', "{{mode}}"),
                  stacked=True, width=12),
            graph("Load", "Processes that run or wait, one and five minutes. Lasting above the number of cores: "
                  "work waits.", "short", ask("max(node_load1{$})", "1 minute"), ask("max(node_load5{$})", "5 minutes"),
                  ask("count(count by (cpu) (node_cpu_seconds_total{$}))", "capacity: cores"), width=12),
            graph("Disk traffic", "Bytes read and written a second. Compare with journal sync on the board Engine.",
                  "Bps", ask("sum(rate(node_disk_read_bytes_total{$}[$r]))", "read"),
                  ask("sum(rate(node_disk_written_bytes_total{$}[$r]))", "written")),
            graph("Disk busy", "Share of time a disk had work. Near 100 %: fsync waits.", "percentunit",
                  ask("max(rate(node_disk_io_time_seconds_total{$}[$r]))", "busiest disk"), steps=above(0.7, 0.9),
                  low=0.0),
            graph("Network errors and drops", "Packets in error or dropped. Red: the interface or its queue.", "pps",
                  ask("sum(rate(node_network_receive_errs_total{$}[$r]) + "
                      "rate(node_network_transmit_errs_total{$}[$r]))", "errors"),
                  ask("sum(rate(node_network_receive_drop_total{$}[$r]) + "
                      "rate(node_network_transmit_drop_total{$}[$r]))", "dropped"), steps=above(1, 10)),
        )),
        Row("Processes", (
            graph("Processor of each process", "Cores used, by replica. One that stays at one core is saturated: "
                  "a Python process cannot use two.", "short",
                  ask("sum by (job, replica) (rate(process_cpu_seconds_total{$}[$r]))", "{{replica}}"), width=12,
                  height=9, steps=above(0.8, 0.95)),
            graph("Memory of each process", "Resident memory, by replica. A line that only climbs is a leak.", "bytes",
                  ask("sum by (job, replica) (process_resident_memory_bytes{$})", "{{replica}}"), width=12, height=9),
            graph("Event loop lag", "How late the loop was at worst in five seconds. Red: something blocks it; look at "
                  "the collector beside.", "s",
                  ask("max by (job, replica) (tapewatch_event_loop_lag_seconds{$})", "{{replica}}"),
                  steps=above(0.1, 0.5)),
            graph("Garbage collection", "99th percentile of one run, by service. Red: too many objects live.", "s",
                  ask(quantile(0.99, "tapewatch_gc_pause_seconds", "job"), "{{job}}"), steps=above(0.05, 0.25)),
            graph("File descriptors", "Share of the allowed descriptors in use. Red: connections leak.", "percentunit",
                  ask("max by (job, replica) (process_open_fds{$} / process_max_fds{$})", "{{replica}}"),
                  steps=above(0.7, 0.9), low=0.0),
            stat("Targets down", "Processes that Prometheus cannot scrape. Red: `tapewatch status`.", "short",
                 "count(up{$}) - sum(up{$})", above(1, 1), width=8),
            stat("Lowest share of memory available", "Of the machine. Red: see the gauge above.", "percentunit",
                 "min(node_memory_MemAvailable_bytes{$} / node_memory_MemTotal_bytes{$})", below(0.05, 0.2), width=8),
            stat("Journal's disk free", "Room on the disk of the journal. Red: make room now; matching stops without.",
                 "bytes", "min(exchange_journal_disk_free_bytes{$})", below(1e9, 5e9), width=8),
        )),
    ),
)  # fmt: skip
