"""Carrying a write out at most once for its key, whatever happens on the way.

1. The entry of the key is read: what is done is answered as it was, what is begun is found out from the cluster.
2. The plan is made on live facts and names them (generation, resource version, uid).
3. The entry is begun; only then one request is sent, compared with those facts by the API server.
4. An answer that was lost is never asked for by sending again: the cluster tells whether it was carried out.
5. The entry is done.

A crash between any two of these ends in step 1 of whoever asks next with the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeVar

import msgspec

from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import SECOND
from runbooks.adapters.kubernetes.api import (
    FIELD_MANAGER,
    JSON,
    Api,
    ApiError,
    BudgetBlockedError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NoAnswerError,
)
from runbooks.adapters.kubernetes.fence import FENCED, Fence, Stamp
from runbooks.adapters.kubernetes.finding import found
from runbooks.adapters.kubernetes.ledger import Entry, Ledger, Plan
from runbooks.model import RefusalReason
from runbooks.ports import BudgetError, Effect, RefusedError

T = TypeVar("T")

READ_BACK_S: Final = (0.0, 0.3, 1.0)
"""Pauses before each try to read back after a lost answer."""
_RIGHT: Final = re.compile(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?')
_DENIED: Final = re.compile(r"denied (?:the )?request: ?(.*)", re.DOTALL)


class Deed(Protocol):
    """One thing that can be done to a cluster."""

    @property
    def request(self) -> str:
        """What is asked for, in words: the same request has the same words."""
        ...

    async def plan(self, generation: int | None) -> Plan:
        """Decide on live facts; refuses what may not be done. Sends nothing."""
        ...

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Do it, and return the facts after it."""
        ...


class Sender:
    """The only way a write leaves for the plant: asked for leave right before, stamped, once."""

    def __init__(self, api: Api, stamp: Stamp, leave: Callable[[Stamp], None]) -> None:
        """Send for `stamp`; `leave` raises when nothing may be sent any more."""
        self._api = api
        self._leave = leave
        self.stamp = stamp

    async def send(
        self, method: str, path: str, body: dict[str, Any], kind: type[T], *, content_type: str = JSON, **query: str
    ) -> T:
        """Send one write; as `Api.send`.

        Raises:
            RefusedError: nothing may be sent any more.
        """
        self._leave(self.stamp)
        asked = {**self.stamp.query, **query}
        if method != "DELETE":
            body = self.stamp.on(body)
            asked.setdefault("fieldManager", FIELD_MANAGER)
        elif self.stamp.dry:
            # Of a deletion with a body the server reads the body's options alone: by the query it would be a real one.
            body = {**body, "dryRun": ["All"]}
        return await self._api.send(method, path, body, kind, content_type=content_type, **asked)


class Writer:
    """Carries deeds out."""

    def __init__(self, api: Api, ledger: Ledger, fence: Fence, forbidden: Callable[[], str]) -> None:
        """Write through `api`. `forbidden` says why nothing may be done now (the kill switch); empty: it may."""
        self._api = api
        self._ledger = ledger
        self._fence = fence
        self._forbidden = forbidden

    async def carry_out(self, deed: Deed, key: str, generation: int | None = None) -> Effect:
        """Carry a deed out at most once for `key`.

        Raises:
            RefusedError: a rail or the server forbids it; nothing was touched.
            BudgetError: a disruption budget allows nothing now; nothing was touched.
            TemporaryError: ask again with the same key; it was carried out at most once.
            PermanentError: asking again changes nothing.
        """
        stamp = self._fence.stamp(key)
        known = await said(self._ledger.read(key))
        if known is not None:
            self._ledger.check(known, deed.request)
        if known is None or known.phase == "dropped":
            self._leave(stamp)
            plan = await said(deed.plan(generation))
            entry, fresh = await said(self._ledger.begin(key, deed.request, plan, stamp.epoch))
        else:
            entry, fresh = known, False
        if entry.phase == "done":
            return entry.effect
        if not fresh and (after := await said(found(self._api, entry.plan, key))) is not None:
            done = await said(self._ledger.done(entry, {**entry.after, **after}))
            return msgspec.structs.replace(done, repeated=True)
        return await self._send(deed, entry, stamp, fresh=fresh)

    async def rehearse(self, deed: Deed) -> Sequence[str]:
        """Ask the server to check everything and keep nothing; return what would be done, in sentences.

        Raises:
            RefusedError: it would be refused.
        """
        stamp = self._fence.stamp("rehearsal", dry=True)
        plan = await said(deed.plan(None))
        try:
            await said(deed.send(plan, self._sender(stamp)))
        except BudgetError as error:
            raise RefusedError(RefusalReason.DISRUPTION_BUDGET, str(error)) from error
        return plan.told

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for a key, or None."""
        entry = await self._known(key)
        return entry.effect if entry is not None else None

    async def entry(self, key: str) -> Entry:
        """Return the entry of what was done for a key.

        Raises:
            PermanentError: nothing was done for it.
        """
        entry = await self._known(key)
        if entry is None:
            raise PermanentError(f"nothing was done for {key!r}")
        return entry

    async def _known(self, key: str) -> Entry | None:
        """Return the entry of a key if it is done; what was begun is found out and noted."""
        entry = await said(self._ledger.read(key))
        if entry is not None and entry.phase == "begun":
            after = await said(found(self._api, entry.plan, key))
            if after is None:
                return None
            await said(self._ledger.done(entry, {**entry.after, **after}))
            entry = await said(self._ledger.read(key))
        return entry if entry is not None and entry.phase == "done" else None

    def _leave(self, stamp: Stamp) -> None:
        if not stamp.dry and (why := self._forbidden()):
            raise RefusedError(RefusalReason.KILL_SWITCH, f"nothing was sent: {why}")
        if not stamp.dry:
            self._fence.check(stamp)

    def _sender(self, stamp: Stamp) -> Sender:
        return Sender(self._api, stamp, self._leave)

    async def _send(self, deed: Deed, entry: Entry, stamp: Stamp, *, fresh: bool) -> Effect:
        try:
            after = await said(deed.send(entry.plan, self._sender(stamp)))
        except TapewatchError as error:
            if isinstance(error, NoAnswerError) and error.may_be_done:
                after = await self._read_back(entry, error)
            else:
                # An earlier try of the same key may still be under way; only a first one is known to have done nothing.
                if fresh and not isinstance(error, UnfinishedError):
                    with contextlib.suppress(TapewatchError):  # it stays begun, which is as good: it is found out later
                        await self._ledger.drop(entry, str(error))
                raise
        return await said(self._ledger.done(entry, after))

    async def _read_back(self, entry: Entry, lost: NoAnswerError) -> dict[str, str]:
        """Find out whether a write without an answer was carried out.

        Raises:
            TemporaryError: it was not, or not yet, or that is not known.
        """
        for pause_s in READ_BACK_S:
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TemporaryError):  # no answer either; the next try, or the next asker, finds out
                if (after := await said(found(self._api, entry.plan, entry.key))) is not None:
                    return after
        words = f"whether `{entry.request}` was carried out is not known yet: {lost}"
        raise TemporaryError(words, retry_after=lost.retry_after) from lost


class UnfinishedError(BudgetError):
    """Some of it was carried out; asking again with the same key goes on."""

    touched: ClassVar[bool] = True


async def said(answer: Awaitable[T]) -> T:
    """Await an answer and put the API server's errors into words that say what to do.

    Raises:
        RefusedError: fenced off, denied by a policy, gone, or changed since.
        BudgetError: a disruption budget allows nothing now.
        PermanentError: a right is missing; names what to grant.
        TapewatchError: as it came.
    """
    try:
        return await answer
    except ApiError as error:
        raise _in_words(error) from error


def _in_words(error: ApiError) -> TapewatchError:
    told = error.refused.message or str(error)
    match error:
        case BudgetBlockedError():
            causes = "; ".join(cause.message for cause in error.refused.details.causes) or told
            return BudgetError(f"a disruption budget allows no disruption now: {causes}", retry_after=SECOND)
        case ForbiddenError():
            return _forbidden(error, told)
        case GoneError():
            return RefusedError(RefusalReason.NO_TARGET, f"it is gone: {told}")
        case ConflictError():
            return RefusedError(RefusalReason.CONFLICT, f"it has changed since: {told}")
        case _:
            return error


def _forbidden(error: ForbiddenError, told: str) -> TapewatchError:
    if FENCED in told:
        return RefusedError(RefusalReason.NOT_LEADER, f"the API server refused: {told[told.index(FENCED) :]}")
    if denied := _DENIED.search(told):
        return RefusedError(RefusalReason.NOT_ALLOWED, f"a policy of the cluster forbids it: {denied.group(1)}")
    if error.code == 401:  # noqa: PLR2004 - HTTP's own number
        return PermanentError("the API server does not accept our credentials (any more): renew them")
    if right := _RIGHT.search(told):
        verb, resource, group, namespace = right.groups()
        where = f"in the namespace {namespace}" if namespace else "in the cluster"
        named = f"{resource}.{group}" if group else resource
        return PermanentError(f"we may not {verb} {named} {where}: grant `{verb}` on `{named}` {where}")
    return error
