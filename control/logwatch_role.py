"""The role `log-watch`, wired: log rules over the estate's own files, or over Elasticsearch where one is named."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from control.config import RoleConfig
from control.layout import Layout
from control.log_kinds_watch import LATE, KindParts, KindWatch
from control.logwatch import LogWatch, WatchParts
from control.process_facts import ProcessFacts
from exchange.adapters.http import HttpServer, common_routes, listen, read_secret
from kernel.adapters.clock import SystemClock
from kernel.time import SECOND, Duration, Instant
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.adapters.log_rule_files import HOUSE, load
from monitor.adapters.log_store_duckdb import DuckdbLogStore
from monitor.catalog import Role
from monitor.log_store import LogStore
from monitor.logrules.fold import CATCH_UP
from monitor.logrules.model import Rule
from monitor.logs import EcsFormat

MEMORY: Final = "96MB"
MAX_ROWS: Final = 50_000
"""Records the local store holds: some 50 MB. A rule that reaches back past them is `unknown`, and counted."""
SHIPPED_LATE: Final = Duration(30 * SECOND)
"""How late a record may come to Elasticsearch at least: a batch, a try again, a refresh."""
_LOG_SECRETS: Final = ("admin", "webhook", "trade")


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Watch until `stop`; returns the exit code.

    Raises:
        TapewatchError: it cannot start; a wrong rule is named by file and line.
    """
    layout, clock, exporter = Layout(Path(config.state)), SystemClock(), Exporter(Role.LOG_WATCH)
    rules = load(Path(config.log_rules) if config.log_rules else HOUSE)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        stack.callback(listener.close)
        secrets = [read_secret(layout.secret(name)) for name in _LOG_SECRETS if layout.secret(name).exists()]
        log = FileLog(layout.log(config.replica), EcsFormat(config.role, config.replica, secrets=secrets), clock)
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        if config.shipping is not None:
            rules = tuple(dataclasses.replace(one, lateness=max(one.lateness, SHIPPED_LATE)) for one in rules)
        store = _store(config, layout, rules, clock)
        stack.callback(store.close)
        alerts = await stack.enter_async_context(AlertmanagerApi(config.alertmanager_url))
        kinds = None
        if config.log_kinds:
            late = LATE if config.shipping is None else SHIPPED_LATE
            kinds = KindWatch(KindParts(store, exporter, log, clock, layout.log_rules.with_name("kinds"), late))
        watch = LogWatch(WatchParts(rules, store, alerts, exporter, log, clock, layout.log_rules, kinds))

        def ready() -> tuple[bool, str]:
            return True, watch.why or "every rule has its answer"

        server = HttpServer(Starlette(routes=common_routes(exporter, ready)), listener)
        await server.start()
        stack.push_async_callback(server.stop)
        log.event("log-watch-started", count=len(rules))
        if config.shipping is None:
            await asyncio.to_thread(_learn, watch, layout, Instant(clock.now()))
        if kinds is not None:
            preparing = asyncio.create_task(kinds.prepare(), name="kinds of lines")
            stack.callback(preparing.cancel)
        work = asyncio.create_task(watch.run())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, told):
            task.cancel()
        ended = await asyncio.gather(work, told, return_exceptions=True)
        watch.save()
        if kinds is not None:
            kinds.save()
        if isinstance(ended[0], Exception):
            raise ended[0]
    return 0


def _store(config: RoleConfig, layout: Layout, rules: tuple[Rule, ...], clock: SystemClock) -> LogStore:
    if config.shipping is not None:
        from control.elastic_access import access_of
        from control.settings import load_settings
        from monitor.adapters.elastic_client import connect
        from monitor.adapters.log_store_elastic import ElasticLogStore
        from monitor.elk.schema import PATTERN

        told = config.shipping
        files = {
            name: Path(path) if path else None
            for name, path in (
                ("elastic_password_file", told.password_file), ("elastic_api_key_file", told.api_key_file),
                ("elastic_ca_file", told.ca_file),
            )
        }  # fmt: skip
        settings = load_settings(elastic_url=told.url, elastic_user=told.user or None, **files)
        return ElasticLogStore(connect(access_of(settings)), PATTERN)
    keep = Duration(max(rule.reach for rule in rules) + CATCH_UP)
    since = Instant(clock.now() - keep)
    return DuckdbLogStore(layout.logs, since=since, keep=keep, memory=MEMORY, max_rows=MAX_ROWS)


def _learn(watch: LogWatch, layout: Layout, now: Instant) -> None:
    """Read further back once, for rules that must know what is not new."""
    rules = watch.unlearned
    if not rules:
        return
    history = DuckdbLogStore(layout.logs, since=Instant(now - max(rule.known_for for rule in rules)), memory=MEMORY)
    try:
        history.refresh()
        watch.learn(history, now)
    finally:
        history.close()
