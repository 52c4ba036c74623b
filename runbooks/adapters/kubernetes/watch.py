"""Following a kind of object: list, then watch, and begin anew when the thread is lost.

A watch may fall silent, break off, or be told that its version is gone (410). Each ends in a new list after a pause
that grows; between list and watch nothing is missed, because the watch begins at the list's own version. Bookmarks
move that version on without traffic.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from kernel.chance import stream as chance_stream
from kernel.errors import TapewatchError
from kernel.time import Clock, Instant
from runbooks.adapters.kubernetes.api import Api, ExpiredError, Refused

T = TypeVar("T")

SERVER_S: Final = 290
"""How long the server lets a watch live."""
IDLE_S: Final = 75.0
"""Without a line for so long (bookmarks come about every minute) the connection is taken for dead."""
PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 10.0
PAGE: Final = "500"


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Of an object, what following it needs."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Object(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] = ()


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Code(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class Watch(Generic[T]):
    """The objects of one kind as they are, kept by a thread of its own.

    `on_change(key, new)` is called in the event loop for every object that came or changed (`new`) or went (None); the
    key is `namespace/name`. `synced_at` is when the server last said anything: how old the picture may be.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        kind: type[T],
        clock: Clock,
        *,
        query: Mapping[str, str] | None = None,
        on_change: Callable[[str, T | None], None] | None = None,
        on_error: Callable[[TapewatchError], None] | None = None,
    ) -> None:
        """Follow the objects at `path` (such as `/apis/apps/v1/deployments`), decoded as `kind`."""
        self._api = api
        self._path = path
        self._decode = msgspec.json.Decoder(kind).decode
        self._clock = clock
        self._query = dict(query or {})
        self._on_change = on_change
        self._on_error = on_error
        self._stop = threading.Event()
        self._pauses = chance_stream(0, f"watch {path}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self.objects: dict[str, T] = {}
        self.synced_at = Instant(0)
        self.restarts = 0

    def start(self) -> None:
        """Begin following; must be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._follow, name=f"watch {self._path}", daemon=True).start()

    def stop(self) -> None:
        """Follow no longer; the thread ends with its next line or timeout."""
        self._stop.set()

    async def ready(self) -> None:
        """Wait until the first list is there."""
        await self._ready.wait()

    def _follow(self) -> None:
        pause_s = PAUSE_MIN_S
        while not self._stop.is_set():
            try:
                version = self._list()
                pause_s = PAUSE_MIN_S
                while not self._stop.is_set():
                    version = self._watch(version)
            except ExpiredError:
                self._tell(self._count_restart)
                continue  # the version is gone; a new list has a new one
            except TapewatchError as error:
                self._tell(self._failed, error)
            self._stop.wait(pause_s * (0.5 + self._pauses.random()))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _list(self) -> str:
        found: dict[str, T] = {}
        query = {**self._query, "limit": PAGE}
        while True:
            page = self._api.ask("GET", self._path, _List, None, "", query)
            for raw in page.items:
                found[_key(raw)] = self._decode(raw)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        self._tell(self._replace, found)
        return page.metadata.resource_version

    def _watch(self, version: str) -> str:
        """Watch until the server ends it; return the version to go on from."""
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(SERVER_S),
        }
        with contextlib.closing(self._api.stream(self._path, query, idle_s=IDLE_S)) as lines:
            for line in lines:
                if self._stop.is_set():
                    return version
                event = msgspec.json.decode(line, type=_Event)
                if event.type == "ERROR":
                    code = msgspec.json.decode(event.object, type=_Code)
                    raise ExpiredError(code.code, Refused(message=code.message), f"watch {self._path}")
                meta = msgspec.json.decode(event.object, type=_Object).metadata
                version = meta.resource_version
                self._tell(self._apply, event, meta)
        return version

    # --- in the event loop ------------------------------------------------------------------------------------------

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "start was called"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(call, *arguments)

    def _replace(self, found: dict[str, T]) -> None:
        gone = [key for key in self.objects if key not in found]
        changed = [key for key, new in found.items() if self.objects.get(key) != new]
        self.objects = found
        self.synced_at = self._clock.now()
        self._ready.set()
        for key in gone:
            self._say(key, None)
        for key in changed:
            self._say(key, found[key])

    def _apply(self, event: _Event, meta: Meta) -> None:
        self.synced_at = self._clock.now()
        if event.type == "BOOKMARK":
            return
        key = f"{meta.namespace}/{meta.name}"
        if event.type == "DELETED":
            self.objects.pop(key, None)
            self._say(key, None)
            return
        new = self._decode(event.object)
        self.objects[key] = new
        self._say(key, new)

    def _say(self, key: str, new: T | None) -> None:
        if self._on_change is not None:
            self._on_change(key, new)

    def _failed(self, error: TapewatchError) -> None:
        self.restarts += 1
        if self._on_error is not None:
            self._on_error(error)

    def _count_restart(self) -> None:
        self.restarts += 1


def _key(raw: msgspec.Raw) -> str:
    meta = msgspec.json.decode(raw, type=_Object).metadata
    return f"{meta.namespace}/{meta.name}"
