"""The drill `alerts`: alerts are made to fire on real servers and followed to whoever is told, and back to resolved.

The rules, the routes and both servers are the ones that watch the exchange; only the series are made, from the tests of
the rules (`monitor.signals`), and every receiver is a local sink. What a provider's interface wants of a page is the
affair of the receivers' contract tests, and what a fault does to the plant that of the other drills.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control import render
from control.addresses import HOST, url_of
from control.alert_plan import STANDING, Planned, batches, planned
from control.child import Child, Slot, probe
from control.plan import free_ports
from control.review import through
from control.routing import hurried
from control.settings import Settings
from exchange.adapters.http import HttpServer, listen
from kernel.errors import PermanentError, TemporaryError
from monitor.promql import metric_names
from monitor.signals import SeriesScript, exposition

READY_S: Final = 20.0
FIRE_SLACK_S: Final = 20.0
"""Two scrapes, two evaluations, the group's wait, and a busy machine."""
RESOLVE_SLACK_S: Final = 60.0
"""Beyond the rule's own windows and `keep_firing_for`: the groups' intervals, and a busy machine."""
_LOOK_S: Final = 0.2
_BOARDS: Final = render.ALERTS.parent / "dashboards" / "grafana"
_DOCS: Final = render.ALERTS.parent / "docs"
Tell = Callable[[str, str], None]
"""Told each fact as it is seen: its kind (step, seen, missed) and its sentence."""


class AlertSeen(msgspec.Struct, kw_only=True):
    """What was seen of one alert. Times in seconds since its series began."""

    alert: str
    family: str
    level: str = ""
    fired_s: float | None = None
    told_s: float | None = None
    receivers: list[str] = []
    held_back: bool = False
    """Its own series fire a cause, too, which holds it back: nobody is told, and that is right."""
    resolved_s: float | None = None
    problems: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether everything was seen."""
        over = self.resolved_s is not None or self.held_back or self.alert in STANDING
        return not self.problems and over


class AlertsResult(msgspec.Struct, kw_only=True):
    """The verdict of a drill of the alerts."""

    passed: bool
    alerts: list[AlertSeen]
    left_out: list[str]
    """Alerts that take longer than a drill waits; promtool fires them."""
    seconds: float


class Sink:
    """Everybody who is told, and the exporter of the made series."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, str, str], list[tuple[float, Mapping[str, str]]]] = {}
        """When a receiver was told of an alert in a status, and its labels: by receiver, alert name and status."""
        self.playing: Sequence[SeriesScript] = ()
        self.began_s = 0.0
        self.turned_s = 0.0
        """When the series that play now began; the same as `began_s` until the alerts are made to end."""
        routes = [
            Route("/metrics", self._metrics),
            Route("/told/{receiver}", self._take, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def play(self, batch: Sequence[Planned]) -> None:
        """Let the series that fire these alerts begin now; those before end."""
        self.began_s = self.turned_s = time.time()
        self.playing = [one for each in batch for one in each.script.series]

    def calm(self, batch: Sequence[Planned]) -> None:
        """Let the series under which these alerts do not fire take their place."""
        self.turned_s = time.time()
        self.playing = [one for each in batch for one in each.script.quiet]

    async def _metrics(self, _: Request) -> Response:
        elapsed_s = time.time() - self.turned_s
        return Response(exposition(self.playing, elapsed_s, self.turned_s), media_type="text/plain; version=0.0.4")

    async def _take(self, request: Request) -> Response:
        payload = msgspec.json.decode(await request.body())
        receiver = unquote(request.path_params["receiver"])
        for alert in payload["alerts"]:
            key = (receiver, alert["labels"].get("alertname", ""), alert["status"])
            self.told.setdefault(key, []).append((time.time(), alert["labels"]))
        return Response(status_code=204)

    def when(self, receiver: str, one: Planned, status: str) -> float | None:
        """Return when a receiver was first told of an alert in this round, in seconds since its series began."""
        wanted = dict(one.script.labels)
        for at_s, labels in self.told.get((receiver, one.script.alert, status), ()):
            if at_s >= self.began_s and wanted.items() <= labels.items():
                return at_s - self.began_s
        return None


class AlertDrill:
    """One drill of the alerts."""

    def __init__(self, settings: Settings, folder: Path, tell: Tell, *, every: bool, only: Sequence[str] = ()) -> None:
        self._settings = settings
        self._folder = folder
        self._tell = tell
        self._chosen, self._left_out = planned(every=every, only=only)
        self._config = sink_config(hurried(render.load_yaml(render.ALERTS / "alertmanager.yml")), 0)
        self._batches = batches(self._chosen, self._config.get("inhibit_rules", []), _metrics_of_rules())

    async def run(self) -> AlertsResult:
        """Fire everything that was chosen; return the verdict.

        Raises:
            TapewatchError: a server cannot be started.
        """
        began_s = time.monotonic()
        sink = Sink()
        server = HttpServer(sink.app, listen(0))
        await server.start()
        try:
            async with self._servers(server.port) as (prometheus, alertmanager), aiohttp.ClientSession() as session:
                look = _Look(session, prometheus, alertmanager)
                seen = []
                for number, batch in enumerate(self._batches, 1):
                    names = ", ".join(one.script.alert for one in batch)
                    self._tell("step", f"{number} of {len(self._batches)}: {names}")
                    seen += await self._fire(batch, sink, look)
        finally:
            await server.stop()
        passed = bool(seen) and all(one.passed for one in seen)
        result = AlertsResult(
            passed=passed, alerts=seen, left_out=self._left_out, seconds=time.monotonic() - began_s
        )  # fmt: skip
        (self._folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        return result

    @contextlib.asynccontextmanager
    async def _servers(self, sink_port: int) -> AsyncIterator[tuple[str, str]]:
        """Run both servers with the project's rules and routes; yield their addresses."""
        prometheus_port, alertmanager_port = free_ports(2)
        home = self._folder.absolute()
        home.mkdir(parents=True, exist_ok=True)
        render.write_yaml(home / "prometheus.yml", prometheus_config(sink_port, alertmanager_port))
        # Who is told at which hour is not asked here: whoever the routes name must be told now.
        config = sink_config(hurried(render.load_yaml(render.ALERTS / "alertmanager.yml")), sink_port)
        render.write_yaml(home / "alertmanager.yml", config)
        children = [
            Child(Slot(name, port, argv, home / f"{name}.out"), lambda _child, _code: None)
            for name, port, argv in (
                ("prometheus", prometheus_port, render.prometheus_command(
                    self._settings.prometheus, home / "prometheus.yml", home / "data", prometheus_port, "2h")),
                ("alertmanager", alertmanager_port, render.alertmanager_command(
                    self._settings.alertmanager, home / "alertmanager.yml", home / "alerts", alertmanager_port)),
            )
        ]  # fmt: skip
        try:
            for child in children:
                child.start()
            for child in children:
                await _ready(child)
            yield url_of(prometheus_port), url_of(alertmanager_port)
        finally:
            for child in children:
                await child.stop(5.0)

    async def _fire(self, batch: Sequence[Planned], sink: Sink, look: _Look) -> list[AlertSeen]:
        seen = [
            AlertSeen(alert=one.script.alert, family=one.family, level=str(one.rule["labels"].get("level", "")))
            for one in batch
        ]
        sink.play(batch)
        await asyncio.gather(*(self._to_told(one, what, sink, look) for one, what in zip(batch, seen, strict=True)))
        sink.calm(batch)
        ended_s = sink.turned_s - sink.began_s
        await asyncio.gather(
            *(self._to_resolved(one, what, sink, ended_s) for one, what in zip(batch, seen, strict=True))
        )
        for what in seen:
            self._tell("seen" if what.passed else "missed", sentence(what))
        return seen

    async def _to_told(self, one: Planned, what: AlertSeen, sink: Sink, look: _Look) -> None:
        until_s = one.script.fires_after_s + FIRE_SLACK_S
        while what.fired_s is None and time.time() - sink.began_s < until_s:
            await asyncio.sleep(_LOOK_S)
            if await look.fires(one):
                what.fired_s = round(time.time() - sink.began_s, 2)
        if what.fired_s is None:
            what.problems.append(f"it did not fire within {until_s:.0f} s")
            return
        expected = await asyncio.to_thread(receivers_of, self._folder / "alertmanager.yml", one)
        while time.time() - sink.began_s < until_s + FIRE_SLACK_S:
            what.receivers, what.held_back = await look.receivers(one)
            if what.held_back:
                return
            times = [sink.when(receiver, one, "firing") for receiver in expected]
            told = [at_s for at_s in times if at_s is not None]
            if len(told) == len(times):
                what.told_s = round(max(told, default=0.0), 2)
                # The sink notes when it was told, we look at Prometheus now and then: who was told knew that it fired.
                what.fired_s = min(what.fired_s, what.told_s)
                break
            await asyncio.sleep(_LOOK_S)
        if what.told_s is None:
            missing = [name for name in expected if sink.when(name, one, "firing") is None]
            what.problems.append(f"these were not told: {', '.join(missing)}")
        if sorted(what.receivers) != sorted(expected):
            what.problems.append(
                f"Alertmanager names {', '.join(what.receivers) or 'nobody'}; the routes name {', '.join(expected)}"
            )
        what.problems += [*link_problems(one.rule)]

    async def _to_resolved(self, one: Planned, what: AlertSeen, sink: Sink, ended_s: float) -> None:
        if what.told_s is None or what.alert in STANDING:
            return
        patience_s = RESOLVE_SLACK_S + one.lingers_s
        until_s = ended_s + patience_s
        while time.time() - sink.began_s < until_s:
            times = [sink.when(receiver, one, "resolved") for receiver in what.receivers]
            told = [at_s for at_s in times if at_s is not None]
            if len(told) == len(times):
                what.resolved_s = round(max(told, default=0.0) - ended_s, 2)
                return
            await asyncio.sleep(_LOOK_S)
        what.problems.append(f"it was not resolved within {patience_s:.0f} s after its series ended")


class _Look:
    """What the two servers say of an alert."""

    def __init__(self, session: aiohttp.ClientSession, prometheus: str, alertmanager: str) -> None:
        self._session = session
        self._prometheus = prometheus
        self._alertmanager = alertmanager

    async def fires(self, one: Planned) -> bool:
        """Tell whether Prometheus has it firing, with the labels that are expected."""
        answer = await self._get(f"{self._prometheus}/api/v1/alerts")
        wanted = {**one.script.labels, "alertname": one.script.alert}
        return any(
            alert["state"] == "firing" and wanted.items() <= alert["labels"].items()
            for alert in answer["data"]["alerts"]
        )

    async def receivers(self, one: Planned) -> tuple[list[str], bool]:
        """Return whom Alertmanager names for it, and whether it is held back by another alert."""
        found = await self._get(f"{self._alertmanager}/api/v2/alerts?filter=alertname%3D{quote(one.script.alert)}")
        mine = [alert for alert in found if one.script.labels.items() <= alert["labels"].items()]
        names = [receiver["name"] for alert in mine for receiver in alert["receivers"]]
        return names, any(alert["status"]["inhibitedBy"] for alert in mine)

    async def _get(self, url: str) -> Any:
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                return msgspec.json.decode(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise TemporaryError(f"{url} does not answer: {error}") from error


def prometheus_config(sink_port: int, alertmanager_port: int) -> dict[str, Any]:
    """Return a configuration with the project's rules and one target: the made series, under the names they bear."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
        "rule_files": [str(render.ALERTS / "rules" / "*.yml")],
        "alerting": {
            "alertmanagers": [
                {"api_version": "v2", "timeout": "2s",
                 "static_configs": [{"targets": [f"{HOST}:{alertmanager_port}"]}]},
            ]
        },
        "scrape_configs": [
            {
                "job_name": "signals", "honor_labels": True,
                "static_configs": [{"targets": [f"{HOST}:{sink_port}"]}],
                # A made series bears the labels it was given, and none of the target's.
                "metric_relabel_configs": [
                    {"source_labels": ["job"], "regex": "signals", "target_label": "job", "replacement": ""},
                    {"source_labels": ["instance"], "regex": f"{HOST}:{sink_port}", "target_label": "instance",
                     "replacement": ""},
                ],
            }
        ],
    }  # fmt: skip


def sink_config(source: Mapping[str, Any], sink_port: int) -> dict[str, Any]:
    """Return the routes as they are, with every receiver told at the sink."""
    receivers = [
        {
            "name": receiver["name"],
            "webhook_configs": [
                {"url": f"http://{HOST}:{sink_port}/told/{quote(receiver['name'], safe='')}", "send_resolved": True,
                 "max_alerts": 0}
            ],
        }
        for receiver in source.get("receivers", [])
    ]  # fmt: skip
    return {**source, "receivers": receivers}


def receivers_of(config: Path, one: Planned) -> list[str]:
    """Return whom the routes name for an alert, by amtool.

    Raises:
        PermanentError: amtool is not there, or says that the configuration is wrong.
    """
    labels = {**one.script.labels, "alertname": one.script.alert}
    argv = ["amtool", "config", "routes", "test", f"--config.file={config}"]
    argv += [f"{name}={value}" for name, value in labels.items()]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PermanentError(f"amtool cannot be asked for the routes: {error}; see `tapewatch doctor`") from error
    if done.returncode:
        raise PermanentError(f"amtool refuses the routes: {(done.stderr or done.stdout).strip()[:300]}")
    return [name for line in done.stdout.split("\n") if line.strip() for name in line.strip().split(",")]


def link_problems(rule: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the links of an alert: a section or a board that is not there."""
    problems = []
    annotations = rule.get("annotations", {})
    page, _, anchor = str(annotations.get("runbook_url", "")).rpartition("/")[2].partition("#")
    try:
        headings = re.findall(r"^### (\w+)$", (_DOCS / page).read_text(encoding="utf-8"), re.MULTILINE) if page else []
    except OSError:
        headings = []
    if anchor not in {heading.lower() for heading in headings}:
        problems.append(f"its runbook link leads to no section: {annotations.get('runbook_url')}")
    board = str(annotations.get("dashboard", "")).rpartition("/")[2].partition("?")[0]
    if not board or not (_BOARDS / f"{board}.json").is_file():
        problems.append(f"its dashboard link leads to no board: {annotations.get('dashboard')}")
    return problems


def sentence(what: AlertSeen) -> str:
    """Tell what was seen of one alert."""
    if what.problems:
        return f"{what.alert}: {'; '.join(what.problems)}"
    if what.held_back:
        return f"{what.alert} (level {what.level}) fired after {what.fired_s:.1f} s and is held back by its cause"
    if what.resolved_s is None:
        return f"{what.alert} (level {what.level}) fired after {what.fired_s:.1f} s, told {', '.join(what.receivers)}"
    return (
        f"{what.alert} (level {what.level}) fired after {what.fired_s:.1f} s, told {', '.join(what.receivers)} after "
        f"{what.told_s:.1f} s, resolved {what.resolved_s:.1f} s after its cause ended"
    )


def _metrics_of_rules() -> dict[str, frozenset[str]]:
    """Return the scraped metrics that each alert looks at, through recorded series."""
    recorded: dict[str, frozenset[str]] = {}
    alerts: dict[str, frozenset[str]] = {}
    for path in sorted((render.ALERTS / "rules").glob("*.yml")):
        for group in render.load_yaml(path).get("groups", []):
            for rule in group.get("rules", []):
                names = metric_names(str(rule["expr"]))
                if "record" in rule:
                    recorded[str(rule["record"])] = recorded.get(str(rule["record"]), frozenset()) | names
                else:
                    alerts[str(rule["alert"])] = names
    return {alert: frozenset(through(names, recorded)) for alert, names in alerts.items()}


async def _ready(child: Child) -> None:
    deadline_s = time.monotonic() + READY_S
    while await probe(child.slot.port, "/-/ready", timeout_s=1.0) != 200:  # noqa: PLR2004 - HTTP OK
        if not child.running or time.monotonic() > deadline_s:
            raise TemporaryError(f"{child.slot.id} did not become ready: {child.last_words()}")
        await asyncio.sleep(0.1)
