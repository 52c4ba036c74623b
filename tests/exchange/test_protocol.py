"""Frames survive any cut of the stream; noise is refused."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.commands import Halt, Limit, PlaceOrder
from exchange.protocol import (
    MAX_REQUEST_BYTES,
    MAX_SUBMITS,
    FrameReader,
    FrameTooLongError,
    LookUp,
    Submit,
    Submits,
    Subscribe,
    ToEngine,
    frame,
    read_request,
)
from exchange.types import (
    MAX_ID_LENGTH,
    AccountId,
    ClientId,
    HaltReason,
    Lots,
    SelfTrade,
    SessionId,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
)
from kernel.time import Instant
from tests.exchange.plant import order

MESSAGES: list[ToEngine] = [
    Submit(1, order("a")),
    LookUp(2, AccountId("ann"), ClientId("a")),
    Subscribe(7),
    Submit(3, order("b")),
    Submits(4, (order("c"), order("d")), {1: "a trace"}),
]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_whole_however_the_stream_is_cut(sizes):
    data, reader = b"".join(frame(message) for message in MESSAGES), FrameReader(MAX_REQUEST_BYTES)
    got: list[ToEngine] = []
    place, turn = 0, 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        got.extend(read_request(body) for body in reader.feed(data[place : place + size]))
        place, turn = place + size, turn + 1
    assert got == MESSAGES


def test_a_frame_that_announces_too_much_is_refused_before_it_is_kept():
    with pytest.raises(FrameTooLongError):
        list(FrameReader(100).feed(b"\0\0\1\0"))


@given(st.binary(max_size=100))
def test_noise_is_refused_in_one_way_only(noise):
    with contextlib.suppress(msgspec.DecodeError):
        read_request(noise)


def test_an_operators_command_does_not_pass_through_the_participants_port():
    body = msgspec.msgpack.encode(
        {"type": "submit", "id": 1, "command": Halt(ClientId("h"), None, HaltReason.OPERATOR)}
    )
    with pytest.raises(msgspec.ValidationError):
        read_request(body)


def test_as_many_commands_as_go_together_fit_into_a_request_however_long_their_names_are():
    name, most = "n" * MAX_ID_LENGTH, 2**53 - 1
    largest = PlaceOrder(
        AccountId(name), ClientId(name), Symbol(name), Side.SELL, Lots(most),
        Limit(Ticks(most), post_only=False, display=Lots(most), all_or_none=True), TimeInForce.GTT, Instant(2**63 - 1),
        SelfTrade.CANCEL_OLDEST, SessionId(name),
    )  # fmt: skip
    many = Submits(2**53, (largest,) * MAX_SUBMITS, dict.fromkeys(range(MAX_SUBMITS), "t" * 55))
    assert len(frame(many)) <= MAX_REQUEST_BYTES
