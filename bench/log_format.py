"""What a log record costs: on the path of the event, and on the thread that writes it, against Python's own logging.

    python bench/log_format.py [RECORDS]

All are measured in one run on one machine, by the thread's own time, the same record each: Python's `logging` with a
formatter that writes the same ECS fields by `json`, and with one built as the published ECS library is (a nested
document merged from dotted names).
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.parts.figures import percentile, verdict
from kernel.adapters.clock import SystemClock
from kernel.time import Instant, to_rfc3339
from monitor.adapters.log_files import FileLog
from monitor.logs import EcsFormat

FIELDS = {
    "symbol": "ACME", "seq": 12_345, "reason": "price-band", "duration_ns": 123_456, "account": "A17",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}  # fmt: skip
DOTTED = {
    "exchange.symbol": "ACME", "exchange.seq": 12_345, "event.reason": "price-band", "event.duration": 123_456,
    "user.id": "A17", "trace.id": "0af7651916cd43dd8448eb211c80319c", "ecs.version": "9.4.0",
    "service.name": "gateway", "service.node.name": "gateway-1", "event.dataset": "exchange.gateway",
}  # fmt: skip
SECRETS = ("canary-0123456789abcdef", "fedcba9876543210-canary")
ROUNDS = 5


class FlatJson(logging.Formatter):
    """The plain way: one flat dict through `json`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        told = {
            "@timestamp": to_rfc3339(int(record.created * 1e9)), "log.level": record.levelname.lower(),
            "message": record.getMessage(), "event.action": "order-rejected",
        }  # fmt: skip
        return json.dumps(told | DOTTED, separators=(",", ":"))


class NestedJson(FlatJson):
    """As the published library does: dotted names become objects, the record's own attributes beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        told: dict[str, Any] = {}
        names = {
            "@timestamp": to_rfc3339(int(record.created * 1e9)), "log.level": record.levelname.lower(),
            "log.logger": record.name, "log.origin.file.name": record.filename,
            "log.origin.file.line": record.lineno, "log.origin.function": record.funcName,
            "log.original": record.getMessage(), "message": record.getMessage(), "process.pid": record.process,
            "process.name": record.processName, "process.thread.name": record.threadName, **DOTTED,
        }  # fmt: skip
        for name, value in names.items():
            here = told
            *above, last = name.split(".")
            for part in above:
                here = here.setdefault(part, {})
            here[last] = value
        return json.dumps(told, sort_keys=True, separators=(",", ":"))


def rate(work: Callable[[int], object], count: int) -> float:
    """Return the median of calls a second over the rounds."""
    rates = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for number in range(count):
            work(number)
        rates.append(count / (time.thread_time() - began))
    return percentile(rates, 0.5)


def stdlib(formatter: logging.Formatter) -> logging.Logger:
    """Return a logger that writes to memory."""
    log = logging.getLogger(f"gateway-{type(formatter).__name__}")
    log.propagate = False
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(formatter)
    log.addHandler(handler)
    return log


def hot(directory: Path, count: int) -> tuple[float, int]:
    """Return the processor's seconds for a call of `event` (median of rounds), and the records lost meanwhile."""
    rounds = []
    lost = 0
    for number in range(ROUNDS):
        log = FileLog(directory / f"{number}.jsonl", EcsFormat("gateway", "gateway-1", secrets=SECRETS), SystemClock(),
                      capacity=count)  # fmt: skip
        began = time.thread_time()
        for _ in range(count):
            log.event("order-rejected", severity="warning", **FIELDS)
        rounds.append((time.thread_time() - began) / count)
        log.close(60)
        lost += log.dropped + log.failed
    return percentile(rounds, 0.5), lost


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    form = EcsFormat("gateway", "gateway-1", secrets=SECRETS)
    at = SystemClock().now()
    ours = rate(lambda number: form.line(Instant(at + number * 10_000), "order-rejected", "warning", FIELDS), count)
    flat_log, nested_log = stdlib(FlatJson()), stdlib(NestedJson())
    flat = rate(lambda _: flat_log.warning("order rejected"), count)
    nested = rate(lambda _: nested_log.warning("order rejected"), count)
    with tempfile.TemporaryDirectory() as directory:
        cost, lost = hot(Path(directory), count)
    print(f"logging with json, flat                  {flat:10.0f} records/s")
    print(f"logging as the ECS library formats       {nested:10.0f} records/s")
    print(f"ours, on the writer's thread             {ours:10.0f} records/s")
    verdict("formatting off the hot path", f"{ours:.0f} records/s", ">= 40,000", reached=ours >= 40_000)
    verdict("ours to logging with json", f"{ours / flat:.1f}x", ">= 1.5x", reached=ours >= 1.5 * flat)
    verdict("ours to the ECS library's way", f"{ours / nested:.1f}x", ">= 2x", reached=ours >= 2 * nested)
    verdict("on the hot path", f"{cost * 1e6:.2f} us a record, {lost} lost", "<= 2 us", reached=cost <= 2e-6)
    verdict("a logging call to ours", f"{1 / flat / cost:.0f}x", ">= 5x", reached=1 / flat >= 5 * cost)


if __name__ == "__main__":
    main()
