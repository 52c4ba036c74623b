"""A drill: a whole incident on a fresh estate, and a verdict on every link that was to be seen.

The drill is the market's adversary and its witness. It breaks something, then looks with its own eyes (`witness`,
`links`) at Alertmanager, the processes, the engine and Prometheus. It passes only when every link was seen in time, no
acknowledged order was lost, and the incident's timeline is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from control import faults, killswitch, server_plan
from control.calls import call, fetch
from control.child import tied
from control.drill_day import day_of
from control.fault import Plant
from control.layout import Layout
from control.learned_links import DEADMAN, why_not
from control.ledger_link import check_ledger
from control.links import ASKING, THROUGHOUT, holds, see
from control.scenario import Act, Link, Scenario, Warm, families
from control.symptoms import post_symptoms
from control.witness import Witness
from exchange.adapters.listing_file import read_listing
from exchange.adapters.load_account import account
from exchange.calendar import Calendar, PhaseName, calendar_of
from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import SECOND, Instant

UP_WITHIN_S: Final = {"local": 120.0, "distributed": 240.0, "kubernetes": 150.0}
"""On Kubernetes a cluster starts first; here detectors are compiled the first time, which takes most of a minute."""
SETTINGS: Final = {"ports": "auto", "symbols": 8, "load_rate_per_s": 150, "quiet_s": 2, "anomaly": False}
"""A drill's usual estate: free ports, so that it never meets another estate, and a load that shows in every rate. Most
are over before a detector has seen enough."""
ROOT: Final = Path(__file__).resolve().parent.parent
DISTRIBUTED: Final = {"load_rate_per_s": 25, "log_kinds": False}
"""On an estate with three brokers, two databases and five parts of settlement an order costs the machine ten times as
much: two cores are to stay half idle, or every drill would be one of an overload."""
LOOK_S: Final = 0.05
STOP_WITHIN_S: Final = 40.0
"""Brokers and databases of a distributed estate take most of it."""
CALM_WITHIN_S: Final = {"local": 30.0, "distributed": 90.0, "kubernetes": 30.0}
SCRAPES: Final = 5
"""How often each gateway was scraped before anything is broken: of one just begun no rate is known yet."""
LAST_S: Final = 6.0
"""How long what must last is watched after everything else was seen."""


class Seen(msgspec.Struct, kw_only=True):
    """What became of one link."""

    name: str
    seen: bool
    evidence: str
    at_s: float | None
    """Seconds after the first fault."""


class Result(msgspec.Struct, kw_only=True):
    """What `result.json` holds."""

    scenario: str
    passed: bool
    links: list[Seen]
    timings: dict[str, float | None]
    orders: dict[str, int]
    actions: list[dict[str, Any]]
    outcome: str
    report: str
    took_s: float = 0.0
    problems: list[str] = []


@dataclass
class Progress:
    """Where a drill stands, for whoever shows it."""

    scenario: Scenario
    tell: Callable[[str, str], None]
    """Called with a kind (`step`, `seen`, `missed`, `result`) and a line."""
    links: dict[str, Seen] = field(default_factory=dict)


class Drill:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, folder: Path, tell: Callable[[str, str], None]) -> None:
        """Run `scenario` in `folder`, which is made; `tell` hears of every step."""
        self._scenario = scenario
        self._folder = folder
        self._layout = Layout(folder.absolute() / "estate")
        self._tell = tell
        self._seen: dict[str, Seen] = {}
        self._events = {link.name: asyncio.Event() for link in scenario.links}
        self._fault_at: Instant | None = None
        self._calendar: Calendar | None = None
        self._quiet = any(link.see in THROUGHOUT for link in scenario.links)
        """Whether the right end is that nobody was asked for anything."""
        self._broken = asyncio.Event()

    async def run(self) -> Result:
        """Run the scenario and return the verdict; the estate is down when this returns."""
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        where = {"kubernetes": "a Kubernetes cluster, ", "distributed": "brokers, databases, "}.get(
            self._scenario.place, ""
        )
        self._tell("step", f"starting {where}an exchange, Prometheus, Alertmanager and control")
        process = await self._start_estate()
        try:
            await self._until_up(process)
            result = await self._play()
        finally:
            await stop_estate(process)
        result.took_s = round(time.monotonic() - began, 1)
        (self._folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        return result

    # --- the estate -------------------------------------------------------------------------------------------------

    async def _start_estate(self) -> asyncio.subprocess.Process:
        settings = {
            **SETTINGS,
            **(DISTRIBUTED if self._scenario.estate == "distributed" else {}),
            "on": self._scenario.on,
            "estate": self._scenario.estate,
            **self._scenario.settings,
            **self._day(),
        }
        return await spawn_estate(settings, self._layout.root, self._folder / "estate.out")

    def _day(self) -> dict[str, str]:
        """Write today's calendar, where there is one, and return the setting that names it."""
        if not self._scenario.day:
            return {}
        data = day_of(self._scenario.day, Instant(time.time_ns()))
        self._calendar = calendar_of(data)
        path = (self._folder / "calendar.yaml").absolute()
        path.write_bytes(msgspec.json.format(msgspec.json.encode(data)) + b"\n")  # JSON is YAML, too
        return {"calendar": str(path)}

    async def _until_up(self, process: asyncio.subprocess.Process) -> None:
        within_s = UP_WITHIN_S[self._scenario.place]
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if process.returncode is not None:
                last = (self._folder / "estate.out").read_text(errors="replace").strip().splitlines()[-3:]
                raise PermanentError(f"the estate did not start: {' '.join(last) or 'it said nothing'}")
            with contextlib.suppress(TapewatchError):
                if faults.connect(self._layout.root).addresses.phase == "up":
                    return
            await asyncio.sleep(0.1)
        raise TemporaryError(f"the estate was not up within {within_s:g} s; see {self._folder / 'estate.out'}")

    # --- the play ---------------------------------------------------------------------------------------------------

    async def _play(self) -> Result:
        witness = self._witness()
        watching = asyncio.create_task(witness.watch())
        try:
            await self._warm_up(witness)
            acting = asyncio.create_task(self._act_all(witness))
            await asyncio.gather(*(self._look_for(witness, link) for link in self._scenario.links))
            if not acting.done():
                acting.cancel()
            outcome = (await asyncio.gather(acting, return_exceptions=True))[0]
            await self._check_lasting(witness)
            await self._acknowledge_what_waits(witness)
            return await self._conclude(witness, outcome)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _witness(self) -> Witness:
        if self._scenario.on == "local":
            return Witness(self._layout)
        from control.kube_witness import KubeWitness

        return KubeWitness(self._layout)

    async def _warm_up(self, witness: Witness) -> None:
        """Wait until orders flow, are scraped, and nothing fires but the dead man's switch."""
        for act in self._scenario.prepare:
            plant = faults.connect(self._layout.root)
            self._tell("step", await asyncio.to_thread(faults.arrange, plant, act.name, act.target, act.value))
        self._tell("step", "warming up: orders flow and Prometheus has seen them")
        await asyncio.sleep(self._scenario.warm_up_s)
        await self._until_calm(witness, {"critical", "warning"})
        if self._scenario.warm is not None:
            await self._until_warm(witness, self._scenario.warm)
            if not self._quiet:  # where nobody is to be asked, nobody is while it warms up
                await self._until_calm(witness, {"critical", "warning", "info"})

    async def _until_calm(self, witness: Witness, severities: Collection[str]) -> None:
        """Wait until nothing of these severities fires and no incident is open; remember that as the start."""
        deadline = time.monotonic() + CALM_WITHIN_S[self._scenario.place]
        while time.monotonic() < deadline:
            flowing = await asyncio.to_thread(_is_flowing, witness)
            calm = not [one for one in _firing(witness) if one.get("severity") in severities]
            known = witness.workloads and witness.engine
            if flowing and calm and known and not _unresolved(witness):
                witness.remember_start()
                return
            await asyncio.sleep(0.2)
        firing = sorted({str(one.get("alertname")) for one in _firing(witness)})
        raise PermanentError(f"the estate was not calm before the drill: firing {', '.join(firing)}")

    async def _until_warm(self, witness: Witness, warm: Warm) -> None:
        self._tell("step", f"waiting until {warm.query} {warm.holds}, at most {warm.within_s:g} s")
        deadline = time.monotonic() + warm.within_s
        while time.monotonic() < deadline:
            reading = await asyncio.to_thread(witness.read, warm.query)
            if reading is not None and holds(warm.holds, reading[0]):
                return
            await asyncio.sleep(1.0)
        raise PermanentError(f"within {warm.within_s:g} s it was never so that {warm.query} {warm.holds}")

    async def _act_all(self, witness: Witness) -> None:
        try:
            for act in self._scenario.acts:
                await self._act(act, faults.connect(self._layout.root), witness)
        finally:
            self._broken.set()

    async def _act(self, act: Act, plant: Plant, witness: Witness) -> None:  # noqa: C901 - one arm a kind of act
        match act.do:
            case "fault":
                if self._fault_at is None:
                    self._fault_at = Instant(time.time_ns())
                said = await asyncio.to_thread(faults.inject, plant, act.name, target=act.target, value=act.value)
                self._tell("step", said)
                self._broken.set()
            case "clear":
                self._tell("step", await asyncio.to_thread(faults.clear, plant, act.name, target=act.target))
            case "await":
                await self._events[act.name].wait()
            case "pause":
                await asyncio.sleep(act.seconds)
            case "phase":
                await self._until_phase(PhaseName(act.name))
            case "kill_switch":
                at = Instant(time.time_ns())
                killswitch.throw(self._layout.kill_switch, by="the drill", why="a person stops automation", at=at)
                witness.switch_thrown_at = Instant(time.time_ns())
                self._tell("step", "a person throws the kill switch")
            case "acknowledge":
                await self._acknowledge_what_waits(witness)
                self._tell("step", "a person takes the incident on")
            case "resume_symbol":
                for symbol in witness.engine.get("halted_symbols", ()):
                    body = {"key": f"person-{symbol}", "symbol": symbol}
                    await asyncio.to_thread(
                        call, "POST", plant.addresses.engine + "/admin/resume", token=plant.admin, body=body
                    )
                    self._tell("step", f"a person reopens {symbol}")
            case "symptoms":
                count = int(act.value)
                await asyncio.to_thread(post_symptoms, plant.addresses.alertmanager, count)
                self._tell("step", f"{count} clients complain")

    async def _until_phase(self, name: PhaseName) -> None:
        """Wait for the market's next turn, which is the first thing that happens where nothing is broken.

        Raises:
            PermanentError: it was over before everything was warm.
        """
        assert self._calendar is not None, "a scenario that awaits a phase has a day"
        phase = self._calendar.phase_at(Instant(time.time_ns()))
        if phase.name is name:
            raise PermanentError(f"the market was {name} before the drill was ready for it; let the turn come later")
        self._tell("step", f"the market is {phase.name}; waiting for {name}")
        while phase.name is not name:
            await asyncio.sleep(LOOK_S)
            phase = self._calendar.phase_at(Instant(time.time_ns()))
        self._fault_at = self._fault_at or phase.since
        self._tell("step", f"the market is {name}, by the calendar")
        self._broken.set()

    async def _look_for(self, witness: Witness, link: Link) -> None:
        await self._broken.wait()
        seen = Seen(name=link.name, seen=False, evidence="", at_s=None)
        self._seen[link.name] = seen
        if self._fault_at is None:
            return
        deadline = time.monotonic() + link.within_s - self._since_fault()
        if link.see in THROUGHOUT:
            await self._watch_out(witness, link, seen, deadline)
            return
        while time.monotonic() < deadline:
            if not link.after or self._events[link.after].is_set():
                evidence = await asyncio.to_thread(see, witness, link) if link.see in ASKING else see(witness, link)
                if evidence is not None:
                    seen.seen, seen.evidence, seen.at_s = True, evidence, round(self._since_fault(), 2)
                    self._events[link.name].set()
                    self._tell("seen", f"{link.name} after {seen.at_s:.1f} s: {evidence}")
                    return
            await asyncio.sleep(1.0 if link.see == "finding" else LOOK_S)  # a report is made for every look
        seen.evidence = f"not seen within {link.within_s:g} s{_because(witness, link)}"
        self._tell("missed", f"{link.name}: {seen.evidence}")

    async def _watch_out(self, witness: Witness, link: Link, seen: Seen, deadline: float) -> None:
        """Look until the time is over for what must hold all the while."""
        evidence = see(witness, link)
        while evidence is not None and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            evidence = see(witness, link)
        seen.at_s = round(self._since_fault(), 2)
        if evidence is None:
            seen.evidence = f"held for {seen.at_s:g} s only{_because(witness, link)}"
            self._tell("missed", f"{link.name}: {seen.evidence}")
            return
        seen.seen, seen.evidence = True, f"{evidence} in {link.within_s:g} s"
        self._events[link.name].set()
        self._tell("seen", f"{link.name} after {seen.at_s:.1f} s: {seen.evidence}")

    def _since_fault(self) -> float:
        assert self._fault_at is not None, "a fault was injected"
        return (time.time_ns() - self._fault_at) / SECOND

    async def _check_lasting(self, witness: Witness) -> None:
        """Hold what was to last against what is seen a while later."""
        if not any(link.lasting for link in self._scenario.links):
            return
        await asyncio.sleep(LAST_S)
        for link in self._scenario.links:
            if link.lasting and self._seen[link.name].seen and see(witness, link) is None:
                self._seen[link.name].seen = False
                self._seen[link.name].evidence += "; but it did not last until the end"
                self._tell("missed", f"{link.name} did not last")

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _acknowledge_what_waits(self, witness: Witness) -> None:
        """Play the person who was asked: take the incident on, so that its time to acknowledge is real."""
        for one in witness.incidents:
            if one["needs_person"] and one["state"] != "resolved" and one["acknowledged_at"] is None:
                url = f"{witness.addresses.control}/api/v1/incidents/{quote(one['id'])}/ack"
                with contextlib.suppress(TapewatchError):
                    admin = self._layout.secret("admin").read_text().strip()
                    await asyncio.to_thread(call, "POST", url, token=admin, body={"by": "drill"})

    async def _conclude(self, witness: Witness, acted: object) -> Result:
        problems = [f"the drill itself failed: {acted}"] if isinstance(acted, Exception) else []
        orders, order_problems = await asyncio.to_thread(self._orders, witness)
        await asyncio.sleep(0.3)
        report, report_problems = await asyncio.to_thread(self._report, witness)
        problems += order_problems + report_problems
        links = [self._seen[link.name] for link in self._scenario.links]
        at_s = round(self._since_fault(), 2)
        told = f"{orders['acknowledged']} acknowledged, {orders['lost']} lost, {orders['duplicated']} duplicated"
        links.append(Seen(name="orders", seen=not order_problems, evidence=f"journal and answers: {told}", at_s=at_s))
        if self._scenario.estate == "distributed":
            links.append(await asyncio.to_thread(self._ledger, at_s))
        links.append(Seen(name="report", seen=not report_problems, evidence=report, at_s=at_s))
        for link in links[len(self._scenario.links) :]:
            self._tell("seen" if link.seen else "missed", f"{link.name}: {link.evidence}")
        return Result(
            scenario=self._scenario.name,
            passed=all(link.seen for link in links) and not problems,
            links=links,
            timings=self._timings(witness),
            orders=orders,
            actions=[_action(entry) for entry in witness.entries("action_done")],
            outcome=self._scenario.outcome if all(link.seen for link in links) else "not as it should be",
            report="" if self._quiet else report,
            problems=problems,
        )

    def _orders(self, witness: Witness) -> tuple[dict[str, int], list[str]]:
        """Stop the load, then hold every answer it got against the journal."""
        names = ("sent", "acknowledged", "rejected", "refused", "unknown", "lost", "duplicated")
        admin = self._layout.secret("admin").read_text().strip()
        try:
            call("POST", witness.addresses.load + "/admin/stop", token=admin, body={}, timeout_s=30)
            listing = read_listing(self._layout.root / "instruments.json")
            found = account(self._layout.load, self._layout.journal, listing.instruments, listing.venue)
        except (TapewatchError, OSError) as error:
            return dict.fromkeys(names, 0), [f"the orders cannot be accounted for: {error}"]
        orders = {name: int(getattr(found, name)) for name in names}
        problems = list(found.examples) if not found.clean else []
        if not found.acknowledged:
            problems.append("no order was acknowledged at all")
        return orders, problems

    def _ledger(self, at_s: float) -> Seen:
        """Hold the ledger against the journal, trade by trade; the load is stopped."""
        try:
            found = check_ledger(self._layout)
        except (TapewatchError, OSError) as error:
            return Seen(name="ledger", seen=False, evidence=f"cannot be held against the journal: {error}", at_s=at_s)
        wrong = "".join(f"; {one}" for one in found.examples[:3])
        return Seen(name="ledger", seen=found.clean and found.journal > 0, evidence=found.told() + wrong, at_s=at_s)

    def _report(self, witness: Witness) -> tuple[str, list[str]]:
        """Fetch every incident's report and check its chain; the first one made by the fault is the drill's."""
        path, problems = "", []
        base, admin = witness.addresses.control, self._layout.secret("admin").read_text().strip()
        for one in sorted(witness.incidents, key=lambda one: str(one["id"])):
            if one["opened_at"] < (self._fault_at or 0):
                continue
            url = f"{base}/api/v1/incidents/{quote(one['id'])}"
            try:
                timeline = call("GET", f"{url}/timeline", token=admin)
                for form in ("html", "md"):
                    text = fetch("GET", f"{url}/postmortem?format={form}", token=admin)
                    target = self._folder / f"{one['id']}.{form}"
                    target.write_bytes(text)
                    path = path or str(target)
            except TapewatchError as error:
                problems.append(f"{one['id']}: {error}")
                continue
            if timeline["tamper"] is not None:
                problems.append(f"{one['id']}: its timeline is not whole: {timeline['tamper']}")
        if self._quiet and not path:
            return "nothing happened that needs one", problems
        return path, problems if path else [*problems, "there is no post-mortem"]

    def _timings(self, witness: Witness) -> dict[str, float | None]:
        """Return the spans of the chain in seconds, from the timeline's own instants; None where a link is missing."""
        alert = self._first_alert()
        fired = min(
            (int(one["seen_at"]) for one in witness.alerts_seen.values() if one["labels"].get("alertname") == alert),
            default=None,
        )
        mine = [one for one in witness.incidents if any(a["name"] == alert for a in one["alerts"].values())]
        incident = mine[0] if mine else None
        entries = witness.timelines.get(incident["id"], ()) if incident else ()
        asked = next((int(entry["at"]) for entry in entries if entry["kind"] == "action_asked"), None)
        opened = int(incident["opened_at"]) if incident else None
        if fired is not None and opened is not None:
            fired = min(fired, opened)  # the API is looked at every 100 ms; the webhook may be faster than the look
        proven = next((int(entry["at"]) for entry in entries if entry["data"].get("signal") == "verified"), None)
        return {
            "fault_to_firing_s": _span(self._fault_at, fired),
            "firing_to_incident_s": _span(fired, opened),
            "incident_to_action_s": _span(opened, asked),
            "action_to_proof_s": _span(asked, proven),
            "fault_to_resolved_s": _span(self._fault_at, _at(incident, "resolved_at")),
            **witness.timings(opened),
        }

    def _first_alert(self) -> str:
        return next((link.alertname for link in self._scenario.links if link.see in {"alert", "before"}), "")


def run_folder(root: Path, scenario: str) -> Path:
    """Return a folder for a run that no other run has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = root / f"{stamp}-{scenario}{suffix}"
        if not folder.exists():
            return folder
    raise PermanentError(f"{root} holds a hundred runs of this second")


def tidy(folder: Path, *, keep: bool) -> None:
    """Remove the estate's state of a run, unless it is to be kept; what stays is the verdict and what it stands on."""
    if keep:
        return
    audit = folder / "estate" / "kube" / "audit.log"
    if audit.is_file():
        from control.kube_bed import ACCOUNT

        with audit.open("rb") as every, (folder / "audit.jsonl").open("wb") as ours:
            ours.writelines(line for line in every if ACCOUNT.encode() in line)
    for estate in ("estate", "region-a", "region-b"):
        state = (folder / estate).absolute()
        shutil.rmtree(server_plan.home(Layout(state)), ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)


async def spawn_estate(settings: Mapping[str, object], state: Path, output: Path) -> asyncio.subprocess.Process:
    """Start an estate in a process of its own, tied to this one; what it says goes into a file."""
    environment = {f"TAPEWATCH_{name.upper()}": str(value) for name, value in settings.items()}
    argv = tied([sys.executable, "-m", "cli", "up", "--state", str(state)])
    with output.open("wb") as said:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )


async def stop_estate(process: asyncio.subprocess.Process) -> None:
    """Stop the estate in order, by force when it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _is_flowing(witness: Witness) -> bool:
    """Tell whether orders flow, and Prometheus knows how many go through every gateway."""
    accepted = witness.read("sum(rate(exchange_orders_accepted_total[4s]))")
    scraped = witness.read('min(count_over_time(up{job="gateway"}[30s]))')
    return accepted is not None and accepted[0] > 1 and scraped is not None and scraped[0] >= SCRAPES


def _firing(witness: Witness) -> list[Mapping[str, str]]:
    """Return the labels of what fires now, but for the dead man's switch and what speaks of the machine alone."""
    apart = families()["host"] | {DEADMAN}
    return [one["labels"] for one in witness.alerts if one["labels"].get("alertname") not in apart]


def _because(witness: Witness, link: Link) -> str:
    why = why_not(witness, link)
    return f": {why}" if why else ""


def _unresolved(witness: Witness) -> list[str]:
    return [str(one["id"]) for one in witness.incidents if one["state"] != "resolved"]


def _action(entry: Mapping[str, Any]) -> dict[str, Any]:
    data = entry["data"]
    return {name: data[name] for name in ("key", "action", "undo", "ok", "before", "after", "error")} | {
        "text": entry["text"]
    }


def _at(incident: Mapping[str, Any] | None, name: str) -> int | None:
    value = incident[name] if incident else None
    return int(value) if value is not None else None


def _span(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else round((end - start) / SECOND, 3)
