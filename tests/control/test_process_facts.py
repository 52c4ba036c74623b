"""What every process tells of itself."""

import asyncio
import gc
import time

from control.process_facts import ProcessFacts
from monitor.adapters.exporter import Exporter, samples
from monitor.catalog import Role


class Log:
    def __init__(self):
        self.written, self.dropped, self.failed = {"info": 3, "error": 1}, 2, 0


def page(exporter):
    return {(name, *sorted(labels.items())): value for name, labels, value in samples(exporter.render())}


async def test_a_loop_that_was_blocked_and_a_log_that_lost_records_are_told():
    exporter, log = Exporter(Role.GATEWAY, process=False), Log()
    task = asyncio.create_task(ProcessFacts(exporter, log).run())
    assert ("tapewatch_event_loop_lag_seconds",) not in page(exporter), "nothing is said before anything was seen"
    await asyncio.sleep(0.05)
    time.sleep(0.6)  # noqa: ASYNC251 - blocking the loop is what is measured
    await asyncio.sleep(0.1)
    told = page(exporter)
    assert 0.2 < told[("tapewatch_event_loop_lag_seconds",)] < 5
    assert told[("tapewatch_log_records_total", ("severity", "info"))] == 3
    assert told[("tapewatch_log_lost_total", ("reason", "queue_full"))] == 2
    assert any(name == "tapewatch_build_info" and value == 1 for (name, *_), value in told.items())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_pauses_of_the_garbage_collector_are_counted_while_somebody_looks():
    exporter = Exporter(Role.GATEWAY, process=False)
    facts = ProcessFacts(exporter)
    gc.collect()
    before = page(exporter)[("tapewatch_gc_pause_seconds_count",)]
    gc.collect()
    assert page(exporter)[("tapewatch_gc_pause_seconds_count",)] >= before + 1
    facts.close()
    after = page(exporter)[("tapewatch_gc_pause_seconds_count",)]
    gc.collect()
    assert page(exporter)[("tapewatch_gc_pause_seconds_count",)] == after
