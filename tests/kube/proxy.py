"""A loopback TCP proxy in front of the API server that loses answers on purpose. TLS passes through untouched."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal, Self

Mode = Literal["pass", "drop-response", "refuse", "stall"]


class Proxy:
    """Each connection is treated as `mode` says at the moment its bytes come; a context manager.

    `pass` forwards both ways. `drop-response` forwards requests and swallows the first answer, then cuts: the change is
    made, and the caller never learns of it. `refuse` accepts and cuts at once. `stall` accepts and forwards nothing.
    A kept-alive connection made under `pass` is subject to a later mode, too.
    """

    def __init__(self, port: int, *, hold_s: float = 0.3) -> None:
        """Stand before `port`; `hold_s` passes between a swallowed answer and the cut."""
        self.mode: Mode = "pass"
        self.swallowed_bytes = 0
        self._target, self._hold_s = port, hold_s
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut every connection and accept no more."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(5)

    def cut(self) -> None:
        """Cut every connection there is."""
        for each in list(self._open):
            _shut(each)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            line = _Line(near, far)
            for answers in (False, True):
                threading.Thread(target=self._pump, args=(line, answers), daemon=True).start()

    def _pump(self, line: _Line, answers: bool) -> None:
        source, sink = (line.far, line.near) if answers else (line.near, line.far)
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.mode == "stall":
                    continue
                if answers and line.asked and self.mode == "drop-response":
                    self._swallow(source, data)
                    break
                if not answers:
                    line.note(data)
                sink.sendall(data)
        _shut(source)
        _shut(sink)
        line.ends -= 1
        if not line.ends:
            for each in (source, sink):
                self._open.discard(each)
                each.close()

    def _swallow(self, source: socket.socket, data: bytes) -> None:
        """Swallow until nothing has come for a while: the first bytes may be a session ticket, not the answer."""
        source.settimeout(self._hold_s)
        while data:
            self.swallowed_bytes += len(data)
            data = source.recv(65_536)


class _Line:
    """One connection. `asked` once a request has been sent on it: the handshake must pass for anything to be asked."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far, self.ends = near, far, 2
        self.asked = False
        self._records, self._kept = 0, b""

    def note(self, data: bytes) -> None:
        """Count the client's records of application data: the first ends the handshake, the second is a request."""
        if self.asked:
            return
        self._kept += data
        while len(self._kept) >= 5 and len(self._kept) >= (end := 5 + int.from_bytes(self._kept[3:5])):
            self._records += self._kept[0] == 0x17
            self._kept = self._kept[end:]
        self.asked = self._records > 1


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
