"""`LogIndices` in memory: what the contract of retention holds the real one to."""

from __future__ import annotations

from dataclasses import replace

from kernel.errors import PermanentError
from kernel.time import SECOND, Instant
from monitor.elk.retention import OURS, Index, Rolled, Stream


class FakeIndices:
    def __init__(self, clock):
        self.clock = clock
        self.kept = {}

    def add(self, stream, docs):
        if stream not in self.kept:
            self.kept[stream] = [Index(f".ds-{stream}-000001", Instant(self.clock()), 0, 0)]
        newest = self.kept[stream][-1]
        self.kept[stream][-1] = replace(newest, docs=newest.docs + docs, bytes=newest.bytes + 500 * docs)

    def streams(self):
        return tuple(Stream(name, tuple(self.kept[name])) for name in sorted(self.kept) if OURS.match(name))

    def roll(self, stream, limits, *, dry_run):
        if OURS.match(stream) is None:
            raise PermanentError(f"{stream} is no data stream of ours and is left alone")
        newest = self.kept[stream][-1]
        number = int(newest.name.rsplit("-", 1)[1]) + 1
        new = f".ds-{stream}-{number:06}"
        age_s = (self.clock() - newest.created_at) / SECOND
        met = tuple(
            sorted(
                [f"max_docs: {limits.max_docs}"] * (limits.max_docs is not None and newest.docs >= limits.max_docs)
                + ["max_size"] * (limits.max_bytes is not None and newest.bytes >= limits.max_bytes)
                + ["max_age"] * (limits.max_age_s is not None and age_s >= limits.max_age_s)
            )
        )
        if met and not dry_run:
            self.kept[stream].append(Index(new, Instant(self.clock()), 0, 0))
        return Rolled(stream, bool(met) and not dry_run, newest.name, new, met)

    def delete(self, index):
        if not index.startswith(".ds-logs-exchange."):
            raise PermanentError(f"{index} is no backing index of ours and is not deleted")
        for stream, indices in self.kept.items():
            if indices[-1].name == index:
                raise PermanentError(f"{index} is written")
            self.kept[stream] = [one for one in indices if one.name != index]
