"""A log-in at a broker by AMQP 0-9-1, without a client library's event loop: readiness by the protocol itself.

The method numbers and layouts are those of the protocol's specification, section 1.4 (class `connection`).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from control.addresses import HOST
from kernel.errors import PermanentError, TemporaryError

_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_METHOD: Final = 1
_END: Final = 0xCE
_CONNECTION: Final = 10
_START, _START_OK, _TUNE, _TUNE_OK, _OPEN, _OPEN_OK, _CLOSE = 10, 11, 30, 31, 40, 41, 50
_LARGEST: Final = 131_072


def log_in(port: int, user: str, password: str, vhost: str = "/", *, within_s: float = 1.0) -> None:
    """Open a connection to a virtual host as a user, and leave.

    Raises:
        TemporaryError: nobody answers in time, or in another protocol.
        PermanentError: the broker refuses.
    """
    until = time.monotonic() + within_s
    try:
        with socket.create_connection((HOST, port), timeout=within_s) as line:
            line.sendall(_HEADER)
            _expect(line, _START, until)
            answer = f"\x00{user}\x00{password}".encode()
            _say(line, _START_OK, _table() + _short("PLAIN") + struct.pack(">I", len(answer)) + answer + _short("C"))
            _expect(line, _TUNE, until)
            _say(line, _TUNE_OK, struct.pack(">HIH", 1, _LARGEST, 0))
            _say(line, _OPEN, _short(vhost) + _short("") + b"\x00")
            _expect(line, _OPEN_OK, until)
            _say(line, _CLOSE, struct.pack(">H", 200) + _short("seen") + struct.pack(">HH", 0, 0))
    except OSError as error:
        raise TemporaryError(f"no broker answers at port {port}: {error}") from error


def _table() -> bytes:
    """Properties of the client: that a refusal is to be said, rather than shown by hanging up."""
    entry = _short("authentication_failure_close") + b"t\x01"
    capabilities = _short("capabilities") + b"F" + struct.pack(">I", len(entry)) + entry
    return struct.pack(">I", len(capabilities)) + capabilities


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _say(line: socket.socket, method: int, arguments: bytes) -> None:
    payload = struct.pack(">HH", _CONNECTION, method) + arguments
    line.sendall(struct.pack(">BHI", _METHOD, 0, len(payload)) + payload + bytes([_END]))


def _expect(line: socket.socket, wanted: int, until: float) -> None:
    kind, _, size = struct.unpack(">BHI", _take(line, 7, until))
    if kind != _METHOD or size > _LARGEST:
        raise TemporaryError("what answers speaks another protocol, or another version of it")
    payload = _take(line, size + 1, until)
    group, method = struct.unpack(">HH", payload[:4])
    if (group, method) == (_CONNECTION, _CLOSE):
        code, length = struct.unpack(">HB", payload[4:7])
        raise PermanentError(f"the broker refuses: {code} {payload[7 : 7 + length].decode(errors='replace')}")
    if (group, method) != (_CONNECTION, wanted):
        raise TemporaryError(f"the broker answered with method {group}.{method}, not {_CONNECTION}.{wanted}")


def _take(line: socket.socket, size: int, until: float) -> bytes:
    data = b""
    while len(data) < size:
        line.settimeout(max(until - time.monotonic(), 0.001))
        part = line.recv(size - len(data))
        if not part:
            raise ConnectionError("it hung up")
        data += part
    return data
