"""Questions to one Kafka broker over one connection of our own, and what it alone answers.

Clients ask whichever broker they know. Who watches a broker must ask that one: what the others say of it is three
seconds old, and one that hangs would not be missed. A handful of requests in versions that Kafka 2.8 to 4 all speak
(https://kafka.apache.org/protocol), each bounded by the connection's time-out; nothing is sent twice.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from kernel.errors import TemporaryError

MOST_BYTES: Final = 16 * 1024 * 1024
"""No answer to these questions is longer; what is has been misread."""
_CLIENT: Final = b"tapewatch-observer"
_METADATA, _LIST_OFFSETS, _OFFSET_FETCH, _DESCRIBE_GROUPS, _LIST_GROUPS = 3, 2, 9, 15, 16
_DESCRIBE_CONFIGS, _DESCRIBE_QUORUM = 32, 55
_OF_TOPIC: Final = 2
_LATEST: Final = -1
_T = TypeVar("_T")


class BrokerSilentError(TemporaryError):
    """The broker is not reached, does not answer in time, or answers what is no Kafka's."""


class Partition(msgspec.Struct, frozen=True):
    """One partition as a broker knows it."""

    leader: int
    """-1: none."""
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class Seen(msgspec.Struct, frozen=True):
    """What a broker knows of its cluster."""

    brokers: Mapping[int, tuple[str, int]]
    """Host and port of those that are registered and not fenced."""
    partitions: Mapping[tuple[str, int], Partition]
    """By topic and number."""


class Group(msgspec.Struct, frozen=True):
    """A group of consumers, as its coordinator knows it."""

    state: str
    """`Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`; `Dead` for one it does not know in this form."""
    members: Mapping[str, bytes]
    """By member id: what was assigned to it."""


class Quorum(msgspec.Struct, frozen=True):
    """Who leads the controllers."""

    leader: int
    """-1: nobody."""
    epoch: int
    """Grows with each election."""


class _Reader:
    """Reads an answer's fields in order."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, form: str) -> int:
        """Return a number of a `struct` form."""
        (value,) = struct.unpack_from(">" + form, self._data, self._at)
        self._at += struct.calcsize(">" + form)
        return int(value)

    def raw(self, size: int) -> bytes:
        """Return so many bytes."""
        if not 0 <= size <= len(self._data) - self._at:
            raise struct.error(f"{size} bytes are not there")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        """Return a string; one that is null is empty."""
        size = self.take("h")
        return self.raw(size).decode() if size > 0 else ""

    def blob(self) -> bytes:
        """Return bytes; null is none."""
        size = self.take("i")
        return self.raw(size) if size > 0 else b""

    def several(self, one: Callable[[], _T]) -> list[_T]:
        """Return an array."""
        return [one() for _ in range(self.take("i"))]

    def varint(self) -> int:
        """Return an unsigned number of seven bits a byte."""
        value, shift = 0, 0
        while True:
            byte = self.take("B")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says more follow
                return value
            shift += 7

    def compact(self, one: Callable[[], _T]) -> list[_T]:
        """Return an array of the newer form."""
        return [one() for _ in range(self.varint() - 1)]

    def skip_tags(self) -> None:
        """Pass by fields that only newer brokers know."""
        for _ in range(self.varint()):
            self.varint()
            self.raw(self.varint())


class BrokerLine:
    """A connection to one broker, made when it is needed and made anew after anything that failed."""

    def __init__(self, host: str, port: int, *, timeout_s: float) -> None:
        """Nothing is sent yet; `timeout_s` bounds each question, connecting included."""
        self._address, self._timeout_s = (host, port), timeout_s
        self._socket: socket.socket | None = None
        self._number = 0

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    # --- questions --------------------------------------------------------------------------------------------------
    # Each raises BrokerSilentError.

    def seen(self) -> Seen:
        """Ask what the broker knows of its cluster and of every topic."""
        answer = self._ask(_METADATA, 7, struct.pack(">ib", -1, 0))
        return self._read(answer, _seen)

    def quorum(self) -> Quorum:
        """Ask who leads the controllers; the broker passes the question on to whom it takes for the leader."""
        name = b"__cluster_metadata"
        topic = bytes([len(name) + 1]) + name + b"\x02" + struct.pack(">i", 0) + b"\x00\x00"
        answer = self._ask(_DESCRIBE_QUORUM, 1, b"\x02" + topic + b"\x00", flexible=True)
        return self._read(answer, _quorum)

    def groups(self) -> list[str]:
        """Return the groups whose coordinator this broker is."""
        return self._read(self._ask(_LIST_GROUPS, 1, b""), _group_ids)

    def group(self, group: str) -> Group:
        """Return one group whose coordinator this broker is."""
        return self._read(self._ask(_DESCRIBE_GROUPS, 1, _array([_text(group)])), _group)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return by topic and partition up to where a group has said that it is done."""
        return self._read(self._ask(_OFFSET_FETCH, 5, _text(group) + struct.pack(">i", -1)), _committed)

    def ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where partitions end that this broker leads: the number the next record will have."""
        wanted = [_text(topic) + _array([struct.pack(">iq", number, _LATEST)]) for topic, number in sorted(partitions)]
        return self._read(self._ask(_LIST_OFFSETS, 1, struct.pack(">i", -1) + _array(wanted)), _ends)

    def needed(self, topics: Iterable[str]) -> dict[str, int]:
        """Return by topic how many copies must have a record before it counts (`min.insync.replicas`)."""
        wanted = [
            struct.pack(">b", _OF_TOPIC) + _text(topic) + _array([_text("min.insync.replicas")])
            for topic in sorted(topics)
        ]
        return self._read(self._ask(_DESCRIBE_CONFIGS, 1, _array(wanted) + b"\x00"), _needed)

    # --- within -----------------------------------------------------------------------------------------------------

    def _ask(self, key: int, version: int, body: bytes, *, flexible: bool = False) -> _Reader:
        """Send a request and return its answer behind the header."""
        until = time.monotonic() + self._timeout_s
        self._number = (self._number + 1) & 0x7FFFFFFF
        head = struct.pack(">hhih", key, version, self._number, len(_CLIENT)) + _CLIENT + b"\x00" * flexible
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, self._timeout_s)
            self._socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
            reader = self._answer(until)
            if flexible:
                reader.skip_tags()
        except (OSError, struct.error) as error:
            # What is still to come would be taken for the answer to the next question.
            self.close()
            host, port = self._address
            raise BrokerSilentError(f"the broker at {host}:{port} does not answer: {error}") from error
        return reader

    def _answer(self, until: float) -> _Reader:
        (size,) = struct.unpack(">i", self._receive(4, until))
        if not 4 <= size <= MOST_BYTES:  # noqa: PLR2004 - the header
            raise struct.error(f"an answer of {size} bytes")
        reader = _Reader(self._receive(size, until))
        if reader.take("i") != self._number:
            raise struct.error("the answer to another question")
        return reader

    def _receive(self, size: int, until: float) -> bytes:
        assert self._socket is not None, "connected before"
        parts = bytearray()
        while len(parts) < size:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing whole within {self._timeout_s:g} s")
            self._socket.settimeout(left)
            part = self._socket.recv(min(size - len(parts), 65_536))
            if not part:
                raise ConnectionError("it hung up")
            parts += part
        return bytes(parts)

    def _read(self, answer: _Reader, how: Callable[[_Reader], _T]) -> _T:
        try:
            return how(answer)
        except (struct.error, UnicodeDecodeError) as error:
            self.close()
            host, port = self._address
            raise BrokerSilentError(f"the broker at {host}:{port} answers what cannot be read: {error}") from error


# --- the form of questions and answers --------------------------------------------------------------------------------


def _text(word: str) -> bytes:
    data = word.encode()
    return struct.pack(">h", len(data)) + data


def _array(parts: Sequence[bytes]) -> bytes:
    return struct.pack(">i", len(parts)) + b"".join(parts)


def _seen(answer: _Reader) -> Seen:
    answer.take("i")  # how long it would have us wait

    def broker() -> tuple[int, tuple[str, int]]:
        number, host, port = answer.take("i"), answer.text(), answer.take("i")
        answer.text()  # its rack
        return number, (host, port)

    brokers = dict(answer.several(broker))
    answer.text()  # the cluster's id
    answer.take("i")  # "controller": with KRaft any broker that lives, see `quorum`
    partitions: dict[tuple[str, int], Partition] = {}

    def numbers() -> tuple[int, ...]:
        return tuple(answer.several(lambda: answer.take("i")))

    def topic() -> None:
        answer.take("h")
        name = answer.text()
        answer.take("b")

        def partition() -> None:
            answer.take("h")
            number, leader = answer.take("i"), answer.take("i")
            answer.take("i")  # the leader's epoch
            partitions[name, number] = Partition(leader, numbers(), numbers())
            numbers()  # replicas on brokers that are gone

        answer.several(partition)

    answer.several(topic)
    return Seen(brokers, MappingProxyType(partitions))


def _quorum(answer: _Reader) -> Quorum:
    wrong = answer.take("h")
    found: list[Quorum] = []

    def partition() -> None:
        answer.take("i")
        bad, leader, epoch = answer.take("h"), answer.take("i"), answer.take("i")
        answer.take("q")  # up to where a majority has it
        for _ in range(2):  # voters, then observers
            answer.compact(replica)
        answer.skip_tags()
        found.append(Quorum(-1 if bad else leader, epoch))

    def replica() -> None:
        answer.raw(4 + 8 + 8 + 8)
        answer.skip_tags()

    def topic() -> None:
        answer.raw(answer.varint() - 1)
        answer.compact(partition)
        answer.skip_tags()

    answer.compact(topic)
    return Quorum(-1, -1) if wrong or not found else found[0]


def _group_ids(answer: _Reader) -> list[str]:
    answer.take("i")
    answer.take("h")

    def one() -> str:
        name = answer.text()
        answer.text()
        return name

    return answer.several(one)


def _group(answer: _Reader) -> Group:
    answer.take("i")

    def member() -> tuple[str, bytes]:
        name = answer.text()
        answer.text()
        answer.text()
        answer.blob()
        return name, answer.blob()

    def one() -> Group:
        wrong = answer.take("h")
        answer.text()
        state = answer.text()
        answer.text()
        answer.text()
        members = dict(answer.several(member))
        return Group("Dead" if wrong else state, members)

    told = answer.several(one)
    return told[0] if told else Group("Dead", {})


def _committed(answer: _Reader) -> dict[tuple[str, int], int]:
    answer.take("i")
    found: dict[tuple[str, int], int] = {}

    def topic() -> None:
        name = answer.text()

        def partition() -> None:
            number, offset = answer.take("i"), answer.take("q")
            answer.take("i")
            answer.text()
            if not answer.take("h") and offset >= 0:
                found[name, number] = offset

        answer.several(partition)

    answer.several(topic)
    return found


def _ends(answer: _Reader) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}

    def topic() -> None:
        name = answer.text()

        def partition() -> None:
            number, wrong = answer.take("i"), answer.take("h")
            answer.take("q")
            offset = answer.take("q")
            if not wrong and offset >= 0:
                found[name, number] = offset

        answer.several(partition)

    answer.several(topic)
    return found


def _needed(answer: _Reader) -> dict[str, int]:
    answer.take("i")
    found: dict[str, int] = {}

    def result() -> None:
        answer.take("h")
        answer.text()
        answer.take("b")
        topic = answer.text()

        def synonym() -> None:
            answer.text()
            answer.text()
            answer.take("b")

        def config() -> None:
            name, value = answer.text(), answer.text()
            answer.raw(3)  # read only, from where, secret
            answer.several(synonym)
            if name == "min.insync.replicas" and value.isdecimal():
                found[topic] = int(value)

        answer.several(config)

    answer.several(result)
    return found
