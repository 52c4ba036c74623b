# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Snapshot and replay lead to the same state from every place of a journal, on every hash seed."""

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from exchange.adapters.file_log import FileLog, LogCorruptError, list_segments
from exchange.adapters.recovery import recover
from exchange.adapters.verify import main, verify
from exchange.commands import CloseSession, Halt, OpenSession, PlaceOrder, Resume, Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.journal import (
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Kind,
    decode_command,
    decode_events,
    encode_command,
    encode_events,
)
from exchange.recording import RecordingLog
from exchange.snapshot import SnapshotError, dump, load
from exchange.types import HaltReason, Instrument, TimeInForce
from kernel.errors import InputError, PermanentError
from tests.exchange.plant import paths

INSTRUMENTS = (Instrument("AAA", 1_000, 200), Instrument("BBB", 500, 100))


def script(count):
    """A day's commands with halts and a change of session, and the hash after each."""
    engine, flow, items, hashes = Engine(INSTRUMENTS), OrderFlow(7, INSTRUMENTS, ("p", "q", "r")), [], []
    admin = {
        count // 4: Halt("h", "AAA", HaltReason.OPERATOR),
        count // 3: Resume("r", "AAA"),
        count // 2: CloseSession("c"),
        count // 2 + 3: OpenSession("o"),
        count - 9: Halt("m", None, HaltReason.RECOVERY),
    }
    for seq in range(1, count + 1):
        item = Sequenced(seq, seq * 1_000, admin.get(seq) or next(flow))
        flow.observe(engine.apply(item))
        items.append(item)
        hashes.append(engine.state_hash())
    return items, hashes


@pytest.fixture(scope="module")
def day():
    return script(300)


def write(directory, items, segment_bytes=4_000):
    with FileLog(directory, segment_bytes=segment_bytes) as log:
        for item in items:
            log.append([encode_command(item)])
        log.sync()


def test_every_command_changes_the_hash(day):
    assert len(set(day[1])) == len(day[1])


def test_commands_survive_the_codec(day):
    for item in day[0]:
        assert decode_command(encode_command(item)) == item


def test_a_snapshot_anywhere_and_the_rest_of_the_journal_lead_to_the_same_end(day):
    items, hashes = day
    straight = Engine(INSTRUMENTS)
    for place, item in enumerate(items):
        straight.apply(item)
        again = load(dump(straight), INSTRUMENTS)
        assert again.state_hash() == hashes[place]
        for later in items[place + 1 : place + 6]:
            again.apply(later)
        assert again.state_hash() == hashes[min(place + 5, len(items) - 1)]


def test_the_hash_does_not_depend_on_when_it_was_asked_for(day):
    engine = Engine(INSTRUMENTS)
    for item in day[0]:
        engine.apply(item)
    assert engine.state_hash() == day[1][-1]


def test_verify_finds_the_hash_of_every_prefix(tmp_path, day):
    items, hashes = day
    write(tmp_path, items)
    assert len(list_segments(tmp_path)) > 3
    for until in range(1, len(items) + 1, 7):
        found = verify(tmp_path, INSTRUMENTS, until)
        assert (found.records, found.last_seq, found.state_hash) == (until, until, hashes[until - 1])
    assert verify(tmp_path, INSTRUMENTS, 0).state_hash == Engine(INSTRUMENTS).state_hash()
    with pytest.raises(PermanentError, match="ends at record 300, before 301"):
        verify(tmp_path, INSTRUMENTS, 301)


def test_verify_works_on_a_journal_in_use_and_counts_the_torn_tail(tmp_path, day):
    with FileLog(tmp_path) as log:
        log.append([encode_command(item) for item in day[0][:20]])
        with list_segments(tmp_path)[-1].path.open("ab") as file:
            file.write(b"TJ\x01\0")
        found = verify(tmp_path, INSTRUMENTS)
        assert (found.last_seq, found.state_hash, found.torn_bytes) == (20, day[1][19], 4)


def test_verify_refuses_damage_and_what_is_not_there(tmp_path, day):
    with pytest.raises(InputError, match="there is no journal here"):
        verify(tmp_path / "nothing", INSTRUMENTS)
    write(tmp_path, day[0])
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorruptError):
        verify(tmp_path, INSTRUMENTS)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_state_is_the_same_under_every_hash_seed(tmp_path, day, hash_seed):
    write(tmp_path / "journal", day[0])
    (tmp_path / "instruments.json").write_bytes(msgspec.json.encode(INSTRUMENTS))
    command = [sys.executable, "-m", "exchange.adapters.verify", tmp_path / "journal"]
    done = subprocess.run(
        [*command, "--until", "290", "--instruments", tmp_path / "instruments.json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["state_hash"] == day[1][289]


HASHES = """
import sys
from pathlib import Path
from exchange.adapters.file_log import read_records
from exchange.adapters.verify import read_instruments
from exchange.engine import Engine
from exchange.journal import decode_command
engine = Engine(read_instruments(Path(sys.argv[2])))
for record in read_records(Path(sys.argv[1])):
    engine.apply(decode_command(record.payload))
    print(engine.state_hash())
"""


@pytest.mark.parametrize("hash_seed", ["0", "271828"])
def test_every_prefix_has_the_same_hash_under_every_hash_seed(tmp_path, day, hash_seed):
    write(tmp_path / "journal", day[0])
    (tmp_path / "instruments.json").write_bytes(msgspec.json.encode(INSTRUMENTS))
    done = subprocess.run(
        [sys.executable, "-c", HASHES, tmp_path / "journal", tmp_path / "instruments.json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == day[1]


def recovered(root):
    """Return the hash of an engine that came back."""
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    with back.journal, back.events:
        return back.engine.sequence, back.engine.state_hash()


def test_an_engine_comes_back_from_a_journal_cut_at_every_byte_with_all_that_was_whole(tmp_path, day):
    items, hashes = day[0][:12], [Engine(INSTRUMENTS).state_hash(), *day[1][:12]]
    write(paths(tmp_path).journal, items)
    (segment,) = list_segments(paths(tmp_path).journal)
    data, sizes = segment.path.read_bytes(), [SEGMENT_HEAD_BYTES]
    for item in items:
        sizes.append(sizes[-1] + RECORD_OVERHEAD_BYTES + len(encode_command(item)))
    assert sizes[-1] == len(data)
    for size in range(len(data) + 1):
        segment.path.write_bytes(data[:size])
        whole = sum(size >= end for end in sizes[1:])
        assert recovered(tmp_path) == (whole, hashes[whole])
        shutil.rmtree(paths(tmp_path).events)


def test_no_engine_comes_back_from_a_journal_with_a_flipped_bit(tmp_path, day):
    write(paths(tmp_path).journal, day[0][:6])
    (segment,) = list_segments(paths(tmp_path).journal)
    data = segment.path.read_bytes()
    for place in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        segment.path.write_bytes(damaged)
        with pytest.raises(PermanentError, match=r"corrupt at byte|format version"):
            recovered(tmp_path)


def test_no_engine_comes_back_from_finished_segments_with_a_flipped_bit(tmp_path, day):
    """Their records' own checksums are not compared; that of the whole file in the manifest is."""
    write(paths(tmp_path).journal, day[0][:6], segment_bytes=200)
    segments = list_segments(paths(tmp_path).journal)
    assert len(segments) > 2
    for segment in segments[:-1]:
        data = segment.path.read_bytes()
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            segment.path.write_bytes(damaged)
            with pytest.raises(PermanentError, match=r"corrupt at byte|format version"):
                recovered(tmp_path)
        segment.path.write_bytes(data)
    assert recovered(tmp_path) == (6, day[1][5])


@pytest.mark.parametrize("segment_bytes", [4_000, 1 << 24])
def test_a_recovery_reads_every_segment_of_the_journal_once(tmp_path, day, segment_bytes, monkeypatch):
    write(paths(tmp_path).journal, day[0], segment_bytes)
    recovered(tmp_path)  # writes the event log
    read, opened = [], Path.open  # `read_bytes` opens, too
    monkeypatch.setattr(Path, "open", lambda path, *how, **more: read.append(path) or opened(path, *how, **more))
    assert recovered(tmp_path) == (300, day[1][-1])
    files = [one.path for one in list_segments(paths(tmp_path).journal)]
    assert sorted(path for path in read if path in files) == files


def same_end(root, until, told):
    """Recover, and hold state and event log against those of an engine that applied the commands one by one."""
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    with back.journal, back.events:
        assert back.engine.state_hash() == told[1][until - 1]
        assert back.engine.freeze() == told[2][until - 1]
        assert [decode_events(one.payload).events for one in back.events.replay()] == told[3][:until]


def test_prefixes_recover_to_the_same_state_with_the_event_log_whole_or_short_within_a_batch_or_gone(tmp_path, day):
    """Where the event log is whole the commands go through one loop that tells nothing; else each is told."""
    items, hashes = day
    engine, frozen, events = Engine(INSTRUMENTS), [], []
    for item in items:
        events.append(engine.apply(item))
        frozen.append(engine.freeze())
    for until in (1, 2, 77, 150, 151, 154, 300):
        root = tmp_path / str(until)
        write(paths(root).journal, items[:until], 1 << 24)
        for written in (0, until, until // 2):
            shutil.rmtree(paths(root).events, ignore_errors=True)
            with FileLog(paths(root).events, Kind.EVENTS) as log:
                told = zip(items[:written], events, strict=False)
                log.append([encode_events(Happened(item.seq, item.at, caused)) for item, caused in told])
            same_end(root, until, (items, hashes, frozen, events))


@pytest.mark.parametrize("told", [0, 9])
def test_a_record_that_holds_no_command_is_named_whether_its_events_were_told_or_not(tmp_path, day, told):
    with FileLog(paths(tmp_path).journal) as log:
        log.append([*map(encode_command, day[0][:5]), b"\x01", *map(encode_command, day[0][6:9])])
    with FileLog(paths(tmp_path).events, Kind.EVENTS) as log:
        log.append([b"\x00"] * told)
    with pytest.raises(PermanentError, match=r"record 6 holds no command of this version"):
        recovered(tmp_path)


@pytest.mark.parametrize("collects", [True, False])
def test_a_recovery_leaves_the_collector_as_it_was_and_nothing_beyond_its_reach(tmp_path, day, collects):
    write(paths(tmp_path).journal, day[0])
    frozen = gc.get_freeze_count()
    gc.enable() if collects else gc.disable()
    try:
        recovered(tmp_path)
        assert (gc.isenabled(), gc.get_freeze_count()) == (collects, frozen)
    finally:
        gc.enable()


def test_the_command_line_answers_bad_input_with_one_sentence(tmp_path, capsys):
    file = tmp_path / "instruments.json"
    assert main([str(tmp_path), "--instruments", str(file)]) == 1
    file.write_text('{"instruments": 3}')
    assert main([str(tmp_path), "--instruments", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(str(file) in line for line in lines)


def test_every_damaged_snapshot_is_refused(day):
    engine = Engine(INSTRUMENTS)
    for item in day[0][:20]:
        engine.apply(item)
    data = dump(engine)
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 0x04
        with pytest.raises(SnapshotError):
            load(bytes(damaged), INSTRUMENTS)
        with pytest.raises(SnapshotError):
            load(data[:index], INSTRUMENTS)


def as_of_version(version, data):
    """The snapshot that an earlier program would have written: without what it did not know yet."""
    frame, known, _ = msgspec.msgpack.decode(data[24:])
    frame[1].pop("market_remainder")
    if version < 3:
        frame[1].pop("max_trades_per_command")
        frame[11] = [book[:13] for book in frame[11]]
    body = msgspec.msgpack.encode([frame, known])
    checksum = hashlib.blake2b(version.to_bytes(2, "big") + body, digest_size=16).digest()
    return data[:6] + version.to_bytes(2, "big") + checksum + body


def outliving(item):
    """The same command; an order with a price does not end with its day."""
    if isinstance(item.command, PlaceOrder) and item.command.time_in_force is TimeInForce.DAY:
        lasting = msgspec.structs.replace(item.command, time_in_force=TimeInForce.GTC)
        return msgspec.structs.replace(item, command=lasting)
    return item


@pytest.mark.parametrize("version", [2, 3])
def test_a_snapshot_of_an_earlier_version_is_read_and_the_engine_goes_on_as_if_it_were_its_own(day, version):
    engine = Engine(INSTRUMENTS)
    items = [outliving(item) for item in day[0]]
    for item in items[:200]:
        engine.apply(item)
    assert engine.freeze().carried, "some orders of the first session lived to see the second"
    back = load(as_of_version(version, dump(engine)), INSTRUMENTS)
    assert back.freeze() == msgspec.structs.replace(engine.freeze(), carried=())
    assert [back.apply(item) for item in items[200:]] == [engine.apply(item) for item in items[200:]]
    again = load(dump(back), INSTRUMENTS)
    assert (again.freeze(), again.state_hash()) == (back.freeze(), back.state_hash())


def test_a_snapshot_of_other_instruments_or_another_version_is_refused(monkeypatch):
    data = dump(Engine(INSTRUMENTS))
    with pytest.raises(InputError, match="other instruments"):
        load(data, INSTRUMENTS[:1])
    with monkeypatch.context() as patched:
        patched.setattr("exchange.snapshot.VERSION", 5)
        later = dump(Engine(INSTRUMENTS))
    with pytest.raises(SnapshotError, match="is of version 5; this program reads version 4"):
        load(later, INSTRUMENTS)
