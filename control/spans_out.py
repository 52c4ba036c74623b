"""Where a role's spans go, by its configuration."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from control.config import RoleConfig
from control.layout import Layout

if TYPE_CHECKING:
    from monitor.adapters.exporter import Exporter
    from monitor.adapters.spans import SpanTracer


def traced_share(config: RoleConfig) -> float:
    """Return the share of the orders whose messages carry a `traceparent`; none where no spans are wanted."""
    return config.tracing.share if config.tracing is not None else 0.0


def tracer_of(config: RoleConfig, exporter: Exporter, stack: AsyncExitStack) -> SpanTracer | None:
    """Return who builds spans of orders, where spans are wanted; it ends with `stack`."""
    if config.tracing is None:
        return None
    from kernel.time import seconds
    from monitor.adapters.spans import Sender, SpanQueue, SpanTracer
    from monitor.adapters.verdict_files import VerdictFiles
    from monitor.traces import Policy

    senders: list[Sender] = []
    if config.tracing.url:
        from monitor.adapters.otlp import OtlpSender

        senders.append(OtlpSender(config.tracing.url, config.role, config.replica))
    if config.tracing.zipkin_url:
        from monitor.adapters.zipkin import ZipkinSender

        senders.append(ZipkinSender(config.tracing.zipkin_url, config.role, config.replica))
    results = ("exported", "dropped", "failed", "late")
    told = {result: exporter.count("tapewatch_spans_total", result) for result in results}

    def count(result: str, spans: int) -> None:
        told[result].add(spans)

    queues = [SpanQueue(sender, count) for sender in senders]
    for queue in queues:
        stack.callback(queue.close)
    policy = Policy(config.tracing.share, seconds(config.tracing.slow_s))
    verdicts = VerdictFiles(Layout(Path(config.state)).verdicts, config.replica)
    tracer = SpanTracer(queues, policy, verdicts, count)
    tracer.start()
    stack.callback(tracer.close)
    return tracer
