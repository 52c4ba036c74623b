"""Neighbours move: a name is asked anew each time, and an address where nobody answers is given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from exchange.adapters import connection
from exchange.adapters.connection import connect
from exchange.adapters.engine_client import EngineClient, follow_events
from exchange.adapters.http import listen
from exchange.protocol import Books, Subscribe
from kernel.errors import PermanentError
from tests.exchange.plant import engine, eventually, order

NAME = "engine.exchange.svc"


class Names:
    """What names stand for, in place of a DNS; keeps who asked."""

    def __init__(self, loop):
        self.known, self.asked, self._resolve = {}, [], loop.getaddrinfo
        loop.getaddrinfo = self.resolve

    async def resolve(self, host, *rest, **more):
        self.asked.append(host)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return await self._resolve(self.known[host], *rest, **more)


@pytest.fixture
async def names():
    return Names(asyncio.get_running_loop())


@contextlib.contextmanager
def silent(host, port):
    """Listen so that the kernel answers nothing any more, like an address whose machine is gone."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filling.connect((host, port))
        yield


async def test_a_client_finds_the_engine_at_its_new_address(tmp_path, names, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    there = asyncio.Event()
    async with engine(tmp_path) as running:
        with silent("127.0.0.9", running.port):
            client = EngineClient(running.port, lambda now: there.set() if now else there.clear(), host=NAME)
            task = asyncio.create_task(client.run())
            await eventually(lambda: len(names.asked) > 2)  # no such name
            names.known[NAME] = "127.0.0.9"
            await asyncio.sleep(0.5)
            assert not client.connected
            asked = len(names.asked)
            await eventually(lambda: len(names.asked) > asked + 1)  # an address that swallows everything is given up
            names.known[NAME] = "127.0.0.1"
            await eventually(there.is_set)
            await client.submit(order("a"), 5.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_follower_finds_the_engine_at_its_new_address(tmp_path, names, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    async with engine(tmp_path) as running:
        with silent("127.0.0.9", running.port):
            names.known[NAME] = "127.0.0.9"
            stream = follow_events(running.port, lambda: Subscribe(books=True), lambda _connected: None, host=NAME)
            first = asyncio.create_task(anext(stream))
            await eventually(lambda: len(names.asked) > 1)
            names.known[NAME] = "127.0.0.1"
            assert isinstance(await asyncio.wait_for(first, 60), Books)
            await stream.aclose()


async def test_a_connection_to_a_machine_that_vanishes_breaks_after_seconds(tmp_path):
    async with engine(tmp_path) as running:
        _, writer = await connect("127.0.0.1", running.port)
        kernel = writer.get_extra_info("socket")
        assert kernel.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        writer.close()


async def test_an_engine_is_found_on_the_address_that_it_listens_on_and_on_no_other():
    with listen(0, "127.0.0.9") as listener:
        port = listener.getsockname()[1]
        _, writer = await connect("127.0.0.9", port)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", port)


def test_nobody_listens_beyond_loopback_who_was_not_told_to():
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_an_address_of_another_machine_is_one_sentence():
    with pytest.raises(PermanentError, match=r"cannot listen on 192\.0\.2\.1:0: .*; choose an address of this machine"):
        listen(0, "192.0.2.1")
