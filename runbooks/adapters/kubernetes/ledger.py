"""The ledger of effects: one entry for each key, shared by every controller, kept in the cluster itself.

An entry is a ConfigMap, because a write and its entry then share one fate: where the cluster can be written, the ledger
can. An entry is begun before its effect is sent and done after; what lies between is found out from the cluster.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final, Literal

import msgspec

from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import DAY, Clock, Duration, Instant
from runbooks.adapters.kubernetes.api import MERGE, Api, ConflictError, GoneError, NoAnswerError
from runbooks.adapters.kubernetes.fields import Field
from runbooks.adapters.kubernetes.objects import ConfigMap, Items, instant_of
from runbooks.model import RefusalReason
from runbooks.ports import Effect, RefusedError

NAMESPACE: Final = "tapewatch"
LABELS: Final = {"app.kubernetes.io/managed-by": "tapewatch", "app.kubernetes.io/component": "effect"}
PREFIX: Final = "effect-"
KEPT_FOR: Final = Duration(7 * DAY)
RECORD_MAX: Final = 256 * 1024
"""Bytes; a ConfigMap may hold four times as much."""
TRIES: Final = 4
_RECORD: Final = "record"

Mode = Literal["merge", "apply", "scale", "evict", "delete", "create", "drain"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a write will do, decided on facts that are named: all that is needed to send it, find it and restore it."""

    mode: Mode
    path: str = ""
    """Where the API server keeps the object."""
    what: str = ""
    """The object, for people."""
    uid: str = ""
    generation: int = 0
    """0: this kind of object counts none."""
    version: str = ""
    """The object's resource version."""
    fields: tuple[Field, ...] = ()
    """What is written; empty where that is no matter of fields."""
    pods: dict[str, str] = {}
    """Uids of pods by their paths: those to end (a drain), or those there were before one was ended."""
    selector: str = ""
    """How the pods are listed among which a successor is looked for."""
    body: dict[str, Any] = {}
    """What is created."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    told: tuple[str, ...] = ()
    """What a rehearsal says."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the write for one key."""

    key: str
    request: str
    phase: Literal["begun", "done", "dropped"]
    epoch: int
    begun_at: Instant
    plan: Plan
    by: str = ""
    """A number of its own for each begin: it tells our begin from another controller's."""
    ended_at: Instant = Instant(0)
    after: dict[str, str] = {}
    why: str = ""
    version: str = ""
    """The entry's own resource version; not part of the record."""

    @property
    def effect(self) -> Effect:
        """What was done, as an effect asked for again."""
        return Effect(self.key, self.ended_at, self.plan.before, self.after, repeated=True)


class Ledger:
    """The entries of one cluster."""

    def __init__(self, api: Api, clock: Clock, *, namespace: str = NAMESPACE) -> None:
        """Keep entries in `namespace`, which must exist."""
        self._api = api
        self._clock = clock
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"

    async def find(self, key: str) -> Effect | None:
        """Return what was done for a key, or None when nothing was (or that is not known yet).

        Raises:
            TapewatchError: the ledger cannot be read.
        """
        entry = await self.read(key)
        return entry.effect if entry is not None and entry.phase == "done" else None

    async def read(self, key: str) -> Entry | None:
        """Return the entry of a key.

        Raises:
            PermanentError: it is no entry of ours.
            TapewatchError: the ledger cannot be read.
        """
        try:
            found = await self._api.get(self._where(key), ConfigMap)
        except GoneError:
            return None
        entry = _entry(found)
        if entry is None or entry.key != key:
            raise PermanentError(f"the ledger's entry {_name(key)} is broken or of another key: a person must look")
        return entry

    def check(self, entry: Entry, request: str) -> None:
        """Refuse a key that stands for another request.

        Raises:
            RefusedError: `CONFLICT`.
        """
        if entry.request != request:
            words = f"key {entry.key!r} was used for `{entry.request}`, not for `{request}`: use a new key"
            raise RefusedError(RefusalReason.CONFLICT, words)

    async def begin(self, key: str, request: str, plan: Plan, epoch: int) -> tuple[Entry, bool]:
        """Note that a write is about to be sent; durable when this returns.

        Returns:
            The entry, and whether it was begun here. When not, somebody else was first: it may be done already.

        Raises:
            RefusedError: `CONFLICT`: the key stands for another request.
            PermanentError: the entry would be too large; nothing was done.
            TemporaryError: it is not known whether it is noted; nothing was done.
        """
        entry = Entry(
            key=key, request=request, phase="begun", epoch=epoch, begun_at=self._clock.now(), plan=plan,
            by=secrets.token_hex(8),
        )  # fmt: skip
        body = _body(entry)  # also measured: nothing is begun that could not be kept
        for _ in range(TRIES):
            try:
                return _kept(await self._api.send("POST", self._path, body, ConfigMap)), True
            except ConflictError:
                found = await self.read(key)
            except NoAnswerError as error:
                found = await self.read(key)
                if found is None:
                    words = f"the ledger does not answer, so nothing was done: {error}"
                    raise TemporaryError(words, retry_after=error.retry_after) from error
            if found is None:
                continue  # it went in between
            self.check(found, request)
            if found.by == entry.by:
                return found, True
            if found.phase != "dropped":
                return found, False
            if (renewed := await self._replace(found, entry)) is not None:
                return renewed, True
        raise TemporaryError(f"the ledger's entry of {key!r} keeps changing, so nothing was done")

    async def done(self, entry: Entry, after: dict[str, str]) -> Effect:
        """Note what a write changed; durable when this returns.

        Raises:
            TemporaryError: it is not noted yet; asking again with the same key finds out and notes it.
        """
        ended = msgspec.structs.replace(entry, phase="done", ended_at=self._clock.now(), after=after, why="")
        kept = await self._end(entry, ended)
        return msgspec.structs.replace(kept.effect, repeated=False)

    async def drop(self, entry: Entry, why: str) -> None:
        """Note that a begun write did not happen; its key may be used again for the same request.

        Raises:
            TemporaryError: it is not noted; asking again with the same key finds out.
        """
        await self._end(entry, msgspec.structs.replace(entry, phase="dropped", ended_at=self._clock.now(), why=why))

    async def sweep(self, now: Instant) -> int:
        """Remove entries that are older than a week, by our clock and the server's; return how many.

        Raises:
            TapewatchError: the ledger cannot be read or written.
        """
        labels = ",".join(f"{name}={value}" for name, value in LABELS.items())
        query = {"labelSelector": labels, "limit": "500"}
        removed = 0
        page = await self._api.get(self._path, Items[ConfigMap], **query)
        while True:
            for found in page.items:
                entry = _entry(found)
                made_at = instant_of(found.metadata.creation_timestamp) or now
                at = max(entry.begun_at, entry.ended_at, made_at) if entry is not None else made_at
                if found.metadata.name.startswith(PREFIX) and now - at > KEPT_FOR:
                    removed += await self._remove(found)
            if not page.metadata.continue_:
                return removed
            page = await self._api.get(self._path, Items[ConfigMap], **query, **{"continue": page.metadata.continue_})

    async def _remove(self, found: ConfigMap) -> int:
        meta = found.metadata
        seen = {"preconditions": {"uid": meta.uid, "resourceVersion": meta.resource_version}}
        try:
            await self._api.send("DELETE", f"{self._path}/{meta.name}", seen, msgspec.Raw)
        except (GoneError, ConflictError):
            return 0  # gone already, or used since
        return 1

    async def _end(self, entry: Entry, ended: Entry) -> Entry:
        """Replace an entry; whoever did so first is right."""
        last: TapewatchError | None = None
        for _ in range(TRIES):
            try:
                if (kept := await self._replace(entry, ended)) is not None:
                    return kept
            except NoAnswerError as error:
                last = error
            found = await self.read(entry.key)
            if found is None:
                raise PermanentError(f"the ledger's entry of {entry.key!r} was removed by somebody")
            if found.phase == "done" or (found.by, found.phase, found.after) == (ended.by, ended.phase, ended.after):
                return found
            entry = found
        raise TemporaryError(f"the ledger's entry of {entry.key!r} could not be written: {last or 'it keeps changing'}")

    async def _replace(self, old: Entry, new: Entry) -> Entry | None:
        """Replace an entry; None when it is not the one that was read."""
        body = _body(new)
        body["metadata"]["resourceVersion"] = old.version
        try:
            return _kept(await self._api.send("PATCH", self._where(new.key), body, ConfigMap, content_type=MERGE))
        except (ConflictError, GoneError):
            return None

    def _where(self, key: str) -> str:
        return f"{self._path}/{_name(key)}"


def _name(key: str) -> str:
    return PREFIX + hashlib.sha256(key.encode()).hexdigest()[:20]


def _body(entry: Entry) -> dict[str, Any]:
    record = msgspec.json.encode(msgspec.structs.replace(entry, version="")).decode()
    if len(record.encode()) > RECORD_MAX:
        words = (
            f"what `{entry.request}` would change is too large to be kept ({len(record)} bytes), so nothing was done"
        )
        raise PermanentError(words)
    meta = {"name": _name(entry.key), "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {_RECORD: record}}


def _entry(found: ConfigMap) -> Entry | None:
    try:
        entry = msgspec.json.decode(found.data.get(_RECORD, ""), type=Entry)
    except msgspec.DecodeError:
        return None
    return msgspec.structs.replace(entry, version=found.metadata.resource_version)


def _kept(found: ConfigMap) -> Entry:
    entry = _entry(found)
    assert entry is not None, "it is what we have just written"
    return entry
