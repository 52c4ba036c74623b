"""Bugs planted one by one, each in the place of one guard, and the simulation that has to notice.

`python -m tests.sim.planted` plants them all and writes the table of `docs/simulation.md`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from control.bindings import LivePlant
from control.consent import Consents
from control.driver import Driver
from control.election import Election
from control.leader import Leader
from incidents import correlate as correlate_module
from runbooks import policy
from runbooks import rails as more_rails
from runbooks import run as machine
from runbooks.model import AskAnswer
from tests.sim import cluster_days, proof_cases, rail_cases
from tests.sim.cluster_adapter import ClusterWorkloads
from tests.sim.cluster_mill import mill
from tests.sim.cluster_plant import Cluster
from tests.sim.cluster_world import ClusterWorld
from tests.sim.elections import Elections, MemoryLeases, elect

SEEDS: Final = 50
"""Within so many seeds each bug must be noticed."""
PAGE: Final = Path(__file__).parents[2] / "docs" / "simulation.md"
ROW: Final = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \| (\d+) \|$", re.MULTILINE)

Patch = pytest.MonkeyPatch
Search = Callable[[int, Path], list[str]]


class Planted(NamedTuple):
    """A bug, where it is planted, and where it is looked for."""

    name: str
    what: str
    where: str
    plant: Callable[[Patch], None]


# --- where they are looked for --------------------------------------------------------------------------------------

SEARCHES: Final[dict[str, Search]] = {
    "rails": lambda seed, _: rail_cases.complaints(seed),
    "proofs": lambda seed, _: proof_cases.complaints(seed),
    "elections": lambda seed, _: elect(seed).found,
    "elections by the clock": lambda seed, _: elect(seed, fencing=False).found,
    "incidents": lambda seed, folder: mill(seed, folder, 30).found,
    "days of the cluster": cluster_days.complaints,
    "days with the kill switch": functools.partial(cluster_days.complaints, switch=True),
}


def caught(bug: Planted, folder: Path) -> int | None:
    """Return the first seed that notices a bug, None when none does."""
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        for seed in range(SEEDS):
            with contextlib.suppress(NotImplementedError):
                if SEARCHES[bug.where](seed, folder / bug.name / str(seed)):
                    return seed
    return None


# --- rails ------------------------------------------------------------------------------------------------------------


def _without(name: str) -> Planted:
    def plant(patch: Patch) -> None:
        for module in (policy, more_rails):
            if hasattr(module, name):
                patch.setattr(module, name, lambda *_, **__: None)

    return Planted(f"no_{name}", f"the rail `{name}` is not asked", "rails", plant)


# --- election ---------------------------------------------------------------------------------------------------------


def takes_over_at_once(patch: Patch) -> None:
    saw = Election._saw

    def impatient(self: Election, record: Any, now_ns: int) -> None:
        saw(self, record, now_ns)
        self._seen_since_ns = now_ns - 3_600_000_000_000

    patch.setattr(Election, "_saw", impatient)


def lease_never_ends(patch: Patch) -> None:
    patch.setattr(Election, "may_act", lambda self, _: self._good_until_ns > 0)


def counts_from_the_answer(patch: Patch) -> None:
    lead = Election._lead

    def late(self: Election, record: Any) -> None:
        self._sent_ns += self._tuning.renew_ns + self._tuning.margin_ns
        lead(self, record)

    patch.setattr(Election, "_lead", late)


def believes_what_was_not_answered(patch: Patch) -> None:
    unanswered = Election.unanswered

    def hopeful(self: Election, now_ns: int) -> None:
        if self._sent is not None and self._sent.holder == self._identity:
            self._seen = self._sent
            self._lead(self._sent)
        unanswered(self, now_ns)

    patch.setattr(Election, "unanswered", hopeful)


def changes_the_lease_without_comparing(patch: Patch) -> None:
    write = MemoryLeases.write

    def careless(self: MemoryLeases, record: Any, base: str) -> Any:
        del base
        return write(self, record, self.record.resource_version if self.record is not None else "")

    patch.setattr(MemoryLeases, "write", careless)


def acts_before_the_fence_stands(patch: Patch) -> None:
    async def at_once(self: Elections, epoch: int) -> None:
        del self, epoch

    patch.setattr(Elections, "fence", at_once)


def old_epochs_are_accepted(patch: Patch) -> None:
    land = Elections.land

    def open_door(self: Elections, node: Any, epoch: int) -> None:
        self.fencing = False
        land(self, node, epoch)
        self.fencing = True

    patch.setattr(Elections, "land", open_door)


def leads_on_after_leaving(patch: Patch) -> None:
    patch.setattr(Election, "release", lambda *_: None)


def is_not_told_that_it_leads_again(patch: Patch) -> None:
    note = Leader._note

    def forgetful(self: Leader) -> None:
        fenced = self._fenced
        note(self)
        self._fenced = fenced

    patch.setattr(Leader, "_note", forgetful)


# --- writes -----------------------------------------------------------------------------------------------------------


def the_cluster_does_not_fence(patch: Patch) -> None:
    patch.setattr(Cluster, "admit", lambda *_: None)


def writes_are_not_compared(patch: Patch) -> None:
    land = Cluster.patch

    def careless(self: Cluster, writer: Any, name: str, version: int, fields: Any) -> None:
        del version
        land(self, writer, name, self.things[name].version, fields)

    patch.setattr(Cluster, "patch", careless)


def plans_made_on_old_facts_are_written(patch: Patch) -> None:
    scale = ClusterWorkloads.scale

    async def careless(
        self: ClusterWorkloads, workload: str, replicas: int, *, key: str, generation: Any = None
    ) -> Any:
        del generation
        return await scale(self, workload, replicas, key=key)

    patch.setattr(ClusterWorkloads, "scale", careless)


def nothing_is_read_back(patch: Patch) -> None:
    async def unknown(self: ClusterWorkloads, key: str) -> None:
        del self, key

    patch.setattr(ClusterWorkloads, "_has_landed", lambda _, entry: entry.done_at is not None)
    patch.setattr(ClusterWorkloads, "effect", unknown)


def the_ledger_forgets(patch: Patch) -> None:
    async def forgetful(self: ClusterWorkloads, key: str, request: Any) -> None:
        del request
        await self._read()
        self._ledger.pop(key, None)

    nothing_is_read_back(patch)
    patch.setattr(ClusterWorkloads, "_known", forgetful)


def takes_back_what_others_wrote(patch: Patch) -> None:
    async def stubborn(self: ClusterWorkloads, of: str, *, key: str) -> Any:
        entry = self._ledger[of]
        return await self._patch(("restore", of), entry.target, key, lambda _: entry.raw_before)

    patch.setattr(ClusterWorkloads, "restore", stubborn)

    async def set_anyway(self: LivePlant, action: Any, key: str) -> Any:
        return await self._workloads.scale(action.workload, action.replicas, key=key)

    patch.setattr(LivePlant, "_set_replicas", set_anyway)


def writes_of_a_stalled_leader_reach_the_store(patch: Patch) -> None:
    closed = ClusterWorld.store_closed

    def open_door(self: ClusterWorld, life: Any) -> str:
        self.store_led = False
        return closed(self, life)

    patch.setattr(ClusterWorld, "store_closed", open_door)
    patch.setattr(ClusterWorld, "_rest", lambda *_: None)


def a_permission_outlives_its_process(patch: Patch) -> None:
    async def still_good(*_: Any) -> str:
        return ""

    patch.setattr(Driver, "_no_longer_good", still_good)


def no_look_between_tries(patch: Patch) -> None:
    patch.setattr(Driver, "_forbidden", lambda _: False)


# --- proof and consent ------------------------------------------------------------------------------------------------


def old_data_proves(patch: Patch) -> None:
    patch.setattr(machine, "_too_early", lambda *_: "")


def age_of_data_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(machine, "_unusable", lambda _, reading: "" if reading.value is not None else "nothing")


def one_witness_is_enough(patch: Patch) -> None:
    def blind(_: Any) -> Iterator[Any]:
        yield from ()
        return ""  # type: ignore[return-value]

    patch.setattr(machine._Witness, "look", blind)


def crashes_during_the_proof_are_fine(patch: Patch) -> None:
    look = machine._Witness.look

    def forgiving(self: Any) -> Any:
        self._restarts = None
        return (yield from look(self))

    patch.setattr(machine._Witness, "look", forgiving)


def takes_back_blindly(patch: Patch) -> None:
    after = machine._after_refuted
    patch.setattr(machine, "_after_refuted", lambda step, proof, done: after(step, proof._replace(blind=False), done))


def an_approval_is_good_for_any_plan(patch: Patch) -> None:
    ask = Driver._ask

    async def any_plan(self: Driver, *args: Any) -> AskAnswer:
        return msgspec.structs.replace(await ask(self, *args), plan="")

    patch.setattr(Driver, "_ask", any_plan)


def one_person_counts_twice(patch: Patch) -> None:
    answer = Consents.answer

    def eager(self: Consents, run: str, by: str, *, grant: bool, **more: str) -> str:
        said = answer(self, run, by, grant=grant, **more)
        return said if "more person" not in said else answer(self, run, by + "'s other hand", grant=grant, **more)

    patch.setattr(Consents, "answer", eager)


def an_old_end_hides_a_new_one(patch: Patch) -> None:
    correlate = correlate_module.correlate

    def short_sighted(*args: Any, ended: Any = None, **more: Any) -> Any:
        del ended
        return correlate(*args, ended={}, **more)

    patch.setattr(correlate_module, "correlate", short_sighted)


def _at(where: str, what: str, plant: Callable[[Patch], None]) -> Planted:
    return Planted(plant.__name__, what, where, plant)


BUGS: Final[tuple[Planted, ...]] = (
    *(_without(name) for name in rail_cases.rails()),
    _at("elections by the clock", "a lease is taken over without being seen to stand still", takes_over_at_once),
    _at("elections by the clock", "a leader does not look at its clock", lease_never_ends),
    _at("elections by the clock", "a lease counts from its answer, without a margin", counts_from_the_answer),
    _at("elections by the clock", "a write without an answer is believed", believes_what_was_not_answered),
    _at("elections by the clock", "the lease is changed without comparing", changes_the_lease_without_comparing),
    _at("elections", "a leader acts before the old epoch is refused", acts_before_the_fence_stands),
    _at("elections", "the server takes any epoch", old_epochs_are_accepted),
    _at("elections", "a leader that leaves goes on", leads_on_after_leaving),
    _at("elections", "who leads again in its old epoch is not told", is_not_told_that_it_leads_again),
    _at("incidents", "the cluster takes any epoch", the_cluster_does_not_fence),
    _at("incidents", "writes are not compared with the version they stand on", writes_are_not_compared),
    _at("incidents", "a write without an answer is not read back", nothing_is_read_back),
    _at("incidents", "the ledger forgets what was begun", the_ledger_forgets),
    _at("incidents", "a scale does not name the generation it stands on", plans_made_on_old_facts_are_written),
    _at("incidents", "an undo does not look who wrote since", takes_back_what_others_wrote),
    _at("days of the cluster", "a deposed leader uses the store", writes_of_a_stalled_leader_reach_the_store),
    _at(
        "incidents",
        "an action is begun on the permission of a dead process",
        a_permission_outlives_its_process,
    ),
    _at("days of the cluster", "an approval is good for any plan", an_approval_is_good_for_any_plan),
    _at("days of the cluster", "an end that overtakes its beginning is forgotten", an_old_end_hides_a_new_one),
    _at("days with the kill switch", "a try after a failure does not look at the switch", no_look_between_tries),
    _at("proofs", "data older than the action proves", old_data_proves),
    _at("proofs", "the age of data is not looked at", age_of_data_is_not_looked_at),
    _at("proofs", "the platform is not asked", one_witness_is_enough),
    _at("proofs", "replicas may crash while a proof is watched", crashes_during_the_proof_are_fine),
    _at("proofs", "an undo needs no evidence", takes_back_blindly),
    _at("days of the cluster", "one person agrees for two", one_person_counts_twice),
)


def table(rows: dict[str, int | None]) -> str:
    """Return the table of `docs/simulation.md`."""
    lines = ["| Bug | What it does | Noticed in | At seed |", "|---|---|---|---|"]
    lines += [f"| `{bug.name}` | {bug.what} | {bug.where} | {rows[bug.name]} |" for bug in BUGS]
    return "\n".join(lines)


def told() -> dict[str, tuple[str, int]]:
    """Return what the page tells: by bug where it was noticed, and at which seed."""
    return {name: (where, int(seed)) for name, _, where, seed in ROW.findall(PAGE.read_text())}


def main() -> None:
    """Plant them all and print the table."""
    rows: dict[str, int | None] = {}
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for bug in BUGS:
            if chosen and bug.name not in chosen:
                continue
            rows[bug.name] = caught(bug, Path(folder))
            print(f"{bug.name}: {rows[bug.name]}", file=sys.stderr, flush=True)  # noqa: T201
    if not chosen:
        print(table(rows))  # noqa: T201


if __name__ == "__main__":
    main()
