"""The shipper against naive oracles: whatever is appended, rotated, answered and crashed, each line ends up once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.shipper import Shipper, retry_dead
from kernel.errors import PermanentError
from kernel.time import SECOND, Instant, seconds
from monitor.adapters.fake_sink import FakeSink
from monitor.adapters.shipper_files import MAX_PIECE, DeadLetters, LogTail
from monitor.shipping import (
    LONGEST_LINE,
    LONGEST_WAIT,
    MAX_TRIES,
    Answer,
    Piece,
    Shipping,
    Verdict,
    identity,
    judge,
    wait,
)


class Clock:
    def __init__(self):
        self.at = Instant(1_000 * SECOND)

    def now(self):
        self.at = Instant(self.at + 60 * SECOND)
        return self.at


class Quiet:
    def __init__(self):
        self.notes, self.counts, self.stood = [], {}, []

    def counted(self, result, amount):
        self.counts[result] = self.counts.get(result, 0) + amount

    def standing(self, backlog_bytes, lag_s, up):
        self.stood.append((backlog_bytes, lag_s, up))

    def note(self, name, severity, **fields):
        self.notes.append((name, fields))


class Bed:
    """Logs, a sink, and a shipper that may die at any moment."""

    def __init__(self, root):
        self.logs, self.root = root / "logs", root
        self.logs.mkdir()
        self.sink, self.dead, self.told = FakeSink(), DeadLetters(root / "ship" / "dead.jsonl"), Quiet()
        self.written, self.number = [], 0
        self.start()

    def start(self):
        self.tail = LogTail(self.logs, self.root / "ship" / "state.json")
        self.shipper = Shipper(self.tail, self.sink, self.dead, self.told, Clock())

    def die(self):
        """As kill -9 does: nothing more is written, descriptors and locks go."""
        self.shipper._pool.shutdown(wait=True)
        self.tail.close()
        self.start()

    def append(self, name, *lines):
        with (self.logs / f"{name}.jsonl").open("ab") as file:
            for line in lines:
                self.number += 1
                file.write(b"%d " % self.number + line + b"\n")
                self.written.append(b"%d " % self.number + line)

    def rotate(self, name, keep=3):
        path = self.logs / f"{name}.jsonl"
        for number in range(keep, 0, -1):
            newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            if newer.exists():
                newer.replace(path.with_name(f"{path.name}.{number}"))

    def turn(self, times=1):
        for _ in range(times):
            self.shipper.turn()
            for future in list(self.shipper._under_way):
                future.exception(5)

    def finish(self):
        self.sink.script, self.sink.lose_answers, self.sink.read_only, self.sink.down = [], 0, False, False
        for _ in range(200):
            self.turn()
            if self.shipper.idle and not self.tail.backlog_bytes:
                break
        assert self.shipper.idle

    def close(self):
        self.shipper.close()

    @property
    def found(self):
        return sorted(
            [one.data for one in self.sink.documents.values()] + [one.piece().data for one in self.dead.all()]
        )


@pytest.fixture
def bed(tmp_path):
    made = Bed(tmp_path)
    yield made
    made.close()


ANSWERS = st.sampled_from([0, 0, 0, 429, 503, 500, 403, 401, 400])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["engine-1", "gateway-1"]), st.integers(1, 6)),
        st.tuples(st.just("rotate"), st.sampled_from(["engine-1", "gateway-1"])),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("die")),
        st.tuples(st.just("answers"), st.lists(ANSWERS, max_size=8)),
        st.tuples(st.just("silence"), st.integers(0, 2)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_line_ends_up_exactly_once_in_the_sink_or_among_the_dead_letters(steps):
    with tempfile.TemporaryDirectory() as root:
        bed = Bed(Path(root))
        rotated = 0
        for step, *given_ in steps:
            match step:
                case "append":
                    bed.append(given_[0], *[b"x" * (number * 7) for number in range(given_[1])])
                case "rotate" if rotated < 3:  # so that no file goes before a shipper that is down has seen it
                    rotated += 1
                    bed.rotate(given_[0])
                case "turn":
                    bed.turn(given_[0])
                case "die":
                    bed.die()
                case "answers":
                    bed.sink.script = [Answer(code, "whatever" if code else "") for code in given_[0]]
                case "silence":
                    bed.sink.lose_answers = given_[0]
        bed.finish()
        assert bed.found == sorted(bed.written)
        assert bed.shipper.done.lost == 0
        bed.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.sampled_from([201, 409, 429, 400, 500]), max_size=5)), max_size=40
    ),
)
def test_no_offset_is_committed_beyond_a_line_that_is_not_done(sizes, answers):
    shipping, at, done, now = Shipping(), 0, set(), Instant(0)
    taken, committed = [], 0
    under_way = {}
    for pick, codes in answers:
        now = Instant(now + seconds(60))
        while shipping.room and sizes:
            pieces = [Piece("f", "f", at + n, at + n + 1, b"%d" % (at + n)) for n in range(sizes.pop(0))]
            at += len(pieces)
            taken += pieces
            assert shipping.take(pieces, now) == ()
        under_way |= dict(shipping.due(now))
        if pick in under_way:
            pieces = under_way.pop(pick)
            if len(codes) < len(pieces):
                shipping.failed(pick, "", now)
            else:
                told = [Answer(code, "x") for code in codes[: len(pieces)]]
                counts = shipping.answered(pick, told, now)
                done |= {piece.offset for piece, code in zip(pieces, codes, strict=False) if code in {201, 409, 400}}
                done |= {one.piece.offset for one in counts.dead}
        committed = max(committed, shipping.commits().get("f", 0))
        assert all(offset in done for offset in range(committed))


@pytest.mark.parametrize(
    ("status", "kind", "reason", "verdict"),
    [
        (200, "", "", Verdict.STORED), (201, "", "", Verdict.STORED),
        (409, "version_conflict_engine_exception", "", Verdict.DUPLICATE),
        (429, "es_rejected_execution_exception", "", Verdict.LATER),
        (429, "cluster_block_exception", "flood-stage watermark", Verdict.LATER),
        (403, "cluster_block_exception", "read-only", Verdict.LATER), (403, "security_exception", "", Verdict.LATER),
        (503, "unavailable_shards_exception", "", Verdict.LATER),
        (400, "mapper_parsing_exception", "", Verdict.DEAD), (400, "document_parsing_exception", "", Verdict.DEAD),
        (400, "illegal_argument_exception", "pipeline with id [logs-exchange] does not exist", Verdict.LATER),
        (500, "null_pointer_exception", "", Verdict.UNKNOWN),
    ],
)  # fmt: skip
def test_each_answer_has_one_meaning(status, kind, reason, verdict):
    assert judge(Answer(status, kind, reason)) is verdict


def test_waits_double_up_to_a_bound():
    waits = [wait(tries) for tries in range(1, 40)]
    assert waits[1] == 2 * waits[0]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


def test_an_answer_nobody_knows_is_tried_again_and_then_kept_aside(bed):
    bed.append("engine-1", b"a")
    bed.sink.script = [Answer(500, "odd", "who knows")] * MAX_TRIES
    bed.turn(MAX_TRIES * 2 + 2)
    (letter,) = bed.dead.all()
    assert letter.reason == "500 odd: who knows"
    assert letter.piece().data == b"1 a"


def test_a_read_only_server_is_waited_for_and_loses_nothing(bed):
    bed.sink.read_only = True
    bed.append("engine-1", *[b"a"] * 50)
    bed.turn(40)
    assert bed.sink.documents == {}
    assert bed.dead.all() == []
    assert bed.told.stood[-1][0] > 0
    assert bed.told.stood[-1][2] is False
    assert "read-only" in bed.shipper.why
    bed.finish()
    assert len(bed.sink.documents) == 50


def test_memory_is_bounded_while_the_sink_is_down(bed):
    bed.append("engine-1", *[b"a" * 1_000] * 20_000)
    bed.sink.lose_answers = 10**6
    bed.turn(30)
    assert bed.shipper._shipping.pieces <= 4 * 2_000


def test_a_sink_that_is_not_set_up_is_sent_nothing(bed):
    bed.sink.ready = False
    bed.append("engine-1", b"a")
    bed.turn(3)
    assert bed.sink.documents == {}
    assert "tapewatch elk setup" in bed.shipper.why
    bed.sink.ready = True
    bed.finish()
    assert bed.found == bed.written


def test_a_torn_last_line_waits_for_its_end(bed):
    path = bed.logs / "engine-1.jsonl"
    path.write_bytes(b"one\ntw")
    bed.turn(4)
    assert bed.found == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\n")
    bed.finish()
    assert bed.found == [b"one", b"two"]


def test_a_torn_line_of_a_file_that_is_gone_is_sent_as_it_is(bed):
    path = bed.logs / "engine-1.jsonl"
    path.write_bytes(b"one\ntw")
    bed.turn(3)
    path.unlink()
    bed.finish()
    assert bed.found == [b"one", b"tw"]


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(bed):
    bed.sink.down = True
    bed.append("engine-1", b"a", b"b")
    bed.shipper._checked = True
    bed.turn(2)
    (bed.logs / "engine-1.jsonl").unlink()
    bed.finish()
    assert bed.found == bed.written
    assert bed.shipper.done.lost == 0


def test_what_went_while_nobody_read_is_counted_as_lost(bed):
    bed.sink.read_only = True
    bed.append("engine-1", b"a", b"b")
    bed.turn(2)
    bed.append("gateway-1", b"done")
    bed.tail.commit({})
    (bed.logs / "engine-1.jsonl").unlink()
    bed.die()
    bed.finish()
    assert (bed.tail.lost_files, bed.tail.lost_bytes) == (1, len(b"1 a\n2 b\n"))
    assert bed.told.counts["lost"] == 1
    assert "logs-lost" in [name for name, _ in bed.told.notes]


def test_a_file_cut_off_in_place_is_read_anew_and_what_was_not_read_counts(bed):
    bed.append("engine-1", b"first", b"second")
    bed.finish()
    path = bed.logs / "engine-1.jsonl"
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(b"another first line, longer than the whole of what was there before it\nand more\n")
    bed.finish()
    assert b"and more" in bed.found
    assert len(bed.found) == 4


def test_the_same_line_in_two_files_of_one_inode_is_two_documents():
    assert identity(7, b"10:00 started") != identity(7, b"11:00 started")
    assert Piece("a", "p", 0, 2, b"x").id == Piece("a", "p", 0, 2, b"x").id
    assert len({Piece("a", "p", 0, 2, b"x").id, Piece("b", "p", 0, 2, b"x").id, Piece("a", "p", 2, 4, b"x").id}) == 3


@pytest.mark.parametrize("size", [LONGEST_LINE + 1, MAX_PIECE - 1, MAX_PIECE + 1, 3 * MAX_PIECE + 5])
def test_a_line_too_long_is_kept_whole_as_dead_letters_and_the_next_one_is_shipped(bed, size):
    line = bytes(range(32, 127)) * (size // 95) + b"x" * (size % 95)
    (bed.logs / "engine-1.jsonl").write_bytes(b"before\n" + line + b"\nafter\n")
    bed.finish()
    assert sorted(one.data for one in bed.sink.documents.values()) == [b"after", b"before"]
    letters = sorted(bed.dead.all(), key=lambda one: one.offset)
    assert b"".join(one.piece().data for one in letters) == line


def test_blank_lines_are_nothing(bed):
    (bed.logs / "engine-1.jsonl").write_bytes(b"\n\na\n\n")
    bed.finish()
    assert bed.found == [b"a"]


def test_a_full_disk_under_the_dead_letters_commits_nothing(bed, monkeypatch):
    bed.sink.conflict = b"bad"
    bed.append("engine-1", b"bad")
    real = bed.dead.add
    monkeypatch.setattr(bed.dead, "add", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        bed.turn(3)
    with pytest.raises(OSError, match="full"):
        bed.turn()
    assert bed.tail._state.files[next(iter(bed.tail._state.files))].offset == 0
    monkeypatch.setattr(bed.dead, "add", real)
    bed.finish()
    assert bed.found == bed.written


def test_a_broken_state_means_sending_again_and_no_second_document(bed):
    bed.append("engine-1", b"a", b"b")
    bed.finish()
    (bed.root / "ship" / "state.json").write_bytes(b"{broken")
    bed.die()
    bed.finish()
    assert bed.found == bed.written
    assert bed.told.counts["duplicate"] == 2


def test_two_shippers_on_one_state_are_refused(bed):
    with pytest.raises(PermanentError, match="another shipper"):
        LogTail(bed.logs, bed.root / "ship" / "state.json")


def test_dead_letters_are_tried_again_and_go_when_they_are_taken(bed):
    bed.sink.conflict = b"bad"
    bed.append("engine-1", b"good", b"bad 1", b"bad 2")
    bed.finish()
    assert len(bed.dead.all()) == 2
    bed.sink.conflict = b"bad 2"
    sent, left = retry_dead(bed.dead, bed.sink)
    assert (sent, len(left)) == (1, 1)
    assert [one.piece().data for one in bed.dead.all()] == [b"3 bad 2"]


def test_a_state_that_survives_holds_places_and_not_lines(bed):
    bed.append("engine-1", b"secret words")
    bed.finish()
    assert b"secret words" not in (bed.root / "ship" / "state.json").read_bytes()


def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path):
    bed = Bed(tmp_path)
    shutil.rmtree(bed.logs)
    bed.turn(2)
    bed.logs.mkdir()
    bed.append("engine-1", b"a")
    bed.finish()
    assert bed.found == bed.written
    bed.close()
