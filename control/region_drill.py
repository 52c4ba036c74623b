"""The drill `region-loss`: a region dies whole, another one that followed it takes over, and the loss is counted.

Nothing is asked of the dead region: what was acknowledged there stands in its load's own log, and is looked for in the
journal of the region that took over. RPO is what is missing, in orders and as time; RTO is from the death to the first
order that the other region acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from control import faults
from control.calls import call
from control.config import load_config
from control.distributed import FOLLOWING
from control.drill import DISTRIBUTED, SETTINGS, UP_WITHIN_S, Result, Seen, spawn_estate, stop_estate
from control.fault import Plant
from control.layout import Layout
from control.learned_links import DEADMAN
from control.ledger_link import check_ledger
from control.scenario import REGION_LOSS
from exchange.accounting import LoadLine
from exchange.adapters.journal_place import journal_records
from exchange.adapters.listing_file import read_listing
from exchange.adapters.load_account import account
from exchange.adapters.verify import verify
from exchange.journal import decode_command
from exchange.ports import ClientOutcome
from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import Instant, to_seconds

NAME: Final = REGION_LOSS
TITLE: Final = "A whole region is lost, and another one takes over"
STORY: Final = (
    "One region trades on three brokers and a pair of databases; another one follows its journal. Every process of the "
    "first is killed at once under load. The second takes over from what was copied, and what is missing is counted."
)
ALERT: Final = "MirrorSourceLost"
"""What a person is told before this region takes over."""
LOAD_S: Final = 10.0
"""How long the first region trades while it is followed."""
RPO_MOST_S: Final = 5.0
"""What is missing must be younger than this when the region dies: a mirror that lags longer is no second region."""
_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.05


class RegionDrill:
    """One run."""

    def __init__(self, folder: Path, tell: Callable[[str, str], None]) -> None:
        """Run in `folder`, which is made; `tell` hears of every step."""
        self._folder = folder
        self._old, self._new = Layout(folder.absolute() / "region-a"), Layout(folder.absolute() / "region-b")
        self._tell = tell
        self._links: list[Seen] = []
        self._began_s = time.monotonic()
        self._dead_at = Instant(0)

    async def run(self) -> Result:
        """Run it and return the verdict; both regions are down when this returns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        regions: list[asyncio.subprocess.Process] = []
        try:
            self._tell("step", "starting the first region: brokers, databases and the exchange on them")
            regions.append(await self._start(self._old, {}))
            await self._until(self._old, "up", regions[0])
            self._tell("step", "starting the second region, which follows the first one's journal")
            regions.append(await self._start(self._new, self._following()))
            await self._until(self._new, FOLLOWING, regions[1])
            result = await self._play(regions[0])
        finally:
            for region in reversed(regions):
                await stop_estate(region)
        result.took_s = round(time.monotonic() - self._began_s, 1)
        (self._folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        return result

    # --- the regions ------------------------------------------------------------------------------------------------

    async def _start(self, layout: Layout, more: Mapping[str, object]) -> asyncio.subprocess.Process:
        settings = {
            **SETTINGS, **DISTRIBUTED, "estate": "distributed", "services": '["kafka", "postgres"]', **more,
        }  # fmt: skip
        return await spawn_estate(settings, layout.root, self._folder / f"{layout.root.name}.out")

    def _following(self) -> dict[str, object]:
        """Return the second region's settings. What is traded it learns from the first one's brokers."""
        kafka = load_config(self._old.config("engine-1")).kafka
        assert kafka is not None, "the engine of a distributed estate has its journal in Kafka"
        return {"follows": kafka.bootstrap, "seed": 2}  # another seed: its load's own client ids are no repeats

    async def _until(self, layout: Layout, phase: str, process: asyncio.subprocess.Process) -> Plant:
        within_s = UP_WITHIN_S["distributed"]
        deadline = time.monotonic() + within_s
        output = self._folder / f"{layout.root.name}.out"
        while time.monotonic() < deadline:
            if process.returncode is not None:
                last = output.read_text(errors="replace").strip().splitlines()[-3:]
                raise PermanentError(f"{layout.root.name} did not start: {' '.join(last) or 'it said nothing'}")
            with contextlib.suppress(TapewatchError):
                plant = faults.connect(layout.root)
                if plant.addresses.phase == phase:
                    return plant
            await asyncio.sleep(0.1)
        raise TemporaryError(f"{layout.root.name} was not {phase} within {within_s:g} s; see {output}")

    # --- the play ---------------------------------------------------------------------------------------------------

    async def _play(self, first: asyncio.subprocess.Process) -> Result:
        second = faults.connect(self._new.root)
        mirror = second.addresses.workloads["mirror"][0].url
        self._tell("step", f"the first region trades for {LOAD_S:g} s")
        await asyncio.sleep(LOAD_S)
        seen = await self._mirror_until(mirror, lambda told: told["connected"] and told["sequence"] > 0)
        refused = await asyncio.to_thread(_refused, second)
        self._see(
            "no two regions", refused or "a take-over beside a live region was not refused", seen=refused is not None
        )
        self._kill(first)
        self._tell("step", f"every process of the first region was killed; {seen['sequence']} commands were copied")
        await self._mirror_until(mirror, lambda told: not told["connected"])
        self._see("loss noticed", "the mirror says that the other region does not answer")
        others = await self._alerted(second)
        self._see("alert", f"{ALERT} reached Alertmanager{others}")
        url = f"{second.addresses.estate}/v1/take-over"
        body = {"by": "the drill", "even_so": False}
        taken = await asyncio.to_thread(call, "POST", url, token=second.admin, body=body, timeout_s=_WITHIN_S)
        self._see("taken over", f"after command {taken['sequence']}")
        first_line = await self._first_acknowledged()
        rto_s = to_seconds(first_line.answered_at - self._dead_at)
        self._see("trades again", f"RTO {rto_s:.1f} s: an order was acknowledged in the second region")
        await asyncio.sleep(2.0)
        return await self._conclude(second, rto_s)

    def _kill(self, first: asyncio.subprocess.Process) -> None:
        """Kill everything of the first region at once, as a power cut would."""
        whole = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        self._dead_at = Instant(time.time_ns())
        for one in whole:
            with contextlib.suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)

    async def _mirror_until(self, url: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + _WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(TapewatchError):
                told: dict[str, Any] = await asyncio.to_thread(call, "GET", f"{url}/v1/mirror")
                if holds(told):
                    return told
            await asyncio.sleep(_LOOK_S)
        raise TemporaryError(f"the mirror did not say so within {_WITHIN_S:g} s")

    async def _alerted(self, second: Plant) -> str:
        """Wait until the second region tells its people; return what else it tells them."""
        deadline = time.monotonic() + _WITHIN_S
        while time.monotonic() < deadline:
            url = f"{second.addresses.alertmanager}/api/v2/alerts"
            with contextlib.suppress(TapewatchError):
                told: Any = await asyncio.to_thread(call, "GET", url)
                names = {one["labels"]["alertname"] for one in told}
                if ALERT in names:
                    others = ", ".join(sorted(names - {ALERT, DEADMAN}))
                    return f", beside {others}" if others else ""
            await asyncio.sleep(_LOOK_S)
        raise TemporaryError(f"{ALERT} did not fire within {_WITHIN_S:g} s")

    async def _first_acknowledged(self) -> LoadLine:
        deadline = time.monotonic() + _WITHIN_S
        while time.monotonic() < deadline:
            for line in await asyncio.to_thread(_lines, self._new.load):
                if line.outcome is ClientOutcome.ACKNOWLEDGED:
                    return line
            await asyncio.sleep(_LOOK_S)
        raise TemporaryError(f"the second region acknowledged no order within {_WITHIN_S:g} s")

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _conclude(self, second: Plant, rto_s: float) -> Result:
        await asyncio.to_thread(
            call, "POST", f"{second.addresses.load}/admin/stop", token=second.admin, body={}, timeout_s=30.0
        )
        listing = read_listing(self._new.root / "instruments.json")
        first = read_listing(self._old.root / "instruments.json")
        self._see(
            "listing", f"{len(listing.instruments)} instruments of the first region came over by themselves",
            seen=listing == first,
        )  # fmt: skip
        both = self._new.journal
        old = await asyncio.to_thread(account, self._old.load, both, listing.instruments, listing.venue)
        new = await asyncio.to_thread(account, self._new.load, both, listing.instruments, listing.venue)
        rpo_s = await asyncio.to_thread(self._rpo_s, both)
        self._see(
            "RPO", f"{old.lost} of {old.acknowledged} acknowledged orders, {rpo_s:.2f} s; {old.duplicated} twice",
            seen=rpo_s <= RPO_MOST_S and not old.duplicated,
        )  # fmt: skip
        self._see(
            "orders", f"second region: {new.acknowledged} acknowledged, {new.lost} lost, {new.duplicated} duplicated",
            seen=new.clean and new.acknowledged > 0,
        )  # fmt: skip
        live = await asyncio.to_thread(call, "GET", f"{second.addresses.engine}/v1/hash")
        replayed = await asyncio.to_thread(verify, both, listing.instruments, live["seq"], listing.venue)
        ours, theirs = replayed.state_hash[:12], str(live["state_hash"])[:12]
        self._see("replay", f"the copy replays to {ours}, the engine has {theirs}", seen=ours == theirs)
        books = await asyncio.to_thread(check_ledger, self._new)
        ledger = await asyncio.to_thread(call, "GET", f"{second.addresses.settlement}/v1/ledger")
        self._see(
            "ledger", f"{books.told()}, imbalance {ledger['imbalance']}",
            seen=books.clean and books.journal > 0 and ledger["imbalance"] == 0,
        )  # fmt: skip
        passed = all(link.seen for link in self._links)
        return Result(
            scenario=NAME, passed=passed, links=self._links,
            timings={"rto_s": round(rto_s, 2), "rpo_s": round(rpo_s, 3)},
            orders={
                "sent": old.sent + new.sent, "acknowledged": old.acknowledged + new.acknowledged,
                "rejected": old.rejected + new.rejected, "lost": old.lost,
                "duplicated": old.duplicated + new.duplicated,
            },
            actions=[], report=str(self._folder / "result.json"),
            outcome="the second region trades on the first one's books" if passed else "not as it should be",
        )  # fmt: skip

    def _rpo_s(self, journal: Path) -> float:
        """Return how old the youngest command of the first region is, at its death, that the second one has."""
        last = 0
        for record in journal_records(journal):
            at = decode_command(record.payload).at
            if at > self._dead_at:
                break
            last = at
        return max(0.0, to_seconds(Instant(self._dead_at) - Instant(last)))

    def _see(self, name: str, evidence: str, *, seen: bool = True) -> None:
        at_s = round((time.time_ns() - self._dead_at) / 1e9, 2) if self._dead_at else 0.0
        self._links.append(Seen(name=name, seen=seen, evidence=evidence, at_s=at_s))
        self._tell("seen" if seen else "missed", f"{name} after {at_s:.1f} s: {evidence}")


def _refused(second: Plant) -> str | None:
    """Ask for a take-over while the other region lives; return why it was refused."""
    try:
        call(
            "POST", f"{second.addresses.estate}/v1/take-over", token=second.admin,
            body={"by": "the drill", "even_so": False}, timeout_s=_WITHIN_S,
        )  # fmt: skip
    except TapewatchError as error:
        return str(error)
    return None


def _lines(load: Path) -> list[LoadLine]:
    decoder = msgspec.json.Decoder(LoadLine)
    found = []
    for path in sorted(load.glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(msgspec.DecodeError):
                found.append(decoder.decode(line))
    return found
