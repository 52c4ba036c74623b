"""Each way a load can be told something wrong is found in its account."""

from __future__ import annotations

import msgspec
import pytest

from exchange.accounting import LoadLine, Replayed, account, replayed, together
from exchange.answers import OrderAnswer, Status
from exchange.commands import MassCancel, ParticipantCommand, Sequenced
from exchange.engine import Engine
from exchange.ports import ClientOutcome
from exchange.shards import whole_id
from exchange.types import AccountId, ClientId
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS, order

JOURNAL = replayed(
    Engine(INSTRUMENTS),
    [
        Sequenced(seq, Instant(seq), command)
        for seq, command in enumerate((order("a"), order("bad", price=9_999), order("c")), 1)
    ],
)


def line(client_id: str, outcome: ClientOutcome, answer: OrderAnswer | None = None) -> LoadLine:
    when = Instant(1)
    return LoadLine(AccountId("ann"), ClientId(client_id), "place", when, when, when, outcome, 1, answer)


def test_what_was_told_as_the_journal_says_is_clean():
    lines = [
        line("a", ClientOutcome.ACKNOWLEDGED, JOURNAL.answers["ann", "a"]),
        line("bad", ClientOutcome.REJECTED, JOURNAL.answers["ann", "bad"]),
        line("shed", ClientOutcome.REFUSED),
        line("c", ClientOutcome.UNKNOWN),
    ]
    found = account(lines, JOURNAL)
    assert found.clean
    assert (found.sent, found.acknowledged, found.rejected, found.refused, found.unknown) == (4, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("lines", "lost", "mismatched"),
    [
        ([line("gone", ClientOutcome.ACKNOWLEDGED)], 1, 0),
        ([line("c", ClientOutcome.REFUSED)], 0, 1),
        ([line("bad", ClientOutcome.ACKNOWLEDGED)], 0, 1),
        ([line("a", ClientOutcome.ACKNOWLEDGED, OrderAnswer(Status.ACCEPTED, 2, ClientId("a")))], 0, 1),
        ([line("a", ClientOutcome.ACKNOWLEDGED), line("a", ClientOutcome.ACKNOWLEDGED)], 0, 1),
    ],
)
def test_each_untruth_is_found_and_told(lines, lost, mismatched):
    found = account(lines, JOURNAL)
    assert (found.lost, found.mismatched) == (lost, mismatched)
    assert not found.clean
    assert found.examples


def test_a_request_carried_out_twice_is_found():
    twice = msgspec.structs.replace(JOURNAL, repeated={("ann", "a"): 2})
    found = account([line("a", ClientOutcome.ACKNOWLEDGED)], twice)
    assert found.duplicated == 1


def test_several_journals_are_one_account_and_ids_are_whole():
    parts = [
        replayed(Engine(INSTRUMENTS), [Sequenced(1, Instant(1), order(name))], partition)
        for partition, name in enumerate(("a", "b"))
    ]
    both = together(parts)
    assert [both.answers["ann", name].order_id for name in ("a", "b")] == [1, whole_id(1, 1)]
    told = [line(name, ClientOutcome.ACKNOWLEDGED, both.answers["ann", name]) for name in ("a", "b")]
    assert account(told, both).clean
    assert account(told, parts[0]).lost == 1


def test_one_order_that_two_engines_have_is_doubled_and_a_mass_cancel_of_everything_is_not():
    def part(partition: int, *commands: ParticipantCommand) -> Replayed:
        items = [Sequenced(seq, Instant(seq), command) for seq, command in enumerate(commands, 1)]
        return replayed(Engine(INSTRUMENTS), items, partition)

    cancel = MassCancel(AccountId("ann"), ClientId("all"))
    both = together([part(0, order("a"), cancel), part(1, order("a"), order("b"), cancel)])
    assert both.repeated == {("ann", "a"): 1}
    assert both.answers["ann", "all"].orders == 3
    assert account([line("a", ClientOutcome.UNKNOWN)], both).duplicated == 1
