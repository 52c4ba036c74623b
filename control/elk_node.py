"""A local Elasticsearch for trials: kept by one process in a directory, stopped from elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psutil

from control.servers.elastic_node import Node
from kernel.errors import InputError, PermanentError

DIRECTORY: Final = Path(".tapewatch/elastic")
PORT: Final = 19200
_GRACE_S: Final = 30.0


class Kept(msgspec.Struct, frozen=True):
    """What is known of a node that runs."""

    pid: int
    """Of the process that keeps it."""
    started_at: float
    """That process's, so that another with its number is not taken for it."""
    url: str


def running(directory: Path) -> Kept | None:
    """Return the node that runs in a directory, if any."""
    try:
        kept = msgspec.json.decode((directory / "node.json").read_bytes(), type=Kept)
        alive = abs(psutil.Process(kept.pid).create_time() - kept.started_at) < 1
    except (OSError, msgspec.DecodeError, psutil.Error):
        return None
    return kept if alive else None


def keep(
    home: Path, directory: Path, announce: Callable[[Node], None], *, port: int = PORT, heap: str = "512m"
) -> None:
    """Run a node until this process is interrupted or told to end; its data stay.

    Raises:
        PermanentError: one runs there already, or the node cannot be started.
    """
    there = running(directory)
    if there is not None:
        raise PermanentError(f"an Elasticsearch runs in {directory} already (pid {there.pid}): {there.url}")
    directory.mkdir(parents=True, exist_ok=True)
    node = Node(home, directory, port=port, heap=heap)
    previous = signal.signal(signal.SIGTERM, _interrupted)
    try:
        node.start()
        me = Kept(os.getpid(), psutil.Process().create_time(), node.url)
        (directory / "node.json").write_bytes(msgspec.json.encode(me))
        announce(node)
        while node.pids:
            time.sleep(0.5)
        raise PermanentError(f"Elasticsearch ended: {node.last_words()}")
    except KeyboardInterrupt:
        node.stop()
    finally:
        signal.signal(signal.SIGTERM, previous)
        node.close()
        with contextlib.suppress(OSError):
            (directory / "node.json").unlink()


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def stop(directory: Path) -> int:
    """End the node that runs in a directory and wait for it; return its keeper's process id.

    Raises:
        InputError: none runs there.
        PermanentError: it did not end.
    """
    kept = running(directory)
    if kept is None:
        raise InputError(str(directory), "no Elasticsearch runs here", right="start one with `tapewatch elk up`")
    keeper = psutil.Process(kept.pid)
    keeper.terminate()
    try:
        keeper.wait(_GRACE_S)
    except psutil.TimeoutExpired:
        raise PermanentError(f"the process {kept.pid} that keeps it did not end in {_GRACE_S:.0f} s") from None
    return kept.pid
