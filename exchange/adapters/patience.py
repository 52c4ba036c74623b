"""How long a server waits for those who send slowly, and how much it takes before they have said what they want.

uvicorn has a time for idle connections only: a request that trickles in is waited for without end, and a head without
end is gathered without end. Its protocol is extended here; what it parses and how stays its own.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_S: Final = 10.0
"""From a request's first byte to its last; 64 KiB in ten seconds is slower than any network an order comes by."""
MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers; a token has 4 KiB at most."""
CLOSE_S: Final = 1.0
"""What a client is given to read the last words before the connection is cut."""


def _last_words(status: str, words: str) -> bytes:
    body = f'{{"error":"{words}"}}'
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n{body}".encode()


_TOO_SLOW: Final = _last_words("408 Request Timeout", f"request: not whole after {REQUEST_S:.0f} seconds")
_TOO_LONG: Final = _last_words("431 Request Header Fields Too Large", f"headers: longer than {MAX_HEAD_BYTES} bytes")


class _WholeAnswer:
    """Joins an answer's head to its body, so that both go out in one write, or neither does.

    uvicorn writes one after the other. A process that is killed in between leaves half an answer behind, which nobody
    in front can take back and ask another gateway for; and the second write costs a system call for every order.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif self._begun:
            self._transport.write(data)
        else:
            self._begun, self._held = True, data
            self._loop.call_soon(self._flush)  # if no body follows at once

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        data, self._held = self._held, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)


class PatientHttp(HttpToolsProtocol):
    """An HTTP connection whose requests have to become whole in time, and whose heads are bounded."""

    _since = 0.0
    """When the request that is coming in began, by the loop's clock; 0: none is."""
    _head_bytes = 0
    """Of a head that is not whole yet."""
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request as long as for a later one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is the rest of a head without end."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._cut(_TOO_LONG)

    def on_message_begin(self) -> None:
        """Note when a request begins."""
        super().on_message_begin()
        self._since, self._head_bytes, self._in_head = self.loop.time(), 0, True

    def on_headers_complete(self) -> None:
        """Note that its head is whole."""
        self._in_head = False
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # it is the same where the request asks for a WebSocket
            self.cycle.transport = cast(asyncio.Transport, _WholeAnswer(self.transport, self.loop))

    def on_message_complete(self) -> None:
        """Note that it is whole."""
        self._since = 0.0
        super().on_message_complete()

    def look(self, now: float) -> None:
        """Cut a connection off whose request has been coming in for too long; called once a second or so."""
        if self._since and now - self._since > REQUEST_S:
            self._cut(_TOO_SLOW)

    def _cut(self, words: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head or not self.cycle.response_started:  # not into the middle of an answer
            self.transport.write(words)
        self.transport.close()
        self.loop.call_later(CLOSE_S, self.transport.abort)
