# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Messages: what was written long ago is read, what is not ours is told, and each symbol has its place for good."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.commands import CancelOrder, CloseSession, Fund, Halt, Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.journal import Kind, decode_command, decode_events, encode_command
from exchange.messages import OVERHEAD_BYTES, READABLE, SCHEMA_VERSION, MessageError, SchemaError, seal, unseal
from exchange.shards import instruments_of, key_of, partition_of
from exchange.types import HaltReason, Instrument, Side
from kernel.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "messages-1.txt"
"""Written by the journal's first code, of 23 November 2026, when commands and events had the fewest fields."""


def golden(kind):
    lines = [line.split() for line in GOLDEN.read_text().splitlines()]
    return [bytes.fromhex(data) for name, data in lines if name == kind]


def test_every_command_ever_written_is_read():
    items = [decode_command(unseal(data, Kind.COMMANDS).payload) for data in golden("commands")]
    assert [item.seq for item in items] == list(range(1, 14))
    assert items[0] == Sequenced(1, 1_000, PlaceOrder("ann", "a1", "AAA", Side.SELL, 5, Limit(1_000)))
    assert items[4].command == CancelOrder("ann", "x1", 2)
    assert items[7].command == Halt("h", None, HaltReason.OPERATOR)
    assert items[11].command == CloseSession("c")
    engine = Engine([Instrument("AAA", 1_000, 500), Instrument("BBB", 1_000, 500)])
    for item in items:
        engine.apply(item)
    assert engine.sequence == 13


def test_every_event_ever_written_is_read():
    items = [decode_events(unseal(data, Kind.EVENTS).payload) for data in golden("events")]
    assert [item.seq for item in items] == list(range(1, 14))
    assert {type(event).__name__ for item in items for event in item.events} >= {
        "Accepted", "Rested", "Traded", "Replaced", "Canceled", "Rejected", "Halted", "Resumed", "SessionClosed",
    }  # fmt: skip


def test_every_readable_version_has_messages_that_are_kept():
    kept = {int(path.stem.removeprefix("messages-")) for path in GOLDEN.parent.glob("messages-*")}
    assert kept == READABLE
    assert max(READABLE) == SCHEMA_VERSION
    for data in golden("commands") + golden("events"):
        assert data[2] == 1


def test_another_version_is_refused_by_name():
    data = golden("commands")[0]
    newer = bytearray(seal(Kind.COMMANDS, 1, data[OVERHEAD_BYTES:]))
    newer[2] = SCHEMA_VERSION + 1
    with pytest.raises(MessageError, match="checksum"):
        unseal(bytes(newer), Kind.COMMANDS)  # a flipped bit is no version
    with pytest.raises(SchemaError, match=f"schema version {SCHEMA_VERSION + 1}; this program reads 1") as caught:
        unseal(of_version(SCHEMA_VERSION + 1), Kind.COMMANDS)
    assert caught.value.version == SCHEMA_VERSION + 1


def of_version(version):
    """A whole message as a program of that version would write it."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("exchange.messages.SCHEMA_VERSION", version)
        return seal(Kind.COMMANDS, 1, b"payload")


@pytest.mark.parametrize("data", [None, b"", b"TM", b"x" * 200, b"{}" * 20])
def test_what_is_no_message_is_told(data):
    with pytest.raises(MessageError, match="no message of this exchange"):
        unseal(data, Kind.COMMANDS)


def test_a_message_of_another_kind_is_told():
    with pytest.raises(MessageError, match="of kind 2, where 1 was expected"):
        unseal(seal(Kind.EVENTS, 1, b"x"), Kind.COMMANDS)


@given(st.binary(max_size=60), st.integers(1, 2**64 - 1), st.data())
def test_every_flipped_bit_and_every_cut_is_told(payload, seq, data):
    message = seal(Kind.COMMANDS, seq, payload)
    assert unseal(message, Kind.COMMANDS) == (SCHEMA_VERSION, Kind.COMMANDS, seq, payload)
    place, bit = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(0, 7))
    spoiled = bytearray(message)
    spoiled[place] ^= 1 << bit
    for wrong in (bytes(spoiled), message[:place]):
        with pytest.raises(MessageError):
            unseal(wrong, Kind.COMMANDS)


def test_a_symbols_place_never_changes():
    # Figures of the day it was decided: another function would part the orders of a book.
    symbols = ["AAA", "BBB", "CCC", "ÄÖÜ", "ABC.D-1"]
    assert [partition_of(symbol, 8) for symbol in symbols] == PLACES
    assert [partition_of(symbol, 1) for symbol in symbols] == [0] * 5


PLACES = [7, 0, 5, 7, 4]


def test_the_parts_of_an_exchange_are_all_of_it_and_no_symbol_twice():
    instruments = [Instrument(f"S{number:03}", 1_000, 500) for number in range(64)]
    parts = [instruments_of(instruments, partition, 8) for partition in range(8)]
    assert sorted(one.symbol for part in parts for one in part) == sorted(one.symbol for one in instruments)
    with pytest.raises(InputError, match="none of the 1 symbols"):
        instruments_of(instruments[:1], 1 - partition_of("S000", 2), 2)
    for partition, partitions in ((2, 2), (-1, 2), (0, 0), (0, 65)):
        with pytest.raises(InputError, match="1 to 64 partitions"):
            instruments_of(instruments, partition, partitions)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (PlaceOrder("ann", "a", "AAA", Side.BUY, 1, Limit(1)), b"AAA"), (CancelOrder("ann", "b", 7), b""),
        (Halt("h", None, HaltReason.OPERATOR), b""), (Halt("h", "ÄÖ", HaltReason.OPERATOR), "ÄÖ".encode()),
        (Fund("f", "ann", "AAA", 5), b""),
    ],
)  # fmt: skip
def test_a_record_is_keyed_by_its_symbol_if_it_names_one(command, key):
    assert key_of(encode_command(Sequenced(1, 1, command))) == key
