"""Connections to neighbours: on this machine unless a host is named, and given up when nobody is there any more.

A name is resolved at every connection, never kept: behind it may stand another process, with another address.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
Address = tuple[str, int]
"""A host, by name or number, and a port."""
CONNECT_S: Final = 2.0
"""An address whose machine is gone answers nothing at all; the kernel alone would try it for two minutes."""
_READ_BYTES: Final = 64 * 1024
_LIVENESS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
)
"""A machine that vanishes closes nothing: after three seconds without a sign of its kernel the connection breaks."""


async def connect(
    host: str, port: int, *, limit: int = _READ_BYTES
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `host`, as it resolves now; `limit` is how many bytes are read ahead.

    Raises:
        OSError: there is no such name, nobody listens, or nothing answers within `CONNECT_S`.
    """
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(host, port, limit=limit)
    connection = writer.get_extra_info("socket")
    for level, option, value in _LIVENESS:
        connection.setsockopt(level, option, value)
    return reader, writer
