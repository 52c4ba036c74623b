"""The simulation can fail: one planted bug per guard, each caught within 50 days."""

import asyncio
import itertools

import msgspec
import pytest

from control import decide, killswitch
from control import driver as driver_module
from control import loop as loop_module
from control.bindings import LivePlant
from control.deadman import DeadMan
from control.driver import Driver
from control.intake import Intake
from control.loop import Loop
from kernel.time import HOUR
from monitor.ports import NoReading, Reading
from runbooks.model import PermitAnswer, ReadAnswer
from tests.sim.days import complaints
from tests.sim.world import World

SEEDS = range(50)


def no_look_at_the_switch(patch):
    """Nobody looks at the kill switch between the decision and the effect."""
    patch.setattr(killswitch, "read", lambda _: None)


def no_last_look_at_the_switch(patch):
    """The switch is looked at before a run and a permission, and not right before the effect."""

    async def blind(self, question, *, open_before):
        del open_before
        return await self._parts.plant.carry_out(question.action, question.key, forbidden=lambda: False)

    patch.setattr(Driver, "_do", blind)


def no_look_between_tries(patch):
    """A temporary failure is tried again whatever the kill switch says meanwhile."""
    patch.setattr(Driver, "_forbidden", lambda _: False)


def journal_after(patch):
    """A question becomes durable only together with its answer."""
    persist = Driver._persist

    async def late(self, run, rows, drafts, **how):
        if any(kind == "question" for _, kind, _ in rows):
            return
        await persist(self, run, rows, drafts, **how)

    patch.setattr(Driver, "_persist", late)


def another_key_each_time(patch):
    """The key of an action is not the same when it is asked for again."""
    numbers = itertools.count()
    act = LivePlant._act

    async def fresh(self, action, key):
        self._world._actions[f"{key}#{(n := next(numbers))}"] = action
        return await act(self, action, f"{key}#{n}")

    patch.setattr(LivePlant, "_act", fresh)


def no_data_is_fine(patch):
    """A reading without an answer counts as what the runbook hopes for."""
    read = Driver._read

    async def hopeful(self, question):
        answer = await read(self, question)
        if answer.value is not None:
            return answer
        hoped = next(v for v in (0.0, 1.0, 0.3, 0.1) if question.evidence.holds(v))
        return ReadAnswer(at=answer.at, value=hoped, data_at=answer.at)

    patch.setattr(Driver, "_read", hopeful)


def old_data_is_fine(patch):
    """The age of data is not looked at."""

    def ageless(self, query, max_age):
        found = READING(self, query, HOUR)
        return found if isinstance(found, NoReading) else Reading(found.value, self.clock.now())

    patch.setattr(World, "reading", ageless)


def nobody_waits_for_people(patch):
    """An incident handed over is worked on all the same."""
    chosen = decide.next_step

    def eager(incident, library, runs, now, patience, **more):
        fresh = [run for run in runs if run.ended_at is None]
        return chosen(msgspec.structs.replace(incident, needs_person=False), library, fresh, now, patience, **more)

    patch.setattr(loop_module, "next_step", eager)
    advance = Loop._advance

    async def impatient(self, incident, now):
        await advance(self, msgspec.structs.replace(incident, needs_person=False), now)

    patch.setattr(Loop, "_advance", impatient)


def acknowledged_before_durable(patch):
    """A webhook is answered before its signals are kept, and a crash forgets them."""

    async def hasty(self, signals):
        asyncio.get_running_loop().create_task(TAKE_IN(self, signals))

    patch.setattr(Intake, "take_in", hasty)


def runs_are_not_resumed(patch):
    """What a crash cut short is left lying."""

    async def nothing(self):
        return None

    patch.setattr(Loop, "_resume", nothing)


def _granted(_, *, now, **__):
    return PermitAnswer(now, granted=True)


def no_limits(patch):
    """Cool-down, rates and runs under way are not looked at."""
    patch.setattr(loop_module, "admit", lambda *_: None)
    patch.setattr(driver_module, "permit", _granted)
    patch.setattr(loop_module, "refuse_in_progress", lambda *_: None)
    chosen = decide.next_step
    patch.setattr(
        loop_module,
        "next_step",
        lambda incident, library, runs, now, patience, **more: chosen(
            incident, library, [run for run in runs if run.ended_at is None], now, patience, **more
        ),
    )


def answers_are_told_twice(patch):
    """A resumed run tells again what its journal holds already."""
    resumed = driver_module._resumed

    def forgetful(generator, journal):
        question, answers, _ = resumed(generator, journal)
        return question, answers, False

    patch.setattr(driver_module, "_resumed", forgetful)


def failed_store_forgets_hand_overs(patch):
    """What could not be written is not tried again: the run is forgotten while it is open."""
    launched = Loop._launch
    known = set()

    def once(self, run, bound, arrived):
        if run.id not in known:
            known.add(run.id)
            launched(self, run, bound, arrived)

    patch.setattr(Loop, "_launch", once)


def silence_never_ends(patch):
    """The end of a silence is not told."""
    due = DeadMan.due
    patch.setattr(
        DeadMan,
        "due",
        lambda self, now: None if (found := due(self, now)) is None or found.ends_at is not None else found,
    )


AT_THE_SWITCH = {no_last_look_at_the_switch, no_look_between_tries}
TAKE_IN = Intake.take_in
READING = World.reading
PLANTED = [
    no_look_at_the_switch,
    no_last_look_at_the_switch,
    no_look_between_tries,
    journal_after,
    another_key_each_time,
    no_data_is_fine,
    old_data_is_fine,
    nobody_waits_for_people,
    acknowledged_before_durable,
    runs_are_not_resumed,
    no_limits,
    answers_are_told_twice,
    failed_store_forgets_hand_overs,
    silence_never_ends,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_caught(plant, monkeypatch, tmp_path):
    plant(monkeypatch)
    for seed in SEEDS:
        if complaints(seed, tmp_path / str(seed), switch=plant in AT_THE_SWITCH):
            return
    pytest.fail(f"{plant.__doc__} Nobody noticed within {len(SEEDS)} days.")
