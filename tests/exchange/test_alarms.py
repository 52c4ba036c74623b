"""When alarms are posted: at once, again while they stand, long enough for the slow way, and once more at the end."""

from __future__ import annotations

import pathlib
import re

from control.alarms import alert_of
from exchange.alarms import HOLD, LEASE, REPOST, RETRY, AlarmBoard
from exchange.ports import Alarm, Raised
from exchange.types import Symbol
from kernel.time import SECOND, Instant

AAA = Symbol("AAA")
T = 1_000 * SECOND


def at(seconds: float) -> Instant:
    return Instant(T + round(seconds * SECOND))


def post(board: AlarmBoard, now: Instant, *, accepted: bool = True) -> tuple[Raised, ...]:
    due = board.due(now)
    board.posted(due, now, accepted=accepted)
    return due


def test_an_alarm_is_due_at_once_and_then_every_repost_with_its_end_ahead():
    board = AlarmBoard()
    assert board.raise_alarm(Alarm.SEQUENCE_GAP, AAA, at(0))
    assert not board.raise_alarm(Alarm.SEQUENCE_GAP, AAA, at(0))
    assert post(board, at(0)) == (Raised(Alarm.SEQUENCE_GAP, AAA, at(0), Instant(at(0) + LEASE)),)
    assert post(board, Instant(at(0) + REPOST - 1)) == ()
    assert len(post(board, Instant(at(0) + REPOST))) == 1


def test_an_alarm_that_cleared_at_once_still_stands_for_the_slow_way_and_ends_once():
    board = AlarmBoard()
    board.raise_alarm(Alarm.SEQUENCE_GAP, AAA, at(0))
    post(board, at(0))
    board.clear(Alarm.SEQUENCE_GAP, AAA)
    assert board.stands(Alarm.SEQUENCE_GAP, AAA, Instant(at(0) + HOLD - 1))
    over = Instant(at(0) + HOLD)
    assert not board.stands(Alarm.SEQUENCE_GAP, AAA, over)
    assert post(board, over) == (Raised(Alarm.SEQUENCE_GAP, AAA, at(0), over),)
    assert post(board, Instant(over + LEASE)) == ()


def test_an_alarm_that_holds_stands_beyond_its_hold():
    board = AlarmBoard()
    board.raise_alarm(Alarm.BOOK_CROSSED, AAA, at(0))
    assert board.stands(Alarm.BOOK_CROSSED, AAA, at(3600))


def test_a_post_that_was_not_accepted_is_due_again_soon_also_the_last_one():
    board = AlarmBoard()
    board.raise_alarm(Alarm.JOURNAL_FAILED, None, at(0))
    assert post(board, at(0), accepted=False)
    assert post(board, Instant(at(0) + RETRY - 1)) == ()
    assert post(board, Instant(at(0) + RETRY))
    board.clear(Alarm.JOURNAL_FAILED, None)
    over = at(11)
    assert post(board, over, accepted=False)
    assert post(board, Instant(over + RETRY))[0].ends_at == over + RETRY
    assert board.due(at(100)) == ()


def test_the_alarms_carry_exactly_the_labels_of_their_rules():
    rules = "\n".join(path.read_text() for path in sorted(pathlib.Path("alerts/rules").glob("*.yml")))
    for alarm in Alarm:
        block = re.search(rf"- alert: {alarm}\n(.*?)annotations:", rules, re.DOTALL)
        assert block is not None, f"no rule {alarm}"
        written = dict(re.findall(r"^\s+(\w+): \"?([\w-]+)\"?$", block[1].partition("labels:")[2], re.MULTILINE))
        symbol = None if alarm is Alarm.JOURNAL_FAILED else AAA
        labels = dict(alert_of(Raised(alarm, symbol, at(0), at(1))).labels)
        assert labels == written | {"alertname": alarm.value} | ({"symbol": "AAA"} if symbol else {})
