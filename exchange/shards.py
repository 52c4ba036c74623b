"""Which part of the exchange a symbol belongs to: one engine for each part, one part a partition of the journal.

A symbol has one place, told by a hash that is ours and never changes: a client library of another language that
spreads keys in its own way would part the orders of a book. What names no symbol (money, the kill switch, the session,
a halt of the whole market) concerns every part, so that each engine is told it and writes it in its own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from exchange.events import Event
from exchange.types import Instrument, Symbol
from kernel.errors import InputError

MAX_PARTITIONS: Final = 64
_ID_BITS: Final = 47
"""So many leave 64 partitions room in 53 bits, which every reader of JSON keeps whole."""


_IDS: Final = ("order_id", "maker_order_id", "taker_order_id", "trade_id")


class _Keyed(msgspec.Struct):
    """What a command's record says of its symbol, whatever kind it is."""

    symbol: str | None = None


class _Record(msgspec.Struct):
    command: _Keyed


_RECORD: Final = msgspec.msgpack.Decoder(_Record)


def partition_of(symbol: Symbol, partitions: int) -> int:
    """Return the part, from 0, that `symbol` belongs to, of so many: BLAKE2b-64 of its UTF-8 bytes, modulo.

    A checksum would put AAA, BBB and CCC together: what is alike in names is alike in its low bits.
    """
    return int.from_bytes(blake2b(symbol.encode(), digest_size=8).digest(), "big") % partitions


def instruments_of(instruments: Sequence[Instrument], partition: int, partitions: int) -> tuple[Instrument, ...]:
    """Return what the engine of one part trades.

    Raises:
        InputError: there is no such part, or nothing falls into it.
    """
    where = f"partition {partition} of {partitions}"
    if not 0 <= partition < partitions <= MAX_PARTITIONS:
        raise InputError(where, "is none", right=f"1 to {MAX_PARTITIONS} partitions, counted from 0")
    mine = tuple(one for one in instruments if partition_of(one.symbol, partitions) == partition)
    if not mine:
        raise InputError(where, f"none of the {len(instruments)} symbols belongs to it", right="take fewer partitions")
    return mine


def engine_of(partition: int) -> str:
    """Return the name of the engine that has a partition.

    >>> engine_of(0), engine_of(1)
    ('engine-1', 'engine-2')
    """
    return f"engine-{partition + 1}"


def engine_label(symbol: Symbol, engines: int) -> str:
    """Return which of several engines has a symbol, as the label of a metric: none where there is one."""
    return "" if engines == 1 else engine_of(partition_of(symbol, engines))


def engine_labels(engines: int) -> list[str]:
    """Return the labels of all engines, in the order of their partitions.

    >>> engine_labels(2), engine_labels(1)
    (['engine-1', 'engine-2'], [''])
    """
    return [""] if engines == 1 else [engine_of(partition) for partition in range(engines)]


def key_of(payload: bytes) -> bytes:
    """Return the key of a command's record: its symbol, or nothing when it names none (also by an order's id).

    Raises:
        msgspec.MsgspecError: it is no command's record.
    """
    return (_RECORD.decode(payload).command.symbol or "").encode()


def whole_id(partition: int, number: int) -> int:
    """Return one number for an id (of a trade, of an order) that is counted in a partition: each engine begins at 1.

    That of partition 0 is the number itself, so that a plant with one engine keeps its ids.

    >>> whole_id(0, 7), whole_id(3, 7) >> 47, whole_id(3, 7) & 0xFF
    (7, 3, 7)
    """
    assert 0 <= partition < MAX_PARTITIONS, f"there is no partition {partition}"
    assert 0 <= number < 1 << _ID_BITS, f"{number} is no id of an engine"
    return partition << _ID_BITS | number


def partition_of_id(number: int) -> int:
    """Return the partition that an id of `whole_id` was counted in.

    >>> partition_of_id(whole_id(3, 7)), partition_of_id(7)
    (3, 0)
    """
    return number >> _ID_BITS


def made_whole(partition: int, event: Event) -> Event:
    """Return what an engine said with every id in it made whole (`whole_id`)."""
    if partition == 0:
        return event
    ids = {name: whole_id(partition, getattr(event, name)) for name in _IDS if name in event.__struct_fields__}
    return msgspec.structs.replace(event, **ids) if ids else event


def whole_hash(hashes: Sequence[str]) -> str:
    """Return one digest for the states of all parts, in their order: that of the only one, else a digest of theirs.

    >>> whole_hash(["ab"]), len(whole_hash(["ab", "cd"]))
    ('ab', 64)
    """
    if len(hashes) == 1:
        return hashes[0]
    return blake2b(" ".join(hashes).encode(), digest_size=32).hexdigest()


def ids_of(partition: int) -> tuple[int, int]:
    """Return the first and the last id that a partition can have.

    >>> [partition_of_id(one) for one in ids_of(3)]
    [3, 3]
    """
    return whole_id(partition, 0), whole_id(partition, (1 << _ID_BITS) - 1)
