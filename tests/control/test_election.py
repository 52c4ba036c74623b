"""The election's rules, one by one, without any clock but the one that is given."""

import asyncio

import msgspec
import pytest

from control.election import Create, Election, ElectionTuning, Look, Replace, Rest
from control.leader import FENCING, Leader, LeaderParts
from kernel.errors import TemporaryError
from kernel.time import DAY, SECOND, Instant, seconds
from runbooks.leases import LeaseRecord
from tests.sim.elections import MemoryLeases
from tests.sim.virtual import VirtualClock, run

TUNING = ElectionTuning()
WALL = Instant(1_000 * SECOND)


def held_by(holder, *, epoch=3, version="7", renewed_at=WALL):
    return LeaseRecord(
        holder=holder, epoch=epoch, renewed_at=renewed_at, duration_ns=seconds(15), resource_version=version
    )  # fmt: skip


def leading(now_ns=0):
    """One that took over at `now_ns`, in epoch 4."""
    one = Election("me", TUNING)
    one.read(held_by("", version="7"), now_ns)
    ask = one.next_ask(now_ns, WALL)
    assert isinstance(ask, Replace)
    one.sending(ask.record, now_ns)
    one.kept(msgspec.structs.replace(ask.record, resource_version="8"), now_ns)
    return one


def test_the_first_record_is_created_in_epoch_one():
    one = Election("me", TUNING)
    assert one.next_ask(0, WALL) == Look()
    one.read(None, 0)
    ask = one.next_ask(0, WALL)
    assert isinstance(ask, Create)
    assert (ask.record.holder, ask.record.epoch) == ("me", 1)
    assert not one.may_act(0), "it was only sent"


def test_the_lease_counts_from_when_the_renewal_was_sent_not_from_its_answer():
    one = Election("me", TUNING)
    one.read(None, 0)
    ask = one.next_ask(0, WALL)
    one.sending(ask.record, 0)
    one.kept(msgspec.structs.replace(ask.record, resource_version="1"), seconds(4))
    assert one.may_act(seconds(13) - 1)
    assert not one.may_act(seconds(13))
    assert "ran out" in one.why_not(seconds(13))


@pytest.mark.parametrize("off", [-DAY, DAY])
def test_others_judge_by_how_long_they_saw_no_change_and_not_by_the_times_in_it(off):
    one = Election("me", TUNING)
    one.read(held_by("other", renewed_at=Instant(WALL + off)), 0)
    assert one.next_ask(seconds(14.9), WALL) == Look()
    one.read(held_by("other", renewed_at=Instant(WALL + off)), seconds(14.9))
    ask = one.next_ask(seconds(15), WALL)
    assert isinstance(ask, Replace)
    assert ask.record.epoch == 4


def test_a_change_seen_starts_the_wait_anew():
    one = Election("me", TUNING)
    one.read(held_by("other", version="7"), 0)
    one.read(held_by("other", version="8"), seconds(10))
    assert one.next_ask(seconds(20), WALL) == Look()


def test_a_released_record_is_taken_at_once_in_the_next_epoch():
    one = leading()
    assert one.epoch == 4
    assert one.may_act(0)


def test_a_release_raises_the_epoch_too():
    one = leading()
    ask = one.release(seconds(1), WALL)
    assert ask is not None
    assert (ask.record.holder, ask.record.epoch, ask.record.resource_version) == ("", 5, "8")
    assert not one.may_act(seconds(1))
    assert one.release(seconds(1), WALL) is None


def test_a_lost_answer_is_believed_only_once_the_record_was_read_back():
    one = leading()
    ask = one.next_ask(seconds(5), WALL)
    one.sending(ask.record, seconds(5))
    one.unanswered(seconds(6))
    assert one.next_ask(seconds(6), WALL) == Rest(seconds(7))
    assert one.next_ask(seconds(7), WALL) == Look()
    assert one.good_until_ns == seconds(13), "nothing is believed yet"
    one.read(msgspec.structs.replace(ask.record, resource_version="9"), seconds(7))
    assert one.good_until_ns == seconds(18), "from when it was sent"


def test_a_lost_takeover_that_was_not_carried_out_is_tried_again_with_the_same_comparison():
    one = Election("me", TUNING)
    one.read(held_by("", version="7"), 0)
    ask = one.next_ask(0, WALL)
    one.sending(ask.record, 0)
    one.unanswered(0)
    one.read(held_by("", version="7"), seconds(1))
    assert not one.may_act(seconds(1))
    again = one.next_ask(seconds(1), WALL)
    assert again.record.resource_version == "7"
    assert again.record != ask.record, "each has a stamp of its own"


def test_who_finds_another_holder_leads_no_more_at_once():
    one = leading()
    one.sending(one.next_ask(seconds(5), WALL).record, seconds(5))
    one.conflict(seconds(5))
    assert one.next_ask(seconds(5), WALL) == Look()
    one.read(held_by("other", epoch=5, version="9"), seconds(5))
    assert not one.may_act(seconds(5))
    assert "other leads (epoch 5)" in one.why_not(seconds(5))


def test_the_same_name_from_another_life_is_not_believed():
    one = Election("me", TUNING)
    one.read(held_by("me"), 0)
    assert not one.may_act(0)
    assert isinstance(one.next_ask(0, WALL), Rest)
    ask = one.next_ask(seconds(15), WALL)
    one.read(held_by("me"), seconds(15))
    ask = one.next_ask(seconds(15), WALL)
    assert isinstance(ask, Replace)
    assert ask.record.epoch == 4


def test_a_record_that_was_removed_does_not_set_epochs_back():
    one = leading()
    one.conflict(seconds(5))
    one._known = False
    one.read(None, seconds(5))
    assert not one.may_act(seconds(5))
    ask = one.next_ask(seconds(5), WALL)
    assert isinstance(ask, Create)
    assert ask.record.epoch == 5


def test_a_lease_that_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="cannot be kept"):
        ElectionTuning(duration_ns=seconds(3), renew_ns=seconds(3))


# --- the driver ---------------------------------------------------------------------------------------------------


def stand(leases, told, *, fence=None, identity="me"):
    async def at_once(epoch):
        told.append(("fence", epoch))

    return Leader(
        LeaderParts(
            leases=leases, tuning=TUNING, identity=identity, fence=fence or at_once, clock=VirtualClock(),
            on_elected=lambda epoch: told.append(("elected", epoch)), on_deposed=lambda: told.append(("deposed",)),
            monotonic_ns=lambda: round(asyncio.get_running_loop().time() * SECOND),
        )
    )  # fmt: skip


async def stop(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_fence_stands_before_anybody_is_told():
    async def main():
        told, stands = [], asyncio.Event()

        async def fence(epoch):
            await stands.wait()

        leader = stand(MemoryLeases(), told, fence=fence)
        running = asyncio.create_task(leader.run())
        await asyncio.sleep(20)
        assert leader.why_not() == FENCING
        assert not told
        stands.set()
        await asyncio.sleep(1)
        assert told == [("elected", 1)]
        assert not leader.why_not()
        await stop(running)
        assert told == [("elected", 1), ("deposed",)]

    run(main())


def test_a_fence_that_fails_is_tried_again_while_the_lease_is_renewed():
    async def main():
        told, tries = [], []

        async def fence(epoch):
            tries.append(epoch)
            if len(tries) < 30:
                raise TemporaryError("not yet")

        leader = stand(MemoryLeases(), told, fence=fence)
        running = asyncio.create_task(leader.run())
        await asyncio.sleep(28)
        assert not told
        await asyncio.sleep(5)
        assert told == [("elected", 1)]
        await stop(running)

    run(main())


def test_a_leader_that_reaches_nobody_is_deposed_by_its_own_clock():
    async def main():
        told, leases = [], MemoryLeases()
        leader = stand(leases, told)
        running = asyncio.create_task(leader.run())
        await asyncio.sleep(1)

        async def silent(record):
            await asyncio.Event().wait()

        leases.replace = silent
        leases.read = asyncio.Event().wait
        await asyncio.sleep(11.9)
        assert told[-1] == ("elected", 1)
        await asyncio.sleep(0.2)
        assert told[-1] == ("deposed",)
        await stop(running)

    run(main())


def test_one_that_leads_again_in_its_old_epoch_is_told_so_again():
    async def main():
        told, leases = [], MemoryLeases()
        leader = stand(leases, told)
        running = asyncio.create_task(leader.run())
        await asyncio.sleep(1)
        whole, leases.replace = leases.replace, None

        async def down(record):
            raise TemporaryError("down")

        leases.replace = down
        await asyncio.sleep(20)
        leases.replace = whole
        await asyncio.sleep(10)
        assert [what[0] for what in told] == ["fence", "elected", "deposed", "fence", "elected"]
        await stop(running)

    run(main())


def test_the_next_one_leads_within_seconds_of_a_clean_leave():
    async def main():
        told, leases = [], MemoryLeases()
        first = asyncio.create_task(stand(leases, told, identity="first").run())
        await asyncio.sleep(1)
        second = asyncio.create_task(stand(leases, told, identity="second").run())
        await asyncio.sleep(1)
        await stop(first)
        await asyncio.sleep(5.1)
        assert leases.record.holder == "second"
        assert [record.epoch for record in leases.history if record.holder in {"", "second"}][:2] == [2, 3]
        await stop(second)

    run(main())
