"""Frames survive any cut of the stream; noise is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.commands import Halt
from exchange.protocol import (
    MAX_REQUEST_BYTES,
    FrameReader,
    FrameTooLongError,
    LookUp,
    Submit,
    Subscribe,
    frame,
    read_request,
)
from exchange.types import AccountId, ClientId, HaltReason
from tests.exchange.plant import order

MESSAGES = [Submit(1, order("a")), LookUp(2, AccountId("ann"), ClientId("a")), Subscribe(7), Submit(3, order("b"))]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_whole_however_the_stream_is_cut(sizes):
    data, reader, got = b"".join(map(frame, MESSAGES)), FrameReader(MAX_REQUEST_BYTES), []
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
def test_noise_is_no_message(noise):
    try:
        read_request(noise)
    except msgspec.DecodeError as error:
        assert str(error)


def test_an_operators_command_does_not_pass_through_the_participants_port():
    body = msgspec.msgpack.encode(
        {"type": "submit", "id": 1, "command": Halt(ClientId("h"), None, HaltReason.OPERATOR)}
    )
    with pytest.raises(msgspec.ValidationError):
        read_request(body)
