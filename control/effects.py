"""The journal of the estate's writes: one JSON line before each effect and one after it, so that no key acts twice.

Rule 1: the line is on the disk (fsync) before anything is touched. Writes are rare, so the loop waits for the disk;
        that also leaves no moment between the last look at the kill switch and the effect.
Rule 2: a torn last line is cut off (its write was never acknowledged); a broken line anywhere else is refused.
Rule 3: whatever was begun and not finished when the estate died is settled at the next start: the estate's end is
        also the end of every process, so a restart has happened and a change of replicas has not.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Self

import msgspec

from kernel.errors import InputError, PermanentError
from kernel.time import Instant
from runbooks.model import RefusalReason
from runbooks.ports import Effect, RefusedError

INTERRUPTED = "the estate ended meanwhile; the replica was started anew with it"


class Boot(msgspec.Struct, frozen=True, tag="boot", tag_field="phase"):
    """The estate was started."""

    at: Instant


class Begin(msgspec.Struct, frozen=True, tag="begin", tag_field="phase"):
    """A write is about to be carried out."""

    key: str
    workload: str
    request: str
    by: str
    at: Instant
    before: dict[str, str]


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="phase"):
    """A write was carried out."""

    key: str
    at: Instant
    after: dict[str, str]


class Dropped(msgspec.Struct, frozen=True, tag="dropped", tag_field="phase"):
    """A begun write did not happen: a rail stopped it, or it failed. Its key may be used again."""

    key: str
    at: Instant
    why: str


Record = Boot | Begin | Done | Dropped


class EffectLog:
    """The writes of an estate by key. Make one with `EffectLog.open`; close it at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun: dict[str, Begin] = {}
        self._done: dict[str, Done] = {}
        self._generations: Counter[str] = Counter()
        self._boots = 0

    @classmethod
    def open(cls, path: Path, *, at: Instant) -> Self:
        """Read the journal (making an empty one), settle what was cut short and note this start.

        Raises:
            InputError: a line that is not the last one is broken.
            PermanentError: the file cannot be opened or written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PermanentError(f"{path} cannot be opened for writing: {error.strerror}") from error
        log = cls(descriptor)
        try:
            log._read(path)
            log._settle(at)
        except BaseException:
            os.close(descriptor)
            raise
        return log

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)

    def generation(self, workload: str) -> int:
        """Return a number that grows with every write to a workload and every start of the estate."""
        return self._boots + self._generations[workload]

    def find(self, key: str) -> Effect | None:
        """Return what was done for a key, or None when nothing was."""
        begun, done = self._begun.get(key), self._done.get(key)
        if begun is None or done is None:
            return None
        return Effect(key, done.at, begun.before, done.after, repeated=True)

    def check(self, key: str, request: str) -> None:
        """Refuse a key that stands for another request.

        Raises:
            RefusedError: the key was used for something else.
        """
        begun = self._begun.get(key)
        if begun is not None and begun.request != request:
            raise RefusedError(
                RefusalReason.CONFLICT,
                f"key {key!r} was used for `{begun.request}`, not for `{request}`: use a new key",
            )

    def begin(self, begin: Begin) -> None:
        """Note that a write is about to be carried out; durable when this returns."""
        self._append(begin)
        self._apply(begin)

    def drop(self, key: str, why: str, at: Instant) -> None:
        """Note that a begun write did not happen."""
        record = Dropped(key, at, why)
        self._append(record)
        self._apply(record)

    def done(self, key: str, after: dict[str, str], at: Instant) -> Effect:
        """Note what a write changed; durable when this returns."""
        record = Done(key, at, after)
        self._append(record)
        self._apply(record)
        return Effect(key, at, self._begun[key].before, after)

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        offset = 0
        while offset < len(data):
            end = data.find(b"\n", offset)
            if end < 0:
                break
            try:
                record = msgspec.json.decode(data[offset:end], type=Record)
            except msgspec.DecodeError as error:
                raise InputError(
                    str(path),
                    f"the record at byte {offset} is broken ({error})",
                    right="move the file away to start without it",
                ) from error
            self._apply(record)
            offset = end + 1
        if offset < len(data):
            os.ftruncate(self._descriptor, offset)

    def _settle(self, at: Instant) -> None:
        for key, begun in list(self._begun.items()):
            if key in self._done:
                continue
            if begun.request.startswith("restart "):
                self.done(key, {"interrupted": INTERRUPTED}, at)
            else:
                self.drop(key, "the estate ended meanwhile", at)
        boot = Boot(at)
        self._append(boot)
        self._apply(boot)

    def _apply(self, record: Record) -> None:
        match record:
            case Boot():
                self._boots += 1
            case Begin():
                self._begun[record.key] = record
                self._generations[record.workload] += 1
            case Done():
                self._done[record.key] = record
            case Dropped():
                self._begun.pop(record.key, None)

    def _append(self, record: Record) -> None:
        try:
            os.write(self._descriptor, msgspec.json.encode(record) + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            raise PermanentError(
                f"the journal of effects cannot be written, so nothing was done: {error.strerror}"
            ) from error
