"""One run: journalled before it is carried out, resumed from any crash, never an effect twice."""

import asyncio
import dataclasses

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incidents.ports import RunRecord
from incidents.timeline import Draft, EntryKind
from kernel.errors import TemporaryError
from kernel.time import Instant, seconds
from runbooks.adapters.fake import Trouble
from runbooks.bind import bind
from runbooks.model import BlastRadius, Consent, HaltSymbol, Limits, Outcome, RestartReplica, Runbook, Scale, Undo
from tests.sim.invariants import broken_promises
from tests.sim.library import GATEWAY, LATENCY, book, guard, proof, step
from tests.sim.virtual import run
from tests.sim.world import World

LABELS = {"alertname": "X", "replica": "gateway-1", "service": "gateway", "symbol": "TWA"}
RESTART = step(RestartReplica("gateway", "gateway-1"), Undo.NOTHING, proof('up{replica="gateway-1"}', "==", 1))
HALT = step(HaltSymbol("TWA", "gap"), Undo.KEEP, proof('halted{symbol="TWA"}', "==", 1))
SCALE = step(
    Scale("gateway", 1, 2, 4),
    Undo.RESTORE_REPLICAS,
    proof("latency", "<", 0.25, within_s=4),
    proof("engine_ready", "==", 1),
)
GUARDS = (guard('up{replica="gateway-1"}', "==", 0, applies=True), guard("engine_ready", "==", 1))


def several(*steps, **more) -> Runbook:
    return book(
        "several", "X", "gateway", 2, GUARDS, *steps,
        blast_radius=BlastRadius(replicas=3, symbols=1, unhealthy_share=1.0),
        limits=Limits(cool_down_ns=seconds(1), runs_per_hour=9, ineffective_runs=9), **more,
    )  # fmt: skip


class Bench:
    """A world with one run on record and nobody but the driver at work."""

    def __init__(self, folder, runbook, seed=1):
        self.world = World(seed, folder, library={"X": runbook})
        self.world.hang("gateway", "gateway-1")
        bound = bind(runbook, LABELS)
        assert isinstance(bound, Runbook)
        self.bound = bound
        self.disturb = None

    async def conclude(self):
        """Open the run, drive it through every crash, return its conclusion."""
        world, now = self.world, self.world.clock.now()
        data = {"incident": "INC-1", "title": "t", "level": 2, "service": "gateway", "team": "t", "key": "gateway"}
        world.store.append("INC-1", [Draft(now, EntryKind.OPENED, "control", "t", data)])
        record = RunRecord(
            id="INC-1/run-1", incident="INC-1", runbook=self.bound.name, target="gateway", labels=LABELS, started_at=now
        )
        world.store.start_run(record)
        ticking = asyncio.create_task(self._tick())
        try:
            for _ in range(20):
                world.start()
                assert world.life.loop is not None
                driver = world.life.loop._p.driver
                driving = asyncio.create_task(driver.drive(record, self.bound))
                await asyncio.wait({driving})
                if not driving.cancelled() and driving.exception() is None:
                    return driving.result()
                assert world.life.dead, driving.exception()
            pytest.fail("the run never ended")
        finally:
            ticking.cancel()
            await world.stop()

    async def _tick(self):
        while True:
            if self.disturb is not None:
                self.disturb(self.world)
            self.world.sample()
            await asyncio.sleep(0.5)


@pytest.fixture(autouse=True)
def only_the_driver(monkeypatch):
    """Keep the loop from taking part: what is under test here is the driver alone."""

    async def idle(_):
        await asyncio.Event().wait()

    monkeypatch.setattr("control.loop.Loop.run", idle)


def drive(folder, runbook, *, crash_at=-1, setup=None):
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, runbook)
    bench.world.crash_at = crash_at
    if setup is not None:
        setup(bench)
    conclusion = run(bench.conclude())
    return conclusion, bench.world


def told(world, kind):
    return [entry for entry in world.store.timeline("INC-1") if entry.kind is kind]


@pytest.mark.parametrize(
    "runbook",
    [
        pytest.param(several(RESTART), id="one step"),
        pytest.param(several(HALT, RESTART), id="two steps"),
        pytest.param(several(SCALE, HALT), id="undone at the first"),
        pytest.param(several(HALT, RESTART, SCALE), id="undone at the third"),
    ],
)
def test_a_crash_at_any_point_changes_nothing_in_the_end(runbook, tmp_path):
    def slow(bench):
        bench.world.latency = 0.9

    undisturbed, calm = drive(tmp_path / "calm", runbook, setup=slow)
    assert undisturbed.outcome in {Outcome.MENDED, Outcome.UNDONE}
    expected = [done.key for done in calm.done]
    for point in range(1, calm.steps + 1):
        conclusion, world = drive(tmp_path / str(point), runbook, crash_at=point, setup=slow)
        assert (conclusion.outcome, conclusion.reason) == (undisturbed.outcome, undisturbed.reason), f"point {point}"
        assert [done.key for done in world.done] == expected, f"point {point}"
        assert [entry.data["key"] for entry in told(world, EntryKind.ACTION_DONE)] == expected, f"point {point}"
        assert not broken_promises(world), f"point {point}"
        assert world.lives == 2, f"point {point} crashed nothing"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from([RESTART, HALT, SCALE]), min_size=1, max_size=3, unique_by=lambda one: one.name),
    crash_at=st.integers(-1, 60),
    throw_at=st.integers(-1, 60),
    troubles=st.lists(st.sampled_from([*Trouble, None]), max_size=6),
    blind=st.sampled_from(["", "", "missing", "nan", "unreachable", "stale"]),
    latency=st.sampled_from([0.05, 0.9]),
    salt=st.integers(0, 2**32),
)
def test_whatever_happens_no_promise_breaks(  # noqa: PLR0917 - Hypothesis gives them by name
    tmp_path, steps, crash_at, throw_at, troubles, blind, latency, salt
):
    def setup(bench):
        world = bench.world
        world.latency, queue = latency, list(troubles)
        world.trouble = lambda: queue.pop(0) if queue else None
        if blind:
            world.sampled_at = Instant(0)
            world.blind = blind

        def switch(step):
            if step == throw_at:
                world.throw()

        world.on_step = switch

    folder = tmp_path / f"{salt}-{crash_at}-{throw_at}-{len(troubles)}"
    folder.mkdir(exist_ok=True)
    (folder / "kill-switch.json").unlink(missing_ok=True)
    conclusion, world = drive(folder, several(*steps), crash_at=crash_at, setup=setup)
    assert not broken_promises(world)
    if blind:
        assert not world.done
        assert conclusion.outcome is Outcome.REFUSED
    if conclusion.outcome is Outcome.REFUSED and "nothing was done" in conclusion.detail.lower():
        assert not world.done, "it says that nothing was done"


def test_lost_answers_are_not_repeated(tmp_path):
    def setup(bench):
        queue = [Trouble.LOST_ANSWER, Trouble.LOST_ANSWER]
        bench.world.trouble = lambda: queue.pop(0) if queue else None

    conclusion, world = drive(tmp_path, several(RESTART), setup=setup)
    assert conclusion.outcome is Outcome.MENDED
    assert world.workloads.writes == ["INC-1/run-1/0"]


def test_a_plant_that_never_answers_ends_the_run(tmp_path):
    def setup(bench):
        bench.world.trouble = lambda: Trouble.NO_ANSWER

    conclusion, world = drive(tmp_path, several(RESTART), setup=setup)
    assert conclusion.outcome is Outcome.FAILED
    assert "gave up after 4 tries" in conclusion.detail
    assert not world.done


def test_after_a_crash_under_the_kill_switch_nothing_is_claimed_that_is_not_known(tmp_path):
    """The action was carried out, its answer lost with the process, then the switch was thrown."""
    _, calm = drive(tmp_path / "calm", several(RESTART))
    found = False
    for point in range(1, calm.steps + 1):

        def setup(bench, point=point):
            def switch(step):
                if step == point + 1:
                    bench.world.throw()

            bench.world.on_step = switch

        conclusion, world = drive(tmp_path / str(point), several(RESTART), crash_at=point, setup=setup)
        if world.done and conclusion.outcome is not Outcome.MENDED:
            assert "nothing was done" not in conclusion.detail.lower(), f"point {point}"
            found |= "not known" in conclusion.detail
    assert found, "no crash fell between the effect and its answer"


def test_a_runbook_changed_while_its_run_was_cut_short_is_not_resumed(tmp_path):
    bench = Bench(tmp_path, several(RESTART))
    bench.world.crash_at = 12

    def change(world):
        if world.lives == 1 and world.life.dead:
            step_now = msgspec.structs.replace(RESTART, action=RestartReplica("gateway", "gateway-2"))
            bench.bound = several(HALT, step_now)

    original = bench.world.start

    def start():
        change(bench.world)
        original()

    bench.world.start = start
    conclusion = run(bench.conclude())
    assert conclusion.outcome is Outcome.FAILED
    assert "could not be resumed" in conclusion.detail
    assert not {done.key for done in bench.world.done} - {"INC-1/run-1/0"}


def test_without_consent_nothing_is_done(tmp_path):
    conclusion, world = drive(tmp_path, several(RESTART, consent=Consent.ONE_APPROVER))
    assert (conclusion.outcome, conclusion.reason) == (Outcome.REFUSED, "no_consent")
    assert not world.done


def test_the_wrong_remedy_is_taken_back(tmp_path):
    def setup(bench):
        bench.world.latency = 0.9

    conclusion, world = drive(tmp_path, LATENCY, setup=setup)
    assert conclusion.outcome is Outcome.UNDONE
    assert [done.key for done in world.done] == ["INC-1/run-1/0", "INC-1/run-1/0/undo"]


def test_what_mended_itself_is_left_alone(tmp_path):
    def setup(bench):
        bench.world.workloads.set_ready("gateway", "gateway-1", ready=True)

    conclusion, world = drive(tmp_path, GATEWAY, setup=setup)
    assert conclusion.outcome is Outcome.NOT_APPLICABLE
    assert not world.done


# --- consent to a plan ----------------------------------------------------------------------------------------------

ASKS = several(RESTART, consent=Consent.FOUR_EYES)


def people(*names):
    """Let people agree to whatever is asked, one at each tick."""

    def agree(world):
        if world.life.dead:
            return
        for question in list(world.life.consents.open.values()):
            left = [name for name in names if name not in question.granted]
            if left and not question.verdict.done():
                world.life.consents.answer(question.run, left[0], grant=True)

    return agree


def change(world):
    """Let somebody else change the gateway."""
    status = world.workloads._workloads["gateway"]
    world.workloads._workloads["gateway"] = msgspec.structs.replace(status, generation=status.generation + 1)


def test_two_people_agree_to_a_plan_and_the_run_goes_on(tmp_path):
    def setup(bench):
        bench.disturb = people("anna", "ben")

    conclusion, world = drive(tmp_path, ASKS, setup=setup)
    assert conclusion.outcome is Outcome.MENDED
    (consent,) = told(world, EntryKind.CONSENT)
    assert consent.data["by"] == ["anna", "ben"]
    assert consent.text.startswith(f"consent to plan {consent.data['plan'][:12]} given by anna, ben: several")


def test_a_plan_that_changed_after_it_was_approved_is_not_carried_out(tmp_path):
    def setup(bench):
        agree, changed = people("anna", "ben"), []

        def disturb(world):
            agree(world)
            if not changed and any(question.verdict.done() for question in world.life.consents.open.values()):
                changed.append(True)
                change(world)

        bench.disturb = disturb

    conclusion, world = drive(tmp_path, ASKS, setup=setup)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.REFUSED, "plan_changed")
    assert "the facts changed since plan" in conclusion.detail.lower()
    assert "gateway generation 1 -> 2" in conclusion.detail
    assert not world.done


def test_a_plan_that_changes_while_it_is_asked_is_asked_anew_and_the_timeline_says_so(tmp_path):
    def setup(bench):
        agree, ticks = people("anna", "ben"), []

        def disturb(world):
            ticks.append(True)
            if len(ticks) == 4:
                change(world)
            if len(ticks) in {3, 10, 11}:
                agree(world)

        bench.disturb = disturb

    conclusion, world = drive(tmp_path, ASKS, setup=setup)
    assert conclusion.outcome is Outcome.MENDED
    asked, note = told(world, EntryKind.NOTE)
    assert asked.text.startswith("several asks two different people to approve plan ")
    assert "asks anew, for the facts changed: gateway generation 1 -> 2" in note.text
    assert note.text.endswith("void is the consent of anna")


def test_whoever_agreed_before_a_crash_is_asked_again_and_nothing_is_done_twice(tmp_path):
    def setup(bench):
        bench.disturb = people("anna", "ben")

    _, calm = drive(tmp_path / "calm", ASKS, setup=setup)
    for point in range(1, calm.steps + 1):
        conclusion, world = drive(tmp_path / str(point), ASKS, crash_at=point, setup=setup)
        assert not broken_promises(world)
        assert len(world.done) <= 1
        assert conclusion.outcome is Outcome.MENDED, f"point {point}: {conclusion.detail}"


def test_a_resumed_run_keeps_the_consent_it_began_with(tmp_path):
    """Its incident's level has changed meanwhile, so that nobody would be asked any more."""
    bench = Bench(tmp_path, ASKS)

    def crash_while_it_asks(world):
        if world.lives == 1 and not world.life.dead and world.life.consents.open:
            bench.bound = msgspec.structs.replace(bench.bound, consent=Consent.AUTOMATIC)
            world.kill()

    bench.disturb = crash_while_it_asks
    conclusion = run(bench.conclude())
    assert bench.world.lives == 2
    assert (conclusion.outcome, conclusion.reason) == (Outcome.REFUSED, "no_consent")
    assert not bench.world.done


def test_of_a_proof_with_two_witnesses_only_what_decides_is_told(tmp_path):
    witnessed = msgspec.structs.replace(RESTART.proof, settled="gateway")
    runbook = several(msgspec.structs.replace(RESTART, proof=witnessed))
    conclusion, world = drive(tmp_path, runbook)
    assert conclusion.outcome is Outcome.MENDED
    readings = [entry for entry in told(world, EntryKind.EVIDENCE_READ) if entry.data["purpose"] == "proof"]
    looks = told(world, EntryKind.PLATFORM_READ)
    assert len(readings) == len(looks) == 1
    assert looks[0].data["settled"] is True
    assert readings[0].data["holds"] is True


@pytest.mark.parametrize("works", [True, False])
def test_the_plant_is_looked_at_while_the_guards_are_read_and_for_the_first_permission_only(works, tmp_path):
    looked = []

    def setup(bench):
        start = bench.world.start

        def begin():
            start()
            driver = bench.world.life.loop._p.driver
            seen = driver._parts.facts

            async def counted():
                looked.append("asked")
                return await seen()

            async def ahead(_):
                looked.append("ahead")
                if not works:
                    raise TemporaryError("the plant does not answer")
                return await seen()

            driver._parts = dataclasses.replace(driver._parts, facts=counted, ahead=ahead)

        bench.world.start = begin

    conclusion, _ = drive(tmp_path, several(RESTART, HALT), setup=setup)
    assert conclusion.outcome is Outcome.MENDED
    assert looked == ["ahead", *(["asked"] if works else ["asked", "asked"])]
